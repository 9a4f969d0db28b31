/* mhcpipe bench kernels: the kernels of a sublayer's connection beside a large copy, by the table of any backend. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "launch/bench.h"

enum {
    ROOMS_MAX = 2048,
    SETS_MIN = 2,
    SETS_MAX = 16,
    BATCH = 8,                  /* calls between two marks */
    BLOCK = 4,                  /* sublayers of a rebuild */
    SINKHORN_ITERATIONS = 20,
    RANDOM_PERIOD = 1 << 14,
    RANDOM_SEED = 1,
    COPY_MIB_CUDA = 1024,
    COPY_MIB_HOST = 128,
};

static const size_t sets_bytes = (size_t)512 << 20;     /* of all sets together where SETS_MAX allows: more than any cache */
static const double epsilon = 1e-6;
static const char *const kind_names[] = {"residual", "hc", "mhc"};

/* One sublayer's arrays, as the arguments of every kernel. */
typedef struct set {
    mhp_merge_mix_args forward;
    mhp_merge_gradient_args merge_gradient;
    mhp_mix_gradient_args mix_gradient;
    mhp_mix_merge_gradient_args mix_merge_gradient;     /* of what `forward` joined */
    const void *block_weights[BLOCK];
    mhp_rebuild_args block;
    mhp_readout_args readout;
    mhp_readout_gradient_args readout_gradient;
    mhp_stream_sum_args sum;
    mhp_stream_repeat_args repeat;
} set;

typedef struct kernel_bench {
    const mhp_bench_kernels_params *params;
    FILE *out;
    mhp_stream *stream;
    mhp_event *begin, *end;
    void *rooms[ROOMS_MAX];
    int room_count;
    size_t room_bytes;
    mhp_connection_kind kind;
    int streams;                /* of the kind: one for residual */
    set *sets;                  /* [SETS_MAX] */
    int set_count;
    double copy_rate;           /* bytes a second, read and written */
} kernel_bench;

typedef mhp_status (*bench_call)(kernel_bench *bench, int index);

/* ---- Memory ---- */

static void free_rooms(kernel_bench *bench)
{
    while (bench->room_count > 0) {
        mhp_device_free(bench->params->device, bench->rooms[--bench->room_count]);
    }
    bench->room_bytes = 0;
}

/* Repeats the first `filled` of `bytes` bytes. */
static mhp_status repeat_bytes(kernel_bench *bench, char *target, size_t filled, size_t bytes)
{
    while (filled < bytes) {
        size_t count = filled < bytes - filled ? filled : bytes - filled;

        MHP_RETURN_IF_ERROR(mhp_stream_copy(bench->stream, target + filled, target, count));
        filled += count;
    }
    return mhp_stream_synchronize(bench->stream);
}

/* `count` elements, normal numbers around `mean`; the same RANDOM_PERIOD of them again and again. */
static mhp_status take_room(kernel_bench *bench, mhp_dtype dtype, size_t count, double deviation, double mean, void **room_out)
{
    mhp_status status = MHP_OK;
    size_t unit = mhp_dtype_bytes(dtype);
    size_t period = count < RANDOM_PERIOD ? count : RANDOM_PERIOD;
    void *image = NULL;

    if (bench->room_count == ROOMS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "bench kernels needs more than %d arrays", ROOMS_MAX);
    }
    MHP_RETURN_IF_ERROR(mhp_device_alloc(bench->params->device, count * unit, room_out));
    bench->rooms[bench->room_count++] = *room_out;
    bench->room_bytes += count * unit;
    MHP_RETURN_IF_ERROR(mhp_calloc(&image, period, unit));
    for (size_t i = 0; i < period; i++) {
        double normal = mhp_random_normal(RANDOM_SEED, (uint32_t)bench->room_count, i);

        mhp_dtype_store(dtype, image, (int64_t)i, mean + deviation * normal);
    }
    MHP_TRY(out, mhp_stream_copy(bench->stream, *room_out, image, period * unit));
    MHP_TRY(out, mhp_stream_synchronize(bench->stream));
    MHP_TRY(out, repeat_bytes(bench, *room_out, period * unit, count * unit));
