/* AdamW, the square sum of gradients, the factor that clips them, and the cast of weights. No result goes through the host. */
#include "model/cuda/vector.cuh"

using namespace mhp;

namespace {

constexpr int THREADS = 256;

/* ---- AdamW ---- */

struct adamw_factors {
    float beta1, beta2, fresh1, fresh2, correction1, correction2, keep, rate, epsilon;
};

adamw_factors adamw_factors_of(const mhp_adamw_args &args)
{
    return adamw_factors{
        .beta1 = (float)args.beta1,
        .beta2 = (float)args.beta2,
        .fresh1 = (float)(1 - args.beta1),
        .fresh2 = (float)(1 - args.beta2),
        .correction1 = (float)(1 / (1 - pow(args.beta1, (double)args.step))),
        .correction2 = (float)(1 / (1 - pow(args.beta2, (double)args.step))),
        .keep = (float)(1 - args.rate * args.decay),
        .rate = (float)args.rate,
        .epsilon = (float)args.epsilon,
    };
}

template <typename real, int N>
__device__ __forceinline__ void adamw_step(const adamw_factors &f, float scale, const float *grad, float *parameter, float *moment1,
                                           float *moment2, real *weight, int64_t i)
{
    float g[N], p[N], m[N], v[N];

    load<N>(g, grad + i);
    load<N>(p, parameter + i);
    load<N>(m, moment1 + i);
    load<N>(v, moment2 + i);
#pragma unroll
    for (int k = 0; k < N; k++) {
        float scaled = g[k] * scale;

        m[k] = f.beta1 * m[k] + f.fresh1 * scaled;
        v[k] = f.beta2 * v[k] + f.fresh2 * scaled * scaled;
        p[k] = p[k] * f.keep - f.rate * (m[k] * f.correction1) / (sqrtf(v[k] * f.correction2) + f.epsilon);
    }
    store<N>(moment1 + i, m);
    store<N>(moment2 + i, v);
    store<N>(parameter + i, p);
    if (weight) {
        store<N>(weight + i, p);
    }
}

template <typename real, int N>
__global__ void adamw_kernel(int64_t count, adamw_factors factors, const double *gradient_scale, const float *grad, float *parameter,
                             float *moment1, float *moment2, real *weight)
{
    float scale = (float)*gradient_scale;
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;

    if (scale < 0) {
        return;
    }
    if (i + N <= count) {
        adamw_step<real, N>(factors, scale, grad, parameter, moment1, moment2, weight, i);
    } else {
        for (; i < count; i++) {
            adamw_step<real, 1>(factors, scale, grad, parameter, moment1, moment2, weight, i);
        }
    }
}

template <typename real, int N> void adamw_launch(cudaStream_t stream, const mhp_adamw_args &args)
{
    adamw_kernel<real, N><<<blocks_for(args.count, THREADS * N), THREADS, 0, stream>>>(
        args.count, adamw_factors_of(args), args.gradient_scale, static_cast<const float *>(args.grad),
        static_cast<float *>(args.parameter), static_cast<float *>(args.moment1), static_cast<float *>(args.moment2),
        static_cast<real *>(args.weight));
}

template <typename real> mhp_status adamw(cudaStream_t stream, const mhp_adamw_args &args)
{
    if (args.count == 0) {
        return MHP_OK;
    }
    if (vectorizable<float>(0, args.grad, args.parameter, args.moment1, args.moment2, args.weight)) {
        adamw_launch<real, LANES<float>>(stream, args);
    } else {
        adamw_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("adamw");
}

/* ---- Square sum ---- */

constexpr int SQUARE_BLOCKS = 1024;

/* Which elements a thread takes depends on `count` alone: the same sum on every device. partial [grid]. */
template <int N> __global__ void square_sum_kernel(int64_t count, const float *x, double *partial, double *sum, unsigned *ticket)
{
    __shared__ double shared[WARP];
    int64_t step = (int64_t)gridDim.x * THREADS * N;
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    double total = 0;

#pragma unroll 4
    for (; i + N <= count; i += step) {
        float value[N];

        load<N>(value, x + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            total += (double)value[k] * value[k];
        }
    }
    for (; i < count; i++) {
        total += (double)x[i] * x[i];
    }
    total = block_sum(total, shared);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = total;
    }
    if (last_block(ticket)) {
        total = ordered_sum(partial, (int)gridDim.x, shared);
        if (threadIdx.x == 0) {
            sum[0] += total;
        }
    }
}

template <typename real> mhp_status square_sum(cudaStream_t stream, const mhp_square_sum_args &args)
{
    const float *x = static_cast<const float *>(args.x);
    mhp_cuda_scratch scratch;
    unsigned blocks = min(blocks_for(args.count, THREADS * LANES<float>), (unsigned)SQUARE_BLOCKS);

    if (args.count == 0) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_scratch_get(stream, &scratch));
    if (vectorizable<float>(0, x)) {
        square_sum_kernel<LANES<float>>
            <<<blocks, THREADS, 0, stream>>>(args.count, x, static_cast<double *>(scratch.memory), args.sum, scratch.ticket);
    } else {
        square_sum_kernel<1><<<blocks, THREADS, 0, stream>>>(args.count, x, static_cast<double *>(scratch.memory), args.sum, scratch.ticket);
    }
    return mhp_cuda_launched("square_sum");
}

/* ---- Clip ---- */

__device__ bool is_within(const mhp_sum_limit &watch)
{
    double sum = 0;

    for (int64_t i = 0; i < watch.count; i++) {
        sum += watch.x[i * watch.stride];
    }
    return sum <= watch.limit;
}

__global__ void clip_kernel(mhp_clip_args args)
{
    double length = sqrt(*args.square_sum);
    double factor = args.clip / (length + 1e-6);
    double scale = args.clip == 0 || factor >= 1 ? 1 : factor;

    *args.norm = length;
    for (int w = args.watch_count - 1; w >= 0; w--) {
        scale = is_within(args.watches[w]) ? scale : -1 - w;
    }
    *args.scale = scale;
}

template <typename real> mhp_status clip(cudaStream_t stream, const mhp_clip_args &args)
{
    clip_kernel<<<1, 1, 0, stream>>>(args);
    return mhp_cuda_launched("clip");
}

/* ---- Cast ---- */

template <typename real, int N> __global__ void cast_kernel(int64_t count, const float *source, real *target)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;

    if (i + N <= count) {
        float value[N];

        load<N>(value, source + i);
        store<N>(target + i, value);
    } else {
        for (; i < count; i++) {
            target[i] = from_float<real>(source[i]);
        }
    }
}

template <typename real, int N> void cast_launch(cudaStream_t stream, const mhp_cast_args &args)
{
    cast_kernel<real, N><<<blocks_for(args.count, THREADS * N), THREADS, 0, stream>>>(
        args.count, static_cast<const float *>(args.source), static_cast<real *>(args.target));
}

template <typename real> mhp_status cast(cudaStream_t stream, const mhp_cast_args &args)
{
    if (args.count == 0) {
        return MHP_OK;
    }
    if (vectorizable<real>(0, args.source, args.target)) {
        cast_launch<real, LANES<real>>(stream, args);
    } else {
        cast_launch<real, 1>(stream, args);
    }
    return mhp_cuda_launched("cast");
}

} // namespace

MHP_CUDA_DEFINE(adamw)
MHP_CUDA_DEFINE(square_sum)
MHP_CUDA_DEFINE(clip)
MHP_CUDA_DEFINE(cast)
