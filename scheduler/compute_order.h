/* The compute order of a plan, without what lowering adds. */
#ifndef MHP_SCHEDULER_COMPUTE_ORDER_H
#define MHP_SCHEDULER_COMPUTE_ORDER_H

#include "scheduler/plan.h"

/* A copy with the actions that take time alone: F, B, I, W, R and pairs. Not lowered. */
mhp_status mhp_plan_compute_order(const mhp_plan *plan, mhp_plan **order_out);

#endif
