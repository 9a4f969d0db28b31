/* mhcpipe eval: the held-out loss of a model folder. */
#include <math.h>
#include <stdio.h>

#include "launch/session.h"
#include "runtime/run.h"

enum { MODEL_KEY = 'm' };

typedef struct arguments {
    const char *path, *model;
    mhp_overrides overrides;
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case MODEL_KEY:
        given->model = text;
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&given->overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "CONFIG", text, &given->path);
        return 0;
    case ARGP_KEY_END:
        if (!given->path || !given->model) {
            argp_error(state, "a CONFIG and --model expected");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"model", MODEL_KEY, "DIR", 0, "Folder with model.safetensors and config.json", 0},
    MHP_SET_OPTION,
    {0},
};

static const struct argp parser = {
    options, parse_option, "CONFIG",
    "Held-out loss of a model: data, ranks and schedule are the configuration's, the architecture "
    "is the model folder's.",
    NULL, NULL, NULL};

static mhp_status evaluate(mhp_session *session, const char *directory)
{
    mhp_status status = MHP_OK;
    mhp_config *config = &session->config;
    mhp_run *run = NULL;
    mhp_run_params params = {
        .trainer = {.comm = session->comm,
                    .model = &config->model,
                    .parallel = &config->parallel,
                    .schedule = &config->schedule,
                    .optimizer = &config->optimizer,
                    .train = &config->train,
                    .watchdog = session->watchdog},
        .data = &config->data,
        .eval = &config->eval,
        .checkpoint = &config->checkpoint,
    };
    double loss;

    status = mhp_model_config_read(directory, &config->model);
    MHP_TRY(out, mhp_comm_agree(session->comm, status, NULL));
    MHP_TRY(out, mhp_run_create(&params, &run));
    status = mhp_model_load(mhp_trainer_store(mhp_run_trainer(run)), directory);
    MHP_TRY(out, mhp_comm_agree(session->comm, status, NULL));
    MHP_TRY(out, mhp_run_evaluate(run, &loss));
    if (isnan(loss)) {
        status = mhp_error_set(MHP_ERR_CONFIG, "nothing is held out: expected data.split.held_out above 0");
        MHP_TRY(out, mhp_comm_agree(session->comm, status, NULL));
    }
    if (session->root) {
        printf("held-out loss %.6f nats a token (perplexity %.3f)\n", loss, exp(loss));
    }
out:
    mhp_run_end(run, status);
    return status;
}

int mhp_command_eval(int argc, char **argv)
{
    arguments given = {0};
    mhp_session session = {0};
    mhp_status status;

    mhp_parse_arguments(&parser, "eval", argc, argv, &given);
    status = mhp_session_open_watched(&session, given.path, &given.overrides, false);
    if (status == MHP_OK) {
        status = evaluate(&session, given.model);
    }
    return mhp_session_close(&session, status);
}
