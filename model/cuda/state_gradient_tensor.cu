/* dx of four streams in bf16 with the parts of dfn and dweight, everything read once and written once.
 *
 * A warp keeps 32 columns of all streams and goes through tiles of 16 tokens; a thread has 8 columns of two tokens, 16 bytes at a time.
 * Each thread copies its own 16 bytes of the next tile into shared memory while it works on this one, so nobody waits for anybody.
 * fn^T du runs on tensor cores in TF32 with the columns permuted so that the result falls where the thread's columns are. The same
 * registers of x, transposed 8 by 8 between lanes, are the operand of dfn's product over tokens, whose sums stay in registers until the
 * end; du goes into it as the sum of two bf16. */
#include "model/cuda/gradient.cuh"

namespace {

enum {
    STREAMS = 4,
    THREADS = 256,
    WARPS = THREADS / WARP,
    STRIP = 32,                 /* columns of a warp */
    SLICE = WARPS * STRIP,      /* columns of a block */
    TILE = 16,
    PARTS = STRIP / 8,          /* products that make a strip's columns */
    SLOTS = 2 * (STREAMS + 1) + 2 * 2 * STREAMS,    /* a thread's copies: x and what came back, once; g twice */
    RECORD_PIECES = RECORD / 4,
};

/* mhc: one row of fn over all streams; hc: the same fn for every stream. */
template <int KIND> struct shape {
    static constexpr int rows = KIND == GRADIENT_HC ? STREAMS : 1;              /* of du, for a token */
    static constexpr int held = STREAMS / rows;                                 /* columns of fn behind a column of C */
    static constexpr int projections = KIND == GRADIENT_HC ? STREAMS + 2 : STREAMS * (STREAMS + 2);
    static constexpr int steps = (projections + 7) / 8;                         /* of products, 8 coefficients at a time */
    static constexpr int fragments = held * PARTS * WARP * steps;               /* of a warp */
};

__device__ __forceinline__ uint32_t transpose(uint32_t pair)
{
    uint32_t result;

    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
}

/* fn of the warp's strip as [held][part][WARP][steps] pairs: of step i, coefficients 2 (steps q + i) and the next, of the lane's
 * column. */
template <int KIND> __device__ __forceinline__ void hold_weights(const gradient_args &a, float2 *fn, int begin)
{
    typedef shape<KIND> S;
    size_t width = (size_t)S::held * (size_t)a.hidden;

#pragma unroll 16
    for (int i = (int)threadIdx.x % WARP; i < S::fragments; i += WARP) {
        int step = i % S::steps;
        int lane = i / S::steps % WARP;
        int part = i / S::steps / WARP % PARTS;
        int stream = i / S::steps / WARP / PARTS;
        int column = begin + lane / 8 * 8 + part * 2 + lane / 4 % 2;
        int p = (lane % 4 * S::steps + step) * 2;
        const float *from = a.fn + (size_t)p * width + (size_t)stream * (size_t)a.hidden + column;
        bool valid = column < a.hidden && p < S::projections;       /* projections are even */

        fn[i] = valid ? make_float2(tf32(__ldg(from)), tf32(__ldg(from + width))) : make_float2(0, 0);
    }
}

__device__ __forceinline__ void copy_async(uint4 *to, const bf16 *from, bool valid)
{
    unsigned target = (unsigned)__cvta_generic_to_shared(to);
    int bytes = valid ? 16 : 0;         /* the rest is filled with 0 */

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(bytes) : "memory");
}

/* Starts the copies of a tile into this thread's slots, WARP apart. */
__device__ __forceinline__ void start_tile(const gradient_args &a, uint4 *slots, int row, int column, int turn)
{
    size_t hidden = (size_t)a.hidden;
    bool valid = column < a.hidden;
    uint4 *of_g = slots + (2 * (STREAMS + 1) + turn * 2 * STREAMS) * WARP;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t t = (size_t)min(row + half * 8, a.tokens - 1);
        size_t at = t * STREAMS * hidden + (size_t)(valid ? column : 0);

#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            copy_async(slots + (half * (STREAMS + 1) + j) * WARP, (const bf16 *)a.x + at + (size_t)j * hidden, valid);
        }
        copy_async(slots + (half * (STREAMS + 1) + STREAMS) * WARP, (const bf16 *)a.incoming + t * hidden + (valid ? column : 0), valid);
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            copy_async(of_g + (half * STREAMS + j) * WARP, (const bf16 *)a.g + at + (size_t)j * hidden, valid);
        }
    }
}

