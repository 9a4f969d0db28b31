/* Causal attention in tiles with a running softmax: no matrix of all scores ever exists. Any even head size up to 256, grouped
 * queries, documents. Products in float; nothing depends on the order of blocks, so results repeat to the bit.
 *
 * A block keeps a tile of ROWS rows (queries, or keys for their own gradients) in shared memory and streams tiles of STEPS rows of
 * the other side past it. 16 x 16 threads: thread (y, x) holds rows y, y + 16, ... and, of a tile of scores, columns x, x + 16, ...;
 * of a tile as wide as a head, columns 4x .. 4x + 3, then 64 further on, and so forth. */
#include "model/cuda/vector.cuh"

extern "C" {
#include "model/cuda/attention.h"
}

using namespace mhp;

namespace {

constexpr int SIDE = 16, THREADS = SIDE * SIDE;
constexpr int HEAD_SIZE_MAX = 256;
constexpr int PAD = 4;          /* floats behind every row of a tile: a half warp reads 16 rows without bank conflicts */
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

/* SIZE is the head size rounded up; what lies beyond the head is zero. */
template <int SIZE> struct tiling {
    static constexpr int ROWS = SIZE == 256 ? 32 : 64;
    static constexpr int STEPS = SIZE == 64 ? 64 : 32;
    static constexpr int ROWS_EACH = ROWS / SIDE, STEPS_EACH = STEPS / SIDE, COLUMNS_EACH = SIZE / SIDE;
    static constexpr int WIDE = SIZE + PAD;             /* stride of a tile of head rows */
    static constexpr int NARROW = STEPS + PAD;          /* stride of a tile of scores */
    static constexpr size_t FORWARD_BYTES = ((ROWS + 2 * STEPS) * WIDE + ROWS * NARROW) * sizeof(float);
    static constexpr size_t GRADIENT_BYTES = (2 * (ROWS + STEPS) * WIDE + 2 * ROWS * NARROW) * sizeof(float);
};

struct attention_shape {
    int length, heads, kv_heads, size;
    float scale;
    bool vectors;               /* head rows of qkv and dout may be read four elements at a time */

    __device__ int64_t row() const { return (int64_t)(heads + 2 * kv_heads) * size; }
    __device__ int64_t out_row() const { return (int64_t)heads * size; }
    __device__ int kv_head(int head) const { return head / (heads / kv_heads); }
};

/* ---- Tiles ---- */

/* tile = rows [first, first + COUNT) of a head, zero beyond the sequence and beyond the head. */
template <typename real, int SIZE, int COUNT>
__device__ void load_tile(float *tile, const real *from, int64_t stride, int first, const attention_shape &shape)
{
    constexpr int QUADS = SIZE / 4;

    for (int item = (int)threadIdx.x; item < COUNT * QUADS; item += THREADS) {
        int r = item / QUADS;
        int c = item % QUADS * 4;
        const real *source = from + (int64_t)(first + r) * stride + c;
        float value[4] = {};

        if (first + r < shape.length) {
            if (shape.vectors && c < shape.size) {
                load<4>(value, source);
            } else {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    value[k] = c + k < shape.size ? to_float(source[k]) : 0;
                }
            }
        }
        *reinterpret_cast<float4 *>(tile + r * tiling<SIZE>::WIDE + c) = make_float4(value[0], value[1], value[2], value[3]);
    }
}

