/* The second pass mixes, a block for one or two tokens: while their state is on its way a warp sums each token's parts, as far as the pre
 * coefficients need them. A few blocks sum all of them beside and run Sinkhorn. Blocks go backwards through the tokens: the last states
 * that the first pass wrote are still in the L2 cache. */
#include "model/cuda/four.cuh"

namespace {

enum {
    GATHER_LANES = 8,           /* that share a token when all of its parts are summed */
    MIXING_SHARE = 4,           /* threads that a block has for a token of which it makes comb and post */
    MIX_THREADS_MAX = 512,      /* that share a token's row */
};

struct mix_args {
    state_parts parts;
    int tokens, hidden, iterations;
    float norm_epsilon, hc_epsilon;
    const bf16 *x;
    const float *base, *scale, *weight;
    float *pre, *post, *comb, *projection, *rrms, *norm_rrms;
    bf16 *normed;
};

__device__ __forceinline__ float rrms_of(const mix_args &a, float square)
{
    return 1.0f / sqrtf(square / (float)(STREAMS * a.hidden) + a.norm_epsilon);
}

/* Of a token's parts as far as the pre coefficients need them, those of a lane's slices. */
struct pre_sums {
    float4 u;
    float square;
};

__device__ __forceinline__ pre_sums load_pre_sums(const mix_args &a, int token)
{
    pre_sums sums = {};

    for (int slice = (int)threadIdx.x % WARP; slice < a.parts.slices; slice += WARP) {
        const float *part = part_of(a.parts, slice, min(token, a.tokens - 1));
        float4 u = *(const float4 *)part;

        sums.u = make_float4(sums.u.x + u.x, sums.u.y + u.y, sums.u.z + u.z, sums.u.w + u.w);
        sums.square += part[PROJECTIONS];
    }
    return sums;
}

/* The pre coefficients of a token, by one warp; they go into `pre` as well. */
__device__ __forceinline__ void make_pre(const mix_args &a, int token, const pre_sums &sums, float *pre)
{
    int lane = (int)threadIdx.x % WARP;
    int j = lane % STREAMS;
    float base = a.base[j];
    float scale = a.scale[0];
    float rrms = rrms_of(a, warp_sum(sums.square));
    float x = warp_sum(sums.u.x), y = warp_sum(sums.u.y), z = warp_sum(sums.u.z), w = warp_sum(sums.u.w);
    float u = j == 0 ? x : j == 1 ? y : j == 2 ? z : w;
    float value = sigmoid(scale * (u * rrms) + base) + a.hc_epsilon;

    if (lane < STREAMS) {
        pre[j] = value;
        if (token < a.tokens) {
            a.pre[(size_t)token * STREAMS + j] = value;
        }
    }
}

/* The whole projections of `count` tokens, all slices' parts in order, and 1/rms; both are kept for the gradient. */
__device__ __forceinline__ void gather(const mix_args &a, int first, int count)
{
    for (int i = (int)threadIdx.x; i < count * GATHER_LANES; i += (int)blockDim.x) {
        int token = first + i / GATHER_LANES;
        int piece = i % GATHER_LANES;
        float4 sum = make_float4(0, 0, 0, 0);

#pragma unroll 4
        for (int slice = 0; slice < a.parts.slices && piece <= PROJECTIONS / 4; slice++) {
            const float *from = part_of(a.parts, slice, token) + piece * 4;
            float4 part = piece < PROJECTIONS / 4 ? *(const float4 *)from : make_float4(*from, 0, 0, 0);

            sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
        }
        if (piece < PROJECTIONS / 4) {
            *(float4 *)(a.projection + (size_t)token * PROJECTIONS + piece * 4) = sum;
        } else if (piece == PROJECTIONS / 4) {
            a.rrms[token] = rrms_of(a, sum.x);
        }
    }
}

/* comb and post of one thread's token, from the kept projection. */
__device__ __forceinline__ void make_mixing(const mix_args &a, int token)
{
    const float *u = a.projection + (size_t)token * PROJECTIONS;
    float rrms = a.rrms[token];
    float post[STREAMS], m[STREAMS * STREAMS];

    load_factors<STREAMS>(u + STREAMS, post);
    load_factors<STREAMS * STREAMS>(u + 2 * STREAMS, m);
    make_post<STREAMS>(rrms, a.scale, a.base, post);
    *(float4 *)(a.post + (size_t)token * STREAMS) = make_float4(post[0], post[1], post[2], post[3]);
    make_comb<STREAMS>(rrms, a.scale, a.base, a.iterations, a.hc_epsilon, m);
#pragma unroll
    for (int i = 0; i < STREAMS * STREAMS; i += 4) {
        *(float4 *)(a.comb + (size_t)token * (STREAMS * STREAMS) + i) = make_float4(m[i], m[i + 1], m[i + 2], m[i + 3]);
    }
}

/* Column of a thread's chunk `c`. */
__device__ __forceinline__ int column_of(int c)
{
    return (int)(threadIdx.x + c * blockDim.x) * CHUNK;
}

/* The thread's chunks of T tokens from `first` on; of the last one again where there are no more. */
template <int T, int C>
__device__ __forceinline__ void load_chunks(const mix_args &a, int first, uint4 (&x)[T][C][STREAMS])
{
#pragma unroll
    for (int t = 0; t < T; t++) {
        const bf16 *from = a.x + (size_t)min(first + t, a.tokens - 1) * (size_t)(STREAMS * a.hidden);

#pragma unroll
        for (int c = 0; c < C; c++) {
#pragma unroll
            for (int j = 0; j < STREAMS; j++) {
                x[t][c][j] = column_of(c) < a.hidden ? load_once<bf16, CHUNK>(from + (size_t)j * (size_t)a.hidden + column_of(c))
                                                     : make_uint4(0, 0, 0, 0);
            }
        }
    }
}

/* z of one token's chunks; returns the square sum. */
template <int C>
__device__ __forceinline__ float mix_chunks(const float *pre_of_token, const uint4 (&x)[C][STREAMS], float (&z)[C][CHUNK])
{
    float pre[STREAMS];
    float square = 0;

    load_factors<STREAMS>(pre_of_token, pre);
#pragma unroll
    for (int c = 0; c < C; c++) {
        float sum = 0;

        mix_chunk<bf16, STREAMS, CHUNK>(x[c], pre, z[c]);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            sum = fmaf(z[c][i], z[c][i], sum);
        }
        square += sum;
    }
    return square;
}

