/* The second half of a sublayer's gradient in three steps: coefficients of every token, then states and the sums over tokens by slices of
 * columns, then the sums of the slices' parts. What they hand on lies in the caller's workspace. */
#ifndef MHP_MODEL_CUDA_GRADIENT_CUH
#define MHP_MODEL_CUDA_GRADIENT_CUH

#include "model/cuda/common.cuh"

enum { GRADIENT_MHC, GRADIENT_HC, GRADIENT_HEAD };

/* What a token's dx needs beside state and gradients, of four streams, in floats: one piece to copy. */
enum {
    RECORD_DU = 0,
    RECORD_COMB = 24,
    RECORD_PRE = 40,
    RECORD_PULL = 44,
    RECORD_NORM_RRMS = 48,
    RECORD_NORM_PULL = 49,
    RECORD = 52,
};

/* The dots of a merge's gradient of four streams in bf16 are the same bits in a kernel of their own and joined with another, so that a
 * model's results do not depend on where its stages and blocks end. They add up eight columns one after the other; of four such pieces
 * 0 and 2, 1 and 3, and both; of eight of those neighbours, neighbours among these sums, and both; and the slices as sum_parts does. */
enum {
    GRADIENT_DOTS = 20,         /* of a token in the gradient of a merge of four streams: dpost | dcomb */
    GRADIENT_SLICE = 256,       /* columns whose parts of them are one */
};

/* `rows` of a token are 1, for hc n; `projections` are a row's. */
typedef struct gradient_args {
    int tokens, hidden, streams, iterations, rows, projections, bases;
    float hc_epsilon;
    const void *x, *g, *incoming;       /* incoming: d of the normed mix; of the mix itself for the readout */
    const float *weight, *norm_rrms;    /* of the norm; NULL for the readout */
    const float *dpost, *dcomb, *pre, *comb, *projection, *rrms, *fn, *base, *scale;
    void *dx;
    float *dfn, *dbase, *dscale, *dweight;
    /* Workspace. */
    float *du;                          /* [tokens, rows, projections] du / r */
    float *pull;                        /* [tokens, rows]: x's factor in dx */
    float *norm_pull;                   /* [tokens]: z's factor in dz */
    int du_stride, pull_stride, norm_stride;    /* of a token, in these three */
    bool records;                       /* they lie in records with the rest of what a token's dx needs */
    float *small_parts;                 /* [blocks, bases + 3] dbase | dscale */
    float *fn_parts, *weight_parts;     /* [groups, projections, width], [groups, hidden] */
    int blocks, groups;
    /* The gradient of the merge in front, joined to state_gradient_tensor where merge.dy is not NULL. */
    mhp_merge_gradient_args merge;
    float *dot_parts;                   /* [slices of GRADIENT_SLICE columns]: dpost [tokens, 4], dcomb [tokens, 16] */
} gradient_args;

/* Points into the workspace; the sizes and `records` must be set. */
void gradient_workspace(gradient_args *a, void *workspace);
/* Groups of tokens that a state kernel forms. */
int gradient_groups(int tokens, int hidden, bool tensor);
int gradient_head_groups(int tokens, int hidden, int streams, int columns);
int64_t gradient_workspace_count(int tokens, int hidden, int streams);

template <typename T> mhp_status coefficient_gradient(cudaStream_t stream, int kind, gradient_args *a);
/* dx and the parts of dfn and dweight, in a->groups groups. */
template <typename T> mhp_status state_gradient(cudaStream_t stream, int kind, gradient_args *a);
/* Four streams in bf16, mhc or hc; with merge.dy, and the slices' parts of merge.dpost and merge.dcomb, where it is not NULL. */
mhp_status state_gradient_tensor(cudaStream_t stream, int kind, gradient_args *a);
/* Whether this card and this build have what it needs. */
bool state_gradient_tensor_serves(void);

/* target[i] += sum over parts of part[row * stride + i]; with `overwrite` = instead. */
typedef struct part_sum {
    float *target;
    const float *part;
    int count, rows, stride;
    bool overwrite;
} part_sum;
mhp_status sum_parts(cudaStream_t stream, const part_sum *sums, int count);

/* Parts i, i + turns, i + 2 turns ... are added up first, then these sums; where count and stride are multiples of 4. */
__host__ __device__ inline int part_turns(int rows)
{
    return rows <= 4 ? 1 : rows <= 32 ? 4 : WARP;
}

#endif
