#include "core/device/cuda_stamp.h"

static __global__ void write_clock(volatile uint64_t *slot)
{
    uint64_t now_ns;

    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now_ns));
    *slot = now_ns;
}

cudaError_t mhp_cuda_stamp(cudaStream_t stream, uint64_t *slot)
{
    write_clock<<<1, 1, 0, stream>>>(slot);
    return cudaGetLastError();
}

cudaError_t mhp_cuda_has_code(void)
{
    cudaFuncAttributes attributes;
    cudaError_t code = cudaFuncGetAttributes(&attributes, write_clock);

    (void)cudaGetLastError();
    return code;
}
