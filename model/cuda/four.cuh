/* Mix, and merge with the mix behind it, of four mhc streams in bf16, in two passes over the state: what project_four.cu (the first) and
 * mix_four.cu (the second) share. */
#ifndef MHP_MODEL_CUDA_FOUR_CUH
#define MHP_MODEL_CUDA_FOUR_CUH

#include "model/cuda/connection.cuh"
#include "model/cuda/scratch.h"

enum {
    STREAMS = 4,
    PROJECTIONS = STREAMS * (STREAMS + 2),
    SLOT = PROJECTIONS + 4,     /* floats of a token's part: the projection, the square sum, three of nothing */
    CHUNK = 8,                  /* columns of a thread: 16 bytes */
};

/* What the first pass hands to the second, in the stream's scratch memory: of every slice of columns and token the slice's part of the
 * projection, then of the state's square sum. */
typedef struct state_parts {
    float *at;                  /* [slices][tokens][SLOT] */
    int slices, tokens;
} state_parts;

__device__ __forceinline__ float *part_of(const state_parts &p, int slice, int token)
{
    return p.at + ((size_t)slice * (size_t)p.tokens + (size_t)token) * SLOT;
}

/* Tokens whose parts the scratch memory takes. */
int project_four_tokens(int hidden);
/* x_next of a merge unless `merge` is NULL, and the parts of the state's projection. At most project_four_tokens(). */
mhp_status project_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix, state_parts *parts_out);

#endif
