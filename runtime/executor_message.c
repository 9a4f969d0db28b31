/* Sends and receives of a plan: slots go through channels, sealed where the run asks for it. */
#include <stdio.h>

#include "runtime/executor_internal.h"

enum { LABEL_MICROBATCH_BITS = 20 };
_Static_assert(MHP_MICROBATCHES_MAX <= 1 << LABEL_MICROBATCH_BITS, "a message's label has room for its micro-batch");

/* What both ends call a message. */
static uint64_t message_label(const mhp_executor_inputs *inputs, int microbatch)
{
    return (uint64_t)(inputs->step + 1) << LABEL_MICROBATCH_BITS | (uint64_t)microbatch;
}

void executor_describe_message(uint64_t label, char *text, size_t size)
{
    unsigned long long step = label >> LABEL_MICROBATCH_BITS, microbatch = label & ((1u << LABEL_MICROBATCH_BITS) - 1);

    if (step > 0) {
        snprintf(text, size, "step %llu, micro-batch %llu", step, microbatch);
    } else {
        snprintf(text, size, "an evaluation, micro-batch %llu", microbatch);
    }
}

static mhp_trace_cause cause_of(channel_kind kind)
{
    return kind == CHANNEL_STATE ? MHP_CAUSE_STATE : MHP_CAUSE_GRADIENT;
}

static mhp_status submit_send(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs)
{
    const mhp_plan *plan = executor->params.plan;
    int target_stage = executor_target_stage(kind, action->stage);
    int target_rank = mhp_plan_owner(plan, target_stage, action->microbatch);
    const mhp_stage_slots *target_slots = mhp_plan_stage_slots(plan, target_rank, target_stage);
    int slot = target_slots->slot[executor_target_class(kind)][action->microbatch];
    channel_entry *entry = executor_find_channel(executor, kind, action->stage, executor->rank, target_rank);
    message_place place = executor_place(executor_find_stage(executor, action->stage),
                                   kind == CHANNEL_STATE ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT, action->microbatch);
    mhp_event *sealed;

    MHP_RETURN_IF_ERROR(executor_hit(executor));
    if (executor_is_faulty(executor, MHP_FAULT_CORRUPT)) {
        mhp_channel_corrupt(entry->channel);
    }
    if (entry->seals) {
        MHP_RETURN_IF_ERROR(mhp_seals_set(entry->seals, place.memory, message_label(inputs, action->microbatch), place.events->is_ready,
                                          &sealed));
        return mhp_channel_send(entry->channel, place.memory, slot, sealed, place.events->is_free);
    }
    return mhp_channel_send_parts(entry->channel, place.memory, slot, place.events->slices, place.events->is_free);
}

static mhp_status submit_receive(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs)
{
    int source_stage = kind == CHANNEL_STATE ? action->stage - 1 : action->stage + 1;
    int source_rank = mhp_plan_owner(executor->params.plan, source_stage, action->microbatch);
    channel_entry *entry = executor_find_channel(executor, kind, source_stage, source_rank, executor->rank);
    held_slots *stage = executor_find_stage(executor, action->stage);
    message_place place = executor_place(stage, executor_target_class(kind), action->microbatch);
    slot_events *events = place.events;
    mhp_trace_span message = {
        .kind = MHP_TRACE_MESSAGE,
        .cause = (uint8_t)cause_of(kind),
        .stage = action->stage,
        .microbatch = action->microbatch,
        .slot = executor_slot_of(stage, executor_target_class(kind), action->microbatch),
        .peer = executor->params.store->replica * executor->params.plan->rank_count + source_rank,
        .bytes = (int64_t)mhp_slot_bytes(&stage->held->memory->sizes, executor_target_class(kind)),
    };

    MHP_RETURN_IF_ERROR(executor_hit(executor));
    if (entry->seals) {
        MHP_RETURN_IF_ERROR(
            mhp_channel_receive(entry->channel, message.slot, events->is_free, mhp_seals_landed(entry->seals, message.slot)));
        MHP_RETURN_IF_ERROR(mhp_seals_check(entry->seals, place.memory, message.slot,
                                            message_label(inputs, action->microbatch), events->is_ready));
    } else {
        MHP_RETURN_IF_ERROR(mhp_channel_receive_parts(entry->channel, message.slot, events->is_free, events->slices));
    }
    return mhp_recorder_transfer(executor->params.recorder, entry->watch, message, events->is_free, events->is_ready);
}

mhp_status executor_send(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs)
{
    mhp_recorder_begin_range(executor->params.recorder, mhp_trace_cause_text(cause_of(kind)));
    return mhp_recorder_end_range(executor->params.recorder, submit_send(executor, action, kind, inputs));
}

mhp_status executor_receive(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs)
{
    mhp_recorder_begin_range(executor->params.recorder, mhp_trace_cause_text(cause_of(kind)));
    return mhp_recorder_end_range(executor->params.recorder, submit_receive(executor, action, kind, inputs));
}
