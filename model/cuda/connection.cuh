/* Projections of states onto coefficients: what the kernels of a connection hand to each other.
 *
 * A projection of `rows` rows of `width` elements (mhc and head: a token's whole state is a row; hc: each stream is one) is cut along
 * the width into slices, so that a block holds its slice of fn on chip while rows stream by. The partial sums of slice 0 lie in the
 * kept outputs themselves (projection, rrms), those of the others in the token's row of an output that is written only after they
 * have been read: no workspace, and no second array to stream. */
#ifndef MHP_MODEL_CUDA_CONNECTION_CUH
#define MHP_MODEL_CUDA_CONNECTION_CUH

#include "model/cuda/columns.cuh"

typedef struct projection {
    int rows, rows_of_token, width, projections;
    int slices, slice_width, slot;      /* slot: floats of a row's partial sums behind slice 0, its square sum included */
    const void *x;
    const float *fn;                    /* [projections, width] */
    float *first, *first_square;        /* [rows, projections], [rows] */
    char *rest;                         /* [tokens] pieces of rest_bytes: [slices - 1, rows_of_token, slot] */
    size_t rest_bytes;
} projection;

__device__ __forceinline__ float *partial_sums(const projection &p, int slice, int row)
{
    int token = row / p.rows_of_token;
    float *rest = reinterpret_cast<float *>(p.rest + (size_t)token * p.rest_bytes);

    return slice == 0 ? p.first + (size_t)row * (size_t)p.projections
                      : rest + ((slice - 1) * p.rows_of_token + row % p.rows_of_token) * p.slot;
}

__device__ __forceinline__ float *partial_square(const projection &p, int slice, int row)
{
    return slice == 0 ? p.first_square + row : partial_sums(p, slice, row) + p.projections;
}

/* post of one thread's mhc token, in place of its projections; rrms, scale and base as mhp_connection_args has them. */
template <int N> __device__ __forceinline__ void make_post(float rrms, const float *scale, const float *base, float (&post)[N])
{
#pragma unroll
    for (int k = 0; k < N; k++) {
        post[k] = 2.0f * sigmoid(scale[1] * (post[k] * rrms) + base[N + k]);
    }
}

/* comb likewise. */
template <int N>
__device__ __forceinline__ void make_comb(float rrms, const float *scale, const float *base, int iterations, float epsilon,
                                          float (&comb)[N * N])
{
#pragma unroll
    for (int i = 0; i < N * N; i++) {
        comb[i] = scale[2] * (comb[i] * rrms) + base[2 * N + i];
    }
    softmax_rows<N>(comb);
    sinkhorn<N>(comb, iterations, epsilon, NULL);
}

/* The projection of `tokens` states, with its slices; `rest` has `hidden` elements of `element` bytes for every token. */
projection projection_of(mhp_connection_kind kind, int tokens, int hidden, int streams, int projections, const void *x, const void *fn,
                         void *first, void *first_square, void *rest, size_t element);
template <typename T> mhp_status project(cudaStream_t stream, const projection *p);

/* Mix of four mhc streams in bf16, behind a merge unless `merge` is NULL (mix_four.cu). */
mhp_status mix_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix);

/* MHP_OK, or what of these sizes no kernel takes. */
mhp_status mhp_cuda_connection_check(const char *kernel, int tokens, int hidden, int streams, int iterations);

/* The residual connection: x (+ y, then kept as x_next) and its norm. */
template <typename T>
mhp_status residual_norm(cudaStream_t stream, int tokens, int hidden, double epsilon, const void *x, const void *y, void *x_next,
                         const void *weight, void *normed, void *rrms);
/* dx, also into dy unless that is NULL; the workspace gets residual_gradient_blocks(tokens, hidden) rows of partial sums of dweight. */
template <typename T> mhp_status residual_gradient(cudaStream_t stream, const mhp_mix_gradient_args *args, void *dy);
int residual_gradient_blocks(int tokens, int hidden);
template <typename T> mhp_status merge_gradient(cudaStream_t stream, const mhp_merge_gradient_args *args);

#endif
