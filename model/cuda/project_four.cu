/* The first pass: merge and projection.
 *
 * A block holds its slice of fn's 256 columns on chip, and four warps share a tile of 8 tokens, each with 64 columns of every stream,
 * so that whole cache lines are read and written, and what is near in memory is asked for at once. What a warp merged goes out as it
 * is, and by way of its own place in shared memory into the product's operand. From where a thread took its inputs it starts copying
 * the next: that much is always under way. */
#include "model/cuda/four.cuh"

namespace {

enum {
    TOKENS = 8,                 /* of a tile */
    COLUMNS = 64,               /* of every stream, of a warp */
    TEAM = 4,                   /* warps that share a tile */
    SLICE = TEAM * COLUMNS,     /* columns of every stream, of a block */
    LANES = COLUMNS / CHUNK,    /* that share a token */
    OWN = TOKENS * LANES / WARP,                /* tokens of a lane */
    STEPS = COLUMNS / 16,       /* products of a stream's columns */
    PIECES = 3,                 /* operands of a step: 16 rows of fn, what bf16 leaves of them, 8 more with theirs */
    FRAGMENTS = STREAMS * STEPS * PIECES,       /* that a lane has */
    MIXING = STREAMS * STREAMS + STREAMS,       /* floats of a token's comb and post */
    TEAMS = 4,                  /* of a block */
    WARPS = TEAMS * TEAM,
    THREADS = WARPS * WARP,
};

/* Shared memory of a block: all of it. */
struct shared_layout {
    uint4 fragments[TEAM][FRAGMENTS][WARP];                     /* of fn, ready as operands */
    uint4 stage[WARPS][STREAMS / 2][TOKENS][LANES];             /* merged states of two streams */
    uint4 inputs[WARPS][OWN][STREAMS + 1][WARP];                /* a lane's of the next tile: x of every stream, y */
    float4 mixing[TEAMS][2][TOKENS][MIXING / 4];                /* comb and post of this tile and the next */
    float part[TEAMS][TEAM][TOKENS][SLOT];
};

struct project_args {
    projection p;
    int tokens, hidden;
    const bf16 *x, *y;          /* with merge: the state before and F's output */
    const float *post, *comb;   /* of the merge */
    bf16 *x_next;
};

__device__ __forceinline__ void copy16(void *to, const void *from, bool valid)
{
    int bytes = valid ? 16 : 0;         /* the rest is filled with 0 */

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes)
                 : "memory");
}

/* Four 8 x 8 matrices of bf16; this lane's row of them lies at `from`. */
__device__ __forceinline__ void load_matrices(const void *from, uint32_t (&out)[4])
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(from))
                 : "memory");
}

/* This lane's operands of fn for the 16 columns from `column` on, of one stream. */
__device__ __forceinline__ void load_fragment(const project_args &a, int stream, int column, uint4 (&fragment)[PIECES])
{
    int k = column + (int)threadIdx.x % 4 * 2;
    const float *from = a.p.fn + (size_t)((int)threadIdx.x % WARP / 4) * (size_t)a.p.width + (size_t)stream * (size_t)a.hidden + k;
    uint32_t upper[3][2], rest[3][2];

#pragma unroll
    for (int r = 0; r < 3; r++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 w = make_float2(0, 0);

            if (k + h * 8 < a.hidden) {
                w = __ldg((const float2 *)(from + (size_t)(r * 8) * (size_t)a.p.width + h * 8));
            }
            split_pair(w.x, w.y, &upper[r][h], &rest[r][h]);
        }
    }
    fragment[0] = make_uint4(upper[0][0], upper[1][0], upper[0][1], upper[1][1]);
    fragment[1] = make_uint4(rest[0][0], rest[1][0], rest[0][1], rest[1][1]);
    fragment[2] = make_uint4(upper[2][0], rest[2][0], upper[2][1], rest[2][1]);
}

__device__ __forceinline__ void fill_fragments(const project_args &a, shared_layout *shared, int begin)
{
#pragma unroll 4
    for (int i = (int)threadIdx.x / WARP; i < TEAM * STREAMS * STEPS; i += WARPS) {
        int step = i % (STREAMS * STEPS);
        uint4 fragment[PIECES];

        load_fragment(a, step / STEPS, begin + i / (STREAMS * STEPS) * COLUMNS + step % STEPS * 16, fragment);
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            shared->fragments[i / (STREAMS * STEPS)][step * PIECES + piece][threadIdx.x % WARP] = fragment[piece];
        }
    }
}

/* Starts copying a tile's comb and post, by a team. */
__device__ __forceinline__ void start_mixing(const project_args &a, float4 (*mixing)[MIXING / 4], int tile)
{
    int i = (int)threadIdx.x % (TEAM * WARP);
    size_t token = (size_t)min(tile * TOKENS + i / (MIXING / 4), a.tokens - 1);
    int piece = i % (MIXING / 4);

    if (i < TOKENS * MIXING / 4) {
        copy16(&mixing[0][i], piece < STREAMS ? a.comb + (token * STREAMS + (size_t)piece) * STREAMS : a.post + token * STREAMS, true);
    }
}

