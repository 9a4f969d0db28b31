/* Second half of a sublayer's gradient, and the readout's: the steps of gradient.cuh, and the sums over their parts. */
#include "model/cuda/connection.cuh"
#include "model/cuda/gradient.cuh"

namespace {

enum { SUM_THREADS = 1024, SUM_ROWS = SUM_THREADS / WARP, FEW_ROWS = 32, SUMS_MAX = 4 };

struct part_sums {
    part_sum sum[SUMS_MAX];
    int first_block[SUMS_MAX + 1];
};

__host__ __device__ bool has_few_rows(const part_sum &s)
{
    return s.rows <= FEW_ROWS && s.count % 4 == 0 && s.stride % 4 == 0;
}

/* Few rows: four columns a thread. Many: a column a lane, the rows shared out to the warps. */
__global__ void __launch_bounds__(SUM_THREADS) sum_parts_kernel(part_sums all)
{
    __shared__ float room[SUM_ROWS][WARP];
    int which = 0;
    part_sum s;
    int block;

    await_previous();
    while ((int)blockIdx.x >= all.first_block[which + 1]) {
        which++;
    }
    s = all.sum[which];
    block = (int)blockIdx.x - all.first_block[which];
    if (has_few_rows(s)) {
        int at = (block * SUM_THREADS + (int)threadIdx.x) * 4;

        if (at < s.count) {
            float4 sum = *reinterpret_cast<float4 *>(s.target + at);

#pragma unroll 8
            for (int row = 0; row < s.rows; row++) {
                float4 part = __ldcs(reinterpret_cast<const float4 *>(s.part + (size_t)row * (size_t)s.stride + at));

                sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
            }
            *reinterpret_cast<float4 *>(s.target + at) = sum;
        }
    } else {
        int lane = (int)threadIdx.x % WARP;
        int turn = (int)threadIdx.x / WARP;
        int at = block * WARP + lane;
        float sum = 0;

#pragma unroll 4
        for (int row = turn; row < s.rows && at < s.count; row += SUM_ROWS) {
            sum += s.part[(size_t)row * (size_t)s.stride + at];
        }
        room[turn][lane] = sum;
        __syncthreads();
        if (turn == 0 && at < s.count) {
            sum = s.target[at];
            for (int i = 0; i < SUM_ROWS; i++) {
                sum += room[i][lane];
            }
            s.target[at] = sum;
        }
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
    return kind != GRADIENT_HEAD && streams == 4;
}

template <typename T> mhp_status gradient(cudaStream_t stream, int kind, gradient_args *a)
{
    int width = a->streams / a->rows * a->hidden;
    part_sum sums[SUMS_MAX];

    MHP_RETURN_IF_ERROR(coefficient_gradient<T>(stream, kind, a));
    MHP_RETURN_IF_ERROR(a->records ? state_gradient_tensor(stream, kind, a) : state_gradient<T>(stream, kind, a));
    sums[0] = {a->dfn, a->fn_parts, a->projections * width, a->groups, a->projections * width};
    sums[1] = {a->dbase, a->small_parts, a->bases, a->blocks, a->bases + 3};
    sums[2] = {a->dscale, a->small_parts + a->bases, kind == GRADIENT_HEAD ? 1 : 3, a->blocks, a->bases + 3};
    sums[3] = {a->dweight, a->weight_parts, a->hidden, a->groups, a->hidden};
    return sum_parts(stream, sums, kind == GRADIENT_HEAD ? 3 : 4);
}

template <typename T> mhp_status residual(cudaStream_t stream, const mhp_mix_gradient_args *args)
{
    const mhp_connection_gradient_args *c = &args->connection;
    part_sum sum = {(float *)args->dweight, (const float *)c->workspace, c->hidden, residual_gradient_blocks(c->tokens, c->hidden),
                    c->hidden};

    MHP_RETURN_IF_ERROR(residual_gradient<T>(stream, args));
    return sum_parts(stream, &sum, 1);
}

template <typename T> mhp_status mix_gradient(void *native, const void *argument)
{
    const mhp_mix_gradient_args *args = (const mhp_mix_gradient_args *)argument;
    const mhp_connection_gradient_args *c = &args->connection;
    bool mhc = c->kind == MHP_CONNECTION_MHC;
    gradient_args a;

    MHP_RETURN_IF_ERROR(mhp_cuda_connection_check("mix_gradient", c->tokens, c->hidden,
                                                  c->kind == MHP_CONNECTION_RESIDUAL ? 1 : c->streams,
                                                  mhc ? c->sinkhorn_iterations : 1));
    if (c->tokens == 0) {
        return MHP_OK;
    }
    if (c->kind == MHP_CONNECTION_RESIDUAL) {
        return residual<T>((cudaStream_t)native, args);
    }
    a = gradient_args_of(c, mhc ? GRADIENT_MHC : GRADIENT_HC, on_tensor_cores<T>(mhc ? GRADIENT_MHC : GRADIENT_HC, c->streams));
    a.incoming = args->dnormed;
    a.weight = (const float *)args->weight;
    a.norm_rrms = (const float *)args->norm_rrms;
    a.dweight = (float *)args->dweight;
    return gradient<T>((cudaStream_t)native, mhc ? GRADIENT_MHC : GRADIENT_HC, &a);
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
            blocks = has_few_rows(sums[i]) ? ceil_div(sums[i].count, 4 * SUM_THREADS) : ceil_div(sums[i].count, WARP);
        }
        all.first_block[i + 1] = all.first_block[i] + blocks;
    }
    launch_behind(sum_parts_kernel, dim3((unsigned)all.first_block[SUMS_MAX]), SUM_THREADS, 0, stream, all);
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
    return mix_gradient<float>(native, argument);
}

mhp_status mhp_cuda_mix_gradient_bf16(void *native, const void *argument)
{
    return mix_gradient<bf16>(native, argument);
}

mhp_status mhp_cuda_readout_gradient_f32(void *native, const void *argument)
{
    return readout_gradient<float>(native, argument);
}

mhp_status mhp_cuda_readout_gradient_bf16(void *native, const void *argument)
{
    return readout_gradient<bf16>(native, argument);
}
