/* What the elementwise and row kernels share: 16-byte access in either element type, sums over a block, launches.
 * Kernels compute in float whatever `real` is. N is how many elements a thread takes at a time: 16 bytes' worth of real where every
 * row begins at a multiple of that (mhp_vector_width), else 1. */
#ifndef MHP_MODEL_CUDA_VECTOR_CUH
#define MHP_MODEL_CUDA_VECTOR_CUH

#include <climits>
#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

extern "C" {
#include "model/cuda/cuda.h"
#include "model/cuda/scratch.h"
}

namespace mhp {

typedef __nv_bfloat16 bf16;
constexpr int WARP = 32;

/* ---- Elements ---- */

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

/* N elements as they lie in memory. */
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) packed {
    T at[N];
};

template <int N, typename T> __device__ __forceinline__ packed<T, N> load_packed(const T *from)
{
    packed<T, N> value;
    if constexpr (sizeof(value) >= 16) {
#pragma unroll
        for (int i = 0; i < (int)(sizeof(value) / 16); i++) {
            reinterpret_cast<uint4 *>(&value)[i] = reinterpret_cast<const uint4 *>(from)[i];
        }
    } else {
        value = *reinterpret_cast<const packed<T, N> *>(from);
    }
    return value;
}

template <int N, typename T> __device__ __forceinline__ void store_packed(T *to, const packed<T, N> &value)
{
    if constexpr (sizeof(value) >= 16) {
#pragma unroll
        for (int i = 0; i < (int)(sizeof(value) / 16); i++) {
            reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(&value)[i];
        }
    } else {
        *reinterpret_cast<packed<T, N> *>(to) = value;
    }
}

template <typename T, int N> __device__ __forceinline__ void unpack(float (&out)[N], const packed<T, N> &value)
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        out[i] = to_float(value.at[i]);
    }
}

template <int N, typename T> __device__ __forceinline__ void load(float (&out)[N], const T *from)
{
    unpack(out, load_packed<N>(from));
}

template <int N, typename T> __device__ __forceinline__ void store(T *to, const float (&in)[N])
{
    packed<T, N> value;
#pragma unroll
    for (int i = 0; i < N; i++) {
        value.at[i] = from_float<T>(in[i]);
    }
    store_packed<N>(to, value);
}

/* ---- Sums over a block, the same on every thread ---- */

template <typename T> __device__ __forceinline__ T warp_sum(T value)
{
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
}

/* `shared` holds WARP values that no thread may still be reading; all threads call. */
template <typename T> __device__ __forceinline__ T block_sum_fresh(T value, T *shared)
{
    int warps = blockDim.x / WARP;
    T total = warp_sum(value);

    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = total;
    }
    __syncthreads();
    return warp_sum((int)(threadIdx.x % WARP) < warps ? shared[threadIdx.x % WARP] : T(0));
}

/* The same where `shared` may just have been read. */
template <typename T> __device__ __forceinline__ T block_sum(T value, T *shared)
{
    __syncthreads();
    return block_sum_fresh(value, shared);
}

/* True for exactly one block, the last of the grid to come here, which then sees what all others wrote before. All threads call.
 * The ticket is zero again afterwards. */
__device__ __forceinline__ bool last_block(unsigned *ticket)
{
    __shared__ bool last;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(ticket, 1) == gridDim.x - 1;
        if (last) {
            *ticket = 0;
        }
    }
    __syncthreads();
    if (last) {
        __threadfence();
    }
    return last;
}

/* Sum of partial[0, count) in an order that depends on `count` and the block's size alone. All threads call. */
__device__ __forceinline__ double ordered_sum(const double *partial, int count, double *shared)
{
    double sum = 0;

    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        sum += __ldcg(partial + i);
    }
    return block_sum(sum, shared);
}

/* ---- Launches ---- */

inline bool aligned(const void *pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

template <typename T> constexpr int LANES = 16 / (int)sizeof(T);

/* Whether rows of `width` elements of T from these places allow LANES<T> at a time. */
template <typename T, typename... Pointers> inline bool vectorizable(int64_t width, Pointers... pointers)
{
    return width % LANES<T> == 0 && (... && aligned(pointers, 16));
}

inline unsigned blocks_for(int64_t items, int threads) { return (unsigned)((items + threads - 1) / threads); }
inline int round_up(int value, int step) { return (value + step - 1) / step * step; }


} // namespace mhp

/* Both tables' entries for a template `kernel<real>(stream, args)`. */
#define MHP_CUDA_DEFINE(kernel)                                                                           \
    extern "C" mhp_status mhp_cuda_##kernel##_f32(void *native, const void *argument)                     \
    {                                                                                                     \
        return kernel<float>(static_cast<cudaStream_t>(native),                                           \
                             *static_cast<const mhp_##kernel##_args *>(argument));                        \
    }                                                                                                     \
    extern "C" mhp_status mhp_cuda_##kernel##_bf16(void *native, const void *argument)                    \
    {                                                                                                     \
        return kernel<mhp::bf16>(static_cast<cudaStream_t>(native),                                       \
                                 *static_cast<const mhp_##kernel##_args *>(argument));                    \
    }

#endif
