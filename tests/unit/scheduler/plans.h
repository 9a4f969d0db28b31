/* Plans and costs for the tests of what reads them: by name, and at random. */
#ifndef MHP_TESTS_UNIT_SCHEDULER_PLANS_H
#define MHP_TESTS_UNIT_SCHEDULER_PLANS_H

#include "tests/unit/core/support.h"

#include "core/memory.h"
#include "scheduler/costs.h"
#include "scheduler/generators.h"
#include "scheduler/lower.h"

static inline mhp_plan *generated(const char *name, int ranks, int microbatches)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches, .chunks = 2};
    mhp_plan *plan = NULL;

    assert_ok(mhp_schedule_generate(name, &shape, &plan));
    return plan;
}

static inline mhp_plan *lowered(const char *name, int ranks, int microbatches)
{
    mhp_plan *plan = generated(name, ranks, microbatches);

    assert_ok(mhp_plan_lower(plan));
    return plan;
}

/* ---- chance ---- */

static inline uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static inline int random_below(uint64_t *state, int limit)
{
    return (int)(next_random(state) % (uint64_t)limit);
}

static inline double random_time(uint64_t *state)
{
    return 0.25 + random_below(state, 1000) / 256.0;
}

/* Times of every stage, some of its pairs; links of every speed. */
static inline void random_costs(uint64_t *state, int ranks, int stages, mhp_costs *costs)
{
    mhp_stage_costs *stage = NULL;
    mhp_link_costs *links = NULL;
    size_t count = 0;

    assert_ok(mhp_costs_default(costs));
    assert_ok(mhp_costs_create_stages(costs, (size_t)stages, &stage));
    for (int s = 0; s < stages; s++) {
        stage[s] = (mhp_stage_costs){random_time(state), random_time(state), random_time(state), .rebuild_us = random_time(state)};
        stage[s].pair_us = random_below(state, 2) ? mhp_stage_work_us(&stage[s]) * (0.7 + random_below(state, 100) / 256.0) : 0;
        stage[s].bytes = (mhp_stage_bytes){random_below(state, 1000), random_below(state, 1000), random_below(state, 1000), 10};
    }
    assert_ok(mhp_costs_create_links(costs, (size_t)(ranks * ranks) + 1, &links));
    links[count++] = (mhp_link_costs){.is_default = true, .from = -1, .to = -1, .bandwidth_gb_s = 1, .latency_us = 0.125};
    for (int from = 0; from < ranks; from++) {
        for (int to = 0; to < ranks; to++) {
            if (from != to && random_below(state, 2)) {
                links[count++] = (mhp_link_costs){.from = from, .to = to, .bandwidth_gb_s = random_below(state, 3), .latency_us = random_time(state) / 4};
            }
        }
    }
    costs->links.count = count;
    costs->message_bytes = random_below(state, 2000);
    costs->all_reduce_us = random_below(state, 2) ? random_time(state) : 0;
    costs->optimizer_us = random_below(state, 2) ? random_time(state) : 0;
}

/* What is done of a (stage, micro-batch). */
enum { DONE_NOTHING, DONE_FORWARD, DONE_REBUILD, DONE_INPUT_GRADIENT, DONE_ALL };

typedef struct random_order {
    mhp_plan *plan;
    uint64_t *state;
    int *done;              /* [cell] */
    int *owner;
    bool rebuilds;
} random_order;

static inline int *done_of(random_order *order, int s, int m)
{
    return &order->done[s * order->plan->microbatch_count + m];
}

/* Runs one more thing of the cell if it may run; which, if several could, is chance. */
static inline bool random_step(random_order *order, int s, int m)
{
    int *done = done_of(order, s, m);
    int rank = order->owner[s * order->plan->microbatch_count + m];
    bool last = s + 1 == order->plan->stage_count;

    if (*done == DONE_NOTHING && (s == 0 || *done_of(order, s - 1, m) >= DONE_FORWARD)) {
        assert_ok(mhp_emit(order->plan, rank, MHP_ACTION_FORWARD, s, m));
        *done = DONE_FORWARD;
        return true;
    }
    if (*done == DONE_FORWARD && order->rebuilds && (s + m) % 3 == 0 && random_below(order->state, 2)) {
        assert_ok(mhp_emit(order->plan, rank, MHP_ACTION_REBUILD, s, m));
        *done = DONE_REBUILD;
        return true;
    }
    if ((*done == DONE_FORWARD || *done == DONE_REBUILD) && (last || *done_of(order, s + 1, m) >= DONE_INPUT_GRADIENT)) {
        bool full = random_below(order->state, 2);

        assert_ok(mhp_emit(order->plan, rank, full ? MHP_ACTION_BACKWARD : MHP_ACTION_INPUT_GRADIENT, s, m));
        *done = full ? DONE_ALL : DONE_INPUT_GRADIENT;
        return true;
    }
    if (*done == DONE_INPUT_GRADIENT) {
        assert_ok(mhp_emit(order->plan, rank, MHP_ACTION_WEIGHT_GRADIENT, s, m));
        *done = DONE_ALL;
        return true;
    }
    return false;
}

/* A legal order over a placement by chance: one rank a stage, or one a cell. Not lowered. */
static inline mhp_plan *random_plan(uint64_t *state, int ranks, int stages, int microbatches)
{
    random_order order = {.state = state, .rebuilds = random_below(state, 2)};
    bool scattered = random_below(state, 3) == 0;
    int cells = stages * microbatches, left = cells;

    assert_ok(mhp_plan_create(ranks, stages, microbatches, &order.plan));
    assert_ok(mhp_calloc(&order.done, (size_t)cells, sizeof(int)));
    assert_ok(mhp_calloc(&order.owner, (size_t)cells, sizeof(int)));
    for (int i = 0; i < cells; i++) {
        order.owner[i] = scattered || i % microbatches == 0 ? random_below(state, ranks) : order.owner[i - 1];
    }
    while (left > 0) {
        int s = random_below(state, stages), m = random_below(state, microbatches);

        if (random_step(&order, s, m) && *done_of(&order, s, m) == DONE_ALL) {
            left--;
        }
    }
    mhp_free(order.done);
    mhp_free(order.owner);
    snprintf(order.plan->name, sizeof order.plan->name, "random");
    return order.plan;
}

#endif
