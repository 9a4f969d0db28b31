/* The residual connection: x + y with its norm, and the gradient through both, each token's row once. */
#include "model/cuda/connection.cuh"

namespace {

enum { ROW_HELD = 2, GRADIENT_RESIDENT = 1024 };

struct norm_args {
    int tokens, hidden;
    float epsilon;
    const void *x, *y;
    void *x_next;
    const float *weight;
    void *normed;
    float *rrms;
};

/* Sum over the block; `room` [2][WARP] alternates. */
__device__ __forceinline__ float block_sum(float value, float *room)
{
    float sum = 0;

    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) {
        room[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    for (int i = 0; i < (int)blockDim.x / WARP; i++) {
        sum += room[i];
    }
    return sum;
}

/* x or x + y of a chunk, rounded as it is kept. */
template <typename T, int V>
__device__ __forceinline__ void residual_chunk(const norm_args &a, size_t at, float (&value)[V])
{
    unpack(load_once<T, V>((const T *)a.x + at), value);
    if (a.y) {
        float y[V];
        typename chunk<T, V>::type raw;

        unpack(load_once<T, V>((const T *)a.y + at), y);
#pragma unroll
        for (int i = 0; i < V; i++) {
            value[i] += y[i];
        }
        pack(value, &raw);
        unpack(raw, value);
    }
}

/* A block for a token; HELD chunks a thread. */
template <typename T, int HELD> __global__ void __launch_bounds__(512) residual_norm_kernel(norm_args a)
{
    constexpr int V = 16 / sizeof(T);
    __shared__ float room[WARP];
    size_t row = (size_t)blockIdx.x * (size_t)a.hidden;
    float value[HELD][V];
    float square = 0;
    float rrms;

#pragma unroll
    for (int h = 0; h < HELD; h++) {
        int column = ((int)threadIdx.x + h * (int)blockDim.x) * V;

        if (column < a.hidden) {
            residual_chunk<T, V>(a, row + (size_t)column, value[h]);
#pragma unroll
            for (int i = 0; i < V; i++) {
                square = fmaf(value[h][i], value[h][i], square);
            }
            if (a.x_next) {
                store_chunk<T, V>((T *)a.x_next + row + column, value[h]);
            }
        }
    }
    if (!a.normed) {
        return;
    }
    rrms = 1.0f / sqrtf(block_sum(square, room) / (float)a.hidden + a.epsilon);
    if (threadIdx.x == 0) {
        a.rrms[blockIdx.x] = rrms;
    }
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        int column = ((int)threadIdx.x + h * (int)blockDim.x) * V;

        if (column < a.hidden) {
            float weight[V];

            load_full<V>(a.weight + column, weight);
#pragma unroll
            for (int i = 0; i < V; i++) {
                value[h][i] = value[h][i] * rrms * weight[i];
            }
            store_chunk<T, V>((T *)a.normed + row + column, value[h]);
        }
    }
}

struct gradient_args {
    int tokens, hidden;
    const void *x, *g, *dnormed;
    const float *weight, *rrms;
    void *dx, *dy;              /* the same twice; dy may be NULL */
    float *partial;             /* [blocks, hidden] of dweight */
};

/* Blocks stride over tokens; a thread keeps its columns' sums of dweight. */
template <typename T, int HELD> __global__ void __launch_bounds__(512) residual_gradient_kernel(gradient_args a)
{
    constexpr int V = 16 / sizeof(T);
    __shared__ float room[2][WARP];
    float dweight[HELD][V] = {};
    int turn = 0;

    for (int t = (int)blockIdx.x; t < a.tokens; t += (int)gridDim.x, turn ^= 1) {
        size_t row = (size_t)t * (size_t)a.hidden;
        float rrms = a.rrms[t];
        float x[HELD][V], d[HELD][V];
        typename chunk<T, V>::type g[HELD];
        float dot = 0;

#pragma unroll
        for (int h = 0; h < HELD; h++) {
            int column = ((int)threadIdx.x + h * (int)blockDim.x) * V;
            float weight[V];

            if (column >= a.hidden) {
                continue;
            }
            unpack(load_once<T, V>((const T *)a.x + row + column), x[h]);
            unpack(load_once<T, V>((const T *)a.dnormed + row + column), d[h]);
            g[h] = load_once<T, V>((const T *)a.g + row + column);
            load_full<V>(a.weight + column, weight);
#pragma unroll
            for (int i = 0; i < V; i++) {
                dweight[h][i] = fmaf(d[h][i] * rrms, x[h][i], dweight[h][i]);
                d[h][i] *= weight[i];
                dot = fmaf(d[h][i], x[h][i], dot);
            }
        }
        dot = block_sum(dot, room[turn]) * rrms * rrms / (float)a.hidden;
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            int column = ((int)threadIdx.x + h * (int)blockDim.x) * V;
            float sum[V];

            if (column >= a.hidden) {
                continue;
            }
            unpack(g[h], sum);
#pragma unroll
            for (int i = 0; i < V; i++) {
                sum[i] += rrms * (d[h][i] - dot * x[h][i]);
            }
            store_chunk<T, V>((T *)a.dx + row + column, sum);
            if (a.dy) {
                store_chunk<T, V>((T *)a.dy + row + column, sum);
            }
        }
    }
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        int column = ((int)threadIdx.x + h * (int)blockDim.x) * V;

#pragma unroll
        for (int i = 0; i < V; i += 4) {
            if (column < a.hidden) {
                *reinterpret_cast<float4 *>(a.partial + (size_t)blockIdx.x * (size_t)a.hidden + column + i) =
                    make_float4(dweight[h][i], dweight[h][i + 1], dweight[h][i + 2], dweight[h][i + 3]);
            }
        }
    }
}