/* Starts copying the lane's columns of one of its tokens of a tile. */
template <bool MERGE>
__device__ __forceinline__ void start_token(const project_args &a, uint4 (*inputs)[WARP], int tile, int o, int column)
{
    int lane = (int)threadIdx.x % WARP;
    size_t token = (size_t)min(tile * TOKENS + o * (WARP / LANES) + lane / LANES, a.tokens - 1);
    bool valid = column < a.hidden;
    size_t at = valid ? (size_t)column : 0;

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        copy16(&inputs[j][lane], a.x + (token * STREAMS + (size_t)j) * (size_t)a.hidden + at, valid);
    }
    if (MERGE) {
        copy16(&inputs[STREAMS][lane], a.y + token * (size_t)a.hidden + at, valid);
    }
}

/* One of the lane's tokens, from its inputs to the next state, which goes out; starts copying the inputs of tile `ahead`, if there is
 * one (>= 0). */
template <bool MERGE>
__device__ __forceinline__ void merge_token(const project_args &a, uint4 (*inputs)[WARP], const float4 (*mixing)[MIXING / 4], int tile,
                                            int ahead, int o, int column, uint4 (&next)[STREAMS], float *square)
{
    int lane = (int)threadIdx.x % WARP;
    int own = o * (WARP / LANES) + lane / LANES;
    int token = tile * TOKENS + own;
    uint4 x[STREAMS], y = {};

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        x[j] = inputs[j][lane];
    }
    if (MERGE) {
        y = inputs[STREAMS][lane];
    }
    if (ahead >= 0) {
        start_token<MERGE>(a, inputs, ahead, o, column);
    }
    if (MERGE) {
        const float *comb = (const float *)mixing[own];

        merge_chunk<bf16, STREAMS, CHUNK>(x, y, comb, comb + STREAMS * STREAMS, next);
    }
    *square = 0;
#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        if (!MERGE) {
            next[j] = x[j];
        } else if (column < a.hidden && token < a.tokens) {
            *(uint4 *)(a.x_next + ((size_t)token * STREAMS + (size_t)j) * (size_t)a.hidden + column) = next[j];
        }
        add_squares(next[j], square);
    }
}

/* Two streams of the lane's tokens into the warp's stage: chunks in an order that keeps the reads of a product's operand apart. */
__device__ __forceinline__ void put_states(uint4 (*stage)[TOKENS][LANES], const uint4 (&next)[OWN][STREAMS], int first)
{
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int o = 0; o < OWN; o++) {
        int own = o * (WARP / LANES) + lane / LANES;

#pragma unroll
        for (int j = 0; j < STREAMS / 2; j++) {
            stage[j][own][(lane % LANES) ^ own] = next[o][first + j];
        }
    }
}

/* Adds the product of the two staged streams with fn, an operand's share to each of the sums. */
__device__ __forceinline__ void project_states(const uint4 (*stage)[TOKENS][LANES], const uint4 (*fragments)[WARP], int first,
                                               float (&sum)[PIECES][4])
{
    int lane = (int)threadIdx.x % WARP;
    int token = lane % TOKENS;

#pragma unroll
    for (int j = 0; j < STREAMS / 2; j++) {
#pragma unroll
        for (int step = 0; step < STEPS; step += 2) {
            uint32_t state[4];

            load_matrices(&stage[j][token][(step * 2 + lane / TOKENS) ^ token], state);
#pragma unroll
            for (int s = 0; s < 2; s++) {
#pragma unroll
                for (int i = 0; i < PIECES; i++) {
                    uint4 piece = fragments[((first + j) * STEPS + step + s) * PIECES + i][lane];

                    multiply_bf16(sum[i], piece.x, piece.y, piece.z, piece.w, state[2 * s], state[2 * s + 1]);
                }
            }
        }
    }
}

/* The warp's part of a tile's sums. */
__device__ __forceinline__ void put_part(float (*part)[SLOT], const float (&sum)[PIECES][4], const float (&square)[OWN])
{
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        float *to = part[lane % 4 * 2 + i] + lane / 4;

        to[0] = sum[0][i] + sum[1][i];
        to[8] = sum[0][2 + i] + sum[1][2 + i];
        to[16] = sum[2][i] + sum[2][2 + i];
    }
#pragma unroll
    for (int o = 0; o < OWN; o++) {
        float total = square[o];

#pragma unroll
        for (int mask = LANES / 2; mask > 0; mask /= 2) {
            total += __shfl_xor_sync(FULL_WARP, total, mask);
        }
        if (lane % LANES == 0) {
            part[o * (WARP / LANES) + lane / LANES][PROJECTIONS] = total;
        }
    }
}

