/* Projections: u = fn v and the square sum of v, each state read once.
 *
 * BF16: on tensor cores, fn as the sum of two bf16 (16 bits of it), accumulated in F32. A warp takes 16 rows and a thread 16 bytes of
 * two of them, straight from memory into the operand's registers: elements may come in any order along the sum, and the slice of fn
 * lies in shared memory in the order in which they do. F32: plain F32 arithmetic throughout. */
#include "model/cuda/connection.cuh"

enum {
    PROJECT_THREADS = 256,
    PROJECT_WARPS = PROJECT_THREADS / WARP,
    PROJECT_BLOCKS = 2,         /* on a multiprocessor */
    TILE = 16,                  /* rows of a warp */
    STRIP = 32,                 /* elements of a row that a warp takes at once */
    SLICE_BYTES = 96 * 1024,
    SLICE_STRIPS = 32,          /* of a slice, at most */
};

/* Groups of rows for `slices` slices, so that the card is full with one round of blocks and they have equally much to do. */
static int row_groups(int slices, int tiles)
{
    int groups = max_of(1, mhp_cuda_processors() * PROJECT_BLOCKS / slices);
    int rounds = ceil_div(tiles, groups * PROJECT_WARPS);

    return max_of(1, ceil_div(tiles, rounds * PROJECT_WARPS));
}

/* Strips of a slice, of `strips` in all, at most `most`: the busiest warp has the least to do. A round costs about a strip and a half
 * beside its strips (partial sums), filling shared memory about as much as going through a tile. */
static int slice_strips(int strips, int tiles, int most, int slices_most)
{
    int best = min_of(strips, most);
    double best_cost = 1e30;

    for (int candidate = max_of(1, most / 4); candidate <= most; candidate++) {
        int slices = ceil_div(strips, candidate);
        int rounds = ceil_div(tiles, row_groups(slices, tiles) * PROJECT_WARPS);
        double cost = rounds * (candidate * (SLICE_STRIPS / most) + 1.5) + candidate * (SLICE_STRIPS / most);

        if (slices <= slices_most && cost < best_cost) {
            best_cost = cost;
            best = candidate;
        }
    }
    return best;
}

projection projection_of(mhp_connection_kind kind, int tokens, int hidden, int streams, int projections, const void *x, const void *fn,
                         void *first, void *first_square, void *rest, size_t element)
{
    bool hc = kind == MHP_CONNECTION_HC;
    projection p = {};
    int room, strips;

    p.rows_of_token = hc ? streams : 1;
    p.rows = tokens * p.rows_of_token;
    p.width = hc ? hidden : streams * hidden;
    p.projections = projections;
    p.slot = (projections + 2) / 2 * 2;
    p.x = x;
    p.fn = (const float *)fn;
    p.first = (float *)first;
    p.first_square = (float *)first_square;
    p.rest = (char *)rest;
    p.rest_bytes = (size_t)hidden * element;
    room = 1 + (int)(p.rest_bytes / sizeof(float)) / (p.rows_of_token * p.slot);
    strips = ceil_div(p.width, STRIP);
    p.slice_width = max_of(slice_strips(strips, ceil_div(p.rows, TILE), SLICE_STRIPS, room), ceil_div(strips, room)) * STRIP;
    p.slices = ceil_div(p.width, p.slice_width);
    return p;
}

/* One half strip (16 of 32 elements) of 16 rows onto all coefficients. */
template <int NT>
__device__ __forceinline__ void project_step(float (&sum)[NT][4], const uint4 *fragment, uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3)
{
#pragma unroll
    for (int i = 0; i < NT; i++) {
        uint4 b = fragment[i * WARP];

        multiply_bf16(sum[i], a0, a1, a2, a3, b.x, b.y);
        multiply_bf16(sum[i], a0, a1, a2, a3, b.z, b.w);
    }
}

/* One strip; `fragment` is this lane's. */
template <int NT>
__device__ __forceinline__ void project_strip(float (&sum)[NT][4], const uint4 *fragment, uint4 upper, uint4 lower)
{
    project_step<NT>(sum, fragment, upper.x, lower.x, upper.y, lower.y);
    project_step<NT>(sum, fragment + NT * WARP, upper.z, lower.z, upper.w, lower.w);
}

