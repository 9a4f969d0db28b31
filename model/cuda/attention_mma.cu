/* Causal attention in bf16 on tensor cores, for what cuDNN does not serve (documents, above all): head sizes up to 128, a multiple
 * of 8. The plan is attention.cu's: a block keeps a tile of ROWS rows, a warp 16 of them, and streams tiles of STEPS rows of the other
 * side past it, the next one on its way while one is worked on. Scores stay in registers: the layout in which mma leaves a product is
 * the one in which it takes the left factor of the next. Sums are float, weights and score gradients are rounded to bf16. */
#include "model/cuda/vector.cuh"

extern "C" {
#include "model/cuda/attention.h"
}

using namespace mhp;

namespace {

/* Two blocks share a multiprocessor, so that one works while the other waits at a barrier. */
constexpr int WARPS = 4, THREADS = WARPS * WARP, ROWS = WARPS * 16, BLOCKS = 2;
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

/* SIZE: 64 or 128, zero beyond the head. Rows of a tile are padded so that ldmatrix meets no bank twice. */
template <int SIZE> struct tiling {
    static constexpr int WIDE = SIZE + 8;
    static constexpr int FORWARD_STEPS = 64, QUERY_STEPS = 64, KEY_STEPS = 32;
    static constexpr size_t FORWARD_BYTES = (ROWS + 4 * FORWARD_STEPS) * WIDE * sizeof(bf16);
    static constexpr size_t QUERY_BYTES = (2 * ROWS + 4 * QUERY_STEPS) * WIDE * sizeof(bf16);
    static constexpr size_t KEY_BYTES = (2 * ROWS + 4 * KEY_STEPS) * WIDE * sizeof(bf16) + 6 * KEY_STEPS * sizeof(float);
};

struct attention_shape {
    int length, heads, kv_heads, size;
    float scale;

    __device__ int64_t row() const { return (int64_t)(heads + 2 * kv_heads) * size; }
    __device__ int64_t out_row() const { return (int64_t)heads * size; }
    __device__ int kv_head(int head) const { return head / (heads / kv_heads); }
};

/* ---- Tiles ---- */

__device__ __forceinline__ unsigned shared_address(const void *pointer)
{
    return (unsigned)__cvta_generic_to_shared(pointer);
}

/* Starts copying rows [first, first + COUNT) of a head, zero beyond the sequence and the head; 16 bytes a thread at a time. */
template <int SIZE, int COUNT>
__device__ __forceinline__ void fetch_tile(bf16 *tile, const bf16 *from, int64_t stride, int first, const attention_shape &shape)
{
    constexpr int PIECES = SIZE / 8;

#pragma unroll
    for (int item = (int)threadIdx.x; item < COUNT * PIECES; item += THREADS) {
        int r = item / PIECES;
        int c = item % PIECES * 8;
        bool inside = first + r < shape.length && c < shape.size;
        const bf16 *source = inside ? from + (int64_t)(first + r) * stride + c : from;

        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(tile + r * tiling<SIZE>::WIDE + c)),
                     "l"(source), "r"(inside ? 16 : 0));
    }
}

__device__ __forceinline__ void fetch_commit() { asm volatile("cp.async.commit_group;\n"); }
/* Until all but the last PENDING groups of this thread are there. */
template <int PENDING> __device__ __forceinline__ void fetch_wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING)); }

__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const bf16 *at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(at)));
}

__device__ __forceinline__ void load_matrices_transposed(unsigned (&out)[4], const bf16 *at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(at)));
}

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* A thread's part of a warp's 16 rows: of block j of 8 columns, [0] and [1] are row lane / 4, columns 8j + lane % 4 * 2 and the next;
 * [2] and [3] the same of row lane / 4 + 8. */
template <int COLUMNS> using fragment = float[COLUMNS / 8][4];

template <int COLUMNS> __device__ __forceinline__ void clear(fragment<COLUMNS> &c)
{
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
        c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
    }
}

