/* mpirun -n P memory CONFIG STEPS [KEY=VALUE ...]: what activations take and what recompute costs.
 *
 * On one rank: for residual and the configuration's connections and every mode, activation bytes per token and layer as planned and by
 * formula, the time of a step, and the time of the connections' kernels forward and rebuilding, all modes in turn within one run. On
 * any number of ranks, with `peak` in place of STEPS: two steps and an evaluation for every kind of connections, schedule and mode, and
 * what the process held resident at most over what was planned. */
#include "tests/bench/support.h"

#include <string.h>

#include "core/memory.h"
#include "scheduler/generator.h"

enum { MODES = 3, KINDS = 2, PEAK_STEPS = 2, REPEATS = 15, SAMPLES = 64 };

static const char *const mode_names[MODES] = {"none", "connections", "full"};

/* ---- activation bytes ---- */

/* Elements per token and layer: the formulas of docs/memory.md, without what is one element a token or head. */
static double formula(const mhp_model_params *model, mhp_recompute what, int sublayers, int block, int in_flight)
{
    bool streams = model->connections.kind != MHP_CONNECTION_RESIDUAL;
    double n = (double)model->connections.streams, c = (double)model->hidden_size, q = in_flight;
    double layers = sublayers / 2.0, blocks = (sublayers + block - 1) / block;
    double heads = (double)model->num_attention_heads, kv_heads = (double)model->num_key_value_heads;
    double wide = (heads + 2 * kv_heads) * (double)model->head_dim + 2 * (double)model->intermediate_size;
    double middle = heads * (double)model->head_dim + (double)model->intermediate_size;
    double coefficients = streams ? 2 * n * n + 4 * n : 0;  /* with their projection */
    double states = n * c * (block - 1);                    /* of a block, made again */

    if (what == MHP_RECOMPUTE_NONE) {
        return 2 * (n * c + coefficients + (streams ? c : 0) + c) + wide + middle;
    }
    if (what == MHP_RECOMPUTE_FULL) {
        return n * c * blocks / layers + (2 * c + middle + (states + (coefficients + c + wide / 2) * block) / layers) / q;
    }
    if (!streams) {
        return 2 * c + wide + middle + 2 * c / q;
    }
    return n * c * blocks / layers + 2 * (c + coefficients) + wide + middle + (2 * c + states / layers) / q;
}

/* As planned for a stage of `layers` with the embedding and without the head, q micro-batches in flight of which one is going back. */
static mhp_status planned(mhp_config *config, mhp_recompute what, int layers, int in_flight, int *block_out, double *bytes_out)
{
    mhp_stage *stage = NULL;
    mhp_stage_params params = {
        .model = &config->model,
        .kernels = mhp_kernels_find(MHP_DEVICE_CPU, (mhp_dtype)config->model.dtype),
        .extent = {.sublayer_count = 2 * layers, .first = true},
        .sequences = (int)config->train.micro_batch_size,
        .length = (int)config->train.sequence_length,
        .threads = (int)config->parallel.threads,
        .recompute = what,
        .block = mhp_recompute_block(&config->model, what, 2 * layers, in_flight),
    };
    const size_t *bytes;

    MHP_RETURN_IF_ERROR(mhp_stage_create(&params, &stage));
    bytes = mhp_stage_get_sizes(stage)->bytes;
    *block_out = params.block;
    *bytes_out = (double)(bytes[MHP_LIFE_ACTIVATION] + bytes[MHP_LIFE_PRODUCT_INPUT]) * in_flight +
                 (double)(bytes[MHP_LIFE_REBUILT_INPUT] + bytes[MHP_LIFE_BLOCK]);
    if (what == MHP_RECOMPUTE_FULL) {       /* the workspace of attention's forward kernel is no activation */
        *bytes_out -= (double)params.kernels->attention_workspace(params.sequences, params.length,
                                                                  (int)config->model.num_attention_heads,
                                                                  (int)config->model.num_key_value_heads, (int)config->model.head_dim,
                                                                  params.threads) *
                      (double)mhp_dtype_bytes(params.kernels->full_dtype);
    }
    *bytes_out /= (double)in_flight * layers * params.sequences * params.length;
    mhp_stage_destroy(stage);
    return MHP_OK;
}

/* Switches the connections; residual has one stream. */
static void use_kind(mhp_config *config, int kind, const mhp_connection_params *own)
{
    config->model.connections = *own;
    if (kind == 0) {
        config->model.connections.kind = MHP_CONNECTION_RESIDUAL;
        config->model.connections.streams = 1;
    }
}