/* One lane's operand of fn, four elements of row `p` from column k on, in two parts. */
__device__ __forceinline__ uint4 split_weights(const projection &p, int row, int k, int end)
{
    float4 w = make_float4(0, 0, 0, 0);
    uint4 parts;

    if (row < p.projections && k < end) {
        w = __ldg(reinterpret_cast<const float4 *>(p.fn + (size_t)row * (size_t)p.width + k));
    }
    split_pair(w.x, w.y, &parts.x, &parts.z);
    split_pair(w.z, w.w, &parts.y, &parts.w);
    return parts;
}

/* One thread's share of the partial sums of rows row and row + 8. */
template <int NT>
__device__ __forceinline__ void write_partial_sums(const projection &p, int slice, int row, const float (&sum)[NT][4],
                                                   const float (&square)[2])
{
    int quarter = (int)threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int at = row + half * 8;
        float total = square[half] + __shfl_xor_sync(FULL_WARP, square[half], 1);
        float *target;

        total += __shfl_xor_sync(FULL_WARP, total, 2);
        if (at >= p.rows) {
            continue;
        }
        target = partial_sums(p, slice, at);
#pragma unroll
        for (int i = 0; i < NT; i++) {
            int column = i * 8 + quarter * 2;

            if (column < p.projections) {
                target[column] = sum[i][half * 2];
            }
            if (column + 1 < p.projections) {
                target[column + 1] = sum[i][half * 2 + 1];
            }
        }
        if (quarter == 0) {
            *partial_square(p, slice, at) = total;
        }
    }
}

/* Columns [begin, end) of fn into shared memory, as [step][NT][WARP]: the operands of the steps of 16 elements. */
template <int NT> __device__ __forceinline__ void fill_fragments(const projection &p, uint4 *fragments, int begin, int end)
{
    int steps = (end - begin + STRIP - 1) / STRIP * 2;

#pragma unroll 4
    for (int i = (int)threadIdx.x; i < steps * NT * WARP; i += PROJECT_THREADS) {
        int lane = i % WARP;
        int step = i / WARP / NT;
        int row = i / WARP % NT * 8 + lane / 4;

        fragments[i] = split_weights(p, row, begin + step / 2 * STRIP + lane % 4 * 8 + step % 2 * 4, end);
    }
}

/* Columns [begin, end) of 16 rows. */
template <int NT>
__device__ __forceinline__ void project_rows(const projection &p, const uint4 *fragment, int row, int begin, int end,
                                             float (&sum)[NT][4], float (&square)[2])
{
    constexpr int AHEAD = NT <= 3 ? 4 : 2;
    const bf16 *upper = (const bf16 *)p.x + (size_t)min(row, p.rows - 1) * (size_t)p.width;
    const bf16 *lower = (const bf16 *)p.x + (size_t)min(row + 8, p.rows - 1) * (size_t)p.width;
    int k = begin + (int)threadIdx.x % 4 * 8;

    for (int strip = begin; strip < end; strip += AHEAD * STRIP) {
        uint4 x[AHEAD][2];

#pragma unroll
        for (int i = 0; i < AHEAD; i++, k += STRIP) {
            x[i][0] = k < end ? load_raw<bf16, 8>(upper + k) : make_uint4(0, 0, 0, 0);
            x[i][1] = k < end ? load_raw<bf16, 8>(lower + k) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++, fragment += 2 * NT * WARP) {
            if (strip + i * STRIP < end) {
                project_strip<NT>(sum, fragment, x[i][0], x[i][1]);
                add_squares(x[i][0], &square[0]);
                add_squares(x[i][1], &square[1]);
            }
        }
    }
}

template <int NT> __host__ __device__ constexpr int held_width()
{
    return SLICE_BYTES / (NT * 8 * 4) / STRIP * STRIP;
}

/* Grid (slices, groups of rows). */
template <int NT> __global__ void __launch_bounds__(PROJECT_THREADS, PROJECT_BLOCKS) project_bf16(projection p)
{
    extern __shared__ uint4 fragments[];
    int warp = (int)threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP;
    int begin = (int)blockIdx.x * p.slice_width;
    int end = min(begin + p.slice_width, p.width);
    int tiles = (p.rows + TILE - 1) / TILE;
    bool resident = end - begin <= held_width<NT>();

    for (int first = (int)blockIdx.y * PROJECT_WARPS; first < tiles; first += (int)gridDim.y * PROJECT_WARPS) {
        int row = (first + warp) * TILE + lane / 4;
        float sum[NT][4] = {};
        float square[2] = {0, 0};

        for (int part = begin; part < end; part += held_width<NT>()) {
            int part_end = min(part + held_width<NT>(), end);

            if (!resident || first == (int)blockIdx.y * PROJECT_WARPS) {
                __syncthreads();
                fill_fragments<NT>(p, fragments, part, part_end);
                __syncthreads();
            }
            project_rows<NT>(p, fragments + lane, row, part, part_end, sum, square);
        }
        write_partial_sums<NT>(p, (int)blockIdx.x, row, sum, square);
    }
}

