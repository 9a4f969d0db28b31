/* Connections forward: coefficients, pre mix, norm, merge, readout.
 *
 * Tokens go through in blocks, each from its products to its norm, so that a state just merged is still in the cache when it is mixed.
 * The bits do not depend on what is joined to what: every product has the rows of one block of tokens. A rebuild, which has no products,
 * takes one token at a time through all its sublayers.
 *
 * The coefficients of LANES tokens are computed at once, a token in every lane; sums over the hidden size
 * run along it. Four streams, the usual number, have loops of their own: the compiler unrolls what the constant n makes known. */
#include "model/cpu/sinkhorn.h"

static mhp_status check_connection(int streams, int iterations)
{
    if (streams < 1 || streams > MHP_STREAMS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "connection with %d streams: expected 1 to %d", streams, MHP_STREAMS_MAX);
    }
    if (iterations < 1 || iterations > SINKHORN_ITERATIONS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "connection with %d Sinkhorn iterations: expected 1 to %d", iterations,
                             SINKHORN_ITERATIONS_MAX);
    }
    return MHP_OK;
}

/* lanes[p][lane] = rows[lane, p]; lanes beyond count are zero. */
ALWAYS_INLINE void gather_lanes(const real *rows, int width, int count, vreal *lanes)
{
    for (int p = 0; p < width; p++) {
        vreal value = {0};

        for (int lane = 0; lane < count; lane++) {
            value[lane] = rows[lane * width + p];
        }
        lanes[p] = value;
    }
}

ALWAYS_INLINE void scatter_lanes(const vreal *lanes, int width, int count, real *rows)
{
    for (int lane = 0; lane < count; lane++) {
        for (int p = 0; p < width; p++) {
            rows[lane * width + p] = lanes[p][lane];
        }
    }
}

ALWAYS_INLINE void mix_step(int n, const real *x, int width, const real *pre, real *z, int count)
{
    vreal sum = pre[0] * v_load(x, count);

    for (int j = 1; j < n; j++) {
        sum += pre[j] * v_load(x + (size_t)j * (size_t)width, count);
    }
    v_store(z, sum, count);
}

ALWAYS_INLINE void mix_row(int n, const real *x, int width, const real *pre, real *z)
{
    int c = 0;

    for (; c + LANES <= width; c += LANES) {
        mix_step(n, x + c, width, pre, z + c, LANES);
    }
    if (c < width) {
        mix_step(n, x + c, width, pre, z + c, width - c);
    }
}

/* z = sum of pre[j] x[j,:] of one token. Never inlined, as merge_token: which products become part of a fused multiply-add is the
 * compiler's choice, and everyone is to get the same one. */
static NOINLINE void mix_token(int n, const real *x, int width, const real *pre, real *z)
{
    if (n == 4) {
        mix_row(4, x, width, pre, z);
    } else {
        mix_row(n, x, width, pre, z);
    }
}

/* 1 / sqrt(mean(x^2) + epsilon) of `count` rows, one in every lane, also written to `target`. */
ALWAYS_INLINE vreal rrms_of_rows(const real *x, int width, int count, real epsilon, real *target)
{
    vreal result = {0};

    for (int lane = 0; lane < count; lane++) {
        target[lane] = 1 / real_sqrt(sum_of_squares(x + (size_t)lane * (size_t)width, width) / (real)width + epsilon);
        result[lane] = target[lane];
    }
    return result;
}

/* h = scale u rrms + base, the scale by group. */
ALWAYS_INLINE void logits_of(int n, const real *scale, const real *base, vreal rrms, const vreal *u, vreal *h)
{
    for (int p = 0; p < n * (n + 2); p++) {
        h[p] = scale[p < n ? 0 : p < 2 * n ? 1 : 2] * (u[p] * rrms) + base[p];
    }
}

