/* Cross-entropy and the gain of composed connections. */
#include "model/cuda/vector.cuh"

using namespace mhp;

namespace {

/* ---- Cross-entropy ---- */

constexpr int LOSS_THREADS = 512;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr double LN_2 = 0.693147180559945309417;

/* The largest value so far and the sum of exp(value - largest), values in units of log 2. */
struct softmax_part {
    float largest, sum;
};

__device__ __forceinline__ softmax_part join(softmax_part a, softmax_part b)
{
    float largest = fmaxf(a.largest, b.largest);

    if (largest == -INFINITY) {         /* nothing yet on either side */
        return a;
    }
    return softmax_part{largest, a.sum * exp2f(a.largest - largest) + b.sum * exp2f(b.largest - largest)};
}

__device__ softmax_part block_join(softmax_part part, softmax_part *shared)
{
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        part = join(part, softmax_part{__shfl_xor_sync(0xffffffffu, part.largest, step),
                                       __shfl_xor_sync(0xffffffffu, part.sum, step)});
    }
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = part;
    }
    __syncthreads();
    part = shared[0];
    for (int w = 1; w < LOSS_THREADS / WARP; w++) {
        part = join(part, shared[w]);
    }
    return part;
}

/* x LOG2_E rounds once, in the fused difference from `largest`; that one rounding of the largest itself is common to the row. */
template <int N> __device__ __forceinline__ softmax_part include(softmax_part part, const float (&value)[N])
{
    float largest = value[0];
    float sum = 0;

#pragma unroll
    for (int k = 1; k < N; k++) {
        largest = fmaxf(largest, value[k]);
    }
    largest = fmaxf(part.largest, largest * LOG2_E);
#pragma unroll
    for (int k = 0; k < N; k++) {
        sum += exp2f(fmaf(value[k], LOG2_E, -largest));
    }
    return softmax_part{largest, part.sum * exp2f(part.largest - largest) + sum};
}

template <int N>
__device__ __forceinline__ void softmax_gradient(float (&value)[N], softmax_part part, float factor, float scale, int target)
{
#pragma unroll
    for (int k = 0; k < N; k++) {
        value[k] = exp2f(fmaf(value[k], LOG2_E, -part.largest)) * factor;
    }
    if ((unsigned)target < (unsigned)N) {
#pragma unroll
        for (int k = 0; k < N; k++) {
            value[k] -= k == target ? scale : 0.0f;
        }
    }
}

/* A row in three parts: up to `lead` and from `tail` on single elements, between them vectors of N at 16-byte boundaries, so that
 * rows of any width move fast. */
struct row_parts {
    int lead, tail;
};

template <int N, typename real> __device__ row_parts parts_of(const real *row, int width)
{
    int lead = min(width, (int)(-reinterpret_cast<uintptr_t>(row) / sizeof(real) % N));

    return row_parts{lead, lead + (width - lead) / N * N};
}

/* function(c) for the single elements of this thread: fewer than 2N. */
template <typename function> __device__ __forceinline__ void each_single(row_parts parts, int width, function &&apply)
{
    int c = (int)threadIdx.x;

    if (c < parts.lead) {
        apply(c);
    }
    if (parts.tail + c < width) {
        apply(parts.tail + c);
    }
}

/* One block a row: a pass for the largest and the sum, which keeps the row in shared memory if it fits (`kept`), and one that writes
 * the gradient. losses [T]. dlogits may be logits; if not NULL it is aligned like them. */
