/* What keeps the lanes of a rank apart: which memory their steps touch, and who waits for them before it is used again.
 *
 * The memory plan shares places by the order of actions, which the compute stream keeps by itself. A step on a lane of its own ends at
 * some later time. Until then it reads and writes memory of its own micro-batch alone, and nothing of what may run meanwhile writes what
 * it reads: so it is in danger only when an action takes a place that the plan had given to its micro-batch. What an action takes is known
 * before its first step, and the compute stream waits then; a pair's partner begins behind the compute stream. */
#include "core/memory.h"
#include "runtime/executor_internal.h"

static const mhp_lane step_lanes[] = {MHP_LANE_STATE, MHP_LANE_GRADIENT};
enum { STEP_LANES = sizeof step_lanes / sizeof *step_lanes };

mhp_status executor_create_lanes(mhp_executor *executor)
{
    mhp_device *device = executor->params.store->device;

    for (int lane = 0; lane < MHP_LANE_COUNT; lane++) {
        lane_steps *steps = &executor->lanes[lane];

        MHP_RETURN_IF_ERROR(mhp_event_create(device, &steps->gate));
        for (int i = 0; i < OPEN_STEPS_MAX; i++) {
            MHP_RETURN_IF_ERROR(mhp_event_create(device, &steps->items[i].done));
        }
    }
    return MHP_OK;
}

void executor_destroy_lanes(mhp_executor *executor)
{
    for (int lane = 0; lane < MHP_LANE_COUNT; lane++) {
        for (int i = 0; i < OPEN_STEPS_MAX; i++) {
            mhp_event_destroy(executor->lanes[lane].items[i].done);
        }
        mhp_event_destroy(executor->lanes[lane].gate);
    }
}

/* Two halves beside may end in any order, so that each has a gate of its own to compute. */
mhp_status executor_order(mhp_executor *executor, mhp_lane before, mhp_lane behind)
{
    mhp_event *gate = executor->lanes[behind == MHP_LANE_COMPUTE ? before : behind].gate;

    MHP_RETURN_IF_ERROR(mhp_event_record(gate, executor_stream(executor, before)));
    return mhp_stream_wait(executor_stream(executor, behind), gate);
}

mhp_status executor_begin_beside(mhp_executor *executor, mhp_lane lane)
{
    if (!executor_is_beside(lane)) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(executor_order(executor, MHP_LANE_COMPUTE, lane));
    return mhp_recorder_lanes(executor->params.recorder, lane);
}

mhp_status executor_end_beside(mhp_executor *executor, mhp_lane lane)
{
    return executor_is_beside(lane) ? executor_order(executor, lane, MHP_LANE_COMPUTE) : MHP_OK;
}

static open_step *step_at(lane_steps *steps, int i)
{
    return &steps->items[(steps->first + i) % OPEN_STEPS_MAX];
}

bool executor_has_open_steps(const mhp_executor *executor)
{
    for (int l = 0; l < STEP_LANES; l++) {
        if (executor->lanes[step_lanes[l]].count > 0) {
            return true;
        }
    }
    return false;
}

/* Makes the compute stream wait for the first `count` open steps of a lane: the last of them comes behind the others. */
static mhp_status close_first(mhp_executor *executor, mhp_lane lane, int count)
{
    lane_steps *steps = &executor->lanes[lane];
    open_step *last = step_at(steps, count - 1);

    steps->first = (steps->first + count) % OPEN_STEPS_MAX;
    steps->count -= count;
    MHP_RETURN_IF_ERROR(mhp_flight_mark(executor->params.flight, executor_stream(executor, MHP_LANE_COMPUTE), &last->mark));
    MHP_RETURN_IF_ERROR(mhp_stream_wait(executor_stream(executor, MHP_LANE_COMPUTE), last->done));
    return mhp_recorder_joined(executor->params.recorder, (mhp_pass)last->mark.work, last->mark.stage, last->mark.microbatch, last->slot);
}

