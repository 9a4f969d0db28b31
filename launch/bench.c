/* mhcpipe bench: times on this machine. */
#include "launch/bench.h"
#include "launch/bench_pipeline.h"

#include <string.h>

enum {
    LAYERS_KEY = 'l',
    REPETITIONS_KEY = 'r',
    TOKENS_KEY = 't',
    HIDDEN_KEY = 'c',
    STREAMS_KEY = 'n',
    DEVICE_KEY = 'd',
    DTYPE_KEY = 256,
    THREADS_KEY,
    ROWS_KEY,
    OUTPUT_KEY = 'o',
    RECORDED_KEY = THREADS_KEY + 2,
    ROW_SECONDS_KEY,
    REPETITIONS_DEFAULT = 20,
    REPETITIONS_MAX = 10000,
    RECORDED_MAX = 100,
    ROW_SECONDS_MAX = 86400,
    TOKENS_MAX = 1 << 20,
    HIDDEN_MAX = 1 << 16,
    THREADS_MAX = 1024,
    TOKENS_DEFAULT_CUDA = 8192,
    TOKENS_DEFAULT_CPU = 256,
};

typedef struct arguments {
    const char *what, *path, *device, *dtype, *rows, *output;
    bool layers_alone;
    int repetitions, tokens, hidden, streams, threads, recorded, row_seconds;
    mhp_overrides overrides;
} arguments;

/* An option of `bench kernels` alone; false if the key is none. */
static bool parse_kernel_option(int key, char *text, struct argp_state *state, arguments *given)
{
    switch (key) {
    case TOKENS_KEY:
        given->tokens = mhp_parse_integer(state, "--tokens", text, 1, TOKENS_MAX);
        return true;
    case HIDDEN_KEY:
        given->hidden = mhp_parse_integer(state, "--hidden", text, 1, HIDDEN_MAX);
        return true;
    case STREAMS_KEY:
        given->streams = mhp_parse_integer(state, "--streams", text, 1, MHP_STREAMS_MAX);
        return true;
    case THREADS_KEY:
        given->threads = mhp_parse_integer(state, "--threads", text, 1, THREADS_MAX);
        return true;
    case DEVICE_KEY:
        if (strcmp(text, "cpu") != 0 && strcmp(text, "cuda") != 0) {
            argp_error(state, "--device is \"%s\": expected cpu or cuda", text);
        }
        given->device = text;
        return true;
    case DTYPE_KEY:
        if (strcmp(text, "f32") != 0 && strcmp(text, "f64") != 0 && strcmp(text, "bf16") != 0) {
            argp_error(state, "--dtype is \"%s\": expected f32, f64 or bf16", text);
        }
        given->dtype = text;
        return true;
    default:
        return false;
    }
}

/* An option of `bench pipeline` alone; false if the key is none. */
static bool parse_pipeline_option(int key, char *text, struct argp_state *state, arguments *given)
{
    switch (key) {
    case ROWS_KEY:
        given->rows = text;
        return true;
    case OUTPUT_KEY:
        given->output = text;
        return true;
    case RECORDED_KEY:
        given->recorded = mhp_parse_integer(state, "--record", text, 1, RECORDED_MAX);
        return true;
    case ROW_SECONDS_KEY:
        given->row_seconds = mhp_parse_integer(state, "--row-seconds", text, 0, ROW_SECONDS_MAX);
        return true;
    default:
        return false;
    }
}

static void check_words(const arguments *given, struct argp_state *state)
{
    bool kernels = given->what && strcmp(given->what, "kernels") == 0;
    bool of_config = given->what && (strcmp(given->what, "step") == 0 || strcmp(given->what, "pipeline") == 0);

    if ((!kernels && !of_config) || of_config != (given->path != NULL)) {
        argp_error(state, "expected: step CONFIG, pipeline CONFIG, or: kernels");
    }
}

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
        } else {
            mhp_take_argument(state, "CONFIG", text, &given->path);
        }
        return 0;
    case ARGP_KEY_END:
        check_words(given, state);
        return 0;
    default:
        return parse_kernel_option(key, text, state, given) || parse_pipeline_option(key, text, state, given) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"repetitions", REPETITIONS_KEY, "N", 0, "Timed steps, or batches of calls (20)", 0},
    {0, 0, 0, 0, "step:", 1},
    {"layers-alone", LAYERS_KEY, NULL, 0, "Without embedding and head, as a stage from the middle of a pipeline", 0},
    MHP_SET_OPTION,
    {0, 0, 0, 0, "pipeline, under mpirun, which takes --set too:", 2},
    {"rows", ROWS_KEY, "FILE", 0, "Configurations to time in turn, a line each: NAME SECTION.KEY=VALUE ...", 0},
    {"output", OUTPUT_KEY, "FOLDER", 0, "Where rows.tsv, pictures and measured costs go (runs/bench-pipeline)", 0},
    {"record", RECORDED_KEY, "STEPS", 0, "Recorded steps, behind the timed ones (3)", 0},
    {"row-seconds", ROW_SECONDS_KEY, "S", 0, "Ends the process when a row takes longer; 0: never (0)", 0},
    {0, 0, 0, 0, "kernels:", 3},
    {"tokens", TOKENS_KEY, "T", 0, "Tokens of a micro-batch (8192 on a card, 256 without)", 0},
    {"hidden", HIDDEN_KEY, "C", 0, "Hidden size (2560)", 0},
    {"streams", STREAMS_KEY, "N", 0, "Residual streams (4)", 0},
    {"device", DEVICE_KEY, "KIND", 0, "cpu or cuda (cuda where there is a card)", 0},
    {"dtype", DTYPE_KEY, "TYPE", 0, "f32, f64 or bf16 (bf16 on a card, f32 without)", 0},
    {"threads", THREADS_KEY, "N", 0, "Threads without a card (1)", 0},
    {0},
};

