#include "scheduler/compute_order.h"

#include <string.h>

#include "scheduler/simulate.h"

mhp_status mhp_plan_compute_order(const mhp_plan *plan, mhp_plan **order_out)
{
    mhp_status status = MHP_OK;
    mhp_plan *order = NULL;

    MHP_TRY(out, mhp_plan_create(plan->rank_count, plan->stage_count, plan->microbatch_count, &order));
    memcpy(order->name, plan->name, sizeof order->name);
    memcpy(order->owner, plan->owner,
           (size_t)plan->stage_count * (size_t)plan->microbatch_count * sizeof *order->owner);
    order->forward_only = plan->forward_only;
    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            if (mhp_action_takes_time(&plan->ranks[r].actions.items[i])) {
                MHP_TRY(out, mhp_plan_append(order, r, plan->ranks[r].actions.items[i]));
            }
        }
    }
    *order_out = order;
    order = NULL;
out:
    mhp_plan_destroy(order);
    return status;
}
