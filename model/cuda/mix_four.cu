/* Mix, and merge with the mix behind it, of four mhc streams in bf16, in two passes over the state and a small one between them.
 *
 * The first merges and projects: a block holds its slice of fn's columns on chip, and a warp goes through the slice 8 tokens and 64
 * columns of every stream at a time, so that it reads and writes whole cache lines. What it merged goes out as it is, and by way of
 * the warp's own place in shared memory into the product's operand; meanwhile the next inputs come.
 * The second sums the slices' parts. The third mixes, a block for one or two tokens, and a few blocks run Sinkhorn beside. Blocks go
 * backwards through the tokens: the last states that the first pass wrote are still in the L2 cache. */
#include "model/cuda/project.cuh"

namespace {

enum {
    STREAMS = 4,
    PROJECTIONS = STREAMS * (STREAMS + 2),
    SLOT = PROJECTIONS + 4,     /* floats of a token's part: the projection, the square sum, three of nothing */
    TOKENS = 8,                 /* of a warp's tile */
    COLUMNS = 64,               /* of every stream, at a time */
    CHUNK = 8,                  /* columns of a thread: 16 bytes */
    LANES = COLUMNS / CHUNK,    /* that share a token */
    OWN = TOKENS * LANES / WARP,                /* tokens of a lane */
    STEPS = COLUMNS / 16,       /* products of a stream's columns */
    PIECES = 3,                 /* operands of a step: 16 rows of fn, what bf16 leaves of them, 8 more with theirs */
    FRAGMENTS = STREAMS * STEPS * PIECES,       /* that a lane has of COLUMNS columns */
    MIXING = STREAMS * STREAMS + STREAMS,       /* floats of a token's comb and post */
    THREADS = 512,
    WARPS = THREADS / WARP,
    SHARED_MAX = 227 * 1024,
    STAGE = STREAMS * TOKENS * LANES,           /* of 16 bytes, as are these; of a warp: its merged states */
    MIXINGS = 2 * TOKENS * MIXING / 4,          /* and the coefficients of this tile and the next */
    STRIPS_MOST = (SHARED_MAX / 16 - WARPS * (STAGE + MIXINGS)) / (FRAGMENTS * WARP),
    SLICES_MAX = 32,
    GATHER_THREADS = 128,       /* of a block of the second pass */
    GATHER_LANES = 8,           /* that share a token */
    MIX_THREADS_MAX = 512,      /* that share a token's row in the third */
};

struct project_args {
    projection p;               /* slice_width: columns of each stream */
    int tokens, hidden;
    const bf16 *x, *y;          /* with merge: the state before and F's output */
    const float *post, *comb;   /* of the merge */
    bf16 *x_next;
};

/* The part of slice `slice`; that of slice 0 lies where the kept projection does, without the square sum. */
__device__ __forceinline__ float *part_of(const projection &p, int slice, int token)
{
    return slice == 0 ? p.first + (size_t)token * PROJECTIONS
                      : (float *)(p.rest + (size_t)token * p.rest_bytes) + (slice - 1) * SLOT;
}

__device__ __forceinline__ float *square_of(const projection &p, int slice, int token)
{
    return slice == 0 ? p.first_square + token : part_of(p, slice, token) + PROJECTIONS;
}

__device__ __forceinline__ void copy16(void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from) : "memory");
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

/* The slice's columns of fn as [strip][stream][step][piece][lane]. */
__device__ __forceinline__ void fill_fragments(const project_args &a, uint4 *fragments, int begin, int strips)
{
#pragma unroll 4
    for (int i = (int)threadIdx.x / WARP; i < strips * STREAMS * STEPS; i += WARPS) {
        uint4 *to = fragments + i * PIECES * WARP + threadIdx.x % WARP;
        uint4 fragment[PIECES];

        load_fragment(a, i / STEPS % STREAMS, begin + i / STEPS / STREAMS * COLUMNS + i % STEPS * 16, fragment);
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            to[piece * WARP] = fragment[piece];
        }
    }
}

