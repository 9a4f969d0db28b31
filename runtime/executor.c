#include "runtime/executor.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "comm/seal.h"
#include "core/memory.h"

enum { CHANNEL_KINDS = 2, LABEL_MICROBATCH_BITS = 20, MARKS_OF_ACTION = 8 };      /* of a pair, with its weight gradient, 7 */
_Static_assert(MHP_MICROBATCHES_MAX <= 1 << LABEL_MICROBATCH_BITS, "a message's label has room for its micro-batch");

/* One slot of a message class. Whoever fills it waits for `is_free` and then completes `is_ready`; whoever reads it the other way
 * round. Filling and reading is done by stages or, at the rank's border, by channels. */
typedef struct slot_events {
    mhp_event *is_ready, *is_free;
} slot_events;

typedef struct held_slots {
    mhp_held_stage *held;
    const mhp_stage_slots *plan;
    char *memory[MHP_SLOT_CLASS_COUNT];             /* message classes only, as are stride and events */
    size_t stride[MHP_SLOT_CLASS_COUNT];
    slot_events *events[MHP_SLOT_CLASS_COUNT];
} held_slots;

typedef enum channel_kind { CHANNEL_STATE, CHANNEL_GRADIENT } channel_kind;

typedef struct channel_entry {
    channel_kind kind;
    int source_stage, source_rank, target_rank;     /* pipeline ranks */
    mhp_channel *channel;
    mhp_watch *watch;                               /* of a recorded channel's receiver */
    mhp_seals *seals;                               /* NULL: messages carry no checksums */
} channel_entry;

struct mhp_executor {
    mhp_executor_params params;
    int rank;                                       /* pipeline rank */
    const mhp_fault *fault;                         /* of the action under way */
    bool is_hit;                                    /* the stream has it already */
    held_slots *stages;
    int stage_count;
    channel_entry *channels;
    size_t channel_count, channel_capacity;
    mhp_live *live;                                 /* may be NULL */
};

static bool is_message_class(mhp_slot_class class_)
{
    return class_ == MHP_SLOT_INPUT || class_ == MHP_SLOT_OUTPUT || class_ == MHP_SLOT_GRADIENT_INPUT ||
           class_ == MHP_SLOT_GRADIENT_OUTPUT;
}

static held_slots *find_stage(const mhp_executor *executor, int stage)
{
    for (int i = 0; i < executor->stage_count; i++) {
        if (executor->stages[i].held->index == stage) {
            return &executor->stages[i];
        }
    }
    return NULL;
}

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
        return place_in(find_stage(executor, next), MHP_SLOT_INPUT, microbatch);
    }
    return place_in(stage, MHP_SLOT_OUTPUT, microbatch);
}

