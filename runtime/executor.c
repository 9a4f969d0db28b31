#include <stdio.h>
#include <string.h>

#include "runtime/executor_internal.h"

enum { LABEL_MICROBATCH_BITS = 20 };
_Static_assert(MHP_MICROBATCHES_MAX <= 1 << LABEL_MICROBATCH_BITS, "a message's label has room for its micro-batch");

static int slot_of(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    return stage->plan->slot[class_] ? stage->plan->slot[class_][microbatch] : -1;
}

static void *slot_memory(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    int slot = slot_of(stage, class_, microbatch);

    return slot < 0 ? NULL : stage->memory[class_] + (size_t)slot * stage->stride[class_];
}

static slot_events *slot_events_of(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    int slot = slot_of(stage, class_, microbatch);

    return slot < 0 ? NULL : &stage->events[class_][slot];
}

/* A place that a stage fills: the slot of the neighbour on this rank, or an own slot that a channel sends. NULL past the model's end. */
typedef struct message_place {
    void *memory;
    slot_events *events;
} message_place;

static message_place place_in(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    return (message_place){slot_memory(stage, class_, microbatch), slot_events_of(stage, class_, microbatch)};
}

static message_place output_place(const mhp_executor *executor, const held_slots *stage, int microbatch)
{
    int next = stage->held->index + 1;

    if (next < executor->params.plan->stage_count && mhp_plan_owner(executor->params.plan, next, microbatch) == executor->rank) {
        return place_in(executor_find_stage(executor, next), MHP_SLOT_INPUT, microbatch);
    }
    return place_in(stage, MHP_SLOT_OUTPUT, microbatch);
}

static message_place gradient_output_place(const mhp_executor *executor, const held_slots *stage, int microbatch)
{
    int previous = stage->held->index - 1;

    if (previous >= 0 && mhp_plan_owner(executor->params.plan, previous, microbatch) == executor->rank) {
        return place_in(executor_find_stage(executor, previous), MHP_SLOT_GRADIENT_INPUT, microbatch);
    }
    return place_in(stage, MHP_SLOT_GRADIENT_OUTPUT, microbatch);
}

/* World rank of the pipeline rank that holds a stage for a micro-batch; -1 past the model's ends. */
static int rank_of_stage(const mhp_executor *executor, int stage, int microbatch)
{
    const mhp_plan *plan = executor->params.plan;

    return stage < 0 || stage >= plan->stage_count
               ? -1
               : executor->params.store->replica * plan->rank_count + mhp_plan_owner(plan, stage, microbatch);
}

static mhp_status wait_for(mhp_stream *stream, mhp_event *event)
{
    return event ? mhp_stream_wait(stream, event) : MHP_OK;
}

static mhp_status wait_free(const mhp_executor *executor, message_place place)
{
    return place.events ? wait_for(executor->params.compute, place.events->is_free) : MHP_OK;
}

static mhp_status mark_ready(const mhp_executor *executor, message_place place)
{
    return place.events ? mhp_event_record(place.events->is_ready, executor->params.compute) : MHP_OK;
}

/* Where the plan has the micro-batch's memory of every lifetime. */
static void place_microbatch(const mhp_executor *executor, const held_slots *stage, int m, mhp_microbatch *microbatch)
{
    const mhp_stage_memory *memory = stage->held->memory;

    for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
        const size_t *at = memory->at[executor->params.phase][lifetime];

        microbatch->memory[lifetime] =
            at ? mhp_arena_at(executor->params.store->params.arena, at[m], memory->sizes.bytes[lifetime]) : NULL;
    }
}

static mhp_microbatch microbatch_of(const mhp_executor *executor, const held_slots *stage, int m, const mhp_executor_inputs *inputs)
{
    size_t tokens = (size_t)(executor->params.store->params.sequences * executor->params.store->params.length);
    size_t first = (size_t)m * tokens;

    return (mhp_microbatch){
        .input = slot_memory(stage, MHP_SLOT_INPUT, m),
        .output = output_place(executor, stage, m).memory,
        .gradient_input = slot_memory(stage, MHP_SLOT_GRADIENT_INPUT, m),
        .gradient_output = gradient_output_place(executor, stage, m).memory,
        .token = inputs->token + first,
        .target = inputs->target + first,
        .document_start = inputs->document_start + first,
        .one_document = inputs->one_document,
        .position = inputs->position,
        .loss_scale = inputs->loss_scale,
        .loss_sum = inputs->loss_sum + m,
        .gain = inputs->gain ? inputs->gain + 2 * (size_t)m : NULL,
        .worst_gain = inputs->worst_gain,
        .evaluate = executor->params.plan->forward_only,
    };
}

