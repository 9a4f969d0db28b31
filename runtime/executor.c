#include <string.h>

#include "runtime/executor_internal.h"

int executor_slot_of(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    return stage->plan->slot[class_] ? stage->plan->slot[class_][microbatch] : -1;
}

static void *slot_memory(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    int slot = executor_slot_of(stage, class_, microbatch);

    return slot < 0 ? NULL : stage->memory[class_] + (size_t)slot * stage->stride[class_];
}

slot_events *executor_slot_events(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    int slot = executor_slot_of(stage, class_, microbatch);

    return slot < 0 ? NULL : &stage->events[class_][slot];
}

message_place executor_place(const held_slots *stage, mhp_slot_class class_, int microbatch)
{
    return (message_place){.memory = slot_memory(stage, class_, microbatch),
                           .events = executor_slot_events(stage, class_, microbatch),
                           .leaves = class_ == MHP_SLOT_OUTPUT || class_ == MHP_SLOT_GRADIENT_OUTPUT};
}

static message_place output_place(const mhp_executor *executor, const held_slots *stage, int microbatch)
{
    int next = stage->held->index + 1;

    if (next < executor->params.plan->stage_count && mhp_plan_owner(executor->params.plan, next, microbatch) == executor->rank) {
        return executor_place(executor_find_stage(executor, next), MHP_SLOT_INPUT, microbatch);
    }
    return executor_place(stage, MHP_SLOT_OUTPUT, microbatch);
}

static message_place gradient_output_place(const mhp_executor *executor, const held_slots *stage, int microbatch)
{
    int previous = stage->held->index - 1;

    if (previous >= 0 && mhp_plan_owner(executor->params.plan, previous, microbatch) == executor->rank) {
        return executor_place(executor_find_stage(executor, previous), MHP_SLOT_GRADIENT_INPUT, microbatch);
    }
    return executor_place(stage, MHP_SLOT_GRADIENT_OUTPUT, microbatch);
}