static mhp_status print_bytes(mhp_config *config, const mhp_connection_params *own)
{
    static const int in_flights[] = {1, 4, 8};
    int layers = (int)config->model.num_hidden_layers;

    printf("activation bytes per token and layer, %d layers a stage, width %lld, %lld streams: planned (formula)\n", layers,
           (long long)config->model.hidden_size, (long long)own->streams);
    printf("%9s %-12s %23s %23s %9s\n", "in flight", "mode", "residual", "streams, block", "ratio to residual without");
    for (size_t f = 0; f < sizeof in_flights / sizeof *in_flights; f++) {
        double least = 0;

        for (int what = 0; what < MODES; what++) {
            double bytes[KINDS], expected[KINDS];
            int block = 0;

            for (int kind = 0; kind < KINDS; kind++) {
                use_kind(config, kind, own);
                MHP_RETURN_IF_ERROR(planned(config, (mhp_recompute)what, layers, in_flights[f], &block, &bytes[kind]));
                expected[kind] = (double)mhp_dtype_bytes((mhp_dtype)config->model.dtype) *
                                 formula(&config->model, (mhp_recompute)what, 2 * layers, block, in_flights[f]);
            }
            least = what == 0 ? bytes[0] : least;
            printf("%9d %-12s %11.0f (%9.0f) %11.0f (%9.0f) %2d %9.2f\n", in_flights[f], mode_names[what], bytes[0], expected[0], bytes[1],
                   expected[1], block, bytes[1] / least);
        }
    }
    use_kind(config, 1, own);
    return MHP_OK;
}

/* ---- time ---- */

static mhp_kernels plain; /* what the timed kernels call */
static double clocks_s[MHP_PASS_COUNT];
static mhp_pass clock_of;

#define TIMED_KERNEL(name)                                                                         \
    static mhp_status timed_##name(void *native, const void *argument)                             \
    {                                                                                              \
        uint64_t start_ns = mhp_time_ns();                                                         \
        mhp_status status = plain.name(native, argument);                                          \
                                                                                                   \
        clocks_s[clock_of] += (double)(mhp_time_ns() - start_ns) * 1e-9;                           \
        return status;                                                                             \
    }
TIMED_KERNEL(mix)
TIMED_KERNEL(merge)
TIMED_KERNEL(merge_mix)
TIMED_KERNEL(rebuild)
TIMED_KERNEL(readout)

/* Milliseconds that the connections' kernels take of one micro-batch: forward, and in rebuilds wherever they happen; the least of all
 * repeats. */
static mhp_status time_connections(mhp_device *device, mhp_config *config, mhp_recompute what, double *forward_ms_out,
                                   double *rebuild_ms_out)
{
    mhp_status status = MHP_OK;
    mhp_kernels timed;
    mhp_stream *stream = NULL;
    mhp_stage *stage = NULL;
    mhp_microbatch microbatch = {.loss_scale = 1e-3};
    size_t tokens = (size_t)(config->train.micro_batch_size * config->train.sequence_length);
    void *parameters = NULL, *gradients = NULL, *loss = NULL;
    int32_t *zeros = NULL;
    int64_t elements;

    plain = timed = *mhp_kernels_find(MHP_DEVICE_CPU, (mhp_dtype)config->model.dtype);
    timed.mix = timed_mix;
    timed.merge = timed_merge;
    timed.merge_mix = timed_merge_mix;
    timed.rebuild = timed_rebuild;
    timed.readout = timed_readout;
    mhp_stage_params params = {
        .model = &config->model,
        .kernels = &timed,
        .extent = mhp_stage_whole(&config->model),
        .sequences = (int)config->train.micro_batch_size,
        .length = (int)config->train.sequence_length,
        .threads = (int)config->parallel.threads,
        .recompute = what,
        .block = mhp_recompute_block(&config->model, what, 2 * (int)config->model.num_hidden_layers, 1),
    };

    MHP_TRY(out, mhp_stream_create(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "bench", &stream));
    MHP_TRY(out, mhp_stage_create(&params, &stage));
    elements = mhp_stage_layout(stage)->elements;
    MHP_TRY(out, mhp_device_alloc_host(device, (size_t)elements * sizeof(double), &parameters));
    MHP_TRY(out, mhp_device_alloc_host(device, (size_t)elements * sizeof(double), &gradients));
    MHP_TRY(out, mhp_device_alloc_host(device, tokens * sizeof *zeros, (void **)&zeros));
    MHP_TRY(out, mhp_device_alloc_host(device, sizeof(double), &loss));
    for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
        MHP_TRY(out, mhp_device_alloc_host(device, mhp_stage_get_sizes(stage)->bytes[lifetime], &microbatch.memory[lifetime]));
    }
    for (int64_t e = 0; e < elements && config->model.dtype == MHP_DTYPE_F32; e++) {
        ((float *)parameters)[e] = 0.02f * (float)mhp_random_normal(1, 0, (uint64_t)e);
    }
    microbatch.token = microbatch.target = microbatch.position = microbatch.document_start = zeros;
    microbatch.loss_sum = loss;
    mhp_stage_bind(stage, parameters, parameters, gradients);
    for (int r = -1; r < REPEATS; r++) {
        memset(clocks_s, 0, sizeof clocks_s);
        for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
            mhp_cursor cursor;

            clock_of = (mhp_pass)pass;
            mhp_cursor_begin(&cursor, stage, (mhp_pass)pass, &microbatch);
            while (!mhp_cursor_done(&cursor)) {
                MHP_TRY(out, mhp_cursor_step(&cursor, stream));
            }
            MHP_TRY(out, mhp_stream_synchronize(stream));
        }
        if (r >= 0) {
            double forward_ms = 1e3 * clocks_s[MHP_PASS_FORWARD];
            double rebuild_ms = 1e3 * (clocks_s[MHP_PASS_REBUILD] + clocks_s[MHP_PASS_INPUT_GRADIENT]);

            *forward_ms_out = r == 0 || forward_ms < *forward_ms_out ? forward_ms : *forward_ms_out;
            *rebuild_ms_out = r == 0 || rebuild_ms < *rebuild_ms_out ? rebuild_ms : *rebuild_ms_out;
        }
    }
