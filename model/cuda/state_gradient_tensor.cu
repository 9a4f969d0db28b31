/* dx of four streams in bf16 with the parts of dfn and dweight, everything read once and written once.
 *
 * A warp keeps 32 columns of all streams and goes through tiles of 16 tokens; a thread has 8 columns of two tokens, 16 bytes at a time.
 * A warp asks for the boxes of its next tile, each as soon as that of this tile is in registers, so that a box has a whole tile's time.
 * fn^T du runs on tensor cores in TF32 with the columns permuted so that the result falls where the thread's columns are. The same
 * registers of x, transposed 8 by 8 between lanes, are the operand of dfn's product over tokens, whose sums stay in registers until the
 * end; du goes into it as the sum of two bf16.
 *
 * JOINED: dx is the gradient of what the sublayer in front merged. While it is in registers, rounded as it is written, it makes that
 * merge's gradient too: dy, and the slice's part of every token's dots. */
#include "model/cuda/boxes.cuh"
#include "model/cuda/gradient.cuh"

namespace {

enum {
    STREAMS = 4,
    THREADS = 256,
    WARPS = THREADS / WARP,
    STRIP = 32,                 /* columns of a warp */
    SLICE = GRADIENT_SLICE,     /* columns of a block */
    TILE = 16,
    PARTS = STRIP / 8,          /* products that make a strip's columns */
    BOX = 2,                    /* slots of a thread, of 16 bytes, in the box of a stream */
    BOX_BYTES = BOX * WARP * 16,
    SLOTS_OF_G = BOX * (STREAMS + 1),               /* where g begins, behind x and what came back */
    SLOTS_IN_FRONT = SLOTS_OF_G + BOX * STREAMS,    /* and the sublayer in front: x and y */
    RECORD_PIECES = RECORD / 4,
    KEPT = TILE * (RECORD + STREAMS),               /* floats of a tile: records, then post of the sublayer in front */
};

static_assert(SLICE == WARPS * STRIP, "a slice is what a block's warps keep");

/* mhc: one row of fn over all streams; hc: the same fn for every stream. */
template <int KIND> struct shape {
    static constexpr int rows = KIND == GRADIENT_HC ? STREAMS : 1;              /* of du, for a token */
    static constexpr int held = STREAMS / rows;                                 /* columns of fn behind a column of C */
    static constexpr int projections = KIND == GRADIENT_HC ? STREAMS + 2 : STREAMS * (STREAMS + 2);
    static constexpr int steps = (projections + 7) / 8;                         /* of products, 8 coefficients at a time */
    static constexpr int fragments = held * PARTS * WARP * steps;               /* of a warp */
};

/* A warp's barriers, each for what is asked for together. */
struct box_barriers {
    uint64_t mix, g, front;
};

/* Where things begin in shared memory, in pieces of 16 bytes. */
template <int KIND, bool JOINED> struct room {
    static constexpr int slots = SLOTS_IN_FRONT + (JOINED ? BOX * (STREAMS + 1) : 0);           /* of a thread: [WARPS][slots][WARP] */
    static constexpr int fn = WARPS * slots * WARP;                                             /* [WARPS][fragments] */
    static constexpr int kept = fn + WARPS * shape<KIND>::fragments / 2;                        /* [2][KEPT] */
    static constexpr int weight = kept + 2 * KEPT / 4;                                          /* [SLICE] */
    static constexpr int dots = weight + SLICE / 4;                                             /* [WARPS][TILE][GRADIENT_DOTS] */
    static constexpr int barriers = dots + (JOINED ? WARPS * TILE * GRADIENT_DOTS / 4 : 0);     /* [WARPS] sets of them */
    static constexpr int bytes = 16 * barriers + WARPS * (int)sizeof(box_barriers);
};

/* Boxes of a strip and a tile. */
struct strip_boxes {
    CUtensorMap x, incoming, g;
    CUtensorMap x_in_front, y_in_front;         /* joined */
};

__device__ __forceinline__ void make_barriers(box_barriers *barriers)
{
    make_barrier(&barriers->mix, 1);
    make_barrier(&barriers->g, 1);
    make_barrier(&barriers->front, 1);
    barriers_made();
}

__device__ __forceinline__ uint32_t transpose(uint32_t pair)
{
    uint32_t result;

    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
}

/* fn of the warp's strip as [held][part][WARP][steps] pairs: of step i, coefficients 2 (steps q + i) and the next, of the lane's
 * column. And the norm's weight of the slice. Eight lanes read a strip's row; half of it is asked for before any of that is used. */
template <int KIND> __device__ __forceinline__ void hold_weights(const gradient_args &a, float2 *fn, float *weight)
{
    typedef shape<KIND> S;
    constexpr int streams = S::held < 2 ? 1 : 2;        /* at a time */
    constexpr int rounds = streams * S::steps;          /* of four pairs of rows */
    int own = (int)(blockIdx.x * SLICE + threadIdx.x);
    int within = (int)threadIdx.x % 8 * 4;              /* the first of four columns */
    int column = own / STRIP * STRIP + within;
    size_t width = (size_t)S::held * (size_t)a.hidden;
    float of_weight = own < a.hidden ? __ldg(a.weight + own) : 0;

#pragma unroll 1
    for (int first = 0; first < S::held; first += streams) {
        float row[rounds][2][4] = {};

#pragma unroll
        for (int r = 0; r < rounds; r++) {
            int p = (r % S::steps * 4 + (int)threadIdx.x % WARP / 8) * 2;
            const float *from = a.fn + (size_t)p * width + (size_t)(first + r / S::steps) * (size_t)a.hidden + column;

            if (column < a.hidden && p < S::projections) {          /* projections are even */
                load_full<4>(from, row[r][0]);
                load_full<4>(from + width, row[r][1]);
            }
        }
#pragma unroll
        for (int r = 0; r < rounds; r++) {
            int pair = r % S::steps * 4 + (int)threadIdx.x % WARP / 8;  /* steps q + i */

#pragma unroll
            for (int k = 0; k < 4; k++) {
                float2 *part = fn + ((first + r / S::steps) * PARTS + (within + k) % 8 / 2) * WARP * S::steps;

                part[(within / 8 * 8 + k % 2 * 4) * S::steps + pair] = make_float2(tf32(row[r][0][k]), tf32(row[r][1][k]));
            }
        }
    }
    weight[threadIdx.x] = of_weight;
}

/* The block's copies of what the tile's tokens have of their own; 0 for those that are not there. */
template <bool JOINED> __device__ __forceinline__ void start_records(const gradient_args &a, uint4 *kept, int first)
{
    int i = (int)threadIdx.x;
    int at = first * RECORD_PIECES + i;
    int token = first + i - TILE * RECORD_PIECES;       /* whose post is copied */

    if (i < TILE * RECORD_PIECES) {
        copy16(kept + i, a.du + (size_t)at * 4, at < a.tokens * RECORD_PIECES);
    } else if (JOINED && i < TILE * (RECORD_PIECES + 1)) {
        copy16(kept + i, (const float *)a.merge.post + (size_t)min(token, a.tokens - 1) * STREAMS, token < a.tokens);
    }
}

/* Asks for the warp's boxes of a tile, by one lane, as soon as all lanes are done with those before: of an array of streams, and of one
 * without them unless it is NULL. Nothing where `tile` is negative. */
__device__ __forceinline__ void start_boxes(const CUtensorMap *streams, const CUtensorMap *row, uint4 *slots, uint64_t *barrier, int tile,
                                            int column)
{
    __syncwarp();
    if (threadIdx.x % WARP == 0 && tile >= 0) {
        expect_bytes(barrier, BOX_BYTES * (STREAMS + (row ? 1 : 0)));
        load_box(streams, column, tile * TILE, slots, barrier);
        if (row) {
            load_box(row, column, tile * TILE, slots + BOX * STREAMS * WARP, barrier);
        }
    }
}

/* What a warp holds of a tile: a thread's 8 columns of tokens row and row + 8. */
struct tile {
    uint4 x[2][STREAMS];
    float dz[2][8];
    int row;
    const float *record;        /* of token row; that of row + 8 lies 8 further */
    bool valid[2];
};

/* x and dz of the tile's columns; adds to dweight. */
__device__ __forceinline__ void take_tile(const gradient_args &a, const uint4 *slots, const float *records, int row, int column,
                                          const float *weight, tile *in, float (&dweight)[8])
{
    in->row = row;
    in->record = records + (int)threadIdx.x % WARP / 4 * RECORD;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float *record = in->record + half * 8 * RECORD;
        float4 pre = *(const float4 *)(record + RECORD_PRE);
        float rrms = record[RECORD_NORM_RRMS];
        float pull = record[RECORD_NORM_PULL];
        float of_stream[STREAMS] = {pre.x, pre.y, pre.z, pre.w};
        float z[8] = {};
        float value[8];

        in->valid[half] = column < a.hidden && row + half * 8 < a.tokens;
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            in->x[half][j] = slots[(j * BOX + half) * WARP];
            unpack(in->x[half][j], value);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                z[i] = fmaf(of_stream[j], value[i], z[i]);
            }
        }
        unpack(slots[(STREAMS * BOX + half) * WARP], value);
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            float4 w = *(const float4 *)(weight + i);
            float of_column[4] = {w.x, w.y, w.z, w.w};

