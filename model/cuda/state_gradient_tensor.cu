/* dx of four mhc streams in bf16 with the parts of dfn and dweight, everything read once and written once.
 *
 * A warp keeps 32 columns of all streams and goes through tiles of 16 tokens; a thread has 8 columns of two tokens, 16 bytes at a time.
 * fn^T du runs on tensor cores in TF32 with the columns permuted so that the result falls where the thread's columns are. The same
 * registers of x, transposed 8 by 8 between lanes, are the operand of dfn's product over tokens, whose sums stay in registers until the
 * end; du goes into it as the sum of two bf16. */
#include "model/cuda/gradient.cuh"

namespace {

enum {
    STREAMS = 4,
    PROJECTIONS = STREAMS * (STREAMS + 2),
    THREADS = 256,
    WARPS = THREADS / WARP,
    STRIP = 32,                 /* columns of a warp */
    SLICE = WARPS * STRIP,      /* columns of a block */
    TILE = 16,
    STEPS = PROJECTIONS / 8,    /* of products over coefficients, 8 at a time */
    PARTS = STRIP / 8,          /* products that make a strip's columns */
};

__device__ __forceinline__ uint32_t transpose(uint32_t pair)
{
    uint32_t result;

    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
}

/* fn of the warp's strip as [stream][part][WARP][STEPS] pairs: of step i, coefficients 6q + 2i and the next, of the lane's column. */
__device__ __forceinline__ void hold_weights(const gradient_args &a, float2 *fn, int begin)
{
    for (int i = (int)threadIdx.x % WARP; i < STREAMS * PARTS * WARP * STEPS; i += WARP) {
        int step = i % STEPS;
        int lane = i / STEPS % WARP;
        int part = i / STEPS / WARP % PARTS;
        int stream = i / STEPS / WARP / PARTS;
        int column = begin + lane / 8 * 8 + part * 2 + lane / 4 % 2;
        int p = lane % 4 * (2 * STEPS) + step * 2;
        const float *from = a.fn + ((size_t)p * STREAMS + (size_t)stream) * (size_t)a.hidden + column;

        fn[i] = column < a.hidden ? make_float2(tf32(from[0]), tf32(from[(size_t)STREAMS * (size_t)a.hidden])) : make_float2(0, 0);
    }
}

/* What a warp holds of a tile: a thread's 8 columns of tokens row and row + 8. */
struct tile {
    uint4 x[2][STREAMS], g[2][STREAMS], incoming[2];
    float dz[2][8];
    size_t token[2];
    bool valid[2];
};

__device__ __forceinline__ void load_tile(const gradient_args &a, int row, int column, tile *in)
{
    size_t hidden = (size_t)a.hidden;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t t = (size_t)min(row + half * 8, a.tokens - 1);
        const bf16 *x = (const bf16 *)a.x + t * STREAMS * hidden + column;
        const bf16 *g = (const bf16 *)a.g + t * STREAMS * hidden + column;
        bool inside = column < a.hidden;

        in->token[half] = t;
        in->valid[half] = inside && row + half * 8 < a.tokens;
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            in->x[half][j] = inside ? load_once<bf16, 8>(x + (size_t)j * hidden) : make_uint4(0, 0, 0, 0);
        }
        in->incoming[half] = inside ? load_once<bf16, 8>((const bf16 *)a.incoming + t * hidden + column) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            in->g[half][j] = inside ? load_once<bf16, 8>(g + (size_t)j * hidden) : make_uint4(0, 0, 0, 0);
        }
    }
}

/* dz of the tile's columns; adds to dweight. */
__device__ __forceinline__ void mix_gradient_columns(const gradient_args &a, int column, tile *in, float (&dweight)[8])
{
    float weight[8] = {};

    if (column < a.hidden) {
        load_full<8>(a.weight + column, weight);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float4 pre = __ldg((const float4 *)a.pre + in->token[half]);
        float rrms = __ldg(a.norm_rrms + in->token[half]);
        float pull = a.norm_pull[in->token[half]];
        float factor = in->valid[half] ? rrms : 0;
        float of_stream[STREAMS] = {pre.x, pre.y, pre.z, pre.w};
        float z[8] = {};
        float value[8];

#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            unpack(in->x[half][j], value);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                z[i] = fmaf(of_stream[j], value[i], z[i]);
            }
        }
        unpack(in->incoming[half], value);
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

/* dfn += x^T du of the tile's tokens: [stream][16 of the strip's columns][8 coefficients]. */
__device__ __forceinline__ void add_weight_gradient(const gradient_args &a, const tile &in, int row, float (&dfn)[STREAMS][2][STEPS][4])
{
    int lane = (int)threadIdx.x % WARP;
    int first = row - lane / 4 + lane % 4 * 2;          /* token of this lane's operand */
    uint32_t upper[STEPS][2], rest[STEPS][2];

#pragma unroll
    for (int i = 0; i < STEPS; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int t = first + half * 8;
            const float *du = a.du + (size_t)t * PROJECTIONS + i * 8 + lane / 4;
            float low = t < a.tokens ? du[0] : 0;
            float high = t + 1 < a.tokens ? du[PROJECTIONS] : 0;

            split_pair(low, high, &upper[i][half], &rest[i][half]);
        }
    }
