/* mhcpipe train: a run from its configuration to its last checkpoint. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "launch/memory_table.h"
#include "launch/progress.h"
#include "launch/session.h"
#include "launch/signals.h"
#include "runtime/run.h"
#include "scheduler/table.h"

enum { RESUME_KEY = 'r', DRY_RUN_KEY = 'n', PROFILE_KEY = 'p', PROFILE_KERNELS_KEY = 'k' };

typedef struct arguments {
    const char *path, *resume;
    bool dry_run;
    char profile[32], kernels[32];
    mhp_overrides overrides;
} arguments;

/* The same as --set profile.steps=STEPS. */
static void add_profile(arguments *given, const char *text, struct argp_state *state)
{
    mhp_parse_integer(state, "--profile", text, 0, 10000);
    snprintf(given->profile, sizeof given->profile, "profile.steps=%s", text);
    mhp_overrides_add(&given->overrides, given->profile, state);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case RESUME_KEY:
        given->resume = text;
        return 0;
    case DRY_RUN_KEY:
        given->dry_run = true;
        return 0;
    case PROFILE_KEY:
        add_profile(given, text, state);
        return 0;
    case PROFILE_KERNELS_KEY:
        snprintf(given->kernels, sizeof given->kernels, "profile.kernels=true");
        mhp_overrides_add(&given->overrides, given->kernels, state);
        return 0;
    case MHP_MEMORY_LIMIT_KEY:
        mhp_overrides_add_memory_limit(&given->overrides, text, state);
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&given->overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "CONFIG", text, &given->path);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a CONFIG expected");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    MHP_SET_OPTION,
    MHP_MEMORY_LIMIT_OPTION,
    {"resume", RESUME_KEY, "WHAT", 0,
     "Continue from a checkpoint: auto (the newest intact one in log.dir, or from the start if "
     "it has none at all), latest, never (the default), or the PATH of a checkpoint or of a run's "
     "folder",
     0},
    {"profile", PROFILE_KEY, "STEPS", 0,
     "Record what every stream does in so many steps, behind the first profile.start, for mhcpipe report",
     0},
    {"profile-kernels", PROFILE_KERNELS_KEY, NULL, 0,
     "With --profile on cards: also record every kernel and copy, by CUPTI", 0},
    {"dry-run", DRY_RUN_KEY, NULL, 0,
     "Show plan, memory and data, and check them, without training; needs no mpirun", 0},
    {0},
};

static const struct argp parser = {
    options, parse_option, "CONFIG",
    "Trains a model: mpirun -n RANKS mhcpipe train CONFIG, with RANKS = parallel.pipeline x "
    "parallel.data.",
    NULL, NULL, NULL};

/* A fault on order that cannot happen is a mistake. */
static mhp_status check_faults(const mhp_config *config)
{
    mhp_status status = MHP_OK;
    mhp_layout layout = {0};

    if (config->fault.count == 0) {
        return MHP_OK;
    }
    MHP_TRY(out, mhp_layout_create(&config->model, &config->parallel, &config->schedule, &layout));
    MHP_TRY(out, mhp_faults_check(&config->fault, layout.plan, (int)(config->parallel.pipeline * config->parallel.data),
                                  config->train.steps));
out:
    mhp_layout_release(&layout);
    return status;
}

/* ---- dry run ---- */

static mhp_status print_data(const mhp_config *config, FILE *stream)
{
    mhp_dataset *dataset = NULL;

    MHP_RETURN_IF_ERROR(mhp_dataset_open(&config->data, config->train.sequence_length,
                                         (uint64_t)config->train.seed, config->model.vocab_size,
                                         &dataset));
    fprintf(stream,
            "\ndata: %llu tokens in %llu documents to train on, %llu in %llu held out\n",
            (unsigned long long)mhp_dataset_tokens(dataset, MHP_SPLIT_TRAIN),
            (unsigned long long)mhp_dataset_documents(dataset, MHP_SPLIT_TRAIN),
            (unsigned long long)mhp_dataset_tokens(dataset, MHP_SPLIT_HELD_OUT),
            (unsigned long long)mhp_dataset_documents(dataset, MHP_SPLIT_HELD_OUT));
    mhp_dataset_close(dataset);
    return MHP_OK;
}

