/* dx of any number of streams and either precision, in plain F32 arithmetic, and the parts of dfn and dweight. */
#include <type_traits>

#include "model/cuda/gradient.cuh"

namespace {

enum { COLUMNS = WARP, TOKENS_AT_ONCE = 4, THREADS = COLUMNS * TOKENS_AT_ONCE, SUM_THREADS = 128, HEAD_THREADS = 128, HEAD_TOKENS = 4 };

template <int N, int KIND> struct shape {
    static constexpr int rows = KIND == GRADIENT_HC ? N : 1;
    static constexpr int projections = KIND == GRADIENT_MHC ? N * (N + 2) : KIND == GRADIENT_HC ? N + 2 : N;
    static constexpr int held = projections * N / rows;     /* rows of fn over COLUMNS columns */
};

/* The columns' part of fn: [projections][streams, or 1 for hc][COLUMNS]. */
template <int N, int KIND> __device__ __forceinline__ void hold_weights(const gradient_args &a, float *fn, int begin)
{
    typedef shape<N, KIND> S;

    for (int i = (int)threadIdx.x; i < S::held * COLUMNS; i += THREADS) {
        int column = begin + i % COLUMNS;

        fn[i] = column < a.hidden ? a.fn[(size_t)(i / COLUMNS) * (size_t)a.hidden + column] : 0;
    }
}

/* dx of one column of token t; returns dweight's term. */
template <typename T, int N, int KIND>
__device__ __forceinline__ float column_gradient(const gradient_args &a, const float *fn, size_t t, int column)
{
    typedef shape<N, KIND> S;
    size_t hidden = (size_t)a.hidden;
    const T *x = (const T *)a.x + t * N * hidden + column;
    const T *g = (const T *)a.g + t * N * hidden + column;
    float d = to_float(((const T *)a.incoming)[t * hidden + column]);
    float state[N], grad[N];
    float z = 0;
    float dz = d;
    float term = 0;

#pragma unroll
    for (int j = 0; j < N; j++) {
        state[j] = to_float(x[(size_t)j * hidden]);
        grad[j] = KIND == GRADIENT_HEAD ? 0 : to_float(g[(size_t)j * hidden]);
        z += a.pre[t * N + j] * state[j];
    }
    if (KIND != GRADIENT_HEAD) {
        term = d * a.norm_rrms[t] * z;
        dz = a.norm_rrms[t] * (d * a.weight[column]) - a.norm_pull[t] * z;
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        const float *du = a.du + t * (size_t)a.du_stride + (S::rows == 1 ? 0 : j) * S::projections;
        float sum = a.pre[t * N + j] * dz - a.pull[t * S::rows + (S::rows == 1 ? 0 : j)] * state[j];

#pragma unroll 8
        for (int p = 0; p < S::projections; p++) {
            sum = fmaf(du[p], fn[(S::rows == 1 ? p * N + j : p) * COLUMNS + (int)threadIdx.x % COLUMNS], sum);
        }
        if (KIND != GRADIENT_HEAD) {
#pragma unroll
            for (int k = 0; k < N; k++) {
                sum = fmaf(a.comb[(t * N + j) * N + k], grad[k], sum);
            }
        }
        from_float(sum, (T *)a.dx + (t * N + j) * hidden + column);
    }
    return term;
}

/* Grid (slices of columns, groups of tokens). */
template <typename T, int N, int KIND> __global__ void __launch_bounds__(THREADS) state_gradient_kernel(gradient_args a)
{
    extern __shared__ float fn[];
    __shared__ float dweight[TOKENS_AT_ONCE][COLUMNS];
    int begin = (int)blockIdx.x * COLUMNS;
    int column = begin + (int)threadIdx.x % COLUMNS;
    int turn = (int)threadIdx.x / COLUMNS;
    float sum = 0;

    hold_weights<N, KIND>(a, fn, begin);
    __syncthreads();
    for (int t = (int)blockIdx.y * TOKENS_AT_ONCE + turn; t < a.tokens; t += (int)gridDim.y * TOKENS_AT_ONCE) {
        if (column < a.hidden) {
            sum += column_gradient<T, N, KIND>(a, fn, (size_t)t, column);
        }
    }
    if (KIND == GRADIENT_HEAD) {
        return;
    }
    dweight[turn][threadIdx.x % COLUMNS] = sum;
    __syncthreads();
    if (turn == 0 && column < a.hidden) {
        sum = 0;
        for (int i = 0; i < TOKENS_AT_ONCE; i++) {
            sum += dweight[i][threadIdx.x];
        }
        a.weight_parts[(size_t)blockIdx.y * (size_t)a.hidden + column] = sum;
    }
}

/* Grid (slices of a row, groups of rows): parts of dfn = sum over rows of du (x) v / r, a column of the row in every thread. */
template <typename T, int P> __global__ void __launch_bounds__(SUM_THREADS) weight_gradient_kernel(gradient_args a)
{
    int width = a.streams / a.rows * a.hidden;
    int column = (int)blockIdx.x * SUM_THREADS + (int)threadIdx.x;
    float *part = a.fn_parts + (size_t)blockIdx.y * (size_t)a.projections * (size_t)width + column;
    float sum[P] = {};

    if (column >= width) {
        return;
    }
    for (int row = (int)blockIdx.y; row < a.tokens * a.rows; row += (int)gridDim.y) {
        float x = to_float(((const T *)a.x)[(size_t)row * (size_t)width + column]);
        const float *du = a.du + (size_t)row * (size_t)a.projections;

#pragma unroll
        for (int p = 0; p < P; p++) {
            if (p < a.projections) {
                sum[p] = fmaf(du[p], x, sum[p]);
            }
        }
    }
#pragma unroll
    for (int p = 0; p < P; p++) {
        if (p < a.projections) {
            part[(size_t)p * (size_t)width] = sum[p];
        }
    }
}

template <typename T, int P> void launch_weights(cudaStream_t stream, const gradient_args *a)
{
    dim3 grid((unsigned)ceil_div(a->streams / a->rows * a->hidden, SUM_THREADS), (unsigned)a->groups);

    weight_gradient_kernel<T, P><<<grid, SUM_THREADS, 0, stream>>>(*a);
}

/* Of the readout of few streams in bf16, dx and the parts of dfn in one: two columns of every stream in a thread, with their part of
 * fn. Grid (slices of columns, groups of tokens). */
template <int N> __global__ void __launch_bounds__(HEAD_THREADS) head_gradient_kernel(gradient_args a)
{
    size_t hidden = (size_t)a.hidden;
    int column = ((int)blockIdx.x * HEAD_THREADS + (int)threadIdx.x) * 2;
    float2 fn[N][N], dfn[N][N] = {};

    if (column >= a.hidden) {
        return;
    }
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        fn[i / N][i % N] = *(const float2 *)(a.fn + (size_t)i * hidden + column);
    }
    for (int first = (int)blockIdx.y * HEAD_TOKENS; first < a.tokens; first += (int)gridDim.y * HEAD_TOKENS) {
        uint32_t x[HEAD_TOKENS][N], d[HEAD_TOKENS];

#pragma unroll
        for (int i = 0; i < HEAD_TOKENS; i++) {
            size_t t = (size_t)min(first + i, a.tokens - 1);

            d[i] = *(const uint32_t *)((const bf16 *)a.incoming + t * hidden + column);
#pragma unroll
            for (int j = 0; j < N; j++) {
                x[i][j] = *(const uint32_t *)((const bf16 *)a.x + (t * N + (size_t)j) * hidden + column);
            }
        }
#pragma unroll
        for (int i = 0; i < HEAD_TOKENS; i++) {
            size_t t = (size_t)(first + i);
            float2 dz = make_float2(__uint_as_float(d[i] << 16), __uint_as_float(d[i] & 0xffff0000u));
            float du[N];
            float pull;

            if (first + i >= a.tokens) {
                break;
            }
            pull = a.pull[t * (size_t)a.pull_stride];
#pragma unroll
            for (int p = 0; p < N; p++) {
                du[p] = a.du[t * (size_t)a.du_stride + (size_t)p];
            }
#pragma unroll
            for (int j = 0; j < N; j++) {
                float2 state = make_float2(__uint_as_float(x[i][j] << 16), __uint_as_float(x[i][j] & 0xffff0000u));
                float pre = a.pre[t * N + (size_t)j];
                float2 sum = make_float2(pre * dz.x - pull * state.x, pre * dz.y - pull * state.y);

#pragma unroll
                for (int p = 0; p < N; p++) {
                    sum = make_float2(fmaf(du[p], fn[p][j].x, sum.x), fmaf(du[p], fn[p][j].y, sum.y));
                    dfn[p][j] = make_float2(fmaf(du[p], state.x, dfn[p][j].x), fmaf(du[p], state.y, dfn[p][j].y));
                }
                *(uint32_t *)((bf16 *)a.dx + (t * N + (size_t)j) * hidden + column) = pack_pair(sum.x, sum.y);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        *(float2 *)(a.fn_parts + ((size_t)blockIdx.y * N * N + (size_t)i) * hidden + column) = dfn[i / N][i % N];
    }
}

template <int N> mhp_status launch_head(cudaStream_t stream, gradient_args *a)
{
    a->groups = gradient_head_groups(a->tokens, a->hidden, N, HEAD_THREADS * 2);
    head_gradient_kernel<N><<<dim3((unsigned)ceil_div(a->hidden, HEAD_THREADS * 2), (unsigned)a->groups), HEAD_THREADS, 0, stream>>>(*a);
    return mhp_cuda_launched("head_gradient");
}

template <typename T, int N, int KIND> mhp_status launch(cudaStream_t stream, gradient_args *a)
{
    if constexpr (KIND == GRADIENT_HEAD && std::is_same<T, bf16>::value && N <= 4) {
        return launch_head<N>(stream, a);
    } else {
        typedef shape<N, KIND> S;
        int bytes = S::held * COLUMNS * (int)sizeof(float);
        dim3 grid;

        a->groups = gradient_groups(a->tokens, a->hidden, false);
        grid = dim3((unsigned)ceil_div(a->hidden, COLUMNS), (unsigned)a->groups);
        cudaFuncSetAttribute(state_gradient_kernel<T, N, KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        launch_weights<T, S::projections>(stream, a);
        MHP_RETURN_IF_ERROR(mhp_cuda_launched("weight_gradient"));
        state_gradient_kernel<T, N, KIND><<<grid, THREADS, (size_t)bytes, stream>>>(*a);
        return mhp_cuda_launched("state_gradient");
    }
}

}

template <typename T> mhp_status state_gradient(cudaStream_t stream, int kind, gradient_args *a)
{
    if (kind == GRADIENT_MHC) {
        MHP_CUDA_BY_STREAMS(a->streams, return (launch<T, N, GRADIENT_MHC>(stream, a)))
    } else if (kind == GRADIENT_HC) {
        MHP_CUDA_BY_STREAMS(a->streams, return (launch<T, N, GRADIENT_HC>(stream, a)))
    } else {
        MHP_CUDA_BY_STREAMS(a->streams, return (launch<T, N, GRADIENT_HEAD>(stream, a)))
    }
    return MHP_ERR_INTERNAL;
}

template mhp_status state_gradient<float>(cudaStream_t, int, gradient_args *);
template mhp_status state_gradient<bf16>(cudaStream_t, int, gradient_args *);
