#include "scheduler/bound.h"

#include <float.h>

#include "core/memory.h"
#include "scheduler/simulate.h"

/* What is known of one rank. */
typedef struct rank_bound {
    double head_us; /* the soonest that anything reaches it */
    double tail_us; /* the least that follows the last of its input gradients, or forwards if there is no backward */
    double work_us, work_without_w_us;
} rank_bound;

typedef struct bound {
    const mhp_plan *plan;
    const mhp_costs *costs;
    mhp_link_time *links; /* [from][to] */
    double pair_share;    /* the best that pairing does to any stage's work */
    rank_bound *ranks;
    double chain_us; /* the longest way of one micro-batch */
} bound;

static double least(double a, double b)
{
    return a < b ? a : b;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

static double message_us(const bound *b, int from_stage, int to_stage, int microbatch)
{
    int from = mhp_plan_owner(b->plan, from_stage, microbatch);
    int to = mhp_plan_owner(b->plan, to_stage, microbatch);
    const mhp_link_time *link = &b->links[(size_t)from * (size_t)b->plan->rank_count + (size_t)to];

    return from == to ? 0 : link->busy_us + link->latency_us;
}

static void add_cell(bound *b, int stage, int microbatch, double head_us, double tail_us)
{
    const mhp_stage_costs *costs = mhp_costs_stage(b->costs, stage);
    rank_bound *rank = &b->ranks[mhp_plan_owner(b->plan, stage, microbatch)];

    rank->head_us = least(rank->head_us, head_us);
    rank->tail_us = least(rank->tail_us, tail_us);
    if (b->plan->forward_only) {
        rank->work_us += costs->forward_us;
        rank->work_without_w_us += costs->forward_us;
    } else {
        double work_us = b->pair_share * mhp_stage_work_us(costs);

        rank->work_us += work_us;
        rank->work_without_w_us += least(costs->forward_us + costs->input_gradient_us, work_us);
    }
}

/* What must follow the micro-batch's work on each stage. Backward, I of stage s - 1 follows I of s, and each is
 * followed by its W. */
static void find_tails(const bound *b, int microbatch, double *tail_us)
{
    int last = b->plan->stage_count - 1;

    for (int i = 0; i <= last; i++) {
        int s = b->plan->forward_only ? last - i : i;
        int next = b->plan->forward_only ? s + 1 : s - 1;
        double way_us = 0;

        if (next >= 0 && next <= last) {
            const mhp_stage_costs *costs = mhp_costs_stage(b->costs, next);

            way_us = message_us(b, s, next, microbatch) +
                     (b->plan->forward_only ? costs->forward_us : costs->input_gradient_us) + tail_us[next];
        }
        tail_us[s] = b->plan->forward_only ? way_us : most(way_us, mhp_costs_stage(b->costs, s)->weight_gradient_us);
    }
}

static void add_microbatch(bound *b, int microbatch, double *tail_us)
{
    double head_us = 0;
    int last = b->plan->stage_count - 1;
    const mhp_stage_costs *costs = NULL;

    find_tails(b, microbatch, tail_us);
    for (int s = 0; s <= last; s++) {
        costs = mhp_costs_stage(b->costs, s);
        add_cell(b, s, microbatch, head_us, tail_us[s]);
        head_us += costs->forward_us + (s < last ? message_us(b, s, s + 1, microbatch) : 0);
    }
    head_us += b->plan->forward_only ? 0 : costs->input_gradient_us + tail_us[last];
    b->chain_us = most(b->chain_us, head_us);
}

/* Rebuilds are work like any other, and stand before the I that they serve. */
static bool add_actions(bound *b)
{
    bool reduces = false;

    for (int r = 0; r < b->plan->rank_count; r++) {
        const mhp_action_list *list = &b->plan->ranks[r].actions;

        for (size_t i = 0; i < list->count; i++) {
            reduces = reduces || list->items[i].kind == MHP_ACTION_REDUCE_GRAD;
            if (list->items[i].kind == MHP_ACTION_REBUILD) {
                b->ranks[r].work_us += mhp_action_us(b->costs, &list->items[i]);
                b->ranks[r].work_without_w_us += mhp_action_us(b->costs, &list->items[i]);
            }
        }
    }
    return reduces;
}

mhp_status mhp_lower_bound(const mhp_plan *plan, const mhp_costs *costs, double *bound_us_out)
{
    mhp_status status = MHP_OK;
    bound b = {.plan = plan, .costs = costs, .pair_share = 1};
    double *tail_us = NULL;
    bool reduces;

    MHP_TRY(out, mhp_calloc(&b.ranks, (size_t)plan->rank_count, sizeof *b.ranks));
    MHP_TRY(out, mhp_costs_link_times(costs, plan->rank_count, &b.links));
    MHP_TRY(out, mhp_calloc(&tail_us, (size_t)plan->stage_count, sizeof *tail_us));
    for (int r = 0; r < plan->rank_count; r++) {
        b.ranks[r].head_us = DBL_MAX;
        b.ranks[r].tail_us = DBL_MAX;
    }
    for (int s = 0; s < plan->stage_count; s++) {
        b.pair_share = least(b.pair_share, mhp_pair_share(mhp_costs_stage(costs, s)));
    }
    for (int m = 0; m < plan->microbatch_count; m++) {
        add_microbatch(&b, m, tail_us);
    }
    reduces = add_actions(&b);
    *bound_us_out = b.chain_us;
    for (int r = 0; r < plan->rank_count; r++) {
        const rank_bound *rank = &b.ranks[r];

        if (rank->head_us < DBL_MAX) {
            *bound_us_out =
                most(*bound_us_out, rank->head_us + most(rank->work_us, rank->work_without_w_us + rank->tail_us));
        }
    }
    *bound_us_out += (reduces ? costs->all_reduce_us : 0) + (plan->forward_only ? 0 : costs->optimizer_us);
out:
    mhp_free(tail_us);
    mhp_free(b.links);
    mhp_free(b.ranks);
    return status;
}

double mhp_microbatch_us(const mhp_plan *plan, const mhp_costs *costs)
{
    double work_us = 0;

    for (int s = 0; s < plan->stage_count; s++) {
        const mhp_stage_costs *stage = mhp_costs_stage(costs, s);

        work_us += plan->forward_only ? stage->forward_us : mhp_stage_work_us(stage);
    }
    return work_us / plan->rank_count;
}
