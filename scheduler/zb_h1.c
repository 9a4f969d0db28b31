/* ZB-H1: 1F1B with the backward split. The input gradient goes on at once; rank r holds back r weight gradients, which fill the
 * cool-down, so that all ranks keep as many micro-batches as the first. arXiv 2401.10241; the order is that of PyTorch's
 * ScheduleInterleavedZeroBubble with one stage a rank. */
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
    int microbatches = shape->microbatches;
    int warm_up = shape->ranks - 1 - rank < microbatches ? shape->ranks - 1 - rank : microbatches;

    for (int i = 0; i < microbatches + warm_up; i++) {
        int gradient = i - warm_up;

        if (i < microbatches) {
            MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_FORWARD, rank, i));
        }
        if (gradient >= 0) {
            MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_INPUT_GRADIENT, rank, gradient));
        }
        if (gradient >= rank) {
            MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_WEIGHT_GRADIENT, rank, gradient - rank));
        }
    }
    for (int m = microbatches > rank ? microbatches - rank : 0; m < microbatches; m++) {
        MHP_RETURN_IF_ERROR(mhp_emit(plan, rank, MHP_ACTION_WEIGHT_GRADIENT, rank, m));
    }
    return MHP_OK;
}

const mhp_generator mhp_generator_zb_h1 = {
    .name = "zb-h1",
    .help = "1f1b with weight gradients held back to fill the cool-down; memory as 1f1b's first rank",
    .check = check,
    .stage_count = stage_count,
    .emit_rank = emit_rank,
};