/* One half of an action: a pass of a micro-batch with what must precede and follow it. Halves of a pair advance in turn. */
typedef struct action_half {
    const held_slots *stage;
    int microbatch;
    mhp_cursor cursor;
    message_place target;           /* what the pass fills for a neighbour */
    bool ended;
} action_half;

/* Tells the flight recorder. Waits for what this rank makes itself are none. */
static mhp_status mark(const mhp_executor *executor, const action_half *half, mhp_mark_kind kind, int peer)
{
    mhp_mark mark = {.kind = kind, .work = half->cursor.pass, .stage = half->stage->held->index, .microbatch = half->microbatch,
                     .peer = peer};

    if (kind != MHP_MARK_RUN && (peer < 0 || peer == executor->params.store->world_rank)) {
        return MHP_OK;
    }
    return mhp_flight_mark(executor->params.flight, executor->params.compute, &mark);
}

/* Lets the fault of the action happen, where it is one of the stream. */
static mhp_status hit(mhp_executor *executor)
{
    if (!executor->fault || executor->is_hit) {
        return MHP_OK;
    }
    executor->is_hit = true;
    return mhp_fault_submit(executor->fault, executor->params.compute);
}

static bool is_faulty(const mhp_executor *executor, mhp_fault_kind kind)
{
    return executor->fault && executor->fault->kind == (int)kind;
}

/* Makes the pass wait for its input, and for the place that it fills. */
static mhp_status await_messages(mhp_executor *executor, action_half *half)
{
    bool forward = half->cursor.pass == MHP_PASS_FORWARD;
    int before = half->stage->held->index + (forward ? -1 : 1), behind = half->stage->held->index + (forward ? 1 : -1);
    slot_events *source = slot_events_of(half->stage, forward ? MHP_SLOT_INPUT : MHP_SLOT_GRADIENT_INPUT, half->microbatch);

    half->target = forward ? output_place(executor, half->stage, half->microbatch)
                           : gradient_output_place(executor, half->stage, half->microbatch);
    MHP_RETURN_IF_ERROR(mark(executor, half, MHP_MARK_INPUT, rank_of_stage(executor, before, half->microbatch)));
    MHP_RETURN_IF_ERROR(wait_for(executor->params.compute, source ? source->is_ready : NULL));
    MHP_RETURN_IF_ERROR(mhp_recorder_arrived(executor->params.recorder, source ? source->is_ready : NULL));
    MHP_RETURN_IF_ERROR(mark(executor, half, MHP_MARK_SLOT, rank_of_stage(executor, behind, half->microbatch)));
    MHP_RETURN_IF_ERROR(wait_free(executor, half->target));
    return mhp_recorder_wait(executor->params.recorder, &half->cursor, half->stage->held->index, half->microbatch,
                             slot_of(half->stage, forward ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT, half->microbatch));
}

static mhp_status begin_half(mhp_executor *executor, action_half *half, int stage, int microbatch, mhp_pass pass,
                             const mhp_executor_inputs *inputs)
{
    mhp_microbatch view;

    half->stage = executor_find_stage(executor, stage);
    half->microbatch = microbatch;
    half->ended = false;
    half->target = (message_place){NULL, NULL};
    view = microbatch_of(executor, half->stage, microbatch, inputs);
    place_microbatch(executor, half->stage, microbatch, &view);
    mhp_cursor_begin(&half->cursor, half->stage->held->stage, pass, &view);
    if (pass != MHP_PASS_WEIGHT_GRADIENT && pass != MHP_PASS_REBUILD) {     /* of what these read nothing came from elsewhere since */
        MHP_RETURN_IF_ERROR(await_messages(executor, half));
    }
    MHP_RETURN_IF_ERROR(mark(executor, half, MHP_MARK_RUN, -1));
    return hit(executor);
}

