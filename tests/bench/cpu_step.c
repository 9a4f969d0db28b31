/* mpirun -n P cpu_step CONFIG STEPS [KEY=VALUE ...]: times STEPS steps of a configuration on made-up tokens, and on one rank also the
 * dense matrix products of a step: within the step, and as bare calls of OpenBLAS with the same shapes, both in this run.
 *
 * Dense products are those of the weights. The step has more: attention's (causal: counted in half) and the connections'. */
#include "tests/bench/support.h"

#include <cblas.h>
#include <string.h>

#include "core/memory.h"

enum { CALLS_MAX = 4096, WARM_UP_STEPS = 3, REPEATS = 9 };

typedef struct product_log {
    mhp_gemm_args calls[CALLS_MAX]; /* of one micro-batch */
    int count;
    double seconds, flops;          /* of one micro-batch */
    double seconds_all;             /* of all repeats */
} product_log;

static product_log products; /* a task's argument has no room for context */
static mhp_kernels plain;    /* the kernels that the timed ones call */

/* Every kernel of a forward and a backward pass but the product, in a table of its own clock. */
#define KERNELS(X)                                                                                 \
    X(embedding)                                                                                   \
    X(embedding_gradient)                                                                          \
    X(stream_sum)                                                                                  \
    X(stream_repeat)                                                                               \
    X(rms_norm)                                                                                    \
    X(rms_norm_gradient)                                                                           \
    X(mix)                                                                                         \
    X(merge)                                                                                       \
    X(merge_mix)                                                                                   \
    X(merge_gradient)                                                                              \
    X(mix_gradient)                                                                                \
    X(mix_merge_gradient)                                                                          \
    X(readout)                                                                                     \
    X(readout_gradient)                                                                            \
    X(rotary)                                                                                      \
    X(attention)                                                                                   \
    X(attention_gradient)                                                                          \
    X(swiglu)                                                                                      \
    X(swiglu_gradient)                                                                             \
    X(cross_entropy)                                                                               \
    X(gain)                                                                                        \
    X(gain_read)

#define CLOCK_INDEX(name) CLOCK_##name,
enum { KERNELS(CLOCK_INDEX) CLOCK_COUNT };
static double clocks_s[CLOCK_COUNT];
#define CLOCK_NAME(name) #name,
static const char *const clock_names[] = {KERNELS(CLOCK_NAME)};