/* The block's copies of the tile's records. */
__device__ __forceinline__ void start_records(const gradient_args &a, float *records, int first)
{
    int i = (int)threadIdx.x;

    if (i < TILE * RECORD_PIECES) {
        int t = min(first + i / RECORD_PIECES, a.tokens - 1);
        unsigned target = (unsigned)__cvta_generic_to_shared(records + i * 4);
        const float *from = a.du + (size_t)t * RECORD + i % RECORD_PIECES * 4;

        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(from) : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* What a warp holds of a tile: a thread's 8 columns of tokens row and row + 8. */
struct tile {
    uint4 x[2][STREAMS];
    float dz[2][8];
    int token[2];
    const float *record[2];
    bool valid[2];
};

/* x and dz of the tile's columns; adds to dweight. */
__device__ __forceinline__ void take_tile(const gradient_args &a, const uint4 *slots, const float *records, int row, int column,
                                          const float (&weight)[8], tile *in, float (&dweight)[8])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int t = min(row + half * 8, a.tokens - 1);
        const float *record = records + ((int)threadIdx.x % WARP / 4 + half * 8) * RECORD;
        float4 pre = *(const float4 *)(record + RECORD_PRE);
        float rrms = record[RECORD_NORM_RRMS];
        float pull = record[RECORD_NORM_PULL];
        float of_stream[STREAMS] = {pre.x, pre.y, pre.z, pre.w};
        float z[8] = {};
        float value[8];
        float factor;

        in->token[half] = t;
        in->record[half] = record;
        in->valid[half] = column < a.hidden && row + half * 8 < a.tokens;
        factor = in->valid[half] ? rrms : 0;
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            in->x[half][j] = slots[(half * (STREAMS + 1) + j) * WARP];
            unpack(in->x[half][j], value);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                z[i] = fmaf(of_stream[j], value[i], z[i]);
            }
        }
        unpack(slots[(half * (STREAMS + 1) + STREAMS) * WARP], value);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            dweight[i] = fmaf(value[i] * factor, z[i], dweight[i]);
            in->dz[half][i] = rrms * (value[i] * weight[i]) - pull * z[i];
        }
    }
}

__device__ __forceinline__ uint32_t word_of(const uint4 &raw, int i)
{
    return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
}

/* du of the tile's tokens as the operand of the sum over tokens, in two parts; `left` tokens of the tile are there. */
template <int KIND>
__device__ __forceinline__ void load_du_by_token(const float *records, int left, int j, uint32_t (&upper)[shape<KIND>::steps][2],
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
            float low = there && t < left ? du[0] : 0;
            float high = there && t + 1 < left ? du[RECORD] : 0;

            split_pair(low, high, &upper[i][half], &rest[i][half]);
        }
    }
}

/* dfn += x^T du of the tile's tokens: [held][16 of the strip's columns][8 coefficients]. */
template <int KIND>
__device__ __forceinline__ void add_weight_gradient(const tile &in, const float *records, int left,
                                                    float (&dfn)[shape<KIND>::held][2][shape<KIND>::steps][4])
{
    typedef shape<KIND> S;
    uint32_t upper[S::steps][2], rest[S::steps][2];

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        if (j < S::rows) {
            load_du_by_token<KIND>(records, left, j, upper, rest);
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
        const float2 *from = (const float2 *)(in.record[half] + RECORD_DU + j * S::projections) + quarter * S::steps;

#pragma unroll
        for (int i = 0; i < S::steps; i++) {
            float2 pair = (quarter * S::steps + i) * 2 < S::projections ? from[i] : make_float2(0, 0);

            du[i][half] = tf32(pair.x);
            du[i][half + 2] = tf32(pair.y);
        }
    }
}

/* dx of stream j. */
template <int KIND>
__device__ __forceinline__ void write_stream(const gradient_args &a, const tile &in, const float2 *fn, const uint4 *of_g,
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
        int t = in.token[half];
        float4 row = *(const float4 *)(in.record[half] + RECORD_COMB + j * STREAMS);
        float comb[STREAMS] = {row.x, row.y, row.z, row.w};
        float pre = in.record[half][RECORD_PRE + j];
        float pull = in.record[half][RECORD_PULL + j];
        float sum[8], value[8];

        unpack(in.x[half][j], value);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum[i] = fmaf(pre, in.dz[half][i], spread[i / 2][half * 2 + i % 2]);
            sum[i] = fmaf(-pull, value[i], sum[i]);
        }
