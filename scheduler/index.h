/* Where every action of a plan stands, and errors that show the place. Shared by lowering, validator and simulator. */
#ifndef MHP_SCHEDULER_INDEX_H
#define MHP_SCHEDULER_INDEX_H

#include "scheduler/placement.h"
#include "scheduler/plan.h"

/* What a cell does to a (stage, micro-batch); B and the pair's backward half do two of them. */
typedef enum mhp_event_kind {
    MHP_DO_FORWARD,
    MHP_DO_INPUT_GRADIENT,
    MHP_DO_WEIGHT_GRADIENT,
    MHP_DO_SEND_F,
    MHP_DO_RECV_F,
    MHP_DO_SEND_B,
    MHP_DO_RECV_B,
    MHP_DO_REBUILD,
    MHP_DO_COUNT,
} mhp_event_kind;

typedef struct mhp_plan_index {
    int *position[MHP_DO_COUNT];        /* [stage][microbatch] -> place in the owner's list, -1 if absent; NULL: absent everywhere */
    mhp_placement placement;
} mhp_plan_index;

/* What a state and a gradient have in common between the stage that makes it and the one that needs it. */
typedef struct mhp_message_kind {
    mhp_event_kind pass;                /* that makes it, and on the other side needs it */
    mhp_event_kind send, receive;
    mhp_action_kind send_action, receive_action;
    mhp_slot_class source_class, target_class;
    int step;                           /* from the source stage to the target stage */
} mhp_message_kind;

enum { MHP_MESSAGE_STATE, MHP_MESSAGE_GRADIENT, MHP_MESSAGE_KINDS };
extern const mhp_message_kind mhp_message_kinds[MHP_MESSAGE_KINDS];

/* Refuses actions out of range, on a rank that does not own them, and duplicates. Release with mhp_plan_index_destroy. */
mhp_status mhp_plan_index_create(const mhp_plan *plan, mhp_plan_index *index_out);
void mhp_plan_index_destroy(mhp_plan_index *index);
int mhp_index_at(const mhp_plan *plan, const mhp_plan_index *index, mhp_event_kind kind, int stage, int microbatch);

/* MHP_ERR_PLAN: "rank 2, position 7, 3F1: reason", then the neighbourhood with the bad cell marked. */
mhp_status mhp_plan_error(const mhp_plan *plan, int rank, size_t position, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Adds another place's neighbourhood, on a line of its own, to the error text at hand; returns MHP_ERR_PLAN. */
mhp_status mhp_plan_error_also(const mhp_plan *plan, int rank, size_t position);

/* Whether the stage's message to or from its neighbour crosses ranks for this micro-batch. */
bool mhp_crosses(const mhp_plan *plan, int stage, int neighbour, int microbatch);

/* Whether the action takes time on a compute stream: F, B, I, W and pairs. R does too, but belongs to the gradient behind it. */
bool mhp_action_computes(const mhp_action *action);
/* The (stage, micro-batch) of which the action does F (MHP_DO_FORWARD), I or W, if it does. */
bool mhp_action_does(const mhp_action *action, mhp_event_kind pass, int *stage_out, int *microbatch_out);

#endif