#pragma unroll
            for (int k = 0; k < 4; k++) {
                dweight[i + k] = fmaf(value[i + k] * rrms, z[i + k], dweight[i + k]);
                in->dz[half][i + k] = rrms * (value[i + k] * of_column[k]) - pull * z[i + k];
            }
        }
    }
}

__device__ __forceinline__ uint32_t word_of(const uint4 &raw, int i)
{
    return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
}

/* du of the tile's tokens as the operand of the sum over tokens, in two parts. */
template <int KIND>
__device__ __forceinline__ void load_du_by_token(const float *records, int j, uint32_t (&upper)[shape<KIND>::steps][2],
                                                 uint32_t (&rest)[shape<KIND>::steps][2])
{
    typedef shape<KIND> S;
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int i = 0; i < S::steps; i++) {
        bool there = i * 8 + lane / 4 < S::projections;

#pragma unroll
        for (int half = 0; half < 2; half++) {
            int t = lane % 4 * 2 + half * 8;
            const float *du = records + t * RECORD + RECORD_DU + j * S::projections + i * 8 + lane / 4;
            float low = there ? du[0] : 0;
            float high = there ? du[RECORD] : 0;

            split_pair(low, high, &upper[i][half], &rest[i][half]);
        }
    }
}

/* dfn += x^T du of the tile's tokens: [held][16 of the strip's columns][8 coefficients]. */
template <int KIND>
__device__ __forceinline__ void add_weight_gradient(const tile &in, const float *records,
                                                    float (&dfn)[shape<KIND>::held][2][shape<KIND>::steps][4])
{
    typedef shape<KIND> S;
    uint32_t upper[S::steps][2], rest[S::steps][2];

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        if (j < S::rows) {
            load_du_by_token<KIND>(records, j, upper, rest);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t operand[4];

#pragma unroll
            for (int half = 0; half < 2; half++) {
                operand[half * 2] = transpose(word_of(in.x[half][j], 2 * h));
                operand[half * 2 + 1] = transpose(word_of(in.x[half][j], 2 * h + 1));
            }
#pragma unroll
            for (int i = 0; i < S::steps; i++) {
                float(&sum)[4] = dfn[j % S::held][h][i];

                multiply_bf16(sum, operand[0], operand[1], operand[2], operand[3], upper[i][0], upper[i][1]);
                multiply_bf16(sum, operand[0], operand[1], operand[2], operand[3], rest[i][0], rest[i][1]);
            }
        }
    }
}

