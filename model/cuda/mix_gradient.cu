/* Second half of a sublayer's gradient, also with the first half of the one in front, and the readout's: the steps of gradient.cuh, and
 * the sums over their parts. */
#include "model/cuda/connection.cuh"
#include "model/cuda/gradient.cuh"

namespace {

enum { SUM_THREADS = 256, SUMS_MAX = 6 };

struct part_sums {
    part_sum sum[SUMS_MAX];
    int first_block[SUMS_MAX + 1];
};

/* How a block sums: `lanes` threads side by side with `width` columns each, the rows shared out to SUM_THREADS / lanes of them. Few rows
 * have many columns and lie in the L2 cache: the sum is done when the last load is back, so all loads are under way at once, on all
 * multiprocessors. */
struct sum_shape {
    int lanes, width;
};

__host__ __device__ sum_shape shape_of(const part_sum &s)
{
    bool wide = s.count % 4 == 0 && s.stride % 4 == 0;

    int turns = wide ? part_turns(s.rows) : WARP;

    return sum_shape{SUM_THREADS / turns, turns < WARP ? 4 : 1};
}

__device__ __forceinline__ void load_part(const float *from, float (&part)[4])
{
    unpack(load_once<float, 4>(from), part);
}

__device__ __forceinline__ void load_part(const float *from, float (&part)[1])
{
    part[0] = *from;
}

/* `room` [SUM_THREADS * WIDTH]. The parts of a column are added up in an order that depends on their number alone. */
template <int LANES, int WIDTH> __device__ __forceinline__ void sum_columns(const part_sum &s, int block, float *room)
{
    constexpr int turns = SUM_THREADS / LANES;
    constexpr int AHEAD = WIDTH > 1 ? 4 : 8;                                    /* parts that a thread asks for at once */
    constexpr int columns = LANES * WIDTH;                                      /* of the block */
    constexpr int own = columns > SUM_THREADS ? columns / SUM_THREADS : 1;      /* of a thread, in the end */
    int begin = block * columns;
    int within = (int)threadIdx.x % LANES * WIDTH;
    int turn = (int)threadIdx.x / LANES;
    float sum[WIDTH] = {}, total[own];

#pragma unroll
    for (int i = 0; i < own; i++) {
        int column = (int)threadIdx.x + i * SUM_THREADS;

        total[i] = !s.overwrite && column < columns && begin + column < s.count ? s.target[begin + column] : 0;
    }
    for (int first = turn; first < s.rows; first += AHEAD * turns) {
        float part[AHEAD][WIDTH] = {};

#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int row = first + k * turns;

            if (row < s.rows && begin + within < s.count) {
                load_part(s.part + (size_t)row * (size_t)s.stride + begin + within, part[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                sum[i] += part[k][i];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        room[turn * columns + within + i] = sum[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < own; i++) {
        int column = (int)threadIdx.x + i * SUM_THREADS;

        if (column < columns && begin + column < s.count) {
            for (int k = 0; k < turns; k++) {
                total[i] += room[k * columns + column];
            }
            s.target[begin + column] = total[i];
        }
    }
}

__global__ void __launch_bounds__(SUM_THREADS, 6) sum_parts_kernel(const __grid_constant__ part_sums all)
{
    __shared__ __align__(16) float room[SUM_THREADS * 4];
    int which = 0;
    int block;

    while ((int)blockIdx.x >= all.first_block[which + 1]) {
        which++;
    }
    const part_sum &s = all.sum[which];
    block = (int)blockIdx.x - all.first_block[which];
    switch (shape_of(s).lanes) {
    case SUM_THREADS: sum_columns<SUM_THREADS, 4>(s, block, room); break;
    case SUM_THREADS / 4: sum_columns<SUM_THREADS / 4, 4>(s, block, room); break;
    default: sum_columns<SUM_THREADS / WARP, 1>(s, block, room); break;
    }
}

gradient_args gradient_args_of(const mhp_connection_gradient_args *c, int kind, bool records)
{
    gradient_args a = {};
    int n = c->streams;

    a.tokens = c->tokens;
    a.hidden = c->hidden;
    a.streams = n;
    a.iterations = c->sinkhorn_iterations;
    a.rows = kind == GRADIENT_HC ? n : 1;
    a.projections = kind == GRADIENT_MHC ? n * (n + 2) : kind == GRADIENT_HC ? n + 2 : n;
    a.bases = kind == GRADIENT_HEAD ? n : n * (n + 2);
    a.records = records;
    a.hc_epsilon = (float)c->hc_epsilon;
    a.x = c->x;
    a.g = c->g;
    a.incoming = c->dz;
    a.dpost = (const float *)c->dpost;
    a.dcomb = (const float *)c->dcomb;
    a.pre = (const float *)c->pre;
    a.comb = (const float *)c->comb;
    a.projection = (const float *)c->projection;
    a.rrms = (const float *)c->rrms;
    a.fn = (const float *)c->fn;
    a.base = (const float *)c->base;
    a.scale = (const float *)c->scale;
    a.dx = c->dx;
    a.dfn = (float *)c->dfn;
    a.dbase = (float *)c->dbase;
    a.dscale = (float *)c->dscale;
    gradient_workspace(&a, c->workspace);
    return a;
}

/* Whether the kernel on tensor cores takes it. */
template <typename T> bool on_tensor_cores(int, int)
{
    return false;
}

template <> bool on_tensor_cores<bf16>(int kind, int streams)
{
    return kind != GRADIENT_HEAD && streams == 4 && state_gradient_tensor_serves();
}

template <typename T> mhp_status gradient(cudaStream_t stream, int kind, gradient_args *a)
{
    int width = a->streams / a->rows * a->hidden;
    int count = kind == GRADIENT_HEAD ? 3 : 4;
    part_sum sums[SUMS_MAX];

    MHP_RETURN_IF_ERROR(coefficient_gradient<T>(stream, kind, a));
    MHP_RETURN_IF_ERROR(a->records ? state_gradient_tensor(stream, kind, a) : state_gradient<T>(stream, kind, a));
    sums[0] = {a->dfn, a->fn_parts, a->projections * width, a->groups, a->projections * width, false};
    sums[1] = {a->dbase, a->small_parts, a->bases, a->blocks, a->bases + 3, false};
    sums[2] = {a->dscale, a->small_parts + a->bases, kind == GRADIENT_HEAD ? 1 : 3, a->blocks, a->bases + 3, false};
    sums[3] = {a->dweight, a->weight_parts, a->hidden, a->groups, a->hidden, false};
    if (a->merge.dy) {
        int n = a->streams, slices = ceil_div(a->hidden, GRADIENT_SLICE), stride = a->tokens * GRADIENT_DOTS;

        sums[count++] = {(float *)a->merge.dpost, a->dot_parts, a->tokens * n, slices, stride, true};
        sums[count++] = {(float *)a->merge.dcomb, a->dot_parts + a->tokens * n, a->tokens * n * n, slices, stride, true};
    }
    return sum_parts(stream, sums, count);
}

/* dy, of the merge in front, may be NULL. */
template <typename T> mhp_status residual(cudaStream_t stream, const mhp_mix_gradient_args *args, void *dy)
{
    const mhp_connection_gradient_args *c = &args->connection;
    part_sum sum = {(float *)args->dweight, (const float *)c->workspace, c->hidden, residual_gradient_blocks(c->tokens, c->hidden),
                    c->hidden, false};

    MHP_RETURN_IF_ERROR(residual_gradient<T>(stream, args, dy));
    return sum_parts(stream, &sum, 1);
}

/* With the gradient of the merge in front unless it is NULL. */
template <typename T>
mhp_status mix_gradient(cudaStream_t stream, const mhp_mix_gradient_args *args, const mhp_merge_gradient_args *merge)
{
    const mhp_connection_gradient_args *c = &args->connection;
    bool mhc = c->kind == MHP_CONNECTION_MHC;
    bool tensor = on_tensor_cores<T>(mhc ? GRADIENT_MHC : GRADIENT_HC, c->streams);
    gradient_args a;

    MHP_RETURN_IF_ERROR(mhp_cuda_connection_check(merge ? "mix_merge_gradient" : "mix_gradient", c->tokens, c->hidden,
                                                  c->kind == MHP_CONNECTION_RESIDUAL ? 1 : c->streams,
                                                  mhc ? c->sinkhorn_iterations : 1));
    if (c->tokens == 0) {
        return MHP_OK;
    }
    if (c->kind == MHP_CONNECTION_RESIDUAL) {
        return residual<T>(stream, args, merge ? merge->dy : NULL);
    }
    a = gradient_args_of(c, mhc ? GRADIENT_MHC : GRADIENT_HC, tensor);
    a.incoming = args->dnormed;
    a.weight = (const float *)args->weight;
    a.norm_rrms = (const float *)args->norm_rrms;
    a.dweight = (float *)args->dweight;
    if (merge && tensor) {
        a.merge = *merge;
    }
    MHP_RETURN_IF_ERROR(gradient<T>(stream, mhc ? GRADIENT_MHC : GRADIENT_HC, &a));
    return merge && !tensor ? merge_gradient<T>(stream, merge) : MHP_OK;
}

template <typename T> mhp_status readout_gradient(void *native, const void *argument)
{
    const mhp_readout_gradient_args *args = (const mhp_readout_gradient_args *)argument;
    mhp_connection_gradient_args c = {};
    gradient_args a;

    MHP_RETURN_IF_ERROR(mhp_cuda_connection_check("readout_gradient", args->tokens, args->hidden, args->streams, 1));
    if (args->tokens == 0) {
        return MHP_OK;
    }
    c.kind = MHP_CONNECTION_MHC;
    c.tokens = args->tokens;
    c.hidden = args->hidden;
    c.streams = args->streams;
    c.hc_epsilon = args->hc_epsilon;
    c.x = args->x;
    c.dz = (void *)args->dz;
    c.pre = args->pre;
    c.projection = args->projection;
    c.rrms = args->rrms;
    c.fn = args->fn;
    c.base = args->base;
    c.scale = args->scale;
    c.dx = args->dx;
    c.dfn = args->dfn;
    c.dbase = args->dbase;
    c.dscale = args->dscale;
    c.workspace = args->workspace;
    a = gradient_args_of(&c, GRADIENT_HEAD, false);
    return gradient<T>((cudaStream_t)native, GRADIENT_HEAD, &a);
}

}

mhp_status sum_parts(cudaStream_t stream, const part_sum *sums, int count)
{
    part_sums all = {};

    for (int i = 0; i < SUMS_MAX; i++) {
        int blocks = 0;

        if (i < count) {
            all.sum[i] = sums[i];
            blocks = ceil_div(sums[i].count, shape_of(sums[i]).lanes * shape_of(sums[i]).width);
        }
        all.first_block[i + 1] = all.first_block[i] + blocks;
    }
    sum_parts_kernel<<<(unsigned)all.first_block[SUMS_MAX], SUM_THREADS, 0, stream>>>(all);
    return mhp_cuda_launched("sum_parts");
}

int64_t mhp_cuda_connection_workspace(mhp_connection_kind kind, int tokens, int hidden, int streams, int threads)
{
    (void)threads;
    if (kind == MHP_CONNECTION_RESIDUAL) {
        return (int64_t)residual_gradient_blocks(tokens, hidden) * hidden;
    }
    return gradient_workspace_count(tokens, hidden, streams);
}

mhp_status mhp_cuda_mix_gradient_f32(void *native, const void *argument)
{
    return mix_gradient<float>((cudaStream_t)native, (const mhp_mix_gradient_args *)argument, NULL);
}

mhp_status mhp_cuda_mix_gradient_bf16(void *native, const void *argument)
{
    return mix_gradient<bf16>((cudaStream_t)native, (const mhp_mix_gradient_args *)argument, NULL);
}

mhp_status mhp_cuda_mix_merge_gradient_f32(void *native, const void *argument)
{
    const mhp_mix_merge_gradient_args *args = (const mhp_mix_merge_gradient_args *)argument;

    return mix_gradient<float>((cudaStream_t)native, &args->mix, &args->merge);
}

mhp_status mhp_cuda_mix_merge_gradient_bf16(void *native, const void *argument)
{
    const mhp_mix_merge_gradient_args *args = (const mhp_mix_merge_gradient_args *)argument;

    return mix_gradient<bf16>((cudaStream_t)native, &args->mix, &args->merge);
}

mhp_status mhp_cuda_readout_gradient_f32(void *native, const void *argument)
{
    return readout_gradient<float>(native, argument);
}

mhp_status mhp_cuda_readout_gradient_bf16(void *native, const void *argument)
{
    return readout_gradient<bf16>(native, argument);
}
