/* What a plan's actions record, and how much. */
#include "runtime/profile/recorder.h"

static size_t count_steps(mhp_store *store, int stage, mhp_pass pass)
{
    mhp_microbatch nothing = {0};
    mhp_cursor cursor;

    mhp_cursor_begin(&cursor, mhp_store_find(store, stage)->stage, pass, &nothing);
    return (size_t)cursor.step_count;
}

/* A wait before F and I, and a mark a step of each pass. */
static size_t count_marks(mhp_store *store, const mhp_action *action)
{
    bool pair = action->kind == MHP_ACTION_OVERLAP_F_B;
    int stage = pair ? action->backward_stage : action->stage;

    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return 1 + count_steps(store, stage, MHP_PASS_FORWARD);
    case MHP_ACTION_INPUT_GRADIENT:
        return 1 + count_steps(store, stage, MHP_PASS_INPUT_GRADIENT);
    case MHP_ACTION_WEIGHT_GRADIENT:
        return count_steps(store, stage, MHP_PASS_WEIGHT_GRADIENT);
    case MHP_ACTION_REBUILD:
        return count_steps(store, stage, MHP_PASS_REBUILD);
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_OVERLAP_F_B:
        return 1 + count_steps(store, stage, MHP_PASS_INPUT_GRADIENT) +
               count_steps(store, stage, MHP_PASS_WEIGHT_GRADIENT) +
               (pair ? 1 + count_steps(store, action->stage, MHP_PASS_FORWARD) : 0);
    default:
        return 0;
    }
}

void mhp_recorder_reserve_actions(mhp_recorder *recorder, mhp_store *store, const mhp_action_list *actions)
{
    for (size_t i = 0; recorder && i < actions->count; i++) {
        bool receives = actions->items[i].kind == MHP_ACTION_RECV_F || actions->items[i].kind == MHP_ACTION_RECV_B;

        mhp_recorder_reserve(recorder, count_marks(store, &actions->items[i]), receives);
    }
}

mhp_status mhp_recorder_wait(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch, int slot)
{
    mhp_trace_span wait = {
        .kind = MHP_TRACE_WAIT,
        .pass = (uint8_t)cursor->pass,
        .cause = cursor->pass == MHP_PASS_FORWARD ? MHP_CAUSE_STATE : MHP_CAUSE_GRADIENT,
        .stage = stage,
        .microbatch = microbatch,
        .slot = slot,
        .peer = -1,
    };

    return mhp_recorder_mark(recorder, wait);
}

mhp_status mhp_recorder_group(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch,
                              mhp_step_part part)
{
    mhp_trace_span group = {
        .kind = MHP_TRACE_GROUP,
        .pass = (uint8_t)cursor->pass,
        .part = (uint8_t)part,
        .stage = stage,
        .microbatch = microbatch,
        .slot = -1,
        .peer = -1,
    };

    return mhp_recorder_mark(recorder, group);
}
