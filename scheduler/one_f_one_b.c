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

static mhp_status emit_rank(const mhp_schedule_shape *shape, int rank, mhp_plan *plan)
{
    int warm_up = shape->ranks - 1 - rank < shape->microbatches ? shape->ranks - 1 - rank : shape->microbatches;

    for (int i = 0; i < shape->microbatches + warm_up; i++) {
        if (i < shape->microbatches) {
            MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_FORWARD, rank, i));
        }
        if (i >= warm_up) {
            MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_BACKWARD, rank, i - warm_up));
        }
    }
    return MHP_OK;
}

const mhp_generator mhp_generator_1f1b = {
    .name = "1f1b",
    .help = "one forward, one backward in turn; at most as many micro-batches in flight as ranks",
    .check = check,
    .stage_count = stage_count,
    .emit_rank = emit_rank,
};