ALWAYS_INLINE void mhc_lanes(int n, const mhp_connection_args *args, int begin, int count)
{
    int width = args->hidden;
    size_t t = (size_t)begin;
    size_t streams = (size_t)n;
    const real *x = (const real *)args->x + t * streams * (size_t)width;
    real *pre = (real *)args->pre + t * streams;
    vreal h[COEFFICIENTS_MAX];
    vreal result[COEFFICIENTS_MAX];
    vreal rrms = rrms_of_rows(x, n * width, count, (real)args->norm_epsilon, (real *)args->rrms + t);

    gather_lanes((const real *)args->projection + t * streams * (streams + 2), n * (n + 2), count, h);
    logits_of(n, args->scale, args->base, rrms, h, h);
    for (int j = 0; j < n; j++) {
        result[j] = v_sigmoid(h[j]) + (real)args->hc_epsilon;
        result[n + j] = (real)2 * v_sigmoid(h[n + j]);
    }
    sinkhorn(n, args->sinkhorn_iterations, (real)args->hc_epsilon, h + 2 * n, result + 2 * n, NULL);
    scatter_lanes(result, n, count, pre);
    scatter_lanes(result + n, n, count, (real *)args->post + t * streams);
    scatter_lanes(result + 2 * n, n * n, count, (real *)args->comb + t * streams * streams);
    for (int lane = 0; lane < count; lane++) {
        mix_token(n, x + (size_t)lane * streams * (size_t)width, width, pre + lane * n,
                  (real *)args->z + (t + (size_t)lane) * (size_t)width);
    }
}

static void mhc_block(const void *argument, int begin, int end)
{
    const mhp_connection_args *args = argument;

    for (int t = begin; t < end; t += LANES) {
        if (args->streams == 4) {
            mhc_lanes(4, args, t, min_int(LANES, end - t));
        } else {
            mhc_lanes(args->streams, args, t, min_int(LANES, end - t));
        }
    }
}

/* t = tanh(u rrms) in place, the rows of one token; rrms by stream. */
static void hc_activate(const mhp_connection_args *args, int token, real *projection)
{
    int n = args->streams;
    int width = args->hidden;
    real *rrms = (real *)args->rrms + (size_t)token * (size_t)n;
    const real *x = (const real *)args->x + (size_t)token * (size_t)n * (size_t)width;
    int i = 0;

    rrms_of_rows(x, width, min_int(n, LANES), (real)args->norm_epsilon, rrms);
    for (int j = LANES; j < n; j += LANES) {
        rrms_of_rows(x + (size_t)j * (size_t)width, width, min_int(n - j, LANES), (real)args->norm_epsilon, rrms + j);
    }
    for (int j = 0; j < n; j++) {
        for (int p = 0; p < n + 2; p++) {
            projection[j * (n + 2) + p] *= rrms[j];
        }
    }
    for (; i < n * (n + 2); i += LANES) {
        int count = min_int(LANES, n * (n + 2) - i);

        v_store(projection + i, v_tanh(v_load(projection + i, count)), count);
    }
}

static void hc_block(const void *argument, int begin, int end)
{
    const mhp_connection_args *args = argument;
    const real *scale = args->scale;
    const real *base = args->base;
    int n = args->streams;

    for (int t = begin; t < end; t++) {
        real *projection = (real *)args->projection + (size_t)t * (size_t)(n * (n + 2));
        real *pre = (real *)args->pre + (size_t)t * (size_t)n;
        real *post = (real *)args->post + (size_t)t * (size_t)n;
        real *comb = (real *)args->comb + (size_t)t * (size_t)(n * n);

        hc_activate(args, t, projection);
        for (int j = 0; j < n; j++) {
            const real *row = projection + j * (n + 2);

            pre[j] = scale[0] * row[0] + base[j];
            post[j] = scale[1] * row[1] + base[n + j];
            for (int k = 0; k < n; k++) {
                comb[j * n + k] = scale[2] * row[2 + k] + base[2 * n + j * n + k];
            }
        }
        mix_token(n, (const real *)args->x + (size_t)t * (size_t)n * (size_t)args->hidden, args->hidden, pre,
                  (real *)args->z + (size_t)t * (size_t)args->hidden);
    }
}

/* Coefficients and pre mix of one block of tokens. */
static void connection_block(const void *argument, int begin, int end)
{
    const mhp_connection_args *args = argument;
    size_t first = (size_t)begin;
    int n = args->streams;
    int width = args->hidden;
    int projections = n * (n + 2);
    const real *x = (const real *)args->x + first * (size_t)n * (size_t)width;
    real *projection = (real *)args->projection + first * (size_t)projections;

    if (args->kind == MHP_CONNECTION_MHC) {
        product(AS_IS, TRANSPOSED, end - begin, projections, n * width, 1, x, n * width, args->fn, n * width, 0, projection, projections);
        mhc_block(args, begin, end);
    } else {
        product(AS_IS, TRANSPOSED, (end - begin) * n, n + 2, width, 1, x, width, args->fn, width, 0, projection, n + 2);
        hc_block(args, begin, end);
    }
}