static const struct argp parser = {
    options, parse_option, "step CONFIG\npipeline CONFIG\nkernels",
    "Times one micro-batch of the configured model, forward and backward, on one rank: milliseconds, tokens and floating-point "
    "operations a second, and where the time goes. Or times whole steps of the configured pipeline, with and without the optimizer, and "
    "what hides behind what. Or times the kernels of the connections: milliseconds, the bytes that must move at "
    "least, and their rate over a large copy's. Values are random.",
    NULL, NULL, NULL};

static int bench_step(const arguments *given)
{
    mhp_session session = {0};
    mhp_status status = mhp_session_open(&session, given->path, &given->overrides);

    if (status == MHP_OK && mhp_comm_size(session.comm) != 1) {
        status = mhp_error_set(MHP_ERR_CONFIG, "bench step was started with %d ranks: expected 1", mhp_comm_size(session.comm));
        status = mhp_comm_agree(session.comm, status, NULL);
    }
    if (status == MHP_OK) {
        mhp_bench_step_params params = {.config = &session.config, .comm = session.comm, .layers_alone = given->layers_alone,
                                        .repetitions = given->repetitions};

        status = mhp_bench_step(&params, stdout);
    }
    return mhp_session_close(&session, status);
}

static int bench_pipeline(const arguments *given)
{
    mhp_session session = {0};
    mhp_bench_pipeline_params params = {.config = given->path, .overrides = &given->overrides, .rows = given->rows, .output = given->output,
                                        .repetitions = given->repetitions, .recorded = given->recorded,
                                        .row_seconds = given->row_seconds};
    mhp_status status = mhp_session_open(&session, given->path, &given->overrides);

    if (status == MHP_OK) {
        status = mhp_bench_pipeline(&session, &params);
    }
    return mhp_session_close(&session, status);
}

/* The type that an option names, which is one of kernels.h. */
static mhp_dtype dtype_of(const char *text)
{
    return strcmp(text, "f64") == 0 ? MHP_DTYPE_F64 : strcmp(text, "bf16") == 0 ? MHP_DTYPE_BF16 : MHP_DTYPE_F32;
}

static mhp_status time_kernels(const arguments *given, mhp_device_kind kind, mhp_device *device)
{
    bool card = kind == MHP_DEVICE_CUDA;
    const char *dtype = given->dtype ? given->dtype : card ? "bf16" : "f32";
    mhp_bench_kernels_params params = {.device = device,
                                       .kernels = mhp_kernels_find(kind, dtype_of(dtype)),
                                       .threads = given->threads,
                                       .tokens = given->tokens,
                                       .hidden = given->hidden,
                                       .streams = given->streams,
                                       .repetitions = given->repetitions};

    if (!params.kernels) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "no kernels of %s on %s: expected %s", dtype, card ? "cuda" : "cpu",
                             card ? "f32 or bf16" : "f32 or f64");
    }
    if (params.tokens == 0) {
        params.tokens = card ? TOKENS_DEFAULT_CUDA : TOKENS_DEFAULT_CPU;
    }
    return mhp_bench_kernels(&params, stdout);
}

static int bench_kernels(const arguments *given)
{
    bool card = given->device ? strcmp(given->device, "cuda") == 0 : mhp_device_count(MHP_DEVICE_CUDA) > 0;
    mhp_device_params params = {.kind = card ? MHP_DEVICE_CUDA : MHP_DEVICE_CPU, .threads = given->threads};
    mhp_device *device = NULL;
    mhp_status status = mhp_device_open(&params, &device);

    if (status == MHP_OK) {
        status = time_kernels(given, params.kind, device);
    }
    mhp_device_close(device);
    return status == MHP_OK ? 0 : mhp_print_error();
}

int mhp_command_bench(int argc, char **argv)
{
    arguments given = {.repetitions = REPETITIONS_DEFAULT, .hidden = 2560, .streams = 4, .threads = 1, .recorded = 3,
                       .output = "runs/bench-pipeline"};

    mhp_parse_arguments(&parser, "bench", argc, argv, &given);
    if (strcmp(given.what, "kernels") == 0) {
        return bench_kernels(&given);
    }
    return strcmp(given.what, "step") == 0 ? bench_step(&given) : bench_pipeline(&given);
}