/* score[i][j] = <row i of a, row j of b>. */
template <int SIZE>
__device__ __forceinline__ void tile_dot(float (&score)[tiling<SIZE>::ROWS_EACH][tiling<SIZE>::STEPS_EACH], const float *a,
                                         const float *b)
{
    using tile = tiling<SIZE>;
    const float *row = a + threadIdx.x / SIDE * tile::WIDE;
    const float *step = b + threadIdx.x % SIDE * tile::WIDE;

#pragma unroll
    for (int i = 0; i < tile::ROWS_EACH; i++) {
#pragma unroll
        for (int j = 0; j < tile::STEPS_EACH; j++) {
            score[i][j] = 0;
        }
    }
#pragma unroll 4
    for (int c = 0; c < SIZE; c += 4) {
        float4 left[tile::ROWS_EACH], right[tile::STEPS_EACH];

#pragma unroll
        for (int i = 0; i < tile::ROWS_EACH; i++) {
            left[i] = *reinterpret_cast<const float4 *>(row + i * SIDE * tile::WIDE + c);
        }
#pragma unroll
        for (int j = 0; j < tile::STEPS_EACH; j++) {
            right[j] = *reinterpret_cast<const float4 *>(step + j * SIDE * tile::WIDE + c);
        }
#pragma unroll
        for (int i = 0; i < tile::ROWS_EACH; i++) {
#pragma unroll
            for (int j = 0; j < tile::STEPS_EACH; j++) {
                score[i][j] += left[i].x * right[j].x + left[i].y * right[j].y + left[i].z * right[j].z + left[i].w * right[j].w;
            }
        }
    }
}

template <int SIZE>
__device__ __forceinline__ void put_scores(float *to, const float (&score)[tiling<SIZE>::ROWS_EACH][tiling<SIZE>::STEPS_EACH])
{
    using tile = tiling<SIZE>;

#pragma unroll
    for (int i = 0; i < tile::ROWS_EACH; i++) {
#pragma unroll
        for (int j = 0; j < tile::STEPS_EACH; j++) {
            to[(threadIdx.x / SIDE + i * SIDE) * tile::NARROW + threadIdx.x % SIDE + j * SIDE] = score[i][j];
        }
    }
}

/* sum[i][:] += over steps l of weight[i][l] b[l][:]. */
template <int SIZE>
__device__ __forceinline__ void tile_accumulate(float (&sum)[tiling<SIZE>::ROWS_EACH][tiling<SIZE>::COLUMNS_EACH], const float *weight,
                                                const float *b)
{
    using tile = tiling<SIZE>;
    const float *row = weight + threadIdx.x / SIDE * tile::NARROW;
    const float *column = b + threadIdx.x % SIDE * 4;

#pragma unroll 8
    for (int l = 0; l < tile::STEPS; l++) {
        float left[tile::ROWS_EACH];

#pragma unroll
        for (int i = 0; i < tile::ROWS_EACH; i++) {
            left[i] = row[i * SIDE * tile::NARROW + l];
        }
#pragma unroll
        for (int q = 0; q < SIZE / 64; q++) {
            float4 right = *reinterpret_cast<const float4 *>(column + l * tile::WIDE + 64 * q);

#pragma unroll
            for (int i = 0; i < tile::ROWS_EACH; i++) {
                sum[i][4 * q] += left[i] * right.x;
                sum[i][4 * q + 1] += left[i] * right.y;
                sum[i][4 * q + 2] += left[i] * right.z;
                sum[i][4 * q + 3] += left[i] * right.w;
            }
        }
    }
}

template <typename real, int SIZE>
__device__ void store_tile(real *to, int64_t stride, int first, const attention_shape &shape,
                           const float (&sum)[tiling<SIZE>::ROWS_EACH][tiling<SIZE>::COLUMNS_EACH])
{
#pragma unroll
    for (int i = 0; i < tiling<SIZE>::ROWS_EACH; i++) {
        int t = first + (int)threadIdx.x / SIDE + i * SIDE;

#pragma unroll
        for (int k = 0; k < tiling<SIZE>::COLUMNS_EACH; k++) {
            int c = k / 4 * 64 + (int)threadIdx.x % SIDE * 4 + k % 4;

            if (t < shape.length && c < shape.size) {
                to[(int64_t)t * stride + c] = from_float<real>(sum[i][k]);
            }
        }
    }
}

