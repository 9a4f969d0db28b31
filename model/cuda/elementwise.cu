/* The embedding, sums over residual streams, rotary positions, SwiGLU. All are bound by memory: a thread moves 16 bytes at a time. */
#include "model/cuda/vector.cuh"

using namespace mhp;

namespace {

constexpr int THREADS = 256;

/* ---- Embedding ---- */

template <typename real, int N>
__global__ void embedding_kernel(int64_t items, int vectors, int streams, const int32_t *token, const real *table, real *state)
{
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t t = item / vectors;
    int64_t c = item % vectors * N;
    int64_t width = (int64_t)vectors * N;

    if (item < items) {
        packed<real, N> row = load_packed<N>(table + token[t] * width + c);

        for (int j = 0; j < streams; j++) {
            store_packed<N>(state + (t * streams + j) * width + c, row);
        }
    }
}

template <typename real, int N> void embedding_launch(cudaStream_t stream, const mhp_embedding_args &args)
{
    int vectors = args.hidden / N;
    int64_t items = (int64_t)args.tokens * vectors;

    embedding_kernel<real, N><<<blocks_for(items, THREADS), THREADS, 0, stream>>>(
        items, vectors, args.streams, args.token, static_cast<const real *>(args.table), static_cast<real *>(args.state));
}

template <typename real> mhp_status embedding(cudaStream_t stream, const mhp_embedding_args &args)
{
    if (vectorizable<real>(args.hidden, args.table, args.state)) {
        embedding_launch<real, LANES<real>>(stream, args);
    } else {
        embedding_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("embedding");
}

/* A block serves one token's row if no earlier token is the same; it then adds the gradients of all equal tokens in order, a window
 * of tokens at a time, to COLUMN_THREADS vectors of columns. Reading all tokens in every block costs T^2 comparisons and no memory
 * traffic to speak of. */
constexpr int COLUMN_THREADS = 128, WINDOW = 8 * COLUMN_THREADS;

__device__ bool seen_before(const int32_t *token, int t)
{
    int32_t own = token[t];

    for (int end = t; end > 0; end -= WINDOW) {
        bool seen = false;

        for (int i = end - 1 - (int)threadIdx.x; i >= 0 && i >= end - WINDOW; i -= COLUMN_THREADS) {
            seen |= token[i] == own;
        }
        if (__syncthreads_or(seen)) {
            return true;
        }
    }
    return false;
}

/* Lists in order the tokens of [begin, begin + WINDOW) that equal `own`. Returns how many. */
__device__ int list_equal(const int32_t *token, int32_t own, int begin, int tokens, int *list)
{
    constexpr int ROUNDS = WINDOW / COLUMN_THREADS, WARPS = COLUMN_THREADS / WARP;
    static_assert(ROUNDS * WARPS == WARP, "one warp sums the counts of all");
    __shared__ int counts[WARP];
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    unsigned ballot[ROUNDS];
    int before;                 /* equal tokens up to and including group `lane` of WARP */

#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        int i = begin + r * COLUMN_THREADS + (int)threadIdx.x;

        ballot[r] = __ballot_sync(0xffffffffu, i < tokens && token[i] == own);
        if (lane == 0) {
            counts[r * WARPS + warp] = __popc(ballot[r]);
        }
    }
    __syncthreads();
    before = counts[lane];
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, before, step);

        before += lane >= step ? other : 0;
    }
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        int place = __shfl_sync(0xffffffffu, before, r * WARPS + warp) - __popc(ballot[r]);

        if (ballot[r] >> lane & 1) {
            list[place + __popc(ballot[r] & ((1u << lane) - 1))] = begin + r * COLUMN_THREADS + (int)threadIdx.x;
        }
    }
    __syncthreads();
    return __shfl_sync(0xffffffffu, before, WARP - 1);
}

template <typename real, int N>
__global__ void embedding_gradient_kernel(int tokens, int width, const int32_t *token, const real *grad, float *dtable)
{
    __shared__ int list[WINDOW];
    int t = (int)blockIdx.x;
    int c = ((int)blockIdx.y * COLUMN_THREADS + (int)threadIdx.x) * N;
    float *row = dtable + (int64_t)token[t] * width;

    if (seen_before(token, t)) {
        return;
    }
    for (int begin = t; begin < tokens; begin += WINDOW) {
        int count = list_equal(token, token[t], begin, tokens, list);

        if (c < width && count > 0) {
            float sum[N];

            load<N>(sum, row + c);
#pragma unroll 8
            for (int i = 0; i < count; i++) {
                float value[N];

                load<N>(value, grad + (int64_t)list[i] * width + c);
#pragma unroll
                for (int k = 0; k < N; k++) {
                    sum[k] += value[k];
                }
            }
            store<N>(row + c, sum);
        }
        __syncthreads();
    }
}

