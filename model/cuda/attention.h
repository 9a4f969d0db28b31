/* The ways to attention, behind mhp_cuda_attention and mhp_cuda_attention_gradient: cuDNN's graphs for whole sequences in bf16; own
 * kernels on tensor cores for what else there is in bf16 (documents within sequences, builds without cuDNN, what cuDNN declines); own
 * kernels in float (attention.cu) for F32 and for head sizes that the others do not take. */
#ifndef MHP_MODEL_CUDA_ATTENTION_H
#define MHP_MODEL_CUDA_ATTENTION_H

#include <cuda_runtime_api.h>

#include "model/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether cuDNN serves this shape on the calling thread's device, and the bytes of workspace that its two graphs need. Makes the
 * graphs at a shape's first use and keeps them. Always false in a build without cuDNN. Any thread. */
bool mhp_cudnn_attention_serves(int sequences, int length, int heads, int kv_heads, int head_size, size_t *workspace_bytes_out);
/* For shapes that it serves; one_document is true. */
mhp_status mhp_cudnn_attention(cudaStream_t stream, const mhp_attention_args *args);
mhp_status mhp_cudnn_attention_gradient(cudaStream_t stream, const mhp_attention_gradient_args *args);

/* Whether the bf16 kernels on tensor cores serve: a head size up to 128, a multiple of 8; `qkv` and the rows of the output or its
 * gradient 16-byte aligned. */
bool mhp_mma_attention_serves(int head_size, const void *qkv, const void *rows);
mhp_status mhp_mma_attention(cudaStream_t stream, const mhp_attention_args *args);
/* workspace holds delta [sequences,H,length] = <out, dout>. */
mhp_status mhp_mma_attention_gradient(cudaStream_t stream, const mhp_attention_gradient_args *args);

#ifdef __cplusplus
}
#endif

#endif