/* Over the 16 threads that share rows. */
__device__ __forceinline__ float side_sum(float value)
{
#pragma unroll
    for (int step = SIDE / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
}

__device__ __forceinline__ float side_max(float value)
{
#pragma unroll
    for (int step = SIDE / 2; step > 0; step /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    }
    return value;
}

/* ---- Forward ---- */

/* Rows of one thread: what the softmax has seen so far. Scores are in units of log 2. */
template <int SIZE> struct softmax_state {
    float largest[tiling<SIZE>::ROWS_EACH], sum[tiling<SIZE>::ROWS_EACH];
    float out[tiling<SIZE>::ROWS_EACH][tiling<SIZE>::COLUMNS_EACH];
};

/* Scores become weights relative to the largest so far; what was summed before is brought to the same scale. */
template <int SIZE>
__device__ __forceinline__ void softmax_step(softmax_state<SIZE> &state,
                                             float (&score)[tiling<SIZE>::ROWS_EACH][tiling<SIZE>::STEPS_EACH])
{
#pragma unroll
    for (int i = 0; i < tiling<SIZE>::ROWS_EACH; i++) {
        float largest = state.largest[i];
        float shift, factor, sum = 0;

#pragma unroll
        for (int j = 0; j < tiling<SIZE>::STEPS_EACH; j++) {
            largest = fmaxf(largest, score[i][j]);
        }
        largest = side_max(largest);
        shift = largest == -INFINITY ? 0 : largest;     /* nothing visible yet: all weights are 0 */
        factor = exp2f(state.largest[i] - shift);
#pragma unroll
        for (int j = 0; j < tiling<SIZE>::STEPS_EACH; j++) {
            score[i][j] = exp2f(score[i][j] - shift);
            sum += score[i][j];
        }
        state.sum[i] = state.sum[i] * factor + side_sum(sum);
        state.largest[i] = largest;
#pragma unroll
        for (int k = 0; k < tiling<SIZE>::COLUMNS_EACH; k++) {
            state.out[i][k] *= factor;
        }
    }
}

template <typename real, int SIZE>
__global__ void __launch_bounds__(THREADS)
    forward_kernel(attention_shape shape, const int32_t *document_start, const real *qkv, real *out, float *log_sum)
{
    using tile = tiling<SIZE>;
    extern __shared__ float4 memory[];
    float *query = reinterpret_cast<float *>(memory);
    float *key = query + tile::ROWS * tile::WIDE;
    float *value = key + tile::STEPS * tile::WIDE;
    float *weight = value + tile::STEPS * tile::WIDE;
    int q = ((int)gridDim.x - 1 - (int)blockIdx.x) * tile::ROWS;       /* the longest first */
    int head = (int)blockIdx.y;
    int64_t token = (int64_t)blockIdx.z * shape.length;
    const int32_t *start = document_start + token;
    const real *keys = qkv + token * shape.row() + (int64_t)(shape.heads + shape.kv_head(head)) * shape.size;
    const real *values = keys + (int64_t)shape.kv_heads * shape.size;
    int end = min(q + tile::ROWS, shape.length);
    int y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE;
    softmax_state<SIZE> state = {};

#pragma unroll
    for (int i = 0; i < tile::ROWS_EACH; i++) {
        state.largest[i] = -INFINITY;
    }
    load_tile<real, SIZE, tile::ROWS>(query, qkv + token * shape.row() + (int64_t)head * shape.size, shape.row(), q, shape);
    for (int k = start[q] / tile::STEPS * tile::STEPS; k < end; k += tile::STEPS) {
        float score[tile::ROWS_EACH][tile::STEPS_EACH];

        __syncthreads();
        load_tile<real, SIZE, tile::STEPS>(key, keys, shape.row(), k, shape);
        load_tile<real, SIZE, tile::STEPS>(value, values, shape.row(), k, shape);
        __syncthreads();
        tile_dot<SIZE>(score, query, key);
#pragma unroll
        for (int i = 0; i < tile::ROWS_EACH; i++) {
            int t = q + y + i * SIDE;
            int first = t < shape.length ? start[t] : 0;

#pragma unroll
            for (int j = 0; j < tile::STEPS_EACH; j++) {
                int at = k + x + j * SIDE;

                score[i][j] = at >= first && at <= t ? score[i][j] * shape.scale * LOG2_E : -INFINITY;
            }
        }
        softmax_step<SIZE>(state, score);
        put_scores<SIZE>(weight, score);
        __syncthreads();
        tile_accumulate<SIZE>(state.out, weight, value);
    }
#pragma unroll
    for (int i = 0; i < tile::ROWS_EACH; i++) {
        int t = q + y + i * SIDE;

        if (x == 0 && t < shape.length) {
            log_sum[((int64_t)blockIdx.z * shape.heads + head) * shape.length + t] = (state.largest[i] + log2f(state.sum[i])) * LN_2;
        }
#pragma unroll
        for (int k = 0; k < tile::COLUMNS_EACH; k++) {
            state.out[i][k] /= state.sum[i];
        }
    }
    store_tile<real, SIZE>(out + token * shape.out_row() + (int64_t)head * shape.size, shape.out_row(), q, shape, state.out);
}

/* ---- Gradient ---- */

/* delta [sequences,H,length] = <out, dout> of every token and head: a warp each. */
template <typename real>
__global__ void delta_kernel(int64_t rows, attention_shape shape, const real *out, const real *dout, float *delta)
{
    int64_t item = ((int64_t)blockIdx.x * THREADS + threadIdx.x) / WARP;       /* token, then head */
    int64_t t = item / shape.heads;
    int64_t head = item % shape.heads;
    float sum = 0;

    if (item < rows) {
        for (int c = (int)threadIdx.x % WARP; c < shape.size; c += WARP) {
            sum += to_float(out[item * shape.size + c]) * to_float(dout[item * shape.size + c]);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0) {
            delta[(t / shape.length * shape.heads + head) * shape.length + t % shape.length] = sum;
        }
    }
}

template <typename real> struct gradient_tensors {
    const int32_t *document_start;
    const real *qkv, *dout;
    const float *log_sum, *delta;
    real *dqkv;
};

/* Scores (a b^T) become probabilities and, with dscore (their gradient), the gradient of a b^T. */
__device__ __forceinline__ void score_gradient(float &score, float &dscore, bool visible, float log_sum, float delta, float scale)
{
    score = visible ? exp2f((score * scale - log_sum) * LOG2_E) : 0;
    dscore = score * (dscore - delta) * scale;
}

/* dq of a tile of queries of one head. */
template <typename real, int SIZE>
__global__ void __launch_bounds__(THREADS) query_gradient_kernel(attention_shape shape, gradient_tensors<real> tensors)
{
    using tile = tiling<SIZE>;
    extern __shared__ float4 memory[];
    float *query = reinterpret_cast<float *>(memory);
    float *dout = query + tile::ROWS * tile::WIDE;
    float *key = dout + tile::ROWS * tile::WIDE;
    float *value = key + tile::STEPS * tile::WIDE;
    float *dscores = value + tile::STEPS * tile::WIDE;
    int q = ((int)gridDim.x - 1 - (int)blockIdx.x) * tile::ROWS;
    int head = (int)blockIdx.y;
    int64_t token = (int64_t)blockIdx.z * shape.length;
    int64_t of_head = ((int64_t)blockIdx.z * shape.heads + head) * shape.length;
    const int32_t *start = tensors.document_start + token;
    int64_t query_at = token * shape.row() + (int64_t)head * shape.size;
    const real *keys = tensors.qkv + token * shape.row() + (int64_t)(shape.heads + shape.kv_head(head)) * shape.size;
    const real *values = keys + (int64_t)shape.kv_heads * shape.size;
    int end = min(q + tile::ROWS, shape.length);
    int y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE;
    float sum[tile::ROWS_EACH][tile::COLUMNS_EACH] = {};

    load_tile<real, SIZE, tile::ROWS>(query, tensors.qkv + query_at, shape.row(), q, shape);
    load_tile<real, SIZE, tile::ROWS>(dout, tensors.dout + token * shape.out_row() + (int64_t)head * shape.size, shape.out_row(), q,
                                      shape);
    for (int k = start[q] / tile::STEPS * tile::STEPS; k < end; k += tile::STEPS) {
        float score[tile::ROWS_EACH][tile::STEPS_EACH], dscore[tile::ROWS_EACH][tile::STEPS_EACH];

        __syncthreads();
        load_tile<real, SIZE, tile::STEPS>(key, keys, shape.row(), k, shape);
        load_tile<real, SIZE, tile::STEPS>(value, values, shape.row(), k, shape);
        __syncthreads();
        tile_dot<SIZE>(score, query, key);
        tile_dot<SIZE>(dscore, dout, value);
#pragma unroll
        for (int i = 0; i < tile::ROWS_EACH; i++) {
            int t = q + y + i * SIDE;
            bool exists = t < shape.length;
            int first = exists ? start[t] : 0;
            float log_sum = exists ? tensors.log_sum[of_head + t] : 0;
            float delta = exists ? tensors.delta[of_head + t] : 0;

#pragma unroll
            for (int j = 0; j < tile::STEPS_EACH; j++) {
                int at = k + x + j * SIDE;

                score_gradient(score[i][j], dscore[i][j], exists && at >= first && at <= t, log_sum, delta, shape.scale);
            }
        }
        put_scores<SIZE>(dscores, dscore);
        __syncthreads();
        tile_accumulate<SIZE>(sum, dscores, key);
    }
    store_tile<real, SIZE>(tensors.dqkv + query_at, shape.row(), q, shape, sum);
}

/* dk and dv of a tile of keys of one key-value head: its query heads one after the other, each with its queries in order. */
template <typename real, int SIZE>
__global__ void __launch_bounds__(THREADS) key_gradient_kernel(attention_shape shape, gradient_tensors<real> tensors)
{
    using tile = tiling<SIZE>;
    extern __shared__ float4 memory[];
    float *key = reinterpret_cast<float *>(memory);
    float *value = key + tile::ROWS * tile::WIDE;
    float *query = value + tile::ROWS * tile::WIDE;
    float *dout = query + tile::STEPS * tile::WIDE;
    float *weights = dout + tile::STEPS * tile::WIDE;
    float *dscores = weights + tile::ROWS * tile::NARROW;
    int k = (int)blockIdx.x * tile::ROWS;               /* the first keys have the most queries */
    int kv_head = (int)blockIdx.y;
    int group = shape.heads / shape.kv_heads;
    int64_t token = (int64_t)blockIdx.z * shape.length;
    const int32_t *start = tensors.document_start + token;
    int64_t key_at = token * shape.row() + (int64_t)(shape.heads + kv_head) * shape.size;
    int64_t value_at = key_at + (int64_t)shape.kv_heads * shape.size;
    int y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE;
    float dkey[tile::ROWS_EACH][tile::COLUMNS_EACH] = {}, dvalue[tile::ROWS_EACH][tile::COLUMNS_EACH] = {};

    load_tile<real, SIZE, tile::ROWS>(key, tensors.qkv + key_at, shape.row(), k, shape);
    load_tile<real, SIZE, tile::ROWS>(value, tensors.qkv + value_at, shape.row(), k, shape);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        int64_t of_head = ((int64_t)blockIdx.z * shape.heads + head) * shape.length;

        /* Documents follow one another: once a tile's first query begins behind these keys, so do all later ones. */
        for (int q = k / tile::STEPS * tile::STEPS; q < shape.length && start[q] < k + tile::ROWS; q += tile::STEPS) {
            float score[tile::ROWS_EACH][tile::STEPS_EACH], dscore[tile::ROWS_EACH][tile::STEPS_EACH];

            __syncthreads();
            load_tile<real, SIZE, tile::STEPS>(query, tensors.qkv + token * shape.row() + (int64_t)head * shape.size, shape.row(), q,
                                               shape);
            load_tile<real, SIZE, tile::STEPS>(dout, tensors.dout + token * shape.out_row() + (int64_t)head * shape.size,
                                               shape.out_row(), q, shape);
            __syncthreads();
            tile_dot<SIZE>(score, key, query);
            tile_dot<SIZE>(dscore, value, dout);
#pragma unroll
            for (int j = 0; j < tile::STEPS_EACH; j++) {
                int t = q + x + j * SIDE;
                bool exists = t < shape.length;
                int first = exists ? start[t] : 0;
                float log_sum = exists ? tensors.log_sum[of_head + t] : 0;
                float delta = exists ? tensors.delta[of_head + t] : 0;

#pragma unroll
                for (int i = 0; i < tile::ROWS_EACH; i++) {
                    int at = k + y + i * SIDE;

                    score_gradient(score[i][j], dscore[i][j], exists && at >= first && at <= t, log_sum, delta, shape.scale);
                }
            }
            put_scores<SIZE>(weights, score);
            put_scores<SIZE>(dscores, dscore);
            __syncthreads();
            tile_accumulate<SIZE>(dvalue, weights, dout);
            tile_accumulate<SIZE>(dkey, dscores, query);
        }
    }
    store_tile<real, SIZE>(tensors.dqkv + key_at, shape.row(), k, shape, dkey);
    store_tile<real, SIZE>(tensors.dqkv + value_at, shape.row(), k, shape, dvalue);
}

