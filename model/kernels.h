/* Everything a stage computes, as tasks behind one table: a backend and an element type are one table.
 *
 * A kernel is a mhp_task_fn whose argument is the struct named beside it; submit it with mhp_stream_submit. Pointers are device
 * memory. Two element types: `real`, the table's dtype, of activations, their gradients, messages and the matrices (weights) that
 * products read; and `full`, F32 where real is BF16 and else the same, of every other parameter (norms, hc_*), of the gradients of
 * all parameters, coefficients of connections (pre, post, comb and theirs), projection, rrms, log_sum, gains and moments.
 * T tokens of a micro-batch, C hidden size, n residual streams, H heads, K key-value heads, D head size. Row-major throughout.
 * "+=" marks outputs that accumulate; all others are overwritten. Formulas: docs/model.md. */
#ifndef MHP_MODEL_KERNELS_H
#define MHP_MODEL_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/device.h"
#include "core/tensor.h"

typedef enum mhp_connection_kind { MHP_CONNECTION_RESIDUAL, MHP_CONNECTION_HC, MHP_CONNECTION_MHC } mhp_connection_kind;
typedef enum mhp_readout_kind { MHP_READOUT_HEAD, MHP_READOUT_SUM } mhp_readout_kind;

enum { MHP_STREAMS_MAX = 8 };

/* c [m,n] = alpha * op(a) op(b) + beta * c; op(a) is [m,k], op(b) is [k,n]. a and b are real; c is real, or full (sums of gradients)
 * with full_c. */
typedef struct mhp_gemm_args {
    bool transpose_a, transpose_b, full_c;
    int m, n, k;
    double alpha, beta;
    const void *a; int lda;
    const void *b; int ldb;
    void *c; int ldc;
} mhp_gemm_args;

/* state[t,j,:] = table[token[t],:] for every stream j. table [V,C], state [T,n,C]. */
typedef struct mhp_embedding_args {
    int tokens, hidden, streams;
    const int32_t *token;
    const void *table;
    void *state;
} mhp_embedding_args;

/* dtable[token[t],:] += grad[t,:]. grad [T,C]. In token order, so that sums do not depend on threads. */
typedef struct mhp_embedding_gradient_args {
    int tokens, hidden;
    const int32_t *token;
    const void *grad;
    void *dtable;
} mhp_embedding_gradient_args;

/* sum[t,:] = over streams of state[t,j,:]. state [T,n,C], sum [T,C]: gradient of expanding, forward of the "sum" readout. */
typedef struct mhp_stream_sum_args {
    int tokens, hidden, streams;
    const void *state;
    void *sum;
} mhp_stream_sum_args;

/* state[t,j,:] = grad[t,:]: gradient of the "sum" readout. */
typedef struct mhp_stream_repeat_args {
    int tokens, hidden, streams;
    const void *grad;
    void *state;
} mhp_stream_repeat_args;

/* y = x / rms * weight, rms = sqrt(mean(x^2) + epsilon); rrms [T] = 1 / rms is kept for the gradient. x, y [T,C], weight [C]. */
typedef struct mhp_rms_norm_args {
    int tokens, hidden;
    double epsilon;
    const void *x, *weight;
    void *y, *rrms;
} mhp_rms_norm_args;

/* dx = gradient through rms_norm (+ residual if not NULL, [T,C]); dweight [C] +=. */
typedef struct mhp_rms_norm_gradient_args {
    int tokens, hidden;
    const void *x, *weight, *rrms, *dy, *residual;
    void *dx, *dweight;
} mhp_rms_norm_gradient_args;

/* Coefficients of a hc or mhc sublayer and its pre mix.
 * x [T,n,C] -> pre [T,n], post [T,n], comb [T,n,n] (comb[j,k] carries stream j into k), z [T,C] = sum_j pre_j x_j, which the kernel
 * `connection` alone writes.
 * Kept for the gradient: projection [T,P] and rrms [T or T*n]:
 *   mhc: P = n*n+2n, projection = u = fn v, fn [P, n*C], rrms [T] = 1/r;
 *   hc:  P = n*(n+2), projection = t = tanh(x~ fn^T) as [T,n,n+2], fn [n+2, C], rrms [T,n].
 * base [n*n+2n] = [pre n | post n | comb n*n], scale [3]. */
