/* RMSNorm and its gradient: a block holds a row in registers, so that every input is read once. */
#include "model/cuda/vector.cuh"

using namespace mhp;

namespace {

constexpr int THREADS_MAX = 512;

/* How a row of `width` elements lies over a block: thread i holds vectors i, i + threads, ... (at most VECTORS of N elements). */
struct row_shape {
    int vectors_per_thread;     /* 1, 2, 4 or 8 */
    int threads;
};

/* As few vectors per thread as keep a block within THREADS_MAX, so that several blocks share a multiprocessor. */
row_shape row_shape_of(int width, int lanes)
{
    int vectors = width / lanes;
    int each = 1;

    while (each < 8 && (vectors + each - 1) / each > THREADS_MAX) {
        each *= 2;
    }
    return row_shape{each, round_up((vectors + each - 1) / each, WARP)};
}

#define EACH_VECTOR(v, c)                                                                                    \
    _Pragma("unroll") for (int v = 0, c = (int)threadIdx.x * N; v < VECTORS; v++, c += (int)blockDim.x * N) \
        if (c < width)

template <typename real, int N, int VECTORS>
__global__ void __launch_bounds__(THREADS_MAX) rms_norm_kernel(int width, float epsilon, const real *x, const float *weight, real *y, float *rrms_out)
{
    __shared__ float shared[WARP];
    packed<float, N> w[VECTORS];
    float value[VECTORS][N];
    float sum = 0;
    float rrms;

    x += (int64_t)blockIdx.x * width;
    y += (int64_t)blockIdx.x * width;
    EACH_VECTOR(v, c) {
        load<N>(value[v], x + c);
        w[v] = load_packed<N>(weight + c);
#pragma unroll
        for (int k = 0; k < N; k++) {
            sum += value[v][k] * value[v][k];
        }
    }
    rrms = 1.0f / sqrtf(block_sum_fresh(sum, shared) / (float)width + epsilon);
    if (threadIdx.x == 0) {
        rrms_out[blockIdx.x] = rrms;
    }
    EACH_VECTOR(v, c) {
#pragma unroll
        for (int k = 0; k < N; k++) {
            value[v][k] = value[v][k] * rrms * w[v].at[k];
        }
        store<N>(y + c, value[v]);
    }
}

/* What a thread holds of one row. */
template <typename real, int N, int VECTORS> struct gradient_row {
    packed<real, N> x[VECTORS], dy[VECTORS], residual[VECTORS];
    float rrms;
};

template <typename real, int N, int VECTORS>
__device__ __forceinline__ void load_row(gradient_row<real, N, VECTORS> &row, int t, int width, const real *x, const real *dy,
                                         const real *residual, const float *rrms)
{
    int64_t at = (int64_t)t * width;

    row.rrms = rrms[t];
    EACH_VECTOR(v, c) {
        row.x[v] = load_packed<N>(x + at + c);
        row.dy[v] = load_packed<N>(dy + at + c);
        if (residual) {
            row.residual[v] = load_packed<N>(residual + at + c);
        }
    }
}

/* Block b takes rows b, b + grid, ..., each on its way while the one before is worked on, and keeps its part of dweight in registers
 * until the end; partial [grid, width]. dx may be dy or residual: a row is read whole before it is written. */
template <typename real, int N, int VECTORS>
__global__ void __launch_bounds__(THREADS_MAX)
    rms_norm_gradient_kernel(int tokens, int width, const real *x, const float *weight, const float *rrms, const real *dy,
                             const real *residual, real *dx, float *partial)
{
    __shared__ float shared[2][WARP];
    gradient_row<real, N, VECTORS> row, next;
    float dweight[VECTORS][N] = {};
    int turn = 0;

    load_row(next, (int)blockIdx.x, width, x, dy, residual, rrms);
    for (int t = (int)blockIdx.x; t < tokens; t += (int)gridDim.x, turn ^= 1) {
        float dot = 0;

        row = next;
        if (t + (int)gridDim.x < tokens) {
            load_row(next, t + (int)gridDim.x, width, x, dy, residual, rrms);
        }
        EACH_VECTOR(v, c) {
            float a[N], d[N], w[N];

            unpack(a, row.x[v]);
            unpack(d, row.dy[v]);
            load<N>(w, weight + c);
#pragma unroll
            for (int k = 0; k < N; k++) {
                dot += a[k] * d[k] * w[k];
                dweight[v][k] += d[k] * a[k] * row.rrms;
            }
        }
        dot = block_sum_fresh(dot, shared[turn]) * row.rrms * row.rrms * row.rrms / (float)width;
        EACH_VECTOR(v, c) {
            float a[N], d[N], w[N], out[N] = {};

            unpack(a, row.x[v]);
            unpack(d, row.dy[v]);
            load<N>(w, weight + c);
            if (residual) {
                unpack(out, row.residual[v]);
            }
#pragma unroll
            for (int k = 0; k < N; k++) {
                out[k] += d[k] * w[k] * row.rrms - a[k] * dot;
            }
            store<N>(dx + (int64_t)t * width + c, out);
        }
    }
    EACH_VECTOR(v, c) {
        store<N>(partial + (int64_t)blockIdx.x * width + c, dweight[v]);
    }
}

constexpr int FOLD_COLUMNS = 32, FOLD_ROWS = 16;

/* dweight += the sum of the blocks' parts, in an order that depends on their number alone. */
__global__ void fold_kernel(int parts, int width, const float *partial, float *dweight)
{
    __shared__ float sums[FOLD_ROWS][FOLD_COLUMNS + 1];
    int c = (int)blockIdx.x * FOLD_COLUMNS + (int)threadIdx.x;
    float sum = 0;

    for (int p = (int)threadIdx.y; p < parts && c < width; p += FOLD_ROWS) {
        sum += partial[(int64_t)p * width + c];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < width) {
        for (int r = 1; r < FOLD_ROWS; r++) {
            sum += sums[r][threadIdx.x];
        }
        dweight[c] += sum;
    }
}

mhp_status check_width(int width, int lanes, const char *kernel)
{
    int limit = 8 * lanes * THREADS_MAX;

    return width <= limit ? MHP_OK : mhp_error_set(MHP_ERR_LIMIT, "%s: width %d exceeds %d", kernel, width, limit);
}

template <typename real, int N, int VECTORS> void rms_norm_launch(cudaStream_t stream, const mhp_rms_norm_args &args, int threads)
{
    rms_norm_kernel<real, N, VECTORS><<<args.tokens, threads, 0, stream>>>(
        args.hidden, (float)args.epsilon, static_cast<const real *>(args.x), static_cast<const float *>(args.weight),
        static_cast<real *>(args.y), static_cast<float *>(args.rrms));
}

template <typename real, int N> mhp_status rms_norm_width(cudaStream_t stream, const mhp_rms_norm_args &args)
{
    row_shape shape = row_shape_of(args.hidden, N);

    MHP_RETURN_IF_ERROR(check_width(args.hidden, N, "rms_norm"));
    switch (shape.vectors_per_thread) {
    case 1:
        rms_norm_launch<real, N, 1>(stream, args, shape.threads);
        break;
    case 2:
        rms_norm_launch<real, N, 2>(stream, args, shape.threads);
        break;
    case 4:
        rms_norm_launch<real, N, 4>(stream, args, shape.threads);
        break;
    default:
        rms_norm_launch<real, N, 8>(stream, args, shape.threads);
    }
    return mhp_cuda_launched("rms_norm");
}

template <typename real> mhp_status rms_norm(cudaStream_t stream, const mhp_rms_norm_args &args)
{
    return vectorizable<real>(args.hidden, args.x, args.weight, args.y) ? rms_norm_width<real, LANES<real>>(stream, args)
                                                                        : rms_norm_width<real, 1>(stream, args);
}

/* As many blocks as run at once, and as many parts as the scratch holds. */
template <typename real, int N, int VECTORS>
mhp_status rms_norm_gradient_launch(cudaStream_t stream, const mhp_rms_norm_gradient_args &args, int threads)
{
    mhp_cuda_scratch scratch;
    int per_processor = 1;
    int parts;

    MHP_RETURN_IF_ERROR(mhp_cuda_scratch_get(stream, &scratch));
    (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, rms_norm_gradient_kernel<real, N, VECTORS>, threads, 0);
    parts = min(args.tokens, mhp_cuda_processors() * max(per_processor, 1));
    parts = min(parts, MHP_CUDA_SCRATCH_BYTES / (int)sizeof(float) / args.hidden);
    rms_norm_gradient_kernel<real, N, VECTORS><<<parts, threads, 0, stream>>>(
        args.tokens, args.hidden, static_cast<const real *>(args.x), static_cast<const float *>(args.weight),
        static_cast<const float *>(args.rrms), static_cast<const real *>(args.dy), static_cast<const real *>(args.residual),
        static_cast<real *>(args.dx), static_cast<float *>(scratch.memory));
    fold_kernel<<<blocks_for(args.hidden, FOLD_COLUMNS), dim3(FOLD_COLUMNS, FOLD_ROWS), 0, stream>>>(
        parts, args.hidden, static_cast<const float *>(scratch.memory), static_cast<float *>(args.dweight));
    return mhp_cuda_launched("rms_norm_gradient");
}

template <typename real, int N> mhp_status rms_norm_gradient_width(cudaStream_t stream, const mhp_rms_norm_gradient_args &args)
{
    row_shape shape = row_shape_of(args.hidden, N);

    MHP_RETURN_IF_ERROR(check_width(args.hidden, N, "rms_norm_gradient"));
    switch (shape.vectors_per_thread) {
    case 1:
        return rms_norm_gradient_launch<real, N, 1>(stream, args, shape.threads);
    case 2:
        return rms_norm_gradient_launch<real, N, 2>(stream, args, shape.threads);
    case 4:
        return rms_norm_gradient_launch<real, N, 4>(stream, args, shape.threads);
    default:
        return rms_norm_gradient_launch<real, N, 8>(stream, args, shape.threads);
    }
}

template <typename real> mhp_status rms_norm_gradient(cudaStream_t stream, const mhp_rms_norm_gradient_args &args)
{
    return vectorizable<real>(args.hidden, args.x, args.weight, args.dy, args.residual, args.dx)
               ? rms_norm_gradient_width<real, LANES<real>>(stream, args)
               : rms_norm_gradient_width<real, 1>(stream, args);
}

} // namespace

MHP_CUDA_DEFINE(rms_norm)
MHP_CUDA_DEFINE(rms_norm_gradient)
