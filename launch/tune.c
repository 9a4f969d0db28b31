/* mhcpipe tune: a faster schedule for measured costs, as YAML that train runs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/option.h"
#include "launch/command.h"
#include "launch/planning.h"
#include "scheduler/tune.h"
#include "scheduler/yaml.h"

enum {
    COSTS_KEY = 't',
    MEMORY_KEY = 'm',
    OUTPUT_KEY = 'o',
    KINDS_KEY = 'k',
    CHUNKS_KEY = 'c',
    KEEP_LAYERS_KEY = 0x100,
    MICROBATCHES_KEY,
    FIXED_KEY,
    SEED_KEY,
    ITERATIONS_KEY,
};

enum { LIST_MAX = 64, CHUNKS_MAX = 64, SHRINK_MAX = 4, ITERATIONS_MAX = 100000000 };

typedef struct arguments {
    mhp_planning_request request;
    mhp_tune_params tune;
    const char *output;
    const char *kinds[LIST_MAX];
    int others[LIST_MAX];
} arguments;

/* ---- the command line ---- */

static double parse_time(const char *option, const char *text, struct argp_state *state)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= 0) || value > MHP_COSTS_US_MAX) {
        argp_error(state, "%s %s: expected microseconds, 0 to %d", option, text, MHP_COSTS_US_MAX);
        return 0;
    }
    return value;
}

static void set_kinds(arguments *given, char *text, struct argp_state *state)
{
    char *rest = NULL;

    for (char *name = strtok_r(text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        if (!mhp_generator_find(name)) {
            argp_error(state, "--kinds %s: no schedule of this name", name);
        } else if (given->tune.kind_count == LIST_MAX) {
            argp_error(state, "--kinds: expected at most %d", LIST_MAX);
        } else {
            given->kinds[given->tune.kind_count++] = name;
        }
    }
}

static void set_microbatches(arguments *given, char *text, struct argp_state *state)
{
    char *rest = NULL;

    given->tune.may_choose_others = true;
    for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (given->tune.other_count == LIST_MAX) {
            argp_error(state, "--microbatches: expected at most %d numbers", LIST_MAX);
            return;
        }
        given->others[given->tune.other_count++] =
            mhp_parse_integer(state, "--microbatches", word, 1, MHP_MICROBATCHES_MAX);
    }
}

static void check_given(const arguments *given, struct argp_state *state)
{
    if (!given->request.file) {
        argp_error(state, "a CONFIG expected");
    }
    if (!given->request.costs) {
        argp_error(state, "--costs FILE expected: without measured times there is nothing to tune");
    }
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case COSTS_KEY:
        given->request.costs = text;
        return 0;
    case MEMORY_KEY:
        given->tune.memory_bytes = mhp_parse_bytes(state, "--memory", text);
        return 0;
    case OUTPUT_KEY:
        given->output = text;
        return 0;
    case KINDS_KEY:
        set_kinds(given, text, state);
        return 0;
    case CHUNKS_KEY:
        given->tune.chunks_max = mhp_parse_integer(state, "--chunks", text, 2, CHUNKS_MAX);
        return 0;
    case KEEP_LAYERS_KEY:
        given->tune.keep_layers = true;
        return 0;
    case MICROBATCHES_KEY:
        set_microbatches(given, text, state);
        return 0;
    case FIXED_KEY:
        given->tune.fixed_us = parse_time("--fixed-us", text, state);
        return 0;
    case SEED_KEY:
        given->tune.seed = (uint64_t)mhp_parse_integer(state, "--seed", text, 0, INT32_MAX);
        return 0;
    case ITERATIONS_KEY:
        given->tune.iterations = mhp_parse_integer(state, "--iterations", text, 0, ITERATIONS_MAX);
        return 0;
    case MHP_COSTS_LAYERS_KEY:
        given->request.costs_layers = mhp_parse_integer(state, "--costs-layers", text, 1, MHP_COSTS_LAYERS_MAX);
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&given->request.overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "CONFIG", text, &given->request.file);
        return 0;
    case ARGP_KEY_END:
        check_given(given, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"costs", COSTS_KEY, "FILE", 0, "Measured times and bytes of the configuration's stages", 0},
    MHP_COSTS_LAYERS_OPTION,
    {"memory", MEMORY_KEY, "BYTES", 0, "Of each rank, as 80GiB; no limit if not given", 0},
    {"output", OUTPUT_KEY, "FILE", 0, "Where the schedule goes, as YAML", 0},
    {"kinds", KINDS_KEY, "NAME,NAME", 0, "Named schedules to start from (all)", 0},
    {"chunks", CHUNKS_KEY, "V", 0, "Most stages a rank of interleaved schedules (4)", 0},
    {"keep-layers", KEEP_LAYERS_KEY, NULL, 0, "Leave the layers of each stage as they are", 0},
    {"microbatches", MICROBATCHES_KEY, "M,M", 0,
     "Other numbers of micro-batches that may be chosen for the same global batch", 0},
    {"fixed-us", FIXED_KEY, "US", 0,
     "Part of every pass's time that does not shrink with the micro-batch (0)", 0},
    {"seed", SEED_KEY, "N", 0, "Of the search (1); the same seed finds the same schedule", 0},
    {"iterations", ITERATIONS_KEY, "N", 0,
     "Of each local search for a plan of 1000 actions; larger plans get fewer (20000)", 0},
    MHP_SET_OPTION,
    {0},
};

