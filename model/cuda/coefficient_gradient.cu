/* Gradients of a token's coefficients: dots of its state, the norm and Sinkhorn walked back.
 *
 * z is not read: it is the mix of x, which must be read anyway, and so are its products. With w the norm's weight, d what came back,
 * rho = 1 / rms(z): dz = rho w d - rho^3 <w d, z> / C z, hence dpre_j = <dz, x_j> from <w d, x_j> and <z, x_j> alone.
 * A block takes a few tokens; its last warp, a token in every lane, walks Sinkhorn back while the others read. */
#include "model/cuda/columns.cuh"
#include "model/cuda/gradient.cuh"

namespace {

/* Blocks that a multiprocessor runs at once; tokens that shared memory must take of a block. */
enum { BLOCKS_MAX = 32, ROWS_LEAST = 4 };

constexpr int power_of_two(int n)
{
    return n <= 1 ? 1 : n <= 2 ? 2 : n <= 4 ? 4 : n <= 8 ? 8 : 16;
}

/* Dots of a token: <w d, x_j>, then <z, x_j>; of the readout <dz, x_j> alone. */
template <int N, int KIND> struct dots {
    static constexpr int count = KIND == GRADIENT_HEAD ? power_of_two(N) : 2 * power_of_two(N);
    static constexpr int second = power_of_two(N);
};

/* What a token's gradient needs beside its dots. The last warp fetches what is the token's own into shared memory, a token in every
 * lane, before it stores the results: a load behind a store, which might be of the same place, would wait for the one in front, and at
 * the end of the block nobody else has work. */
template <int N, int KIND> struct fetched {
    static constexpr int projections = KIND == GRADIENT_HEAD ? N : N * (N + 2);
    static constexpr int rows = KIND == GRADIENT_HC ? N : 1;
    static constexpr int u = 0, pre = u + projections, dpost = pre + N, dcomb = dpost + N, rrms = dcomb + N * N, norm_rrms = rrms + rows;
    static constexpr int count = norm_rrms + 1;     /* floats of a lane, WARP apart */
};

/* Into this lane's floats from `to` on. */
template <int COUNT> __device__ __forceinline__ void fetch(const float *from, float *to)
{
    float value[COUNT];

    load_factors<COUNT>(from, value);
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        to[i * WARP] = value[i];
    }
}

template <int N, int KIND> __device__ __forceinline__ void fetch_token(const gradient_args &a, size_t t, float *in)
{
    typedef fetched<N, KIND> F;

    fetch<F::projections>(a.projection + t * F::projections, in + F::u * WARP);
    fetch<N>(a.pre + t * N, in + F::pre * WARP);
#pragma unroll
    for (int i = 0; i < F::rows; i++) {
        in[(F::rrms + i) * WARP] = a.rrms[t * F::rows + i];
    }
    if (KIND != GRADIENT_HEAD) {
        fetch<N>(a.dpost + t * N, in + F::dpost * WARP);
        fetch<N * N>(a.dcomb + t * (N * N), in + F::dcomb * WARP);
        in[F::norm_rrms * WARP] = a.norm_rrms[t];
    }
}