/* Starts copying a tile's comb and post, MIXING floats a token. */
__device__ __forceinline__ void start_mixing(const project_args &a, uint4 *mixing, int tile)
{
    for (int i = (int)threadIdx.x % WARP; i < TOKENS * MIXING / 4; i += WARP) {
        size_t token = (size_t)min(tile * TOKENS + i / (MIXING / 4), a.tokens - 1);
        int piece = i % (MIXING / 4);

        copy16(mixing + i, piece < STREAMS ? a.comb + (token * STREAMS + (size_t)piece) * STREAMS : a.post + token * STREAMS);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* A lane's columns of its tokens of a tile. */
template <bool MERGE> struct tile_input {
    uint4 x[OWN][STREAMS], y[MERGE ? OWN : 1];
};

template <bool MERGE> __device__ __forceinline__ void load_tile(const project_args &a, int tile, int column, tile_input<MERGE> *in)
{
    bool valid = column < a.hidden;

#pragma unroll
    for (int o = 0; o < OWN; o++) {
        int lane_token = o * (WARP / LANES) + (int)threadIdx.x % WARP / LANES;
        size_t token = (size_t)min(tile * TOKENS + lane_token, a.tokens - 1);

#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            const bf16 *from = a.x + (token * STREAMS + (size_t)j) * (size_t)a.hidden + column;

            in->x[o][j] = valid ? load_once<bf16, CHUNK>(from) : make_uint4(0, 0, 0, 0);
        }
        if (MERGE) {
            in->y[o] = valid ? load_once<bf16, CHUNK>(a.y + token * (size_t)a.hidden + column) : make_uint4(0, 0, 0, 0);
        }
    }
}

/* A thread's 8 columns of a token's next state, of every stream. */
__device__ __forceinline__ void merge_columns(const uint4 (&x)[STREAMS], uint4 y, const float *mixing, uint4 (&next)[STREAMS])
{
    float sum[STREAMS][CHUNK];
    float value[CHUNK];
    float4 factor = *(const float4 *)(mixing + STREAMS * STREAMS);
    float of_stream[STREAMS] = {factor.x, factor.y, factor.z, factor.w};

    unpack(y, value);
#pragma unroll
    for (int k = 0; k < STREAMS; k++) {
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            sum[k][i] = of_stream[k] * value[i];
        }
    }
#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        float4 row = *(const float4 *)(mixing + j * STREAMS);
        float comb[STREAMS] = {row.x, row.y, row.z, row.w};

        unpack(x[j], value);
#pragma unroll
        for (int k = 0; k < STREAMS; k++) {
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                sum[k][i] = fmaf(comb[k], value[i], sum[k][i]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < STREAMS; k++) {
        pack(sum[k], &next[k]);
    }
}

/* Merges a lane's tokens, writes them out, and into the warp's stage: [stream][token][chunk], chunks in an order that keeps the reads
 * of a product's operand apart. */
template <bool MERGE>
__device__ __forceinline__ void merge_tile(const project_args &a, const tile_input<MERGE> &in, const float *mixing, uint4 *stage, int tile,
                                           int column, float (&square)[OWN])
{
#pragma unroll
    for (int o = 0; o < OWN; o++) {
        int lane_token = o * (WARP / LANES) + (int)threadIdx.x % WARP / LANES;
        int token = tile * TOKENS + lane_token;
        uint4 *to = stage + lane_token * LANES + (((int)threadIdx.x % LANES) ^ lane_token);
        uint4 next[STREAMS];

        if (MERGE) {
            merge_columns(in.x[o], in.y[o], mixing + lane_token * MIXING, next);
        }
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            if (!MERGE) {
                next[j] = in.x[o][j];
            } else if (column < a.hidden && token < a.tokens) {
                *(uint4 *)(a.x_next + ((size_t)token * STREAMS + (size_t)j) * (size_t)a.hidden + column) = next[j];
            }
            to[j * TOKENS * LANES] = next[j];
            add_squares(next[j], &square[o]);
        }
    }
}