/* normed of one token's chunks, whose square sums the block's warps left in `squares`. */
template <int C>
__device__ __forceinline__ void norm_chunks(const mix_args &a, int token, const float *squares, float (&z)[C][CHUNK])
{
    int warps = (int)blockDim.x / WARP;
    float sum = 0;
    float rrms;

    for (int w = 0; w < warps; w++) {
        sum += squares[w];
    }
    rrms = 1.0f / sqrtf(sum / (float)a.hidden + a.norm_epsilon);
    if (threadIdx.x == 0 && token < a.tokens) {
        a.norm_rrms[token] = rrms;
    }
#pragma unroll
    for (int c = 0; c < C; c++) {
        if (column_of(c) < a.hidden && token < a.tokens) {
            norm_chunk<CHUNK>(rrms, a.weight + column_of(c), z[c]);
            store_chunk<bf16, CHUNK>(a.normed + (size_t)token * (size_t)a.hidden + column_of(c), z[c]);
        }
    }
}

/* The first blocks run Sinkhorn, each for as many tokens as a quarter of its threads; nobody waits for it. The others mix T tokens
 * each; a thread has C chunks of each, blockDim.x chunks apart. */
template <int T, int C> __global__ void __launch_bounds__(MIX_THREADS_MAX, C < 4 ? 2 : 1) mix_kernel(const __grid_constant__ mix_args a)
{
    __shared__ float squares[T][MIX_THREADS_MAX / WARP];
    __shared__ __align__(16) float pre[T][STREAMS];
    int first = (int)(gridDim.x - 1 - blockIdx.x) * T;
    int warp = (int)threadIdx.x / WARP;
    uint4 x[T][C][STREAMS];
    float z[T][C][CHUNK];
    pre_sums sums = {};

    await_previous();
    if (first >= a.tokens) {
        int own = (int)blockDim.x / MIXING_SHARE;
        int begin = (int)blockIdx.x * own;
        int count = min(own, a.tokens - begin);

        gather(a, begin, count);
        __syncthreads();
        if ((int)threadIdx.x < count) {
            make_mixing(a, begin + (int)threadIdx.x);
        }
        return;
    }
    if (warp < T) {
        sums = load_pre_sums(a, first + warp);
    }
    load_chunks<T, C>(a, first, x);
    if (warp < T) {
        make_pre(a, first + warp, sums, pre[warp]);
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < T; t++) {
        float square = warp_sum(mix_chunks<C>(pre[t], x[t], z[t]));

        if (threadIdx.x % WARP == 0) {
            squares[t][warp] = square;
        }
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < T; t++) {
        norm_chunks<C>(a, first + t, squares[t], z[t]);
    }
}

