/* Mix, and merge with the mix behind it, of four mhc streams in bf16, in two passes over the state and a small one between them: what
 * project_four.cu (the first) and mix_four.cu (the others) share. */
#ifndef MHP_MODEL_CUDA_FOUR_CUH
#define MHP_MODEL_CUDA_FOUR_CUH

#include "model/cuda/connection.cuh"

enum {
    STREAMS = 4,
    PROJECTIONS = STREAMS * (STREAMS + 2),
    SLOT = PROJECTIONS + 4,     /* floats of a token's part: the projection, the square sum, three of nothing */
    CHUNK = 8,                  /* columns of a thread: 16 bytes */
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

/* x_next of a merge unless `merge` is NULL, and the parts of the state's projection, which `p` then describes. */
mhp_status project_four(cudaStream_t stream, const mhp_merge_args *merge, const mhp_mix_args *mix, projection *p);

#endif