out:
    mhp_free(image);
    return status;
}

/* Arrays for a field of an argument struct, `const void *` or `void *`. Of real: `rows` times C elements for every token. */
static mhp_status take_states(kernel_bench *bench, int rows, void *field)
{
    size_t count = (size_t)bench->params->tokens * (size_t)rows * (size_t)bench->params->hidden;
    void *room;

    MHP_RETURN_IF_ERROR(take_room(bench, bench->params->kernels->dtype, count, 1, 0, &room));
    memcpy(field, &room, sizeof room);
    return MHP_OK;
}

static mhp_status take_full(kernel_bench *bench, size_t count, double deviation, double mean, void *field)
{
    void *room;

    MHP_RETURN_IF_ERROR(take_room(bench, bench->params->kernels->full_dtype, count, deviation, mean, &room));
    memcpy(field, &room, sizeof room);
    return MHP_OK;
}

/* ---- Arguments ---- */

static size_t base_count(const kernel_bench *bench)
{
    return (size_t)bench->streams * (size_t)(bench->streams + 2);
}

static size_t fn_count(const kernel_bench *bench)
{
    size_t hidden = (size_t)bench->params->hidden;
    size_t streams = (size_t)bench->streams;

    return bench->kind == MHP_CONNECTION_HC ? (streams + 2) * hidden : base_count(bench) * streams * hidden;
}

/* The sizes that all of a connection's argument structs begin with or hold. */
#define SET_SIZES(bench, args)                       \
    do {                                             \
        (args)->tokens = (bench)->params->tokens;    \
        (args)->hidden = (bench)->params->hidden;    \
        (args)->streams = (bench)->streams;          \
    } while (0)

#define SET_EPSILONS(args)              \
    do {                                \
        (args)->norm_epsilon = epsilon; \
        (args)->hc_epsilon = epsilon;   \
    } while (0)

static mhp_status make_forward(kernel_bench *bench, set *s)
{
    size_t tokens = (size_t)bench->params->tokens;
    size_t streams = (size_t)bench->streams;
    mhp_merge_args *merge = &s->forward.merge;
    mhp_mix_args *mix = &s->forward.mix;
    mhp_connection_args *c = &mix->connection;

    SET_SIZES(bench, merge);
    SET_SIZES(bench, c);
    SET_EPSILONS(c);
    merge->kind = c->kind = bench->kind;
    c->sinkhorn_iterations = SINKHORN_ITERATIONS;
    MHP_RETURN_IF_ERROR(take_states(bench, bench->streams, &merge->x));
    MHP_RETURN_IF_ERROR(take_states(bench, 1, &merge->y));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams, .3, 1, &merge->post));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams * streams, .1, 1.0 / bench->streams, &merge->comb));
    MHP_RETURN_IF_ERROR(take_states(bench, bench->streams, &merge->x_next));
    c->x = merge->x_next;
    if (bench->kind != MHP_CONNECTION_RESIDUAL) {
        MHP_RETURN_IF_ERROR(take_full(bench, fn_count(bench), .02, 0, &c->fn));
        MHP_RETURN_IF_ERROR(take_full(bench, base_count(bench), 1, 0, &c->base));
        MHP_RETURN_IF_ERROR(take_full(bench, 3, .1, 1, &c->scale));
    }
    MHP_RETURN_IF_ERROR(take_full(bench, (size_t)bench->params->hidden, .1, 1, &mix->weight));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams, 0, 0, &c->pre));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams, 0, 0, &c->post));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams * streams, 0, 0, &c->comb));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * base_count(bench), 0, 0, &c->projection));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams, 0, 0, &c->rrms));
    MHP_RETURN_IF_ERROR(take_states(bench, 1, &c->z));
    MHP_RETURN_IF_ERROR(take_states(bench, 1, &mix->normed));
    return take_full(bench, tokens, 0, 0, &mix->norm_rrms);
}

