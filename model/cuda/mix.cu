/* From projections to what F reads: coefficients, pre mix and norm, a block for a few tokens.
 *
 * All warps but the last go through the tokens together; they need no more than the pre coefficients. Meanwhile the last warp, a token
 * in every lane, runs Sinkhorn, whose 2 * iterations dependent steps nobody waits for. */
#include "model/cuda/connection.cuh"

namespace {

enum { MHC, HC, HEAD };         /* whose coefficients */
enum { HELD = 2 };              /* chunks of a row in a thread's registers */

struct mix_args {
    projection p;
    int tokens, hidden, iterations, block_tokens;
    float norm_epsilon, hc_epsilon;
    const void *x;
    const float *base, *scale, *weight;
    float *pre, *post, *comb, *norm_rrms;
    void *z, *normed;
};

template <int N, int KIND> struct shape {
    static constexpr int rows = KIND == HC ? N : 1;                                     /* of a token */
    static constexpr int projections = KIND == MHC ? N * (N + 2) : KIND == HC ? N + 2 : N;    /* of a row */
    static constexpr int slot = (projections + 2) / 2 * 2;
};

/* All slices' partial sums of the block's tokens, in order: u [block_tokens, rows, slot], where 1/r stands behind the projections. */
template <int N, int KIND> __device__ __forceinline__ void gather_sums(const mix_args &a, int first, int count, int threads, float *u)
{
    typedef shape<N, KIND> S;

    for (int i = (int)threadIdx.x; i < count * S::rows * S::slot; i += threads) {
        int column = i % S::slot;
        int row = first * S::rows + i / S::slot;
        float sum = 0;

        if (column > S::projections) {
            continue;
        }
        for (int slice = 0; slice < a.p.slices; slice++) {
            sum += column == S::projections ? *partial_square(a.p, slice, row) : partial_sums(a.p, slice, row)[column];
        }
        u[i] = column == S::projections ? 1.0f / sqrtf(sum / (float)a.p.width + a.norm_epsilon) : sum;
    }
}

/* The kept projection `column` of a row whose sums are u: of hc, t = tanh(u / r). */
template <int N, int KIND> __device__ __forceinline__ float kept(const float *u, int column)
{
    return KIND == HC ? tanhf(u[column] * u[shape<N, KIND>::projections]) : u[column];
}

/* Writes what is kept for the gradient. */
template <int N, int KIND>
__device__ __forceinline__ void keep_sums(const mix_args &a, int first, int count, int threads, const float *u)
{
    typedef shape<N, KIND> S;

    for (int i = (int)threadIdx.x; i < count * S::rows * S::slot; i += threads) {
        int column = i % S::slot;
        size_t row = (size_t)(first * S::rows + i / S::slot);

        if (column < S::projections) {
            a.p.first[row * S::projections + (size_t)column] = kept<N, KIND>(u + i - column, column);
        } else if (column == S::projections) {
            a.p.first_square[row] = u[i];
        }
    }
}

/* Of token `t` of the block, whose sums are u. */
template <int N, int KIND> __device__ __forceinline__ float pre_of(const mix_args &a, const float *u, int j)
{
    typedef shape<N, KIND> S;

    if (KIND == HC) {
        return a.scale[0] * kept<N, HC>(u + j * S::slot, 0) + a.base[j];
    }
    return sigmoid(a.scale[0] * (u[j] * u[S::projections]) + a.base[j]) + a.hc_epsilon;
}

template <int N> __device__ __forceinline__ void mhc_mixing(const mix_args &a, const float *u, int token)
{
    float rrms = u[N * (N + 2)];
    float post[N], comb[N * N];

#pragma unroll
    for (int k = 0; k < N; k++) {
        post[k] = u[N + k];
    }
    make_post<N>(rrms, a.scale, a.base, post);
#pragma unroll
    for (int k = 0; k < N; k++) {
        a.post[token * N + k] = post[k];
    }
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        comb[i] = u[2 * N + i];
    }
    make_comb<N>(rrms, a.scale, a.base, a.iterations, a.hc_epsilon, comb);
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        a.comb[(size_t)token * (N * N) + i] = comb[i];
    }
}