/* ---- Launches ---- */

template <typename arguments> attention_shape attention_shape_of(const arguments &args, const void *rows)
{
    return attention_shape{
        .length = args.length,
        .heads = args.heads,
        .kv_heads = args.kv_heads,
        .size = args.head_size,
        .scale = (float)(1 / sqrt((double)args.head_size)),
        .vectors = args.head_size % 4 == 0 && aligned(args.qkv, 16) && aligned(rows, 16),
    };
}

template <typename kernel> mhp_status allow_shared(kernel *function, size_t bytes)
{
    cudaError_t error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);

    return error == cudaSuccess ? MHP_OK
                                : mhp_error_set(MHP_ERR_UNSUPPORTED, "attention: %zu bytes of shared memory per block: %s", bytes,
                                                cudaGetErrorString(error));
}

template <typename real, int SIZE> mhp_status forward(cudaStream_t stream, const mhp_attention_args &args)
{
    using tile = tiling<SIZE>;
    dim3 grid(blocks_for(args.length, tile::ROWS), (unsigned)args.heads, (unsigned)args.sequences);

    MHP_RETURN_IF_ERROR(allow_shared(forward_kernel<real, SIZE>, tile::FORWARD_BYTES));
    forward_kernel<real, SIZE><<<grid, THREADS, tile::FORWARD_BYTES, stream>>>(
        attention_shape_of(args, args.out), args.document_start, static_cast<const real *>(args.qkv), static_cast<real *>(args.out),
        static_cast<float *>(args.log_sum));
    return mhp_cuda_launched("attention");
}