static const struct argp parser = {
    options, parse_option, "CONFIG",
    "Searches schedule, layers of each stage, rebuilding and the order of every rank for a shorter "
    "step by the simulator, within the memory, and writes a schedule that train runs.",
    NULL, NULL, NULL};

/* ---- micro-batches ---- */

/* All that divide the global batch, from a fourth of those configured to four times as many. */
static void list_others(arguments *given, const mhp_config *config)
{
    int64_t total = config->schedule.microbatches * config->train.micro_batch_size;

    for (int64_t size = 1; size <= total && given->tune.other_count < LIST_MAX; size++) {
        int64_t count = total / size;

        if (total % size == 0 && count != config->schedule.microbatches &&
            count <= SHRINK_MAX * config->schedule.microbatches &&
            count * SHRINK_MAX >= config->schedule.microbatches && count <= MHP_MICROBATCHES_MAX) {
            given->others[given->tune.other_count++] = (int)count;
        }
    }
}

static mhp_status check_others(const arguments *given, const mhp_config *config)
{
    int64_t total = config->schedule.microbatches * config->train.micro_batch_size;

    for (int i = 0; i < given->tune.other_count; i++) {
        if (total % given->others[i] != 0) {
            return mhp_error_set(
                MHP_ERR_CONFIG,
                "--microbatches %d: expected a divisor of the replica's %lld sequences a step",
                given->others[i], (long long)total);
        }
    }
    return MHP_OK;
}

/* ---- output ---- */

static void print_row(const mhp_tune_row *row)
{
    printf("  %-26s %7d %14d %12.6g %11.2f %% %7.1f %% %8d %10.2f%s\n", row->name, row->stage_count,
           row->microbatches, row->makespan_us, 100 * (row->makespan_us / row->bound_us - 1),
           100 * row->worst_bubble, row->rebuilt_stages,
           (double)row->peak_bytes / (1 << 20), row->fits ? "" : "  too much");
}

static void print_rows(const mhp_tune_result *result, const mhp_tune_params *params)
{
    static const char *const heads[] = {"as named, layers as given", "layers moved",
                                        "order improved"};
    int phase = -1;

    printf("  %-26s %7s %14s %12s %13s %9s %8s %10s\n", "schedule", "stages", "micro-batches",
           "makespan us", "above bound", "bubble", "rebuilt", "peak MiB");
    for (size_t i = 0; i < result->row_count; i++) {
        const mhp_tune_row *row = &result->rows[i];

        if (!params->may_choose_others && row->microbatches != params->microbatches) {
            continue;
        }
        if ((int)row->phase != phase) {
            phase = (int)row->phase;
            printf("%s\n", heads[phase]);
        }
        print_row(row);
    }
}

