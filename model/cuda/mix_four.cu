/* The second pass sums the slices' parts, 8 lanes a token. The third mixes, a block for one or two tokens, and a few blocks run Sinkhorn
 * beside. Blocks go backwards through the tokens: the last states that the first pass wrote are still in the L2 cache. */
#include "model/cuda/four.cuh"

namespace {

enum {
    GATHER_THREADS = 128,       /* of a block of the second pass */
    GATHER_LANES = 8,           /* that share a token */
    MIX_THREADS_MAX = 512,      /* that share a token's row in the third */
};

struct mix_args {
    projection p;
    int tokens, hidden, iterations;
    float norm_epsilon, hc_epsilon;
    const bf16 *x;
    const float *base, *scale, *weight;
    float *pre, *post, *comb, *norm_rrms;
    bf16 *z, *normed;
};

/* All slices' parts of a block's tokens, in order, and the pre coefficients; what is kept for the gradient. */
__global__ void __launch_bounds__(GATHER_THREADS) gather_kernel(const __grid_constant__ mix_args a)
{
    int token = (int)(blockIdx.x * GATHER_THREADS + threadIdx.x) / GATHER_LANES;
    int piece = (int)threadIdx.x % GATHER_LANES;
    float4 sum = make_float4(0, 0, 0, 0);
    float rrms;

    await_previous();
    if (token < a.tokens && piece <= PROJECTIONS / 4) {
#pragma unroll 8
        for (int slice = 0; slice < a.p.slices; slice++) {
            float4 part = make_float4(0, 0, 0, 0);

            if (piece == PROJECTIONS / 4) {
                part.x = *square_of(a.p, slice, token);
            } else {
                part = *(const float4 *)(part_of(a.p, slice, token) + piece * 4);
            }
            sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
        }
    }
    rrms = 1.0f / sqrtf(__shfl_sync(FULL_WARP, sum.x, PROJECTIONS / 4, GATHER_LANES) / (float)a.p.width + a.norm_epsilon);
    if (token >= a.tokens) {
        return;
    }
    if (piece < PROJECTIONS / 4) {
        *(float4 *)(a.p.first + (size_t)token * PROJECTIONS + piece * 4) = sum;
    } else if (piece == PROJECTIONS / 4) {
        a.p.first_square[token] = rrms;
    }
    if (piece == 0) {
        float u[STREAMS] = {sum.x, sum.y, sum.z, sum.w};
        float pre[STREAMS];

#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            pre[j] = sigmoid(a.scale[0] * (u[j] * rrms) + a.base[j]) + a.hc_epsilon;
        }
        *(float4 *)(a.pre + (size_t)token * STREAMS) = make_float4(pre[0], pre[1], pre[2], pre[3]);
    }
}

/* comb and post of one thread's token, from the kept projection. */
__device__ __forceinline__ void make_mixing(const mix_args &a, int token)
{
    const float *u = a.p.first + (size_t)token * PROJECTIONS;
    float rrms = a.p.first_square[token];
    float post[STREAMS], m[STREAMS * STREAMS];

    load_full<STREAMS>(u + STREAMS, post);
    load_full<STREAMS * STREAMS>(u + 2 * STREAMS, m);
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

/* z of one token's chunks, which is written unless nobody wants it; returns the square sum. */
template <int C>
__device__ __forceinline__ float mix_chunks(const mix_args &a, int token, const uint4 (&x)[C][STREAMS], float (&z)[C][CHUNK])
{
    float pre[STREAMS];
    float square = 0;

    load_full<STREAMS>(a.pre + (size_t)min(token, a.tokens - 1) * STREAMS, pre);
#pragma unroll
    for (int c = 0; c < C; c++) {
        float sum = 0;

        mix_chunk<bf16, STREAMS, CHUNK>(x[c], pre, z[c]);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            sum = fmaf(z[c][i], z[c][i], sum);
        }
        square += sum;
        if (a.z && token < a.tokens && column_of(c) < a.hidden) {
            store_chunk<bf16, CHUNK>(a.z + (size_t)token * (size_t)a.hidden + column_of(c), z[c]);
        }
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
#pragma unroll
    for (int t = 0; t < T; t++) {
        float square = warp_sum(mix_chunks<C>(a, first + t, x[t], z[t]));

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

mix_args mix_args_of(const mhp_mix_args *mix, const projection *p)
{
    const mhp_connection_args *c = &mix->connection;

    return {*p,
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
            (float *)mix->norm_rrms,
            (bf16 *)c->z,
            (bf16 *)mix->normed};
}

mhp_status finish(cudaStream_t stream, const mix_args *a)
{
    int chunks = ceil_div(a->hidden, CHUNK);

    launch_behind(gather_kernel, dim3((unsigned)ceil_div(a->tokens, GATHER_THREADS / GATHER_LANES)), GATHER_THREADS, 0, stream, *a);
    MHP_RETURN_IF_ERROR(mhp_cuda_launched("gather"));
    if (chunks <= MIX_THREADS_MAX) {
        return launch_mix<2, 1>(stream, a);
    }
    return chunks <= 2 * MIX_THREADS_MAX ? launch_mix<1, 2>(stream, a) : launch_mix<1, 4>(stream, a);
}

}

mhp_status mix_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix)
{
    projection p;
    mix_args a;

    MHP_RETURN_IF_ERROR(project_four(stream, merge, mix, &p));
    a = mix_args_of(mix, &p);
    return finish(stream, &a);
}