template <typename T, int N, int KIND>
__device__ __forceinline__ void dot_columns(const gradient_args &a, int t, float (&dot)[dots<N, KIND>::count])
{
    constexpr int V = width_of<T, N>::value;
    size_t hidden = (size_t)a.hidden;
    int threads = (int)blockDim.x - WARP;
    const T *x = (const T *)a.x + (size_t)t * N * hidden;
    const T *incoming = (const T *)a.incoming + (size_t)t * hidden;
    float pre[N];

#pragma unroll
    for (int j = 0; j < N; j++) {
        pre[j] = KIND == GRADIENT_HEAD ? 0 : __ldg(a.pre + (size_t)t * N + j);
    }
    for (int column = (int)threadIdx.x * V; column < a.hidden; column += threads * V) {
        typename chunk<T, V>::type packed[N];
        float value[N][V], d[V], z[V];

#pragma unroll
        for (int j = 0; j < N; j++) {
            packed[j] = load_raw<T, V>(x + (size_t)j * hidden + column);
        }
        unpack(load_raw<T, V>(incoming + column), d);
        if (KIND != GRADIENT_HEAD) {
            float weight[V];

            load_full<V>(a.weight + column, weight);
#pragma unroll
            for (int i = 0; i < V; i++) {
                d[i] *= weight[i];
            }
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            unpack(packed[j], value[j]);
#pragma unroll
            for (int i = 0; i < V; i++) {
                dot[j] = fmaf(d[i], value[j][i], dot[j]);
                z[i] = j == 0 ? pre[0] * value[0][i] : fmaf(pre[j], value[j][i], z[i]);
            }
        }
        if (KIND != GRADIENT_HEAD) {
#pragma unroll
            for (int j = 0; j < N; j++) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    dot[dots<N, KIND>::second + j] = fmaf(z[i], value[j][i], dot[dots<N, KIND>::second + j]);
                }
            }
        }
    }
}

/* dpre of token t from the warps' dots; keeps the norm's factor. */
template <int N, int KIND>
__device__ __forceinline__ void pre_gradient(const gradient_args &a, int t, bool valid, const float *in, const float *part, int warps,
                                             float (&dpre)[N])
{
    typedef dots<N, KIND> D;
    typedef fetched<N, KIND> F;
    float second[N];
    float along = 0;
    float rrms, factor;

#pragma unroll
    for (int j = 0; j < N; j++) {
        dpre[j] = 0;
        second[j] = 0;
        for (int w = 0; w < warps; w++) {
            dpre[j] += part[w * D::count + j];
            second[j] += KIND == GRADIENT_HEAD ? 0 : part[w * D::count + D::second + j];
        }
    }
    if (KIND != GRADIENT_HEAD) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            along += in[(F::pre + j) * WARP] * dpre[j];
        }
        rrms = in[F::norm_rrms * WARP];
        factor = rrms * rrms * rrms * along / (float)a.hidden;
        if (valid) {
            a.norm_pull[(size_t)t * a.norm_stride] = factor;
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            dpre[j] = rrms * dpre[j] - factor * second[j];
        }
    }
}

/* dcomb to the gradient of its logits, in place. */
template <int N> __device__ __forceinline__ void comb_gradient(const gradient_args &a, float *in, float *history)
{
    typedef fetched<N, GRADIENT_MHC> F;
    float rrms = in[F::rrms * WARP];
    float m[N * N], dh[N * N];

#pragma unroll
    for (int i = 0; i < N * N; i++) {
        m[i] = a.scale[2] * (in[(F::u + 2 * N + i) * WARP] * rrms) + a.base[2 * N + i];
        dh[i] = in[(F::dcomb + i) * WARP];
    }
    softmax_rows<N>(m);
    sinkhorn<N>(m, a.iterations, a.hc_epsilon, history);
    sinkhorn_gradient<N>(m, dh, a.iterations, a.hc_epsilon, history);
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        in[(F::dcomb + i) * WARP] = dh[i];
    }
}

/* One lane's logit gradient: into du, the sums of the block and of the scale's group. Lanes without a token bring 0. */
__device__ __forceinline__ void finish_logit(const gradient_args &a, int t, bool valid, int p, float scale, float u, float rrms, float dh,
                                             float *dscale, float *along, float *target)
{
    float total;

    u = valid ? u : 0;
    dh = valid ? dh : 0;
    total = warp_sum(dh);
    *dscale += u * rrms * dh;
    *along += scale * u * dh;
    if (valid) {
        a.du[(size_t)t * a.du_stride + p] = scale * dh * rrms;
    }
    if (threadIdx.x % WARP == 0) {
        target[p] = total;
    }
}