template <int N> __device__ __forceinline__ void hc_mixing(const mix_args &a, const float *u, int token)
{
    constexpr int slot = shape<N, HC>::slot;

    for (int j = 0; j < N; j++) {
        const float *row = u + j * slot;

        a.post[token * N + j] = a.scale[1] * kept<N, HC>(row, 1) + a.base[N + j];
        for (int k = 0; k < N; k++) {
            a.comb[((size_t)token * N + j) * N + k] = a.scale[2] * kept<N, HC>(row, 2 + k) + a.base[2 * N + j * N + k];
        }
    }
}

template <typename T, int N, int V>
__device__ __forceinline__ void load_state(const mix_args &a, int token, int column, typename chunk<T, V>::type (&x)[N])
{
    const T *from = (const T *)a.x + (size_t)token * (size_t)(N * a.hidden) + column;

#pragma unroll
    for (int j = 0; j < N; j++) {
        x[j] = load_raw<T, V>(from + (size_t)j * (size_t)a.hidden);
    }
}

/* Sum over the first `threads` threads; `room` [2][WARP] alternates, so that one barrier a token suffices. */
__device__ __forceinline__ float row_sum(float value, int threads, float *room)
{
    float sum = 0;

    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) {
        room[threadIdx.x / WARP] = value;
    }
    barrier(1, threads);
    for (int i = 0; i < threads / WARP; i++) {
        sum += room[i];
    }
    return sum;
}

template <int V> __device__ __forceinline__ void hold(const float (&from)[V], float (&to)[V])
{
#pragma unroll
    for (int i = 0; i < V; i++) {
        to[i] = from[i];
    }
}

/* All tokens of the block, by its first `threads` threads. Chunks beyond HELD are read twice. */
template <typename T, int N, int KIND>
__device__ __forceinline__ void mix_tokens(const mix_args &a, int first, int count, int threads, const float *pre_of_tokens,
                                           typename chunk<T, width_of<T, N>::value>::type (&x)[HELD][N], float *room)
{
    constexpr int V = width_of<T, N>::value;
    typedef typename chunk<T, V>::type raw;
    int stride = threads * V;
    int begin = (int)threadIdx.x * V;

    for (int t = 0; t < count; t++) {
        size_t row = (size_t)(first + t) * (size_t)a.hidden;
        float pre[N], z[V], held[HELD][V];
        float square = 0;
        float rrms;

#pragma unroll
        for (int j = 0; j < N; j++) {
            pre[j] = pre_of_tokens[t * N + j];
        }
        for (int h = 0, column = begin; column < a.hidden; h++, column += stride) {
            if (h == 0) {
                mix_chunk<T, N, V>(x[0], pre, z);
            } else if (h == 1) {
                mix_chunk<T, N, V>(x[1], pre, z);
            } else {
                load_state<T, N, V>(a, first + t, column, x[0]);
                mix_chunk<T, N, V>(x[0], pre, z);
            }
#pragma unroll
            for (int i = 0; i < V; i++) {
                square = fmaf(z[i], z[i], square);
            }
            if (h == 0) {
                hold(z, held[0]);
            } else if (h == 1) {
                hold(z, held[1]);
            }
            if (KIND == HEAD) {
                store_chunk<T, V>((T *)a.z + row + column, z);
            }
        }
        if (t + 1 < count) {
#pragma unroll
            for (int h = 0; h < HELD; h++) {
                if (begin + h * stride < a.hidden) {
                    load_state<T, N, V>(a, first + t + 1, begin + h * stride, x[h]);
                }
            }
        }
        if (KIND == HEAD) {
            continue;
        }
        rrms = 1.0f / sqrtf(row_sum(square, threads, room + t % 2 * WARP) / (float)a.hidden + a.norm_epsilon);
        if (threadIdx.x == 0) {
            a.norm_rrms[first + t] = rrms;
        }
        for (int h = 0, column = begin; column < a.hidden; h++, column += stride) {
            if (h == 0) {
                hold(held[0], z);
            } else if (h == 1) {
                hold(held[1], z);
            } else {
                raw again[N];

                load_state<T, N, V>(a, first + t, column, again);
                mix_chunk<T, N, V>(again, pre, z);
            }
            norm_chunk<V>(rrms, a.weight + column, z);
            store_chunk<T, V>((T *)a.normed + row + column, z);
        }
    }
}