static mhp_status make_backward(kernel_bench *bench, set *s)
{
    const mhp_bench_kernels_params *params = bench->params;
    size_t tokens = (size_t)params->tokens;
    size_t streams = (size_t)bench->streams;
    size_t room = (size_t)params->kernels->connection_workspace(bench->kind, params->tokens, params->hidden, bench->streams,
                                                                params->threads);
    const mhp_connection_args *c = &s->forward.mix.connection;
    mhp_merge_gradient_args *merge = &s->merge_gradient;
    mhp_mix_gradient_args *mix = &s->mix_gradient;
    mhp_connection_gradient_args *back = &mix->connection;

    SET_SIZES(bench, merge);
    SET_SIZES(bench, back);
    SET_EPSILONS(back);
    merge->kind = back->kind = bench->kind;
    back->sinkhorn_iterations = SINKHORN_ITERATIONS;
    merge->x = s->forward.merge.x;
    merge->y = s->forward.merge.y;
    merge->post = s->forward.merge.post;
    merge->comb = s->forward.merge.comb;
    MHP_RETURN_IF_ERROR(take_states(bench, bench->streams, &merge->g));
    MHP_RETURN_IF_ERROR(take_states(bench, 1, &merge->dy));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams, 1, 0, &merge->dpost));
    MHP_RETURN_IF_ERROR(take_full(bench, tokens * streams * streams, 1, 0, &merge->dcomb));
    back->g = merge->g;
    back->x = c->x;
    back->dpost = merge->dpost;
    back->dcomb = merge->dcomb;
    MHP_RETURN_IF_ERROR(take_states(bench, 1, &back->dz));
    back->pre = c->pre;
    back->post = c->post;
    back->comb = c->comb;
    back->projection = c->projection;
    back->rrms = c->rrms;
    back->fn = c->fn;
    back->base = c->base;
    back->scale = c->scale;
    MHP_RETURN_IF_ERROR(take_states(bench, bench->streams, &back->dx));
    MHP_RETURN_IF_ERROR(take_full(bench, fn_count(bench), 0, 0, &back->dfn));
    MHP_RETURN_IF_ERROR(take_full(bench, base_count(bench), 0, 0, &back->dbase));
    MHP_RETURN_IF_ERROR(take_full(bench, 3, 0, 0, &back->dscale));
    MHP_RETURN_IF_ERROR(take_full(bench, room > 0 ? room : 1, 0, 0, &back->workspace));
    mix->weight = s->forward.mix.weight;
    mix->norm_rrms = s->forward.mix.norm_rrms;
    MHP_RETURN_IF_ERROR(take_states(bench, 1, &mix->dnormed));
    MHP_RETURN_IF_ERROR(take_full(bench, (size_t)params->hidden, 0, 0, &mix->dweight));
    s->mix_merge_gradient = (mhp_mix_merge_gradient_args){.mix = *mix, .merge = *merge};
    s->mix_merge_gradient.merge.g = back->dx;
    return MHP_OK;
}

/* A block's arrays: what its sublayers keep lies in one piece a sublayer. */
static mhp_status make_block(kernel_bench *bench, set *s)
{
    const mhp_bench_kernels_params *params = bench->params;
    size_t full = mhp_dtype_bytes(params->kernels->full_dtype);
    size_t row = (size_t)params->tokens * (size_t)params->hidden * mhp_dtype_bytes(params->kernels->dtype);
    size_t vector = ((size_t)params->tokens * full + 63) / 64 * 64;     /* bytes of a coefficient of every token */
    size_t n = (size_t)bench->streams;
    mhp_rebuild_args *block = &s->block;
    char *piece;

    SET_SIZES(bench, block);
    block->count = BLOCK;
    block->weight = s->block_weights;
    for (int i = 0; i < BLOCK; i++) {
        MHP_RETURN_IF_ERROR(take_full(bench, (size_t)params->hidden, .1, 1, &s->block_weights[i]));
    }
    block->x = s->forward.merge.x;
    MHP_RETURN_IF_ERROR(take_states(bench, BLOCK, &block->y));
    MHP_RETURN_IF_ERROR(take_states(bench, (BLOCK - 1) * bench->streams, &block->state));
    MHP_RETURN_IF_ERROR(take_states(bench, BLOCK, &block->normed));
    block->y_stride = block->normed_stride = row;
    block->state_stride = n * row;
    block->kept_stride = vector * (n * n + 2 * n + 1);
    MHP_RETURN_IF_ERROR(take_full(bench, BLOCK * block->kept_stride / full, .1, 1.0 / bench->streams, &piece));
    block->pre = piece;
    block->post = piece += n * vector;
    block->comb = piece += n * vector;
    block->norm_rrms = piece + n * n * vector;
    return MHP_OK;
}