/* mhc and the readout: dh of pre and post by their sigmoids, comb's is given. */
template <int N, int KIND>
__device__ __forceinline__ void finish_token(const gradient_args &a, int t, bool valid, const float *in, const float (&dpre)[N],
                                             float *target)
{
    typedef fetched<N, KIND> F;
    constexpr int scales = KIND == GRADIENT_MHC ? 3 : 1;
    float rrms = in[F::rrms * WARP];
    float scale[scales], base[(scales + 1) / 2 * N], dscale[scales] = {};
    float along = 0;

#pragma unroll
    for (int i = 0; i < scales; i++) {
        scale[i] = a.scale[i];
    }
#pragma unroll
    for (int i = 0; i < (scales + 1) / 2 * N; i++) {
        base[i] = a.base[i];
    }
#pragma unroll
    for (int p = 0; p < F::projections; p++) {
        int group = p / N < scales ? p / N : scales - 1;
        float u = in[(F::u + p) * WARP];
        float dh;

        if (p < 2 * N) {
            float s = sigmoid(scale[group] * (u * rrms) + base[p < (scales + 1) / 2 * N ? p : 0]);

            dh = (p < N ? dpre[p % N] : in[(F::dpost + p % N) * WARP] * 2) * s * (1 - s);
        } else {
            dh = in[(F::dcomb + p - 2 * N) * WARP];
        }
        finish_logit(a, t, valid, p, scale[group], u, rrms, dh, &dscale[group], &along, target);
    }
    if (valid) {
        float pull = along * rrms * rrms * rrms / (float)(N * a.hidden);

        for (int j = 0; j < (a.records ? N : 1); j++) {
            a.pull[(size_t)t * a.pull_stride + j] = pull;
        }
    }
#pragma unroll
    for (int group = 0; group < scales; group++) {
        float total = warp_sum(dscale[group]);

        if (threadIdx.x % WARP == 0) {
            target[a.bases + group] = total;
        }
    }
}

/* hc: through tanh, a stream at a time. u = atanh(t) r; where t is 1 to rounding the gradient is 0. */
template <int N>
__device__ __forceinline__ void finish_hc_token(const gradient_args &a, int t, bool valid, const float *in, const float (&dpre)[N],
                                                float *target)
{
    typedef fetched<N, GRADIENT_HC> F;
    float scale[3] = {a.scale[0], a.scale[1], a.scale[2]};
    float dscale[3] = {0, 0, 0};

#pragma unroll
    for (int j = 0; j < N; j++) {
        float rrms = in[(F::rrms + j) * WARP];
        float along = 0;

#pragma unroll
        for (int p = 0; p < N + 2; p++) {
            int group = p < 2 ? p : 2;
            int base = p < 2 ? p * N + j : 2 * N + j * N + p - 2;
            float y = in[(F::u + j * (N + 2) + p) * WARP];
            float d = p == 0 ? dpre[j] : in[(p == 1 ? F::dpost + j : F::dcomb + j * N + p - 2) * WARP];
            float slope = 1 - y * y;
            float total;

            d = valid ? d : 0;
            total = warp_sum(d);
            dscale[group] += d * y;
            d *= scale[group] * slope * rrms;
            along += slope > 0 ? d * atanhf(y) : 0;
            if (valid) {
                a.du[(size_t)t * a.du_stride + j * (N + 2) + p] = d;
            }
            if (threadIdx.x % WARP == 0) {
                target[base] = total;
            }
        }
        if (valid) {
            a.pull[(size_t)t * a.pull_stride + j] = along * rrms / (float)a.hidden;
        }
    }
#pragma unroll
    for (int group = 0; group < 3; group++) {
        float total = warp_sum(dscale[group]);

        if (threadIdx.x % WARP == 0) {
            target[a.bases + group] = total;
        }
    }
}

/* The record's copies of what the state kernel would else gather. */
template <int N> __device__ __forceinline__ void keep_coefficients(const gradient_args &a, size_t t)
{
    float *record = a.du + t * RECORD;
    float comb[N * N], pre[N];
    float rrms = a.norm_rrms[t];

    load_factors<N * N>(a.comb + t * N * N, comb);
    load_factors<N>(a.pre + t * N, pre);
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        record[RECORD_COMB + i] = comb[i];
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        record[RECORD_PRE + j] = pre[j];
    }
    record[RECORD_NORM_RRMS] = rrms;
}