typedef struct mhp_connection_args {
    mhp_connection_kind kind;
    int tokens, hidden, streams, sinkhorn_iterations;
    double norm_epsilon, hc_epsilon;
    const void *x, *fn, *base, *scale;
    void *pre, *post, *comb, *projection, *rrms, *z;
    int whole_tokens;           /* of a slice (mhp_kernels.token_grain): of all slices; else 0 */
} mhp_connection_args;

/* By how many tokens a kernel may choose in which order it adds what it adds for one. */
static inline int mhp_connection_whole(const mhp_connection_args *args)
{
    return args->whole_tokens > 0 ? args->whole_tokens : args->tokens;
}

/* Everything between a state and F: coefficients and pre mix (residual: x is z), then normed [T,C] = z / rms(z) * weight [C] with
 * norm_rrms [T] as rms_norm has it. z itself is not kept: the gradient, which reads x anyway, makes it again. Residual reads kind,
 * tokens, hidden, norm_epsilon and x of `connection` alone. */
typedef struct mhp_mix_args {
    mhp_connection_args connection;
    const void *weight;
    void *normed, *norm_rrms;
} mhp_mix_args;

/* x_next[t,k,:] = sum_j comb[t,j,k] x[t,j,:] + post[t,k] y[t,:]; residual: x_next = x + y, post and comb are not read. x_next may not
 * be x. */
typedef struct mhp_merge_args {
    mhp_connection_kind kind;
    int tokens, hidden, streams;
    const void *x, *y, *post, *comb;
    void *x_next;
} mhp_merge_args;

/* A sublayer's merge and the mix of the one behind it, so that the state between them need not be read again.
 * mix.connection.x is merge.x_next. */
typedef struct mhp_merge_mix_args {
    mhp_merge_args merge;
    mhp_mix_args mix;
} mhp_merge_mix_args;

/* Makes everything again that lies between the Fs of a block of `count` sublayers, from the block's first state x [T,n,C], F's outputs
 * y [T,C] and what the forward pass kept of every sublayer: pre, post, comb and norm_rrms. normed of all sublayers, and the states
 * behind the first, bit for bit as mix and merge_mix made them; nothing is summed over a row. hc and mhc.
 * Each pointer is sublayer 0's, and sublayer i's lies i strides (bytes) further: y, normed; pre to norm_rrms (kept_stride); `state`
 * is x of sublayer 1, one stride further that of sublayer 2. `last` is the state that the block leaves behind; where it is NULL, y of
 * the last sublayer is not read. */
typedef struct mhp_rebuild_args {
    int tokens, hidden, streams, count;
    const void *const *weight;                  /* [count] weights of norms [C]; host memory that stays until the task has run */
    const void *x, *y, *pre, *post, *comb, *norm_rrms;
    void *state, *last, *normed;
    size_t y_stride, kept_stride, state_stride, normed_stride;
} mhp_rebuild_args;

/* First half of a sublayer's input gradient, before F's: from g = d/dx_next [T,n,C]:
 * dy [T,C] = sum_k post_k g_k; dpost [T,n] = <g_k, y>; dcomb [T,n,n] = <x_j, g_k>. Residual: dy = g, nothing else is written. */
typedef struct mhp_merge_gradient_args {
    mhp_connection_kind kind;
    int tokens, hidden, streams;
    const void *g, *x, *y, *post, *comb;
    void *dy, *dpost, *dcomb;
} mhp_merge_gradient_args;

/* Second half, after F's: dz [T,C] is what came back through F and its norm.
 * dx [T,n,C] as in docs/model.md (may be g: each token is read before it is written); dfn, dbase, dscale +=. `workspace` holds
 * mhp_kernels.connection_workspace elements of full. */
typedef struct mhp_connection_gradient_args {
    mhp_connection_kind kind;
    int tokens, hidden, streams, sinkhorn_iterations;
    double norm_epsilon, hc_epsilon;
    const void *g, *x, *dpost, *dcomb;
    void *dz;                   /* read, unless within mhp_mix_gradient_args */
    const void *pre, *post, *comb, *projection, *rrms;
    const void *fn, *base, *scale;
    void *dx, *dfn, *dbase, *dscale, *workspace;
} mhp_connection_gradient_args;

