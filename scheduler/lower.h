/* From a compute order to something that runs: sends, receives, REDUCE_GRAD and slots. */
#ifndef MHP_SCHEDULER_LOWER_H
#define MHP_SCHEDULER_LOWER_H

#include <stdio.h>

#include "scheduler/plan.h"

/* Adds SEND_F/RECV_F/SEND_B/RECV_B where neighbouring stages live on different ranks, REDUCE_GRAD after a stage's last weight
 * gradient, and assigns slots. The order of messages of a channel - one (source stage, source rank, kind) - is the same on both ends.
 * A receive stands ahead of its use, as early as its slot allows, so that it can be posted before compute needs it. Validates first
 * (compute order) and after (everything). The plan's own actions are replaced. */
mhp_status mhp_plan_lower(mhp_plan *plan);

/* Checks completeness, dependencies, ownership; of a lowered plan also channel order, slots, and freedom from deadlock under
 * rendezvous semantics (a send completes only when its receive is posted). MHP_ERR_PLAN; the text names rank, position, action and
 * reason, followed by the neighbourhood with the bad cell marked. */
mhp_status mhp_plan_validate(const mhp_plan *plan);

#endif