/* score = a b^T: 16 rows of a, STEPS rows of b. */
template <int SIZE, int STEPS>
__device__ __forceinline__ void warp_dot(fragment<STEPS> &score, const bf16 *a, const bf16 *b)
{
    constexpr int WIDE = tiling<SIZE>::WIDE;
    int lane = (int)threadIdx.x % WARP;
    const bf16 *rows = a + lane % 16 * WIDE + lane / 16 * 8;
    const bf16 *steps = b + (lane % 8 + lane / 16 * 8) * WIDE + lane / 8 % 2 * 8;

    clear<STEPS>(score);
#pragma unroll
    for (int c = 0; c < SIZE; c += 16) {
        unsigned left[4];

        load_matrices(left, rows + c);
#pragma unroll
        for (int j = 0; j < STEPS / 16; j++) {
            unsigned right[4];

            load_matrices(right, steps + j * 16 * WIDE + c);
            multiply(score[2 * j], left, right[0], right[1]);
            multiply(score[2 * j + 1], left, right[2], right[3]);
        }
    }
}

__device__ __forceinline__ unsigned pack(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    unsigned bits;

    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* sum += weight b: 16 rows of weight, STEPS rows of b. */
template <int SIZE, int STEPS>
__device__ __forceinline__ void warp_accumulate(fragment<SIZE> &sum, const fragment<STEPS> &weight, const bf16 *b)
{
    constexpr int WIDE = tiling<SIZE>::WIDE;
    int lane = (int)threadIdx.x % WARP;
    const bf16 *steps = b + lane % 16 * WIDE + lane / 16 * 8;

#pragma unroll
    for (int l = 0; l < STEPS / 16; l++) {
        const float(&low)[4] = weight[2 * l];
        const float(&high)[4] = weight[2 * l + 1];
        unsigned left[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]), pack(high[2], high[3])};

#pragma unroll
        for (int j = 0; j < SIZE / 16; j++) {
            unsigned right[4];

            load_matrices_transposed(right, steps + l * 16 * WIDE + j * 16);
            multiply(sum[2 * j], left, right[0], right[1]);
            multiply(sum[2 * j + 1], left, right[2], right[3]);
        }
    }
}

/* Rows `first` + lane / 4 and 8 further, times factor[0] and factor[1]. */
template <int SIZE>
__device__ __forceinline__ void store_rows(bf16 *to, int64_t stride, int first, const attention_shape &shape, const fragment<SIZE> &sum,
                                           const float (&factor)[2])
{
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int t = first + lane / 4 + 8 * half;

#pragma unroll
        for (int j = 0; j < SIZE / 8; j++) {
            int c = j * 8 + lane % 4 * 2;

            if (t < shape.length && c < shape.size) {
                *reinterpret_cast<unsigned *>(to + (int64_t)t * stride + c) =
                    pack(sum[j][2 * half] * factor[half], sum[j][2 * half + 1] * factor[half]);
            }
        }
    }
}

