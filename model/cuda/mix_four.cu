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
    float m[STREAMS * STREAMS], post[STREAMS];

    load_full<STREAMS>(u + STREAMS, post);
    load_full<STREAMS * STREAMS>(u + 2 * STREAMS, m);
#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        post[j] = 2.0f * sigmoid(a.scale[1] * (post[j] * rrms) + a.base[STREAMS + j]);
    }
    *(float4 *)(a.post + (size_t)token * STREAMS) = make_float4(post[0], post[1], post[2], post[3]);
#pragma unroll
    for (int i = 0; i < STREAMS * STREAMS; i++) {
        m[i] = a.scale[2] * (m[i] * rrms) + a.base[2 * STREAMS + i];
    }
    softmax_rows<STREAMS>(m);
    sinkhorn<STREAMS>(m, a.iterations, a.hc_epsilon, NULL);
#pragma unroll
    for (int i = 0; i < STREAMS * STREAMS; i += 4) {
        *(float4 *)(a.comb + (size_t)token * (STREAMS * STREAMS) + i) = make_float4(m[i], m[i + 1], m[i + 2], m[i + 3]);
    }
}

/* z of 8 columns; returns their square sum. */
__device__ __forceinline__ float mix_columns(const uint4 (&x)[STREAMS], float4 pre, float (&z)[CHUNK])
{
    float of_stream[STREAMS] = {pre.x, pre.y, pre.z, pre.w};
    float square = 0;

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        float value[CHUNK];

        unpack(x[j], value);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            z[i] = j == 0 ? of_stream[0] * value[i] : fmaf(of_stream[j], value[i], z[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
        square = fmaf(z[i], z[i], square);
    }
    return square;
}

/* The first blocks run Sinkhorn, a token in every thread; nobody waits for it. The others mix T tokens each; a thread has C chunks of
 * each, blockDim.x chunks apart. */
template <int T, int C> __global__ void __launch_bounds__(MIX_THREADS_MAX) mix_kernel(const __grid_constant__ mix_args a)
{
    __shared__ float squares[T][MIX_THREADS_MAX / WARP];
    int first = (int)(gridDim.x - 1 - blockIdx.x) * T;
    int warps = (int)blockDim.x / WARP;
    uint4 x[T][C][STREAMS];
    float z[T][C][CHUNK];

    if (first >= a.tokens) {
        int token = (int)(blockIdx.x * blockDim.x + threadIdx.x);

        if (token < a.tokens) {
            make_mixing(a, token);
        }
        return;
    }

#pragma unroll
    for (int t = 0; t < T; t++) {
        const bf16 *from = a.x + (size_t)min(first + t, a.tokens - 1) * (size_t)(STREAMS * a.hidden);

#pragma unroll
        for (int c = 0; c < C; c++) {
            int column = (int)(threadIdx.x + c * blockDim.x) * CHUNK;

#pragma unroll
            for (int j = 0; j < STREAMS; j++) {
                x[t][c][j] = column < a.hidden ? load_once<bf16, CHUNK>(from + (size_t)j * (size_t)a.hidden + column)
                                               : make_uint4(0, 0, 0, 0);
            }
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        float4 pre = __ldg((const float4 *)(a.pre + (size_t)min(first + t, a.tokens - 1) * STREAMS));
        float square = 0;

#pragma unroll
        for (int c = 0; c < C; c++) {
            int column = (int)(threadIdx.x + c * blockDim.x) * CHUNK;

            square += mix_columns(x[t][c], pre, z[t][c]);
            if (a.z && first + t < a.tokens && column < a.hidden) {
                store_chunk<bf16, CHUNK>(a.z + (size_t)(first + t) * (size_t)a.hidden + column, z[t][c]);
            }
        }
        square = warp_sum(square);
        if (threadIdx.x % WARP == 0) {
            squares[t][threadIdx.x / WARP] = square;
        }
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < T; t++) {
        float sum = 0;
        float rrms;

        for (int w = 0; w < warps; w++) {
            sum += squares[t][w];
        }
        rrms = 1.0f / sqrtf(sum / (float)a.hidden + a.norm_epsilon);
        if (threadIdx.x == 0 && first + t < a.tokens) {
            a.norm_rrms[first + t] = rrms;
        }
#pragma unroll
        for (int c = 0; c < C; c++) {
            int column = (int)(threadIdx.x + c * blockDim.x) * CHUNK;
            float weight[CHUNK];

            if (column < a.hidden && first + t < a.tokens) {
                load_full<CHUNK>(a.weight + column, weight);
#pragma unroll
                for (int i = 0; i < CHUNK; i++) {
                    z[t][c][i] = z[t][c][i] * rrms * weight[i];
                }
                store_chunk<bf16, CHUNK>(a.normed + (size_t)(first + t) * (size_t)a.hidden + column, z[t][c]);
            }
        }
    }
}

template <int T, int C> mhp_status launch_mix(cudaStream_t stream, const mix_args *a)
{
    int threads = ceil_div(ceil_div(ceil_div(a->hidden, CHUNK), C), WARP) * WARP;
    int blocks = ceil_div(a->tokens, T) + ceil_div(a->tokens, threads);

    mix_kernel<T, C><<<(unsigned)blocks, (unsigned)threads, 0, stream>>>(*a);
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

    gather_kernel<<<(unsigned)ceil_div(a->tokens, GATHER_THREADS / GATHER_LANES), GATHER_THREADS, 0, stream>>>(*a);
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
