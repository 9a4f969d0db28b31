/* A stage: some consecutive sublayers of the model, with the embedding on the first and the head on the last stage.
 *
 * A stage owns no buffers. The caller binds parameters and gradients, and gives every micro-batch memory of each lifetime below. Work
 * is submitted through a cursor, one step at a time: a step is a group of kernels of one sublayer. Steps of different cursors may
 * alternate on one stream, as long as their memories are apart.
 *
 * Recompute (docs/memory.md): sublayers form blocks of `block` from the stage's first one on. The forward pass keeps each block's
 * first state and what the mode says; a rebuild pass makes the rest of the last block again, before the input gradient, which rebuilds
 * every earlier block when it gets there. What is computed does not depend on mode or block. */
#ifndef MHP_MODEL_STAGE_H
#define MHP_MODEL_STAGE_H

#include "model/parameters.h"
#include "model/recompute.h"

typedef struct mhp_stage mhp_stage;

typedef struct mhp_stage_params {
    const mhp_model_params *model;      /* resolved; must outlive the stage */
    const mhp_kernels *kernels;         /* of the model's dtype */
    mhp_stage_extent extent;
    int sequences, length;              /* of a micro-batch: T = sequences * length tokens */
    int threads;                        /* of the device that will run it */
    mhp_recompute recompute;
    int block;                          /* sublayers of a block, >= 1; ignored with MHP_RECOMPUTE_NONE */
    int slices;                         /* of tokens, in which a state may leave and enter, at most; 0: by the state's size */
} mhp_stage_params;

enum { MHP_SLICES_MAX = 16, MHP_SLICE_BYTES = 32 << 20 };    /* by its size: one slice for every so many bytes */

/* What a micro-batch needs of a stage besides its messages, by the passes that it lives through: forward F, rebuild R, input gradient
 * I, weight gradient W. */
typedef enum mhp_lifetime {
    MHP_LIFE_ACTIVATION,                /* F to I */
    MHP_LIFE_PRODUCT_INPUT,             /* F to W: inputs of matrix products */
    MHP_LIFE_REBUILT_INPUT,             /* R to W: those that a rebuild makes again */
    MHP_LIFE_PRODUCT_GRADIENT,          /* I to W: gradients of products' outputs */
    MHP_LIFE_BLOCK,                     /* R to I: all else that a rebuild makes, of one block at a time */
    MHP_LIFE_FORWARD,                   /* during F */
    MHP_LIFE_BACKWARD,                  /* during I */
    MHP_LIFE_COUNT,
} mhp_lifetime;

/* Bytes that one micro-batch needs of the stage. State messages are [T,n,C] of real followed by the gain's running product [T,n,n] of
 * full (nothing for residual); gradient messages are [T,n,C] of real. */
typedef struct mhp_stage_sizes {
    size_t state_bytes;                 /* input and output slots */
    size_t gradient_bytes;              /* gradient input and output slots */
    int slices;                         /* of a state: one or more, of slice_bytes each; the last has what is left, and the product */
    size_t slice_bytes;
    size_t bytes[MHP_LIFE_COUNT];       /* 0: not needed */
} mhp_stage_sizes;

/* One micro-batch on one stage. Device memory, owned by the caller. */
typedef struct mhp_microbatch {
    void *input;                        /* state that enters; NULL on the first stage */
    void *output;                       /* state that leaves; NULL on the last stage */
    void *gradient_input;               /* gradient of the output; overwritten; NULL on the last stage */
    void *gradient_output;              /* gradient of the input; NULL on the first stage */
    void *memory[MHP_LIFE_COUNT];       /* 64-byte aligned; NULL outside the lifetime, or where nothing is needed */
    const int32_t *token, *target;      /* [T]; first and last stage */
    const int32_t *position, *document_start;   /* [T] */
    bool one_document;                  /* every document_start is 0; false is always right */
    double loss_scale;                  /* of the gradient: 1 / targets of the global batch */
    double *loss_sum;                   /* [1], last stage */
    double *gain;                       /* [2] forward and backward, last stage; NULL: gains are not computed */
    double *worst_gain;                 /* [2] running maxima over sublayers; NULL with gain */
    bool evaluate;                      /* forward alone: leaves logits in PRODUCT_INPUT, nothing for a backward pass */
} mhp_microbatch;

/* A forward pass writes `output`, and an input gradient `gradient_output`, in its last step and in no other. The step that fills `output`,
 * and the first one that reads `input`, can be done in slices (mhp_stage_sizes.slices): results do not depend on it. With recompute a rebuild
 * pass must precede the input gradient of each micro-batch; without, it has no steps. */
typedef enum mhp_pass {
    MHP_PASS_FORWARD,
    MHP_PASS_REBUILD,
    MHP_PASS_INPUT_GRADIENT,
    MHP_PASS_WEIGHT_GRADIENT,
    MHP_PASS_COUNT,
} mhp_pass;

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
    int slice;                          /* of the next step */
} mhp_cursor;

/* The caller destroys it; NULL is allowed there. */
mhp_status mhp_stage_create(const mhp_stage_params *params, mhp_stage **stage_out);
void mhp_stage_destroy(mhp_stage *stage);

const mhp_stage_sizes *mhp_stage_get_sizes(const mhp_stage *stage);
const mhp_parameter_layout *mhp_stage_layout(const mhp_stage *stage);
/* Floating-point operations of matrix products (2 per multiply-add, causal attention counted in half) of one micro-batch's pass. What
 * is done again does not count: a rebuild has none. */
double mhp_stage_flops(const mhp_stage *stage, mhp_pass pass);

/* Device memory, layout->elements each: parameters and gradients of full, weights (a copy of the parameters, or they themselves where
 * the types are one) of real. Gradients may be NULL where no gradient pass runs. */
void mhp_stage_bind(mhp_stage *stage, void *parameters, void *weights, void *gradients);

void mhp_cursor_begin(mhp_cursor *cursor, mhp_stage *stage, mhp_pass pass, const mhp_microbatch *microbatch);
bool mhp_cursor_done(const mhp_cursor *cursor);
/* What the next step mostly does; the cursor must not be done. */
mhp_step_kind mhp_cursor_next_kind(const mhp_cursor *cursor);
/* Where the next step belongs; the cursor must not be done. */
mhp_step_part mhp_cursor_next_part(const mhp_cursor *cursor);
/* Submits the next step's kernels to the stream. */
mhp_status mhp_cursor_step(mhp_cursor *cursor, mhp_stream *stream);
/* In how many slices the next step can be done; 1 for most. The cursor must not be done. */
int mhp_cursor_next_slices(const mhp_cursor *cursor);
/* Submits the next slice of such a step; after the last one the cursor moves on. */
mhp_status mhp_cursor_step_slice(mhp_cursor *cursor, mhp_stream *stream);

/* What the last step of a forward pass or an input gradient reads and writes beside messages and parameters, where it fills `output` or
 * `gradient_output`: lifetimes, as bits. No other step writes to these. */
unsigned mhp_stage_filling_touches(const mhp_stage *stage, mhp_pass pass);

/* Where a forward pass left the logits [T,V] (with `evaluate`; else they became their gradient). Last stage. */
const void *mhp_stage_logits(const mhp_stage *stage, const mhp_microbatch *microbatch);

#endif
