/* Where every action of a plan stands, and errors that show the place. Shared by lowering, validator and simulator. */
#ifndef MHP_SCHEDULER_INDEX_H
#define MHP_SCHEDULER_INDEX_H

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
    MHP_DO_COUNT,
} mhp_event_kind;

typedef struct mhp_plan_index {
    int *position[MHP_DO_COUNT];        /* [stage][microbatch] -> place in the owner's list, -1 if absent */
} mhp_plan_index;

/* Refuses actions out of range, on a rank that does not own them, and duplicates. Release with mhp_plan_index_destroy. */
mhp_status mhp_plan_index_create(const mhp_plan *plan, mhp_plan_index *index_out);
void mhp_plan_index_destroy(mhp_plan_index *index);
int mhp_index_at(const mhp_plan *plan, const mhp_plan_index *index, mhp_event_kind kind, int stage, int microbatch);

/* MHP_ERR_PLAN: "rank 2, position 7, 3F1: reason", then the neighbourhood with the bad cell marked. */
mhp_status mhp_plan_error(const mhp_plan *plan, int rank, size_t position, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Whether the stage's message to or from its neighbour crosses ranks for this micro-batch. */
bool mhp_crosses(const mhp_plan *plan, int stage, int neighbour, int microbatch);

#endif
