#include "scheduler/formula.h"

#include <math.h>
#include <string.h>

typedef struct mean_stage {
    double forward_us, backward_us, weight_us, pair_us;
} mean_stage;

static bool rebuilds(const mhp_plan *plan, int stage)
{
    for (int rank = 0; rank < plan->rank_count; rank++) {
        const mhp_action_list *list = &plan->ranks[rank].actions;

        for (size_t i = 0; i < list->count; i++) {
            if (list->items[i].kind == MHP_ACTION_REBUILD && list->items[i].stage == stage) {
                return true;
            }
        }
    }
    return false;
}

static mean_stage mean_of(const mhp_plan *plan, const mhp_costs *costs)
{
    mean_stage mean = {0};
    double share = 1.0 / plan->stage_count;

    for (int s = 0; s < plan->stage_count; s++) {
        const mhp_stage_costs *stage = mhp_costs_stage(costs, s);
        double rebuild_us = rebuilds(plan, s) ? mhp_stage_rebuild_us(stage) : 0;

        mean.forward_us += share * stage->forward_us;
        mean.backward_us += share * (stage->input_gradient_us + stage->weight_gradient_us + rebuild_us);
        mean.weight_us += share * stage->weight_gradient_us;
        mean.pair_us += share * (mhp_pair_us(stage, stage) + rebuild_us);
    }
    return mean;
}

bool mhp_formula_bubble(const char *name, const mhp_plan *plan, const mhp_costs *costs, double *bubble_us_out)
{
    const mean_stage mean = mean_of(plan, costs);
    double both_us = mean.forward_us + mean.backward_us;
    double dual_us = mean.pair_us + mean.backward_us - 3 * mean.weight_us;
    double others = plan->rank_count - 1;
    double bubble_us;

    if (strcmp(name, "gpipe") == 0 || strcmp(name, "1f1b") == 0 || strcmp(name, "interleaved") == 0) {
        bubble_us = others * both_us;
    } else if (strcmp(name, "zb-h1") == 0) {
        bubble_us = others * (both_us - 2 * mean.weight_us);
    } else if (strcmp(name, "zb-v") == 0) {
        bubble_us = 0;
    } else if (strcmp(name, "dualpipe") == 0) {
        bubble_us = (plan->rank_count / 2.0 - 1) * dual_us;
    } else if (strcmp(name, "dualpipev") == 0) {
        bubble_us = others * dual_us;
    } else {
        return false;
    }
    *bubble_us_out = fmax(bubble_us, 0);
    return true;
}
