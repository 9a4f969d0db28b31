/* What a plan's actions record, and how much. */
#include "runtime/profile/recorder.h"

/* At most, beside a mark a step:
 * - before a pass a wait for other lanes' steps, of two lanes; each ends one that was open, so that those for want of room are among them;
 * - before F and I a wait for the input, before their last step one for its place;
 * - for every further slice of a state a group, a wait for it, and one of the half beside that comes behind that;
 * - of a pair the waits of two halves beside for compute, and of compute for them. */
enum { JOINS = 2, WAITS = JOINS + 2, MARKS_OF_SLICE = 3, PAIR_WAITS = 3 };

static size_t count_steps(mhp_store *store, int stage, mhp_pass pass)
{
    mhp_microbatch nothing = {0};
    mhp_cursor cursor;

    mhp_cursor_begin(&cursor, mhp_store_find(store, stage)->stage, pass, &nothing);
    return (size_t)cursor.step_count;
}

static size_t count_forward(mhp_store *store, int stage)
{
    size_t slices = (size_t)mhp_stage_get_sizes(mhp_store_find(store, stage)->stage)->slices;

    return count_steps(store, stage, MHP_PASS_FORWARD) + MARKS_OF_SLICE * (slices - 1);
}

static size_t count_marks(mhp_store *store, const mhp_action *action)
{
    bool pair = action->kind == MHP_ACTION_OVERLAP_F_B;
    int stage = pair ? action->backward_stage : action->stage;

    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return WAITS + count_forward(store, stage);
    case MHP_ACTION_INPUT_GRADIENT:
        return WAITS + count_steps(store, stage, MHP_PASS_INPUT_GRADIENT);
    case MHP_ACTION_WEIGHT_GRADIENT:
        return count_steps(store, stage, MHP_PASS_WEIGHT_GRADIENT);
    case MHP_ACTION_REBUILD:
        return JOINS + count_steps(store, stage, MHP_PASS_REBUILD);
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_OVERLAP_F_B:
        return WAITS + count_steps(store, stage, MHP_PASS_INPUT_GRADIENT) +
               count_steps(store, stage, MHP_PASS_WEIGHT_GRADIENT) +
               (pair ? WAITS + PAIR_WAITS + count_forward(store, action->stage) : 0);
    case MHP_ACTION_REDUCE_GRAD:
        return 1;
    default:
        return 0;
    }
}

void mhp_recorder_reserve_actions(mhp_recorder *recorder, mhp_store *store, const mhp_action_list *actions)
{
    mhp_recorder_reserve(recorder, JOINS, 0); /* at the end */
    for (size_t i = 0; recorder && i < actions->count; i++) {
        bool receives = actions->items[i].kind == MHP_ACTION_RECV_F || actions->items[i].kind == MHP_ACTION_RECV_B;

        mhp_recorder_reserve(recorder, count_marks(store, &actions->items[i]), receives);
    }
}

static mhp_trace_span span_of(mhp_trace_kind kind, mhp_pass pass, int stage, int microbatch)
{
    return (mhp_trace_span){
        .kind = (uint8_t)kind, .pass = (uint8_t)pass, .stage = stage, .microbatch = microbatch, .slot = -1, .peer = -1};
}

static mhp_trace_span wait_of(mhp_pass pass, int stage, int microbatch, int slot)
{
    mhp_trace_span wait = span_of(MHP_TRACE_WAIT, pass, stage, microbatch);

    wait.cause = pass == MHP_PASS_FORWARD ? MHP_CAUSE_STATE : MHP_CAUSE_GRADIENT;
    wait.slot = slot;
    return wait;
}

mhp_status mhp_recorder_wait(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch)
{
    return mhp_recorder_mark(recorder, wait_of(cursor->pass, stage, microbatch, -1));
}

mhp_status mhp_recorder_slot(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch, int slot,
                             mhp_lane lane)
{
    mhp_trace_span wait = wait_of(cursor->pass, stage, microbatch, slot);

    wait.lane = lane;
    return mhp_recorder_mark(recorder, wait);
}

mhp_status mhp_recorder_joined(mhp_recorder *recorder, mhp_pass pass, int stage, int microbatch, int slot)
{
    return mhp_recorder_mark(recorder, wait_of(pass, stage, microbatch, slot));
}

mhp_status mhp_recorder_lanes(mhp_recorder *recorder, mhp_lane lane)
{
    mhp_trace_span wait = wait_of(MHP_PASS_INPUT_GRADIENT, -1, -1, -1);

    wait.lane = lane;
    return mhp_recorder_mark(recorder, wait);
}

mhp_status mhp_recorder_group(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch,
                              mhp_step_part part, mhp_lane lane)
{
    mhp_trace_span group = span_of(MHP_TRACE_GROUP, cursor->pass, stage, microbatch);

    group.part = (uint8_t)part;
    group.lane = lane;
    return mhp_recorder_mark(recorder, group);
}