__device__ __forceinline__ float quad_sum(float value)
{
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

__device__ __forceinline__ float quad_max(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

/* 2^x; 0 for -infinity. */
__device__ __forceinline__ float power_of_two(float x)
{
    float result;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

/* ---- Forward ---- */

/* The two rows of a thread. Scores are in units of log 2. */
struct softmax_state {
    float largest[2], sum[2];
};

/* Scores become weights relative to the largest so far; what was summed before is brought to the same scale. */
template <int SIZE, int STEPS>
__device__ __forceinline__ void softmax_step(softmax_state &state, fragment<STEPS> &score, fragment<SIZE> &out, float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = state.largest[half];
        float shift, factor, sum = 0;

#pragma unroll
        for (int j = 0; j < STEPS / 8; j++) {
            largest = fmaxf(largest, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
        }
        largest = quad_max(largest);
        shift = largest == -INFINITY ? 0 : largest * scale;     /* nothing visible yet: all weights are 0 */
        factor = power_of_two(state.largest[half] * scale - shift);
#pragma unroll
        for (int j = 0; j < STEPS / 8; j++) {
#pragma unroll
            for (int k = 2 * half; k < 2 * half + 2; k++) {
                score[j][k] = power_of_two(score[j][k] * scale - shift);
                sum += score[j][k];
            }
        }
        state.sum[half] = state.sum[half] * factor + sum;       /* this thread's columns; joined at the end */
        state.largest[half] = largest;
#pragma unroll
        for (int j = 0; j < SIZE / 8; j++) {
            out[j][2 * half] *= factor;
            out[j][2 * half + 1] *= factor;
        }
    }
}

/* -infinity where a query (row) does not see a key (column): a later one, or one of an earlier document. */
template <int STEPS>
__device__ __forceinline__ void hide_keys(fragment<STEPS> &score, int first_key, int first_query, const int (&document)[2])
{
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int j = 0; j < STEPS / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int key = first_key + j * 8 + lane % 4 * 2 + e % 2;
            int query = first_query + lane / 4 + e / 2 * 8;

            score[j][e] = key >= document[e / 2] && key <= query ? score[j][e] : -INFINITY;
        }
    }
}

template <int SIZE>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    forward_kernel(attention_shape shape, const int32_t *document_start, const bf16 *qkv, bf16 *out, float *log_sum)
{
    constexpr int STEPS = tiling<SIZE>::FORWARD_STEPS, TILE = STEPS * tiling<SIZE>::WIDE;
    extern __shared__ uint4 memory[];
    bf16 *query = reinterpret_cast<bf16 *>(memory);
    bf16 *key = query + ROWS * tiling<SIZE>::WIDE;      /* two tiles */
    bf16 *value = key + 2 * TILE;
    int lane = (int)threadIdx.x % WARP, own = (int)threadIdx.x / WARP * 16;
    int q = ((int)gridDim.x - 1 - (int)blockIdx.x) * ROWS;      /* the longest first */
    int head = (int)blockIdx.y;
    int64_t token = (int64_t)blockIdx.z * shape.length;
    const int32_t *start = document_start + token;
    const bf16 *keys = qkv + token * shape.row() + (int64_t)(shape.heads + shape.kv_head(head)) * shape.size;
    const bf16 *values = keys + (int64_t)shape.kv_heads * shape.size;
    int end = min(q + ROWS, shape.length);
    int last = min(q + own + 15, shape.length - 1);     /* the warp's last query, whose document begins last */
    softmax_state state = {{-INFINITY, -INFINITY}, {0, 0}};
    fragment<SIZE> sum;
    int first[2];
    int stage = 0;

    clear<SIZE>(sum);
    for (int half = 0; half < 2; half++) {
        first[half] = start[min(q + own + lane / 4 + 8 * half, shape.length - 1)];
    }
    fetch_tile<SIZE, ROWS>(query, qkv + token * shape.row() + (int64_t)head * shape.size, shape.row(), q, shape);
    int k = start[q] / STEPS * STEPS;
    fetch_tile<SIZE, STEPS>(key, keys, shape.row(), k, shape);
    fetch_tile<SIZE, STEPS>(value, values, shape.row(), k, shape);
    fetch_commit();
    for (; k < end; k += STEPS, stage ^= 1) {
        fragment<STEPS> score;

        if (k + STEPS < end) {
            fetch_tile<SIZE, STEPS>(key + (stage ^ 1) * TILE, keys, shape.row(), k + STEPS, shape);
            fetch_tile<SIZE, STEPS>(value + (stage ^ 1) * TILE, values, shape.row(), k + STEPS, shape);
        }
        fetch_commit();
        fetch_wait<1>();
        __syncthreads();
        if (k <= last) {        /* else all keys are later than the warp's queries */
            warp_dot<SIZE, STEPS>(score, query + own * tiling<SIZE>::WIDE, key + stage * TILE);
            if (k + STEPS - 1 > q + own || start[last] > k) {
                hide_keys<STEPS>(score, k, q + own, first);
            }
            softmax_step<SIZE, STEPS>(state, score, sum, shape.scale * LOG2_E);
            warp_accumulate<SIZE, STEPS>(sum, score, value + stage * TILE);
        }
        __syncthreads();
    }
    float factor[2];

    for (int half = 0; half < 2; half++) {
        int t = q + own + lane / 4 + 8 * half;
        float total = quad_sum(state.sum[half]);

        factor[half] = 1 / total;
        if (lane % 4 == 0 && t < shape.length) {
            log_sum[((int64_t)blockIdx.z * shape.heads + head) * shape.length + t] =
                state.largest[half] * shape.scale + log2f(total) * LN_2;
        }
    }
    store_rows<SIZE>(out + token * shape.out_row() + (int64_t)head * shape.size, shape.out_row(), q + own, shape, sum, factor);
}

/* ---- Gradient ---- */

struct gradient_tensors {
    const int32_t *document_start;
    const bf16 *qkv, *dout;
    const float *log_sum, *delta;
    bf16 *dqkv;
};

/* A score (-infinity where it is not seen) becomes its probability and, with dscore (the probability's gradient), the gradient of a b^T
 * but for `scale`, which the sum takes at the end. */
__device__ __forceinline__ void score_gradient(float &score, float &dscore, float scale, float log_sum, float delta)
{
    score = power_of_two(score * scale - log_sum);
    dscore = score * (dscore - delta);
}

/* dq of a tile of queries of one head. */
template <int SIZE> __global__ void __launch_bounds__(THREADS, BLOCKS) query_gradient_kernel(attention_shape shape, gradient_tensors tensors)
{
    constexpr int STEPS = tiling<SIZE>::QUERY_STEPS, TILE = STEPS * tiling<SIZE>::WIDE;
    extern __shared__ uint4 memory[];
    bf16 *query = reinterpret_cast<bf16 *>(memory);
    bf16 *dout = query + ROWS * tiling<SIZE>::WIDE;
    bf16 *key = dout + ROWS * tiling<SIZE>::WIDE;
    bf16 *value = key + 2 * TILE;
    int lane = (int)threadIdx.x % WARP, own = (int)threadIdx.x / WARP * 16;
    int q = ((int)gridDim.x - 1 - (int)blockIdx.x) * ROWS;
    int head = (int)blockIdx.y;
    int64_t token = (int64_t)blockIdx.z * shape.length;
    int64_t of_head = ((int64_t)blockIdx.z * shape.heads + head) * shape.length;
    int64_t query_at = token * shape.row() + (int64_t)head * shape.size;
    const int32_t *start = tensors.document_start + token;
    const bf16 *keys = tensors.qkv + token * shape.row() + (int64_t)(shape.heads + shape.kv_head(head)) * shape.size;
    const bf16 *values = keys + (int64_t)shape.kv_heads * shape.size;
    int end = min(q + ROWS, shape.length);
    int last = min(q + own + 15, shape.length - 1);
    fragment<SIZE> sum;
    float log_sum[2], delta[2];
    int first[2];
    int stage = 0;

    clear<SIZE>(sum);
    for (int half = 0; half < 2; half++) {
        int t = min(q + own + lane / 4 + 8 * half, shape.length - 1);

        first[half] = start[t];
        log_sum[half] = tensors.log_sum[of_head + t] * LOG2_E;
        delta[half] = tensors.delta[of_head + t];
    }
    fetch_tile<SIZE, ROWS>(query, tensors.qkv + query_at, shape.row(), q, shape);
    fetch_tile<SIZE, ROWS>(dout, tensors.dout + token * shape.out_row() + (int64_t)head * shape.size, shape.out_row(), q, shape);
    int k = start[q] / STEPS * STEPS;
    fetch_tile<SIZE, STEPS>(key, keys, shape.row(), k, shape);
    fetch_tile<SIZE, STEPS>(value, values, shape.row(), k, shape);
    fetch_commit();
    for (; k < end; k += STEPS, stage ^= 1) {
        if (k + STEPS < end) {
            fetch_tile<SIZE, STEPS>(key + (stage ^ 1) * TILE, keys, shape.row(), k + STEPS, shape);
            fetch_tile<SIZE, STEPS>(value + (stage ^ 1) * TILE, values, shape.row(), k + STEPS, shape);
        }
        fetch_commit();
        fetch_wait<1>();
        __syncthreads();
        if (k <= last) {
            fragment<STEPS> score, dscore;

            warp_dot<SIZE, STEPS>(score, query + own * tiling<SIZE>::WIDE, key + stage * TILE);
            warp_dot<SIZE, STEPS>(dscore, dout + own * tiling<SIZE>::WIDE, value + stage * TILE);
            if (k + STEPS - 1 > q + own || start[last] > k) {
                hide_keys<STEPS>(score, k, q + own, first);
            }
#pragma unroll
            for (int j = 0; j < STEPS / 8; j++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    score_gradient(score[j][e], dscore[j][e], shape.scale * LOG2_E, log_sum[e / 2], delta[e / 2]);
                }
            }
            warp_accumulate<SIZE, STEPS>(sum, dscore, key + stage * TILE);
        }
        __syncthreads();
    }
    float factor[2] = {shape.scale, shape.scale};

    store_rows<SIZE>(tensors.dqkv + query_at, shape.row(), q + own, shape, sum, factor);
}

