/* Which stages a rank holds: those of which it runs some micro-batch. */
#ifndef MHP_SCHEDULER_PLACEMENT_H
#define MHP_SCHEDULER_PLACEMENT_H

#include "scheduler/plan.h"

typedef struct mhp_placement {
    int *first;     /* [rank_count + 1]: where a rank's stages begin in `stages` */
    int *stages;    /* ascending within a rank */
} mhp_placement;

/* From the plan's owners. Release with mhp_placement_destroy, which a zeroed one needs not. */
mhp_status mhp_placement_create(const mhp_plan *plan, mhp_placement *placement_out);
void mhp_placement_destroy(mhp_placement *placement);

int mhp_placement_count(const mhp_placement *placement, int rank);
/* The place of the stage among those of the rank, -1 if the rank does not hold it. */
int mhp_placement_find(const mhp_placement *placement, int rank, int stage);

#endif
