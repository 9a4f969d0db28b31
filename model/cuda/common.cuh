/* What the connection kernels share: chunks of a row in registers, sums over a warp, Sinkhorn in one thread, launches.
 *
 * A thread moves V elements at once, 16 bytes where registers allow. Sums have a fixed order everywhere, so that two runs give
 * the same bits. */
#ifndef MHP_MODEL_CUDA_COMMON_CUH
#define MHP_MODEL_CUDA_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "model/cuda/cuda.h"

#define FULL_WARP 0xffffffffu

enum { WARP = 32, HIDDEN_MAX = 16384, SINKHORN_ITERATIONS_MAX = 100, ROW_THREADS_MAX = 512 };

typedef __nv_bfloat16 bf16;

/* Elements that a thread moves at once; half as many where n streams of them would not leave room in registers. */
template <typename T, int N> struct width_of {
    static constexpr int value = 4;
};
template <int N> struct width_of<bf16, N> {
    static constexpr int value = N <= 4 ? 8 : 4;
};

template <int BYTES> struct raw_bytes;
template <> struct raw_bytes<8> {
    typedef uint2 type;
};
template <> struct raw_bytes<16> {
    typedef uint4 type;
};
template <typename T, int V> struct chunk {
    typedef typename raw_bytes<sizeof(T) * V>::type type;
};

/* Between the kernels of a pass a stream would drain the card and fill it again each time. Those that launch_behind launches begin
 * before the kernel in front of them is done (programmatic dependent launch, from compute capability 9.0 on), under one rule:
 *
 * Such a kernel calls await_previous in every thread before it touches memory, weights included (an optimizer may be in front); only
 * arithmetic comes before. There it waits until the kernel in front is done and its writes are seen; since that one waited likewise,
 * so are all before it. Then, not earlier, it lets the kernel behind begin: at most one kernel lies in wait, and only when every block
 * of the running one has its place, so it keeps nobody from running, and what its multiprocessor still caches is from no earlier
 * kernel than the running one.
 *
 * A kernel launched otherwise, a copy, an event and a stream's wait for one or for a word of memory are whole dependencies, on either
 * side. Plain loads, cp.async and the intrinsics that are volatile assembly (__ldg, __ldcs) stay behind the wait. */
__device__ __forceinline__ void await_previous(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void unpack(uint4 raw, float (&out)[8])
{
    uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};

#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = __uint_as_float(word[i] << 16);
        out[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
}

__device__ __forceinline__ void unpack(uint2 raw, float (&out)[4])
{
    out[0] = __uint_as_float(raw.x << 16);
    out[1] = __uint_as_float(raw.x & 0xffff0000u);
    out[2] = __uint_as_float(raw.y << 16);
    out[3] = __uint_as_float(raw.y & 0xffff0000u);
}

__device__ __forceinline__ void unpack(uint4 raw, float (&out)[4])
{
    out[0] = __uint_as_float(raw.x);
    out[1] = __uint_as_float(raw.y);
    out[2] = __uint_as_float(raw.z);
    out[3] = __uint_as_float(raw.w);
}

__device__ __forceinline__ uint32_t pack_pair(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);

    return *reinterpret_cast<uint32_t *>(&pair);
}

__device__ __forceinline__ void pack(const float (&in)[8], uint4 *raw)
{
    *raw = make_uint4(pack_pair(in[0], in[1]), pack_pair(in[2], in[3]), pack_pair(in[4], in[5]), pack_pair(in[6], in[7]));
}

__device__ __forceinline__ void pack(const float (&in)[4], uint2 *raw)
{
    *raw = make_uint2(pack_pair(in[0], in[1]), pack_pair(in[2], in[3]));
}

__device__ __forceinline__ void pack(const float (&in)[4], uint4 *raw)
{
    *raw = make_uint4(__float_as_uint(in[0]), __float_as_uint(in[1]), __float_as_uint(in[2]), __float_as_uint(in[3]));
}

__device__ __forceinline__ void add_squares(uint4 raw, float *square)
{
    float x[8];

    unpack(raw, x);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        *square = fmaf(x[i], x[i], *square);
    }
}

template <typename T, int V> __device__ __forceinline__ typename chunk<T, V>::type load_raw(const T *from)
{
    return *reinterpret_cast<const typename chunk<T, V>::type *>(from);
}

/* For what nobody reads again soon. */
template <typename T, int V> __device__ __forceinline__ typename chunk<T, V>::type load_once(const T *from)
{
    return __ldcs(reinterpret_cast<const typename chunk<T, V>::type *>(from));
}

template <typename T, int V> __device__ __forceinline__ void store_chunk(T *to, const float (&values)[V])
{
    typename chunk<T, V>::type raw;

    pack(values, &raw);
    *reinterpret_cast<typename chunk<T, V>::type *>(to) = raw;
}

template <int V> __device__ __forceinline__ void load_full(const float *from, float (&out)[V])
{
#pragma unroll
    for (int i = 0; i < V; i += 4) {
        float4 value = __ldg(reinterpret_cast<const float4 *>(from + i));

        out[i] = value.x;
        out[i + 1] = value.y;
        out[i + 2] = value.z;
        out[i + 3] = value.w;
    }
}

