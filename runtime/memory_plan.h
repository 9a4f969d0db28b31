/* What every rank will hold, and where: one arena a rank, planned from the lowered schedule before anything is allocated.
 *
 * What lives through the whole run lies one behind the other. What lives for some actions of a step is coloured by its lifetime, in
 * places of the rank's action list, over all stages and kinds together; an evaluation and the saving of a checkpoint come after a
 * step and share its memory. docs/memory.md. Pure: no device, no messages. */
#ifndef MHP_RUNTIME_MEMORY_PLAN_H
#define MHP_RUNTIME_MEMORY_PLAN_H

#include <stdio.h>

#include "runtime/batch.h"
#include "runtime/layout.h"

typedef enum mhp_memory_kind {
    MHP_MEMORY_WEIGHTS,         /* parameters, and the copies that products read */
    MHP_MEMORY_GRADIENTS,
    MHP_MEMORY_OPTIMIZER,       /* moments of the own part */
    MHP_MEMORY_BATCHES,         /* tokens and statistics */
    MHP_MEMORY_MESSAGES,        /* slots of channels, and what neighbouring stages hand over */
    MHP_MEMORY_ACTIVATIONS,     /* kept from F to I */
    MHP_MEMORY_HELD,            /* for W: inputs of products and gradients of their outputs */
    MHP_MEMORY_BLOCKS,          /* made again, of one block */
    MHP_MEMORY_WORKSPACES,      /* during one pass */
    MHP_MEMORY_KIND_COUNT,
} mhp_memory_kind;

/* Short names, for headings. */
const char *mhp_memory_kind_text(mhp_memory_kind kind);

typedef enum mhp_memory_phase { MHP_PHASE_TRAINING, MHP_PHASE_EVALUATION, MHP_PHASE_COUNT } mhp_memory_phase;

/* Where doubles of a step's statistics lie: [1] the square sum of the gradients, [R][M], [R][M][2], [world][2], [world][own]. All before
 * `own` is known before the update. */
typedef struct mhp_statistics_layout {
    size_t squares, loss, gain, worst, own, count;
} mhp_statistics_layout;

enum { MHP_STATISTICS_OWN = 5, MHP_OPTIMIZER_SCALARS = 2 };
mhp_statistics_layout mhp_statistics_layout_of(int replicas, int microbatches, int world);

/* A stage that the rank holds. Offsets in the arena. */
typedef struct mhp_stage_memory {
    int stage;
    int in_flight;              /* most micro-batches between F and I at once */
    mhp_recompute recompute;    /* none where the plan has no R for the stage */
    int block;                  /* sublayers of a block */
    int64_t elements, chunk;    /* parameters; of one holder's part */
    int holders;
    mhp_stage_sizes sizes;
    size_t parameters, gradients, weights, moment1, moment2;    /* weights: of the parameters where they are one */
    size_t slots[MHP_PHASE_COUNT][MHP_SLOT_CLASS_COUNT];        /* of message classes: the first slot */
    size_t *at[MHP_PHASE_COUNT][MHP_LIFE_COUNT];                /* [microbatch]; only of those that run here */
} mhp_stage_memory;

typedef struct mhp_memory_plan {
    int rank;                                   /* pipeline rank */
    size_t bytes;                               /* of the arena */
    size_t fullest[MHP_MEMORY_KIND_COUNT];      /* what is alive at the fullest moment of a step ... */
    size_t gaps;                                /* ... and what lies between: with it they add up to `bytes` */
    size_t most[MHP_MEMORY_KIND_COUNT];         /* most of each kind at any moment of a step */
    size_t batches[MHP_TRAINER_BATCHES], statistics, scalars;
    size_t saving, saving_bytes;                /* a stage's image while a checkpoint is written; pipeline rank 0 */
    double layers;
    int64_t elements;
    mhp_stage_memory *stages;                   /* ascending */
    int stage_count;
} mhp_memory_plan;

typedef struct mhp_memory_params {
    const mhp_layout *layout;
    const mhp_model_params *model;
    const mhp_parallel_params *parallel;
    const mhp_schedule_params *schedule;
    const mhp_train_params *train;
} mhp_memory_params;

/* NULL is allowed in destroy. MHP_ERR_UNSUPPORTED: no kernels for the element type on that device. */
mhp_status mhp_memory_plan_create(const mhp_memory_params *params, int rank, mhp_memory_plan **plan_out);
void mhp_memory_plan_destroy(mhp_memory_plan *plan);
/* The stages that a rank holds, without places in an arena; the caller frees them. */
mhp_status mhp_memory_measure_stages(const mhp_memory_params *params, int rank, mhp_stage_memory **stages_out, int *count_out);
const mhp_stage_memory *mhp_memory_plan_stage(const mhp_memory_plan *plan, int stage);

/* Bytes of one slot of a message class, and from one to the next, with room for a seal (comm/seal.h). */
size_t mhp_slot_bytes(const mhp_stage_sizes *sizes, mhp_slot_class class_);
size_t mhp_slot_stride(const mhp_stage_sizes *sizes, mhp_slot_class class_);

#endif