/* In the arrays of the sublayer. */
static void make_readout(kernel_bench *bench, set *s)
{
    mhp_readout_args *readout = &s->readout;
    mhp_readout_gradient_args *back = &s->readout_gradient;
    const mhp_connection_args *c = &s->forward.mix.connection;
    const mhp_connection_gradient_args *gradient = &s->mix_gradient.connection;

    SET_SIZES(bench, readout);
    SET_SIZES(bench, back);
    SET_SIZES(bench, &s->sum);
    SET_SIZES(bench, &s->repeat);
    SET_EPSILONS(readout);
    SET_EPSILONS(back);
    readout->x = back->x = s->sum.state = c->x;
    readout->fn = back->fn = c->fn;
    readout->base = back->base = c->base;
    readout->scale = back->scale = c->scale;
    readout->z = s->sum.sum = c->z;
    back->pre = readout->pre = c->pre;
    back->projection = readout->projection = c->projection;
    back->rrms = readout->rrms = c->rrms;
    back->dz = s->repeat.grad = s->mix_gradient.dnormed;
    back->dx = s->repeat.state = gradient->dx;
    back->dfn = gradient->dfn;
    back->dbase = gradient->dbase;
    back->dscale = gradient->dscale;
    back->workspace = gradient->workspace;
}

/* As many sets as together are larger than any cache. */
static mhp_status make_sets(kernel_bench *bench)
{
    int wanted = SETS_MIN;

    memset(bench->sets, 0, SETS_MAX * sizeof *bench->sets);
    for (bench->set_count = 0; bench->set_count < wanted; bench->set_count++) {
        set *s = &bench->sets[bench->set_count];

        MHP_RETURN_IF_ERROR(make_forward(bench, s));
        MHP_RETURN_IF_ERROR(make_backward(bench, s));
        if (bench->kind == MHP_CONNECTION_MHC) {
            MHP_RETURN_IF_ERROR(make_block(bench, s));
        }
        make_readout(bench, s);
        MHP_RETURN_IF_ERROR(mhp_stream_submit(bench->stream, bench->params->kernels->merge_mix, &s->forward, sizeof s->forward));
        if (bench->set_count == 0 && sets_bytes / bench->room_bytes > SETS_MIN) {
            wanted = sets_bytes / bench->room_bytes < SETS_MAX ? (int)(sets_bytes / bench->room_bytes) : SETS_MAX;
        }
    }
    return mhp_stream_synchronize(bench->stream);
}

/* ---- Calls ---- */

#define DEFINE_CALL(kernel, member)                                                                        \
    static mhp_status call_##kernel(kernel_bench *bench, int index)                                        \
    {                                                                                                      \
        const set *s = &bench->sets[index % bench->set_count];                                             \
                                                                                                           \
        return mhp_stream_submit(bench->stream, bench->params->kernels->kernel, &s->member, sizeof s->member); \
    }

DEFINE_CALL(merge, forward.merge)
DEFINE_CALL(mix, forward.mix)
DEFINE_CALL(merge_mix, forward)
DEFINE_CALL(merge_gradient, merge_gradient)
DEFINE_CALL(mix_gradient, mix_gradient)
DEFINE_CALL(mix_merge_gradient, mix_merge_gradient)
DEFINE_CALL(rebuild, block)
DEFINE_CALL(readout, readout)
DEFINE_CALL(readout_gradient, readout_gradient)
DEFINE_CALL(stream_sum, sum)
DEFINE_CALL(stream_repeat, repeat)

