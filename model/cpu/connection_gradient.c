/* Gradients of connections and of the readout; formulas in docs/model.md.
 *
 * Both halves write each token once. In the second half, per-token coefficients give du and the partial sums of the small parameters;
 * then two products: dfn over all tokens, and fn^T du over blocks of tokens that stay in cache until dx is written from them. Partial
 * sums are kept by block and added in order, so that they do not depend on the number of threads. */
#include "model/cpu/sinkhorn.h"

ALWAYS_INLINE void merge_gradient_step(int n, const real *g, const real *x, const real *y, int width, const real *post, real *dy,
                                       vreal *dpost, vreal *dcomb, int count)
{
    vreal branch = v_load(y, count);
    vreal grad[MHP_STREAMS_MAX];
    vreal sum = {0};

    for (int k = 0; k < n; k++) {
        grad[k] = v_load(g + (size_t)k * (size_t)width, count);
        sum += post[k] * grad[k];
        dpost[k] += grad[k] * branch;
    }
    v_store(dy, sum, count);
    for (int j = 0; j < n; j++) {
        vreal stream = v_load(x + (size_t)j * (size_t)width, count);

        for (int k = 0; k < n; k++) {
            dcomb[j * n + k] += stream * grad[k];
        }
    }
}

ALWAYS_INLINE void merge_gradient_token(int n, const mhp_merge_gradient_args *args, int token)
{
    size_t t = (size_t)token;
    size_t streams = (size_t)n;
    int width = args->hidden;
    const real *g = (const real *)args->g + t * streams * (size_t)width;
    const real *x = (const real *)args->x + t * streams * (size_t)width;
    const real *y = (const real *)args->y + t * (size_t)width;
    const real *post = (const real *)args->post + t * streams;
    real *dy = (real *)args->dy + t * (size_t)width;
    vreal dpost[MHP_STREAMS_MAX] = {0};
    vreal dcomb[MHP_STREAMS_MAX * MHP_STREAMS_MAX] = {0};
    int c = 0;

    for (; c + LANES <= width; c += LANES) {
        merge_gradient_step(n, g + c, x + c, y + c, width, post, dy + c, dpost, dcomb, LANES);
    }
    if (c < width) {
        merge_gradient_step(n, g + c, x + c, y + c, width, post, dy + c, dpost, dcomb, width - c);
    }
    for (int k = 0; k < n; k++) {
        ((real *)args->dpost)[t * streams + (size_t)k] = v_sum(dpost[k]);
    }
    for (int i = 0; i < n * n; i++) {
        ((real *)args->dcomb)[t * streams * streams + (size_t)i] = v_sum(dcomb[i]);
    }
}

static void merge_gradient_block(const void *argument, int begin, int end)
{
    const mhp_merge_gradient_args *args = argument;
    size_t first = (size_t)begin * (size_t)args->hidden;

    if (args->kind == MHP_CONNECTION_RESIDUAL) {
        memcpy((real *)args->dy + first, (const real *)args->g + first, (size_t)(end - begin) * (size_t)args->hidden * sizeof(real));
        return;
    }
    for (int t = begin; t < end; t++) {
        if (args->streams == 4) {
            merge_gradient_token(4, args, t);
        } else {
            merge_gradient_token(args->streams, args, t);
        }
    }
}

