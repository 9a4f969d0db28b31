/* First half of a sublayer's gradient: dy, dpost and dcomb, each of g, x and y read once. */
#include <type_traits>

#include "model/cuda/connection.cuh"
#include "model/cuda/gradient.cuh"

namespace {

enum { BLOCK_TOKENS = 6, SHARED_UNASKED = 48 << 10 };

template <typename T, int N> struct dots {
    static constexpr int count = N * (N + 1);           /* dpost | dcomb */
    static constexpr int groups = (count + WARP - 1) / WARP;
    static constexpr int columns = WARP * width_of<T, N>::value;        /* of a warp at a time */
    /* A part for each so many columns, as gradient.cuh has it, or for each warp. */
    static constexpr bool sliced = std::is_same<T, bf16>::value && N == 4;
};
static_assert(dots<bf16, 4>::columns == GRADIENT_SLICE && dots<bf16, 4>::count == GRADIENT_DOTS, "the order of both kernels is one");

/* Adds to a token's dots those of the columns at `column`, of which it writes dy. */
template <typename T, int N>
__device__ __forceinline__ void gradient_columns(const mhp_merge_gradient_args &a, int t, const float (&post)[N], int column,
                                                 float (&dot)[dots<T, N>::groups][WARP])
{
    constexpr int V = width_of<T, N>::value;
    typedef typename chunk<T, V>::type raw;
    size_t hidden = (size_t)a.hidden;
    const T *g = (const T *)a.g + (size_t)t * N * hidden + column;
    const T *x = (const T *)a.x + (size_t)t * N * hidden + column;
    raw packed[2 * N + 1];
    float grad[N][V], value[V], sum[V];

#pragma unroll
    for (int j = 0; j < N; j++) {
        packed[j] = load_raw<T, V>(g + (size_t)j * hidden);
        packed[N + j] = load_raw<T, V>(x + (size_t)j * hidden);
    }
    packed[2 * N] = load_once<T, V>((const T *)a.y + (size_t)t * hidden + column);
    unpack(packed[2 * N], value);
#pragma unroll
    for (int k = 0; k < N; k++) {
        unpack(packed[k], grad[k]);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[i] = k == 0 ? post[0] * grad[0][i] : fmaf(post[k], grad[k][i], sum[i]);
            dot[k / WARP][k % WARP] = fmaf(grad[k][i], value[i], dot[k / WARP][k % WARP]);
        }
    }
    store_chunk<T, V>((T *)a.dy + (size_t)t * hidden + column, sum);
#pragma unroll
    for (int j = 0; j < N; j++) {
        unpack(packed[N + j], value);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float &target = dot[(N + j * N + k) / WARP][(N + j * N + k) % WARP];

#pragma unroll
            for (int i = 0; i < V; i++) {
                target = fmaf(value[i], grad[k][i], target);
            }
        }
    }
}

/* The warp's sums into a part [groups][WARP], in gradient.cuh's order; the dots are 0 again. */
template <int GROUPS> __device__ __forceinline__ void store_dots(float (&dot)[GROUPS][WARP], float *part)
{
    int lane = (int)threadIdx.x % WARP;
    int which = (lane & 2) * 8 + (lane & 1) * 8 + (lane & 4) + (lane & 8) / 4 + lane / 16;      /* what exchanges leave in the lane */

#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        exchange_half<16, 2>(dot[i]);
        exchange_half<8, 1>(dot[i]);
        exchange_half<4, 4>(dot[i]);
        exchange_half<2, 8>(dot[i]);
        exchange_half<1, 16>(dot[i]);
        part[i * WARP + which] = dot[i][0];
#pragma unroll
        for (int k = 0; k < WARP; k++) {
            dot[i][k] = 0;
        }
    }
}

/* The sum of a token's `parts` parts, `stride` apart. */
__device__ __forceinline__ float sum_dots(const float *part, int parts, int stride)
{
    int turns = part_turns(parts);
    float total = 0;

    for (int turn = 0; turn < turns; turn++) {
        float sum = 0;

        for (int i = turn; i < parts; i += turns) {
            sum += part[i * stride];
        }
        total += sum;
    }
    return total;
}