/* Calls `call` with the chunks that a thread holds in scope as HELD, and `threads`. */
#define BY_HELD(hidden, T, call)                                              \
    {                                                                         \
        constexpr int width = 16 / sizeof(T);                                 \
        int threads = row_threads(hidden, width, 1);                          \
        if (hidden <= threads * width) {                                      \
            constexpr int HELD = 1;                                           \
            call;                                                             \
        } else if (hidden <= 2 * threads * width) {                           \
            constexpr int HELD = 2;                                           \
            call;                                                             \
        } else {                                                              \
            constexpr int HELD = 8;                                           \
            threads = max_of(threads, ceil_div(hidden, HELD * width * WARP) * WARP); \
            call;                                                             \
        }                                                                     \
    }

}

template <typename T>
mhp_status residual_norm(cudaStream_t stream, int tokens, int hidden, double epsilon, const void *x, const void *y, void *x_next,
                         const void *weight, void *normed, void *rrms)
{
    norm_args a = {tokens, hidden, (float)epsilon, x, y, x_next, (const float *)weight, normed, (float *)rrms};

    BY_HELD(hidden, T, (residual_norm_kernel<T, HELD><<<(unsigned)tokens, (unsigned)threads, 0, stream>>>(a)))
    return mhp_cuda_launched("residual_norm");
}

/* Blocks of the gradient for `hidden`; their number decides how sums are ordered, so it depends on sizes and the card alone. */
int residual_gradient_blocks(int tokens, int hidden)
{
    int threads = row_threads(hidden, 8, 1);

    return max_of(1, min_of(tokens, mhp_cuda_processors() * max_of(1, GRADIENT_RESIDENT / threads)));
}

template <typename T> mhp_status residual_gradient(cudaStream_t stream, const mhp_mix_gradient_args *args, void *dy)
{
    const mhp_connection_gradient_args *c = &args->connection;
    unsigned blocks = (unsigned)residual_gradient_blocks(c->tokens, c->hidden);
    gradient_args a = {c->tokens, c->hidden, c->x, c->g, args->dnormed, (const float *)args->weight,
                       (const float *)args->norm_rrms, c->dx, dy, (float *)c->workspace};

    BY_HELD(c->hidden, T, (residual_gradient_kernel<T, HELD><<<blocks, (unsigned)threads, 0, stream>>>(a)))
    return mhp_cuda_launched("residual_gradient");
}

template mhp_status residual_norm<float>(cudaStream_t, int, int, double, const void *, const void *, void *, const void *, void *,
                                         void *);
template mhp_status residual_norm<bf16>(cudaStream_t, int, int, double, const void *, const void *, void *, const void *, void *,
                                        void *);
template mhp_status residual_gradient<float>(cudaStream_t, const mhp_mix_gradient_args *, void *);
template mhp_status residual_gradient<bf16>(cudaStream_t, const mhp_mix_gradient_args *, void *);
