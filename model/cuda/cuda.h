/* The kernels of the CUDA backend, by table: mhp_cuda_KERNEL_f32 and mhp_cuda_KERNEL_bf16 for every kernel of model/kernels.h. C and
 * CUDA sources share this header. `native` is the cudaStream_t; a kernel only enqueues work, and never waits for the device. */
#ifndef MHP_MODEL_CUDA_CUDA_H
#define MHP_MODEL_CUDA_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/kernels.h"

/* Kernels by the file that holds them. */
#define MHP_CUDA_CONNECTION_KERNELS(X, type) \
    X(mix, type) X(merge, type) X(merge_mix, type) X(merge_gradient, type) X(mix_gradient, type) \
    X(mix_merge_gradient, type) X(rebuild, type) X(readout, type) X(readout_gradient, type)
#define MHP_CUDA_OTHER_KERNELS(X, type) \
    X(gemm, type) X(embedding, type) X(embedding_gradient, type) X(stream_sum, type) X(stream_repeat, type) \
    X(rms_norm, type) X(rms_norm_gradient, type) X(rotary, type) X(attention, type) X(attention_gradient, type) \
    X(swiglu, type) X(swiglu_gradient, type) X(cross_entropy, type) X(gain, type) X(gain_read, type) \
    X(adamw, type) X(square_sum, type) X(clip, type) X(cast, type)

#define MHP_CUDA_DECLARE(kernel, type) mhp_status mhp_cuda_##kernel##_##type(void *native, const void *argument);
MHP_CUDA_CONNECTION_KERNELS(MHP_CUDA_DECLARE, f32)
MHP_CUDA_CONNECTION_KERNELS(MHP_CUDA_DECLARE, bf16)
MHP_CUDA_OTHER_KERNELS(MHP_CUDA_DECLARE, f32)
MHP_CUDA_OTHER_KERNELS(MHP_CUDA_DECLARE, bf16)
#undef MHP_CUDA_DECLARE

/* Elements of full; `threads` is ignored. */
int64_t mhp_cuda_connection_workspace(mhp_connection_kind kind, int tokens, int hidden, int streams, int threads);
int64_t mhp_cuda_attention_workspace(int sequences, int length, int heads, int kv_heads, int head_size, int threads);

/* MHP_OK, or MHP_ERR_DEVICE with the place and CUDA's words for the last launch's error. */
mhp_status mhp_cuda_launched(const char *kernel);

/* Multiprocessors of the card in use; those of an H100 where there is none. */
int mhp_cuda_processors(void);

/* Bytes of shared memory that a block of the card in use may have; those of an H100 where there is none. Kernels of four streams in bf16
 * need what that has: on a card with less, as of compute capability 8.0, the general ones serve. */
enum { MHP_CUDA_SHARED_OF_H100 = 227 << 10 };
int mhp_cuda_shared_bytes(void);
/* Whether kernels of four streams in bf16 serve. */
static inline bool mhp_cuda_serves_four(void)
{
    return mhp_cuda_shared_bytes() >= MHP_CUDA_SHARED_OF_H100;
}
/* As if it were no more than `bytes`; 0 takes that back. For tests of what smaller cards get, while no other thread submits. */
void mhp_cuda_limit_shared(int bytes);

/* Whether what is loaded was compiled for compute capability 9.0 or later, so that kernels contain the wait that lets them begin before
 * the kernel in front is done, and copies of boxes. `kernel` is one of this build's, which are compiled alike. */
bool mhp_cuda_has_90(const void *kernel);

/* NULL if there are none for this element type, or in this build. */
const mhp_kernels *mhp_cuda_kernels(mhp_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