/* Other micro-batches that would beat the best named schedule if times shrank as assumed; not chosen
 * unless asked for. */
static void print_others(const mhp_tune_result *result, const arguments *given,
                         const mhp_config *config)
{
    const mhp_tune_params *params = &given->tune;
    int64_t total = config->schedule.microbatches * config->train.micro_batch_size;

    for (int i = 0; !params->may_choose_others && i < params->other_count; i++) {
        const mhp_tune_row *best = NULL;

        for (size_t j = 0; j < result->row_count; j++) {
            const mhp_tune_row *row = &result->rows[j];

            if (row->microbatches == params->others[i] && row->fits &&
                (!best || row->makespan_us < best->makespan_us)) {
                best = row;
            }
        }
        if (best && best->makespan_us < result->named.makespan_us) {
            printf("%d micro-batches of %lld: %s at %.6g us, if times shrink in proportion; measure "
                   "them, and allow them by --microbatches %d\n",
                   best->microbatches, (long long)(total / best->microbatches), best->name,
                   best->makespan_us, best->microbatches);
        }
    }
}

static void print_layers(const mhp_tune_result *result, const char *joint, FILE *stream)
{
    for (int s = 0; s < result->order->stage_count; s++) {
        fprintf(stream, "%s%g", s ? joint : "", result->layers[s]);
    }
}

static void print_best(const mhp_tune_result *result)
{
    static const char *const words[] = {"as it is", "with layers moved", "with its order improved"};
    const mhp_tune_row *named = &result->named, *best = &result->best;

    printf("\nbest named      %s, %.6g us%s\n", named->name, named->makespan_us,
           named->fits ? "" : ", which does not fit");
    printf("best            %s %s, %.6g us: %.2f %% less, %.2f %% above the lower bound of its "
           "placement\n",
           best->name, words[best->phase], best->makespan_us,
           100 * (1 - best->makespan_us / named->makespan_us),
           100 * (best->makespan_us / best->bound_us - 1));
    printf("layers          ");
    print_layers(result, " ", stdout);
    printf("\npeak            %.2f MiB, %d stages rebuilt\n",
           (double)best->peak_bytes / (1 << 20), best->rebuilt_stages);
}

typedef struct written {
    const mhp_tune_result *result;
    const mhp_config *config;
    const mhp_planning_request *request;
    const char *path;
} written;

/* " --set schedule.file=FILE", as the shell and then the reader of configurations take it. */
static mhp_status print_file(const char *path, FILE *stream)
{
    mhp_status status = MHP_OK;
    char *setting = NULL;
    size_t length;
    FILE *text = open_memstream(&setting, &length);

    if (!text) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot print the command: %s", strerror(errno));
    }
    fprintf(text, "schedule.file=");
    status = mhp_error_prefix(mhp_option_print_string(path, text), "--output %s: ", path);
    if (fclose(text) != 0 && status == MHP_OK) {
        status = mhp_error_set(MHP_ERR_NO_MEMORY, "cannot print the command: %s", strerror(errno));
    }
    MHP_TRY(out, status);
    fprintf(stream, " --set ");
    mhp_write_shell_word(setting, stream);
out:
    free(setting);
    return status;
}

