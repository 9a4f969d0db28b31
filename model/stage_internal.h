/* What the passes of a stage share: where everything of a micro-batch lies in its slots, and how steps are numbered. */
#ifndef MHP_MODEL_STAGE_INTERNAL_H
#define MHP_MODEL_STAGE_INTERNAL_H

#include "model/stage.h"

/* Byte offsets in the slots of one micro-batch. */
typedef struct sublayer_memory {
    size_t state;                                       /* activation: x [T,n,C]; sublayer 0 reads the input slot behind stage 0 */
    size_t pre, post, comb, projection, rrms, mix;      /* activation: the connection's; mix is z [T,C] */
    size_t norm_rrms, branch;                           /* activation: [T]; y = F(norm(z)) [T,C] */
    size_t wide, log_sum;                               /* activation: qkv or gate|up; log_sum of attention */
    size_t normed, middle;                              /* product input: norm(z) [T,C]; attention's or SwiGLU's output */
    size_t wide_gradient, branch_gradient;              /* product gradient: of qkv or gate|up; dy [T,C] */
} sublayer_memory;

typedef struct head_memory {
    size_t state;                                       /* activation: the last state [T,n,C] */
    size_t pre, projection, rrms, mix, norm_rrms;       /* activation */
    size_t normed, logits;                              /* product input: [T,C], [T,V] (forward leaves their gradient) */
} head_memory;

typedef struct workspace_memory {
    size_t forward_attention, product;                  /* forward: product is the running gain [T,n,n] */
    size_t gradient_attention, connection, dpost, dcomb, dmix, dnormed, dmiddle, state_gradient;
} workspace_memory;

struct mhp_stage {
    mhp_stage_params params;
    mhp_model_params model;
    mhp_parameter_layout layout;
    mhp_stage_sizes sizes;
    int sublayer_count;
    sublayer_memory *sublayers;
    head_memory head;
    size_t embedding_gradient;                          /* product gradient: [T,C], first stage */
    workspace_memory workspace_at;
    size_t message_product;                             /* where the gain's product lies in a state message */
    char *parameters, *weights, *gradients, *workspace;
};

/* Forward, a sublayer takes two steps: its function, and its merge with the mix of the next one; the first mix stands before. Back, it
 * takes three (merge, function, mix), and one for its weight gradients. */
enum { FORWARD_STEPS = 2, GRADIENT_STEPS = 3, HEAD_STEPS = 2 };

static inline bool stage_has_streams(const mhp_stage *stage)
{
    return stage->model.connections.kind != MHP_CONNECTION_RESIDUAL;
}

static inline int stage_tokens(const mhp_stage *stage)
{
    return stage->params.sequences * stage->params.length;
}

static inline void *stage_at(void *base, size_t offset)
{
    return (char *)base + offset;
}

/* Address by element offset: of a parameter (full), of what products and the embedding read of it (real), of its gradient (full). */
static inline void *stage_parameter(const mhp_stage *stage, int64_t offset)
{
    return stage->parameters + (size_t)offset * mhp_dtype_bytes(stage->params.kernels->full_dtype);
}

static inline void *stage_weight(const mhp_stage *stage, int64_t offset)
{
    return stage->weights + (size_t)offset * mhp_dtype_bytes(stage->params.kernels->dtype);
}

static inline void *stage_gradient(const mhp_stage *stage, int64_t offset)
{
    return stage->gradients + (size_t)offset * mhp_dtype_bytes(stage->params.kernels->full_dtype);
}

/* The state that sublayer `s` reads; s == sublayer_count is what leaves the stage. */
void *stage_state(const mhp_stage *stage, const mhp_microbatch *microbatch, int s);
/* Where the gain's running product follows a state message. */
void *stage_message_product(const mhp_stage *stage, void *message);

/* Rows and columns of a sublayer's matrices: wide = q|k|v rows or gate|up rows, middle = columns of the second matrix. */
static inline bool sublayer_is_attention(int s)
{
    return s % 2 == 0;
}
int stage_wide(const mhp_stage *stage, int s);
int stage_middle(const mhp_stage *stage, int s);

/* out [T,rows] = in [T,columns] weight^T; din = dout weight; dweight += dout^T in. weight is [rows, columns] at an offset. */
mhp_status stage_linear(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns, const void *in, void *out);
mhp_status stage_linear_input_gradient(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns,
                                       const void *dout, void *din);
mhp_status stage_linear_weight_gradient(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns,
                                        const void *dout, const void *in);

mhp_status stage_forward_step(mhp_stage *stage, const mhp_microbatch *microbatch, int step, mhp_stream *stream);
mhp_status stage_input_gradient_step(mhp_stage *stage, const mhp_microbatch *microbatch, int step, mhp_stream *stream);
mhp_status stage_weight_gradient_step(mhp_stage *stage, const mhp_microbatch *microbatch, int step, mhp_stream *stream);

#endif
