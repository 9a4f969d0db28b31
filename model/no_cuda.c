/* In place of cuda/ in a build without CUDA. */
#include "model/cuda/cuda.h"

const mhp_kernels *mhp_cuda_kernels(mhp_dtype dtype)
{
    (void)dtype;
    return NULL;
}