/* The product of the staged states with fn, an operand's share in each of the sums. */
__device__ __forceinline__ void project_tile(const uint4 *stage, const uint4 *fragment, float (&sum)[PIECES][4])
{
    int lane = (int)threadIdx.x % WARP;
    int token = lane % TOKENS;

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
#pragma unroll
        for (int step = 0; step < STEPS; step += 2) {
            uint32_t state[4];

            load_matrices(stage + (j * TOKENS + token) * LANES + ((step * 2 + lane / TOKENS) ^ token), state);
#pragma unroll
            for (int s = 0; s < 2; s++) {
                const uint4 *from = fragment + (j * STEPS + step + s) * PIECES * WARP;

#pragma unroll
                for (int i = 0; i < PIECES; i++) {
                    uint4 piece = from[i * WARP];

                    multiply_bf16(sum[i], piece.x, piece.y, piece.z, piece.w, state[2 * s], state[2 * s + 1]);
                }
            }
        }
    }
}

/* The slice's part of a tile's sums. */
__device__ __forceinline__ void write_part(const project_args &a, int slice, int tile, const float (&sum)[PIECES][4],
                                           const float (&square)[OWN])
{
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int token = tile * TOKENS + lane % 4 * 2 + i;
        float *to = part_of(a.p, slice, token) + lane / 4;

        if (token < a.tokens) {
            to[0] = sum[0][i] + sum[1][i];
            to[8] = sum[0][2 + i] + sum[1][2 + i];
            to[16] = sum[2][i] + sum[2][2 + i];
        }
    }
#pragma unroll
    for (int o = 0; o < OWN; o++) {
        int token = tile * TOKENS + o * (WARP / LANES) + lane / LANES;
        float total = square[o];

#pragma unroll
        for (int mask = LANES / 2; mask > 0; mask /= 2) {
            total += __shfl_xor_sync(FULL_WARP, total, mask);
        }
        if (lane % LANES == 0 && token < a.tokens) {
            *square_of(a.p, slice, token) = total;
        }
    }
}

/* Grid (slices of columns, groups of tiles). */
template <bool MERGE> __global__ void __launch_bounds__(THREADS, 1) project_kernel(const __grid_constant__ project_args a)
{
    extern __shared__ uint4 shared[];
    int warp = (int)threadIdx.x / WARP;
    int begin = (int)blockIdx.x * a.p.slice_width;
    int strips = (min(a.p.slice_width, a.hidden - begin) + COLUMNS - 1) / COLUMNS;
    int own = begin + (int)threadIdx.x % LANES * CHUNK;
    int tiles = (a.tokens + TOKENS - 1) / TOKENS;
    int stride = (int)gridDim.y * WARPS;
    int tile = (int)blockIdx.y * WARPS + warp;
    uint4 *stage = shared + warp * STAGE;
    uint4 *mixing = shared + WARPS * STAGE + warp * MIXINGS;
    uint4 *fragments = shared + WARPS * (STAGE + MIXINGS);
    int turn = 0;
    tile_input<MERGE> in;

    if (tile < tiles) {
        load_tile<MERGE>(a, tile, own, &in);
        if (MERGE) {
            start_mixing(a, mixing, tile);
        }
    }
    fill_fragments(a, fragments, begin, strips);
    __syncthreads();
    for (; tile < tiles; tile += stride, turn ^= 1) {
        const uint4 *fragment = fragments + threadIdx.x % WARP;
        float sum[PIECES][4] = {};
        float square[OWN] = {};

        if (MERGE) {
            asm volatile("cp.async.wait_all;" ::: "memory");
            __syncwarp();
            if (tile + stride < tiles) {
                start_mixing(a, mixing + (turn ^ 1) * (MIXINGS / 2), tile + stride);
            }
        }
        for (int strip = 0; strip < strips; strip++, fragment += FRAGMENTS * WARP) {
            merge_tile<MERGE>(a, in, (const float *)(mixing + turn * (MIXINGS / 2)), stage, tile, own + strip * COLUMNS, square);
            if (strip + 1 < strips) {
                load_tile<MERGE>(a, tile, own + (strip + 1) * COLUMNS, &in);
            } else if (tile + stride < tiles) {
                load_tile<MERGE>(a, tile + stride, own, &in);
            }
            __syncwarp();
            project_tile(stage, fragment, sum);
            __syncwarp();
        }
        write_part(a, (int)blockIdx.x, tile, sum, square);
    }
}

