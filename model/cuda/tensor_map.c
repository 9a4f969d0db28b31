#include <cuda_runtime_api.h>

#include "model/cuda/tensor_map.h"

typedef CUresult encode_function(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                                 const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's; by way of the runtime, so that nothing links the driver's library. NULL if it has none. */
static encode_function *find_encode(void)
{
    static _Atomic(encode_function *) known;    /* writing it twice writes the same */
    encode_function *encode = known;
    enum cudaDriverEntryPointQueryResult result;
    void *found = NULL;
    cudaError_t error;

    if (!encode) {
#if CUDART_VERSION >= 12050
        error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
#else
        error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
        if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) {
            (void)cudaGetLastError();
            return NULL;
        }
        known = encode = (encode_function *)found;
    }
    return encode;
}

mhp_status mhp_cuda_tensor_map(const mhp_cuda_boxes *boxes, CUtensorMap *map_out)
{
    encode_function *encode = find_encode();
    cuuint64_t row = (cuuint64_t)boxes->hidden * 2;
    cuuint64_t size[3] = {(cuuint64_t)boxes->hidden, (cuuint64_t)boxes->tokens, (cuuint64_t)boxes->streams};
    cuuint64_t stride[2] = {row * (cuuint64_t)boxes->streams, row};             /* in bytes, of tokens and streams */
    cuuint32_t box[3] = {(cuuint32_t)boxes->columns_of_box, (cuuint32_t)boxes->tokens_of_box, (cuuint32_t)boxes->streams};
    cuuint32_t step[3] = {1, 1, 1};
    CUresult result;

    if (!encode) {
        return mhp_error_set(MHP_ERR_DEVICE, "this driver has no cuTensorMapEncodeTiled, expected one for CUDA 12.0 or later");
    }
    result = encode(map_out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)boxes->state, size, stride, box, step,
                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS) {
        return mhp_error_set(MHP_ERR_DEVICE, "tensor map of a state [%d, %d, %d] at %p: error %d of the driver", boxes->tokens,
                             boxes->streams, boxes->hidden, boxes->state, (int)result);
    }
    return MHP_OK;
}
