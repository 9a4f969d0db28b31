/* From a compute order to something that runs: rebuilds, sends, receives, REDUCE_GRAD and slots. */
#ifndef MHP_SCHEDULER_LOWER_H
#define MHP_SCHEDULER_LOWER_H

#include <stdio.h>

#include "scheduler/plan.h"

/* Where weight gradients stand. */
typedef enum mhp_weight_placement {
    MHP_WEIGHTS_DEEP,           /* where the schedule has them */
    MHP_WEIGHTS_SHALLOW,        /* as soon behind their I as delays no message */
} mhp_weight_placement;

typedef struct mhp_lower_params {
    bool rebuild;               /* put an R before every I, B and pair that has none */
    mhp_weight_placement weight_gradients;
} mhp_lower_params;

/* Moves weight gradients and adds R as `params` says (NULL: neither), adds SEND_F/RECV_F/SEND_B/RECV_B where neighbouring stages
 * live on different ranks unless the plan has messages, REDUCE_GRAD after a stage's last weight gradient, and assigns slots. The
 * order of messages of a channel - one (source stage, source rank, kind) - is the same on both ends. Validates first (compute
 * order) and after (everything). The plan's own actions are replaced; of a plan that is refused nothing may be used any more. */
mhp_status mhp_plan_lower(mhp_plan *plan, const mhp_lower_params *params);

/* Checks completeness, dependencies, ownership; of a lowered plan also channel order, slots, and freedom from deadlock under
 * rendezvous semantics (a send completes only when its receive is posted). MHP_ERR_PLAN; the text names rank, position, action and
 * reason, followed by the neighbourhood with the bad cell marked. */
mhp_status mhp_plan_validate(const mhp_plan *plan);

#endif