/* Groups of tiles for `slices` slices: one block a multiprocessor, with equally much to do. */
int tile_groups(int slices, int tiles)
{
    int groups = max_of(1, mhp_cuda_processors() / slices);
    int rounds = ceil_div(tiles, groups * WARPS);

    return max_of(1, ceil_div(tiles, rounds * WARPS));
}

/* Strips of a slice, so that the busiest warp has the least to do. A round costs about half a strip beside its strips, filling shared
 * memory about as much as a round. */
int strips_of_slice(int strips, int tiles, int most, int slices_most)
{
    int best = most;
    double best_cost = 1e30;

    for (int candidate = 1; candidate <= most; candidate++) {
        int slices = ceil_div(strips, candidate);
        int rounds = ceil_div(tiles, tile_groups(slices, tiles) * WARPS);
        double cost = rounds * (candidate + 0.5) + candidate;

        if (slices <= slices_most && cost < best_cost) {
            best_cost = cost;
            best = candidate;
        }
    }
    return best;
}

template <bool MERGE> mhp_status launch_project(cudaStream_t stream, const project_args *a)
{
    int strips = a->p.slice_width / COLUMNS;
    size_t bytes = sizeof(uint4) * (size_t)(WARPS * (STAGE + MIXINGS) + strips * FRAGMENTS * WARP);
    dim3 grid((unsigned)a->p.slices, (unsigned)tile_groups(a->p.slices, ceil_div(a->tokens, TOKENS)));

    cudaFuncSetAttribute(project_kernel<MERGE>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_MAX);
    project_kernel<MERGE><<<grid, THREADS, bytes, stream>>>(*a);
    return mhp_cuda_launched("project");
}

/* `normed` has room for the parts of all slices but the first: half a float for every column. */
projection sliced(const mhp_mix_args *mix)
{
    const mhp_connection_args *c = &mix->connection;
    projection p = {};
    int strips = ceil_div(c->hidden, COLUMNS);
    int slices_most = min_of(SLICES_MAX, 1 + c->hidden / 2 / SLOT);

    p.rows_of_token = 1;
    p.rows = c->tokens;
    p.width = STREAMS * c->hidden;
    p.projections = PROJECTIONS;
    p.slot = SLOT;
    p.x = c->x;
    p.fn = (const float *)c->fn;
    p.first = (float *)c->projection;
    p.first_square = (float *)c->rrms;
    p.rest = (char *)mix->normed;
    p.rest_bytes = (size_t)c->hidden * sizeof(bf16);
    p.slice_width = COLUMNS * strips_of_slice(strips, ceil_div(mhp_connection_whole(c), TOKENS), min_of(strips, STRIPS_MOST), slices_most);
    p.slices = ceil_div(c->hidden, p.slice_width);
    return p;
}

/* ---- Coefficients and mix ---- */

struct mix_args {
    projection p;
    int tokens, hidden, iterations;
    float norm_epsilon, hc_epsilon;
    const bf16 *x;
    const float *base, *scale, *weight;
    float *pre, *post, *comb, *norm_rrms;
    bf16 *z, *normed;
};

/* All slices' parts of a block's tokens, in order, and the pre coefficients; what is kept for the gradient. */
__global__ void __launch_bounds__(GATHER_THREADS) gather_kernel(const __grid_constant__ mix_args a)
{
    int token = (int)(blockIdx.x * GATHER_THREADS + threadIdx.x) / GATHER_LANES;
    int piece = (int)threadIdx.x % GATHER_LANES;
    float4 sum = make_float4(0, 0, 0, 0);
    float rrms;

    if (token < a.tokens && piece <= PROJECTIONS / 4) {
#pragma unroll 8
        for (int slice = 0; slice < a.p.slices; slice++) {
            float4 part = make_float4(0, 0, 0, 0);

            if (piece == PROJECTIONS / 4) {
                part.x = *square_of(a.p, slice, token);
            } else {
                part = *(const float4 *)(part_of(a.p, slice, token) + piece * 4);
            }
            sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
        }
    }
    rrms = 1.0f / sqrtf(__shfl_sync(FULL_WARP, sum.x, PROJECTIONS / 4, GATHER_LANES) / (float)a.p.width + a.norm_epsilon);
    if (token >= a.tokens) {
        return;
    }
    if (piece < PROJECTIONS / 4) {
        *(float4 *)(a.p.first + (size_t)token * PROJECTIONS + piece * 4) = sum;
    } else if (piece == PROJECTIONS / 4) {
        a.p.first_square[token] = rrms;
    }
    if (piece == 0) {
        float u[STREAMS] = {sum.x, sum.y, sum.z, sum.w};
        float pre[STREAMS];

#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            pre[j] = sigmoid(a.scale[0] * (u[j] * rrms) + a.base[j]) + a.hc_epsilon;
        }
        *(float4 *)(a.pre + (size_t)token * STREAMS) = make_float4(pre[0], pre[1], pre[2], pre[3]);
    }
}

