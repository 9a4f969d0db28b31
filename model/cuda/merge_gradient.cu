/* First half of a sublayer's gradient: dy, dpost and dcomb, each of g, x and y read once. */
#include "model/cuda/connection.cuh"

namespace {

enum { BLOCK_TOKENS = 6 };

template <int N> struct dots {
    static constexpr int count = N * (N + 1);           /* dpost | dcomb */
    static constexpr int groups = (count + WARP - 1) / WARP;
};

/* A token's dots of this thread's columns, and dy. */
template <typename T, int N>
__device__ __forceinline__ void gradient_columns(const mhp_merge_gradient_args &a, int t, const float (&post)[N],
                                                 float (&dot)[dots<N>::groups][WARP])
{
    constexpr int V = width_of<T, N>::value;
    typedef typename chunk<T, V>::type raw;
    size_t hidden = (size_t)a.hidden;
    const T *g = (const T *)a.g + (size_t)t * N * hidden;
    const T *x = (const T *)a.x + (size_t)t * N * hidden;

    for (int column = (int)threadIdx.x * V; column < a.hidden; column += (int)blockDim.x * V) {
        raw packed[2 * N + 1];
        float grad[N][V], value[V], sum[V];

#pragma unroll
        for (int j = 0; j < N; j++) {
            packed[j] = load_raw<T, V>(g + (size_t)j * hidden + column);
            packed[N + j] = load_raw<T, V>(x + (size_t)j * hidden + column);
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
}

template <typename T, int N> __global__ void __launch_bounds__(512) merge_gradient_kernel(mhp_merge_gradient_args a, int block_tokens)
{
    typedef dots<N> D;
    extern __shared__ float part[];     /* [block_tokens][warps][groups][WARP] */
    int first = (int)blockIdx.x * block_tokens;
    int count = min(block_tokens, a.tokens - first);
    int warps = (int)blockDim.x / WARP;
    int warp = (int)threadIdx.x / WARP;

    for (int t = 0; t < count; t++) {
        float post[N];
        float dot[D::groups][WARP] = {};

#pragma unroll
        for (int k = 0; k < N; k++) {
            post[k] = __ldg((const float *)a.post + (size_t)(first + t) * N + k);
        }
        gradient_columns<T, N>(a, first + t, post, dot);
#pragma unroll
        for (int i = 0; i < D::groups; i++) {
            part[((t * warps + warp) * D::groups + i) * WARP + threadIdx.x % WARP] = warp_sums<WARP>(dot[i]);
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < count * D::count; i += (int)blockDim.x) {
        size_t t = (size_t)(first + i / D::count);
        int at = i % D::count;
        float sum = 0;

        for (int w = 0; w < warps; w++) {
            sum += part[(i / D::count * warps + w) * D::groups * WARP + at];
        }
        if (at < N) {
            ((float *)a.dpost)[t * N + (size_t)at] = sum;
        } else {
            ((float *)a.dcomb)[t * (N * N) + (size_t)(at - N)] = sum;
        }
    }
}

template <typename T, int N> mhp_status launch_merge_gradient(cudaStream_t stream, const mhp_merge_gradient_args *args)
{
    int threads = row_threads(args->hidden, width_of<T, N>::value);
    int rows = BLOCK_TOKENS;
    size_t bytes = sizeof(float) * (size_t)(rows * threads * dots<N>::groups);

    if (bytes > 48 * 1024) {
        rows = max_of(1, rows * 40 * 1024 / (int)bytes);
        bytes = sizeof(float) * (size_t)(rows * threads * dots<N>::groups);
    }
    merge_gradient_kernel<T, N><<<(unsigned)ceil_div(args->tokens, rows), (unsigned)threads, bytes, stream>>>(*args, rows);
    return mhp_cuda_launched("merge_gradient");
}

template <typename T> mhp_status merge_gradient(void *native, const void *argument)
{
    const mhp_merge_gradient_args *args = (const mhp_merge_gradient_args *)argument;
    cudaStream_t stream = (cudaStream_t)native;
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

}

mhp_status mhp_cuda_merge_gradient_f32(void *native, const void *argument)
{
    return merge_gradient<float>(native, argument);
}

mhp_status mhp_cuda_merge_gradient_bf16(void *native, const void *argument)
{
    return merge_gradient<bf16>(native, argument);
}
