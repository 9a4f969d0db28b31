/* The first pass: merge and projection.
 *
 * A block holds its slice of fn's 256 columns on chip, and four warps share a tile of 8 tokens, each with 64 columns of every stream,
 * so that whole cache lines are read and written, and what is near in memory is asked for at once. What a warp merged goes out as it
 * is, and by way of its own place in shared memory into the product's operand. From where a thread took its inputs it starts copying
 * the next: that much is always under way.
 *
 * The teams of a block take a round of neighbouring tiles at a time. As many blocks as the card holds for every slice share its rounds,
 * going through the tokens together; multiprocessors that this leaves without a block take the first rounds of all slices, one slice
 * after the other, where that is faster (split_rounds). A part is the sum of a tile and a slice, whoever forms it. */
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
    ROUND = TEAMS * TOKENS,     /* tokens that a block takes at a time */
    REFILL = 2,                 /* rounds that another slice's fragments cost */
};

/* Shared memory of a block: all of it. */
struct shared_layout {
    uint4 fragments[TEAM][FRAGMENTS][WARP];                     /* of fn, ready as operands */
    uint4 stage[WARPS][STREAMS / 2][TOKENS][LANES];             /* merged states of two streams */
    uint4 inputs[WARPS][OWN][STREAMS + 1][WARP];                /* a lane's of the next tile: x of every stream, y */
    float4 mixing[TEAMS][2][TOKENS][MIXING / 4];                /* comb and post of this tile and the next */
    float part[TEAMS][TEAM][TOKENS][SLOT];
};

static_assert(sizeof(shared_layout) <= MHP_CUDA_SHARED_OF_H100, "a block has no more");

struct project_args {
    state_parts parts;
    const float *fn;            /* [PROJECTIONS, width] */
    int tokens, hidden, width;
    const bf16 *x, *y;          /* with merge: the state before and F's output */
    const float *post, *comb;   /* of the merge */
    bf16 *x_next;
    int rounds;                 /* of a slice */
    int groups;                 /* blocks of every slice, which share all rounds but the first `head` */
    int spare, head;            /* blocks that share the first `head` rounds of all slices */
};

/* A block's rounds: every `stride`th of [begin, end) in a list of the rounds [first, first + length) of slice after slice. */
struct walk {
    int slice, first, length;   /* slice: the list's first */
    int begin, end, stride;
};

__device__ __forceinline__ walk walk_of(const project_args &a)
{
    int block = (int)blockIdx.x;
    int shared = a.parts.slices * a.groups;
    int firsts = a.parts.slices * a.head;

    if (block < shared) {
        return {block % a.parts.slices, a.head, a.rounds - a.head, block / a.parts.slices, a.rounds - a.head, a.groups};
    }
    block -= shared;
    return {0, 0, a.head, block * firsts / a.spare, (block + 1) * firsts / a.spare, 1};
}

/* Where a thread is in round i of its block's walk; tile < 0 behind the last. */
struct place {
    int slice, tile, column;
};

__device__ __forceinline__ place place_of(const walk &w, int i)
{
    int warp = (int)threadIdx.x / WARP;
    int slice = w.slice + i / w.length;

    return {slice, i < w.end ? (w.first + i % w.length) * TEAMS + warp / TEAM : -1,
            slice * SLICE + warp % TEAM * COLUMNS + (int)threadIdx.x % LANES * CHUNK};
}

/* Four 8 x 8 matrices of bf16; this lane's row of them lies at `from`. */
__device__ __forceinline__ void load_matrices(const void *from, uint32_t (&out)[4])
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(from))
                 : "memory");
}

