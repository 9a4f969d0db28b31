/* What an executor is made of: slots with their events, channels, and the sums over its actions. */
#include <assert.h>
#include <stdio.h>

#include "core/memory.h"
#include "runtime/executor_internal.h"

enum { CHANNEL_KINDS = 2, MARKS_OF_ACTION = 16 };       /* of a pair, with its weight gradient, 12 */

held_slots *executor_find_stage(const mhp_executor *executor, int stage)
{
    for (int i = 0; i < executor->stage_count; i++) {
        if (executor->stages[i].held->index == stage) {
            return &executor->stages[i];
        }
    }
    return NULL;
}

channel_entry *executor_find_channel(const mhp_executor *executor, channel_kind kind, int source_stage, int source_rank, int target_rank)
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

static bool is_message_class(mhp_slot_class class_)
{
    return class_ == MHP_SLOT_INPUT || class_ == MHP_SLOT_OUTPUT || class_ == MHP_SLOT_GRADIENT_INPUT ||
           class_ == MHP_SLOT_GRADIENT_OUTPUT;
}

/* Only a state comes and goes in slices. */
static mhp_status create_events(mhp_device *device, int slices, slot_events *events)
{
    MHP_RETURN_IF_ERROR(mhp_event_create(device, &events->is_ready));
    MHP_RETURN_IF_ERROR(mhp_event_create(device, &events->is_free));
    for (int i = 0; i + 1 < slices; i++) {
        MHP_RETURN_IF_ERROR(mhp_event_create(device, &events->slices[i]));
    }
    events->slices[slices - 1] = events->is_ready;
    return MHP_OK;
}

static void destroy_events(slot_events *events)
{
    for (int i = 0; i < MHP_SLICES_MAX && events->slices[i] != events->is_ready; i++) {
        mhp_event_destroy(events->slices[i]);
    }
    mhp_event_destroy(events->is_ready);
    mhp_event_destroy(events->is_free);
}

static mhp_status create_slots(mhp_executor *executor, held_slots *stage)
{
    const mhp_stage_memory *memory = stage->held->memory;
    mhp_device *device = executor->params.store->device;

    for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
        int count = stage->plan->count[c];
        int slices = c == MHP_SLOT_INPUT || c == MHP_SLOT_OUTPUT ? executor_slices(stage) : 1;

        if (count == 0 || !is_message_class((mhp_slot_class)c)) {
            continue;
        }
        stage->stride[c] = mhp_slot_stride(&memory->sizes, (mhp_slot_class)c);
        stage->memory[c] = mhp_arena_at(executor->params.store->params.arena, memory->slots[executor->params.phase][c],
                                        (size_t)count * stage->stride[c]);
        MHP_RETURN_IF_ERROR(mhp_calloc(&stage->events[c], (size_t)count, sizeof *stage->events[c]));
        for (int i = 0; i < count; i++) {
            MHP_RETURN_IF_ERROR(create_events(device, slices, &stage->events[c][i]));
        }
    }
    return MHP_OK;
}

/* Opens the channel from (source_stage, source_rank) to target_rank if this rank is an end of it and it is not open yet. */
static mhp_status open_channel(mhp_executor *executor, channel_kind kind, int source_stage, int source_rank, int target_rank)
{
    mhp_store *store = executor->params.store;
    int base = store->replica * executor->params.plan->rank_count;
    held_slots *target = target_rank == executor->rank ? executor_find_stage(executor, executor_target_stage(kind, source_stage)) : NULL;
    held_slots *source = source_rank == executor->rank ? executor_find_stage(executor, source_stage) : NULL;
    const mhp_stage_sizes *sizes = mhp_stage_get_sizes((target ? target : source)->held->stage);
    mhp_slot_class class_ = executor_target_class(kind);
    char name[64];
    mhp_channel_params params = {
        .name = name,
        .id = (source_stage * CHANNEL_KINDS + (int)kind) * MHP_PHASE_COUNT + (int)executor->params.phase,
        .source = base + source_rank,
        .target = base + target_rank,
        .slot_bytes = executor->params.verify_messages ? mhp_sealed_bytes(mhp_slot_bytes(sizes, class_)) : mhp_slot_bytes(sizes, class_),
        .slots = target ? target->memory[class_] : NULL,
        .slot_stride = target ? target->stride[class_] : 0,
        .slot_count = mhp_plan_stage_slots(executor->params.plan, target_rank, executor_target_stage(kind, source_stage))->count[class_],
        .parts = kind == CHANNEL_STATE ? sizes->slices : 1,
        .part_bytes = sizes->slice_bytes,
    };
    mhp_seals_params seals = {.device = store->device, .name = name, .message_bytes = mhp_slot_bytes(sizes, class_),
                              .slot_count = params.slot_count, .describe = executor_describe_message};
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
            if (!executor_find_channel(executor, CHANNEL_STATE, s, low, high)) {
                MHP_RETURN_IF_ERROR(open_channel(executor, CHANNEL_STATE, s, low, high));
            }
            if (!plan->forward_only && !executor_find_channel(executor, CHANNEL_GRADIENT, s + 1, high, low)) {
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

/* Marks of a run: of a slice that is awaited, two. */
static size_t most_marks(const mhp_executor *executor)
{
    int slices = 1;

    for (int i = 0; i < executor->stage_count; i++) {
        slices = executor_slices(&executor->stages[i]) > slices ? executor_slices(&executor->stages[i]) : slices;
    }
    return (size_t)(MARKS_OF_ACTION + 2 * slices) * (executor->params.plan->ranks[executor->rank].actions.count + 1);
}

mhp_status mhp_executor_create(const mhp_executor_params *params, mhp_executor **executor_out)
{
    mhp_status status = MHP_OK;
    mhp_executor *executor = NULL;

    assert(params->plan->lowered);
    MHP_TRY(out, mhp_calloc(&executor, 1, sizeof *executor));
    executor->params = *params;
    executor->rank = params->store->pipeline_rank % params->plan->rank_count;
    MHP_TRY(out, executor_create_lanes(executor));
    MHP_TRY(out, create_stages(executor));
    MHP_TRY(out, mhp_flight_reserve(params->flight, most_marks(executor)));
    MHP_TRY(out, open_channels(executor));
    MHP_TRY(out, connect_channels(executor));
    mhp_recorder_reserve_actions(params->recorder, params->store, &params->plan->ranks[executor->rank].actions);
    *executor_out = executor;
    executor = NULL;
out:
    if (mhp_comm_may_release(params->store->params.comm, status)) {
        mhp_executor_destroy(executor);
    }
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
                destroy_events(&stage->events[c][e]);
            }
            mhp_free(stage->events[c]);
        }
    }
    executor_destroy_lanes(executor);
    mhp_free(executor->channels);
    mhp_free(executor->stages);
    mhp_free(executor);
}

/* Sums something over this rank's actions: what a pass costs, or what a send carries. */
static double action_flops(const mhp_executor *executor, const mhp_action *action)
{
    mhp_stage *stage = action->stage >= 0 ? executor_find_stage(executor, action->stage)->held->stage : NULL;
    mhp_stage *partner = action->backward_stage >= 0 ? executor_find_stage(executor, action->backward_stage)->held->stage : NULL;

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
            const mhp_stage_sizes *sizes = mhp_stage_get_sizes(executor_find_stage(executor, action->stage)->held->stage);

            bytes += action->kind == MHP_ACTION_SEND_F ? sizes->state_bytes : sizes->gradient_bytes;
        }
    }
    return bytes;
}