/* Second half with the norm in it: dnormed [T,C] is what came back through F; weight and norm_rrms are mix's; dweight [C] +=.
 * connection.dz is room for [T,C] that the kernel may use. Residual: dx = g + gradient of x through the norm. dx may be g. */
typedef struct mhp_mix_gradient_args {
    mhp_connection_gradient_args connection;
    const void *weight, *norm_rrms, *dnormed;
    void *dweight;
} mhp_mix_gradient_args;

/* A sublayer's second half and the first half of the one in front of it, so that the state's gradient between them need not be read again:
 * merge.g is mix.connection.dx. merge.dpost and merge.dcomb may be mix.connection.dpost and dcomb, which are read before they are
 * written. The bits are those of mix_gradient and merge_gradient, one after the other. */
typedef struct mhp_mix_merge_gradient_args {
    mhp_mix_gradient_args mix;
    mhp_merge_gradient_args merge;
} mhp_mix_merge_gradient_args;

/* The "head" readout: pre = sigmoid(scale u rrms + base) + hc_epsilon, u = fn v, fn [n, n*C], base [n], scale [1];
 * z [T,C] = sum_j pre_j x_j. Keeps pre [T,n], projection u [T,n], rrms [T]. */
typedef struct mhp_readout_args {
    int tokens, hidden, streams;
    double norm_epsilon, hc_epsilon;
    const void *x, *fn, *base, *scale;
    void *pre, *projection, *rrms, *z;
} mhp_readout_args;

/* dx [T,n,C] from dz [T,C]; dfn, dbase, dscale +=. */
typedef struct mhp_readout_gradient_args {
    int tokens, hidden, streams;
    double norm_epsilon, hc_epsilon;
    const void *x, *dz, *pre, *projection, *rrms, *fn, *base, *scale;
    void *dx, *dfn, *dbase, *dscale, *workspace;
} mhp_readout_gradient_args;

/* Rotates q and k in place inside qkv [T, (H+2K)*D] (rotate-half pairing: element i with i + D/2, angle position * theta^(-2i/D));
 * inverse turns back (the gradient). position [T]. */
typedef struct mhp_rotary_args {
    int tokens, heads, kv_heads, head_size;
    bool inverse;
    double theta;
    const int32_t *position;
    void *qkv;
} mhp_rotary_args;

/* Causal softmax(q k^T / sqrt(D)) v for `sequences` sequences of `length` tokens, T = sequences * length, grouped queries (head h
 * reads key-value head h / (H/K)). Token t sees tokens from document_start[t] (an index within its sequence, never falling with t) to
 * itself. one_document is the caller's promise that every document_start is 0; false is always right.
 * qkv [T,(H+2K)*D], out [T,H*D]. log_sum (log of the softmax's denominator, scaled scores) is kept for the gradient: T*H elements,
 * [T,H] on a CPU, [sequences,H,length] on CUDA. */
typedef struct mhp_attention_args {
    int sequences, length, heads, kv_heads, head_size;
    bool one_document;
    const int32_t *document_start;
    const void *qkv;
    void *out, *log_sum, *workspace;    /* workspace: mhp_kernels.attention_workspace elements */
} mhp_attention_args;

/* dqkv [T,(H+2K)*D] from dout [T,H*D]. */
typedef struct mhp_attention_gradient_args {
    int sequences, length, heads, kv_heads, head_size;
    bool one_document;
    const int32_t *document_start;
    const void *qkv, *out, *log_sum, *dout;
    void *dqkv, *workspace;
} mhp_attention_gradient_args;

/* act[t,:] = silu(gate) * up; gate_up [T,2I] = [gate I | up I], act [T,I]. */
typedef struct mhp_swiglu_args {
    int tokens, intermediate;
    const void *gate_up;
    void *act;
} mhp_swiglu_args;

/* dgate_up [T,2I] from dact [T,I]. */
typedef struct mhp_swiglu_gradient_args {
    int tokens, intermediate;
    const void *gate_up, *dact;
    void *dgate_up;
} mhp_swiglu_gradient_args;

/* loss_sum[0] (double) = sum over tokens whose target is not -100 of the cross-entropy of logits [T,V]; dlogits (may be logits, NULL
 * for the loss alone) = scale * (softmax - onehot), 0 for masked tokens. */
