#include <cuda_runtime.h>

extern "C" {
#include "comm/ipc/combine.h"
}

enum { THREADS = 256, BLOCKS_MAX = 64 };    /* few: it runs beside stages' kernels, and memory that fast needs no more */

template <typename T>
static __device__ T pick(mhp_combine_op op, T a, T b)
{
    return op == MHP_COMBINE_SUM ? a + b : op == MHP_COMBINE_MAX ? (b > a ? b : a) : (b < a ? b : a);
}

template <typename T>
static __global__ void combine(mhp_combine_args args)
{
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < args.count; i += (int64_t)gridDim.x * THREADS) {
        T value = ((const T *)args.sources[0])[i];

        for (int s = 1; s < args.source_count; s++) {
            value = pick(args.op, value, ((const T *)args.sources[s])[i]);
        }
        ((T *)args.target)[i] = value;
    }
}

static mhp_status submit(void *native, const void *argument)
{
    const mhp_combine_args *args = (const mhp_combine_args *)argument;
    cudaStream_t stream = (cudaStream_t)native;
    int64_t blocks = (args->count + THREADS - 1) / THREADS;
    unsigned grid = blocks < BLOCKS_MAX ? (unsigned)blocks : (unsigned)BLOCKS_MAX;
    cudaError_t code;

    if (args->count == 0) {
        return MHP_OK;
    }
    switch (args->dtype) {
    case MHP_DTYPE_F32:
        combine<float><<<grid, THREADS, 0, stream>>>(*args);
        break;
    case MHP_DTYPE_F64:
        combine<double><<<grid, THREADS, 0, stream>>>(*args);
        break;
    case MHP_DTYPE_I64:
        combine<long long><<<grid, THREADS, 0, stream>>>(*args);
        break;
    default:
        return mhp_error_set(MHP_ERR_INTERNAL, "no sums of %s", mhp_dtype_text(args->dtype));
    }
    code = cudaGetLastError();
    return code == cudaSuccess ? MHP_OK : mhp_error_set(MHP_ERR_DEVICE, "combine: %s", cudaGetErrorString(code));
}

extern "C" mhp_task_fn mhp_combine_on_card(void)
{
    return submit;
}
