/* What the stages of a configuration keep, as the scheduler's costs. */
#ifndef MHP_RUNTIME_MEMORY_COSTS_H
#define MHP_RUNTIME_MEMORY_COSTS_H

#include "runtime/memory_plan.h"
#include "scheduler/costs.h"

/* Costs whose times are all 1, with what the stages keep and how long messages are: without measured times an order is still known by
 * its memory. The inputs of matrix products, which live from F to W, count as activation up to I and as held weight gradient from I
 * on; workspaces count with the weights. Release costs_out in every case. */
mhp_status mhp_memory_costs(const mhp_memory_params *params, mhp_costs *costs_out);

#endif