template <typename T, int N, int KIND>
__global__ void __maxnreg__(N <= 4 ? 80 : 112) coefficient_gradient_kernel(gradient_args a, int block_tokens)
{
    typedef dots<N, KIND> D;
    extern __shared__ float shared[];   /* [block_tokens][warps][count], what is fetched, Sinkhorn's history */
    int threads = (int)blockDim.x - WARP;
    int warps = threads / WARP;
    int first = (int)blockIdx.x;
    int step = (int)gridDim.x;          /* all blocks go through the tokens together: the last are still in the L2 cache behind */
    int count = (a.tokens - first + step - 1) / step;
    int lane = (int)threadIdx.x - threads;
    int within = max(0, min(lane, count - 1));
    int token = first + within * step;
    float *in = shared + block_tokens * warps * D::count + lane;

    if (lane < 0) {
        for (int t = 0; t < count; t++) {
            float dot[D::count] = {};
            float sum;

            dot_columns<T, N, KIND>(a, first + t * step, dot);
            sum = warp_sums<D::count>(dot);
            if (threadIdx.x % (WARP / D::count) == 0) {
                shared[(t * warps + (int)threadIdx.x / WARP) * D::count + (int)threadIdx.x % WARP / (WARP / D::count)] = sum;
            }
        }
    } else {
        fetch_token<N, KIND>(a, (size_t)token, in);
        if (a.records && lane < count) {
            keep_coefficients<N>(a, (size_t)token);
        }
        if constexpr (KIND == GRADIENT_MHC) {
            comb_gradient<N>(a, in, in + fetched<N, KIND>::count * WARP);
        }
    }
    __syncthreads();
    if (lane >= 0) {
        float *target = a.small_parts + (size_t)blockIdx.x * (size_t)(a.bases + 3);
        float dpre[N];

        pre_gradient<N, KIND>(a, token, lane < count, in, shared + within * warps * D::count, warps, dpre);
        if constexpr (KIND == GRADIENT_HC) {
            finish_hc_token<N>(a, token, lane < count, in, dpre, target);
        } else {
            finish_token<N, KIND>(a, token, lane < count, in, dpre, target);
        }
    }
}

template <typename T, int N, int KIND> mhp_status launch(cudaStream_t stream, gradient_args *a)
{
    int threads = row_threads(a->hidden, width_of<T, N>::value, 2) + WARP;
    int of_token = (threads / WARP - 1) * dots<N, KIND>::count;
    int history = KIND == GRADIENT_MHC ? (2 * a->iterations - 1) * N * WARP : 0;
    int kept = fetched<N, KIND>::count * WARP + history;
    int most = min_of(WARP, (mhp_cuda_shared_bytes() / (int)sizeof(float) - kept) / of_token);     /* tokens that fit */
    int bytes = (int)sizeof(float) * (of_token * most + kept);
    int rows;

    if (most < ROWS_LEAST) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "the gradient of %d streams with %d Sinkhorn iterations, hidden size %d: a block has %d "
                             "bytes of shared memory on this card, expected fewer streams or iterations", N, a->iterations, a->hidden,
                             mhp_cuda_shared_bytes());
    }
    cudaFuncSetAttribute(coefficient_gradient_kernel<T, N, KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    rows = min_of(most, block_tokens(coefficient_gradient_kernel<T, N, KIND>, a->tokens, threads, (size_t)bytes));
    bytes = (int)sizeof(float) * (of_token * rows + kept);
    a->blocks = ceil_div(a->tokens, rows);
    coefficient_gradient_kernel<T, N, KIND><<<(unsigned)a->blocks, (unsigned)threads, (size_t)bytes, stream>>>(*a, rows);
    return mhp_cuda_launched("coefficient_gradient");
}

/* Blocks of a launch, at most. */
int blocks_bound(int tokens)
{
    return max_of(min_of(tokens, mhp_cuda_processors() * BLOCKS_MAX), ceil_div(tokens, ROWS_LEAST));
}

}

