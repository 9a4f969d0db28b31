/* A schedule as data: for every rank a flat list of actions, first the compute order alone, after lowering with sends, receives and
 * slots. Grammar and semantics: docs/schedules.md. Nothing here knows MPI, CUDA or tensors. */
#ifndef MHP_SCHEDULER_PLAN_H
#define MHP_SCHEDULER_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

/* Name, text in the grammar, whether a micro-batch follows. */
#define MHP_ACTION_LIST(X)                           \
    X(MHP_ACTION_FORWARD, "F", 1)                    \
    X(MHP_ACTION_BACKWARD, "B", 1)                   \
    X(MHP_ACTION_INPUT_GRADIENT, "I", 1)             \
    X(MHP_ACTION_WEIGHT_GRADIENT, "W", 1)            \
    X(MHP_ACTION_SEND_F, "SEND_F", 1)                \
    X(MHP_ACTION_RECV_F, "RECV_F", 1)                \
    X(MHP_ACTION_SEND_B, "SEND_B", 1)                \
    X(MHP_ACTION_RECV_B, "RECV_B", 1)                \
    X(MHP_ACTION_REBUILD, "R", 1)                    \
    X(MHP_ACTION_REDUCE_GRAD, "REDUCE_GRAD", 0)      \
    X(MHP_ACTION_UNSHARD, "UNSHARD", 0)              \
    X(MHP_ACTION_RESHARD, "RESHARD", 0)              \
    X(MHP_ACTION_OVERLAP_F_B, "OVERLAP_F_B", 1)

#define MHP_ACTION_ENUM(name, text, has_microbatch) name,
typedef enum mhp_action_kind { MHP_ACTION_LIST(MHP_ACTION_ENUM) MHP_ACTION_KIND_COUNT } mhp_action_kind;
#undef MHP_ACTION_ENUM

enum { MHP_RANKS_MAX = 1024, MHP_STAGES_MAX = 4096, MHP_MICROBATCHES_MAX = 65536 };

/* stage and microbatch are -1 where they mean nothing. For OVERLAP_F_B, stage and microbatch are those of the forward,
 * backward_* those of the full backward it runs beside. */
typedef struct mhp_action {
    mhp_action_kind kind;
    int stage;
    int microbatch;
    int backward_stage;
    int backward_microbatch;
} mhp_action;

typedef struct mhp_action_list {
    mhp_action *items;
    size_t count;
    size_t capacity;
} mhp_action_list;

/* What a rank keeps per stage, by lifetime. One slot holds one micro-batch's worth. */
typedef enum mhp_slot_class {
    MHP_SLOT_INPUT,             /* state that enters the stage: from its receive (or the neighbour's F) to its I; none for stage 0 */
    MHP_SLOT_OUTPUT,            /* state that leaves for another rank: from F to the end of the send */
    MHP_SLOT_ACTIVATION,        /* what I needs besides: from F to I */
    MHP_SLOT_PRODUCT_INPUT,     /* inputs of matrix products: from F to W */
    MHP_SLOT_PRODUCT_GRADIENT,  /* gradients of products' outputs: from I to W */
    MHP_SLOT_GRADIENT_INPUT,    /* gradient of the output: from its receive (or the neighbour's I) to I; none for the last stage */
    MHP_SLOT_GRADIENT_OUTPUT,   /* gradient of the input that leaves for another rank: from I to the end of the send */
    MHP_SLOT_CLASS_COUNT,
} mhp_slot_class;

/* One stage on one rank. slot[class][microbatch] is the slot that the micro-batch uses there, or -1 if none (the micro-batch does
 * not run here, or the class does not exist: a neighbouring stage on the same rank hands over, so F of stage s writes straight into
 * the INPUT slot of s + 1, and I of s + 1 into the GRADIENT_INPUT slot of s, without OUTPUT slots). */
typedef struct mhp_stage_slots {
    int stage;
    int count[MHP_SLOT_CLASS_COUNT];
    int *slot[MHP_SLOT_CLASS_COUNT];
} mhp_stage_slots;

typedef struct mhp_rank_plan {
    mhp_action_list actions;
    mhp_stage_slots *stages;    /* the stages of this rank, ascending; filled by lowering */
    int stage_count;
} mhp_rank_plan;

typedef struct mhp_plan {
    char name[64];              /* the generator's name or the file */
    int rank_count;             /* pipeline ranks: those of one replica */
    int stage_count;
    int microbatch_count;
    bool forward_only;          /* no backward at all (evaluation) */
    bool lowered;
    int *owner;                 /* [stage][microbatch] -> rank that runs it */
    mhp_rank_plan *ranks;
} mhp_plan;

/* An empty plan whose owners are all -1. Destroy with mhp_plan_destroy; NULL is allowed there. */
mhp_status mhp_plan_create(int rank_count, int stage_count, int microbatch_count, mhp_plan **plan_out);
void mhp_plan_destroy(mhp_plan *plan);
mhp_status mhp_plan_append(mhp_plan *plan, int rank, mhp_action action);
mhp_status mhp_action_list_append(mhp_action_list *list, const mhp_action *action);

/* The rank that runs (stage, microbatch), -1 if none does. */
int mhp_plan_owner(const mhp_plan *plan, int stage, int microbatch);

/* The slots of a stage on a rank, NULL if the rank does not hold the stage or the plan is not lowered. */
const mhp_stage_slots *mhp_plan_stage_slots(const mhp_plan *plan, int rank, int stage);

/* Writes the action in the grammar ("3F0", "(0F8;7B0)OVERLAP_F_B", "2REDUCE_GRAD"); returns the length as snprintf does. */
int mhp_action_format(const mhp_action *action, char *text, size_t size);
/* Reads one action; the error says what was expected. */
mhp_status mhp_action_parse(const char *text, mhp_action *action_out);

#endif