/* comb and post of one thread's token, from the kept projection. */
__device__ __forceinline__ void make_mixing(const mix_args &a, int token)
{
    const float *u = a.p.first + (size_t)token * PROJECTIONS;
    float rrms = a.p.first_square[token];
    float m[STREAMS * STREAMS], post[STREAMS];

    load_full<STREAMS>(u + STREAMS, post);
    load_full<STREAMS * STREAMS>(u + 2 * STREAMS, m);
#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        post[j] = 2.0f * sigmoid(a.scale[1] * (post[j] * rrms) + a.base[STREAMS + j]);
    }
    *(float4 *)(a.post + (size_t)token * STREAMS) = make_float4(post[0], post[1], post[2], post[3]);
#pragma unroll
    for (int i = 0; i < STREAMS * STREAMS; i++) {
        m[i] = a.scale[2] * (m[i] * rrms) + a.base[2 * STREAMS + i];
    }
    softmax_rows<STREAMS>(m);
    sinkhorn<STREAMS>(m, a.iterations, a.hc_epsilon, NULL);
#pragma unroll
    for (int i = 0; i < STREAMS * STREAMS; i += 4) {
        *(float4 *)(a.comb + (size_t)token * (STREAMS * STREAMS) + i) = make_float4(m[i], m[i + 1], m[i + 2], m[i + 3]);
    }
}

