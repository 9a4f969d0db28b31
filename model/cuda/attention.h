/* The two ways to attention, behind mhp_cuda_attention and mhp_cuda_attention_gradient: cuDNN's graphs for whole sequences in bf16,
 * own kernels for everything else (documents within sequences, F32, builds without cuDNN, what cuDNN declines). */
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

#ifdef __cplusplus
}
#endif

#endif