#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t operand[4];

#pragma unroll
            for (int half = 0; half < 2; half++) {
                operand[half * 2] = transpose(word_of(in.x[half][j], 2 * h));
                operand[half * 2 + 1] = transpose(word_of(in.x[half][j], 2 * h + 1));
            }
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                multiply_bf16(dfn[j][h][i], operand[0], operand[1], operand[2], operand[3], upper[i][0], upper[i][1]);
                multiply_bf16(dfn[j][h][i], operand[0], operand[1], operand[2], operand[3], rest[i][0], rest[i][1]);
            }
        }
    }
}

/* du of both tokens as the operand of fn^T du. */
__device__ __forceinline__ void load_du(const gradient_args &a, const tile &in, float (&du)[STEPS][4])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float2 *from = (const float2 *)(a.du + in.token[half] * PROJECTIONS + threadIdx.x % 4 * (2 * STEPS));

#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            float2 pair = from[i];

            du[i][half] = tf32(pair.x);
            du[i][half + 2] = tf32(pair.y);
        }
    }
}

/* dx of stream j. */
__device__ __forceinline__ void write_stream(const gradient_args &a, const tile &in, const float2 *fn, const float (&du)[STEPS][4], int j,
                                             int column)
{
    float spread[PARTS][4] = {};

#pragma unroll
    for (int part = 0; part < PARTS; part++) {
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            float2 pair = fn[(j * PARTS + part) * WARP * STEPS + i];

            multiply_tf32(spread[part], du[i], pair.x, pair.y);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t t = in.token[half];
        float4 row = __ldg((const float4 *)a.comb + t * STREAMS + j);
        float comb[STREAMS] = {row.x, row.y, row.z, row.w};
        float pre = __ldg(a.pre + t * STREAMS + j);
        float pull = a.pull[t];
        float sum[8], value[8];

        unpack(in.x[half][j], value);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum[i] = fmaf(pre, in.dz[half][i], spread[i / 2][half * 2 + i % 2]);
            sum[i] = fmaf(-pull, value[i], sum[i]);
        }
#pragma unroll
        for (int k = 0; k < STREAMS; k++) {
            unpack(in.g[half][k], value);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                sum[i] = fmaf(comb[k], value[i], sum[i]);
            }
        }
        if (in.valid[half]) {
            store_chunk<bf16, 8>((bf16 *)a.dx + (t * STREAMS + (size_t)j) * (size_t)a.hidden + column, sum);
        }
    }
}

/* The warp's sums over its tokens. */
__device__ __forceinline__ void write_parts(const gradient_args &a, int begin, const float (&dfn)[STREAMS][2][STEPS][4],
                                            float (&dweight)[8])
{
    int lane = (int)threadIdx.x % WARP;
    float *part = a.fn_parts + (size_t)blockIdx.y * PROJECTIONS * STREAMS * (size_t)a.hidden;

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    int column = begin + lane / 8 * 8 + (2 * h + k / 2) * 2 + lane / 4 % 2;
                    int p = i * 8 + lane % 4 * 2 + k % 2;

                    if (column < a.hidden) {
                        part[(size_t)(p * STREAMS + j) * (size_t)a.hidden + column] = dfn[j][h][i][k];
                    }
                }
            }
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
__global__ void __launch_bounds__(THREADS, 1) state_gradient_kernel(gradient_args a)
{
    extern __shared__ float2 fn[];
    int warp = (int)threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP;
    int begin = (int)blockIdx.x * SLICE + warp * STRIP;
    int column = begin + lane % 4 * 8;
    float2 *held = fn + warp * (STREAMS * PARTS * WARP * STEPS);
    float dfn[STREAMS][2][STEPS][4] = {};
    float dweight[8] = {};

    if (begin >= a.hidden) {
        return;
    }
    hold_weights(a, held, begin);
    __syncwarp();
    held += lane * STEPS;
    for (int i = (a.tokens + TILE - 1) / TILE - 1 - (int)blockIdx.y; i >= 0; i -= (int)gridDim.y) {
        int row = i * TILE + lane / 4;
        float du[STEPS][4];
        tile in;

        load_tile(a, row, column, &in);
        mix_gradient_columns(a, column, &in, dweight);
        add_weight_gradient(a, in, row, dfn);
        load_du(a, in, du);
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            write_stream(a, in, held, du, j, column);
        }
    }
    write_parts(a, begin, dfn, dweight);
}

}

mhp_status state_gradient_tensor(cudaStream_t stream, gradient_args *a)
{
    int bytes = (int)sizeof(float2) * WARPS * STREAMS * PARTS * WARP * STEPS;
    dim3 grid;

    a->groups = gradient_groups(a->tokens, a->hidden, true);
    grid = dim3((unsigned)ceil_div(a->hidden, SLICE), (unsigned)a->groups);
    cudaFuncSetAttribute(state_gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    state_gradient_kernel<<<grid, THREADS, (size_t)bytes, stream>>>(*a);
    return mhp_cuda_launched("state_gradient");
}