static message_place gradient_output_place(const mhp_executor *executor, const held_slots *stage, int microbatch)
{
    int previous = stage->held->index - 1;

    if (previous >= 0 && mhp_plan_owner(executor->params.plan, previous, microbatch) == executor->rank) {
        return place_in(find_stage(executor, previous), MHP_SLOT_GRADIENT_INPUT, microbatch);
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

    half->stage = find_stage(executor, stage);
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

static channel_entry *find_channel(mhp_executor *executor, channel_kind kind, int source_stage, int source_rank, int target_rank)
{
    for (size_t i = 0; i < executor->channel_count; i++) {
        channel_entry *entry = &executor->channels[i];

        if (entry->kind == kind && entry->source_stage == source_stage && entry->source_rank == source_rank &&
            entry->target_rank == target_rank) {
            return entry;
        }
    }
    return NULL;
}

static int target_stage_of(channel_kind kind, int source_stage)
{
    return kind == CHANNEL_STATE ? source_stage + 1 : source_stage - 1;
}

static mhp_slot_class target_class_of(channel_kind kind)
{
    return kind == CHANNEL_STATE ? MHP_SLOT_INPUT : MHP_SLOT_GRADIENT_INPUT;
}

/* What both ends call a message. */
static uint64_t message_label(const mhp_executor_inputs *inputs, int microbatch)
{
    return (uint64_t)(inputs->step + 1) << LABEL_MICROBATCH_BITS | (uint64_t)microbatch;
}

static void describe_message(uint64_t label, char *text, size_t size)
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
    int target_stage = target_stage_of(kind, action->stage);
    int target_rank = mhp_plan_owner(plan, target_stage, action->microbatch);
    const mhp_stage_slots *target_slots = mhp_plan_stage_slots(plan, target_rank, target_stage);
    int slot = target_slots->slot[target_class_of(kind)][action->microbatch];
    channel_entry *entry = find_channel(executor, kind, action->stage, executor->rank, target_rank);
    message_place place = place_in(find_stage(executor, action->stage),
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
    channel_entry *entry = find_channel(executor, kind, source_stage, source_rank, executor->rank);
    held_slots *stage = find_stage(executor, action->stage);
    slot_events *events = slot_events_of(stage, target_class_of(kind), action->microbatch);
    mhp_trace_span message = {
        .kind = MHP_TRACE_MESSAGE,
        .cause = kind == CHANNEL_STATE ? MHP_CAUSE_STATE : MHP_CAUSE_GRADIENT,
        .stage = action->stage,
        .microbatch = action->microbatch,
        .slot = slot_of(stage, target_class_of(kind), action->microbatch),
        .peer = executor->params.store->replica * executor->params.plan->rank_count + source_rank,
        .bytes = (int64_t)mhp_slot_bytes(&stage->held->memory->sizes, target_class_of(kind)),
    };

    MHP_RETURN_IF_ERROR(hit(executor));
    if (entry->seals) {
        MHP_RETURN_IF_ERROR(
            mhp_channel_receive(entry->channel, message.slot, events->is_free, mhp_seals_landed(entry->seals, message.slot)));
        MHP_RETURN_IF_ERROR(mhp_seals_check(entry->seals, slot_memory(stage, target_class_of(kind), action->microbatch), message.slot,
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
    return executor->params.reduce(executor->params.reduce_context, find_stage(executor, stage)->held);
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

static mhp_status create_slots(mhp_executor *executor, held_slots *stage)
{
    const mhp_stage_memory *memory = stage->held->memory;
    mhp_device *device = executor->params.store->device;

    for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
        int count = stage->plan->count[c];

        if (count == 0 || !is_message_class((mhp_slot_class)c)) {
            continue;
        }
        stage->stride[c] = mhp_slot_stride(&memory->sizes, (mhp_slot_class)c);
        stage->memory[c] = mhp_arena_at(executor->params.store->params.arena, memory->slots[executor->params.phase][c],
                                        (size_t)count * stage->stride[c]);
        MHP_RETURN_IF_ERROR(mhp_calloc(&stage->events[c], (size_t)count, sizeof *stage->events[c]));
        for (int i = 0; i < count; i++) {
            MHP_RETURN_IF_ERROR(mhp_event_create(device, &stage->events[c][i].is_ready));
            MHP_RETURN_IF_ERROR(mhp_event_create(device, &stage->events[c][i].is_free));
        }
    }
    return MHP_OK;
}

/* Opens the channel from (source_stage, source_rank) to target_rank if this rank is an end of it and it is not open yet. */
static mhp_status open_channel(mhp_executor *executor, channel_kind kind, int source_stage, int source_rank, int target_rank)
{
    mhp_store *store = executor->params.store;
    int base = store->replica * executor->params.plan->rank_count;
    held_slots *target = target_rank == executor->rank ? find_stage(executor, target_stage_of(kind, source_stage)) : NULL;
    held_slots *source = source_rank == executor->rank ? find_stage(executor, source_stage) : NULL;
    const mhp_stage_sizes *sizes = mhp_stage_get_sizes((target ? target : source)->held->stage);
    mhp_slot_class class_ = target_class_of(kind);
    char name[64];
    mhp_channel_params params = {
        .name = name,
        .id = (source_stage * CHANNEL_KINDS + (int)kind) * MHP_PHASE_COUNT + (int)executor->params.phase,
        .source = base + source_rank,
        .target = base + target_rank,
        .slot_bytes = executor->params.verify_messages ? mhp_sealed_bytes(mhp_slot_bytes(sizes, class_)) : mhp_slot_bytes(sizes, class_),
        .slots = target ? target->memory[class_] : NULL,
        .slot_stride = target ? target->stride[class_] : 0,
        .slot_count = mhp_plan_stage_slots(executor->params.plan, target_rank, target_stage_of(kind, source_stage))->count[class_],
    };
    mhp_seals_params seals = {.device = store->device, .name = name, .message_bytes = mhp_slot_bytes(sizes, class_),
                              .slot_count = params.slot_count, .describe = describe_message};
    channel_entry *entry = &executor->channels[executor->channel_count];

    snprintf(name, sizeof name, "%s of stage %d, rank %d to %d", kind == CHANNEL_STATE ? "state" : "gradient", source_stage,
             params.source, params.target);
    assert(executor->channel_count < executor->channel_capacity);
    *entry = (channel_entry){.kind = kind, .source_stage = source_stage, .source_rank = source_rank, .target_rank = target_rank};
    executor->channel_count++;
    MHP_RETURN_IF_ERROR(mhp_channel_open(store->params.comm, &params, &entry->channel));
    if (target) {
        MHP_RETURN_IF_ERROR(mhp_recorder_add_watch(executor->params.recorder, name, &entry->watch));
    }
    return executor->params.verify_messages ? mhp_seals_create(&seals, &entry->seals) : MHP_OK;
}

static mhp_status open_channels(mhp_executor *executor)
{
    const mhp_plan *plan = executor->params.plan;

    executor->channel_capacity = (size_t)plan->stage_count * CHANNEL_KINDS * 2 * (size_t)plan->rank_count;
    MHP_RETURN_IF_ERROR(mhp_calloc(&executor->channels, executor->channel_capacity, sizeof *executor->channels));
    for (int s = 0; s + 1 < plan->stage_count; s++) {
        for (int m = 0; m < plan->microbatch_count; m++) {
            int low = mhp_plan_owner(plan, s, m);
            int high = mhp_plan_owner(plan, s + 1, m);

            if (low == high || (low != executor->rank && high != executor->rank)) {
                continue;
            }
            if (!find_channel(executor, CHANNEL_STATE, s, low, high)) {
                MHP_RETURN_IF_ERROR(open_channel(executor, CHANNEL_STATE, s, low, high));
            }
            if (!plan->forward_only && !find_channel(executor, CHANNEL_GRADIENT, s + 1, high, low)) {
                MHP_RETURN_IF_ERROR(open_channel(executor, CHANNEL_GRADIENT, s + 1, high, low));
            }
        }
    }
    return MHP_OK;
}

/* Waits until the other ends are open too. */
static mhp_status connect_channels(mhp_executor *executor)
{
    mhp_channel **channels;
    mhp_status status;

    MHP_RETURN_IF_ERROR(mhp_calloc(&channels, executor->channel_count, sizeof *channels));
    for (size_t i = 0; i < executor->channel_count; i++) {
        channels[i] = executor->channels[i].channel;
    }
    status = mhp_channels_connect(channels, executor->channel_count);
    mhp_free(channels);
    return status;
}

static mhp_status create_stages(mhp_executor *executor)
{
    const mhp_rank_plan *rank_plan = &executor->params.plan->ranks[executor->rank];

    MHP_RETURN_IF_ERROR(mhp_calloc(&executor->stages, (size_t)rank_plan->stage_count, sizeof *executor->stages));
    for (int i = 0; i < rank_plan->stage_count; i++) {
        held_slots *stage = &executor->stages[executor->stage_count];

        stage->plan = &rank_plan->stages[i];
        stage->held = mhp_store_find(executor->params.store, stage->plan->stage);
        assert(stage->held);
        executor->stage_count++;
        MHP_RETURN_IF_ERROR(create_slots(executor, stage));
    }
    return MHP_OK;
}

mhp_status mhp_executor_create(const mhp_executor_params *params, mhp_executor **executor_out)
{
    mhp_status status = MHP_OK;
    mhp_executor *executor = NULL;

    assert(params->plan->lowered);
    MHP_TRY(out, mhp_calloc(&executor, 1, sizeof *executor));
    executor->params = *params;
    executor->rank = params->store->pipeline_rank % params->plan->rank_count;
    MHP_TRY(out, mhp_flight_reserve(params->flight, MARKS_OF_ACTION * params->plan->ranks[executor->rank].actions.count));
    MHP_TRY(out, create_stages(executor));
    MHP_TRY(out, open_channels(executor));
    MHP_TRY(out, connect_channels(executor));
    mhp_recorder_reserve_actions(params->recorder, params->store, &params->plan->ranks[executor->rank].actions);
    *executor_out = executor;
    executor = NULL;
out:
    mhp_executor_destroy(executor);
    return status;
}

void mhp_executor_destroy(mhp_executor *executor)
{
    if (!executor) {
        return;
    }
    for (size_t i = 0; i < executor->channel_count; i++) {
        mhp_channel_close(executor->channels[i].channel);
        mhp_seals_destroy(executor->channels[i].seals);
    }
    for (int i = 0; i < executor->stage_count; i++) {
        held_slots *stage = &executor->stages[i];

        for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
            for (int e = 0; stage->events[c] && e < stage->plan->count[c]; e++) {
                mhp_event_destroy(stage->events[c][e].is_ready);
                mhp_event_destroy(stage->events[c][e].is_free);
            }
            mhp_free(stage->events[c]);
        }
    }
    mhp_free(executor->channels);
    mhp_free(executor->stages);
    mhp_free(executor);
}

/* Sums something over this rank's actions: what a pass costs, or what a send carries. */
static double action_flops(const mhp_executor *executor, const mhp_action *action)
{
    mhp_stage *stage = action->stage >= 0 ? find_stage(executor, action->stage)->held->stage : NULL;
    mhp_stage *partner = action->backward_stage >= 0 ? find_stage(executor, action->backward_stage)->held->stage : NULL;

    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return mhp_stage_flops(stage, MHP_PASS_FORWARD);
    case MHP_ACTION_INPUT_GRADIENT:
        return mhp_stage_flops(stage, MHP_PASS_INPUT_GRADIENT);
    case MHP_ACTION_WEIGHT_GRADIENT:
        return mhp_stage_flops(stage, MHP_PASS_WEIGHT_GRADIENT);
    case MHP_ACTION_BACKWARD:
        return mhp_stage_flops(stage, MHP_PASS_INPUT_GRADIENT) + mhp_stage_flops(stage, MHP_PASS_WEIGHT_GRADIENT);
    case MHP_ACTION_OVERLAP_F_B:
        return mhp_stage_flops(stage, MHP_PASS_FORWARD) + mhp_stage_flops(partner, MHP_PASS_INPUT_GRADIENT) +
               mhp_stage_flops(partner, MHP_PASS_WEIGHT_GRADIENT);
    default:
        return 0;
    }
}

double mhp_executor_flops(const mhp_executor *executor)
{
    const mhp_action_list *actions = &executor->params.plan->ranks[executor->rank].actions;
    double flops = 0;

    for (size_t i = 0; i < actions->count; i++) {
        flops += action_flops(executor, &actions->items[i]);
    }
    return flops;
}

size_t mhp_executor_message_bytes(const mhp_executor *executor)
{
    const mhp_action_list *actions = &executor->params.plan->ranks[executor->rank].actions;
    size_t bytes = 0;

    for (size_t i = 0; i < actions->count; i++) {
        const mhp_action *action = &actions->items[i];

        if (action->kind == MHP_ACTION_SEND_F || action->kind == MHP_ACTION_SEND_B) {
            const mhp_stage_sizes *sizes = mhp_stage_get_sizes(find_stage(executor, action->stage)->held->stage);

            bytes += action->kind == MHP_ACTION_SEND_F ? sizes->state_bytes : sizes->gradient_bytes;
        }
    }
    return bytes;
}