out:
    for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
        mhp_device_free_host(device, microbatch.memory[lifetime]);
    }
    mhp_device_free_host(device, loss);
    mhp_device_free_host(device, zeros);
    mhp_device_free_host(device, gradients);
    mhp_device_free_host(device, parameters);
    mhp_stage_destroy(stage);
    mhp_stream_destroy(stream);
    return status;
}

/* Median times of a step, the modes in turn, in milliseconds. */
static mhp_status time_steps(mhp_comm *comm, mhp_config *config, int steps, double step_ms_out[MODES], size_t planned_out[MODES])
{
    mhp_status status = MHP_OK;
    mhp_trainer *trainers[MODES] = {NULL};
    double *step_ms[MODES] = {NULL};

    for (int what = 0; what < MODES; what++) {
        mhp_trainer_params params = bench_trainer_params(comm, config);

        config->schedule.recompute = (mhp_recompute_params){what, 0};
        MHP_TRY(out, mhp_calloc(&step_ms[what], (size_t)steps, sizeof *step_ms[what]));
        MHP_TRY(out, mhp_trainer_create(&params, &trainers[what]));
        MHP_TRY(out, mhp_store_initialize(mhp_trainer_store(trainers[what]), 1));
        planned_out[what] = mhp_trainer_memory(trainers[what])->bytes;
    }
    for (int step = -1; step < steps; step++) {
        for (int what = 0; what < MODES; what++) {
            mhp_step_report report;

            MHP_TRY(out, mhp_trainer_step(trainers[what], step + 1, &report));
            if (step >= 0) {
                step_ms[what][step] = report.step_s * 1e3;
            }
        }
    }
    for (int what = 0; what < MODES; what++) {
        step_ms_out[what] = bench_median(step_ms[what], steps);
    }
out:
    for (int what = 0; what < MODES; what++) {
        mhp_trainer_destroy(trainers[what]);
        mhp_free(step_ms[what]);
    }
    return status;
}

static mhp_status bench(mhp_comm *comm, mhp_config *config, int steps)
{
    mhp_connection_params own = config->model.connections;
    double step_ms[MODES], forward_ms[2] = {0}, rebuild_ms[2] = {0};
    double microbatches = (double)config->schedule.microbatches;
    size_t bytes[MODES];

    MHP_RETURN_IF_ERROR(print_bytes(config, &own));
    MHP_RETURN_IF_ERROR(time_steps(comm, config, steps, step_ms, bytes));
    for (int what = 0; what < 2; what++) {
        MHP_RETURN_IF_ERROR(time_connections(mhp_comm_device(comm), config, (mhp_recompute)what, &forward_ms[what], &rebuild_ms[what]));
    }
    printf("%-12s %10s %10s %12s\n", "mode", "step, ms", "added, ms", "arena, MiB");
    for (int what = 0; what < MODES; what++) {
        printf("%-12s %10.1f %10.1f %12.1f\n", mode_names[what], step_ms[what], step_ms[what] - step_ms[0],
               (double)bytes[what] / (1024.0 * 1024.0));
    }
    printf("kernels of connections and norms in a step: forward %.1f ms (%.1f where nothing is kept), rebuilding %.1f ms, %.2f of it\n",
           forward_ms[0] * microbatches, forward_ms[1] * microbatches, rebuild_ms[1] * microbatches, rebuild_ms[1] / forward_ms[0]);
    return MHP_OK;
}