/* What a tile of queries brings along, by query. */
template <int STEPS> struct query_side {
    float log_sum[STEPS], delta[STEPS];
    int first[STEPS];           /* where its document begins; beyond the sequence, past every key */
};

template <int STEPS>
__device__ __forceinline__ void load_query_side(query_side<STEPS> &side, const gradient_tensors &tensors, const int32_t *start,
                                                int64_t of_head, int q, int length)
{
    int i = (int)threadIdx.x;

    if (i < STEPS) {
        bool exists = q + i < length;

        side.log_sum[i] = exists ? tensors.log_sum[of_head + q + i] * LOG2_E : 0;
        side.delta[i] = exists ? tensors.delta[of_head + q + i] : 0;
        side.first[i] = exists ? start[q + i] : INT_MAX;
    }
}

/* Behind the last tile of `steps` queries from `begin` on whose first query sees a key before `key_end`: documents follow one another,
 * so that it can be searched by halves. */
__device__ int last_query_tile_end(const int32_t *start, int begin, int key_end, int steps, int length)
{
    int seen = 0;               /* tiles that see one, and the least number that may not */
    int unseen = (length - begin + steps - 1) / steps;

    while (seen < unseen) {
        int middle = (seen + unseen) / 2;

        if (start[begin + middle * steps] < key_end) {
            seen = middle + 1;
        } else {
            unseen = middle;
        }
    }
    return begin + seen * steps;
}