/* du of both tokens as the operand of fn^T du. */
template <int KIND>
__device__ __forceinline__ void load_du(const tile &in, int j, float (&du)[shape<KIND>::steps][4])
{
    typedef shape<KIND> S;
    int quarter = (int)threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float2 *from = (const float2 *)(in.record + half * 8 * RECORD + RECORD_DU + j * S::projections) + quarter * S::steps;

#pragma unroll
        for (int i = 0; i < S::steps; i++) {
            float2 pair = (quarter * S::steps + i) * 2 < S::projections ? from[i] : make_float2(0, 0);

            du[i][half] = tf32(pair.x);
            du[i][half + 2] = tf32(pair.y);
        }
    }
}

/* dx of stream j, which takes x's place. */
template <int KIND>
__device__ __forceinline__ void write_stream(const gradient_args &a, tile *in, const float2 *fn, const uint4 *of_g,
                                             const float (&du)[shape<KIND>::steps][4], int j, int column)
{
    typedef shape<KIND> S;
    float spread[PARTS][4] = {};

#pragma unroll
    for (int part = 0; part < PARTS; part++) {
#pragma unroll
        for (int i = 0; i < S::steps; i++) {
            float2 pair = fn[(j % S::held * PARTS + part) * WARP * S::steps + i];

            multiply_tf32(spread[part], du[i], pair.x, pair.y);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float *record = in->record + half * 8 * RECORD;
        size_t t = (size_t)(in->row + half * 8);
        float4 row = *(const float4 *)(record + RECORD_COMB + j * STREAMS);
        float comb[STREAMS] = {row.x, row.y, row.z, row.w};
        float pre = record[RECORD_PRE + j];
        float pull = record[RECORD_PULL + j];
        float sum[8], value[8];

        unpack(in->x[half][j], value);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum[i] = fmaf(pre, in->dz[half][i], spread[i / 2][half * 2 + i % 2]);
            sum[i] = fmaf(-pull, value[i], sum[i]);
        }
#pragma unroll
        for (int k = 0; k < STREAMS; k++) {
            unpack(of_g[(k * BOX + half) * WARP], value);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                sum[i] = fmaf(comb[k], value[i], sum[i]);
            }
        }
        pack(sum, &in->x[half][j]);
        if (in->valid[half]) {
            *(uint4 *)((bf16 *)a.dx + (t * STREAMS + (size_t)j) * (size_t)a.hidden + column) = in->x[half][j];
        }
    }
}

