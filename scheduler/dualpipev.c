/* DualPipeV: DualPipe cut in half; rank r holds stages r and 2P-1-r, and no stage is held twice. */
#include "scheduler/generators.h"

static mhp_status check(const mhp_schedule_shape *shape)
{
    if (shape->microbatches < 2 * shape->ranks) {
        return mhp_error_set(MHP_ERR_PLAN, "dualpipev on %d ranks with %d micro-batches: expected at least 2 x ranks, %d", shape->ranks,
                             shape->microbatches, 2 * shape->ranks);
    }
    return MHP_OK;
}

static int stage_count(const mhp_schedule_shape *shape)
{
    return 2 * shape->ranks;
}

static mhp_status generate(const mhp_schedule_shape *shape, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    mhp_plan *plan = NULL;
    int p = shape->ranks;

    MHP_TRY(out, mhp_plan_create(p, 2 * p, shape->microbatches, &plan));
    for (int r = 0; r < p; r++) {
        mhp_dual_rank dual = {.rank = r, .h = p, .k = r, .main_count = shape->microbatches - 2 * p + r + 1, .stage = {r, 2 * p - 1 - r}};

        MHP_TRY(out, mhp_emit_dual(plan, &dual));
    }
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    return status;
}

const mhp_generator mhp_generator_dualpipev = {
    .name = "dualpipev",
    .help = "a V of two stages a rank with overlapped pairs; at least 2 x ranks micro-batches",
    .check = check,
    .stage_count = stage_count,
    .generate = generate,
};
