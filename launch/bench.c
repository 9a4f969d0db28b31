/* mhcpipe bench: times on this machine. */
#include "launch/bench.h"

#include <string.h>

enum { LAYERS_KEY = 'l', REPETITIONS_KEY = 'r', REPETITIONS_DEFAULT = 20, REPETITIONS_MAX = 10000 };

typedef struct arguments {
    const char *what, *path;
    bool layers_alone;
    int repetitions;
    mhp_overrides overrides;
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case LAYERS_KEY:
        given->layers_alone = true;
        return 0;
    case REPETITIONS_KEY:
        given->repetitions = mhp_parse_integer(state, "--repetitions", text, 1, REPETITIONS_MAX);
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&given->overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        if (!given->what) {
            given->what = text;
        } else if (!given->path) {
            given->path = text;
        } else {
            argp_error(state, "one CONFIG expected, not also \"%s\"", text);
        }
        return 0;
    case ARGP_KEY_END:
        if (!given->path || strcmp(given->what, "step") != 0) {
            argp_error(state, "expected: step CONFIG");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"layers-alone", LAYERS_KEY, NULL, 0, "Without embedding and head, as a stage from the middle of a pipeline", 0},
    {"repetitions", REPETITIONS_KEY, "N", 0, "Timed steps (20)", 0},
    MHP_SET_OPTION,
    {0},
};

static const struct argp parser = {
    options, parse_option, "step CONFIG",
    "Times one micro-batch of the configured model, forward and backward, on one rank: milliseconds, tokens and floating-point "
    "operations a second, and where the time goes. Values are random.",
    NULL, NULL, NULL};

int mhp_command_bench(int argc, char **argv)
{
    arguments given = {.repetitions = REPETITIONS_DEFAULT};
    mhp_session session = {0};
    mhp_status status;

    mhp_parse_arguments(&parser, "bench", argc, argv, &given);
    status = mhp_session_open(&session, given.path, &given.overrides);
    if (status == MHP_OK && mhp_comm_size(session.comm) != 1) {
        status = mhp_error_set(MHP_ERR_CONFIG, "bench step was started with %d ranks: expected 1", mhp_comm_size(session.comm));
        status = mhp_comm_agree(session.comm, status, NULL);
    }
    if (status == MHP_OK) {
        mhp_bench_step_params params = {.config = &session.config, .comm = session.comm, .layers_alone = given.layers_alone,
                                        .repetitions = given.repetitions};

        status = mhp_bench_step(&params, stdout);
    }
    return mhp_session_close(&session, status);
}