/* This lane's operands of fn for the 16 columns from `column` on, of one stream. */
__device__ __forceinline__ void load_fragment(const project_args &a, int stream, int column, uint4 (&fragment)[PIECES])
{
    int k = column + (int)threadIdx.x % 4 * 2;
    const float *from = a.fn + (size_t)((int)threadIdx.x % WARP / 4) * (size_t)a.width + (size_t)stream * (size_t)a.hidden + k;
    uint32_t upper[3][2], rest[3][2];

#pragma unroll
    for (int r = 0; r < 3; r++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 w = make_float2(0, 0);

            if (k + h * 8 < a.hidden) {
                w = __ldg((const float2 *)(from + (size_t)(r * 8) * (size_t)a.width + h * 8));
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

/* One of the lane's tokens, from its inputs to the next state, which goes out; starts copying the inputs of the place ahead, if there
 * is one. */
template <bool MERGE>
__device__ __forceinline__ void merge_token(const project_args &a, uint4 (*inputs)[WARP], const float4 (*mixing)[MIXING / 4],
                                            const place &at, const place &ahead, int o, uint4 (&next)[STREAMS], float *square)
{
    int lane = (int)threadIdx.x % WARP;
    int own = o * (WARP / LANES) + lane / LANES;
    int token = at.tile * TOKENS + own;
    uint4 x[STREAMS], y = {};

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        x[j] = inputs[j][lane];
    }
    if (MERGE) {
        y = inputs[STREAMS][lane];
    }
    if (ahead.tile >= 0) {
        start_token<MERGE>(a, inputs, ahead.tile, o, ahead.column);
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
        } else if (at.column < a.hidden && token < a.tokens) {
            *(uint4 *)(a.x_next + ((size_t)token * STREAMS + (size_t)j) * (size_t)a.hidden + at.column) = next[j];
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
__device__ __forceinline__ void write_part(const project_args &a, const float (*part)[TOKENS][SLOT], int slice, int tile)
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
            part_of(a.parts, slice, token)[column] = sum;
        }
    }
}

/* A team without tokens in the slice's last round goes through it as well, writing nothing. */
template <bool MERGE> __global__ void __launch_bounds__(THREADS, 1) project_kernel(const __grid_constant__ project_args a)
{
    extern __shared__ __align__(16) char dynamic[];
    shared_layout *shared = (shared_layout *)dynamic;
    int warp = (int)threadIdx.x / WARP;
    int team = warp / TEAM;
    walk w = walk_of(a);
    place at = place_of(w, w.begin);
    int held = -1;              /* the slice whose fragments are there */
    int turn = 0;

    await_previous();
#pragma unroll
    for (int o = 0; o < OWN; o++) {
        start_token<MERGE>(a, shared->inputs[warp][o], at.tile, o, at.column);
    }
    if (MERGE) {
        start_mixing(a, shared->mixing[team][0], at.tile);
    }
    for (int i = w.begin; i < w.end; i += w.stride, turn ^= 1) {
        place ahead = place_of(w, i + w.stride);
        uint4 next[OWN][STREAMS];
        float sum[PIECES][4] = {};
        float square[OWN];

        if (at.slice != held) {
            held = at.slice;
            __syncthreads();                    /* all teams are done with the slice before */
            fill_fragments(a, shared, held * SLICE);
            __syncthreads();
        }
        await_copies();
        barrier(1 + team, TEAM * WARP);         /* the coefficients are there, and the last tile's parts are read */
#pragma unroll
        for (int o = 0; o < OWN; o++) {
            merge_token<MERGE>(a, shared->inputs[warp][o], shared->mixing[team][turn], at, ahead, o, next[o], &square[o]);
        }
        if (MERGE && ahead.tile >= 0) {
            start_mixing(a, shared->mixing[team][turn ^ 1], ahead.tile);
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
        write_part(a, shared->part[team], at.slice, at.tile);
        at = ahead;
    }
}

/* Rounds' time of the busiest of the spare blocks, the refills of its share included. */
int spare_rounds(int slices, int spare, int head)
{
    int share = ceil_div(slices * head, spare);

    return share + REFILL * ceil_div(share - 1, head);
}

/* Groups and spare blocks. With `head` first rounds for the spare blocks, those of a slice take (rounds - head) / groups, and a spare
 * one about slices * head / spare and a refill for every slice it enters: where these are equal all are done together. That is chosen
 * if it takes fewer rounds than the blocks of the slices alone. */
void split_rounds(int processors, project_args *a)
{
    int slices = a->parts.slices;
    int groups = max_of(1, processors / slices);
    int spare = max_of(0, processors - groups * slices);
    int refills, busiest;

    a->rounds = ceil_div(a->tokens, ROUND);
    busiest = ceil_div(a->rounds, groups);
    if (spare > 0) {
        refills = REFILL * ceil_div(slices, spare);
        a->head = max_of(0, spare * (a->rounds - groups * refills) / (slices * groups + spare));
    }
    if (a->head > 0) {
        int with_spare = max_of(ceil_div(a->rounds - a->head, groups), spare_rounds(slices, spare, a->head));

        a->head = with_spare < busiest ? a->head : 0;
        busiest = min_of(with_spare, busiest);
    }
    a->spare = a->head > 0 ? spare : 0;
    a->groups = ceil_div(a->rounds - a->head, busiest);
}

template <bool MERGE> mhp_status launch_project(cudaStream_t stream, project_args *a)
{
    split_rounds(mhp_cuda_processors(), a);
    cudaFuncSetAttribute(project_kernel<MERGE>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(shared_layout));
    launch_behind(project_kernel<MERGE>, dim3((unsigned)(a->parts.slices * a->groups + a->spare)), THREADS, sizeof(shared_layout), stream,
                  *a);
    return mhp_cuda_launched("project");
}

}

static size_t bytes_of_token(int slices)
{
    return (size_t)slices * SLOT * sizeof(float);
}

int project_four_tokens(int hidden)
{
    return (int)(MHP_CUDA_SCRATCH_BYTES / bytes_of_token(ceil_div(hidden, SLICE))) / ROUND * ROUND;
}

mhp_status project_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix, state_parts *parts_out)
{
    const mhp_connection_args *c = &mix->connection;
    project_args a = {};
    mhp_cuda_scratch scratch;

    MHP_RETURN_IF_ERROR(mhp_cuda_scratch_get(stream, &scratch));
    a.parts = *parts_out = {(float *)scratch.memory, ceil_div(c->hidden, SLICE), c->tokens};
    a.fn = (const float *)c->fn;
    a.tokens = c->tokens;
    a.hidden = c->hidden;
    a.width = STREAMS * c->hidden;
    if (!merge) {
        a.x = (const bf16 *)c->x;
        return launch_project<false>(stream, &a);
    }
    a.x = (const bf16 *)merge->x;
    a.y = (const bf16 *)merge->y;
    a.post = (const float *)merge->post;
    a.comb = (const float *)merge->comb;
    a.x_next = (bf16 *)merge->x_next;
    return launch_project<true>(stream, &a);
}
