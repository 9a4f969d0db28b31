/* The second pass mixes, a block for one or two tokens: while their state is on its way a warp sums each token's parts, as far as the pre
 * coefficients need them. A few blocks sum all of them beside and run Sinkhorn. Blocks go backwards through the tokens: the last states
 * that the first pass wrote are still in the L2 cache. */
#include "model/cuda/four.cuh"

namespace {

enum {
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

/* The pre coefficients of a token, by one warp, a slice in every lane; they go into `pre` as well. */
__device__ __forceinline__ void make_pre(const mix_args &a, int token, float *pre)
{
    int lane = (int)threadIdx.x % WARP;
    float sum[STREAMS + 1] = {};
    float rrms;

    for (int slice = lane; slice < a.parts.slices; slice += WARP) {
        const float *part = part_of(a.parts, slice, min(token, a.tokens - 1));
        float4 u = *(const float4 *)part;

        sum[0] += u.x;
        sum[1] += u.y;
        sum[2] += u.z;
        sum[3] += u.w;
        sum[STREAMS] += part[PROJECTIONS];
    }
#pragma unroll
    for (int i = 0; i <= STREAMS; i++) {
        sum[i] = warp_sum(sum[i]);
    }
    rrms = rrms_of(a, sum[STREAMS]);
#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        if (lane == j) {
            pre[j] = sigmoid(a.scale[0] * (sum[j] * rrms) + a.base[j]) + a.hc_epsilon;
        }
    }
    if (lane < STREAMS && token < a.tokens) {
        a.pre[(size_t)token * STREAMS + lane] = pre[lane];
    }
}

/* The whole projection of one thread's token, all slices' parts in order; returns 1/rms. Both are kept for the gradient. */
__device__ __forceinline__ float sum_parts_of(const mix_args &a, int token, float (&u)[PROJECTIONS])
{
    float square = 0;
    float rrms;

#pragma unroll
    for (int i = 0; i < PROJECTIONS; i++) {
        u[i] = 0;
    }
#pragma unroll 2
    for (int slice = 0; slice < a.parts.slices; slice++) {
        const float *part = part_of(a.parts, slice, token);

#pragma unroll
        for (int i = 0; i < PROJECTIONS; i += 4) {
            float4 piece = *(const float4 *)(part + i);

            u[i] += piece.x;
            u[i + 1] += piece.y;
            u[i + 2] += piece.z;
            u[i + 3] += piece.w;
        }
        square += part[PROJECTIONS];
    }
    rrms = rrms_of(a, square);
    a.rrms[token] = rrms;
#pragma unroll
    for (int i = 0; i < PROJECTIONS; i += 4) {
        *(float4 *)(a.projection + (size_t)token * PROJECTIONS + i) = make_float4(u[i], u[i + 1], u[i + 2], u[i + 3]);
    }
    return rrms;
}

/* Projection, comb and post of one thread's token. */
__device__ __forceinline__ void make_mixing(const mix_args &a, int token)
{
    float u[PROJECTIONS], post[STREAMS], m[STREAMS * STREAMS];
    float rrms = sum_parts_of(a, token, u);

#pragma unroll
    for (int i = 0; i < STREAMS; i++) {
        post[i] = u[STREAMS + i];
    }
#pragma unroll
    for (int i = 0; i < STREAMS * STREAMS; i++) {
        m[i] = u[2 * STREAMS + i];
    }
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

/* The first blocks run Sinkhorn, a token in every thread; nobody waits for it. The others mix T tokens each; a thread has C chunks of
 * each, blockDim.x chunks apart. */
template <int T, int C> __global__ void __launch_bounds__(MIX_THREADS_MAX) mix_kernel(const __grid_constant__ mix_args a)
{
    __shared__ float squares[T][MIX_THREADS_MAX / WARP];
    __shared__ __align__(16) float pre[T][STREAMS];
    int first = (int)(gridDim.x - 1 - blockIdx.x) * T;
    uint4 x[T][C][STREAMS];
    float z[T][C][CHUNK];

    await_previous();
    if (first >= a.tokens) {
        int token = (int)(blockIdx.x * blockDim.x + threadIdx.x);

        if (token < a.tokens) {
            make_mixing(a, token);
        }
        return;
    }
    load_chunks<T, C>(a, first, x);
    for (int t = (int)threadIdx.x / WARP; t < T; t += (int)blockDim.x / WARP) {
        make_pre(a, first + t, pre[t]);
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < T; t++) {
        float square = warp_sum(mix_chunks<C>(pre[t], x[t], z[t]));

        if (threadIdx.x % WARP == 0) {
            squares[t][threadIdx.x / WARP] = square;
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
    int threads = ceil_div(ceil_div(ceil_div(a->hidden, CHUNK), C), WARP) * WARP;
    int blocks = ceil_div(a->tokens, T) + ceil_div(a->tokens, threads);

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
        return launch_mix<2, 1>(stream, &a);
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
