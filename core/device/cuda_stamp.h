/* The card's clock. */
#ifndef MHP_CORE_DEVICE_CUDA_STAMP_H
#define MHP_CORE_DEVICE_CUDA_STAMP_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Enqueues: *slot = the card's clock in nanoseconds. `slot` is memory that the card may write. */
cudaError_t mhp_cuda_stamp(cudaStream_t stream, uint64_t *slot);
/* cudaSuccess if this build holds code for the current card, cudaErrorNoKernelImageForDevice if not. */
cudaError_t mhp_cuda_has_code(void);

#ifdef __cplusplus
}
#endif

#endif