template <typename real, int N>
__global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_kernel(int tokens, int width, bool kept, float scale, const int32_t *target, const real *logits, real *dlogits,
                         double *losses, double *loss_sum, unsigned *ticket)
{
    extern __shared__ uint4 memory[];
    __shared__ softmax_part joined[LOSS_THREADS / WARP];
    __shared__ double shared[WARP];
    real *copy = reinterpret_cast<real *>(memory);
    const real *row = logits + (int64_t)blockIdx.x * width;
    real *drow = dlogits ? dlogits + (int64_t)blockIdx.x * width : nullptr;
    row_parts parts = parts_of<N>(row, width);
    int at = target[blockIdx.x];

    if (at != -100) {
        float at_target = to_float(row[at]);
        softmax_part part = {-INFINITY, 0};
        float factor;

#pragma unroll 8
        for (int c = parts.lead + (int)threadIdx.x * N; c < parts.tail; c += LOSS_THREADS * N) {
            packed<real, N> raw = load_packed<N>(row + c);
            float value[N];

            if (kept) {
                store_packed<N>(copy + (c - parts.lead), raw);
            }
            unpack(value, raw);
            part = include<N>(part, value);
        }
        each_single(parts, width, [&](int c) {
            float value[1] = {to_float(row[c])};

            part = include<1>(part, value);
        });
        part = block_join(part, joined);        /* its barrier: at_target is read before anything is written */
        factor = scale / part.sum;
        for (int c = parts.lead + (int)threadIdx.x * N; drow && c < parts.tail; c += LOSS_THREADS * N) {
            float value[N];

            load<N>(value, kept ? copy + (c - parts.lead) : row + c);
            softmax_gradient<N>(value, part, factor, scale, at - c);
            store<N>(drow + c, value);
        }
        if (drow) {
            each_single(parts, width, [&](int c) {
                float value[1] = {to_float(row[c])};

                softmax_gradient<1>(value, part, factor, scale, at - c);
                drow[c] = from_float<real>(value[0]);
            });
        }
        if (threadIdx.x == 0) {
            losses[blockIdx.x] = ((double)part.largest + log2((double)part.sum)) * LN_2 - (double)at_target;
        }
    } else {
        for (int c = (int)threadIdx.x; drow && c < width; c += LOSS_THREADS) {
            drow[c] = from_float<real>(0.0f);
        }
        if (threadIdx.x == 0) {
            losses[blockIdx.x] = 0;
        }
    }
    if (last_block(ticket)) {
        double sum = ordered_sum(losses, tokens, shared);

        if (threadIdx.x == 0) {
            loss_sum[0] = sum;
        }
    }
}

/* Rows are kept in shared memory while two blocks still fit a multiprocessor; wider ones are read again, from the L2 cache. */
constexpr size_t KEPT_BYTES_MAX = 104 << 10;
constexpr int LOSS_TOKENS_MAX = MHP_CUDA_SCRATCH_BYTES / sizeof(double);        /* their losses, until the last block sums them */

template <typename real, int N>
mhp_status cross_entropy_launch(cudaStream_t stream, const mhp_cross_entropy_args &args, const mhp_cuda_scratch &scratch)
{
    size_t bytes = (size_t)args.vocabulary * sizeof(real);
    bool kept = N > 1 && args.dlogits && bytes <= KEPT_BYTES_MAX &&
                cudaFuncSetAttribute(cross_entropy_kernel<real, N>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes) == cudaSuccess;

    if (args.tokens > LOSS_TOKENS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "cross_entropy of %d tokens: expected at most %d", args.tokens, LOSS_TOKENS_MAX);
    }

    cross_entropy_kernel<real, N><<<args.tokens, LOSS_THREADS, kept ? bytes : 0, stream>>>(
        args.tokens, args.vocabulary, kept, (float)args.scale, args.target, static_cast<const real *>(args.logits),
        static_cast<real *>(args.dlogits), static_cast<double *>(scratch.memory), args.loss_sum, scratch.ticket);
    return mhp_cuda_launched("cross_entropy");
}

template <typename real> mhp_status cross_entropy(cudaStream_t stream, const mhp_cross_entropy_args &args)
{
    uintptr_t apart = args.dlogits ? reinterpret_cast<uintptr_t>(args.dlogits) - reinterpret_cast<uintptr_t>(args.logits) : 0;
    mhp_cuda_scratch scratch;

    MHP_RETURN_IF_ERROR(mhp_cuda_scratch_get(stream, &scratch));
    return apart % 16 == 0 ? cross_entropy_launch<real, LANES<real>>(stream, args, scratch)
                           : cross_entropy_launch<real, 1>(stream, args, scratch);
}

/* ---- Gain ---- */

constexpr int GAIN_THREADS = 128;

/* Largest absolute row sum and column sum of a matrix. */
template <int N> __device__ void largest_sums(const float (&matrix)[N][N], double *row_out, double *column_out)
{
    double largest_row = 0, largest_column = 0;

#pragma unroll
    for (int i = 0; i < N; i++) {
        double row = 0, column = 0;

#pragma unroll
        for (int k = 0; k < N; k++) {
            row += fabs((double)matrix[i][k]);
            column += fabs((double)matrix[k][i]);
        }
        largest_row = fmax(largest_row, row);
        largest_column = fmax(largest_column, column);
    }
    *row_out = largest_row;
    *column_out = largest_column;
}

template <int N> __device__ void load_matrix(float (&matrix)[N][N], const float *from)
{
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        matrix[i / N][i % N] = from[i];
    }
}