/* dx of all streams. */
template <int KIND>
__device__ __forceinline__ void write_tile(const gradient_args &a, tile *in, const float2 *fn, const uint4 *of_g, int column)
{
    typedef shape<KIND> S;
    float du[S::steps][4];

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        if (j < S::rows) {
            load_du<KIND>(*in, j, du);
        }
        write_stream<KIND>(a, in, fn, of_g, du, j, column);
        __syncwarp();           /* keeps the streams' work apart: registers would not hold more of it at once */
    }
}

/* Of a token, the gradient of the merge in front: dy, and the dots of the warp's columns into `part` [TILE][GRADIENT_DOTS].
 * `in` has dx. */
__device__ __forceinline__ void merge_token(const gradient_args &a, const tile &in, const uint4 *in_front, const float *posts,
                                            int half, int column, float *part)
{
    int row = (int)threadIdx.x % WARP / 4 + half * 8;
    float4 of_token = *(const float4 *)(posts + row * STREAMS);
    float post[STREAMS] = {of_token.x, of_token.y, of_token.z, of_token.w};
    float grad[STREAMS][8], value[8], sum[8];
    float dot[GRADIENT_DOTS] = {};

    unpack(in_front[(STREAMS * BOX + half) * WARP], value);
#pragma unroll
    for (int k = 0; k < STREAMS; k++) {
        unpack(in.x[half][k], grad[k]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum[i] = k == 0 ? post[0] * grad[0][i] : fmaf(post[k], grad[k][i], sum[i]);
            dot[k] = fmaf(grad[k][i], value[i], dot[k]);
        }
    }
    if (in.valid[half]) {
        store_chunk<bf16, 8>((bf16 *)a.merge.dy + (size_t)(in.row + half * 8) * (size_t)a.hidden + column, sum);
    }
#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        unpack(in_front[(j * BOX + half) * WARP], value);
#pragma unroll
        for (int k = 0; k < STREAMS; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                dot[STREAMS + j * STREAMS + k] = fmaf(value[i], grad[k][i], dot[STREAMS + j * STREAMS + k]);
            }
        }
    }
    exchange_half<GRADIENT_DOTS / 2, 2>(dot);
    exchange_half<GRADIENT_DOTS / 4, 1>(dot);   /* lane q of a token's four keeps the sums of dots 5 q to 5 q + 4 */
#pragma unroll
    for (int i = 0; i < GRADIENT_DOTS / 4; i++) {
        part[row * GRADIENT_DOTS + (int)threadIdx.x % 4 * (GRADIENT_DOTS / 4) + i] = dot[i];
    }
}

__device__ __forceinline__ void merge_tile(const gradient_args &a, const tile &in, const uint4 *in_front, const float *posts,
                                           int column, float *part)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        merge_token(a, in, in_front, posts, half, column, part);
    }
}

