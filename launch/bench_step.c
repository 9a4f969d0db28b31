/* mhcpipe bench step: one micro-batch forward and backward, as a whole and part by part. */
#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/random.h"
#include "launch/bench.h"
#include "runtime/memory_table.h"
#include "runtime/store.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"

enum { WARM_UPS = 3, BUFFERS_MAX = 16, RANDOM_PERIOD = 1 << 20, RANDOM_SEED = 1 };

static const char *const pass_names[MHP_PASS_COUNT] = {"forward", "rebuild", "input gradient", "weight gradient"};
static const char *const part_names[MHP_PART_COUNT] = {"embedding", "connections and norms", "attention", "feed-forward",
                                                       "head and loss"};

typedef struct step_bench {
    const mhp_bench_step_params *params;
    mhp_device *device;
    mhp_layout layout;
    mhp_memory_plan *memory;
    mhp_arena arena;
    mhp_store *store;
    mhp_stage *stage;
    mhp_stream *stream;
    mhp_microbatch microbatch;
    int tokens;
    void *buffers[BUFFERS_MAX];
    int buffer_count;
    mhp_event **marks;              /* [mark_count] between the steps of a run, or between runs */
    int mark_count;
} step_bench;

/* One stage and one micro-batch of the configuration, laid out as a run would. */
static mhp_status create_layout(step_bench *bench)
{
    const mhp_config *config = bench->params->config;
    bool ends = !bench->params->layers_alone;
    mhp_layout *layout = &bench->layout;
    mhp_schedule_shape shape = {.ranks = 1, .microbatches = 1, .chunks = 1};
    mhp_lower_params lower = {.rebuild = config->schedule.recompute.what != MHP_RECOMPUTE_NONE};

    MHP_RETURN_IF_ERROR(mhp_schedule_generate("gpipe", &shape, &layout->plan));
    MHP_RETURN_IF_ERROR(mhp_plan_lower(layout->plan, &lower));
    MHP_RETURN_IF_ERROR(mhp_schedule_forward_only(layout->plan, 1, &layout->evaluation_plan));
    MHP_RETURN_IF_ERROR(mhp_plan_lower(layout->evaluation_plan, NULL));
    MHP_RETURN_IF_ERROR(mhp_calloc(&layout->extents, 1, sizeof *layout->extents));
    layout->extents[0] = mhp_stage_whole(&config->model);
    layout->extents[0].first = layout->extents[0].last = ends;
    return MHP_OK;
}

static mhp_status create_store(step_bench *bench)
{
    const mhp_config *config = bench->params->config;
    mhp_parallel_params one_rank = config->parallel;
    mhp_memory_params memory = {&bench->layout, &config->model, &one_rank, &config->schedule, &config->train};
    mhp_store_params params = {
        .comm = bench->params->comm,
        .replica_count = 1,
        .model = &config->model,
        .sequences = (int)config->train.micro_batch_size,
        .length = (int)config->train.sequence_length,
        .threads = (int)config->parallel.threads,
        .arena = &bench->arena,
    };

    one_rank.pipeline = one_rank.data = 1;
    MHP_RETURN_IF_ERROR(create_layout(bench));
    MHP_RETURN_IF_ERROR(mhp_memory_plan_create(&memory, 0, &bench->memory));
    MHP_RETURN_IF_ERROR(mhp_memory_check_device(bench->memory, bench->device, bench->memory->bytes, 1));
    MHP_RETURN_IF_ERROR(mhp_arena_create(bench->device, bench->memory->bytes, &bench->arena));
    params.plan = bench->layout.plan;
    params.extents = bench->layout.extents;
    params.memory = bench->memory;
    MHP_RETURN_IF_ERROR(mhp_store_create(&params, &bench->store));
    bench->stage = bench->store->held[0].stage;
    bench->tokens = params.sequences * params.length;
    return mhp_store_initialize(bench->store, RANDOM_SEED);
}