static mhp_status merge_gradient(void *native, const void *argument)
{
    const mhp_merge_gradient_args *args = argument;

    (void)native;
    MHP_RETURN_IF_ERROR(check_connection(args->streams, 1));
    for_blocks(merge_gradient_block, args, args->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

/* One second half under way, of a connection or of the readout (whose g is NULL). */
typedef struct gradient_pass {
    const mhp_connection_gradient_args *args;
    int projections;            /* coefficients of a token: n(n+2), readout n */
    real *du;                   /* [T, projections] du rrms */
    real *partial;              /* [blocks, projections + 3] dbase | dscale */
    real *pull;                 /* [T] factor of x in dx; not hc, whose streams have one each */
    real *spread;               /* [threads, SPREAD_BLOCK, n, C] fn^T du rrms */
} gradient_pass;

enum { SPREAD_BLOCK = 64 };

static int block_count(int tokens, int block)
{
    return tokens / block + (tokens % block != 0);
}

static int64_t connection_workspace(mhp_connection_kind kind, int tokens, int hidden, int streams, int threads)
{
    int64_t projections = (int64_t)streams * (streams + 2);
    int64_t spread = (int64_t)threads * SPREAD_BLOCK * streams * hidden;

    if (kind == MHP_CONNECTION_RESIDUAL) {
        return 0;
    }
    return tokens * (projections + 1) + block_count(tokens, TOKEN_BLOCK) * (projections + 3) + spread;
}

static gradient_pass gradient_pass_of(const mhp_connection_gradient_args *args, int projections)
{
    gradient_pass pass = {.args = args, .projections = projections};

    pass.du = args->workspace;
    pass.partial = pass.du + (size_t)args->tokens * (size_t)projections;
    pass.pull = pass.partial + (size_t)block_count(args->tokens, TOKEN_BLOCK) * (size_t)(projections + 3);
    pass.spread = pass.pull + args->tokens;
    return pass;
}

ALWAYS_INLINE void dot_step(int n, const real *dz, const real *x, int width, vreal *dots, int count)
{
    vreal grad = v_load(dz, count);

    for (int j = 0; j < n; j++) {
        dots[j] += grad * v_load(x + (size_t)j * (size_t)width, count);
    }
}

/* dpre[j] = <dz, x_j> of one token. */
ALWAYS_INLINE void pre_gradient(int n, const real *dz, const real *x, int width, real *dpre)
{
    vreal dots[MHP_STREAMS_MAX] = {0};
    int c = 0;

    for (; c + LANES <= width; c += LANES) {
        dot_step(n, dz + c, x + c, width, dots, LANES);
    }
    if (c < width) {
        dot_step(n, dz + c, x + c, width, dots, width - c);
    }
    for (int j = 0; j < n; j++) {
        dpre[j] = v_sum(dots[j]);
    }
}

/* dpre of `count` tokens, a token in every lane. */
ALWAYS_INLINE void pre_gradient_lanes(int n, const mhp_connection_gradient_args *args, int begin, int count, vreal *lanes)
{
    real dpre[LANES * MHP_STREAMS_MAX];
    size_t width = (size_t)args->hidden;

    for (int lane = 0; lane < count; lane++) {
        size_t t = (size_t)(begin + lane);

        pre_gradient(n, (const real *)args->dz + t * width, (const real *)args->x + t * (size_t)n * width, args->hidden,
                     dpre + lane * n);
    }
    gather_lanes(dpre, n, count, lanes);
}

/* From dh and u of `count` tokens: du rrms, the factor of x, partial sums. `projections` is n for the readout. */
ALWAYS_INLINE void finish_lanes(const gradient_pass *pass, int n, int projections, int begin, int count, vreal rrms, const vreal *u,
                                vreal *dh)
{
    const mhp_connection_gradient_args *args = pass->args;
    const real *scale = args->scale;
    real *partial = pass->partial + (size_t)(begin / TOKEN_BLOCK) * (size_t)(projections + 3);
    vreal dscale[3] = {0};
    vreal dot = {0};

    for (int p = 0; p < projections; p++) {
        int group = p < n ? 0 : p < 2 * n ? 1 : 2;
        vreal part = u[p] * dh[p];

        partial[p] += v_sum(dh[p]);
        dscale[group] += part;
        dot += scale[group] * part;
        dh[p] *= scale[group] * rrms;
    }
    for (int group = 0; group < 3; group++) {
        partial[projections + group] += v_sum(dscale[group] * rrms);
    }
    scatter_lanes(dh, projections, count, pass->du + (size_t)begin * (size_t)projections);
    dot *= rrms * rrms * rrms / (real)(n * args->hidden);
    v_store(pass->pull + begin, dot, count);
}

ALWAYS_INLINE void mhc_gradient_lanes(const gradient_pass *pass, int n, int begin, int count, sinkhorn_history *history)
{
    const mhp_connection_gradient_args *args = pass->args;
    size_t t = (size_t)begin;
    size_t streams = (size_t)n;
    vreal u[COEFFICIENTS_MAX], h[COEFFICIENTS_MAX], dh[COEFFICIENTS_MAX];
    vreal comb[MHP_STREAMS_MAX * MHP_STREAMS_MAX];
    vreal rrms = v_load((const real *)args->rrms + t, count);

    gather_lanes((const real *)args->projection + t * streams * (streams + 2), n * (n + 2), count, u);
    logits_of(n, args->scale, args->base, rrms, u, h);
    pre_gradient_lanes(n, args, begin, count, dh);
    gather_lanes((const real *)args->dpost + t * streams, n, count, dh + n);
    gather_lanes((const real *)args->dcomb + t * streams * streams, n * n, count, dh + 2 * n);
    for (int p = 0; p < 2 * n; p++) {
        vreal s = v_sigmoid(h[p]);

        dh[p] *= (real)(p < n ? 1 : 2) * s * ((real)1 - s);
    }
    sinkhorn(n, args->sinkhorn_iterations, (real)args->hc_epsilon, h + 2 * n, comb, history);
    sinkhorn_gradient(n, args->sinkhorn_iterations, history, comb, dh + 2 * n);
    finish_lanes(pass, n, n * (n + 2), begin, count, rrms, u, dh);
}

static void mhc_gradient_block(const void *argument, int begin, int end)
{
    const gradient_pass *pass = argument;
    sinkhorn_history history;

    memset(pass->partial + (size_t)(begin / TOKEN_BLOCK) * (size_t)(pass->projections + 3), 0,
           (size_t)(pass->projections + 3) * sizeof(real));
    for (int t = begin; t < end; t += LANES) {
        if (pass->args->streams == 4) {
            mhc_gradient_lanes(pass, 4, t, min_int(LANES, end - t), &history);
        } else {
            mhc_gradient_lanes(pass, pass->args->streams, t, min_int(LANES, end - t), &history);
        }
    }
}

static void readout_gradient_block(const void *argument, int begin, int end)
{
    const gradient_pass *pass = argument;
    const mhp_connection_gradient_args *args = pass->args;
    const real *base = args->base;
    real scale = ((const real *)args->scale)[0];
    int n = args->streams;

    memset(pass->partial + (size_t)(begin / TOKEN_BLOCK) * (size_t)(n + 3), 0, (size_t)(n + 3) * sizeof(real));
    for (int t = begin; t < end; t += LANES) {
        int count = min_int(LANES, end - t);
        vreal rrms = v_load((const real *)args->rrms + t, count);
        vreal u[MHP_STREAMS_MAX], dh[MHP_STREAMS_MAX];

        gather_lanes((const real *)args->projection + (size_t)t * (size_t)n, n, count, u);
        pre_gradient_lanes(n, args, t, count, dh);
        for (int j = 0; j < n; j++) {
            vreal s = v_sigmoid(scale * (u[j] * rrms) + base[j]);

            dh[j] *= s * ((real)1 - s);
        }
        finish_lanes(pass, n, n, t, count, rrms, u, dh);
    }
}

/* hc, one stream of a token: from the gradients of its coefficients `row` = [dpre, dpost, dcomb n] to du rrms; adds to partial. */
static void hc_gradient_stream(const mhp_connection_gradient_args *args, int j, const real *tanh_row, real rrms, real *row,
                               real *partial)
{
    const real *scale = args->scale;
    int n = args->streams;

    for (int p = 0; p < n + 2; p++) {
        int group = p < 2 ? p : 2;
        int base = p < 2 ? p * n + j : 2 * n + j * n + p - 2;

        partial[base] += row[p];
        partial[n * (n + 2) + group] += row[p] * tanh_row[p];
        row[p] *= scale[group] * (1 - tanh_row[p] * tanh_row[p]) * rrms;
    }
}

static void hc_gradient_block(const void *argument, int begin, int end)
{
    const gradient_pass *pass = argument;
    const mhp_connection_gradient_args *args = pass->args;
    int n = args->streams;
    size_t streams = (size_t)n;
    size_t width = (size_t)args->hidden;
    real *partial = pass->partial + (size_t)(begin / TOKEN_BLOCK) * (size_t)(pass->projections + 3);

    memset(partial, 0, (size_t)(pass->projections + 3) * sizeof(real));
    for (int token = begin; token < end; token++) {
        size_t t = (size_t)token;
        real dpre[MHP_STREAMS_MAX];

        pre_gradient(n, (const real *)args->dz + t * width, (const real *)args->x + t * streams * width, args->hidden, dpre);
        for (size_t j = 0; j < streams; j++) {
            real *row = pass->du + (t * streams + j) * (streams + 2);

            row[0] = dpre[j];
            row[1] = ((const real *)args->dpost)[t * streams + j];
            memcpy(row + 2, (const real *)args->dcomb + (t * streams + j) * streams, streams * sizeof(real));
            hc_gradient_stream(args, (int)j, (const real *)args->projection + (t * streams + j) * (streams + 2),
                               ((const real *)args->rrms)[t * streams + j], row, partial);
        }
    }
}

/* What one token's dx is made of. */
typedef struct token_gradient {
    const real *g, *comb;       /* NULL for the readout */
    const real *dz, *pre, *x, *spread;
    const real *pull;           /* [n] */
    real *dx;
} token_gradient;

ALWAYS_INLINE void state_gradient_step(int n, bool merged, const token_gradient *in, size_t width, int c, int count)
{
    vreal grad[MHP_STREAMS_MAX];
    vreal mix = v_load(in->dz + c, count);

    for (int k = 0; merged && k < n; k++) {
        grad[k] = v_load(in->g + (size_t)k * width + c, count);
    }
    for (int j = 0; j < n; j++) {
        size_t at = (size_t)j * width + (size_t)c;
        vreal sum = in->pre[j] * mix + v_load(in->spread + at, count) - in->pull[j] * v_load(in->x + at, count);

        for (int k = 0; merged && k < n; k++) {
            sum += in->comb[j * n + k] * grad[k];
        }
        v_store(in->dx + at, sum, count);
    }
}

ALWAYS_INLINE void state_gradient_token(int n, bool merged, const token_gradient *in, int width)
{
    int c = 0;

    for (; c + LANES <= width; c += LANES) {
        state_gradient_step(n, merged, in, (size_t)width, c, LANES);
    }
    if (c < width) {
        state_gradient_step(n, merged, in, (size_t)width, c, width - c);
    }
}

/* pull of hc: rrms_j^2 / C <x_j, spread_j>, spread holding one rrms. */
static void hc_pull(const real *x, const real *spread, const real *rrms, int n, int width, real *pull)
{
    for (int j = 0; j < n; j++) {
        vreal dot = {0};

        for (int c = 0; c < width; c += LANES) {
            int count = min_int(LANES, width - c);

            dot += v_load(x + (size_t)j * (size_t)width + c, count) * v_load(spread + (size_t)j * (size_t)width + c, count);
        }
        pull[j] = v_sum(dot) * rrms[j] * rrms[j] / (real)width;
    }
}

/* dx of one token, whose fn^T du rrms is in `spread`. */
static void state_gradient(const gradient_pass *pass, int token, const real *spread)
{
    const mhp_connection_gradient_args *args = pass->args;
    int n = args->streams;
    size_t t = (size_t)token;
    size_t state = t * (size_t)n * (size_t)args->hidden;
    real pull[MHP_STREAMS_MAX];
    token_gradient in = {
        .g = args->g ? (const real *)args->g + state : NULL,
        .comb = args->g ? (const real *)args->comb + t * (size_t)(n * n) : NULL,
        .dz = (const real *)args->dz + t * (size_t)args->hidden,
        .pre = (const real *)args->pre + t * (size_t)n,
        .x = (const real *)args->x + state,
        .spread = spread,
        .pull = pull,
        .dx = (real *)args->dx + state,
    };

    if (args->kind == MHP_CONNECTION_HC) {
        hc_pull(in.x, spread, (const real *)args->rrms + t * (size_t)n, n, args->hidden, pull);
    } else {
        for (int j = 0; j < n; j++) {
            pull[j] = pass->pull[t];
        }
    }
    if (n == 4 && in.g) {
        state_gradient_token(4, true, &in, args->hidden);
    } else {
        state_gradient_token(n, in.g != NULL, &in, args->hidden);
    }
}

static void state_gradient_item(const void *argument, int item, int thread)
{
    const gradient_pass *pass = argument;
    const mhp_connection_gradient_args *args = pass->args;
    bool hc = args->kind == MHP_CONNECTION_HC;
    int n = args->streams;
    int width = hc ? args->hidden : n * args->hidden;   /* of a row of fn */
    int rows = hc ? n : 1;                              /* of du, for a token */
    int projections = pass->projections / rows;
    int begin = item * SPREAD_BLOCK;
    int count = min_int(SPREAD_BLOCK, args->tokens - begin);
    size_t state = (size_t)n * (size_t)args->hidden;
    real *spread = pass->spread + (size_t)thread * SPREAD_BLOCK * state;

    product(AS_IS, AS_IS, count * rows, width, projections, 1, pass->du + (size_t)begin * (size_t)pass->projections, projections,
            args->fn, width, 0, spread, width);
    for (int i = 0; i < count; i++) {
        state_gradient(pass, begin + i, spread + (size_t)i * state);
    }
}

/* dbase, dscale += the partial sums of all blocks, in order. */
static void add_partial_sums(const gradient_pass *pass, int scales)
{
    const mhp_connection_gradient_args *args = pass->args;
    int stride = pass->projections + 3;

    for (int p = 0; p < pass->projections + scales; p++) {
        real *target = p < pass->projections ? (real *)args->dbase + p : (real *)args->dscale + (p - pass->projections);
        double sum = 0;

        for (int b = 0; b < block_count(args->tokens, TOKEN_BLOCK); b++) {
            sum += (double)pass->partial[(size_t)b * (size_t)stride + (size_t)p];
        }
        *target += (real)sum;
    }
}

static void finish_gradient(const gradient_pass *pass, int scales)
{
    const mhp_connection_gradient_args *args = pass->args;
    bool hc = args->kind == MHP_CONNECTION_HC;
    int width = hc ? args->hidden : args->streams * args->hidden;
    int rows = hc ? args->streams : 1;
    int projections = pass->projections / rows;

    add_partial_sums(pass, scales);
    product(TRANSPOSED, AS_IS, projections, width, args->tokens * rows, 1, pass->du, projections, args->x, width, 1, args->dfn,
            width);
    for_items(state_gradient_item, pass, block_count(args->tokens, SPREAD_BLOCK));
}

static mhp_status connection_gradient(void *native, const void *argument)
{
    const mhp_connection_gradient_args *args = argument;
    gradient_pass pass = gradient_pass_of(args, args->streams * (args->streams + 2));
    bool mhc = args->kind == MHP_CONNECTION_MHC;

    (void)native;
    MHP_RETURN_IF_ERROR(check_connection(args->streams, mhc ? args->sinkhorn_iterations : 1));
    for_blocks(mhc ? mhc_gradient_block : hc_gradient_block, &pass, args->tokens, TOKEN_BLOCK);
    finish_gradient(&pass, 3);
    return MHP_OK;
}

/* z of all tokens again, in the room of dz. */
static void remix_block(const void *argument, int begin, int end)
{
    const mhp_connection_gradient_args *args = argument;
    size_t n = (size_t)args->streams;
    size_t width = (size_t)args->hidden;

    for (size_t t = (size_t)begin; t < (size_t)end; t++) {
        mix_token(args->streams, (const real *)args->x + t * n * width, args->hidden, (const real *)args->pre + t * n,
                  (real *)args->dz + t * width);
    }
}

static mhp_status mix_gradient(void *native, const void *argument)
{
    const mhp_mix_gradient_args *args = argument;
    const mhp_connection_gradient_args *from = &args->connection;
    bool residual = from->kind == MHP_CONNECTION_RESIDUAL;
    mhp_rms_norm_gradient_args norm = {
        .tokens = from->tokens,
        .hidden = from->hidden,
        .x = residual ? from->x : from->dz,
        .weight = args->weight,
        .rrms = args->norm_rrms,
        .dy = args->dnormed,
        .residual = residual ? from->g : NULL,
        .dx = residual ? from->dx : from->dz,
        .dweight = args->dweight,
    };

    if (!residual) {
        for_blocks(remix_block, from, from->tokens, TOKEN_BLOCK);
    }
    MHP_RETURN_IF_ERROR(rms_norm_gradient(native, &norm));
    return residual ? MHP_OK : connection_gradient(native, from);
}

static mhp_status mix_merge_gradient(void *native, const void *argument)
{
    const mhp_mix_merge_gradient_args *args = argument;

    MHP_RETURN_IF_ERROR(mix_gradient(native, &args->mix));
    return merge_gradient(native, &args->merge);
}

static mhp_status readout_gradient(void *native, const void *argument)
{
    const mhp_readout_gradient_args *args = argument;
    mhp_connection_gradient_args same = {
        .kind = MHP_CONNECTION_MHC,
        .tokens = args->tokens,
        .hidden = args->hidden,
        .streams = args->streams,
        .norm_epsilon = args->norm_epsilon,
        .hc_epsilon = args->hc_epsilon,
        .x = args->x,
        .dz = (void *)(uintptr_t)args->dz,      /* read only, here */
        .pre = args->pre,
        .projection = args->projection,
        .rrms = args->rrms,
        .fn = args->fn,
        .base = args->base,
        .scale = args->scale,
        .dx = args->dx,
        .dfn = args->dfn,
        .dbase = args->dbase,
        .dscale = args->dscale,
        .workspace = args->workspace,
    };
    gradient_pass pass = gradient_pass_of(&same, args->streams);
    real scale[3] = {((const real *)args->scale)[0], 0, 0};

    (void)native;
    MHP_RETURN_IF_ERROR(check_connection(args->streams, 1));
    same.scale = scale;
    for_blocks(readout_gradient_block, &pass, args->tokens, TOKEN_BLOCK);
    finish_gradient(&pass, 1);
    return MHP_OK;
}