/* Blocks go backwards through the tokens: the last states that the projection touched are still in the L2 cache. */
template <typename T, int N, int KIND> __global__ void __launch_bounds__(544) mix_kernel(mix_args a)
{
    typedef shape<N, KIND> S;
    constexpr int V = width_of<T, N>::value;
    extern __shared__ float shared[];
    int threads = (int)blockDim.x - WARP;
    int first = (int)(gridDim.x - 1 - blockIdx.x) * a.block_tokens;
    int count = min(a.block_tokens, a.tokens - first);
    float *room = shared;
    float *pre = room + 2 * WARP;
    float *u = pre + a.block_tokens * N;
    typename chunk<T, V>::type x[HELD][N];
    int lane = (int)threadIdx.x - threads;

#pragma unroll
    for (int h = 0; h < HELD; h++) {
        int column = ((int)threadIdx.x + h * threads) * V;

        if (lane < 0 && column < a.hidden) {
            load_state<T, N, V>(a, first, column, x[h]);
        }
    }
    if (lane < 0) {
        gather_sums<N, KIND>(a, first, count, threads, u);
        barrier(1, threads);
        keep_sums<N, KIND>(a, first, count, threads, u);
    }
    __syncthreads();
    if (lane >= 0) {
        if (KIND == MHC && lane < count) {
            mhc_mixing<N>(a, u + lane * S::slot, first + lane);
        } else if (KIND == HC && lane < count) {
            hc_mixing<N>(a, u + lane * S::rows * S::slot, first + lane);
        }
        return;
    }
    for (int i = (int)threadIdx.x; i < count * N; i += threads) {
        pre[i] = pre_of<N, KIND>(a, u + i / N * S::rows * S::slot, i % N);
        a.pre[first * N + i] = pre[i];
    }
    barrier(1, threads);
    mix_tokens<T, N, KIND>(a, first, count, threads, pre, x, room);
}

template <typename T, int N, int KIND> mhp_status launch_mix(cudaStream_t stream, mix_args a)
{
    typedef shape<N, KIND> S;
    int threads = row_threads(a.hidden, width_of<T, N>::value, 2) + WARP;
    size_t bytes = 8 * 1024;

    a.block_tokens = block_tokens(mix_kernel<T, N, KIND>, a.tokens, threads, bytes);
    bytes = sizeof(float) * (size_t)(2 * WARP + a.block_tokens * (N + S::rows * S::slot));
    mix_kernel<T, N, KIND><<<(unsigned)ceil_div(a.tokens, a.block_tokens), (unsigned)threads, bytes, stream>>>(a);
    return mhp_cuda_launched("mix");
}

mix_args mix_args_of(const mhp_mix_args *args, const projection *p)
{
    const mhp_connection_args *c = &args->connection;
    mix_args a = {};

    a.p = *p;
    a.tokens = c->tokens;
    a.hidden = c->hidden;
    a.iterations = c->sinkhorn_iterations;
    a.norm_epsilon = (float)c->norm_epsilon;
    a.hc_epsilon = (float)c->hc_epsilon;
    a.x = c->x;
    a.base = (const float *)c->base;
    a.scale = (const float *)c->scale;
    a.weight = (const float *)args->weight;
    a.pre = (float *)c->pre;
    a.post = (float *)c->post;
    a.comb = (float *)c->comb;
    a.norm_rrms = (float *)args->norm_rrms;
    a.normed = args->normed;
    return a;
}

template <typename T> mhp_status finish_mix(cudaStream_t stream, const mhp_mix_args *args, const projection *p)
{
    mix_args a = mix_args_of(args, p);

    if (args->connection.kind == MHP_CONNECTION_MHC) {
        MHP_CUDA_BY_STREAMS(args->connection.streams, return (launch_mix<T, N, MHC>(stream, a)))
    } else {
        MHP_CUDA_BY_STREAMS(args->connection.streams, return (launch_mix<T, N, HC>(stream, a)))
    }
    return MHP_ERR_INTERNAL;
}

