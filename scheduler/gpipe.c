/* GPipe: all forwards, then all backwards. */
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
        for (int m = 0; m < shape->microbatches; m++) {
            MHP_TRY(out, mhp_emit(plan, r, MHP_ACTION_FORWARD, r, m));
        }
        for (int m = 0; m < shape->microbatches; m++) {
            MHP_TRY(out, mhp_emit(plan, r, MHP_ACTION_BACKWARD, r, m));
        }
    }
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    return status;
}

const mhp_generator mhp_generator_gpipe = {
    .name = "gpipe",
    .help = "all forwards, then all backwards; keeps every micro-batch's activations",
    .check = check,
    .stage_count = stage_count,
    .generate = generate,
};
