/* The scratch of every stream, in a list that only grows. */
#include "model/cuda/scratch.h"

#include <pthread.h>
#include <stddef.h>

typedef struct entry {
    int device;
    cudaStream_t stream;
    mhp_cuda_scratch scratch;
} entry;

static struct {
    pthread_mutex_t lock;
    entry entries[MHP_CUDA_STREAMS_MAX];
    int count;
} list = {.lock = PTHREAD_MUTEX_INITIALIZER};

static mhp_status add(int device, cudaStream_t stream)
{
    entry *fresh = &list.entries[list.count];
    size_t tickets = MHP_CUDA_TICKETS * sizeof(unsigned);
    void *memory = NULL;
    cudaError_t error;

    if (list.count == MHP_CUDA_STREAMS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "scratch memory of kernels: more than %d CUDA streams", MHP_CUDA_STREAMS_MAX);
    }
    error = cudaMalloc(&memory, tickets + MHP_CUDA_SCRATCH_BYTES);
    if (error != cudaSuccess) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "scratch memory of kernels, %zu bytes: %s", tickets + MHP_CUDA_SCRATCH_BYTES,
                             cudaGetErrorString(error));
    }
    error = cudaMemsetAsync(memory, 0, tickets, stream);
    if (error != cudaSuccess) {
        (void)cudaFree(memory);
        return mhp_error_set(MHP_ERR_DEVICE, "cudaMemsetAsync of tickets: %s", cudaGetErrorString(error));
    }
    *fresh = (entry){
        .device = device,
        .stream = stream,
        .scratch = {.ticket = memory, .memory = (char *)memory + tickets},
    };
    list.count++;
    return MHP_OK;
}

mhp_status mhp_cuda_scratch_get(cudaStream_t stream, mhp_cuda_scratch *scratch_out)
{
    mhp_status status = MHP_OK;
    int device = 0;
    int i = 0;

    if (cudaGetDevice(&device) != cudaSuccess) {
        return mhp_error_set(MHP_ERR_DEVICE, "cudaGetDevice failed");
    }
    (void)pthread_mutex_lock(&list.lock);
    while (i < list.count && (list.entries[i].device != device || list.entries[i].stream != stream)) {
        i++;
    }
    if (i == list.count) {
        status = add(device, stream);
    }
    if (status >= 0) {
        *scratch_out = list.entries[i].scratch;
    }
    (void)pthread_mutex_unlock(&list.lock);
    return status;
}