template <typename T> mhp_status mix_of(cudaStream_t stream, const mhp_mix_args *args)
{
    const mhp_connection_args *c = &args->connection;
    int projections = c->kind == MHP_CONNECTION_HC ? c->streams + 2 : c->streams * (c->streams + 2);
    projection p;

    if (c->kind == MHP_CONNECTION_RESIDUAL) {
        return residual_norm<T>(stream, c->tokens, c->hidden, c->norm_epsilon, c->x, NULL, NULL, args->weight, args->normed,
                                args->norm_rrms);
    }
    p = projection_of(c->kind, mhp_connection_whole(c), c->hidden, c->streams, projections, c->x, c->fn, c->projection, c->rrms,
                      args->normed, sizeof(T));
    p.rows = c->tokens * p.rows_of_token;
    MHP_RETURN_IF_ERROR(project<T>(stream, &p));
    return finish_mix<T>(stream, args, &p);
}

mhp_status check_mix(const char *kernel, const mhp_mix_args *args)
{
    const mhp_connection_args *c = &args->connection;
    bool residual = c->kind == MHP_CONNECTION_RESIDUAL;

    return mhp_cuda_connection_check(kernel, c->tokens, c->hidden, residual ? 1 : c->streams,
                                     c->kind == MHP_CONNECTION_MHC ? c->sinkhorn_iterations : 1);
}

template <typename T> bool is_four(const mhp_mix_args *)
{
    return false;
}

/* The case that has kernels of its own, on cards whose blocks may have the shared memory. */
template <> bool is_four<bf16>(const mhp_mix_args *args)
{
    return args->connection.kind == MHP_CONNECTION_MHC && args->connection.streams == 4 && mhp_cuda_serves_four();
}

template <typename T> mhp_status mix(void *native, const void *argument)
{
    const mhp_mix_args *args = (const mhp_mix_args *)argument;

    MHP_RETURN_IF_ERROR(check_mix("mix", args));
    if (args->connection.tokens == 0) {
        return MHP_OK;
    }
    return is_four<T>(args) ? mix_four((cudaStream_t)native, NULL, args) : mix_of<T>((cudaStream_t)native, args);
}

/* x_next, a block for a token, each thread one chunk of its row where the block is large enough. Loads are plain: with those that mark lines
 * as first to leave the L2 cache it takes 2 % longer. */
template <typename T, int N> __global__ void __launch_bounds__(512) merge_kernel(const __grid_constant__ mhp_merge_args a)
{
    constexpr int V = width_of<T, N>::value;
    typedef typename chunk<T, V>::type raw;
    size_t hidden = (size_t)a.hidden;
    size_t t = blockIdx.x;

    await_previous();
    for (int column = (int)threadIdx.x * V; column < a.hidden; column += (int)blockDim.x * V) {
        raw x[N], y;

#pragma unroll
        for (int j = 0; j < N; j++) {
            x[j] = load_raw<T, V>((const T *)a.x + (t * N + (size_t)j) * hidden + column);
        }
        y = load_raw<T, V>((const T *)a.y + t * hidden + column);
        merge_chunk<T, N, V>(x, y, (const float *)a.comb + t * (N * N), (const float *)a.post + t * N, x);
#pragma unroll
        for (int j = 0; j < N; j++) {
            *(raw *)((T *)a.x_next + (t * N + (size_t)j) * hidden + column) = x[j];
        }
    }
}

template <typename T, int N> mhp_status launch_merge(cudaStream_t stream, const mhp_merge_args *args)
{
    int threads = row_threads(args->hidden, width_of<T, N>::value, 1);

    launch_behind(merge_kernel<T, N>, dim3((unsigned)args->tokens), threads, 0, stream, *args);
    return mhp_cuda_launched("merge");
}

template <typename T> mhp_status merge_of(cudaStream_t stream, const mhp_merge_args *args)
{
    if (args->kind == MHP_CONNECTION_RESIDUAL) {
        return residual_norm<T>(stream, args->tokens, args->hidden, 0, args->x, args->y, args->x_next, NULL, NULL, NULL);
    }
    MHP_CUDA_BY_STREAMS(args->streams, return (launch_merge<T, N>(stream, args)))
    return MHP_ERR_INTERNAL;
}

mhp_status check_merge(const char *kernel, const mhp_merge_args *args)
{
    return mhp_cuda_connection_check(kernel, args->tokens, args->hidden, args->kind == MHP_CONNECTION_RESIDUAL ? 1 : args->streams, 1);
}

