/* When weight gradients run. */
#ifndef MHP_SCHEDULER_WEIGHTS_H
#define MHP_SCHEDULER_WEIGHTS_H

#include "scheduler/plan.h"

/* Moves every W as far towards its I as delays no message, in the execution that takes one unit for each of F, I and W
 * (execute.h): into a wait that is long enough, to the place of another W, or, behind a rank's last message, to its I. Full
 * backwards stay whole. No action begins later than before, and no rank ever holds more. The plan's order must be valid. */
mhp_status mhp_plan_advance_weights(mhp_plan *plan);

#endif
