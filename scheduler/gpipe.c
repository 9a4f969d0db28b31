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

static mhp_status emit_rank(const mhp_schedule_shape *shape, int rank, mhp_plan *plan)
{
    for (int m = 0; m < shape->microbatches; m++) {
        MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_FORWARD, rank, m));
    }
    for (int m = 0; m < shape->microbatches; m++) {
        MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_BACKWARD, rank, m));
    }
    return MHP_OK;
}

const mhp_generator mhp_generator_gpipe = {
    .name = "gpipe",
    .help = "all forwards, then all backwards; keeps every micro-batch's activations",
    .check = check,
    .stage_count = stage_count,
    .emit_rank = emit_rank,
};