/* The team's, which is the slice's. */
__device__ __forceinline__ void write_part(const project_args &a, const float (*part)[TOKENS][SLOT], int tile)
{
    for (int i = (int)threadIdx.x % (TEAM * WARP); i < TOKENS * (PROJECTIONS + 1); i += TEAM * WARP) {
        int own = i / (PROJECTIONS + 1);
        int column = i % (PROJECTIONS + 1);
        int token = tile * TOKENS + own;
        float sum = part[0][own][column];

#pragma unroll
        for (int w = 1; w < TEAM; w++) {
            sum += part[w][own][column];
        }
        if (token < a.tokens) {
            *(column == PROJECTIONS ? square_of(a.p, (int)blockIdx.x, token) : part_of(a.p, (int)blockIdx.x, token) + column) = sum;
        }
    }
}

/* Grid (slices of columns, groups of tiles). */
template <bool MERGE> __global__ void __launch_bounds__(THREADS, 1) project_kernel(const __grid_constant__ project_args a)
{
    extern __shared__ __align__(16) char dynamic[];
    shared_layout *shared = (shared_layout *)dynamic;
    int warp = (int)threadIdx.x / WARP;
    int team = warp / TEAM;
    int column = (int)blockIdx.x * SLICE + warp % TEAM * COLUMNS + (int)threadIdx.x % LANES * CHUNK;
    int tiles = (a.tokens + TOKENS - 1) / TOKENS;
    int stride = (int)gridDim.y * TEAMS;
    int tile = (int)blockIdx.y * TEAMS + team;
    int turn = 0;

    if (tile < tiles) {
#pragma unroll
        for (int o = 0; o < OWN; o++) {
            start_token<MERGE>(a, shared->inputs[warp][o], tile, o, column);
        }
        if (MERGE) {
            start_mixing(a, shared->mixing[team][0], tile);
        }
    }
    fill_fragments(a, shared, (int)blockIdx.x * SLICE);
    __syncthreads();
    for (; tile < tiles; tile += stride, turn ^= 1) {
        int ahead = tile + stride < tiles ? tile + stride : -1;
        uint4 next[OWN][STREAMS];
        float sum[PIECES][4] = {};
        float square[OWN];

        asm volatile("cp.async.wait_all;" ::: "memory");
        barrier(1 + team, TEAM * WARP);         /* the coefficients are there, and the last tile's parts are read */
#pragma unroll
        for (int o = 0; o < OWN; o++) {
            merge_token<MERGE>(a, shared->inputs[warp][o], shared->mixing[team][turn], tile, ahead, o, column, next[o], &square[o]);
        }
        if (MERGE && ahead >= 0) {
            start_mixing(a, shared->mixing[team][turn ^ 1], ahead);
        }
#pragma unroll
        for (int first = 0; first < STREAMS; first += STREAMS / 2) {
            __syncwarp();
            put_states(shared->stage[warp], next, first);
            __syncwarp();
            project_states(shared->stage[warp], shared->fragments[warp % TEAM], first, sum);
        }
        put_part(shared->part[team][warp % TEAM], sum, square);
        barrier(1 + team, TEAM * WARP);
        write_part(a, shared->part[team], tile);
    }
}

template <bool MERGE> mhp_status launch_project(cudaStream_t stream, const project_args *a)
{
    int teams = max_of(1, mhp_cuda_processors() / a->p.slices) * TEAMS;
    int tiles = ceil_div(a->tokens, TOKENS);
    int rounds = ceil_div(tiles, teams);
    dim3 grid((unsigned)a->p.slices, (unsigned)ceil_div(ceil_div(tiles, rounds), TEAMS));

    cudaFuncSetAttribute(project_kernel<MERGE>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(shared_layout));
    project_kernel<MERGE><<<grid, THREADS, sizeof(shared_layout), stream>>>(*a);
    return mhp_cuda_launched("project");
}

/* `normed` has room for the parts of all slices but the first: a slice's columns take SLICE / 2 floats there. */
projection sliced(const mhp_mix_args *mix)
{
    const mhp_connection_args *c = &mix->connection;
    projection p = {};

    p.width = STREAMS * c->hidden;
    p.fn = (const float *)c->fn;
    p.first = (float *)c->projection;
    p.first_square = (float *)c->rrms;
    p.rest = (char *)mix->normed;
    p.rest_bytes = (size_t)c->hidden * sizeof(bf16);
    p.slices = ceil_div(c->hidden, SLICE);
    return p;
}

}

mhp_status project_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix, projection *p)
{
    project_args a = {};

    a.p = *p = sliced(mix);
    a.tokens = mix->connection.tokens;
    a.hidden = mix->connection.hidden;
    if (!merge) {
        a.x = (const bf16 *)mix->connection.x;
        return launch_project<false>(stream, &a);
    }
    a.x = (const bf16 *)merge->x;
    a.y = (const bf16 *)merge->y;
    a.post = (const float *)merge->post;
    a.comb = (const float *)merge->comb;
    a.x_next = (bf16 *)merge->x_next;
    return launch_project<true>(stream, &a);
}
