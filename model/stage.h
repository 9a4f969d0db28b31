/* A stage: some consecutive layers of the model, with the embedding on the first and the head on the last stage.
 *
 * A stage owns no buffers. The caller binds parameters, gradients and workspaces, and gives every micro-batch one slot of each class
 * of scheduler/plan.h's lifetimes (the caller maps those to the pointers below). Work is submitted through a cursor, one step at a
 * time: a step is a group of kernels of one sublayer. Steps of different cursors may alternate on one stream; two cursors of the same
 * pass on one stage may not (they share that pass's workspace). */
#ifndef MHP_MODEL_STAGE_H
#define MHP_MODEL_STAGE_H

#include "model/parameters.h"

typedef struct mhp_stage mhp_stage;

typedef struct mhp_stage_params {
    const mhp_model_params *model;      /* resolved; must outlive the stage */
    const mhp_kernels *kernels;         /* of the model's dtype */
    mhp_stage_extent extent;
    int sequences, length;              /* of a micro-batch: T = sequences * length tokens */
    int threads;                        /* of the device that will run it */
} mhp_stage_params;

/* Bytes that one micro-batch needs of the stage, by lifetime. State messages are [T,n,C] of real followed by the gain's running
 * product [T,n,n] of full (nothing for residual); gradient messages are [T,n,C] of real. */
typedef struct mhp_stage_sizes {
    size_t state_bytes;                 /* input and output slots */
    size_t gradient_bytes;              /* gradient input and output slots */
    size_t activation_bytes;            /* F to I */
    size_t product_input_bytes;         /* F to W */
    size_t product_gradient_bytes;      /* I to W */
    size_t workspace_bytes;             /* one for the stage */
} mhp_stage_sizes;

/* One micro-batch on one stage. Device memory, owned by the caller. */
typedef struct mhp_microbatch {
    void *input;                        /* state that enters; NULL on the first stage */
    void *output;                       /* state that leaves; NULL on the last stage */
    void *gradient_input;               /* gradient of the output; overwritten; NULL on the last stage */
    void *gradient_output;              /* gradient of the input; NULL on the first stage */
    void *activation, *product_input, *product_gradient;
    const int32_t *token, *target;      /* [T]; first and last stage */
    const int32_t *position, *document_start;   /* [T] */
    bool one_document;                  /* every document_start is 0; false is always right */
    double loss_scale;                  /* of the gradient: 1 / targets of the global batch */
    double *loss_sum;                   /* [1], last stage */
    double *gain;                       /* [2] forward and backward, last stage; NULL: gains are not computed */
    double *worst_gain;                 /* [2] running maxima over sublayers; NULL with gain */
    bool evaluate;                      /* forward alone: leaves logits in product_input, nothing for a backward pass */
} mhp_microbatch;

typedef enum mhp_pass { MHP_PASS_FORWARD, MHP_PASS_INPUT_GRADIENT, MHP_PASS_WEIGHT_GRADIENT, MHP_PASS_COUNT } mhp_pass;
typedef enum mhp_step_kind { MHP_STEP_MATH, MHP_STEP_MEMORY } mhp_step_kind;
/* The part of the model that a step belongs to; the connections' have the norms in them, the head has readout, logits and loss. */
typedef enum mhp_step_part {
    MHP_PART_EMBEDDING,
    MHP_PART_CONNECTION,
    MHP_PART_ATTENTION,
    MHP_PART_FEED_FORWARD,
    MHP_PART_HEAD,
    MHP_PART_COUNT,
} mhp_step_part;

/* Plain data; begin, then step until done. */
typedef struct mhp_cursor {
    mhp_stage *stage;
    mhp_pass pass;
    mhp_microbatch microbatch;
    int step, step_count;
} mhp_cursor;

/* The caller destroys it; NULL is allowed there. */
mhp_status mhp_stage_create(const mhp_stage_params *params, mhp_stage **stage_out);
void mhp_stage_destroy(mhp_stage *stage);

const mhp_stage_sizes *mhp_stage_get_sizes(const mhp_stage *stage);
const mhp_parameter_layout *mhp_stage_layout(const mhp_stage *stage);
/* Floating-point operations of matrix products (2 per multiply-add, causal attention counted in half) of one micro-batch's pass. */
double mhp_stage_flops(const mhp_stage *stage, mhp_pass pass);

/* Device memory, layout->elements each: parameters and gradients of full, weights (a copy of the parameters, or they themselves where
 * the types are one) of real; and the workspace. Gradients may be NULL where no gradient pass runs. */
void mhp_stage_bind(mhp_stage *stage, void *parameters, void *weights, void *gradients, void *workspace);

void mhp_cursor_begin(mhp_cursor *cursor, mhp_stage *stage, mhp_pass pass, const mhp_microbatch *microbatch);
bool mhp_cursor_done(const mhp_cursor *cursor);
/* What the next step mostly does; the cursor must not be done. */
mhp_step_kind mhp_cursor_next_kind(const mhp_cursor *cursor);
/* Where the next step belongs; the cursor must not be done. */
mhp_step_part mhp_cursor_next_part(const mhp_cursor *cursor);
/* Submits the next step's kernels to the stream. */
mhp_status mhp_cursor_step(mhp_cursor *cursor, mhp_stream *stream);

/* Where a forward pass left the logits [T,V] (with `evaluate`; else they became their gradient). Last stage. */
const void *mhp_stage_logits(const mhp_stage *stage, const mhp_microbatch *microbatch);

#endif
