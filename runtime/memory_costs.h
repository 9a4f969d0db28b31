/* What the stages of a configuration keep, as the scheduler's costs. */
#ifndef MHP_RUNTIME_MEMORY_COSTS_H
#define MHP_RUNTIME_MEMORY_COSTS_H

#include "runtime/memory_plan.h"
#include "scheduler/costs.h"

/* Costs whose times are all 1, with what the stages keep and how long messages are: without measured times an order is still known by
 * its memory. The inputs of matrix products, which live from F to W, count as activation up to I and as held weight gradient from the
 * start of I on, so that I counts them twice; workspaces count with the weights. With recompute none, R frees nothing. `held_once`:
 * optimizer states as large as in schedules that have a stage on one rank of a replica alone. Release costs_out in every case. */
mhp_status mhp_memory_costs(const mhp_memory_params *params, bool held_once, mhp_costs *costs_out);

#endif