__device__ __forceinline__ float to_float(float x)
{
    return x;
}

__device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}

__device__ __forceinline__ void from_float(float x, float *to)
{
    *to = x;
}

__device__ __forceinline__ void from_float(float x, bf16 *to)
{
    *to = __float2bfloat16_rn(x);
}

__device__ __forceinline__ float warp_sum(float value)
{
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        value += __shfl_xor_sync(FULL_WARP, value, mask);
    }
    return value;
}

/* Adds the values of the lane that differs in bit MASK; of 2 HALF values, the lane with that bit keeps the upper half, in the place of the
 * lower. Indices must be constants, or the values leave the registers. */
template <int HALF, int MASK, int COUNT> __device__ __forceinline__ void exchange_half(float (&value)[COUNT])
{
    bool upper = threadIdx.x & MASK;

#pragma unroll
    for (int i = 0; i < HALF; i++) {
        float low = value[i];
        float high = value[i + HALF];

        value[i] = (upper ? high : low) + __shfl_xor_sync(FULL_WARP, upper ? low : high, MASK);
    }
}

/* One step of warp_sums and those behind it. */
template <int HALF, int COUNT> __device__ __forceinline__ void exchange_halves(float (&value)[COUNT])
{
    exchange_half<HALF, WARP / COUNT * HALF>(value);
    if constexpr (HALF > 1) {
        exchange_halves<HALF / 2>(value);
    }
}

/* The sums of COUNT values (a power of two) over the warp's lanes: lane i gets the sum of value i / (WARP / COUNT). Halves
 * are exchanged first, so that 32 values take 31 shuffles. */
template <int COUNT> __device__ __forceinline__ float warp_sums(float (&value)[COUNT])
{
    if constexpr (COUNT > 1) {
        exchange_halves<COUNT / 2>(value);
    }
#pragma unroll
    for (int rest = WARP / COUNT / 2; rest > 0; rest /= 2) {
        value[0] += __shfl_xor_sync(FULL_WARP, value[0], rest);
    }
    return value[0];
}

/* Of shared memory, as instructions for it take addresses. */
__device__ __forceinline__ uint32_t shared_address(const void *at)
{
    return (uint32_t)__cvta_generic_to_shared(at);
}

/* Starts copying 16 bytes into shared memory. */
__device__ __forceinline__ void copy16(void *to, const void *from, bool valid)
{
    int bytes = valid ? 16 : 0;         /* the rest is filled with 0 */

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}