static mhp_status check_kind(mhp_connection_kind kind, int streams, int iterations)
{
    return kind == MHP_CONNECTION_RESIDUAL ? MHP_OK : check_connection(streams, kind == MHP_CONNECTION_MHC ? iterations : 1);
}

static mhp_status connection(void *native, const void *argument)
{
    const mhp_connection_args *args = argument;

    (void)native;
    MHP_RETURN_IF_ERROR(check_kind(args->kind, args->streams, args->sinkhorn_iterations));
    for_token_blocks(connection_block, args, args->tokens);
    return MHP_OK;
}

static void readout_block(const void *argument, int begin, int end)
{
    const mhp_readout_args *args = argument;
    const real *base = args->base;
    real scale = ((const real *)args->scale)[0];
    int n = args->streams;
    int width = args->hidden;

    for (int t = begin; t < end; t++) {
        const real *x = (const real *)args->x + (size_t)t * (size_t)n * (size_t)width;
        const real *u = (const real *)args->projection + (size_t)t * (size_t)n;
        real *pre = (real *)args->pre + (size_t)t * (size_t)n;
        real *rrms = (real *)args->rrms + t;

        rrms_of_rows(x, n * width, 1, (real)args->norm_epsilon, rrms);
        for (int j = 0; j < n; j += LANES) {
            int count = min_int(LANES, n - j);
            vreal h = scale * (v_load(u + j, count) * rrms[0]) + v_load(base + j, count);

            v_store(pre + j, v_sigmoid(h) + (real)args->hc_epsilon, count);
        }
        mix_token(n, x, width, pre, (real *)args->z + (size_t)t * (size_t)width);
    }
}

