/* What no order of actions can beat. */
#ifndef MHP_SCHEDULER_BOUND_H
#define MHP_SCHEDULER_BOUND_H

#include "scheduler/costs.h"
#include "scheduler/plan.h"

/* A lower bound of the makespan of every plan with this one's placement (who owns which stage of which micro-batch),
 * micro-batches, rebuilds and costs, whatever its order, with links to itself for every message. It is the largest of
 *   - for each rank: the soonest that anything can reach it, then its work; or its work without W, then the quickest
 * way of an input gradient from it through the stages before and the W that follows it there. Where overlapped pairs
 * are cheaper than their parts, all work is counted as if it shrank like the best pair;
 *   - for each micro-batch: its way through all stages and back;
 * and behind it one reduction, if the plan has any, and the optimizer. The plan must be valid, the costs must suit it.
 */
mhp_status mhp_lower_bound(const mhp_plan *plan, const mhp_costs *costs, double *bound_us_out);

/* Work of one micro-batch in all stages over the ranks: what a step takes for each micro-batch if no rank ever idles.
 */
double mhp_microbatch_us(const mhp_plan *plan, const mhp_costs *costs);

#endif