/* Waits for all copies that the thread started. */
__device__ __forceinline__ void await_copies(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Waits for `threads` threads of the block that come to barrier `id` (0 is __syncthreads's). */
__device__ __forceinline__ void barrier(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ float reciprocal(float x)
{
    float result;

    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* Sinkhorn of one token in one thread; docs/model.md has the order of the divisions. A step's N divisors go to `divisor`, WARP
 * apart, unless NULL. COLUMNS: sums over j. */
template <int N, bool COLUMNS> __device__ __forceinline__ void divide_by_sums(float (&m)[N * N], float epsilon, float *divisor)
{
    constexpr int line_stride = COLUMNS ? 1 : N;
    constexpr int stride = COLUMNS ? N : 1;

#pragma unroll
    for (int line = 0; line < N; line++) {
        float sum = epsilon;
        float inverse;

#pragma unroll
        for (int i = 0; i < N; i++) {
            sum += m[line * line_stride + i * stride];
        }
        inverse = reciprocal(sum);
#pragma unroll
        for (int i = 0; i < N; i++) {
            m[line * line_stride + i * stride] *= inverse;
        }
        if (divisor) {
            divisor[line * WARP] = sum;
        }
    }
}

template <int N> __device__ __forceinline__ void softmax_rows(float (&m)[N * N])
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        float largest = m[j * N];
        float sum = 0;

#pragma unroll
        for (int k = 1; k < N; k++) {
            largest = fmaxf(largest, m[j * N + k]);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            m[j * N + k] = expf(m[j * N + k] - largest);
            sum += m[j * N + k];
        }
        sum = 1.0f / sum;
#pragma unroll
        for (int k = 0; k < N; k++) {
            m[j * N + k] *= sum;
        }
    }
}

/* m: the softmax of the logits in, the mixing matrix out. history [2 * iterations - 1][N][WARP], this thread's column, or NULL. */
template <int N> __device__ __forceinline__ void sinkhorn(float (&m)[N * N], int iterations, float epsilon, float *history)
{
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        m[i] += epsilon;
    }
    divide_by_sums<N, true>(m, epsilon, history);
    for (int step = 1; step < 2 * iterations - 1; step += 2) {
        divide_by_sums<N, false>(m, epsilon, history ? history + step * N * WARP : NULL);
        divide_by_sums<N, true>(m, epsilon, history ? history + (step + 1) * N * WARP : NULL);
    }
}

/* One step back: with m' = m / s, s = sum of m + epsilon, the gradient is (d - sum of d m') / s and m = m' s. */
template <int N, bool COLUMNS> __device__ __forceinline__ void undivide(const float *divisor, float (&m)[N * N], float (&d)[N * N])
{
    constexpr int line_stride = COLUMNS ? 1 : N;
    constexpr int stride = COLUMNS ? N : 1;

#pragma unroll
    for (int line = 0; line < N; line++) {
        float sum = divisor[line * WARP];
        float inverse = reciprocal(sum);
        float dot = 0;

#pragma unroll
        for (int i = 0; i < N; i++) {
            dot += d[line * line_stride + i * stride] * m[line * line_stride + i * stride];
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            int at = line * line_stride + i * stride;

            d[at] = (d[at] - dot) * inverse;
            m[at] *= sum;
        }
    }
}

/* d: from the gradient of the mixing matrix m to that of its logits. m ends as the softmax. */
template <int N>
__device__ __forceinline__ void sinkhorn_gradient(float (&m)[N * N], float (&d)[N * N], int iterations, float epsilon,
                                                  const float *history)
{
    for (int step = 2 * iterations - 2; step > 0; step -= 2) {
        undivide<N, true>(history + step * N * WARP, m, d);
        undivide<N, false>(history + (step - 1) * N * WARP, m, d);
    }
    undivide<N, true>(history, m, d);
#pragma unroll
    for (int j = 0; j < N; j++) {
        float dot = 0;

#pragma unroll
        for (int k = 0; k < N; k++) {
            m[j * N + k] -= epsilon;
            dot += d[j * N + k] * m[j * N + k];
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            d[j * N + k] = m[j * N + k] * (d[j * N + k] - dot);
        }
    }
}

__device__ __forceinline__ float tf32(float x)
{
    uint32_t result;

    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
    return __uint_as_float(result);
}

/* d [16,8] += a [16,16] b [16,8] of bf16. */
__device__ __forceinline__ void multiply_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                              uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* d [16,8] += a [16,8] b [8,8] of tf32. */
__device__ __forceinline__ void multiply_tf32(float (&d)[4], const float (&a)[4], float b0, float b1)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
                   "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

/* Two values as a pair of bf16 and what that leaves of them, as another. */
__device__ __forceinline__ void split_pair(float low, float high, uint32_t *upper, uint32_t *rest)
{
    uint32_t pair = pack_pair(low, high);

    *upper = pair;
    *rest = pack_pair(low - __uint_as_float(pair << 16), high - __uint_as_float(pair & 0xffff0000u));
}

/* Host side. */

static inline int ceil_div(int a, int b)
{
    return a / b + (a % b != 0);
}

static inline int min_of(int a, int b)
{
    return a < b ? a : b;
}

static inline int max_of(int a, int b)
{
    return a > b ? a : b;
}

/* Threads that share a row of `hidden` elements, V at once, about `wanted` chunks each (1 or 2): the number of warps that leaves fewest
 * idle. */
static inline int row_threads(int hidden, int width, int wanted)
{
    int chunks = hidden / width;
    int best = WARP;
    int best_cost = 1 << 30;

    for (int threads = WARP; threads <= ROW_THREADS_MAX; threads += WARP) {
        int rounds = ceil_div(chunks, threads);
        int cost = rounds * threads - chunks + (rounds == wanted ? 0 : rounds <= 2 ? chunks / 8 : chunks * (rounds - 2) / 2);

        if (cost < best_cost) {
            best_cost = cost;
            best = threads;
        }
    }
    return best;
}

/* Tokens of a block so that all blocks run at once and have equally much to do, if a warp's lanes are enough for them; `bytes` of
 * shared memory a block. */
template <typename K> static int block_tokens(K kernel, int tokens, int threads, size_t bytes)
{
    int blocks = 1;

    (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, bytes);
    return max_of(1, min_of(WARP, ceil_div(tokens, mhp_cuda_processors() * max_of(1, blocks))));
}

/* Launches a kernel that calls await_previous; mhp_cuda_launched tells how that went. */
template <typename... P, typename... A>
static void launch_behind(void (*kernel)(P...), dim3 grid, int threads, size_t bytes, cudaStream_t stream, const A &...arguments)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute early = {};

    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = mhp_cuda_has_90((const void *)kernel) ? 1 : 0;
    (void)cudaLaunchKernelEx(&config, kernel, arguments...);
}

/* Calls `call` with the constant n in scope as N. */
#define MHP_CUDA_BY_STREAMS(streams, call)                   \
    switch (streams) {                                       \
    case 1: { constexpr int N = 1; call; } break;            \
    case 2: { constexpr int N = 2; call; } break;            \
    case 3: { constexpr int N = 3; call; } break;            \
    case 4: { constexpr int N = 4; call; } break;            \
    case 5: { constexpr int N = 5; call; } break;            \
    case 6: { constexpr int N = 6; call; } break;            \
    case 7: { constexpr int N = 7; call; } break;            \
    case 8: { constexpr int N = 8; call; } break;            \
    default: break;                                          \
    }

#endif