template <typename T> mhp_status coefficient_gradient(cudaStream_t stream, int kind, gradient_args *a)
{
    if (kind == GRADIENT_MHC) {
        MHP_CUDA_BY_STREAMS(a->streams, return (launch<T, N, GRADIENT_MHC>(stream, a)))
    } else if (kind == GRADIENT_HC) {
        MHP_CUDA_BY_STREAMS(a->streams, return (launch<T, N, GRADIENT_HC>(stream, a)))
    } else {
        MHP_CUDA_BY_STREAMS(a->streams, return (launch<T, N, GRADIENT_HEAD>(stream, a)))
    }
    return MHP_ERR_INTERNAL;
}

template mhp_status coefficient_gradient<float>(cudaStream_t, int, gradient_args *);
template mhp_status coefficient_gradient<bf16>(cudaStream_t, int, gradient_args *);

static int group_bound(int tokens)
{
    return max_of(1, min_of(ceil_div(tokens, 16), mhp_cuda_processors()));
}

/* The groups' parts: as many groups as `blocks` blocks allow with one for every `columns` columns. */
static int groups_of(int tokens, int hidden, int columns, int blocks)
{
    return max_of(1, min_of(group_bound(tokens), blocks / ceil_div(hidden, columns)));
}

int gradient_groups(int tokens, int hidden, bool tensor)
{
    return tensor ? groups_of(tokens, hidden, GRADIENT_SLICE, mhp_cuda_processors()) : groups_of(tokens, hidden, 32, 4 * mhp_cuda_processors());
}

static int64_t padded(int64_t count)
{
    return (count + 63) / 64 * 64;
}

static int64_t parts_of(int tokens, int hidden)
{
    return max_of(gradient_groups(tokens, hidden, true), gradient_groups(tokens, hidden, false));
}

/* The readout's, which has `streams` projections where the parts have room for streams * (streams + 2). */
int gradient_head_groups(int tokens, int hidden, int streams, int columns)
{
    return min_of((int)parts_of(tokens, hidden) * (streams + 2), groups_of(tokens, hidden, columns, 4 * mhp_cuda_processors()));
}

/* A token's du, pull and norm_pull, or its record. */
static int64_t token_floats(int streams)
{
    return max_of(streams * (streams + 2) + streams + 1, streams == 4 ? RECORD : 0);
}

int64_t gradient_workspace_count(int tokens, int hidden, int streams)
{
    int64_t projections = (int64_t)streams * (streams + 2);
    int64_t groups = parts_of(tokens, hidden);
    int64_t dots = streams == 4 ? (int64_t)ceil_div(hidden, GRADIENT_SLICE) * tokens * GRADIENT_DOTS : 0;

    return padded(tokens * token_floats(streams)) + padded(blocks_bound(tokens) * (projections + 3)) +
           padded(groups * projections * streams * hidden) + padded(groups * hidden) + padded(dots);
}

void gradient_workspace(gradient_args *a, void *workspace)
{
    int64_t width = (int64_t)a->streams / a->rows * a->hidden;

    a->du = (float *)workspace;
    if (a->records) {
        a->pull = a->du + RECORD_PULL;
        a->norm_pull = a->du + RECORD_NORM_PULL;
        a->du_stride = a->pull_stride = a->norm_stride = RECORD;
    } else {
        a->pull = a->du + (int64_t)a->tokens * a->rows * a->projections;
        a->norm_pull = a->pull + (int64_t)a->tokens * a->rows;
        a->du_stride = a->rows * a->projections;
        a->pull_stride = a->rows;
        a->norm_stride = 1;
    }
    a->small_parts = a->du + padded(a->tokens * token_floats(a->streams));
    a->fn_parts = a->small_parts + padded((int64_t)blocks_bound(a->tokens) * (a->bases + 3));
    a->weight_parts = a->fn_parts + padded(parts_of(a->tokens, a->hidden) * a->projections * width);
    a->dot_parts = a->weight_parts + padded(parts_of(a->tokens, a->hidden) * a->hidden);
}