/* The same with keys as rows and queries as columns. */
template <int STEPS>
__device__ __forceinline__ void hide_queries(fragment<STEPS> &score, int first_query, int first_key, const int *document)
{
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int j = 0; j < STEPS / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int i = j * 8 + lane % 4 * 2 + e % 2;
            int key = first_key + lane / 4 + e / 2 * 8;

            score[j][e] = key >= document[i] && key <= first_query + i ? score[j][e] : -INFINITY;
        }
    }
}

/* dk and dv of a tile of keys of one key-value head: its query heads one after the other, each with its queries in order. */
template <int SIZE> __global__ void __launch_bounds__(THREADS, BLOCKS) key_gradient_kernel(attention_shape shape, gradient_tensors tensors)
{
    constexpr int STEPS = tiling<SIZE>::KEY_STEPS, TILE = STEPS * tiling<SIZE>::WIDE;
    extern __shared__ uint4 memory[];
    bf16 *key = reinterpret_cast<bf16 *>(memory);
    bf16 *value = key + ROWS * tiling<SIZE>::WIDE;
    bf16 *query = value + ROWS * tiling<SIZE>::WIDE;
    bf16 *dout = query + 2 * TILE;
    query_side<STEPS> *side = reinterpret_cast<query_side<STEPS> *>(dout + 2 * TILE);
    int lane = (int)threadIdx.x % WARP, own = (int)threadIdx.x / WARP * 16;
    int k = (int)blockIdx.x * ROWS;                     /* the first keys have the most queries */
    int kv_head = (int)blockIdx.y;
    int group = shape.heads / shape.kv_heads;
    int64_t token = (int64_t)blockIdx.z * shape.length;
    const int32_t *start = tensors.document_start + token;
    int64_t key_at = token * shape.row() + (int64_t)(shape.heads + kv_head) * shape.size;
    int64_t value_at = key_at + (int64_t)shape.kv_heads * shape.size;
    fragment<SIZE> dkey, dvalue;
    int begin = k / STEPS * STEPS;
    int end = last_query_tile_end(start, begin, k + ROWS, STEPS, shape.length);

    clear<SIZE>(dkey);
    clear<SIZE>(dvalue);
    fetch_tile<SIZE, ROWS>(key, tensors.qkv + key_at, shape.row(), k, shape);
    fetch_tile<SIZE, ROWS>(value, tensors.qkv + value_at, shape.row(), k, shape);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        int64_t of_head = ((int64_t)blockIdx.z * shape.heads + head) * shape.length;
        const bf16 *queries = tensors.qkv + token * shape.row() + (int64_t)head * shape.size;
        const bf16 *douts = tensors.dout + token * shape.out_row() + (int64_t)head * shape.size;
        int stage = 0;

        fetch_tile<SIZE, STEPS>(query, queries, shape.row(), begin, shape);
        fetch_tile<SIZE, STEPS>(dout, douts, shape.out_row(), begin, shape);
        load_query_side(side[0], tensors, start, of_head, begin, shape.length);
        fetch_commit();
        for (int q = begin; q < end; q += STEPS, stage ^= 1) {
            if (q + STEPS < end) {
                fetch_tile<SIZE, STEPS>(query + (stage ^ 1) * TILE, queries, shape.row(), q + STEPS, shape);
                fetch_tile<SIZE, STEPS>(dout + (stage ^ 1) * TILE, douts, shape.out_row(), q + STEPS, shape);
                load_query_side(side[stage ^ 1], tensors, start, of_head, q + STEPS, shape.length);
            }
            fetch_commit();
            fetch_wait<1>();
            __syncthreads();
            if (q + STEPS > k + own) {          /* else all queries are earlier than the warp's keys */
                fragment<STEPS> score, dscore;

                warp_dot<SIZE, STEPS>(score, key + own * tiling<SIZE>::WIDE, query + stage * TILE);
                warp_dot<SIZE, STEPS>(dscore, value + own * tiling<SIZE>::WIDE, dout + stage * TILE);
                if (q < k + own + 15 || side[stage].first[STEPS - 1] > k + own) {
                    hide_queries<STEPS>(score, q, k + own, side[stage].first);
                }
#pragma unroll
                for (int j = 0; j < STEPS / 8; j++) {
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int i = j * 8 + lane % 4 * 2 + e % 2;

                        score_gradient(score[j][e], dscore[j][e], shape.scale * LOG2_E, side[stage].log_sum[i], side[stage].delta[i]);
                    }
                }
                warp_accumulate<SIZE, STEPS>(dvalue, score, dout + stage * TILE);
                warp_accumulate<SIZE, STEPS>(dkey, dscore, query + stage * TILE);
            }
            __syncthreads();
        }
    }
    float scaled[2] = {shape.scale, shape.scale}, as_is[2] = {1, 1};

    store_rows<SIZE>(tensors.dqkv + key_at, shape.row(), k + own, shape, dkey, scaled);
    store_rows<SIZE>(tensors.dqkv + value_at, shape.row(), k + own, shape, dvalue, as_is);
}