template <typename T, int N>
__global__ void __launch_bounds__(512) merge_gradient_kernel(mhp_merge_gradient_args a, int block_tokens, int parts)
{
    typedef dots<T, N> D;
    constexpr int V = width_of<T, N>::value;
    extern __shared__ float part[];     /* [block_tokens][parts][groups][WARP] */
    int first = (int)blockIdx.x * block_tokens;
    int count = min(block_tokens, a.tokens - first);
    int warp = (int)threadIdx.x / WARP;

    for (int t = 0; t < count; t++) {
        float *of_token = part + t * parts * D::groups * WARP;
        float post[N];
        float dot[D::groups][WARP] = {};

#pragma unroll
        for (int k = 0; k < N; k++) {
            post[k] = __ldg((const float *)a.post + (size_t)(first + t) * N + k);
        }
        for (int begin = warp * D::columns; begin < a.hidden; begin += (int)blockDim.x * V) {
            int column = begin + (int)threadIdx.x % WARP * V;

            if (column < a.hidden) {
                gradient_columns<T, N>(a, first + t, post, column, dot);
            }
            if (D::sliced) {
                store_dots(dot, of_token + begin / D::columns * D::groups * WARP);
            }
        }
        if (!D::sliced) {
            store_dots(dot, of_token + warp * D::groups * WARP);
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < count * D::count; i += (int)blockDim.x) {
        size_t t = (size_t)(first + i / D::count);
        int at = i % D::count;
        float sum = sum_dots(part + i / D::count * parts * D::groups * WARP + at, parts, D::groups * WARP);

        if (at < N) {
            ((float *)a.dpost)[t * N + (size_t)at] = sum;
        } else {
            ((float *)a.dcomb)[t * (N * N) + (size_t)(at - N)] = sum;
        }
    }
}

template <typename T, int N> mhp_status launch_merge_gradient(cudaStream_t stream, const mhp_merge_gradient_args *args)
{
    typedef dots<T, N> D;
    int threads = row_threads(args->hidden, width_of<T, N>::value, 1);
    int parts = D::sliced ? ceil_div(args->hidden, D::columns) : threads / WARP;
    size_t bytes = sizeof(float) * (size_t)(BLOCK_TOKENS * parts * D::groups * WARP);

    static_assert(sizeof(float) * BLOCK_TOKENS * D::groups * WARP * (D::sliced ? HIDDEN_MAX / D::columns : ROW_THREADS_MAX / WARP) <=
                      SHARED_UNASKED,
                  "a launch has no more without asking");
    merge_gradient_kernel<T, N><<<(unsigned)ceil_div(args->tokens, BLOCK_TOKENS), (unsigned)threads, bytes, stream>>>(
        *args, (int)BLOCK_TOKENS, parts);
    return mhp_cuda_launched("merge_gradient");
}

}

template <typename T> mhp_status merge_gradient(cudaStream_t stream, const mhp_merge_gradient_args *args)
{
    bool residual = args->kind == MHP_CONNECTION_RESIDUAL;

    MHP_RETURN_IF_ERROR(mhp_cuda_connection_check("merge_gradient", args->tokens, args->hidden, residual ? 1 : args->streams, 1));
    if (args->tokens == 0) {
        return MHP_OK;
    }
    if (residual) {
        cudaMemcpyAsync(args->dy, args->g, (size_t)args->tokens * (size_t)args->hidden * sizeof(T), cudaMemcpyDeviceToDevice, stream);
        return mhp_cuda_launched("merge_gradient");
    }
    MHP_CUDA_BY_STREAMS(args->streams, return (launch_merge_gradient<T, N>(stream, args)))
    return MHP_ERR_INTERNAL;
}

template mhp_status merge_gradient<float>(cudaStream_t, const mhp_merge_gradient_args *);
template mhp_status merge_gradient<bf16>(cudaStream_t, const mhp_merge_gradient_args *);

mhp_status mhp_cuda_merge_gradient_f32(void *native, const void *argument)
{
    return merge_gradient<float>((cudaStream_t)native, (const mhp_merge_gradient_args *)argument);
}

mhp_status mhp_cuda_merge_gradient_bf16(void *native, const void *argument)
{
    return merge_gradient<bf16>((cudaStream_t)native, (const mhp_merge_gradient_args *)argument);
}