template <typename real, int SIZE> mhp_status gradient(cudaStream_t stream, const mhp_attention_gradient_args &args)
{
    using tile = tiling<SIZE>;
    attention_shape shape = attention_shape_of(args, args.dout);
    dim3 query_grid(blocks_for(args.length, tile::ROWS), (unsigned)args.heads, (unsigned)args.sequences);
    dim3 key_grid(blocks_for(args.length, tile::ROWS), (unsigned)args.kv_heads, (unsigned)args.sequences);
    gradient_tensors<real> tensors = {
        .document_start = args.document_start,
        .qkv = static_cast<const real *>(args.qkv),
        .dout = static_cast<const real *>(args.dout),
        .log_sum = static_cast<const float *>(args.log_sum),
        .delta = static_cast<const float *>(args.workspace),
        .dqkv = static_cast<real *>(args.dqkv),
    };

    MHP_RETURN_IF_ERROR(allow_shared(query_gradient_kernel<real, SIZE>, tile::GRADIENT_BYTES));
    MHP_RETURN_IF_ERROR(allow_shared(key_gradient_kernel<real, SIZE>, tile::GRADIENT_BYTES));
    key_gradient_kernel<real, SIZE><<<key_grid, THREADS, tile::GRADIENT_BYTES, stream>>>(shape, tensors);
    query_gradient_kernel<real, SIZE><<<query_grid, THREADS, tile::GRADIENT_BYTES, stream>>>(shape, tensors);
    return mhp_cuda_launched("attention_gradient");
}

