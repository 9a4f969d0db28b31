/* A block of sublayers made again: what lies between their Fs, from coefficients that the forward pass kept.
 *
 * Nothing is summed over a row, so a thread goes through the whole block alone with its columns of one token: every stream stays in its
 * registers, and no state but the first is read. Its block of threads has a part of the token's row, and begins with the coefficients
 * of all sublayers, into shared memory. Each output leaves in pieces of a part's width, so that what is written at once is near in
 * memory. */
#include "model/cuda/columns.cuh"
#include "model/cuda/connection.cuh"

namespace {

enum {
    PART_THREADS_MAX = 256,
    SUBLAYERS_MAX = 16,         /* of a launch; a longer block takes several */
};

struct rebuild_args {
    mhp_rebuild_args of;        /* `weight` is the next member */
    const float *weight[SUBLAYERS_MAX];
    int parts;                  /* of a row */
};

/* What a sublayer keeps of a token, in shared memory. */
template <int N> struct kept {
    static constexpr int comb = 0, post = N * N, pre = post + N, rrms = pre + N;
    static constexpr int slot = (rrms + 1 + 3) / 4 * 4;
};

__device__ __forceinline__ void *at_stride(const void *base, size_t stride, int i)
{
    return (char *)base + (size_t)i * stride;
}

/* Into `room` [count][slot]. */
template <int N> __device__ __forceinline__ void load_kept(const mhp_rebuild_args &a, size_t token, float *room)
{
    typedef kept<N> K;

    for (int i = (int)threadIdx.x; i < a.count * K::slot; i += (int)blockDim.x) {
        int sublayer = i / K::slot;
        int at = i % K::slot;
        const void *from = at < K::post ? a.comb : at < K::pre ? a.post : at < K::rrms ? a.pre : a.norm_rrms;
        int first = at < K::post ? K::comb : at < K::pre ? K::post : at < K::rrms ? K::pre : K::rrms;
        size_t width = at < K::post ? N * N : at < K::rrms ? N : 1;

        if (at <= K::rrms) {
            room[i] = __ldcs((const float *)at_stride(from, a.kept_stride, sublayer) + token * width + (at - first));
        }
    }
}

template <typename T, int V>
__device__ __forceinline__ typename chunk<T, V>::type load_branch(const mhp_rebuild_args &a, int sublayer, size_t at)
{
    return load_once<T, V>((const T *)at_stride(a.y, a.y_stride, sublayer) + at);
}

/* normed of V columns, `at` of an array [T,C]. */
template <typename T, int N, int V>
__device__ __forceinline__ void remix(const rebuild_args &a, int sublayer, size_t at, int column, const float *room,
                                      const typename chunk<T, V>::type (&x)[N])
{
    float pre[N], z[V];

    load_factors<N>(room + kept<N>::pre, pre);
    mix_chunk<T, N, V>(x, pre, z);
    norm_chunk<V>(room[kept<N>::rrms], a.weight[sublayer] + column, z);
    store_chunk<T, V>((T *)at_stride(a.of.normed, a.of.normed_stride, sublayer) + at, z);
}

/* Grid: the parts of all rows. */
template <typename T, int N> __global__ void __launch_bounds__(PART_THREADS_MAX, N <= 4 ? 3 : 2)
    rebuild_kernel(const __grid_constant__ rebuild_args a)
{
    constexpr int V = width_of<T, N>::value;
    typedef typename chunk<T, V>::type raw;
    __shared__ __align__(16) float room[SUBLAYERS_MAX][kept<N>::slot];
    size_t token = blockIdx.x / (unsigned)a.parts;
    size_t hidden = (size_t)a.of.hidden;
    int column = (int)(blockIdx.x % (unsigned)a.parts * blockDim.x + threadIdx.x) * V;
    int merges = a.of.last ? a.of.count : a.of.count - 1;
    size_t at = token * hidden + (size_t)column;
    size_t state_at = token * N * hidden + (size_t)column;
    bool inside = column < a.of.hidden;
    raw x[N], y = {};

    if (inside) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            x[j] = load_once<T, V>((const T *)a.of.x + state_at + (size_t)j * hidden);
        }
        y = merges > 0 ? load_branch<T, V>(a.of, 0, at) : y;
    }
    load_kept<N>(a.of, token, room[0]);
    __syncthreads();
    for (int i = 0; inside && i < a.of.count; i++) {
        T *state = (T *)(i + 1 < a.of.count ? at_stride(a.of.state, a.of.state_stride, i) : a.of.last);
        raw ahead = i + 1 < merges ? load_branch<T, V>(a.of, i + 1, at) : y;

        remix<T, N, V>(a, i, at, column, room[i], x);
        if (state) {
            merge_chunk<T, N, V>(x, y, room[i] + kept<N>::comb, room[i] + kept<N>::post, x);
#pragma unroll
            for (int j = 0; j < N; j++) {
                *(raw *)(state + state_at + (size_t)j * hidden) = x[j];
            }
        }
        y = ahead;
    }
}

template <typename T, int N> mhp_status launch(cudaStream_t stream, rebuild_args *a)
{
    int chunks = a->of.hidden / width_of<T, N>::value;
    int threads;

    a->parts = ceil_div(chunks, PART_THREADS_MAX);
    threads = ceil_div(ceil_div(chunks, a->parts), WARP) * WARP;
    rebuild_kernel<T, N><<<(unsigned)a->of.tokens * (unsigned)a->parts, (unsigned)threads, 0, stream>>>(*a);
    return mhp_cuda_launched("rebuild");
}

/* The sublayers from `first` on that a launch takes; the state behind them is `last` to it. */
rebuild_args piece_of(const mhp_rebuild_args *args, int first)
{
    size_t i = (size_t)first;
    rebuild_args a = {};
    mhp_rebuild_args *of = &a.of;

    *of = *args;
    of->count = min_of(args->count - first, SUBLAYERS_MAX);
    of->x = first == 0 ? args->x : (char *)args->state + (i - 1) * args->state_stride;
    of->y = (const char *)args->y + i * args->y_stride;
    of->pre = (const char *)args->pre + i * args->kept_stride;
    of->post = (const char *)args->post + i * args->kept_stride;
    of->comb = (const char *)args->comb + i * args->kept_stride;
    of->norm_rrms = (const char *)args->norm_rrms + i * args->kept_stride;
    of->state = (char *)args->state + i * args->state_stride;
    of->normed = (char *)args->normed + i * args->normed_stride;
    if (first + of->count < args->count) {
        of->last = (char *)of->state + (size_t)(of->count - 1) * args->state_stride;
    }
    for (int k = 0; k < of->count; k++) {
        a.weight[k] = (const float *)args->weight[first + k];
    }
    return a;
}

template <typename T> mhp_status rebuild(void *native, const void *argument)
{
    const mhp_rebuild_args *args = (const mhp_rebuild_args *)argument;

    MHP_RETURN_IF_ERROR(mhp_cuda_connection_check("rebuild", args->tokens, args->hidden, args->streams, 1));
    for (int first = 0; args->tokens > 0 && first < args->count; first += SUBLAYERS_MAX) {
        rebuild_args a = piece_of(args, first);

        MHP_CUDA_BY_STREAMS(args->streams, MHP_RETURN_IF_ERROR((launch<T, N>((cudaStream_t)native, &a))))
    }
    return MHP_OK;
}

}

mhp_status mhp_cuda_rebuild_f32(void *native, const void *argument)
{
    return rebuild<float>(native, argument);
}

mhp_status mhp_cuda_rebuild_bf16(void *native, const void *argument)
{
    return rebuild<bf16>(native, argument);
}