/* ---- peak ---- */

/* A line of /proc/self/status, in bytes; 0 where there is none. */
static size_t resident(const char *key)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    size_t bytes = 0;

    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            bytes = 1024 * strtoull(line + strlen(key), NULL, 10);
        }
    }
    if (file) {
        fclose(file);
    }
    return bytes;
}

/* Makes VmHWM start again from what is resident now. */
static void forget_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");

    if (file) {
        fputs("5", file);
        fclose(file);
    }
}

/* Runs one case; what it took beyond what was resident before, over what was planned. */
static mhp_status measure_peak(mhp_comm *comm, mhp_config *config, size_t *planned_out, size_t *before_out, double *ratio_out)
{
    mhp_status status = MHP_OK;
    mhp_trainer *trainer = NULL;
    mhp_trainer_params params = bench_trainer_params(comm, config);
    double loss;

    forget_peak();
    *before_out = resident("VmRSS:");
    MHP_TRY(out, mhp_trainer_create(&params, &trainer));
    MHP_TRY(out, mhp_store_initialize(mhp_trainer_store(trainer), 1));
    for (int step = 0; step < PEAK_STEPS; step++) {
        mhp_step_report report;

        MHP_TRY(out, mhp_trainer_step(trainer, step, &report));
    }
    MHP_TRY(out, mhp_trainer_evaluate(trainer, SAMPLES, &loss));
    *planned_out = mhp_trainer_memory(trainer)->bytes;
    *ratio_out = ((double)resident("VmHWM:") - (double)*before_out) / (double)*planned_out;
out:
    mhp_trainer_destroy(trainer);
    return status;
}

/* Every kind of connections, schedule and mode that these ranks can run. Rank 0 prints its own cases, every rank its worst. */
static mhp_status peak(mhp_comm *comm, mhp_config *config)
{
    static const char *const connections[] = {"residual", "hc", "mhc"};
    char kinds[][12] = {"gpipe", "1f1b", "dualpipe", "dualpipev"};
    const double mib = 1024.0 * 1024.0;
    int rank = mhp_comm_rank(comm), cases = 0;
    mhp_schedule_shape shape = {.ranks = mhp_comm_size(comm), .microbatches = (int)config->schedule.microbatches, .chunks = 1};
    char *own_kind = config->schedule.kind;
    double worst = 0, constant = 0;

    config->parallel.pipeline = shape.ranks;
    for (int kind = MHP_CONNECTION_RESIDUAL; kind <= MHP_CONNECTION_MHC; kind++) {
        config->model.connections.kind = kind;
        config->model.connections.streams = kind == MHP_CONNECTION_RESIDUAL ? 1 : 4;
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            for (int what = 0; what < MODES && mhp_generator_find(kinds[k])->check(&shape) == MHP_OK; what++) {
                size_t planned_bytes, before;
                double ratio;
                mhp_status status;

                config->schedule.kind = kinds[k];
                config->schedule.recompute = (mhp_recompute_params){what, 0};
                status = measure_peak(comm, config, &planned_bytes, &before, &ratio);
                config->schedule.kind = own_kind;
                MHP_RETURN_IF_ERROR(status);
                worst = ratio > worst ? ratio : worst;
                constant = (double)before > constant ? (double)before : constant;
                cases++;
                if (rank == 0) {
                    printf("%-8s %-10s %-12s planned %8.1f MiB, resident %.3f of it and %.1f\n", connections[kind], kinds[k],
                           mode_names[what], (double)planned_bytes / mib, ratio, (double)before / mib);
                }
            }
        }
    }
    printf("rank %d of %d, %d cases: at most %.3f of what was planned and %.1f MiB\n", rank, shape.ranks, cases, worst, constant / mib);
    return MHP_OK;
}

/* STEPS, or 0 for the peak. */
static mhp_status run(mhp_comm *comm, mhp_config *config, void *context)
{
    int steps = *(const int *)context;

    config->train.steps = steps > 0 ? steps + 1 : PEAK_STEPS;
    return steps > 0 ? bench(comm, config, steps) : peak(comm, config);
}

int main(int argc, char **argv)
{
    int steps = argc > 2 ? atoi(argv[2]) : 0;

    if (argc < 3 || (steps < 1 && strcmp(argv[2], "peak") != 0)) {
        fprintf(stderr, "usage: memory CONFIG STEPS|peak [KEY=VALUE ...]\n");
        return 2;
    }
    return bench_run("memory", argv[1], argv + 3, argc - 3, run, &steps);
}