enum { FMA_ROWS = 32, FMA_STRIP = 32 };

/* Grid (slices, tiles of FMA_ROWS rows): plain F32, a row in every lane, a warp every eighth coefficient. */
template <int NT> __global__ void __launch_bounds__(PROJECT_THREADS) project_f32(projection p)
{
    __shared__ float x[FMA_STRIP][FMA_ROWS + 1];
    __shared__ __align__(16) float w[NT * 8][FMA_STRIP];
    int warp = (int)threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP;
    int row = (int)blockIdx.x * FMA_ROWS + lane;
    int end = min(((int)blockIdx.y + 1) * p.slice_width, p.width);
    float sum[NT] = {};
    float square = 0;

    for (int begin = (int)blockIdx.y * p.slice_width; begin < end; begin += FMA_STRIP) {
        int k = begin + lane;

        __syncthreads();
        for (int i = warp; i < FMA_ROWS; i += PROJECT_WARPS) {
            int from = min((int)blockIdx.x * FMA_ROWS + i, p.rows - 1);

            x[lane][i] = k < end ? ((const float *)p.x)[(size_t)from * (size_t)p.width + k] : 0;
        }
        for (int i = warp; i < NT * 8; i += PROJECT_WARPS) {
            w[i][lane] = k < end && i < p.projections ? p.fn[(size_t)i * (size_t)p.width + k] : 0;
        }
        __syncthreads();
        for (int j = 0; j < FMA_STRIP; j += 4) {
            float value[4] = {x[j][lane], x[j + 1][lane], x[j + 2][lane], x[j + 3][lane]};

#pragma unroll
            for (int i = 0; i < NT; i++) {
                float4 weight = *reinterpret_cast<const float4 *>(&w[warp + i * PROJECT_WARPS][j]);

                sum[i] += value[0] * weight.x + value[1] * weight.y + value[2] * weight.z + value[3] * weight.w;
            }
            square += value[0] * value[0] + value[1] * value[1] + value[2] * value[2] + value[3] * value[3];
        }
    }
    if (row >= p.rows) {
        return;
    }
#pragma unroll
    for (int i = 0; i < NT; i++) {
        if (warp + i * PROJECT_WARPS < p.projections) {
            partial_sums(p, (int)blockIdx.y, row)[warp + i * PROJECT_WARPS] = sum[i];
        }
    }
    if (warp == 0) {
        *partial_square(p, (int)blockIdx.y, row) = square;
    }
}

template <int NT> static void launch_bf16(cudaStream_t stream, const projection *p)
{
    dim3 grid((unsigned)p->slices, (unsigned)row_groups(p->slices, ceil_div(p->rows, TILE)));
    int bytes = NT * 8 * 4 * min_of(p->slice_width, held_width<NT>());

    cudaFuncSetAttribute(project_bf16<NT>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    project_bf16<NT><<<grid, PROJECT_THREADS, (size_t)bytes, stream>>>(*p);
}

template <int NT> static void launch_f32(cudaStream_t stream, const projection *p)
{
    dim3 grid((unsigned)ceil_div(p->rows, FMA_ROWS), (unsigned)p->slices);      /* y ends at 65535 */

    project_f32<NT><<<grid, PROJECT_THREADS, 0, stream>>>(*p);
}

/* Tiles of 8 coefficients: n(n+2) of mhc for n = 1 to 8, n+2 of hc, n of the readout. */
#define BY_TILES(launch)                              \
    switch (ceil_div(p->projections, 8)) {            \
    case 1: launch<1>(stream, p); break;              \
    case 2: launch<2>(stream, p); break;              \
    case 3: launch<3>(stream, p); break;              \
    case 5: launch<5>(stream, p); break;              \
    case 6: launch<6>(stream, p); break;              \
    case 8: launch<8>(stream, p); break;              \
    default: launch<10>(stream, p); break;            \
    }

template <> mhp_status project<bf16>(cudaStream_t stream, const projection *p)
{
    BY_TILES(launch_bf16)
    return mhp_cuda_launched("project");
}

template <> mhp_status project<float>(cudaStream_t stream, const projection *p)
{
    BY_TILES(launch_f32)
    return mhp_cuda_launched("project");
}
