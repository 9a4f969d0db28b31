/* Interleaved 1F1B: rank r holds stages r, r + P, r + 2P ... ("chunks"), so that a micro-batch passes every rank `chunks` times
 * and the bubble shrinks by that factor. Micro-batches run in rounds: a round of one chunk, then of the next. The order is that of
 * PyTorch's ScheduleInterleaved1F1B; arXiv 2104.04473. */
#include "scheduler/generators.h"

/* Micro-batches run in as many rounds as there are whole sets of P. */
static int round_count(const mhp_schedule_shape *shape)
{
    int rounds = shape->microbatches / shape->ranks;

    return rounds > 0 ? rounds : 1;
}

static bool divides(int ranks, int microbatches)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches};

    return microbatches % round_count(&shape) == 0;
}

static mhp_status check(const mhp_schedule_shape *shape)
{
    int less = shape->microbatches, more = shape->microbatches;

    if (shape->chunks < 1) {
        return mhp_error_set(MHP_ERR_PLAN, "interleaved with %d chunks: expected at least 1", shape->chunks);
    }
    if (divides(shape->ranks, shape->microbatches)) {
        return MHP_OK;
    }
    while (!divides(shape->ranks, less)) {
        less--;
    }
    while (!divides(shape->ranks, more)) {
        more++;
    }
    return mhp_error_set(
        MHP_ERR_PLAN, "interleaved on %d ranks with %d micro-batches: expected rounds of equal length, the nearest are %d and %d",
        shape->ranks, shape->microbatches, less, more);
}

static int stage_count(const mhp_schedule_shape *shape)
{
    return shape->ranks * shape->chunks;
}

/* One rank's emission: step i of the forwards, or of the backwards, is a chunk and a micro-batch. */
typedef struct interleaved_rank {
    mhp_plan *plan;
    int rank, chunks, round;        /* round: its length in micro-batches */
} interleaved_rank;

static mhp_status emit_step(const interleaved_rank *state, mhp_action_kind kind, int step)
{
    int turn = step / state->round;
    int chunk = turn % state->chunks;
    int microbatch = turn / state->chunks * state->round + step % state->round;

    if (kind == MHP_ACTION_BACKWARD) {
        chunk = state->chunks - 1 - chunk;
    }
    return mhp_emit(state->plan, state->rank, kind, chunk * state->plan->rank_count + state->rank, microbatch);
}

static mhp_status emit_rank(const mhp_schedule_shape *shape, int rank, mhp_plan *plan)
{
    interleaved_rank state = {
        .plan = plan, .rank = rank, .chunks = shape->chunks, .round = shape->microbatches / round_count(shape)};
    int steps = state.chunks * shape->microbatches;
    int warm_up = (state.chunks - 1) * state.round + 2 * (shape->ranks - 1 - rank);

    warm_up = warm_up < steps ? warm_up : steps;
    for (int i = 0; i < steps + warm_up; i++) {
        if (i < steps) {
            MHP_RETURN_IF_ERROR(emit_step(&state, MHP_ACTION_FORWARD, i));
        }
        if (i >= warm_up) {
            MHP_RETURN_IF_ERROR(emit_step(&state, MHP_ACTION_BACKWARD, i - warm_up));
        }
    }
    return MHP_OK;
}

const mhp_generator mhp_generator_interleaved = {
    .name = "interleaved",
    .help = "1f1b with several stages a rank; micro-batches in rounds of equal length, best a multiple of the ranks",
    .check = check,
    .stage_count = stage_count,
    .emit_rank = emit_rank,
};
