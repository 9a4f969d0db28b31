/* What a rank keeps while it works through its list: activations, weight gradients that wait, and their bytes.
 *
 * A micro-batch's activation lives from the start of F to the end of I; where a plan rebuilds it (R), all but rebuild_keeps
 * of it goes at the end of F and comes back at the start of R. What W needs lives from the start of I to the end of W. Weights and
 * message slots are there for the whole step. */
#ifndef MHP_SCHEDULER_OCCUPANCY_H
#define MHP_SCHEDULER_OCCUPANCY_H

#include <stdint.h>

#include "scheduler/costs.h"
#include "scheduler/plan.h"

/* What the walk must know of the whole plan. */
typedef struct mhp_occupancy_plan {
    const mhp_plan *plan;
    const mhp_costs *costs;
    unsigned char *rebuilt; /* [stage][microbatch], whether there is an R; NULL if there is none at all */
    int64_t *base_bytes;    /* [rank]: weights, and message slots if the plan is lowered */
} mhp_occupancy_plan;

/* Plan and costs must outlive it. Destroy in every case. */
mhp_status mhp_occupancy_plan_create(const mhp_plan *plan, const mhp_costs *costs, mhp_occupancy_plan *out);
void mhp_occupancy_plan_destroy(mhp_occupancy_plan *whole);

typedef struct mhp_occupancy {
    const mhp_occupancy_plan *whole;
    int activations; /* of micro-batches, one a stage */
    int held;        /* weight gradients that wait behind their I; the one at work, and those inside B or a pair, count
                      * for bytes alone */
    int64_t bytes;   /* all at present */
    int activations_peak, held_peak;
    int64_t bytes_peak;
} mhp_occupancy;

/* Of a rank before its first action. */
void mhp_occupancy_begin(mhp_occupancy *occupancy, const mhp_occupancy_plan *whole, int rank);
/* At the start of an action and at its end; actions that only send or receive change nothing. */
void mhp_occupancy_start(mhp_occupancy *occupancy, const mhp_action *action);
void mhp_occupancy_end(mhp_occupancy *occupancy, const mhp_action *action);

#endif