static mhp_status print_dry_run(const mhp_config *config, const char *resume)
{
    mhp_status status = MHP_OK;
    mhp_layout layout = {0};
    char *checkpoint = NULL;

    MHP_TRY(out, mhp_layout_create(&config->model, &config->parallel, &config->schedule, &layout));
    MHP_TRY(out, check_faults(config));
    MHP_TRY(out, mhp_plan_write_table(layout.plan, stdout));
    printf("\n");
    MHP_TRY(out, mhp_print_memory_table(config, &layout, stdout));
    MHP_TRY(out, print_data(config, stdout));
    if (resume) {
        MHP_TRY(out, mhp_checkpoint_find(mhp_resume_parse(resume), config->log.dir, &checkpoint));
        printf("resumes from %s\n", checkpoint ? checkpoint : "nothing: starts from the start");
    }
    printf("ranks: mpirun -n %lld\n",
           (long long)(config->parallel.pipeline * config->parallel.data));
out:
    mhp_free(checkpoint);
    mhp_layout_release(&layout);
    return status;
}

/* Every rank that was started comes here; the first one does it for all. */
static int dry_run(const arguments *given)
{
    mhp_config config = {0};
    mhp_status status;

    if (mhp_launched_rank() > 0) {
        return 0;
    }
    status = mhp_config_load(&config, given->path, given->overrides.items, given->overrides.count);
    if (status == MHP_OK) {
        status = print_dry_run(&config, given->resume);
    }
    mhp_config_release(&config);
    return status == MHP_OK ? 0 : mhp_print_error();
}

/* ---- training ---- */

static void print_step(void *context, const mhp_step_report *report, double held_out_loss)
{
    mhp_progress_step(context, report, held_out_loss);
}

static void print_resumed(const mhp_run *run, const char *checksum)
{
    const mhp_checkpoint_state *state;
    const char *from = mhp_run_resumed_from(run, &state);

    if (from) {
        printf("resumes from %s, %lld steps done%s\n", from, (long long)state->step,
               strcmp(state->configuration, checksum) == 0 ? ""
                                                           : "; it was made with another configuration");
    }
}

static mhp_status print_start(const mhp_config *config, mhp_run *run, const char *checksum)
{
    mhp_trainer *trainer = mhp_run_trainer(run);
    const mhp_plan *plan = mhp_trainer_plan(trainer);
    static const char *const kinds[] = {"residual", "hc", "mhc"};
    char parameters[MHP_SHORT_NUMBER_MAX], tokens[MHP_SHORT_NUMBER_MAX];
    int64_t count;

    MHP_RETURN_IF_ERROR(mhp_parameter_count(&config->model, &count));
    mhp_format_short((double)count, parameters);
    mhp_format_short(
        (double)(mhp_trainer_batch_samples(trainer) * config->train.sequence_length), tokens);
    printf("%s parameters, %lld layers of width %lld, %s", parameters,
           (long long)config->model.num_hidden_layers, (long long)config->model.hidden_size,
           kinds[config->model.connections.kind]);
    if (config->model.connections.kind != MHP_CONNECTION_RESIDUAL) {
        printf(" with %lld streams", (long long)config->model.connections.streams);
    }
    printf("; %s on %lld x %lld ranks, %d micro-batches, %s tokens a step; run folder %s\n",
           plan->name, (long long)config->parallel.pipeline, (long long)config->parallel.data,
           plan->microbatch_count, tokens, config->log.dir);
    MHP_RETURN_IF_ERROR(mhp_print_memory_table(config, mhp_trainer_layout(trainer), stdout));
    print_resumed(run, checksum);
    fflush(stdout);
    return MHP_OK;
}

