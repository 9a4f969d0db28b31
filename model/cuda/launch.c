/* What every launch of the CUDA backend asks of the host. */
#include <cuda_runtime_api.h>

#include "model/cuda/cuda.h"

mhp_status mhp_cuda_launched(const char *kernel)
{
    cudaError_t error = cudaGetLastError();

    if (error != cudaSuccess) {
        return mhp_error_set(MHP_ERR_DEVICE, "launch of %s: %s (%s)", kernel, cudaGetErrorString(error), cudaGetErrorName(error));
    }
    return MHP_OK;
}

enum { PROCESSORS_OF_H100 = 132 };

int mhp_cuda_processors(void)
{
    static _Atomic int processors;      /* cards of one host are alike; writing it twice writes the same */
    int count = processors;
    int device;

    if (count == 0) {
        if (cudaGetDevice(&device) != cudaSuccess ||
            cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
            (void)cudaGetLastError();
            return PROCESSORS_OF_H100;      /* a plan made where there is no card */
        }
        processors = count;
    }
    return count;
}

static _Atomic int shared_limit;        /* 0: none */

int mhp_cuda_shared_bytes(void)
{
    static _Atomic int known;           /* cards of one host are alike; writing it twice writes the same */
    int bytes = known;
    int device;

    if (bytes == 0) {
        if (cudaGetDevice(&device) != cudaSuccess ||
            cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) {
            (void)cudaGetLastError();
            bytes = MHP_CUDA_SHARED_OF_H100;    /* a plan made where there is no card */
        } else {
            known = bytes;
        }
    }
    return shared_limit > 0 && shared_limit < bytes ? shared_limit : bytes;
}

void mhp_cuda_limit_shared(int bytes)
{
    shared_limit = bytes;
}

bool mhp_cuda_begins_early(const void *kernel)
{
    static _Atomic int known;           /* the virtual architecture's number; writing it twice writes the same */
    int version = known;
    struct cudaFuncAttributes attributes;

    if (version == 0) {
        if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) {
            (void)cudaGetLastError();
            return false;
        }
        known = version = attributes.ptxVersion;
    }
    return version >= 90;
}