template <typename real, int N> void embedding_gradient_launch(cudaStream_t stream, const mhp_embedding_gradient_args &args)
{
    dim3 grid((unsigned)args.tokens, blocks_for(args.hidden, COLUMN_THREADS * N));

    embedding_gradient_kernel<real, N><<<grid, COLUMN_THREADS, 0, stream>>>(
        args.tokens, args.hidden, args.token, static_cast<const real *>(args.grad), static_cast<float *>(args.dtable));
}

template <typename real> mhp_status embedding_gradient(cudaStream_t stream, const mhp_embedding_gradient_args &args)
{
    if (vectorizable<real>(args.hidden, args.grad, args.dtable)) {
        embedding_gradient_launch<real, LANES<real>>(stream, args);
    } else {
        embedding_gradient_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("embedding_gradient");
}

/* ---- Residual streams ---- */

template <typename real, int N>
__global__ void stream_sum_kernel(int64_t items, int vectors, int streams, const real *state, real *sum)
{
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t width = (int64_t)vectors * N;
    int64_t t = item / vectors;
    int64_t c = item % vectors * N;

    if (item < items) {
        float total[N] = {};

        for (int j = 0; j < streams; j++) {
            float value[N];

            load<N>(value, state + (t * streams + j) * width + c);
#pragma unroll
            for (int k = 0; k < N; k++) {
                total[k] += value[k];
            }
        }
        store<N>(sum + t * width + c, total);
    }
}

template <typename real, int N> void stream_sum_launch(cudaStream_t stream, const mhp_stream_sum_args &args)
{
    int vectors = args.hidden / N;
    int64_t items = (int64_t)args.tokens * vectors;

    stream_sum_kernel<real, N><<<blocks_for(items, THREADS), THREADS, 0, stream>>>(
        items, vectors, args.streams, static_cast<const real *>(args.state), static_cast<real *>(args.sum));
}

template <typename real> mhp_status stream_sum(cudaStream_t stream, const mhp_stream_sum_args &args)
{
    if (vectorizable<real>(args.hidden, args.state, args.sum)) {
        stream_sum_launch<real, LANES<real>>(stream, args);
    } else {
        stream_sum_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("stream_sum");
}

template <typename real, int N>
__global__ void stream_repeat_kernel(int64_t items, int vectors, int streams, const real *grad, real *state)
{
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t width = (int64_t)vectors * N;
    int64_t t = item / vectors;
    int64_t c = item % vectors * N;

    if (item < items) {
        packed<real, N> value = load_packed<N>(grad + t * width + c);

        for (int j = 0; j < streams; j++) {
            store_packed<N>(state + (t * streams + j) * width + c, value);
        }
    }
}

template <typename real, int N> void stream_repeat_launch(cudaStream_t stream, const mhp_stream_repeat_args &args)
{
    int vectors = args.hidden / N;
    int64_t items = (int64_t)args.tokens * vectors;

    stream_repeat_kernel<real, N><<<blocks_for(items, THREADS), THREADS, 0, stream>>>(
        items, vectors, args.streams, static_cast<const real *>(args.grad), static_cast<real *>(args.state));
}

template <typename real> mhp_status stream_repeat(cudaStream_t stream, const mhp_stream_repeat_args &args)
{
    if (vectorizable<real>(args.hidden, args.grad, args.state)) {
        stream_repeat_launch<real, LANES<real>>(stream, args);
    } else {
        stream_repeat_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("stream_repeat");
}

/* ---- Rotary positions ---- */

/* The angle is made and reduced to half a turn in double, so that it is good to float's last digit at any position; sine and cosine
 * of the small angle are float's. */
__device__ void turn_of(int position, int i, double log2_theta, int size, float sign, float *cosine, float *sine)
{
    constexpr double TURN = 6.283185307179586476925;
    double angle = position * exp2(-2.0 * i / size * log2_theta);
    float rest = (float)(angle - rint(angle / TURN) * TURN);

    sincosf(rest, sine, cosine);
    *sine *= sign;
}

/* One block a token: all its heads share the cosines and sines. */
template <typename real, int N>
__global__ void rotary_kernel(int heads, int row, int size, double log2_theta, float sign, const int32_t *position, real *qkv)
{
    extern __shared__ float turn[];     /* cosines, then sines */
    int pairs = size / 2;
    real *token = qkv + (int64_t)blockIdx.x * row;

    for (int i = (int)threadIdx.x; i < pairs; i += (int)blockDim.x) {
        turn_of(position[blockIdx.x], i, log2_theta, size, sign, &turn[i], &turn[pairs + i]);
    }
    __syncthreads();
    for (int item = (int)threadIdx.x; item < heads * (pairs / N); item += (int)blockDim.x) {
        int i = item % (pairs / N) * N;
        real *low = token + item / (pairs / N) * size + i;
        float a[N], b[N], turned_a[N], turned_b[N];

        load<N>(a, low);
        load<N>(b, low + pairs);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float c = turn[i + k];
            float s = turn[pairs + i + k];

            turned_a[k] = a[k] * c - b[k] * s;
            turned_b[k] = b[k] * c + a[k] * s;
        }
        store<N>(low, turned_a);
        store<N>(low + pairs, turned_b);
    }
}

template <typename real, int N> void rotary_launch(cudaStream_t stream, const mhp_rotary_args &args)
{
    int heads = args.heads + args.kv_heads;
    int size = args.head_size;
    int threads = min(512, round_up(heads * (size / 2 / N), WARP));

    rotary_kernel<real, N><<<args.tokens, threads, (size_t)size * sizeof(float), stream>>>(
        heads, (heads + args.kv_heads) * size, size, log2(args.theta), args.inverse ? -1.0f : 1.0f, args.position,
        static_cast<real *>(args.qkv));
}

constexpr int HEAD_SIZE_MAX = 1024;

template <typename real> mhp_status rotary(cudaStream_t stream, const mhp_rotary_args &args)
{
    if (args.head_size > HEAD_SIZE_MAX || args.head_size % 2 != 0) {
        return mhp_error_set(MHP_ERR_LIMIT, "rotary positions: head size %d is odd or exceeds %d", args.head_size, HEAD_SIZE_MAX);
    }
    if (vectorizable<real>(args.head_size / 2, args.qkv)) {
        rotary_launch<real, LANES<real>>(stream, args);
    } else {
        rotary_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("rotary");
}

/* ---- SwiGLU ---- */

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

template <typename real, int N> __global__ void swiglu_kernel(int64_t items, int vectors, const real *gate_up, real *act)
{
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t width = (int64_t)vectors * N;
    int64_t t = item / vectors;
    int64_t c = item % vectors * N;

    if (item < items) {
        float gate[N], up[N];

        load<N>(gate, gate_up + 2 * t * width + c);
        load<N>(up, gate_up + (2 * t + 1) * width + c);
#pragma unroll
        for (int k = 0; k < N; k++) {
            up[k] *= gate[k] * sigmoid(gate[k]);
        }
        store<N>(act + t * width + c, up);
    }
}

template <typename real, int N> void swiglu_launch(cudaStream_t stream, const mhp_swiglu_args &args)
{
    int vectors = args.intermediate / N;
    int64_t items = (int64_t)args.tokens * vectors;

    swiglu_kernel<real, N><<<blocks_for(items, THREADS), THREADS, 0, stream>>>(
        items, vectors, static_cast<const real *>(args.gate_up), static_cast<real *>(args.act));
}

template <typename real> mhp_status swiglu(cudaStream_t stream, const mhp_swiglu_args &args)
{
    if (vectorizable<real>(args.intermediate, args.gate_up, args.act)) {
        swiglu_launch<real, LANES<real>>(stream, args);
    } else {
        swiglu_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("swiglu");
}

template <typename real, int N>
__global__ void swiglu_gradient_kernel(int64_t items, int vectors, const real *gate_up, const real *dact, real *dgate_up)
{
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t width = (int64_t)vectors * N;
    int64_t t = item / vectors;
    int64_t c = item % vectors * N;

    if (item < items) {
        float gate[N], up[N], d[N];

        load<N>(gate, gate_up + 2 * t * width + c);
        load<N>(up, gate_up + (2 * t + 1) * width + c);
        load<N>(d, dact + t * width + c);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float g = gate[k];
            float s = sigmoid(g);

            gate[k] = d[k] * up[k] * s * (1.0f + g * (1.0f - s));
            up[k] = d[k] * g * s;
        }
        store<N>(dgate_up + 2 * t * width + c, gate);
        store<N>(dgate_up + (2 * t + 1) * width + c, up);
    }
}

template <typename real, int N> void swiglu_gradient_launch(cudaStream_t stream, const mhp_swiglu_gradient_args &args)
{
    int vectors = args.intermediate / N;
    int64_t items = (int64_t)args.tokens * vectors;

    swiglu_gradient_kernel<real, N><<<blocks_for(items, THREADS), THREADS, 0, stream>>>(
        items, vectors, static_cast<const real *>(args.gate_up), static_cast<const real *>(args.dact),
        static_cast<real *>(args.dgate_up));
}

template <typename real> mhp_status swiglu_gradient(cudaStream_t stream, const mhp_swiglu_gradient_args &args)
{
    if (vectorizable<real>(args.intermediate, args.gate_up, args.dact, args.dgate_up)) {
        swiglu_gradient_launch<real, LANES<real>>(stream, args);
    } else {
        swiglu_gradient_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("swiglu_gradient");
}

} // namespace

MHP_CUDA_DEFINE(embedding)
MHP_CUDA_DEFINE(embedding_gradient)
MHP_CUDA_DEFINE(stream_sum)
MHP_CUDA_DEFINE(stream_repeat)
MHP_CUDA_DEFINE(rotary)
MHP_CUDA_DEFINE(swiglu)
MHP_CUDA_DEFINE(swiglu_gradient)
