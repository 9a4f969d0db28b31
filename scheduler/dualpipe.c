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

static mhp_status generate(const mhp_schedule_shape *shape, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    mhp_plan *plan = NULL;
    int p = shape->ranks;
    int half = shape->microbatches / 2;

    MHP_TRY(out, mhp_plan_create(p, p, shape->microbatches, &plan));
    for (int r = 0; r < p; r++) {
        int mirror = p - 1 - r;
        int k = r < mirror ? r : mirror;
        int swapped = r >= p / 2;
        mhp_dual_rank dual = {.rank = r, .h = p / 2, .k = k, .main_count = half - p + k + 1};

        dual.stage[0] = swapped ? mirror : r;
        dual.stage[1] = swapped ? r : mirror;
        dual.first[0] = swapped ? half : 0;
        dual.first[1] = swapped ? 0 : half;
        MHP_TRY(out, mhp_emit_dual(plan, &dual));
    }
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    return status;
}

const mhp_generator mhp_generator_dualpipe = {
    .name = "dualpipe",
    .help = "two directions at once, every stage on two ranks; even ranks, even micro-batches, at least 2 x ranks",
    .check = check,
    .stage_count = stage_count,
    .generate = generate,
};