/* out = comb^T in, or comb^T where in is NULL; out may be in. */
template <int N> __device__ void compose(const float (&comb)[N][N], const float *in, float *out)
{
#pragma unroll
    for (int i = 0; i < N; i++) {       /* column by column, each read before it is written */
        float column[N];

#pragma unroll
        for (int j = 0; j < N; j++) {
            column[j] = in ? in[j * N + i] : (float)(i == j);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            float sum = 0;

#pragma unroll
            for (int j = 0; j < N; j++) {
                sum += comb[j][k] * column[j];
            }
            out[k * N + i] = sum;
        }
    }
}

/* Sums over the grid's tokens of what each thread found: partial [2, grid], then worst or mean by the last block. */
__device__ void fold_gains(double first, double second, int tokens, bool keep_worst, double *partial, double *gain, unsigned *ticket)
{
    __shared__ double shared[WARP];
    int blocks = (int)gridDim.x;

    first = block_sum(first, shared);
    second = block_sum(second, shared);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = first;
        partial[blocks + blockIdx.x] = second;
    }
    if (last_block(ticket)) {
        first = ordered_sum(partial, blocks, shared) / tokens;
        second = ordered_sum(partial + blocks, blocks, shared) / tokens;
        if (threadIdx.x == 0) {
            gain[0] = keep_worst ? fmax(gain[0], first) : first;
            gain[1] = keep_worst ? fmax(gain[1], second) : second;
        }
    }
}

template <int N>
__global__ void gain_kernel(int tokens, const float *comb, const float *product_in, float *product_out, double *partial, double *worst,
                            unsigned *ticket)
{
    int64_t t = (int64_t)blockIdx.x * GAIN_THREADS + threadIdx.x;
    double row = 0, column = 0;

    if (t < tokens) {
        float matrix[N][N];

        load_matrix(matrix, comb + t * N * N);
        largest_sums(matrix, &column, &row);    /* rows of comb^T are columns of comb */
        compose(matrix, product_in ? product_in + t * N * N : nullptr, product_out + t * N * N);
    }
    fold_gains(row, column, tokens, true, partial, worst, ticket);
}

template <int N>
__global__ void gain_read_kernel(int tokens, const float *product, double *partial, double *gain, unsigned *ticket)
{
    int64_t t = (int64_t)blockIdx.x * GAIN_THREADS + threadIdx.x;
    double row = 0, column = 0;

    if (t < tokens) {
        float matrix[N][N];

        load_matrix(matrix, product + t * N * N);
        largest_sums(matrix, &row, &column);
    }
    fold_gains(row, column, tokens, false, partial, gain, ticket);
}

template <int N> void gain_launch(cudaStream_t stream, const mhp_gain_args &args, const mhp_cuda_scratch &scratch)
{
    gain_kernel<N><<<blocks_for(args.tokens, GAIN_THREADS), GAIN_THREADS, 0, stream>>>(
        args.tokens, static_cast<const float *>(args.comb), static_cast<const float *>(args.product_in),
        static_cast<float *>(args.product_out), static_cast<double *>(scratch.memory), args.worst, scratch.ticket);
}

template <int N> void gain_launch(cudaStream_t stream, const mhp_gain_read_args &args, const mhp_cuda_scratch &scratch)
{
    gain_read_kernel<N><<<blocks_for(args.tokens, GAIN_THREADS), GAIN_THREADS, 0, stream>>>(
        args.tokens, static_cast<const float *>(args.product), static_cast<double *>(scratch.memory), args.gain, scratch.ticket);
}

template <typename arguments> mhp_status gain_of_streams(cudaStream_t stream, const arguments &args, const char *name)
{
    mhp_cuda_scratch scratch;

    MHP_RETURN_IF_ERROR(mhp_cuda_scratch_get(stream, &scratch));
    switch (args.streams) {
#define STREAMS(n)                             \
    case n:                                    \
        gain_launch<n>(stream, args, scratch); \
        break;
        STREAMS(1) STREAMS(2) STREAMS(3) STREAMS(4) STREAMS(5) STREAMS(6) STREAMS(7) STREAMS(8)
#undef STREAMS
    default:
        return mhp_error_set(MHP_ERR_LIMIT, "%s: %d residual streams, of 1 to %d", name, args.streams, MHP_STREAMS_MAX);
    }
    return mhp_cuda_launched(name);
}

/* Coefficients and products are full, float in either table. */
template <typename real> mhp_status gain(cudaStream_t stream, const mhp_gain_args &args)
{
    return gain_of_streams(stream, args, "gain");
}

template <typename real> mhp_status gain_read(cudaStream_t stream, const mhp_gain_read_args &args)
{
    return gain_of_streams(stream, args, "gain_read");
}

} // namespace

MHP_CUDA_DEFINE(cross_entropy)
MHP_CUDA_DEFINE(gain)
MHP_CUDA_DEFINE(gain_read)
