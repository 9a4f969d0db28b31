/* DualPipe: micro-batches enter at both ends; rank r holds stage r for one direction and stage P-1-r for the other. */
#include "scheduler/generators.h"

static mhp_status check(const mhp_schedule_shape *shape)
{
    int p = shape->ranks;
    int m = shape->microbatches;

    if (p % 2 != 0) {
        return mhp_error_set(MHP_ERR_PLAN, "dualpipe on %d ranks: expected an even number, the nearest are %d and %d", p,
                             p > 1 ? p - 1 : 2, p + 1);
    }
    if (m < 2 * p) {
        return mhp_error_set(MHP_ERR_PLAN, "dualpipe on %d ranks with %d micro-batches: expected at least 2 x ranks, %d", p, m, 2 * p);
    }
    if (m % 2 != 0) {
        return mhp_error_set(MHP_ERR_PLAN, "dualpipe with %d micro-batches: expected an even number, the nearest are %d and %d", m,
                             m - 1 >= 2 * p ? m - 1 : m + 1, m + 1);
    }
    return MHP_OK;
}

static int stage_count(const mhp_schedule_shape *shape)
{
    return shape->ranks;
}

static mhp_status emit_rank(const mhp_schedule_shape *shape, int rank, mhp_plan *plan)
{
    int p = shape->ranks;
    int half = shape->microbatches / 2;
    int mirror = p - 1 - rank;
    int k = rank < mirror ? rank : mirror;
    bool swapped = rank >= p / 2;
    mhp_dual_rank dual = {
        .rank = rank,
        .h = p / 2,
        .k = k,
        .main_count = half - p + k + 1,
        .stage = {swapped ? mirror : rank, swapped ? rank : mirror},
        .first = {swapped ? half : 0, swapped ? 0 : half},
    };

    return mhp_emit_dual(plan, &dual);
}

const mhp_generator mhp_generator_dualpipe = {
    .name = "dualpipe",
    .help = "two directions at once, every stage on two ranks; even ranks, even micro-batches, at least 2 x ranks",
    .check = check,
    .stage_count = stage_count,
    .emit_rank = emit_rank,
};