static mhp_status call_backward_apart(kernel_bench *bench, int index)
{
    MHP_RETURN_IF_ERROR(call_merge_gradient(bench, index));
    return call_mix_gradient(bench, index);
}

static mhp_status call_copy(kernel_bench *bench, int index)
{
    (void)index;
    return mhp_stream_copy(bench->stream, bench->rooms[1], bench->rooms[0], bench->room_bytes / 2);
}

/* ---- Times ---- */

static int compare_seconds(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

/* The median, of repetitions, of a batch's seconds over its calls; the first batch is not counted. */
static mhp_status time_call(kernel_bench *bench, bench_call call, double *seconds_out)
{
    mhp_status status = MHP_OK;
    int count = bench->params->repetitions;
    double *seconds = NULL;
    int index = 0;

    MHP_TRY(out, mhp_calloc(&seconds, (size_t)count, sizeof *seconds));
    for (int i = -1; i < count; i++) {
        MHP_TRY(out, mhp_event_record(bench->begin, bench->stream));
        for (int k = 0; k < BATCH; k++) {
            MHP_TRY(out, call(bench, index++));
        }
        MHP_TRY(out, mhp_event_record(bench->end, bench->stream));
        MHP_TRY(out, mhp_stream_synchronize(bench->stream));
        if (i >= 0) {
            seconds[i] = (double)(mhp_event_time_ns(bench->end) - mhp_event_time_ns(bench->begin)) * 1e-9 / BATCH;
        }
    }
    qsort(seconds, (size_t)count, sizeof *seconds, compare_seconds);
    *seconds_out = seconds[count / 2];
out:
    mhp_free(seconds);
    return status;
}

/* `rows`: C elements of real for every token, at least, that must move. */
static void print_row(kernel_bench *bench, const char *name, double rows, double seconds)
{
    const mhp_bench_kernels_params *params = bench->params;
    double bytes = rows * (double)params->hidden * params->tokens * (double)mhp_dtype_bytes(params->kernels->dtype);

    fprintf(bench->out, "%-9s %-24s %9.4f %6.0fC %9.1f %9.3f\n", kind_names[bench->kind], name, seconds * 1e3, rows, bytes * 1e-6,
            bytes / seconds / bench->copy_rate);
}

static mhp_status print_call(kernel_bench *bench, const char *name, double rows, bench_call call)
{
    double seconds;

    MHP_RETURN_IF_ERROR(time_call(bench, call, &seconds));
    print_row(bench, name, rows, seconds);
    return MHP_OK;
}

static mhp_status measure_copy(kernel_bench *bench)
{
    bool card = mhp_device_get_kind(bench->params->device) == MHP_DEVICE_CUDA;
    size_t bytes = (size_t)(card ? COPY_MIB_CUDA : COPY_MIB_HOST) << 20;
    mhp_dtype dtype = bench->params->kernels->dtype;
    double seconds;
    void *room;

    MHP_RETURN_IF_ERROR(take_room(bench, dtype, bytes / mhp_dtype_bytes(dtype), 1, 0, &room));
    MHP_RETURN_IF_ERROR(take_room(bench, dtype, bytes / mhp_dtype_bytes(dtype), 1, 0, &room));
    MHP_RETURN_IF_ERROR(time_call(bench, call_copy, &seconds));
    free_rooms(bench);
    bench->copy_rate = 2 * (double)bytes / seconds;
    fprintf(bench->out, "%s, %d tokens, hidden %d, %d streams; a copy of %d MiB moves %.1f GB/s, read and written\n\n",
            bench->params->kernels->name, bench->params->tokens, bench->params->hidden, bench->params->streams,
            (int)(bytes >> 20), bench->copy_rate * 1e-9);
    fprintf(bench->out, "%-9s %-24s %9s %7s %9s %9s\n", "", "kernel", "ms", "least", "MB", "of copy");
    return MHP_OK;
}

/* What a sublayer takes forward and backward, both counted without the fusion of merge and mix, and together. Residual's gradient leaves
 * out the copy that is its merge's. */
static mhp_status print_sublayer(kernel_bench *bench)
{
    int n = bench->streams;
    bool residual = bench->kind == MHP_CONNECTION_RESIDUAL;
    double forward, backward, apart;

    MHP_RETURN_IF_ERROR(time_call(bench, call_merge_mix, &forward));
    MHP_RETURN_IF_ERROR(time_call(bench, residual ? call_mix_gradient : call_mix_merge_gradient, &backward));
    print_row(bench, "whole forward", residual ? 4 : 3 * n + 2, forward);
    print_row(bench, "whole backward", residual ? 4 : 6 * n + 4, backward);
    if (!residual) {
        MHP_RETURN_IF_ERROR(time_call(bench, call_backward_apart, &apart));
        print_row(bench, "whole backward, apart", 6 * n + 4, apart);
    }
    print_row(bench, "forward and backward", residual ? 8 : 9 * n + 6, forward + backward);
    return MHP_OK;
}

static mhp_status print_kind(kernel_bench *bench, mhp_connection_kind kind)
{
    bool residual = kind == MHP_CONNECTION_RESIDUAL;
    int n = residual ? 1 : bench->params->streams;

    bench->kind = kind;
    bench->streams = n;
    MHP_RETURN_IF_ERROR(make_sets(bench));
    MHP_RETURN_IF_ERROR(print_call(bench, "merge", 2 * n + 1, call_merge));
    MHP_RETURN_IF_ERROR(print_call(bench, "mix", n + 1, call_mix));
    MHP_RETURN_IF_ERROR(print_call(bench, "merge and mix", residual ? 4 : 2 * n + 2, call_merge_mix));
    MHP_RETURN_IF_ERROR(print_call(bench, "merge, gradient", residual ? 2 : 2 * n + 2, call_merge_gradient));
    MHP_RETURN_IF_ERROR(print_call(bench, "mix, gradient", residual ? 4 : 4 * n + 2, call_mix_gradient));
    MHP_RETURN_IF_ERROR(print_call(bench, "mix and merge, gradient", 5 * n + (residual ? 0 : 4), call_mix_merge_gradient));
    MHP_RETURN_IF_ERROR(print_sublayer(bench));
    if (kind == MHP_CONNECTION_MHC) {
        /* The first state and y of all but the last sublayer in; normed of all and the states between out. */
        MHP_RETURN_IF_ERROR(print_call(bench, "rebuild of 4", n + BLOCK - 1 + BLOCK + (BLOCK - 1) * n, call_rebuild));
        MHP_RETURN_IF_ERROR(print_call(bench, "readout", n + 1, call_readout));
        MHP_RETURN_IF_ERROR(print_call(bench, "readout, gradient", 2 * n + 1, call_readout_gradient));
        MHP_RETURN_IF_ERROR(print_call(bench, "sum of streams", n + 1, call_stream_sum));
        MHP_RETURN_IF_ERROR(print_call(bench, "repeat to streams", n + 1, call_stream_repeat));
    }
    free_rooms(bench);
    return MHP_OK;
}

mhp_status mhp_bench_kernels(const mhp_bench_kernels_params *params, FILE *stream)
{
    static const mhp_connection_kind kinds[] = {MHP_CONNECTION_RESIDUAL, MHP_CONNECTION_HC, MHP_CONNECTION_MHC};
    mhp_status status = MHP_OK;
    kernel_bench bench = {.params = params, .out = stream};

    MHP_TRY(out, mhp_calloc(&bench.sets, SETS_MAX, sizeof *bench.sets));
    MHP_TRY(out, mhp_stream_create(params->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "bench", &bench.stream));
    MHP_TRY(out, mhp_event_create(params->device, &bench.begin));
    MHP_TRY(out, mhp_event_create(params->device, &bench.end));
    MHP_TRY(out, measure_copy(&bench));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        MHP_TRY(out, print_kind(&bench, kinds[i]));
    }
out:
    if (bench.stream) {
        (void)mhp_stream_synchronize(bench.stream);
    }
    free_rooms(&bench);
    mhp_event_destroy(bench.begin);
    mhp_event_destroy(bench.end);
    mhp_stream_destroy(bench.stream);
    mhp_free(bench.sets);
    return status;
}