#pragma unroll
        for (int k = 0; k < STREAMS; k++) {
            unpack(of_g[(half * STREAMS + k) * WARP], value);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                sum[i] = fmaf(comb[k], value[i], sum[i]);
            }
        }
        if (in.valid[half]) {
            store_chunk<bf16, 8>((bf16 *)a.dx + ((size_t)t * STREAMS + (size_t)j) * (size_t)a.hidden + column, sum);
        }
    }
}

/* The warp's sums over its tokens, by way of its copies' place, so that whole lines go out. */
template <int KIND>
__device__ __forceinline__ void write_parts(const gradient_args &a, int begin, float *room,
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
                        room[(p * S::held + j) * STRIP + lane / 8 * 8 + (2 * h + k / 2) * 2 + lane / 4 % 2] = dfn[j][h][i][k];
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
            *(float4 *)(part + (size_t)row * (size_t)a.hidden + column) = *(const float4 *)(room + row * STRIP + lane % 8 * 4);
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
template <int KIND> __global__ void __launch_bounds__(THREADS, 1) state_gradient_kernel(gradient_args a)
{
    typedef shape<KIND> S;
    extern __shared__ uint4 shared[];   /* [WARPS][SLOTS][WARP], [WARPS] fragments of fn, two tiles' records */
    int warp = (int)threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP;
    int begin = (int)blockIdx.x * SLICE + warp * STRIP;
    int column = begin + lane % 4 * 8;
    uint4 *slots = shared + warp * SLOTS * WARP + lane;
    float2 *fn = (float2 *)(shared + WARPS * SLOTS * WARP) + warp * S::fragments;
    float *records = (float *)((float2 *)(shared + WARPS * SLOTS * WARP) + WARPS * S::fragments);
    int first = (a.tokens + TILE - 1) / TILE - 1 - (int)blockIdx.y;
    float dfn[S::held][2][S::steps][4] = {};
    float dweight[8] = {};
    float weight[8] = {};
    int turn = 0;

    start_tile(a, slots, first * TILE + lane / 4, column, 0);
    start_records(a, records, first * TILE);
    hold_weights<KIND>(a, fn, begin);
    if (column < a.hidden) {
        load_full<8>(a.weight + column, weight);
    }
    fn += lane * S::steps;
    for (int i = first; i >= 0; i -= (int)gridDim.y, turn ^= 1) {
        const uint4 *of_g = slots + (2 * (STREAMS + 1) + turn * 2 * STREAMS) * WARP;
        const float *of_tile = records + turn * TILE * RECORD;
        int row = i * TILE + lane / 4;
        float du[S::steps][4];
        tile in;

        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        take_tile(a, slots, of_tile, row, column, weight, &in, dweight);
        if (i >= (int)gridDim.y) {
            start_tile(a, slots, row - (int)gridDim.y * TILE, column, turn ^ 1);
            start_records(a, records + (turn ^ 1) * TILE * RECORD, (i - (int)gridDim.y) * TILE);
        }
        add_weight_gradient<KIND>(in, of_tile, a.tokens - i * TILE, dfn);
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            if (j < S::rows) {
                load_du<KIND>(in, j, du);
            }
            write_stream<KIND>(a, in, fn, of_g, du, j, column);
        }
    }
    write_parts<KIND>(a, begin, (float *)(shared + warp * SLOTS * WARP), dfn, dweight);
}

template <int KIND> mhp_status launch(cudaStream_t stream, gradient_args *a)
{
    int bytes = (int)sizeof(uint4) * WARPS * SLOTS * WARP + (int)sizeof(float2) * WARPS * shape<KIND>::fragments +
                (int)sizeof(float) * 2 * TILE * RECORD;
    dim3 grid;

    a->groups = gradient_groups(a->tokens, a->hidden, true);
    grid = dim3((unsigned)ceil_div(a->hidden, SLICE), (unsigned)a->groups);
    cudaFuncSetAttribute(state_gradient_kernel<KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    state_gradient_kernel<KIND><<<grid, THREADS, (size_t)bytes, stream>>>(*a);
    return mhp_cuda_launched("state_gradient");
}

}

mhp_status state_gradient_tensor(cudaStream_t stream, int kind, gradient_args *a)
{
    return kind == GRADIENT_HC ? launch<GRADIENT_HC>(stream, a) : launch<GRADIENT_MHC>(stream, a);
}