static void note_range(const mhp_microbatch *microbatch, const mhp_stage_sizes *sizes, unsigned lifetimes, memory_range *ranges)
{
    for (int i = 0; i < MHP_LIFE_COUNT; i++) {
        bool wanted = lifetimes & 1u << i && microbatch->memory[i];

        ranges[i] = wanted ? (memory_range){microbatch->memory[i], sizes->bytes[i]} : (memory_range){0};
    }
}

mhp_status executor_open_step(mhp_executor *executor, mhp_lane lane, const action_half *half)
{
    lane_steps *steps = &executor->lanes[lane];
    const mhp_stage *stage = half->stage->held->stage;
    bool forward = half->cursor.pass == MHP_PASS_FORWARD;
    open_step *step;

    if (steps->count == OPEN_STEPS_MAX) {
        MHP_RETURN_IF_ERROR(close_first(executor, lane, 1));
    }
    step = step_at(steps, steps->count++);
    step->mark = (mhp_mark){
        .kind = MHP_MARK_SLOT, .work = half->cursor.pass, .stage = half->stage->held->index, .microbatch = half->microbatch,
        .peer = executor_rank_of_stage(executor, half->stage->held->index + (forward ? 1 : -1), half->microbatch)};
    step->slot = executor_slot_of(half->stage, forward ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT, half->microbatch);
    note_range(&half->cursor.microbatch, mhp_stage_get_sizes(stage), mhp_stage_filling_touches(stage, half->cursor.pass), step->touches);
    return mhp_event_record(step->done, executor_stream(executor, lane));
}

static bool meet(const memory_range *a, const memory_range *b)
{
    return a->bytes > 0 && b->bytes > 0 && a->begin < b->begin + b->bytes && b->begin < a->begin + a->bytes;
}

static bool any_meet(const memory_range a[MHP_LIFE_COUNT], const memory_range b[MHP_LIFE_COUNT])
{
    for (int i = 0; i < MHP_LIFE_COUNT * MHP_LIFE_COUNT; i++) {
        if (meet(&a[i / MHP_LIFE_COUNT], &b[i % MHP_LIFE_COUNT])) {
            return true;
        }
    }
    return false;
}

/* The lifetimes that may begin with a pass. */
static unsigned fresh_lifetimes(mhp_pass pass)
{
    switch (pass) {
    case MHP_PASS_FORWARD:
        return 1u << MHP_LIFE_ACTIVATION | 1u << MHP_LIFE_PRODUCT_INPUT | 1u << MHP_LIFE_FORWARD;
    case MHP_PASS_REBUILD:
        return 1u << MHP_LIFE_REBUILT_INPUT | 1u << MHP_LIFE_BLOCK;
    case MHP_PASS_INPUT_GRADIENT:       /* without a rebuild what that would take as well */
        return 1u << MHP_LIFE_PRODUCT_GRADIENT | 1u << MHP_LIFE_BACKWARD | 1u << MHP_LIFE_REBUILT_INPUT | 1u << MHP_LIFE_BLOCK;
    default:
        return 0;
    }
}

mhp_status executor_reclaim(mhp_executor *executor, const action_half *half)
{
    memory_range fresh[MHP_LIFE_COUNT];

    note_range(&half->cursor.microbatch, mhp_stage_get_sizes(half->stage->held->stage), fresh_lifetimes(half->cursor.pass), fresh);
    for (int l = 0; l < STEP_LANES; l++) {
        lane_steps *steps = &executor->lanes[step_lanes[l]];
        int count = steps->count;

        while (count > 0 && !any_meet(step_at(steps, count - 1)->touches, fresh)) {
            count--;
        }
        if (count > 0) {
            MHP_RETURN_IF_ERROR(close_first(executor, step_lanes[l], count));
        }
    }
    return MHP_OK;
}

mhp_status executor_close_steps(mhp_executor *executor, mhp_lane lane)
{
    int count = executor->lanes[lane].count;

    return count > 0 ? close_first(executor, lane, count) : MHP_OK;
}