/* The command that trains with the schedule, on one line. What tune chose stands behind what the user set, and so counts. */
static mhp_status print_command(const written *w, FILE *stream)
{
    const mhp_config *config = w->config;
    const mhp_overrides *overrides = &w->request->overrides;
    const mhp_plan *order = w->result->order;
    int64_t total = config->schedule.microbatches * config->train.micro_batch_size;
    const char *what = w->result->best.rebuilt_stages == 0                          ? "none"
                       : config->schedule.recompute.what == MHP_RECOMPUTE_CONNECTIONS ? "connections"
                                                                                     : "full";

    fprintf(stream, "mpirun -n %lld mhcpipe train ", (long long)(config->parallel.pipeline * config->parallel.data));
    mhp_write_shell_word(w->request->file, stream);
    for (size_t i = 0; i < overrides->count; i++) {
        fprintf(stream, " --set ");
        mhp_write_shell_word(overrides->items[i], stream);
    }
    fprintf(stream, " --set schedule.weight_gradients=deep --set schedule.recompute.what=%s --set schedule.kind=custom", what);
    MHP_RETURN_IF_ERROR(print_file(w->path, stream));
    fprintf(stream, " --set schedule.microbatches=%d --set train.micro_batch_size=%lld --set 'schedule.layers_per_stage=[",
            order->microbatch_count, (long long)(total / order->microbatch_count));
    print_layers(w->result, ",", stream);
    fprintf(stream, "]'\n");
    return MHP_OK;
}

static mhp_status write_schedule(void *context, FILE *stream)
{
    const written *w = context;
    const mhp_tune_row *best = &w->result->best;

    fprintf(stream, "# Found by mhcpipe tune from %s: %.6g us by the simulator, %.2f %% above the "
                    "lower bound.\n# ",
            best->name, best->makespan_us, 100 * (best->makespan_us / best->bound_us - 1));
    MHP_RETURN_IF_ERROR(print_command(w, stream));
    return mhp_plan_write_yaml(w->result->order, stream);
}

/* ---- the search ---- */

static mhp_status search(arguments *given, const mhp_planning *planning, mhp_tune_result *result)
{
    const mhp_config *config = &planning->config;
    mhp_tune_params *tune = &given->tune;
    mhp_cost_model *model = NULL;
    double *layers = NULL;
    mhp_status status = MHP_OK;

    if (!tune->may_choose_others) {
        list_others(given, config);
    }
    MHP_TRY(out, check_others(given, config));
    MHP_TRY(out, mhp_planning_lengths(planning, &layers));
    MHP_TRY(out, mhp_cost_model_create(&planning->costs, layers, planning->plan->stage_count, &model));
    tune->model = model;
    tune->layers = layers;
    tune->layer_count = (int)config->model.num_hidden_layers;
    tune->given_stage_count = planning->plan->stage_count;
    tune->ranks = planning->plan->rank_count;
    tune->microbatches = planning->plan->microbatch_count;
    tune->kinds = given->kinds;
    tune->others = given->others;
    MHP_TRY(out, mhp_tune(tune, result));
out:
    mhp_cost_model_destroy(model);
    mhp_free(layers);
    return status;
}

static mhp_status print_result(const arguments *given, const mhp_planning *planning,
                               const mhp_tune_result *result)
{
    written w = {result, &planning->config, &given->request, given->output};

    print_rows(result, &given->tune);
    print_best(result);
    print_others(result, given, &planning->config);
    if (given->output) {
        MHP_RETURN_IF_ERROR(mhp_write_output(given->output, write_schedule, &w));
        printf("written to %s; run it by\n  ", given->output);
        MHP_RETURN_IF_ERROR(print_command(&w, stdout));
    }
    return MHP_OK;
}

int mhp_command_tune(int argc, char **argv)
{
    arguments given = {.request = {.may_rebuild = true},
                       .tune = {.chunks_max = 4, .seed = 1, .iterations = 20000}};
    mhp_planning planning = {0};
    mhp_tune_result result = {0};
    mhp_status status = MHP_OK;

    mhp_parse_arguments(&parser, "tune", argc, argv, &given);
    if (mhp_file_exists(given.request.file) && !mhp_is_configuration(given.request.file)) {
        MHP_RAISE(out, MHP_ERR_CONFIG, "%s: expected a configuration: YAML with a section model",
                  given.request.file);
    }
    MHP_TRY(out, mhp_planning_load(&given.request, &planning));
    MHP_TRY(out, search(&given, &planning, &result));
    MHP_TRY(out, print_result(&given, &planning, &result));
out:
    mhp_tune_result_release(&result);
    mhp_planning_release(&planning);
    return status == MHP_OK ? 0 : mhp_print_error();
}