typedef struct mhp_cross_entropy_args {
    int tokens, vocabulary;
    double scale;
    const int32_t *target;
    const void *logits;
    void *dlogits;
    double *loss_sum;
} mhp_cross_entropy_args;

/* Composed gain: product_out[t] = comb[t]^T product_in[t], [T,n,n]; product_in NULL is the identity. product_out may be product_in.
 * worst[0] (double) = max(worst[0], mean over t of the largest absolute row sum of comb[t]^T);
 * worst[1] likewise for column sums. */
typedef struct mhp_gain_args {
    int tokens, streams;
    const void *comb, *product_in;
    void *product_out;
    double *worst;
} mhp_gain_args;

/* gain[0] (double) = mean over t of the largest absolute row sum of product[t]; gain[1] of the column sums. */
typedef struct mhp_gain_read_args {
    int tokens, streams;
    const void *product;
    double *gain;
} mhp_gain_read_args;

/* AdamW over `count` elements (docs/model.md): g is multiplied by *gradient_scale (double, device memory) first; a negative one leaves
 * everything as it is. */
typedef struct mhp_adamw_args {
    int64_t count;
    double rate, beta1, beta2, epsilon, decay;
    int64_t step;               /* from 1, for the bias correction */
    const double *gradient_scale;
    const void *grad;
    void *parameter, *moment1, *moment2;        /* full */
    void *weight;               /* real copy of the parameter to write as well, or NULL */
} mhp_adamw_args;

/* target (real) = source (full), `count` elements, rounded to nearest even. */
typedef struct mhp_cast_args {
    int64_t count;
    const void *source;
    void *target;
} mhp_cast_args;

/* sum[0] (double) += sum of squares of `count` elements. */
typedef struct mhp_square_sum_args {
    int64_t count;
    const void *x;
    double *sum;
} mhp_square_sum_args;

/* A watch: of `count` doubles, `stride` apart, the sum may be at most `limit`. NaN is above every limit. */
typedef struct mhp_sum_limit {
    const double *x;
    int64_t count, stride;
    double limit;
} mhp_sum_limit;

enum { MHP_SUM_LIMITS_MAX = 4 };

/* From the square sum of all gradients: norm[0] = sqrt(square_sum[0]); scale[0] = min(1, clip / (norm + 1e-6)), 1 if clip is 0; but
 * -1 - w where watch w is the first whose sum is above its limit. The sums are taken in order. A watch may look at norm. All double. */
typedef struct mhp_clip_args {
    double clip;
    const double *square_sum;
    double *norm, *scale;
    mhp_sum_limit watches[MHP_SUM_LIMITS_MAX];
    int watch_count;
} mhp_clip_args;

typedef struct mhp_kernels {
    const char *name;           /* "cpu f32 x86-64-v4" */
    mhp_dtype dtype, full_dtype;        /* of real and full */
    /* mix and merge may be done in slices of tokens that begin at multiples of this, each with its rows of everything: the bits are those
     * of the whole. */
    int token_grain;
    mhp_task_fn gemm;
    mhp_task_fn embedding, embedding_gradient, stream_sum, stream_repeat;
    mhp_task_fn rms_norm, rms_norm_gradient;
    mhp_task_fn mix, merge, merge_mix, merge_gradient, mix_gradient, mix_merge_gradient;
    mhp_task_fn rebuild;
    mhp_task_fn connection, connection_gradient;    /* mix and its gradient without the norm; NULL where they come fused alone */
    mhp_task_fn readout, readout_gradient;
    mhp_task_fn rotary, attention, attention_gradient;
    mhp_task_fn swiglu, swiglu_gradient, cross_entropy;
    mhp_task_fn gain, gain_read, adamw, square_sum, clip, cast;
    /* Elements of full that the workspaces need, for `threads` threads of the device. */
    int64_t (*connection_workspace)(mhp_connection_kind kind, int tokens, int hidden, int streams, int threads);
    int64_t (*attention_workspace)(int sequences, int length, int heads, int kv_heads, int head_size, int threads);
} mhp_kernels;

/* The best table of this machine for a device kind and dtype; NULL if there is none. */
const mhp_kernels *mhp_kernels_find(mhp_device_kind kind, mhp_dtype dtype);

#endif