static mhp_status take_buffer(step_bench *bench, size_t bytes, void **pointer_out)
{
    MHP_RETURN_IF_ERROR(mhp_device_alloc(bench->device, bytes, pointer_out));
    bench->buffers[bench->buffer_count++] = *pointer_out;
    return MHP_OK;
}

/* Copies a host image to the device and waits. */
static mhp_status upload(step_bench *bench, void *target, const void *image, size_t bytes)
{
    MHP_RETURN_IF_ERROR(mhp_stream_copy(bench->stream, target, image, bytes));
    return mhp_stream_synchronize(bench->stream);
}

/* Fills a state of the stage with normal numbers times `deviation`, the same RANDOM_PERIOD of them again and again. */
static mhp_status fill_state(step_bench *bench, void *target, double deviation)
{
    mhp_status status = MHP_OK;
    const mhp_model_params *model = &bench->params->config->model;
    mhp_dtype dtype = bench->store->kernels->dtype;
    int64_t elements = (int64_t)bench->tokens * model->connections.streams * model->hidden_size;
    double *period = NULL;
    void *image = NULL;

    MHP_TRY(out, mhp_calloc(&period, RANDOM_PERIOD, sizeof *period));
    MHP_TRY(out, mhp_calloc(&image, (size_t)elements, mhp_dtype_bytes(dtype)));
    for (int i = 0; i < RANDOM_PERIOD; i++) {
        period[i] = deviation * mhp_random_normal(RANDOM_SEED, 0, (uint64_t)i);
    }
    for (int64_t i = 0; i < elements; i++) {
        mhp_dtype_store(dtype, image, i, period[i % RANDOM_PERIOD]);
    }
    MHP_TRY(out, upload(bench, target, image, (size_t)elements * mhp_dtype_bytes(dtype)));
out:
    mhp_free(image);
    mhp_free(period);
    return status;
}

/* Random tokens, targets, positions, and documents that begin with their sequence. */
static mhp_status fill_tokens(step_bench *bench)
{
    mhp_status status = MHP_OK;
    const mhp_config *config = bench->params->config;
    size_t count = (size_t)bench->tokens;
    int32_t *image = NULL;
    int32_t *integers;

    MHP_TRY(out, take_buffer(bench, 4 * count * sizeof *image, (void **)&integers));
    MHP_TRY(out, mhp_calloc(&image, 4 * count, sizeof *image));
    for (size_t t = 0; t < count; t++) {
        uint64_t random = mhp_random_u64(RANDOM_SEED, 1, t);

        image[t] = (int32_t)(random % (uint64_t)config->model.vocab_size);
        image[count + t] = (int32_t)((random >> 32) % (uint64_t)config->model.vocab_size);
        image[2 * count + t] = (int32_t)(t % (size_t)config->train.sequence_length);
    }
    MHP_TRY(out, upload(bench, integers, image, 4 * count * sizeof *image));
    bench->microbatch.token = integers;
    bench->microbatch.target = integers + count;
    bench->microbatch.position = integers + 2 * count;
    bench->microbatch.document_start = integers + 3 * count;
    bench->microbatch.one_document = true;
out:
    mhp_free(image);
    return status;
}

static mhp_status create_microbatch(step_bench *bench)
{
    const mhp_stage_sizes *sizes = mhp_stage_get_sizes(bench->stage);
    mhp_microbatch *microbatch = &bench->microbatch;

    for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
        const size_t *at = bench->memory->stages[0].at[MHP_PHASE_TRAINING][lifetime];

        microbatch->memory[lifetime] = at ? mhp_arena_at(&bench->arena, at[0], sizes->bytes[lifetime]) : NULL;
    }
    MHP_RETURN_IF_ERROR(take_buffer(bench, sizeof(double), (void **)&microbatch->loss_sum));
    microbatch->loss_scale = 1.0 / bench->tokens;
    if (bench->params->layers_alone) {
        MHP_RETURN_IF_ERROR(take_buffer(bench, sizes->state_bytes, &microbatch->input));
        MHP_RETURN_IF_ERROR(take_buffer(bench, sizes->state_bytes, &microbatch->output));
        MHP_RETURN_IF_ERROR(take_buffer(bench, sizes->gradient_bytes, &microbatch->gradient_input));
        MHP_RETURN_IF_ERROR(take_buffer(bench, sizes->gradient_bytes, &microbatch->gradient_output));
        MHP_RETURN_IF_ERROR(fill_state(bench, microbatch->input, 1));
        MHP_RETURN_IF_ERROR(fill_state(bench, microbatch->gradient_input, 1e-3));
    }
    return fill_tokens(bench);
}