template <int T, int C> mhp_status launch_mix(cudaStream_t stream, const mix_args *a)
{
    int threads = max_of(ceil_div(ceil_div(ceil_div(a->hidden, CHUNK), C), WARP), T) * WARP;       /* a warp for every token's parts */
    int blocks = ceil_div(a->tokens, T) + ceil_div(a->tokens, threads / MIXING_SHARE);

    launch_behind(mix_kernel<T, C>, dim3((unsigned)blocks), threads, 0, stream, *a);
    return mhp_cuda_launched("mix");
}

mhp_status finish(cudaStream_t stream, const mhp_mix_args *mix, const state_parts &parts)
{
    const mhp_connection_args *c = &mix->connection;
    int chunks = ceil_div(c->hidden, CHUNK);
    mix_args a = {parts,
                  c->tokens,
                  c->hidden,
                  c->sinkhorn_iterations,
                  (float)c->norm_epsilon,
                  (float)c->hc_epsilon,
                  (const bf16 *)c->x,
                  (const float *)c->base,
                  (const float *)c->scale,
                  (const float *)mix->weight,
                  (float *)c->pre,
                  (float *)c->post,
                  (float *)c->comb,
                  (float *)c->projection,
                  (float *)c->rrms,
                  (float *)mix->norm_rrms,
                  (bf16 *)mix->normed};

    if (chunks <= MIX_THREADS_MAX) {
        return chunks <= MIX_THREADS_MAX / 2 ? launch_mix<1, 1>(stream, &a) : launch_mix<2, 1>(stream, &a);
    }
    return chunks <= 2 * MIX_THREADS_MAX ? launch_mix<1, 2>(stream, &a) : launch_mix<1, 4>(stream, &a);
}

/* The arguments of `count` tokens from `first` on. */
template <typename T> T *at_token(T *base, int first, int elements, size_t unit)
{
    return (T *)((char *)base + (size_t)first * (size_t)elements * unit);
}

mhp_merge_args tokens_of(const mhp_merge_args &all, int first, int count)
{
    mhp_merge_args some = all;

    some.tokens = count;
    some.x = at_token(all.x, first, STREAMS * all.hidden, sizeof(bf16));
    some.y = at_token(all.y, first, all.hidden, sizeof(bf16));
    some.post = at_token(all.post, first, STREAMS, sizeof(float));
    some.comb = at_token(all.comb, first, STREAMS * STREAMS, sizeof(float));
    some.x_next = at_token(all.x_next, first, STREAMS * all.hidden, sizeof(bf16));
    return some;
}

mhp_mix_args tokens_of(const mhp_mix_args &all, int first, int count)
{
    mhp_mix_args some = all;
    mhp_connection_args *c = &some.connection;

    c->tokens = count;
    c->x = at_token(c->x, first, STREAMS * c->hidden, sizeof(bf16));
    c->pre = at_token(c->pre, first, STREAMS, sizeof(float));
    c->post = at_token(c->post, first, STREAMS, sizeof(float));
    c->comb = at_token(c->comb, first, STREAMS * STREAMS, sizeof(float));
    c->projection = at_token(c->projection, first, PROJECTIONS, sizeof(float));
    c->rrms = at_token(c->rrms, first, 1, sizeof(float));
    some.normed = at_token(some.normed, first, c->hidden, sizeof(bf16));
    some.norm_rrms = at_token(some.norm_rrms, first, 1, sizeof(float));
    return some;
}

}

mhp_status mix_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix)
{
    int tokens = mix->connection.tokens;
    int most = project_four_tokens(mix->connection.hidden);

    for (int first = 0; first < tokens; first += most) {
        int count = min_of(most, tokens - first);
        mhp_mix_args some = tokens_of(*mix, first, count);
        mhp_merge_args before = merge ? tokens_of(*merge, first, count) : mhp_merge_args{};
        state_parts parts;

        MHP_RETURN_IF_ERROR(project_four(stream, merge ? &before : NULL, &some, &parts));
        MHP_RETURN_IF_ERROR(finish(stream, &some, parts));
    }
    return MHP_OK;
}