/* Marks the slots whose last reader this pass was. */
static mhp_status release_sources(mhp_executor *executor, const action_half *half)
{
    mhp_stream *compute = executor->params.compute;
    slot_events *input = slot_events_of(half->stage, MHP_SLOT_INPUT, half->microbatch);
    slot_events *gradient = slot_events_of(half->stage, MHP_SLOT_GRADIENT_INPUT, half->microbatch);
    bool forward = half->cursor.pass == MHP_PASS_FORWARD;

    if (forward && !executor->params.plan->forward_only) {
        return MHP_OK;
    }
    if (input) {
        MHP_RETURN_IF_ERROR(mhp_event_record(input->is_free, compute));
    }
    return gradient && !forward ? mhp_event_record(gradient->is_free, compute) : MHP_OK;
}

/* The injected fault: a state, a gradient, the loss where there is neither, or the gradients of weights are no numbers. */
static mhp_status spoil_result(mhp_executor *executor, const action_half *half)
{
    const mhp_kernels *kernels = executor->params.store->kernels;
    mhp_stream *compute = executor->params.compute;

    if (half->target.memory) {
        return mhp_fault_spoil(compute, half->target.memory, kernels->dtype);
    }
    return half->cursor.pass == MHP_PASS_FORWARD ? mhp_fault_spoil(compute, half->cursor.microbatch.loss_sum, MHP_DTYPE_F64)
                                                 : mhp_fault_spoil(compute, half->stage->held->gradients, kernels->full_dtype);
}

static mhp_status end_half(mhp_executor *executor, action_half *half)
{
    half->ended = true;
    if (is_faulty(executor, MHP_FAULT_NAN)) {
        MHP_RETURN_IF_ERROR(spoil_result(executor, half));
    }
    if (half->cursor.pass == MHP_PASS_WEIGHT_GRADIENT || half->cursor.pass == MHP_PASS_REBUILD) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mark_ready(executor, half->target));
    return release_sources(executor, half);
}

static mhp_status step_half(mhp_executor *executor, action_half *half)
{
    mhp_step_part part = mhp_cursor_next_part(&half->cursor);

    MHP_RETURN_IF_ERROR(mhp_cursor_step(&half->cursor, executor->params.compute));
    MHP_RETURN_IF_ERROR(
        mhp_recorder_group(executor->params.recorder, &half->cursor, half->stage->held->index, half->microbatch, part));
    return mhp_cursor_done(&half->cursor) ? end_half(executor, half) : MHP_OK;
}

static mhp_status run_pass(mhp_executor *executor, int stage, int microbatch, mhp_pass pass, const mhp_executor_inputs *inputs)
{
    action_half half;

    MHP_RETURN_IF_ERROR(begin_half(executor, &half, stage, microbatch, pass, inputs));
    while (!half.ended && !mhp_cursor_done(&half.cursor)) {     /* a rebuild may have no steps */
        MHP_RETURN_IF_ERROR(step_half(executor, &half));
    }
    return MHP_OK;
}

static mhp_status run_backward(mhp_executor *executor, int stage, int microbatch, const mhp_executor_inputs *inputs)
{
    MHP_RETURN_IF_ERROR(run_pass(executor, stage, microbatch, MHP_PASS_INPUT_GRADIENT, inputs));
    return run_pass(executor, stage, microbatch, MHP_PASS_WEIGHT_GRADIENT, inputs);
}

/* Alternates steps of the two halves; when the input gradient is done, the weight gradient takes its place. */
static mhp_status run_pair(mhp_executor *executor, const mhp_action *action, const mhp_executor_inputs *inputs)
{
    action_half forward, backward;
    int stage = action->backward_stage;
    int microbatch = action->backward_microbatch;

    MHP_RETURN_IF_ERROR(begin_half(executor, &forward, action->stage, action->microbatch, MHP_PASS_FORWARD, inputs));
    MHP_RETURN_IF_ERROR(begin_half(executor, &backward, stage, microbatch, MHP_PASS_INPUT_GRADIENT, inputs));
    while (!forward.ended || !backward.ended) {
        if (!forward.ended) {
            MHP_RETURN_IF_ERROR(step_half(executor, &forward));
        }
        if (!backward.ended) {
            MHP_RETURN_IF_ERROR(step_half(executor, &backward));
        }
        if (backward.ended && backward.cursor.pass == MHP_PASS_INPUT_GRADIENT) {
            MHP_RETURN_IF_ERROR(begin_half(executor, &backward, stage, microbatch, MHP_PASS_WEIGHT_GRADIENT, inputs));
        }
    }
    return MHP_OK;
}

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