#define TIMED_KERNEL(name)                                                                         \
    static mhp_status timed_##name(void *native, const void *argument)                             \
    {                                                                                              \
        uint64_t start_ns = mhp_time_ns();                                                         \
        mhp_status status = plain.name(native, argument);                                          \
                                                                                                   \
        clocks_s[CLOCK_##name] += (double)(mhp_time_ns() - start_ns) * 1e-9;                       \
        return status;                                                                             \
    }
KERNELS(TIMED_KERNEL)

static mhp_status timed_gemm(void *native, const void *argument)
{
    const mhp_gemm_args *args = argument;
    uint64_t start_ns = mhp_time_ns();
    mhp_status status = plain.gemm(native, argument);

    products.seconds += (double)(mhp_time_ns() - start_ns) * 1e-9;
    products.flops += 2.0 * args->m * args->n * args->k;
    if (products.count < CALLS_MAX) {
        products.calls[products.count++] = *args;
    }
    return status;
}

/* Milliseconds of a step, the median, and the operations of all its matrix products. */
static mhp_status time_steps(mhp_comm *comm, mhp_config *config, int steps, double *step_ms_out, double *flops_out)
{
    mhp_status status = MHP_OK;
    mhp_trainer *trainer = NULL;
    double *step_ms = NULL;
    mhp_trainer_params params = bench_trainer_params(comm, config);

    MHP_TRY(out, mhp_calloc(&step_ms, (size_t)steps, sizeof *step_ms));
    MHP_TRY(out, mhp_trainer_create(&params, &trainer));
    MHP_TRY(out, mhp_store_initialize(mhp_trainer_store(trainer), 1));
    for (int i = -WARM_UP_STEPS; i < steps; i++) {
        mhp_step_report report;

        MHP_TRY(out, mhp_trainer_step(trainer, i + WARM_UP_STEPS, &report));
        if (i >= 0) {
            step_ms[i] = report.step_s * 1e3;
            *flops_out = report.flops;
        }
    }
    *step_ms_out = bench_median(step_ms, steps);
out:
    mhp_trainer_destroy(trainer);
    mhp_free(step_ms);
    return status;
}

/* The whole model as one stage, with products that are timed. */
typedef struct one_stage {
    mhp_device *device;
    mhp_stream *stream;
    mhp_stage *stage;
    mhp_microbatch microbatch;
    mhp_kernels kernels;
} one_stage;

static mhp_status allocate(one_stage *self, size_t bytes, void *pointer_out)
{
    MHP_RETURN_IF_ERROR(mhp_device_alloc(self->device, bytes, pointer_out));
    return mhp_stream_zero(self->stream, *(void **)pointer_out, bytes);
}

static mhp_status fill_microbatch(one_stage *self, mhp_config *config, int32_t *integers)
{
    int64_t length = config->train.sequence_length;
    int64_t tokens = config->train.micro_batch_size * length;

    for (int64_t s = 0; s < config->train.micro_batch_size; s++) {
        int64_t at = s * length;

        MHP_RETURN_IF_ERROR(bench_fill(config, (uint64_t)s, integers + at, integers + tokens + at, integers + 2 * tokens + at));
        for (int64_t t = 0; t < length; t++) {
            integers[3 * tokens + at + t] = (int32_t)t;
        }
    }
    self->microbatch.token = integers;
    self->microbatch.target = integers + tokens;
    self->microbatch.document_start = integers + 2 * tokens;
    self->microbatch.position = integers + 3 * tokens;
    self->microbatch.loss_scale = 1.0 / (double)tokens;
    return MHP_OK;
}

static mhp_status create_stage(one_stage *self, mhp_config *config)
{
    const mhp_kernels *kernels = mhp_kernels_find((mhp_device_kind)config->parallel.device, (mhp_dtype)config->model.dtype);
    mhp_stage_params params = {
        .model = &config->model,
        .kernels = &self->kernels,
        .extent = mhp_stage_whole(&config->model),
        .sequences = (int)config->train.micro_batch_size,
        .length = (int)config->train.sequence_length,
        .threads = (int)config->parallel.threads,
    };
    const mhp_stage_sizes *sizes;
    const mhp_parameter_layout *layout;
    size_t element = mhp_dtype_bytes((mhp_dtype)config->model.dtype);
    void *parameters, *gradients, *integers;

    plain = self->kernels = *kernels;
    self->kernels.gemm = timed_gemm;
#define USE_TIMED(name) self->kernels.name = timed_##name;
    KERNELS(USE_TIMED)
    MHP_RETURN_IF_ERROR(mhp_stream_create(self->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "bench", &self->stream));
    MHP_RETURN_IF_ERROR(mhp_stage_create(&params, &self->stage));
    sizes = mhp_stage_get_sizes(self->stage);
    layout = mhp_stage_layout(self->stage);
    MHP_RETURN_IF_ERROR(allocate(self, (size_t)layout->elements * element, &parameters));
    MHP_RETURN_IF_ERROR(allocate(self, (size_t)layout->elements * element, &gradients));
    for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
        MHP_RETURN_IF_ERROR(allocate(self, sizes->bytes[lifetime], &self->microbatch.memory[lifetime]));
    }
    MHP_RETURN_IF_ERROR(allocate(self, sizeof(double), &self->microbatch.loss_sum));
    MHP_RETURN_IF_ERROR(
        allocate(self, 4 * (size_t)(params.sequences * params.length) * sizeof(int32_t), &integers));
    MHP_RETURN_IF_ERROR(mhp_stream_synchronize(self->stream));
    for (int i = 0; i < layout->count; i++) {       /* values of the usual size: denormal numbers would be slow */
        float *values = (float *)parameters + layout->items[i].offset;

        for (int64_t e = 0; e < layout->items[i].elements; e++) {
            values[e] = 0.02f * (float)mhp_random_normal(1, (uint64_t)i, (uint64_t)e);
        }
    }
    mhp_stage_bind(self->stage, parameters, parameters, gradients);
    return fill_microbatch(self, config, integers);
}

static mhp_status run_passes(one_stage *self)
{
    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        mhp_cursor cursor;

        mhp_cursor_begin(&cursor, self->stage, (mhp_pass)pass, &self->microbatch);
        while (!mhp_cursor_done(&cursor)) {
            MHP_RETURN_IF_ERROR(mhp_cursor_step(&cursor, self->stream));
        }
    }
    return mhp_stream_synchronize(self->stream);
}

static mhp_status bare_products(void *native, const void *argument)
{
    float *memory = *(float *const *)argument;

    (void)native;
    for (int i = 0; i < products.count; i++) {
        const mhp_gemm_args *g = &products.calls[i];
        size_t a = (size_t)(g->transpose_a ? g->k : g->m) * (size_t)g->lda;
        size_t b = (size_t)(g->transpose_b ? g->n : g->k) * (size_t)g->ldb;

        cblas_sgemm(CblasRowMajor, g->transpose_a ? CblasTrans : CblasNoTrans, g->transpose_b ? CblasTrans : CblasNoTrans, g->m, g->n,
                    g->k, 1.0f, memory, g->lda, memory + a, g->ldb, 0.0f, memory + a + b, g->ldc);
    }
    return MHP_OK;
}

static size_t bare_elements(void)
{
    size_t most = 0;

    for (int i = 0; i < products.count; i++) {
        const mhp_gemm_args *g = &products.calls[i];
        size_t elements = (size_t)(g->transpose_a ? g->k : g->m) * (size_t)g->lda +
                          (size_t)(g->transpose_b ? g->n : g->k) * (size_t)g->ldb + (size_t)g->m * (size_t)g->ldc;

        most = elements > most ? elements : most;
    }
    return most;
}