int executor_rank_of_stage(const mhp_executor *executor, int stage, int microbatch)
{
    const mhp_plan *plan = executor->params.plan;

    return stage < 0 || stage >= plan->stage_count
               ? -1
               : executor->params.store->replica * plan->rank_count + mhp_plan_owner(plan, stage, microbatch);
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

/* Tells the flight recorder, which knows the compute stream alone. Waits for what this rank makes itself are none. */
static mhp_status mark(const mhp_executor *executor, const action_half *half, mhp_mark_kind kind, int peer)
{
    mhp_mark mark = {.kind = kind, .work = half->cursor.pass, .stage = half->stage->held->index, .microbatch = half->microbatch,
                     .peer = peer};

    if (kind != MHP_MARK_RUN && (peer < 0 || peer == executor->params.store->world_rank)) {
        return MHP_OK;
    }
    return mhp_flight_mark(executor->params.flight, executor_stream(executor, MHP_LANE_COMPUTE), &mark);
}

mhp_status executor_hit(mhp_executor *executor)
{
    if (!executor->fault || executor->is_hit) {
        return MHP_OK;
    }
    executor->is_hit = true;
    return mhp_fault_submit(executor->fault, executor_stream(executor, MHP_LANE_COMPUTE));
}

static bool is_forward(const action_half *half)
{
    return half->cursor.pass == MHP_PASS_FORWARD;
}

/* Where the step runs that fills the half's place: what a message carries goes to a lane of its own, if there is one. */
static mhp_lane filling_lane(const mhp_executor *executor, const action_half *half)
{
    mhp_lane lane = is_forward(half) ? MHP_LANE_STATE : MHP_LANE_GRADIENT;

    return half->target.leaves && executor_stream(executor, lane) ? lane : half->lane;
}

/* Makes a lane wait until the half's place is free. One that a stage of this rank reads is, unless an open step reads it. */
static mhp_status await_place(mhp_executor *executor, const action_half *half, mhp_lane lane)
{
    int behind = half->stage->held->index + (is_forward(half) ? 1 : -1);
    mhp_slot_class class_ = is_forward(half) ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT;

    if (lane == MHP_LANE_COMPUTE) {
        MHP_RETURN_IF_ERROR(mark(executor, half, MHP_MARK_SLOT, executor_rank_of_stage(executor, behind, half->microbatch)));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_wait(executor_stream(executor, lane), half->target.events->is_free));
    if (!half->target.leaves) {
        return executor_has_open_steps(executor) ? mhp_recorder_lanes(executor->params.recorder, lane) : MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_recorder_slot(executor->params.recorder, &half->cursor, half->stage->held->index, half->microbatch,
                                          executor_slot_of(half->stage, class_, half->microbatch), lane));
    return lane == MHP_LANE_COMPUTE ? mark(executor, half, MHP_MARK_RUN, -1) : MHP_OK;
}

/* World rank of where the pass's input comes from. */
static int source_rank(const mhp_executor *executor, const action_half *half)
{
    return executor_rank_of_stage(executor, half->stage->held->index + (is_forward(half) ? -1 : 1), half->microbatch);
}

static slot_events *source_events(const action_half *half)
{
    return executor_slot_events(half->stage, is_forward(half) ? MHP_SLOT_INPUT : MHP_SLOT_GRADIENT_INPUT, half->microbatch);
}

/* The slices in which the pass takes up its input: a state's from another rank. */
static int input_slices(const mhp_executor *executor, const action_half *half)
{
    bool comes = is_forward(half) && source_events(half) && source_rank(executor, half) != executor->params.store->world_rank;

    return comes ? executor_slices(half->stage) : 1;
}

/* Makes the compute stream wait for a slice of the pass's input, of `slices`. */
static mhp_status await_input(mhp_executor *executor, const action_half *half, int slice, int slices)
{
    slot_events *source = source_events(half);

    MHP_RETURN_IF_ERROR(mark(executor, half, MHP_MARK_INPUT, source_rank(executor, half)));
    if (source) {
        mhp_event *ready = slices > 1 ? source->slices[slice] : source->is_ready;

        MHP_RETURN_IF_ERROR(mhp_stream_wait(executor_stream(executor, MHP_LANE_COMPUTE), ready));
        MHP_RETURN_IF_ERROR(mhp_recorder_arrived(executor->params.recorder, ready));
    }
    return mhp_recorder_wait(executor->params.recorder, &half->cursor, half->stage->held->index, half->microbatch);
}

/* What compute must wait for before the pass, on whatever lane it runs. A place that a half beside fills without a lane for it is
 * awaited here too: nobody would know for what that lane stands still. */
static mhp_status await_messages(mhp_executor *executor, action_half *half)
{
    half->target = is_forward(half) ? output_place(executor, half->stage, half->microbatch)
                                    : gradient_output_place(executor, half->stage, half->microbatch);
    MHP_RETURN_IF_ERROR(await_input(executor, half, 0, input_slices(executor, half)));
    if (half->target.leaves && half->target.events && executor_is_beside(filling_lane(executor, half))) {
        MHP_RETURN_IF_ERROR(await_place(executor, half, MHP_LANE_COMPUTE));
    }
    return MHP_OK;
}

static mhp_status begin_half(mhp_executor *executor, action_half *half, int stage, int microbatch, mhp_pass pass, mhp_lane lane,
                             const mhp_executor_inputs *inputs)
{
    mhp_microbatch view;

    *half = (action_half){.stage = executor_find_stage(executor, stage), .microbatch = microbatch, .lane = lane};
    view = microbatch_of(executor, half->stage, microbatch, inputs);
    place_microbatch(executor, half->stage, microbatch, &view);
    mhp_cursor_begin(&half->cursor, half->stage->held->stage, pass, &view);
    MHP_RETURN_IF_ERROR(executor_reclaim(executor, half));
    if (pass != MHP_PASS_WEIGHT_GRADIENT && pass != MHP_PASS_REBUILD) {     /* of what these read nothing came from elsewhere since */
        MHP_RETURN_IF_ERROR(await_messages(executor, half));
    }
    if (lane == MHP_LANE_COMPUTE) {
        MHP_RETURN_IF_ERROR(mark(executor, half, MHP_MARK_RUN, -1));
    }
    return executor_hit(executor);
}

/* Marks the slots whose last reader this pass was. */
static mhp_status release_sources(mhp_executor *executor, const action_half *half, mhp_stream *stream)
{
    slot_events *input = executor_slot_events(half->stage, MHP_SLOT_INPUT, half->microbatch);
    slot_events *gradient = executor_slot_events(half->stage, MHP_SLOT_GRADIENT_INPUT, half->microbatch);

    if (is_forward(half) && !executor->params.plan->forward_only) {
        return MHP_OK;
    }
    if (input) {
        MHP_RETURN_IF_ERROR(mhp_event_record(input->is_free, stream));
    }
    return gradient && !is_forward(half) ? mhp_event_record(gradient->is_free, stream) : MHP_OK;
}

/* The injected fault: a state, a gradient, the loss where there is neither, or the gradients of weights are no numbers. */
static mhp_status spoil_result(mhp_executor *executor, const action_half *half, mhp_stream *stream)
{
    const mhp_kernels *kernels = executor->params.store->kernels;

    if (half->target.memory) {
        return mhp_fault_spoil(stream, half->target.memory, kernels->dtype);
    }
    return is_forward(half) ? mhp_fault_spoil(stream, half->cursor.microbatch.loss_sum, MHP_DTYPE_F64)
                            : mhp_fault_spoil(stream, half->stage->held->gradients, kernels->full_dtype);
}

static bool fills_slices(const action_half *half)
{
    return half->target.leaves && is_forward(half) && executor_slices(half->stage) > 1;
}

/* What follows the last step, on the lane where that ran. */
static mhp_status end_half(mhp_executor *executor, action_half *half, mhp_lane lane)
{
    mhp_stream *stream = executor_stream(executor, lane);

    half->ended = true;
    if (executor_is_faulty(executor, MHP_FAULT_NAN) && !fills_slices(half)) {
        MHP_RETURN_IF_ERROR(spoil_result(executor, half, stream));
    }
    if (half->cursor.pass == MHP_PASS_WEIGHT_GRADIENT || half->cursor.pass == MHP_PASS_REBUILD) {
        return MHP_OK;
    }
    if (half->target.events) {
        MHP_RETURN_IF_ERROR(mhp_event_record(half->target.events->is_ready, stream));
    }
    MHP_RETURN_IF_ERROR(release_sources(executor, half, stream));
    return lane == half->lane ? MHP_OK : executor_open_step(executor, lane, half);
}

static mhp_status step_whole(mhp_executor *executor, action_half *half, mhp_lane lane)
{
    return mhp_cursor_step(&half->cursor, executor_stream(executor, lane));
}

static mhp_status step_slice(mhp_executor *executor, action_half *half, mhp_lane lane)
{
    return mhp_cursor_step_slice(&half->cursor, executor_stream(executor, lane));
}

/* A group's kernels, for a profiler and the recorder. */
static mhp_status submit_group(mhp_executor *executor, action_half *half, mhp_lane lane, mhp_step_part part,
                               mhp_status (*step)(mhp_executor *executor, action_half *half, mhp_lane lane))
{
    mhp_recorder *recorder = executor->params.recorder;
    mhp_status status;

    mhp_recorder_begin_group(recorder, &half->cursor, part);
    status = step(executor, half, lane);
    mhp_recorder_end_group(recorder);
    MHP_RETURN_IF_ERROR(status);
    return mhp_recorder_group(recorder, &half->cursor, half->stage->held->index, half->microbatch, part, lane);
}

/* A step on slices as they come: the first is there. */
static mhp_status take_slices(mhp_executor *executor, action_half *half)
{
    int slices = input_slices(executor, half);

    for (int i = 0; i < slices; i++) {
        if (i > 0) {
            MHP_RETURN_IF_ERROR(await_input(executor, half, i, slices));
            MHP_RETURN_IF_ERROR(mark(executor, half, MHP_MARK_RUN, -1));
            MHP_RETURN_IF_ERROR(executor_begin_beside(executor, half->lane));
        }
        MHP_RETURN_IF_ERROR(submit_group(executor, half, half->lane, MHP_PART_CONNECTION, step_slice));
    }
    return MHP_OK;
}

/* A step whose slices leave as they are made; the last one's event is the whole's (end_half). */
static mhp_status give_slices(mhp_executor *executor, action_half *half, mhp_lane lane)
{
    mhp_stream *stream = executor_stream(executor, lane);
    int slices = executor_slices(half->stage);

    for (int i = 0; i < slices; i++) {
        MHP_RETURN_IF_ERROR(mhp_cursor_step_slice(&half->cursor, stream));
        if (i == 0 && executor_is_faulty(executor, MHP_FAULT_NAN)) {
            MHP_RETURN_IF_ERROR(spoil_result(executor, half, stream));
        }
        if (i + 1 < slices) {
            MHP_RETURN_IF_ERROR(mhp_event_record(half->target.events->slices[i], stream));
        }
    }
    return MHP_OK;
}

/* A pass fills its place with its last step; only that has to wait until the place is free. */
static mhp_status step_half(mhp_executor *executor, action_half *half)
{
    bool fills = half->target.events && half->cursor.step + 1 == half->cursor.step_count;
    mhp_lane lane = fills ? filling_lane(executor, half) : half->lane;
    bool awaited = executor_is_beside(lane) && half->target.leaves;     /* at the pass's begin */
    mhp_step_part part = mhp_cursor_next_part(&half->cursor);

    if (half->cursor.step == 0 && input_slices(executor, half) > 1) {
        return take_slices(executor, half);
    }
    if (lane != half->lane) {
        MHP_RETURN_IF_ERROR(executor_order(executor, half->lane, lane));
    }
    if (fills && !awaited) {
        MHP_RETURN_IF_ERROR(await_place(executor, half, lane));
    }
    MHP_RETURN_IF_ERROR(submit_group(executor, half, lane, part, fills && fills_slices(half) ? give_slices : step_whole));
    return mhp_cursor_done(&half->cursor) ? end_half(executor, half, lane) : MHP_OK;
}

static mhp_status run_pass(mhp_executor *executor, int stage, int microbatch, mhp_pass pass, const mhp_executor_inputs *inputs)
{
    action_half half;

    MHP_RETURN_IF_ERROR(begin_half(executor, &half, stage, microbatch, pass, MHP_LANE_COMPUTE, inputs));
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

/* Whose step comes next: on one stream a memory-bound step follows a product and the other way round, whatever half it is of, and where
 * both halves would do they take turns; on two streams they always do. */
static action_half *next_half(action_half *last, action_half *other, mhp_step_kind last_kind)
{
    if (last->ended || other->ended) {
        return last->ended ? other : last;
    }
    if (last->lane == other->lane && mhp_cursor_next_kind(&other->cursor) == last_kind) {
        return mhp_cursor_next_kind(&last->cursor) != last_kind ? last : other;
    }
    return other;
}

/* Moves the two halves on until both are done; when the input gradient is, the weight gradient takes its place. */
static mhp_status step_pair(mhp_executor *executor, action_half *forward, action_half *backward, const mhp_executor_inputs *inputs)
{
    action_half *last = backward, *next = forward;
    mhp_step_kind kind;

    while (!forward->ended || !backward->ended) {
        kind = mhp_cursor_next_kind(&next->cursor);
        MHP_RETURN_IF_ERROR(step_half(executor, next));
        if (backward->ended && backward->cursor.pass == MHP_PASS_INPUT_GRADIENT) {
            MHP_RETURN_IF_ERROR(begin_half(executor, backward, backward->stage->held->index, backward->microbatch,
                                           MHP_PASS_WEIGHT_GRADIENT, backward->lane, inputs));
        }
        last = next;
        next = next_half(last, last == forward ? backward : forward, kind);
    }
    return MHP_OK;
}

static mhp_status run_pair(mhp_executor *executor, const mhp_action *action, const mhp_executor_inputs *inputs)
{
    static const mhp_lane leading[] = {[MHP_PAIR_PARTS] = MHP_LANE_LEADER, [MHP_PAIR_OFF] = MHP_LANE_COMPUTE};
    static const mhp_lane following[] = {
        [MHP_PAIR_STREAMS] = MHP_LANE_PARTNER, [MHP_PAIR_PARTS] = MHP_LANE_PARTNER, [MHP_PAIR_OFF] = MHP_LANE_COMPUTE};
    action_half forward, backward;

    if (executor->params.pair == MHP_PAIR_OFF) {
        MHP_RETURN_IF_ERROR(run_pass(executor, action->stage, action->microbatch, MHP_PASS_FORWARD, inputs));
        return run_backward(executor, action->backward_stage, action->backward_microbatch, inputs);
    }
    MHP_RETURN_IF_ERROR(begin_half(executor, &forward, action->stage, action->microbatch, MHP_PASS_FORWARD,
                                   leading[executor->params.pair], inputs));
    MHP_RETURN_IF_ERROR(begin_half(executor, &backward, action->backward_stage, action->backward_microbatch, MHP_PASS_INPUT_GRADIENT,
                                   following[executor->params.pair], inputs));
    if (!executor_is_beside(backward.lane)) {
        return step_pair(executor, &forward, &backward, inputs);
    }
    MHP_RETURN_IF_ERROR(mark(executor, &forward, MHP_MARK_RUN, -1));        /* both inputs are there */
    MHP_RETURN_IF_ERROR(executor_begin_beside(executor, forward.lane));
    MHP_RETURN_IF_ERROR(executor_begin_beside(executor, backward.lane));
    MHP_RETURN_IF_ERROR(step_pair(executor, &forward, &backward, inputs));
    MHP_RETURN_IF_ERROR(mark(executor, &backward, MHP_MARK_RUN, -1));
    MHP_RETURN_IF_ERROR(executor_end_beside(executor, forward.lane));
    MHP_RETURN_IF_ERROR(executor_end_beside(executor, backward.lane));
    return mhp_recorder_lanes(executor->params.recorder, MHP_LANE_COMPUTE);
}

static mhp_status run_reduce(mhp_executor *executor, int stage)
{
    MHP_RETURN_IF_ERROR(executor_hit(executor));
    MHP_RETURN_IF_ERROR(executor_close_steps(executor, MHP_LANE_GRADIENT));     /* they add to gradients */
    if (!executor->params.reduce) {
        return MHP_OK;
    }
    return executor->params.reduce(executor->params.reduce_context, executor_find_stage(executor, stage)->held);
}

static mhp_status run_action(mhp_executor *executor, const mhp_action *action, const mhp_executor_inputs *inputs)
{
    MHP_RETURN_IF_ERROR(mhp_live_action(executor->live, executor_stream(executor, MHP_LANE_COMPUTE), action));
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
        return executor_send(executor, action, CHANNEL_STATE, inputs);
    case MHP_ACTION_SEND_B:
        return executor_send(executor, action, CHANNEL_GRADIENT, inputs);
    case MHP_ACTION_RECV_F:
        return executor_receive(executor, action, CHANNEL_STATE, inputs);
    case MHP_ACTION_RECV_B:
        return executor_receive(executor, action, CHANNEL_GRADIENT, inputs);
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

mhp_status mhp_executor_run(mhp_executor *executor, const mhp_executor_inputs *inputs)
{
    const mhp_action_list *actions = &executor->params.plan->ranks[executor->rank].actions;

    for (size_t i = 0; i < actions->count; i++) {
        const mhp_action *action = &actions->items[i];
        mhp_status status;

        executor->fault = mhp_faults_due(executor->params.faults, action);
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
    MHP_RETURN_IF_ERROR(executor_close_steps(executor, MHP_LANE_STATE));
    return executor_close_steps(executor, MHP_LANE_GRADIENT);
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

/* Runs a pass on a lane and its last step on another, one behind the other; what can be done in slices in slices and whole. */
static mhp_status warm_up_pass(mhp_executor *executor, mhp_cursor cursor, mhp_lane lane, mhp_lane last_lane)
{
    if (!executor_stream(executor, lane) || !executor_stream(executor, last_lane)) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(executor_order(executor, MHP_LANE_COMPUTE, lane));
    while (!mhp_cursor_done(&cursor)) {
        if (cursor.step + 1 == cursor.step_count && last_lane != lane) {
            MHP_RETURN_IF_ERROR(executor_order(executor, lane, last_lane));
            lane = last_lane;
        }
        if (mhp_cursor_next_slices(&cursor) > 1) {
            mhp_cursor slice = cursor;

            while (slice.step == cursor.step) {
                MHP_RETURN_IF_ERROR(mhp_cursor_step_slice(&slice, executor_stream(executor, lane)));
            }
        }
        MHP_RETURN_IF_ERROR(mhp_cursor_step(&cursor, executor_stream(executor, lane)));
    }
    return executor_order(executor, lane, MHP_LANE_COMPUTE);
}

/* On every lane that may run a part of it: a lane's first kernel may load something too. */
static mhp_status warm_up_stage(mhp_executor *executor, const held_slots *stage, const mhp_microbatch *view)
{
    static const struct { mhp_pass pass; mhp_lane lane, last_lane; } ways[] = {
        {MHP_PASS_FORWARD, MHP_LANE_COMPUTE, MHP_LANE_COMPUTE},
        {MHP_PASS_FORWARD, MHP_LANE_COMPUTE, MHP_LANE_STATE},
        {MHP_PASS_FORWARD, MHP_LANE_LEADER, MHP_LANE_LEADER},
        {MHP_PASS_REBUILD, MHP_LANE_COMPUTE, MHP_LANE_COMPUTE},
        {MHP_PASS_INPUT_GRADIENT, MHP_LANE_COMPUTE, MHP_LANE_COMPUTE},
        {MHP_PASS_INPUT_GRADIENT, MHP_LANE_COMPUTE, MHP_LANE_GRADIENT},
        {MHP_PASS_INPUT_GRADIENT, MHP_LANE_PARTNER, MHP_LANE_PARTNER},
        {MHP_PASS_WEIGHT_GRADIENT, MHP_LANE_COMPUTE, MHP_LANE_COMPUTE},
        {MHP_PASS_WEIGHT_GRADIENT, MHP_LANE_PARTNER, MHP_LANE_PARTNER},
    };

    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        mhp_cursor cursor;

        if (ways[i].pass == MHP_PASS_FORWARD || !executor->params.plan->forward_only) {
            mhp_cursor_begin(&cursor, stage->held->stage, ways[i].pass, view);
            MHP_RETURN_IF_ERROR(warm_up_pass(executor, cursor, ways[i].lane, ways[i].last_lane));
        }
    }
    return MHP_OK;
}

mhp_status mhp_executor_warm_up(mhp_executor *executor, const mhp_executor_inputs *inputs)
{
    for (int i = 0; i < executor->stage_count; i++) {
        const held_slots *stage = &executor->stages[i];
        int m = first_microbatch(executor, stage->held->index);
        mhp_microbatch view = microbatch_of(executor, stage, m, inputs);

        place_microbatch(executor, stage, m, &view);
        MHP_RETURN_IF_ERROR(warm_up_stage(executor, stage, &view));
    }
    return MHP_OK;
}