/* ---- Launches ---- */

template <typename arguments> attention_shape attention_shape_of(const arguments &args)
{
    return attention_shape{
        .length = args.length,
        .heads = args.heads,
        .kv_heads = args.kv_heads,
        .size = args.head_size,
        .scale = (float)(1 / sqrt((double)args.head_size)),
    };
}

template <typename kernel> mhp_status allow_shared(kernel *function, size_t bytes)
{
    cudaError_t error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);

    return error == cudaSuccess ? MHP_OK
                                : mhp_error_set(MHP_ERR_UNSUPPORTED, "attention: %zu bytes of shared memory per block: %s", bytes,
                                                cudaGetErrorString(error));
}

template <int SIZE> mhp_status forward(cudaStream_t stream, const mhp_attention_args &args)
{
    dim3 grid(blocks_for(args.length, ROWS), (unsigned)args.heads, (unsigned)args.sequences);

    MHP_RETURN_IF_ERROR(allow_shared(forward_kernel<SIZE>, tiling<SIZE>::FORWARD_BYTES));
    forward_kernel<SIZE><<<grid, THREADS, tiling<SIZE>::FORWARD_BYTES, stream>>>(
        attention_shape_of(args), args.document_start, static_cast<const bf16 *>(args.qkv), static_cast<bf16 *>(args.out),
        static_cast<float *>(args.log_sum));
    return mhp_cuda_launched("attention");
}

