/* Device memory for what a kernel needs between its blocks or launches: products' workspace, partial sums, tickets.
 * One piece per stream, taken at the stream's first use (before step 0, as the libraries warm up) and kept until the process ends:
 * the kernels of a stream run one after the other, so they use it in turn. Between tasks nothing there lasts but
 * the tickets; within one, mix of four streams hands its sums from one kernel to the next. */
#ifndef MHP_MODEL_CUDA_SCRATCH_H
#define MHP_MODEL_CUDA_SCRATCH_H

#include <cuda_runtime_api.h>

#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MHP_CUDA_SCRATCH_BYTES = 64 << 20, MHP_CUDA_STREAMS_MAX = 64, MHP_CUDA_TICKETS = 64 };

typedef struct mhp_cuda_scratch {
    unsigned *ticket;           /* MHP_CUDA_TICKETS counters, zero between kernels */
    void *memory;               /* MHP_CUDA_SCRATCH_BYTES, 256-byte aligned */
} mhp_cuda_scratch;

/* The scratch of `stream` on the calling thread's device. Any thread. MHP_ERR_NO_MEMORY, MHP_ERR_LIMIT (more than
 * MHP_CUDA_STREAMS_MAX streams). */
mhp_status mhp_cuda_scratch_get(cudaStream_t stream, mhp_cuda_scratch *scratch_out);

#ifdef __cplusplus
}
#endif

#endif