__device__ __forceinline__ float4 add(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* The slice's part of the dots of tile `i`, if there is one: the sums over the warps' [WARPS][TILE][GRADIENT_DOTS], neighbours first. */
__device__ __forceinline__ void write_dots(const gradient_args &a, const float *parts, int i)
{
    int t = i * TILE + (int)threadIdx.x / (GRADIENT_DOTS / 4);
    int piece = (int)threadIdx.x % (GRADIENT_DOTS / 4);
    float *slice = a.dot_parts + (size_t)blockIdx.x * GRADIENT_DOTS * (size_t)a.tokens;
    float *target = slice + (size_t)(piece == 0 ? t : a.tokens + t * STREAMS + piece - 1) * STREAMS;
    float4 sum[WARPS];

    if ((int)threadIdx.x >= TILE * GRADIENT_DOTS / 4 || t >= a.tokens) {
        return;
    }
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        sum[w] = *(const float4 *)(parts + w * TILE * GRADIENT_DOTS + threadIdx.x * 4);
    }
    *(float4 *)target = add(add(add(sum[0], sum[1]), add(sum[2], sum[3])), add(add(sum[4], sum[5]), add(sum[6], sum[7])));
}

/* The warp's sums over its tokens, by way of where its share of fn was, so that whole lines go out. */
template <int KIND>
__device__ __forceinline__ void write_parts(const gradient_args &a, int begin, float *rows,
                                            const float (&dfn)[shape<KIND>::held][2][shape<KIND>::steps][4], float (&dweight)[8])
{
    typedef shape<KIND> S;
    int lane = (int)threadIdx.x % WARP;
    float *part = a.fn_parts + (size_t)blockIdx.y * S::projections * S::held * (size_t)a.hidden;

    __syncwarp();
#pragma unroll
    for (int j = 0; j < S::held; j++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int i = 0; i < S::steps; i++) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    int p = i * 8 + lane % 4 * 2 + k % 2;

                    if (p < S::projections) {
                        rows[(p * S::held + j) * STRIP + lane / 8 * 8 + (2 * h + k / 2) * 2 + lane / 4 % 2] = dfn[j][h][i][k];
                    }
                }
            }
        }
    }
    __syncwarp();
#pragma unroll 4
    for (int row = lane / 8; row < S::projections * S::held; row += WARP / 8) {
        int column = begin + lane % 8 * 4;

        if (column < a.hidden) {
            *(float4 *)(part + (size_t)row * (size_t)a.hidden + column) = *(const float4 *)(rows + row * STRIP + lane % 8 * 4);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int column = begin + lane * 8 + i;

        dweight[i] += __shfl_xor_sync(FULL_WARP, dweight[i], 4);
        dweight[i] += __shfl_xor_sync(FULL_WARP, dweight[i], 8);
        dweight[i] += __shfl_xor_sync(FULL_WARP, dweight[i], 16);
        if (lane < 4 && column < a.hidden) {
            a.weight_parts[(size_t)blockIdx.y * (size_t)a.hidden + column] = dweight[i];
        }
    }
}