template <typename real> mhp_status delta(cudaStream_t stream, const mhp_attention_gradient_args &args)
{
    int64_t rows = (int64_t)args.sequences * args.length * args.heads;

    delta_kernel<real><<<blocks_for(rows * WARP, THREADS), THREADS, 0, stream>>>(
        rows, attention_shape_of(args, args.dout), static_cast<const real *>(args.out), static_cast<const real *>(args.dout),
        static_cast<float *>(args.workspace));
    return mhp_cuda_launched("attention_gradient");
}

mhp_status check_head_size(int size)
{
    return size <= HEAD_SIZE_MAX && size % 2 == 0
               ? MHP_OK
               : mhp_error_set(MHP_ERR_LIMIT, "attention: head size %d is odd or exceeds %d", size, HEAD_SIZE_MAX);
}

template <typename arguments> bool by_cudnn(const arguments &args)
{
    size_t bytes;

    return args.one_document && mhp_cudnn_attention_serves(args.sequences, args.length, args.heads, args.kv_heads, args.head_size, &bytes);
}

template <typename real> mhp_status attention(cudaStream_t stream, const mhp_attention_args &args)
{
    if (sizeof(real) == sizeof(bf16) && by_cudnn(args)) {
        return mhp_cudnn_attention(stream, &args);
    }
    if (sizeof(real) == sizeof(bf16) && mhp_mma_attention_serves(args.head_size, args.qkv, args.out)) {
        return mhp_mma_attention(stream, &args);
    }
    MHP_RETURN_IF_ERROR(check_head_size(args.head_size));
    return args.head_size <= 64    ? forward<real, 64>(stream, args)
           : args.head_size <= 128 ? forward<real, 128>(stream, args)
                                   : forward<real, 256>(stream, args);
}

