/* Plans and costs for the tests of what reads them: by name, and at random. */
#ifndef MHP_TESTS_UNIT_SCHEDULER_PLANS_H
#define MHP_TESTS_UNIT_SCHEDULER_PLANS_H

#include "tests/unit/core/support.h"

#include "core/memory.h"
#include "scheduler/costs.h"
#include "tests/unit/scheduler/random_order.h"

static inline mhp_plan *lowered(const char *name, int ranks, int microbatches)
{
    mhp_plan *plan = generate(name, ranks, microbatches);

    lower_plan(plan, NULL);
    return plan;
}

static inline double random_time(dice *d)
{
    return 0.25 + (double)roll(d, 1000) / 256;
}

/* Times of every stage, some of its pairs; links of every speed. */
static inline void random_costs(dice *d, int ranks, int stages, mhp_costs *costs)
{
    mhp_stage_costs *stage = NULL;
    mhp_link_costs *links = NULL;
    size_t count = 0;

    assert_ok(mhp_costs_default(costs));
    assert_ok(mhp_costs_create_stages(costs, (size_t)stages, &stage));
    for (int s = 0; s < stages; s++) {
        stage[s] = (mhp_stage_costs){random_time(d), random_time(d), random_time(d), .rebuild_us = random_time(d)};
        stage[s].pair_us = (int)roll(d, 2) ? mhp_stage_work_us(&stage[s]) * (0.7 + (double)roll(d, 100) / 256) : 0;
        stage[s].bytes = (mhp_stage_bytes){.weights = (int)roll(d, 1000),
                                           .activation = (int)roll(d, 1000),
                                           .held_weight_gradient = (int)roll(d, 1000),
                                           .slot = 10};
        stage[s].bytes.rebuild_keeps = stage[s].bytes.activation / 4;
    }
    assert_ok(mhp_costs_create_links(costs, (size_t)(ranks * ranks) + 1, &links));
    links[count++] =
        (mhp_link_costs){.is_default = true, .from = -1, .to = -1, .bandwidth_gb_s = 1, .latency_us = 0.125};
    for (int from = 0; from < ranks; from++) {
        for (int to = 0; to < ranks; to++) {
            if (from != to && (int)roll(d, 2)) {
                links[count++] = (mhp_link_costs){
                    .from = from, .to = to, .bandwidth_gb_s = (int)roll(d, 3), .latency_us = random_time(d) / 4};
            }
        }
    }
    costs->links.count = count;
    costs->message_bytes = (int)roll(d, 2000);
    costs->all_reduce_us = (int)roll(d, 2) ? random_time(d) : 0;
    costs->optimizer_us = (int)roll(d, 2) ? random_time(d) : 0;
}

#endif