/* z of 8 columns; returns their square sum. */
__device__ __forceinline__ float mix_columns(const uint4 (&x)[STREAMS], float4 pre, float (&z)[CHUNK])
{
    float of_stream[STREAMS] = {pre.x, pre.y, pre.z, pre.w};
    float square = 0;

#pragma unroll
    for (int j = 0; j < STREAMS; j++) {
        float value[CHUNK];

        unpack(x[j], value);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            z[i] = j == 0 ? of_stream[0] * value[i] : fmaf(of_stream[j], value[i], z[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
        square = fmaf(z[i], z[i], square);
    }
    return square;
}

/* The first blocks run Sinkhorn, a token in every thread; nobody waits for it. The others mix T tokens each; a thread has C chunks of
 * each, blockDim.x chunks apart. */
template <int T, int C> __global__ void __launch_bounds__(MIX_THREADS_MAX) mix_kernel(const __grid_constant__ mix_args a)
{
    __shared__ float squares[T][MIX_THREADS_MAX / WARP];
    int first = (int)(gridDim.x - 1 - blockIdx.x) * T;
    int warps = (int)blockDim.x / WARP;
    uint4 x[T][C][STREAMS];
    float z[T][C][CHUNK];

    if (first >= a.tokens) {
        int token = (int)(blockIdx.x * blockDim.x + threadIdx.x);

        if (token < a.tokens) {
            make_mixing(a, token);
        }
        return;
    }

#pragma unroll
    for (int t = 0; t < T; t++) {
        const bf16 *from = a.x + (size_t)min(first + t, a.tokens - 1) * (size_t)(STREAMS * a.hidden);

#pragma unroll
        for (int c = 0; c < C; c++) {
            int column = (int)(threadIdx.x + c * blockDim.x) * CHUNK;

#pragma unroll
            for (int j = 0; j < STREAMS; j++) {
                x[t][c][j] = column < a.hidden ? load_once<bf16, CHUNK>(from + (size_t)j * (size_t)a.hidden + column)
                                               : make_uint4(0, 0, 0, 0);
            }
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        float4 pre = __ldg((const float4 *)(a.pre + (size_t)min(first + t, a.tokens - 1) * STREAMS));
        float square = 0;

#pragma unroll
        for (int c = 0; c < C; c++) {
            int column = (int)(threadIdx.x + c * blockDim.x) * CHUNK;

            square += mix_columns(x[t][c], pre, z[t][c]);
            if (a.z && first + t < a.tokens && column < a.hidden) {
                store_chunk<bf16, CHUNK>(a.z + (size_t)(first + t) * (size_t)a.hidden + column, z[t][c]);
            }
        }
        square = warp_sum(square);
        if (threadIdx.x % WARP == 0) {
            squares[t][threadIdx.x / WARP] = square;
        }
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < T; t++) {
        float sum = 0;
        float rrms;

        for (int w = 0; w < warps; w++) {
            sum += squares[t][w];
        }
        rrms = 1.0f / sqrtf(sum / (float)a.hidden + a.norm_epsilon);
        if (threadIdx.x == 0 && first + t < a.tokens) {
            a.norm_rrms[first + t] = rrms;
        }
#pragma unroll
        for (int c = 0; c < C; c++) {
            int column = (int)(threadIdx.x + c * blockDim.x) * CHUNK;
            float weight[CHUNK];

            if (column < a.hidden && first + t < a.tokens) {
                load_full<CHUNK>(a.weight + column, weight);
#pragma unroll
                for (int i = 0; i < CHUNK; i++) {
                    z[t][c][i] = z[t][c][i] * rrms * weight[i];
                }
                store_chunk<bf16, CHUNK>(a.normed + (size_t)(first + t) * (size_t)a.hidden + column, z[t][c]);
            }
        }
    }
}

template <int T, int C> mhp_status launch_mix(cudaStream_t stream, const mix_args *a)
{
    int threads = ceil_div(ceil_div(ceil_div(a->hidden, CHUNK), C), WARP) * WARP;

    int blocks = ceil_div(a->tokens, T) + ceil_div(a->tokens, threads);

    mix_kernel<T, C><<<(unsigned)blocks, (unsigned)threads, 0, stream>>>(*a);
    return mhp_cuda_launched("mix");
}

mix_args mix_args_of(const mhp_mix_args *mix, const projection *p)
{
    const mhp_connection_args *c = &mix->connection;

    return {*p,
            c->tokens,
            c->hidden,
            c->sinkhorn_iterations,
            (float)c->norm_epsilon,
            (float)c->hc_epsilon,
            (const bf16 *)c->x,
            (const float *)c->base,
            (const float *)c->scale,
            (const float *)mix->weight,
            (float *)c->pre,
            (float *)c->post,
            (float *)c->comb,
            (float *)mix->norm_rrms,
            (bf16 *)c->z,
            (bf16 *)mix->normed};
}

mhp_status finish(cudaStream_t stream, const mix_args *a)
{
    int chunks = ceil_div(a->hidden, CHUNK);

    gather_kernel<<<(unsigned)ceil_div(a->tokens, GATHER_THREADS / GATHER_LANES), GATHER_THREADS, 0, stream>>>(*a);
    MHP_RETURN_IF_ERROR(mhp_cuda_launched("gather"));
    if (chunks <= MIX_THREADS_MAX) {
        return launch_mix<2, 1>(stream, a);
    }
    return chunks <= 2 * MIX_THREADS_MAX ? launch_mix<1, 2>(stream, a) : launch_mix<1, 4>(stream, a);
}

}

mhp_status mix_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix)
{
    project_args a = {};
    mix_args second;

    a.p = sliced(mix);
    a.tokens = mix->connection.tokens;
    a.hidden = mix->connection.hidden;
    a.x = (const bf16 *)mix->connection.x;
    if (merge) {
        a.x = (const bf16 *)merge->x;
        a.y = (const bf16 *)merge->y;
        a.post = (const float *)merge->post;
        a.comb = (const float *)merge->comb;
        a.x_next = (bf16 *)merge->x_next;
        MHP_RETURN_IF_ERROR(launch_project<true>(stream, &a));
    } else {
        MHP_RETURN_IF_ERROR(launch_project<false>(stream, &a));
    }
    second = mix_args_of(mix, &a.p);
    return finish(stream, &second);
}