template <typename T> mhp_status merge(void *native, const void *argument)
{
    const mhp_merge_args *args = (const mhp_merge_args *)argument;

    MHP_RETURN_IF_ERROR(check_merge("merge", args));
    return args->tokens == 0 ? MHP_OK : merge_of<T>((cudaStream_t)native, args);
}

template <typename T> mhp_status merge_mix_in_two(cudaStream_t stream, const mhp_merge_mix_args *args)
{
    const mhp_merge_args *m = &args->merge;
    const mhp_mix_args *mix = &args->mix;

    if (m->kind == MHP_CONNECTION_RESIDUAL) {
        return residual_norm<T>(stream, m->tokens, m->hidden, mix->connection.norm_epsilon, m->x, m->y, m->x_next, mix->weight,
                                mix->normed, mix->norm_rrms);
    }
    MHP_RETURN_IF_ERROR(merge_of<T>(stream, m));
    return mix_of<T>(stream, mix);
}

template <typename T> mhp_status merge_mix(void *native, const void *argument)
{
    const mhp_merge_mix_args *args = (const mhp_merge_mix_args *)argument;
    cudaStream_t stream = (cudaStream_t)native;

    MHP_RETURN_IF_ERROR(check_merge("merge_mix", &args->merge));
    MHP_RETURN_IF_ERROR(check_mix("merge_mix", &args->mix));
    if (args->merge.tokens == 0) {
        return MHP_OK;
    }
    return is_four<T>(&args->mix) ? mix_four(stream, &args->merge, &args->mix) : merge_mix_in_two<T>(stream, args);
}

template <typename T> mhp_status readout(void *native, const void *argument)
{
    const mhp_readout_args *args = (const mhp_readout_args *)argument;
    cudaStream_t stream = (cudaStream_t)native;
    mix_args a = {};

    MHP_RETURN_IF_ERROR(mhp_cuda_connection_check("readout", args->tokens, args->hidden, args->streams, 1));
    if (args->tokens == 0) {
        return MHP_OK;
    }
    a.p = projection_of(MHP_CONNECTION_MHC, args->tokens, args->hidden, args->streams, args->streams, args->x, args->fn,
                        args->projection, args->rrms, args->z, sizeof(T));
    a.tokens = args->tokens;
    a.hidden = args->hidden;
    a.norm_epsilon = (float)args->norm_epsilon;
    a.hc_epsilon = (float)args->hc_epsilon;
    a.x = args->x;
    a.base = (const float *)args->base;
    a.scale = (const float *)args->scale;
    a.pre = (float *)args->pre;
    a.z = args->z;
    MHP_RETURN_IF_ERROR(project<T>(stream, &a.p));
    MHP_CUDA_BY_STREAMS(args->streams, return (launch_mix<T, N, HEAD>(stream, a)))
    return MHP_ERR_INTERNAL;
}

}

mhp_status mhp_cuda_connection_check(const char *kernel, int tokens, int hidden, int streams, int iterations)
{
    if (tokens < 0) {
        return mhp_error_set(MHP_ERR_INVALID, "%s of %d tokens", kernel, tokens);
    }
    if (hidden < 8 || hidden % 8 != 0 || hidden > HIDDEN_MAX) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s on CUDA with hidden size %d: expected a multiple of 8 from 8 to %d", kernel,
                             hidden, HIDDEN_MAX);
    }
    if (streams < 1 || streams > MHP_STREAMS_MAX) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s on CUDA with %d streams: expected 1 to %d", kernel, streams, MHP_STREAMS_MAX);
    }
    if (iterations < 1 || iterations > SINKHORN_ITERATIONS_MAX) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s on CUDA with %d Sinkhorn iterations: expected 1 to %d", kernel, iterations,
                             SINKHORN_ITERATIONS_MAX);
    }
    return MHP_OK;
}

#define ENTRY(kernel)                                                          \
    mhp_status mhp_cuda_##kernel##_f32(void *native, const void *argument)     \
    {                                                                          \
        return kernel<float>(native, argument);                                \
    }                                                                          \
    mhp_status mhp_cuda_##kernel##_bf16(void *native, const void *argument)    \
    {                                                                          \
        return kernel<bf16>(native, argument);                                 \
    }

ENTRY(mix)
ENTRY(merge)
ENTRY(merge_mix)
ENTRY(readout)
