/* Stands in for cudnn_attention.cpp in a build without cuDNN or its front end: it serves no shape. */
#include "model/cuda/attention.h"

bool mhp_cudnn_attention_serves(int sequences, int length, int heads, int kv_heads, int head_size, size_t *workspace_bytes_out)
{
    (void)sequences;
    (void)length;
    (void)heads;
    (void)kv_heads;
    (void)head_size;
    *workspace_bytes_out = 0;
    return false;
}

mhp_status mhp_cudnn_attention(cudaStream_t stream, const mhp_attention_args *args)
{
    (void)stream;
    (void)args;
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "attention: built without cuDNN");
}

mhp_status mhp_cudnn_attention_gradient(cudaStream_t stream, const mhp_attention_gradient_args *args)
{
    (void)stream;
    (void)args;
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "attention_gradient: built without cuDNN");
}
