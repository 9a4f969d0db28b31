/* What the passes of a stage share: where everything of a micro-batch lies in its memories, and the steps of each pass. */
#ifndef MHP_MODEL_STAGE_INTERNAL_H
#define MHP_MODEL_STAGE_INTERNAL_H

#include "model/stage.h"

/* Where something of a micro-batch lies. */
typedef struct place {
    mhp_lifetime lifetime;
    size_t offset;
} place;

typedef struct sublayer_memory {
    place state;                                        /* x [T,n,C]; sublayer 0 reads the input slot behind stage 0 */
    place pre, post, comb, projection, rrms;            /* the connection's */
    place norm_rrms, branch;                            /* [T]; y = F(norm(z)) [T,C] */
    place wide, log_sum;                                /* qkv or gate|up; log_sum of attention */
    place normed, middle;                               /* norm(z) [T,C]; attention's or SwiGLU's output */
    place wide_gradient, branch_gradient;               /* of qkv or gate|up; dy [T,C] */
} sublayer_memory;

typedef struct head_memory {
    place state;                                        /* the last state [T,n,C] */
    place pre, projection, rrms, mix, norm_rrms;
    place normed, logits;                               /* [T,C], [T,V] (forward leaves their gradient) */
} head_memory;

/* The forward pass need not see the same memory as those that come back: what is made again goes through room that is used over and
 * over on the way forward, and lies in the block's memory on the way back. */
typedef struct stage_view {
    sublayer_memory *sublayers;
    head_memory head;
    place attention;                                    /* workspace of attention's forward kernel */
} stage_view;

/* Memory of one gradient pass. */
typedef struct backward_memory {
    place attention, connection, dpost, dcomb, dmix, dnormed, dmiddle, state_gradient;
} backward_memory;

typedef enum stage_operation {
    /* forward */
    OPERATION_EMBED, OPERATION_JOIN, OPERATION_FUNCTION, OPERATION_READ_OUT, OPERATION_PREDICT,
    /* rebuild; also before the blocks of an input gradient */
    OPERATION_REBUILD_BLOCK, OPERATION_REBUILD_MIX, OPERATION_REBUILD_FUNCTION, OPERATION_REBUILD_HEAD,
    /* input gradient */
    OPERATION_HEAD_GRADIENT, OPERATION_READ_OUT_GRADIENT, OPERATION_MERGE_GRADIENT, OPERATION_FUNCTION_GRADIENT,
    OPERATION_MIX_GRADIENT, OPERATION_MIX_MERGE_GRADIENT, OPERATION_EXPAND_GRADIENT,
    /* weight gradient */
    OPERATION_HEAD_WEIGHT, OPERATION_SUBLAYER_WEIGHT, OPERATION_EMBEDDING_WEIGHT,
} stage_operation;

typedef struct stage_step {
    stage_operation operation;
    int sublayer;                                       /* of REBUILD_BLOCK the block's first, of MIX_MERGE_GRADIENT the mix's */
} stage_step;

typedef struct step_list {
    stage_step *items;
    int count;
} step_list;

struct mhp_stage {
    mhp_stage_params params;
    mhp_model_params model;
    mhp_parameter_layout layout;
    mhp_stage_sizes sizes;
    int sublayer_count;
    int block;                                          /* sublayers of a block; sublayer_count without recompute */
    int slice_tokens;                                   /* of all slices but the last */
    stage_view forward, backward;
    backward_memory gradient_at;
    place embedding_gradient;                           /* [T,C], first stage */
    place product;                                      /* the running gain [T,n,n] */
    size_t state_stride, kept_stride, normed_stride, branch_stride;     /* between sublayers, for the rebuild kernel */
    size_t message_product;                             /* where the gain's product lies in a state message */
    step_list steps[MHP_PASS_COUNT];
    const void **norm_weights;                          /* [sublayer]; set when parameters are bound */
    char *parameters, *weights, *gradients;
};

static inline bool stage_has_streams(const mhp_stage *stage)
{
    return stage->model.connections.kind != MHP_CONNECTION_RESIDUAL;
}

static inline int stage_tokens(const mhp_stage *stage)
{
    return stage->params.sequences * stage->params.length;
}

static inline void *stage_at(const mhp_microbatch *microbatch, place at)
{
    return (char *)microbatch->memory[at.lifetime] + at.offset;
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
void *stage_state(const mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s);
/* Where the gain's running product follows a state message. */
void *stage_message_product(const mhp_stage *stage, void *message);

/* Whether the states between sublayers are thrown away; residual connections keep theirs unless F is rebuilt too. */
static inline bool stage_rebuilds_states(const mhp_stage *stage)
{
    return stage->params.recompute == MHP_RECOMPUTE_FULL ||
           (stage->params.recompute == MHP_RECOMPUTE_CONNECTIONS && stage_has_streams(stage));
}

/* Whether coefficients and norms' factors, which are few, stay where the states that they make are thrown away, so that
 * these come back without a sum over a state. */
static inline bool stage_keeps_coefficients(const mhp_stage *stage)
{
    return stage->params.recompute == MHP_RECOMPUTE_NONE ||
           (stage->params.recompute == MHP_RECOMPUTE_CONNECTIONS && stage_has_streams(stage));
}

/* By the stage's own number of the sublayer. */
static inline bool stage_is_attention(const mhp_stage *stage, int s)
{
    return mhp_sublayer_is_attention(stage->params.extent.first_sublayer + s);
}

/* Rows and columns of a sublayer's matrices: wide = q|k|v rows or gate|up rows, middle = columns of the second matrix. */
int stage_wide(const mhp_stage *stage, int s);
int stage_middle(const mhp_stage *stage, int s);

/* Fills places, strides and sizes. */
mhp_status stage_plan_memory(mhp_stage *stage);
/* Lists the steps of every pass. */
mhp_status stage_plan_steps(mhp_stage *stage);
mhp_step_kind stage_step_kind(const stage_step *step);
mhp_step_part stage_step_part(const mhp_stage *stage, const stage_step *step);

/* out [T,rows] = in [T,columns] weight^T; din = dout weight; dweight += dout^T in. weight is [rows, columns] at an offset. */
mhp_status stage_linear(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns, const void *in, void *out);
mhp_status stage_linear_input_gradient(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns,
                                       const void *dout, void *din);
mhp_status stage_linear_weight_gradient(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns,
                                        const void *dout, const void *in);

/* Parts of the forward pass that a rebuild repeats in the other view: the merge of sublayer s - 1 and what comes before F of sublayer
 * s, where either exists; F; the readout with its norm, without gains. */
mhp_status stage_join(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s, mhp_stream *stream);
mhp_status stage_mix(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s, mhp_stream *stream);
mhp_status stage_function(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s, mhp_stream *stream);
mhp_status stage_read_out(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, mhp_stream *stream);

/* One slice of the first or the last join. */
mhp_status stage_join_slice(mhp_stage *stage, const mhp_microbatch *microbatch, int s, int slice, mhp_stream *stream);
mhp_status stage_forward_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream);
mhp_status stage_rebuild_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream);
mhp_status stage_input_gradient_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream);
mhp_status stage_weight_gradient_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream);

#endif
