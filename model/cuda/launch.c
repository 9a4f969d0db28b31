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

/* An attribute of the card in use, of which there is one answer for a process: cards of one host are alike, and writing it twice writes
 * the same. `of_h100` where there is none, as for a plan. */
static int attribute_of_card(enum cudaDeviceAttr attribute, _Atomic int *known, int of_h100)
{
    int value = *known;
    int device;

    if (value == 0) {
        if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess) {
            (void)cudaGetLastError();
            return of_h100;
        }
        *known = value;
    }
    return value;
}

enum { PROCESSORS_OF_H100 = 132 };

int mhp_cuda_processors(void)
{
    static _Atomic int known;

    return attribute_of_card(cudaDevAttrMultiProcessorCount, &known, PROCESSORS_OF_H100);
}

static _Atomic int shared_limit;        /* 0: none */

int mhp_cuda_shared_bytes(void)
{
    static _Atomic int known;
    int bytes = attribute_of_card(cudaDevAttrMaxSharedMemoryPerBlockOptin, &known, MHP_CUDA_SHARED_OF_H100);

    return shared_limit > 0 && shared_limit < bytes ? shared_limit : bytes;
}

void mhp_cuda_limit_shared(int bytes)
{
    shared_limit = bytes;
}

bool mhp_cuda_has_90(const void *kernel)
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
