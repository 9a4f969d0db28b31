/* The tables of the CUDA backend. */
#include "model/cuda/cuda.h"

#define ENTRY(kernel, type) .kernel = mhp_cuda_##kernel##_##type,

static const mhp_kernels kernels_f32 = {
    .name = "cuda f32",
    .dtype = MHP_DTYPE_F32,
    .full_dtype = MHP_DTYPE_F32,
    .token_grain = 256,
    MHP_CUDA_CONNECTION_KERNELS(ENTRY, f32)
    MHP_CUDA_OTHER_KERNELS(ENTRY, f32)
    .connection_workspace = mhp_cuda_connection_workspace,
    .attention_workspace = mhp_cuda_attention_workspace,
};

static const mhp_kernels kernels_bf16 = {
    .name = "cuda bf16",
    .dtype = MHP_DTYPE_BF16,
    .full_dtype = MHP_DTYPE_F32,
    .token_grain = 256,
    MHP_CUDA_CONNECTION_KERNELS(ENTRY, bf16)
    MHP_CUDA_OTHER_KERNELS(ENTRY, bf16)
    .connection_workspace = mhp_cuda_connection_workspace,
    .attention_workspace = mhp_cuda_attention_workspace,
};

const mhp_kernels *mhp_cuda_kernels(mhp_dtype dtype)
{
    return dtype == MHP_DTYPE_F32 ? &kernels_f32 : dtype == MHP_DTYPE_BF16 ? &kernels_bf16 : NULL;
}