/* Grid (slices of columns, groups of tokens); groups go backwards, the last states read before are still in the L2 cache. */
template <int KIND, bool JOINED>
__global__ void __launch_bounds__(THREADS, 1)
    state_gradient_kernel(const __grid_constant__ gradient_args a, const __grid_constant__ strip_boxes boxes)
{
    typedef shape<KIND> S;
    typedef room<KIND, JOINED> R;
    extern __shared__ __align__(128) uint4 shared[];
    int warp = (int)threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP;
    int begin = (int)blockIdx.x * SLICE + warp * STRIP;
    int column = begin + lane % 4 * 8;
    uint4 *box = shared + warp * R::slots * WARP;
    const uint4 *slots = box + lane;
    float2 *share = (float2 *)(shared + R::fn) + warp * S::fragments;        /* of fn */
    const float2 *fn = share + lane * S::steps;
    uint4 *kept = shared + R::kept;
    float *weight = (float *)(shared + R::weight);
    float *dots = (float *)(shared + R::dots);
    box_barriers *barriers = (box_barriers *)(shared + R::barriers) + warp;
    int i = (a.tokens + TILE - 1) / TILE - 1 - (int)blockIdx.y;
    float dfn[S::held][2][S::steps][4] = {};
    float dweight[8] = {};
    int turn = 0;               /* where `kept` is of this tile */

    if (lane == 0) {
        make_barriers(barriers);
    }
    start_boxes(&boxes.x, &boxes.incoming, box, &barriers->mix, i, begin);
    start_records<JOINED>(a, kept, i * TILE);
    start_boxes(&boxes.g, NULL, box + SLOTS_OF_G * WARP, &barriers->g, i, begin);
    if (JOINED) {
        start_boxes(&boxes.x_in_front, &boxes.y_in_front, box + SLOTS_IN_FRONT * WARP, &barriers->front, i, begin);
    }
    hold_weights<KIND>(a, share, weight);
    weight += warp * STRIP + lane % 4 * 8;
    for (int count = 0; i >= 0; i -= (int)gridDim.y, turn = KEPT / 4 - turn, count++) {
        const float *of_tile = (const float *)(kept + turn);
        int next = i - (int)gridDim.y;
        tile in;

        await_copies();
        __syncthreads();                /* the records are there, and the dots of the tile before */
        if (JOINED) {
            write_dots(a, dots, i + (int)gridDim.y);
        }
        await_turn(&barriers->mix, count);
        take_tile(a, slots, of_tile, i * TILE + lane / 4, column, weight, &in, dweight);
        start_boxes(&boxes.x, &boxes.incoming, box, &barriers->mix, next, begin);
        if (next >= 0) {
            start_records<JOINED>(a, kept + KEPT / 4 - turn, next * TILE);
        }
        add_weight_gradient<KIND>(in, of_tile, dfn);
        await_turn(&barriers->g, count);
        write_tile<KIND>(a, &in, fn, slots + SLOTS_OF_G * WARP, column);
        start_boxes(&boxes.g, NULL, box + SLOTS_OF_G * WARP, &barriers->g, next, begin);
        if (JOINED) {
            await_turn(&barriers->front, count);
            __syncthreads();            /* the dots of the tile before are read */
            merge_tile(a, in, slots + SLOTS_IN_FRONT * WARP, of_tile + TILE * RECORD, column, dots + warp * TILE * GRADIENT_DOTS);
            start_boxes(&boxes.x_in_front, &boxes.y_in_front, box + SLOTS_IN_FRONT * WARP, &barriers->front, next, begin);
        }
    }
    if (JOINED) {
        __syncthreads();
        write_dots(a, dots, i + (int)gridDim.y);
    }
    write_parts<KIND>(a, begin, (float *)share, dfn, dweight);
}

/* The boxes that warps take of an array [tokens, streams, hidden]. */
mhp_status map_boxes(const gradient_args *a, const void *state, int streams, CUtensorMap *map_out)
{
    mhp_cuda_boxes boxes = {state, a->tokens, streams, a->hidden, STRIP, TILE};

    return mhp_cuda_tensor_map(&boxes, map_out);
}

template <int KIND, bool JOINED> mhp_status launch(cudaStream_t stream, gradient_args *a)
{
    constexpr int bytes = room<KIND, JOINED>::bytes;
    static_assert(bytes <= MHP_CUDA_SHARED_OF_H100, "a block has no more");
    strip_boxes boxes = {};
    dim3 grid;

    MHP_RETURN_IF_ERROR(map_boxes(a, a->x, STREAMS, &boxes.x));
    MHP_RETURN_IF_ERROR(map_boxes(a, a->incoming, 1, &boxes.incoming));
    MHP_RETURN_IF_ERROR(map_boxes(a, a->g, STREAMS, &boxes.g));
    if (JOINED) {
        MHP_RETURN_IF_ERROR(map_boxes(a, a->merge.x, STREAMS, &boxes.x_in_front));
        MHP_RETURN_IF_ERROR(map_boxes(a, a->merge.y, 1, &boxes.y_in_front));
    }
    a->groups = gradient_groups(a->tokens, a->hidden, true);
    grid = dim3((unsigned)ceil_div(a->hidden, SLICE), (unsigned)a->groups);
    cudaFuncSetAttribute(state_gradient_kernel<KIND, JOINED>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    state_gradient_kernel<KIND, JOINED><<<grid, THREADS, (size_t)bytes, stream>>>(*a, boxes);
    return mhp_cuda_launched(JOINED ? "state_gradient joined" : "state_gradient");
}

template <int KIND> mhp_status launch_kind(cudaStream_t stream, gradient_args *a)
{
    return a->merge.dy ? launch<KIND, true>(stream, a) : launch<KIND, false>(stream, a);
}

}

bool state_gradient_tensor_serves(void)
{
    return mhp_cuda_serves_four() && mhp_cuda_has_90((const void *)state_gradient_kernel<GRADIENT_MHC, false>);
}

mhp_status state_gradient_tensor(cudaStream_t stream, int kind, gradient_args *a)
{
    return kind == GRADIENT_HC ? launch_kind<GRADIENT_HC>(stream, a) : launch_kind<GRADIENT_MHC>(stream, a);
}