static mhp_status run_send(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs)
{
    const mhp_plan *plan = executor->params.plan;
    int target_stage = executor_target_stage(kind, action->stage);
    int target_rank = mhp_plan_owner(plan, target_stage, action->microbatch);
    const mhp_stage_slots *target_slots = mhp_plan_stage_slots(plan, target_rank, target_stage);
    int slot = target_slots->slot[executor_target_class(kind)][action->microbatch];
    channel_entry *entry = executor_find_channel(executor, kind, action->stage, executor->rank, target_rank);
    message_place place = place_in(executor_find_stage(executor, action->stage),
                                   kind == CHANNEL_STATE ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT, action->microbatch);
    mhp_event *ready = place.events->is_ready;

    MHP_RETURN_IF_ERROR(hit(executor));
    if (is_faulty(executor, MHP_FAULT_CORRUPT)) {
        mhp_channel_corrupt(entry->channel);
    }
    if (entry->seals) {
        MHP_RETURN_IF_ERROR(mhp_seals_set(entry->seals, place.memory, message_label(inputs, action->microbatch), ready, &ready));
    }
    return mhp_channel_send(entry->channel, place.memory, slot, ready, place.events->is_free);
}

static mhp_status run_receive(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs)
{
    int source_stage = kind == CHANNEL_STATE ? action->stage - 1 : action->stage + 1;
    int source_rank = mhp_plan_owner(executor->params.plan, source_stage, action->microbatch);
    channel_entry *entry = executor_find_channel(executor, kind, source_stage, source_rank, executor->rank);
    held_slots *stage = executor_find_stage(executor, action->stage);
    slot_events *events = slot_events_of(stage, executor_target_class(kind), action->microbatch);
    mhp_trace_span message = {
        .kind = MHP_TRACE_MESSAGE,
        .cause = kind == CHANNEL_STATE ? MHP_CAUSE_STATE : MHP_CAUSE_GRADIENT,
        .stage = action->stage,
        .microbatch = action->microbatch,
        .slot = slot_of(stage, executor_target_class(kind), action->microbatch),
        .peer = executor->params.store->replica * executor->params.plan->rank_count + source_rank,
        .bytes = (int64_t)mhp_slot_bytes(&stage->held->memory->sizes, executor_target_class(kind)),
    };

    MHP_RETURN_IF_ERROR(hit(executor));
    if (entry->seals) {
        MHP_RETURN_IF_ERROR(
            mhp_channel_receive(entry->channel, message.slot, events->is_free, mhp_seals_landed(entry->seals, message.slot)));
        MHP_RETURN_IF_ERROR(mhp_seals_check(entry->seals, slot_memory(stage, executor_target_class(kind), action->microbatch), message.slot,
                                            message_label(inputs, action->microbatch), events->is_ready));
    } else {
        MHP_RETURN_IF_ERROR(mhp_channel_receive(entry->channel, message.slot, events->is_free, events->is_ready));
    }
    return mhp_recorder_transfer(executor->params.recorder, entry->watch, message, events->is_free, events->is_ready);
}

static mhp_status run_reduce(mhp_executor *executor, int stage)
{
    MHP_RETURN_IF_ERROR(hit(executor));
    if (!executor->params.reduce) {
        return MHP_OK;
    }
    return executor->params.reduce(executor->params.reduce_context, executor_find_stage(executor, stage)->held);
}

