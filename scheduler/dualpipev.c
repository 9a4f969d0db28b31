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

static mhp_status emit_rank(const mhp_schedule_shape *shape, int rank, mhp_plan *plan)
{
    int p = shape->ranks;
    mhp_dual_rank dual = {
        .rank = rank, .h = p, .k = rank, .main_count = shape->microbatches - 2 * p + rank + 1, .stage = {rank, 2 * p - 1 - rank}};

    return mhp_emit_dual(plan, &dual);
}

const mhp_generator mhp_generator_dualpipev = {
    .name = "dualpipev",
    .help = "a V of two stages a rank with overlapped pairs; at least 2 x ranks micro-batches",
    .check = check,
    .stage_count = stage_count,
    .emit_rank = emit_rank,
};
