/* ZB-V: rank r holds stages r and 2P-1-r, so that a micro-batch comes back to the rank where it began, and every F, I and W of
 * both stages interlock without a gap when they take equally long. arXiv 2405.15362; the order is that of PyTorch's
 * ScheduleZBVZeroBubble. */
#include "scheduler/generators.h"

static mhp_status check(const mhp_schedule_shape *shape)
{
    (void)shape;
    return MHP_OK;
}

static int stage_count(const mhp_schedule_shape *shape)
{
    return 2 * shape->ranks;
}

/* How far the rank is in each of its two stages, by pass: down the V is 0, up is 1. */
typedef struct zb_v_rank {
    mhp_plan *plan;
    int rank;
    int forwards[2], gradients[2], weights[2];
} zb_v_rank;

/* The pattern needs 2P-1 micro-batches; of fewer, those that are not there are left out. */
static mhp_status emit(zb_v_rank *state, mhp_action_kind kind, int half, int *next)
{
    int stage = half == 0 ? state->rank : state->plan->stage_count - 1 - state->rank;
    int microbatch = (*next)++;

    return microbatch < state->plan->microbatch_count ? mhp_emit(state->plan, state->rank, kind, stage, microbatch) : MHP_OK;
}

static mhp_status forward(zb_v_rank *state, int half)
{
    return emit(state, MHP_ACTION_FORWARD, half, &state->forwards[half]);
}

static mhp_status input_gradient(zb_v_rank *state, int half)
{
    return emit(state, MHP_ACTION_INPUT_GRADIENT, half, &state->gradients[half]);
}

static mhp_status weight_gradient(zb_v_rank *state, int half)
{
    return emit(state, MHP_ACTION_WEIGHT_GRADIENT, half, &state->weights[half]);
}

/* I, and of the W that wait the oldest: its own except in the cool-down. */
static mhp_status both_gradients(zb_v_rank *state, int half)
{
    MHP_RETURN_IF_ERROR(input_gradient(state, half));
    return weight_gradient(state, half);
}

/* Down the V until the first micro-batch is back, then both ways, then up the V with its backward. */
static mhp_status warm_up(zb_v_rank *state)
{
    int ranks = state->plan->rank_count;

    for (int i = 0; i < 2 * (ranks - state->rank) - 1; i++) {
        MHP_RETURN_IF_ERROR(forward(state, 0));
    }
    for (int i = 0; i < state->rank; i++) {
        MHP_RETURN_IF_ERROR(forward(state, 1));
        MHP_RETURN_IF_ERROR(forward(state, 0));
    }
    for (int i = 0; i < ranks - state->rank; i++) {
        MHP_RETURN_IF_ERROR(forward(state, 1));
        MHP_RETURN_IF_ERROR(both_gradients(state, 1));
    }
    return MHP_OK;
}

static mhp_status steady(zb_v_rank *state, int microbatches)
{
    while (state->forwards[1] < state->forwards[0] || state->forwards[0] < microbatches) {
        if (state->forwards[0] < microbatches) {
            MHP_RETURN_IF_ERROR(forward(state, 0));
        }
        MHP_RETURN_IF_ERROR(both_gradients(state, 0));
        MHP_RETURN_IF_ERROR(forward(state, 1));
        MHP_RETURN_IF_ERROR(both_gradients(state, 1));
    }
    return MHP_OK;
}

/* Input gradients first, so that no rank waits; the weight gradients that they leave come last. */
static mhp_status cool_down(zb_v_rank *state)
{
    for (int i = 0; i < state->rank; i++) {
        MHP_RETURN_IF_ERROR(input_gradient(state, 0));
        MHP_RETURN_IF_ERROR(input_gradient(state, 1));
    }
    for (int i = 0; i < state->plan->rank_count - state->rank; i++) {
        MHP_RETURN_IF_ERROR(both_gradients(state, 0));
    }
    for (int half = 1; half >= 0; half--) {
        while (state->weights[half] < state->gradients[half]) {
            MHP_RETURN_IF_ERROR(weight_gradient(state, half));
        }
    }
    return MHP_OK;
}

static mhp_status emit_rank(const mhp_schedule_shape *shape, int rank, mhp_plan *plan)
{
    int least = 2 * shape->ranks - 1;
    zb_v_rank state = {.plan = plan, .rank = rank};

    MHP_RETURN_IF_ERROR(warm_up(&state));
    MHP_RETURN_IF_ERROR(steady(&state, shape->microbatches > least ? shape->microbatches : least));
    return cool_down(&state);
}

const mhp_generator mhp_generator_zb_v = {
    .name = "zb-v",
    .help = "a V of two stages a rank with split backwards; no bubble between a rank's first and last action if F = I = W",
    .check = check,
    .stage_count = stage_count,
    .emit_rank = emit_rank,
};