static mhp_status run_action(mhp_executor *executor, const mhp_action *action, const mhp_executor_inputs *inputs)
{
    MHP_RETURN_IF_ERROR(mhp_live_action(executor->live, executor->params.compute, action));
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return run_pass(executor, action->stage, action->microbatch, MHP_PASS_FORWARD, inputs);
    case MHP_ACTION_BACKWARD:
        return run_backward(executor, action->stage, action->microbatch, inputs);
    case MHP_ACTION_INPUT_GRADIENT:
        return run_pass(executor, action->stage, action->microbatch, MHP_PASS_INPUT_GRADIENT, inputs);
    case MHP_ACTION_WEIGHT_GRADIENT:
        return run_pass(executor, action->stage, action->microbatch, MHP_PASS_WEIGHT_GRADIENT, inputs);
    case MHP_ACTION_OVERLAP_F_B:
        return run_pair(executor, action, inputs);
    case MHP_ACTION_SEND_F:
        return run_send(executor, action, CHANNEL_STATE, inputs);
    case MHP_ACTION_SEND_B:
        return run_send(executor, action, CHANNEL_GRADIENT, inputs);
    case MHP_ACTION_RECV_F:
        return run_receive(executor, action, CHANNEL_STATE, inputs);
    case MHP_ACTION_RECV_B:
        return run_receive(executor, action, CHANNEL_GRADIENT, inputs);
    case MHP_ACTION_REDUCE_GRAD:
        return run_reduce(executor, action->stage);
    case MHP_ACTION_REBUILD:
        return run_pass(executor, action->stage, action->microbatch, MHP_PASS_REBUILD, inputs);
    case MHP_ACTION_UNSHARD:        /* weights are whole on every holder */
    case MHP_ACTION_RESHARD:
    case MHP_ACTION_KIND_COUNT:
        return MHP_OK;
    }
    return MHP_OK;
}

void mhp_executor_watch(mhp_executor *executor, mhp_live *live)
{
    executor->live = live;
}

/* The fault that is due at an action of this step. */
static const mhp_fault *due_fault(const mhp_executor *executor, size_t index, const mhp_action *action)
{
    char text[64];

    if (!executor->params.faults) {
        return NULL;
    }
    mhp_action_format(action, text, sizeof text);
    return mhp_faults_due(executor->params.faults, index, text);
}

mhp_status mhp_executor_run(mhp_executor *executor, const mhp_executor_inputs *inputs)
{
    const mhp_action_list *actions = &executor->params.plan->ranks[executor->rank].actions;

    for (size_t i = 0; i < actions->count; i++) {
        const mhp_action *action = &actions->items[i];
        mhp_status status;

        executor->fault = due_fault(executor, i, action);
        executor->is_hit = false;
        mhp_recorder_begin_action(executor->params.recorder, i, action);
        status = run_action(executor, action, inputs);
        mhp_recorder_end_action(executor->params.recorder);
        if (status < 0) {
            char text[64];

            mhp_action_format(action, text, sizeof text);
            return mhp_error_prefix(status, "action %zu (%s): ", i, text);
        }
    }
    return MHP_OK;
}

/* The first micro-batch that the rank runs on a stage. */
static int first_microbatch(const mhp_executor *executor, int stage)
{
    int m = 0;

    while (mhp_plan_owner(executor->params.plan, stage, m) != executor->rank) {
        m++;
    }
    return m;
}

mhp_status mhp_executor_warm_up(mhp_executor *executor, const mhp_executor_inputs *inputs)
{
    int pass_count = executor->params.plan->forward_only ? MHP_PASS_FORWARD + 1 : MHP_PASS_COUNT;

    for (int i = 0; i < executor->stage_count; i++) {
        const held_slots *stage = &executor->stages[i];
        int m = first_microbatch(executor, stage->held->index);
        mhp_microbatch view = microbatch_of(executor, stage, m, inputs);

        place_microbatch(executor, stage, m, &view);
        for (int pass = 0; pass < pass_count; pass++) {
            mhp_cursor cursor;

            mhp_cursor_begin(&cursor, stage->held->stage, (mhp_pass)pass, &view);
            while (!mhp_cursor_done(&cursor)) {
                MHP_RETURN_IF_ERROR(mhp_cursor_step(&cursor, executor->params.compute));
            }
        }
    }
    return MHP_OK;
}