template <int SIZE> mhp_status gradient(cudaStream_t stream, const mhp_attention_gradient_args &args)
{
    attention_shape shape = attention_shape_of(args);
    dim3 query_grid(blocks_for(args.length, ROWS), (unsigned)args.heads, (unsigned)args.sequences);
    dim3 key_grid(blocks_for(args.length, ROWS), (unsigned)args.kv_heads, (unsigned)args.sequences);
    gradient_tensors tensors = {
        .document_start = args.document_start,
        .qkv = static_cast<const bf16 *>(args.qkv),
        .dout = static_cast<const bf16 *>(args.dout),
        .log_sum = static_cast<const float *>(args.log_sum),
        .delta = static_cast<const float *>(args.workspace),
        .dqkv = static_cast<bf16 *>(args.dqkv),
    };

    MHP_RETURN_IF_ERROR(allow_shared(key_gradient_kernel<SIZE>, tiling<SIZE>::KEY_BYTES));
    MHP_RETURN_IF_ERROR(allow_shared(query_gradient_kernel<SIZE>, tiling<SIZE>::QUERY_BYTES));
    key_gradient_kernel<SIZE><<<key_grid, THREADS, tiling<SIZE>::KEY_BYTES, stream>>>(shape, tensors);
    query_gradient_kernel<SIZE><<<query_grid, THREADS, tiling<SIZE>::QUERY_BYTES, stream>>>(shape, tensors);
    return mhp_cuda_launched("attention_gradient");
}

} // namespace

extern "C" bool mhp_mma_attention_serves(int head_size, const void *qkv, const void *rows)
{
    return head_size <= 128 && head_size % 8 == 0 && aligned(qkv, 16) && aligned(rows, 16);
}

extern "C" mhp_status mhp_mma_attention(cudaStream_t stream, const mhp_attention_args *args)
{
    return args->head_size <= 64 ? forward<64>(stream, *args) : forward<128>(stream, *args);
}

extern "C" mhp_status mhp_mma_attention_gradient(cudaStream_t stream, const mhp_attention_gradient_args *args)
{
    return args->head_size <= 64 ? gradient<64>(stream, *args) : gradient<128>(stream, *args);
}