static mhp_status mark(step_bench *bench, int index)
{
    return mhp_event_mark(bench->marks[index], bench->stream);
}

/* Submits the passes; with `marks`, a mark before every step and one at the end. */
static mhp_status submit_passes(step_bench *bench, bool marks)
{
    int step = 0;

    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        mhp_cursor cursor;

        mhp_cursor_begin(&cursor, bench->stage, (mhp_pass)pass, &bench->microbatch);
        while (!mhp_cursor_done(&cursor)) {
            if (marks) {
                MHP_RETURN_IF_ERROR(mark(bench, step++));
            }
            MHP_RETURN_IF_ERROR(mhp_cursor_step(&cursor, bench->stream));
        }
    }
    return marks ? mark(bench, step) : MHP_OK;
}

static int count_steps(const step_bench *bench)
{
    int count = 0;

    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        mhp_cursor cursor;

        mhp_cursor_begin(&cursor, bench->stage, (mhp_pass)pass, &bench->microbatch);
        count += cursor.step_count;
    }
    return count;
}

static mhp_status create_marks(step_bench *bench)
{
    int steps = count_steps(bench);

    bench->mark_count = 1 + (steps > bench->params->repetitions ? steps : bench->params->repetitions);
    MHP_RETURN_IF_ERROR(mhp_calloc(&bench->marks, (size_t)bench->mark_count, sizeof *bench->marks));
    for (int i = 0; i < bench->mark_count; i++) {
        MHP_RETURN_IF_ERROR(mhp_event_create(bench->device, &bench->marks[i]));
    }
    return MHP_OK;
}

static double seconds_between(const step_bench *bench, int first, int last)
{
    return (double)(mhp_event_time_ns(bench->marks[last]) - mhp_event_time_ns(bench->marks[first])) * 1e-9;
}

/* The median of the timed steps; they follow each other without a pause. */
static mhp_status time_steps(step_bench *bench, double *seconds_out)
{
    mhp_status status = MHP_OK;
    int count = bench->params->repetitions;
    double *seconds = NULL;

    MHP_TRY(out, mhp_calloc(&seconds, (size_t)count, sizeof *seconds));
    for (int i = 0; i < WARM_UPS; i++) {
        MHP_TRY(out, submit_passes(bench, false));
        MHP_TRY(out, mhp_stream_synchronize(bench->stream));
    }
    for (int i = 0; i < count; i++) {
        MHP_TRY(out, mark(bench, i));
        MHP_TRY(out, submit_passes(bench, false));
    }
    MHP_TRY(out, mark(bench, count));
    MHP_TRY(out, mhp_stream_synchronize(bench->stream));
    for (int i = 0; i < count; i++) {
        seconds[i] = seconds_between(bench, i, i + 1);
    }
    *seconds_out = mhp_bench_median(seconds, count);
out:
    mhp_free(seconds);
    return status;
}