/* Seconds of a micro-batch's dense products: within the passes, and bare. Medians over repeats that take turns. */
static mhp_status time_products(mhp_device *device, mhp_config *config, double *inside_s_out, double *bare_s_out)
{
    one_stage self = {.device = device};
    double inside_s[REPEATS], bare_s[REPEATS];
    void *memory = NULL;

    memset(&products, 0, sizeof products);
    memset(clocks_s, 0, sizeof clocks_s);
    MHP_RETURN_IF_ERROR(create_stage(&self, config));
    MHP_RETURN_IF_ERROR(run_passes(&self));
    if (products.count == CALLS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "more than %d products", CALLS_MAX);
    }
    memset(clocks_s, 0, sizeof clocks_s);       /* the first pass warmed up */
    MHP_RETURN_IF_ERROR(allocate(&self, bare_elements() * sizeof(float), &memory));
    for (int r = 0; r < REPEATS; r++) {
        uint64_t start_ns;
        int count = products.count;

        products.seconds = 0;
        products.flops = 0;
        products.count = CALLS_MAX;         /* the list is complete */
        MHP_RETURN_IF_ERROR(run_passes(&self));
        products.count = count;
        inside_s[r] = products.seconds;
        products.seconds_all += products.seconds;
        start_ns = mhp_time_ns();
        MHP_RETURN_IF_ERROR(mhp_stream_submit(self.stream, bare_products, &memory, sizeof memory));
        MHP_RETURN_IF_ERROR(mhp_stream_synchronize(self.stream));
        bare_s[r] = (double)(mhp_time_ns() - start_ns) * 1e-9;
    }
    *inside_s_out = bench_median(inside_s, REPEATS);
    *bare_s_out = bench_median(bare_s, REPEATS);
    mhp_stage_destroy(self.stage);
    return MHP_OK;
}

static int slower_first(const void *a, const void *b)
{
    double x = clocks_s[*(const int *)a], y = clocks_s[*(const int *)b];

    return (x < y) - (x > y);
}

/* Share of a micro-batch's passes that each kind of kernel takes. */
static void print_kernels(void)
{
    int order[CLOCK_COUNT];
    double sum = products.seconds_all;

    for (int i = 0; i < CLOCK_COUNT; i++) {
        order[i] = i;
        sum += clocks_s[i];
    }
    qsort(order, CLOCK_COUNT, sizeof *order, slower_first);
    printf("  of the kernels' time: products %.1f %%", 100 * products.seconds_all / sum);
    for (int i = 0; i < CLOCK_COUNT && clocks_s[order[i]] > 0.005 * sum; i++) {
        printf(", %s %.1f", clock_names[order[i]], 100 * clocks_s[order[i]] / sum);
    }
    printf("\n");
}

static mhp_status bench(mhp_comm *comm, mhp_config *config, void *context)
{
    int steps = *(const int *)context;
    double step_ms = 0, flops = 0, inside_s = 0, bare_s = 0, microbatches, bare_rate, step_rate;

    config->train.steps = steps + WARM_UP_STEPS;
    MHP_RETURN_IF_ERROR(time_steps(comm, config, steps, &step_ms, &flops));
    if (mhp_comm_rank(comm) == 0) {
        printf("width %lld, %d ranks x %lld threads: %.1f ms a step\n", (long long)config->model.hidden_size, mhp_comm_size(comm),
               (long long)config->parallel.threads, step_ms);
    }
    if (mhp_comm_size(comm) > 1 || config->model.dtype != MHP_DTYPE_F32) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(time_products(mhp_comm_device(comm), config, &inside_s, &bare_s));
    microbatches = (double)config->schedule.microbatches;
    bare_rate = products.flops / bare_s;
    step_rate = flops / (step_ms * 1e-3);
    printf("  OpenBLAS sgemm, shapes of the dense products  %7.1f GFLOP/s\n", bare_rate * 1e-9);
    printf("  dense products within the step                %7.1f GFLOP/s, %5.1f %% of it\n", products.flops / inside_s * 1e-9,
           100 * bare_s / inside_s);
    printf("  the step, all its products                    %7.1f GFLOP/s, %5.1f %% of it (dense ones alone: %.1f %%)\n",
           step_rate * 1e-9, 100 * step_rate / bare_rate, 100 * bare_s * microbatches / (step_ms * 1e-3));
    print_kernels();
    return MHP_OK;
}

int main(int argc, char **argv)
{
    int steps = argc > 2 ? atoi(argv[2]) : 0;

    if (steps < 1) {
        fprintf(stderr, "usage: cpu_step CONFIG STEPS [KEY=VALUE ...]\n");
        return 2;
    }
    return bench_run("cpu_step", argv[1], argv + 3, argc - 3, bench, &steps);
}