/* What is not readable is told with its reason, once. */
static void print_energy(const mhp_summary *summary)
{
    const mhp_energy_total *energy = &summary->energy;

    printf("  energy       ");
    for (int kind = MHP_ENERGY_KINDS - 1; kind >= 0; kind--) {
        if (isnan(energy->run.of[kind])) {
            printf(" %s not known (%s)", mhp_energy_kind_text(kind), energy->reason[kind]);
        } else {
            printf(" %s %.1f J", mhp_energy_kind_text(kind), energy->run.of[kind]);
        }
        printf("%s", kind > 0 ? "," : "");
    }
    if (!isnan(summary->j_per_step)) {
        printf("; %.4g J/step, %.4g J/token, %.4g kWh", summary->j_per_step, summary->j_per_token, summary->kwh);
    }
    if (!isnan(summary->co2e_g)) {
        printf(", %.4g g CO2e", summary->co2e_g);
    }
    printf("\n");
}

static void print_end(const mhp_config *config, const mhp_run_result *result)
{
    const char *directory = config->log.dir;

    printf("%s %lld steps", result->stopped ? "stopped on request after" : "trained", (long long)result->steps);
    if (isfinite(result->held_out_loss)) {
        printf("; held-out loss %.4f nats a token (best %.4f)", result->held_out_loss,
               result->best_loss);
    }
    printf("\n  metrics       %s/metrics.jsonl\n  configuration %s/config.resolved.yaml\n"
           "  checkpoints   %s/checkpoints\n",
           directory, directory, directory);
    if (isfinite(result->best_loss)) {
        printf("  best model    %s/best\n", directory);
    }
    print_energy(&result->summary);
}

static mhp_status train(mhp_session *session, const char *resume, mhp_progress *progress, bool *stopped_out)
{
    mhp_status status = MHP_OK;
    const mhp_config *config = &session->config;
    mhp_run *run = NULL;
    mhp_run_result result;
    char checksum[MHP_HASH_TEXT_MAX];
    mhp_run_params params = {
        .trainer = {.comm = session->comm,
                    .model = &config->model,
                    .parallel = &config->parallel,
                    .schedule = &config->schedule,
                    .optimizer = &config->optimizer,
                    .train = &config->train,
                    .profile = &config->profile,
                    .directory = config->log.dir,
                    .watchdog = session->watchdog,
                    .faults = session->faults},
        .data = &config->data,
        .eval = &config->eval,
        .checkpoint = &config->checkpoint,
        .log = &config->log,
        .report = &config->report,
        .directory = config->log.dir,
        .configuration = checksum,
        .resume = mhp_resume_parse(resume),
        .progress = session->root ? print_step : NULL,
        .progress_context = progress,
    };

    MHP_TRY(out, mhp_comm_agree(session->comm, check_faults(config), NULL));
    MHP_TRY(out, mhp_config_checksum(config, checksum));
    MHP_TRY(out, mhp_run_create(&params, &run));
    if (session->root) {
        status = print_start(config, run, checksum);
        status = status == MHP_OK ? mhp_config_save(config, config->log.dir) : status;
    }
    MHP_TRY(out, mhp_comm_agree(session->comm, status, NULL));
    MHP_TRY(out, mhp_run_train(run, &result));
    mhp_progress_end(progress);
    *stopped_out = result.stopped;
    if (session->root) {
        print_end(config, &result);
    }
out:
    mhp_progress_end(progress);
    mhp_run_end(run, status);
    return status;
}

int mhp_command_train(int argc, char **argv)
{
    arguments given = {0};
    mhp_session session = {0};
    mhp_progress progress = {0};
    bool stopped = false;
    mhp_status status;

    mhp_parse_arguments(&parser, "train", argc, argv, &given);
    if (given.dry_run) {
        return dry_run(&given);
    }
    mhp_signals_install();
    status = mhp_session_open_watched(&session, given.path, &given.overrides, true);
    if (status == MHP_OK) {
        progress.terminal = mhp_stdout_is_terminal();
        progress.total = session.config.train.steps;
        progress.line_every = session.config.log.every;
        status = train(&session, given.resume, &progress, &stopped);
    }
    session.exit_status = stopped ? MHP_EXIT_PREEMPTED : 0;
    return mhp_session_close(&session, status);
}