static mhp_status readout(void *native, const void *argument)
{
    const mhp_readout_args *args = argument;
    int n = args->streams;

    (void)native;
    MHP_RETURN_IF_ERROR(check_connection(n, 1));
    product(AS_IS, TRANSPOSED, args->tokens, n, n * args->hidden, 1, args->x, n * args->hidden, args->fn, n * args->hidden, 0,
            args->projection, n);
    for_blocks(readout_block, args, args->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

ALWAYS_INLINE void merge_step(int n, const real *x, const real *y, int width, const real *post, const real *comb, real *next,
                              int count)
{
    vreal stream[MHP_STREAMS_MAX];
    vreal branch = v_load(y, count);

    for (int j = 0; j < n; j++) {
        stream[j] = v_load(x + (size_t)j * (size_t)width, count);
    }
    for (int k = 0; k < n; k++) {
        vreal sum = post[k] * branch;

        for (int j = 0; j < n; j++) {
            sum += comb[j * n + k] * stream[j];
        }
        v_store(next + (size_t)k * (size_t)width, sum, count);
    }
}

ALWAYS_INLINE void merge_row(int n, const real *x, const real *y, int width, const real *post, const real *comb, real *next)
{
    int c = 0;

    for (; c + LANES <= width; c += LANES) {
        merge_step(n, x + c, y + c, width, post, comb, next + c, LANES);
    }
    if (c < width) {
        merge_step(n, x + c, y + c, width, post, comb, next + c, width - c);
    }
}

/* The next state of one token. */
static NOINLINE void merge_token(int n, const real *x, const real *y, int width, const real *post, const real *comb, real *next)
{
    if (n == 4) {
        merge_row(4, x, y, width, post, comb, next);
    } else {
        merge_row(n, x, y, width, post, comb, next);
    }
}

static void residual_block(const mhp_merge_args *args, int begin, int end)
{
    size_t first = (size_t)begin * (size_t)args->hidden;
    size_t last = (size_t)end * (size_t)args->hidden;
    const real *x = args->x;
    const real *y = args->y;
    real *restrict next = args->x_next;

    for (size_t i = first; i < last; i++) {
        next[i] = x[i] + y[i];
    }
}

static void merge_block(const void *argument, int begin, int end)
{
    const mhp_merge_args *args = argument;
    size_t streams = (size_t)args->streams;
    size_t width = (size_t)args->hidden;

    if (args->kind == MHP_CONNECTION_RESIDUAL) {
        residual_block(args, begin, end);
        return;
    }
    for (size_t t = (size_t)begin; t < (size_t)end; t++) {
        merge_token(args->streams, (const real *)args->x + t * streams * width, (const real *)args->y + t * width, args->hidden,
                    (const real *)args->post + t * streams, (const real *)args->comb + t * streams * streams,
                    (real *)args->x_next + t * streams * width);
    }
}

static mhp_status merge(void *native, const void *argument)
{
    const mhp_merge_args *args = argument;

    (void)native;
    MHP_RETURN_IF_ERROR(check_connection(args->streams, 1));
    for_blocks(merge_block, args, args->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

static void mix_block(const void *argument, int begin, int end)
{
    const mhp_mix_args *args = argument;
    mhp_connection_args from = args->connection;
    bool residual = from.kind == MHP_CONNECTION_RESIDUAL;
    mhp_rms_norm_args norm = {
        .tokens = from.tokens,
        .hidden = from.hidden,
        .epsilon = from.norm_epsilon,
        .weight = args->weight,
        .y = args->normed,
        .rrms = args->norm_rrms,
    };

    from.z = args->normed;
    norm.x = residual ? from.x : from.z;
    if (!residual) {
        connection_block(&from, begin, end);
    }
    rms_norm_block(&norm, begin, end);
}

static mhp_status mix(void *native, const void *argument)
{
    const mhp_mix_args *args = argument;
    const mhp_connection_args *from = &args->connection;

    (void)native;
    MHP_RETURN_IF_ERROR(check_kind(from->kind, from->streams, from->sinkhorn_iterations));
    for_token_blocks(mix_block, args, from->tokens);
    return MHP_OK;
}

static void merge_mix_block(const void *argument, int begin, int end)
{
    const mhp_merge_mix_args *args = argument;

    merge_block(&args->merge, begin, end);
    mix_block(&args->mix, begin, end);
}

static mhp_status merge_mix(void *native, const void *argument)
{
    const mhp_merge_mix_args *args = argument;
    const mhp_connection_args *from = &args->mix.connection;

    (void)native;
    MHP_RETURN_IF_ERROR(check_kind(from->kind, from->streams, from->sinkhorn_iterations));
    for_token_blocks(merge_mix_block, args, args->merge.tokens);
    return MHP_OK;
}

/* Row `t` of `width` elements in the array that lies `i` strides behind `base`. */
ALWAYS_INLINE real *row_at(const void *base, size_t stride, int i, size_t t, size_t width)
{
    return (real *)((char *)(uintptr_t)base + (size_t)i * stride) + t * width;
}

/* The state behind sublayer `i`; NULL if nobody wants it. */
ALWAYS_INLINE real *rebuilt_state(const mhp_rebuild_args *args, int i, size_t t, size_t width)
{
    if (i + 1 < args->count) {
        return row_at(args->state, args->state_stride, i, t, width);
    }
    return args->last ? row_at(args->last, 0, 0, t, width) : NULL;
}

/* One token through all sublayers. */
static void rebuild_token(const mhp_rebuild_args *args, size_t t)
{
    size_t n = (size_t)args->streams;
    size_t width = (size_t)args->hidden;
    const real *x = row_at(args->x, 0, 0, t, n * width);

    for (int i = 0; i < args->count; i++) {
        real *normed = row_at(args->normed, args->normed_stride, i, t, width);      /* z first */
        real *next = rebuilt_state(args, i, t, n * width);

        mix_token(args->streams, x, args->hidden, row_at(args->pre, args->kept_stride, i, t, n), normed);
        norm_row(normed, args->hidden, *row_at(args->norm_rrms, args->kept_stride, i, t, 1), args->weight[i], normed);
        if (next) {
            merge_token(args->streams, x, row_at(args->y, args->y_stride, i, t, width), args->hidden,
                        row_at(args->post, args->kept_stride, i, t, n), row_at(args->comb, args->kept_stride, i, t, n * n), next);
        }
        x = next;
    }
}

static void rebuild_block(const void *argument, int begin, int end)
{
    for (int t = begin; t < end; t++) {
        rebuild_token(argument, (size_t)t);
    }
}

static mhp_status rebuild(void *native, const void *argument)
{
    const mhp_rebuild_args *args = argument;

    (void)native;
    MHP_RETURN_IF_ERROR(check_connection(args->streams, 1));
    for_blocks(rebuild_block, args, args->tokens, TOKEN_BLOCK);
    return MHP_OK;
}