static mhp_status print_step(step_bench *bench, FILE *stream, double *step_out)
{
    const mhp_config *config = bench->params->config;
    const mhp_kernels *kernels = bench->store->kernels;
    double peak = mhp_bench_peak_flops(bench->device, kernels->dtype);
    double flops = 0;

    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        flops += mhp_stage_flops(bench->stage, (mhp_pass)pass);
    }
    MHP_RETURN_IF_ERROR(time_steps(bench, step_out));
    fprintf(stream, "%s, %d layers%s, hidden %lld, %lld streams, %d tokens\n", kernels->name, (int)config->model.num_hidden_layers,
            bench->params->layers_alone ? " alone" : "", (long long)config->model.hidden_size,
            (long long)config->model.connections.streams, bench->tokens);
    fprintf(stream, "step %.3f ms, %.0f tokens/s, %.1f TFLOP/s", *step_out * 1e3, bench->tokens / *step_out, flops / *step_out * 1e-12);
    if (isfinite(peak)) {
        fprintf(stream, ", MFU %.1f %% of %.0f TFLOP/s", 100 * flops / *step_out / peak, peak * 1e-12);
    }
    fprintf(stream, "; device memory %.2f GiB\n\n", (double)mhp_device_bytes_peak(bench->device) / (1024.0 * 1024 * 1024));
    return MHP_OK;
}

/* One more step with a mark around every step of its cursors. The marks cost little, but steps apart take as long as they take, so
 * the sum is printed beside the whole. */
static mhp_status print_parts(step_bench *bench, FILE *stream)
{
    double seconds[MHP_PASS_COUNT][MHP_PART_COUNT] = {{0}};
    double total = 0;
    int step = 0;

    MHP_RETURN_IF_ERROR(submit_passes(bench, true));
    MHP_RETURN_IF_ERROR(mhp_stream_synchronize(bench->stream));
    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        mhp_cursor cursor;

        mhp_cursor_begin(&cursor, bench->stage, (mhp_pass)pass, &bench->microbatch);
        for (; !mhp_cursor_done(&cursor); cursor.step++, step++) {
            seconds[pass][mhp_cursor_next_part(&cursor)] += seconds_between(bench, step, step + 1);
        }
    }
    for (int i = 0; i < MHP_PASS_COUNT * MHP_PART_COUNT; i++) {
        total += seconds[i / MHP_PART_COUNT][i % MHP_PART_COUNT];
    }
    fprintf(stream, "%-22s", "ms");
    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        fprintf(stream, " %16s", pass_names[pass]);
    }
    fprintf(stream, " %10s\n", "of all");
    for (int part = 0; part < MHP_PART_COUNT; part++) {
        double sum = 0;

        fprintf(stream, "%-22s", part_names[part]);
        for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
            fprintf(stream, " %16.3f", seconds[pass][part] * 1e3);
            sum += seconds[pass][part];
        }
        fprintf(stream, " %8.1f %%\n", 100 * sum / total);
    }
    fprintf(stream, "sum %.3f ms\n", total * 1e3);
    return MHP_OK;
}

static void destroy_bench(step_bench *bench)
{
    if (bench->stream) {
        (void)mhp_stream_synchronize(bench->stream);
    }
    for (int i = 0; bench->marks && i < bench->mark_count; i++) {
        mhp_event_destroy(bench->marks[i]);
    }
    mhp_free(bench->marks);
    for (int i = 0; i < bench->buffer_count; i++) {
        mhp_device_free(bench->device, bench->buffers[i]);
    }
    mhp_stream_destroy(bench->stream);
    mhp_store_destroy(bench->store);
    mhp_arena_release(&bench->arena);
    mhp_memory_plan_destroy(bench->memory);
    mhp_layout_release(&bench->layout);
}

mhp_status mhp_bench_step(const mhp_bench_step_params *params, FILE *stream)
{
    mhp_status status = MHP_OK;
    step_bench bench = {.params = params, .device = mhp_comm_device(params->comm)};
    double step;

    MHP_TRY(out, create_store(&bench));
    MHP_TRY(out, mhp_stream_create(bench.device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "bench", &bench.stream));
    MHP_TRY(out, create_microbatch(&bench));
    MHP_TRY(out, create_marks(&bench));
    MHP_TRY(out, print_step(&bench, stream, &step));
    MHP_TRY(out, print_parts(&bench, stream));
out:
    destroy_bench(&bench);
    return status;
}