template <typename real> mhp_status attention_gradient(cudaStream_t stream, const mhp_attention_gradient_args &args)
{
    if (sizeof(real) == sizeof(bf16) && by_cudnn(args)) {
        return mhp_cudnn_attention_gradient(stream, &args);
    }
    MHP_RETURN_IF_ERROR(check_head_size(args.head_size));
    MHP_RETURN_IF_ERROR(delta<real>(stream, args));
    if (sizeof(real) == sizeof(bf16) && mhp_mma_attention_serves(args.head_size, args.qkv, args.dout)) {
        return mhp_mma_attention_gradient(stream, &args);
    }
    return args.head_size <= 64    ? gradient<real, 64>(stream, args)
           : args.head_size <= 128 ? gradient<real, 128>(stream, args)
                                   : gradient<real, 256>(stream, args);
}

} // namespace

MHP_CUDA_DEFINE(attention)
MHP_CUDA_DEFINE(attention_gradient)

/* The own kernels keep delta there; cuDNN what it asks for. */
extern "C" int64_t mhp_cuda_attention_workspace(int sequences, int length, int heads, int kv_heads, int head_size, int threads)
{
    int64_t own = (int64_t)sequences * length * heads;
    size_t bytes = 0;

    (void)threads;
    (void)mhp_cudnn_attention_serves(sequences, length, heads, kv_heads, head_size, &bytes);
    return max(own, (int64_t)((bytes + sizeof(float) - 1) / sizeof(float)));
}
