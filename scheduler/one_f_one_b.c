/* 1F1B: a warm-up of forwards, then one forward and one backward in turn, so that at most PP micro-batches are in flight. */
#include "scheduler/generators.h"

static mhp_status check(const mhp_schedule_shape *shape)
{
    (void)shape;
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

    MHP_TRY(out, mhp_plan_create(shape->ranks, shape->ranks, shape->microbatches, &plan));
    for (int r = 0; r < shape->ranks; r++) {
        int warm_up = shape->ranks - 1 - r < shape->microbatches ? shape->ranks - 1 - r : shape->microbatches;

        for (int i = 0; i < shape->microbatches + warm_up; i++) {
            if (i < shape->microbatches) {
                MHP_TRY(out, mhp_emit(plan, r, MHP_ACTION_FORWARD, r, i));
            }
            if (i >= warm_up) {
                MHP_TRY(out, mhp_emit(plan, r, MHP_ACTION_BACKWARD, r, i - warm_up));
            }
        }
    }
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    return status;
}

const mhp_generator mhp_generator_1f1b = {
    .name = "1f1b",
    .help = "one forward, one backward in turn; at most as many micro-batches in flight as ranks",
    .check = check,
    .stage_count = stage_count,
    .generate = generate,
};
