/* Cross-entropy and the gain of composed connections. */
#include "model/cuda/vector.cuh"

using namespace mhp;

namespace {

/* ---- Cross-entropy ---- */

constexpr int LOSS_THREADS = 512;

/* The largest value so far and the sum of exp(value - largest). */
struct softmax_part {
    float largest, sum;
};

__device__ __forceinline__ softmax_part join(softmax_part a, softmax_part b)
{
    float largest = fmaxf(a.largest, b.largest);

    if (largest == -INFINITY) {         /* nothing yet on either side */
        return a;
    }
    return softmax_part{largest, a.sum * __expf(a.largest - largest) + b.sum * __expf(b.largest - largest)};
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

template <int N> __device__ __forceinline__ softmax_part include(softmax_part part, const float (&value)[N])
{
    float largest = part.largest;
    float sum = 0;

#pragma unroll
    for (int k = 0; k < N; k++) {
        largest = fmaxf(largest, value[k]);
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
        sum += expf(value[k] - largest);
    }
    return softmax_part{largest, (part.sum > 0 ? part.sum * expf(part.largest - largest) : 0) + sum};
}

/* One block a row: one pass for the largest and the sum, one that writes the gradient; the second finds the row in the L2 cache.
 * losses [T]. `dlogits` may be `logits`. */
template <typename real, int N>
__global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_kernel(int tokens, int width, float scale, const int32_t *target, const real *logits, real *dlogits, double *losses,
                         double *loss_sum, unsigned *ticket)
{
    __shared__ softmax_part parts[LOSS_THREADS / WARP];
    __shared__ double shared[WARP];
    int64_t row = (int64_t)blockIdx.x * width;
    int at = target[blockIdx.x];
    softmax_part part = {-INFINITY, 0};

    if (at != -100) {
        float at_target = to_float(logits[row + at]);
        float factor;

#pragma unroll 4
        for (int c = (int)threadIdx.x * N; c < width; c += LOSS_THREADS * N) {
            float value[N];

            load<N>(value, logits + row + c);
            part = include<N>(part, value);
        }
        part = block_join(part, parts);         /* its barrier: at_target is read before anything is written */
        factor = scale / part.sum;
        for (int c = (int)threadIdx.x * N; dlogits && c < width; c += LOSS_THREADS * N) {
            float value[N];

            load<N>(value, logits + row + c);
#pragma unroll
            for (int k = 0; k < N; k++) {
                value[k] = expf(value[k] - part.largest) * factor - (c + k == at ? scale : 0.0f);
            }
            store<N>(dlogits + row + c, value);
        }
        if (threadIdx.x == 0) {
            losses[blockIdx.x] = (double)(part.largest - at_target) + log((double)part.sum);
        }
    } else {
        for (int c = (int)threadIdx.x * N; dlogits && c < width; c += LOSS_THREADS * N) {
            float zero[N] = {};

            store<N>(dlogits + row + c, zero);
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

template <typename real, int N>
void cross_entropy_launch(cudaStream_t stream, const mhp_cross_entropy_args &args, const mhp_cuda_scratch &scratch)
{
    cross_entropy_kernel<real, N><<<args.tokens, LOSS_THREADS, 0, stream>>>(
        args.tokens, args.vocabulary, (float)args.scale, args.target, static_cast<const real *>(args.logits),
        static_cast<real *>(args.dlogits), static_cast<double *>(scratch.memory), args.loss_sum, scratch.ticket);
}

template <typename real> mhp_status cross_entropy(cudaStream_t stream, const mhp_cross_entropy_args &args)
{
    mhp_cuda_scratch scratch;

    MHP_RETURN_IF_ERROR(mhp_cuda_scratch_get(stream, &scratch));
    if (vectorizable<real>(args.vocabulary, args.logits, args.dlogits)) {
        cross_entropy_launch<real, LANES<real>>(stream, args, scratch);
    } else {
        cross_entropy_launch<real, 1>(stream, args, scratch);
    }
    return mhp_cuda_launched("cross_entropy");
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
