#include "scheduler/lower.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/index.h"

enum {
    RECEIVE_AHEAD_ACTIONS = 1,  /* a receive is posted this many compute actions before it is needed ... */
    SEND_SLOT_COUNT = 2,        /* ... and a sender fills one slot while the other is under way */
};

/* A receive to be put before compute action `before` of its rank. */
typedef struct placed_receive {
    size_t before, sequence;
    mhp_action action;
} placed_receive;

typedef struct receive_list {
    placed_receive *items;
    size_t count, capacity;
} receive_list;

static bool has_messages(const mhp_plan *plan)
{
    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            mhp_action_kind kind = plan->ranks[r].actions.items[i].kind;

            if (kind == MHP_ACTION_SEND_F || kind == MHP_ACTION_RECV_F || kind == MHP_ACTION_SEND_B || kind == MHP_ACTION_RECV_B) {
                return true;
            }
        }
    }
    return false;
}

static mhp_status append_receive(receive_list *list, mhp_action action, size_t needed_at)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        MHP_RETURN_IF_ERROR(mhp_realloc(&list->items, list->capacity, sizeof *list->items));
    }
    list->items[list->count] = (placed_receive){
        .before = needed_at > RECEIVE_AHEAD_ACTIONS ? needed_at - RECEIVE_AHEAD_ACTIONS : 0, .sequence = list->count, .action = action};
    list->count++;
    return MHP_OK;
}

/* What a message's producer and consumer are, by direction. */
typedef struct message_kind {
    mhp_event_kind event;
    mhp_action_kind receive, send;
    int step;                   /* from the source stage to the target stage */
} message_kind;

static const message_kind message_kinds[2] = {
    {MHP_DO_FORWARD, MHP_ACTION_RECV_F, MHP_ACTION_SEND_F, 1},
    {MHP_DO_INPUT_GRADIENT, MHP_ACTION_RECV_B, MHP_ACTION_SEND_B, -1},
};

/* The (stage, micro-batch) whose output of this kind the action makes, if any. */
static bool produces(const mhp_action *action, const message_kind *kind, int *stage_out, int *microbatch_out)
{
    bool forward = kind->event == MHP_DO_FORWARD;

    *stage_out = action->stage;
    *microbatch_out = action->microbatch;
    if (action->kind == MHP_ACTION_OVERLAP_F_B) {
        if (!forward) {
            *stage_out = action->backward_stage;
            *microbatch_out = action->backward_microbatch;
        }
        return true;
    }
    return forward ? action->kind == MHP_ACTION_FORWARD
                   : action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_INPUT_GRADIENT;
}

/* The receives of one channel in the order of its sends. None may stand behind a later one, so places are pulled forward. */
static mhp_status list_channel(const mhp_plan *plan, const mhp_plan_index *index, const message_kind *kind, int source_rank,
                               int source_stage, int target_rank, receive_list *list)
{
    const mhp_action_list *actions = &plan->ranks[source_rank].actions;
    int target_stage = source_stage + kind->step;
    size_t first = list->count;

    for (size_t i = 0; i < actions->count; i++) {
        int stage, microbatch;

        if (!produces(&actions->items[i], kind, &stage, &microbatch) || stage != source_stage ||
            mhp_plan_owner(plan, target_stage, microbatch) != target_rank) {
            continue;
        }
        MHP_RETURN_IF_ERROR(append_receive(list, (mhp_action){kind->receive, target_stage, microbatch, -1, -1},
                                           (size_t)mhp_index_at(plan, index, kind->event, target_stage, microbatch)));
    }
    for (size_t i = list->count; i-- > first + 1;) {
        if (list->items[i].before < list->items[i - 1].before) {
            list->items[i - 1].before = list->items[i].before;
        }
    }
    return MHP_OK;
}

static bool holds(const mhp_plan *plan, int rank, int stage)
{
    for (int m = 0; m < plan->microbatch_count; m++) {
        if (mhp_plan_owner(plan, stage, m) == rank) {
            return true;
        }
    }
    return false;
}

static int compare_receives(const void *left, const void *right)
{
    const placed_receive *a = left;
    const placed_receive *b = right;

    if (a->before != b->before) {
        return a->before < b->before ? -1 : 1;
    }
    return a->sequence < b->sequence ? -1 : a->sequence > b->sequence;
}

static mhp_status list_receives(const mhp_plan *plan, const mhp_plan_index *index, int rank, receive_list *list)
{
    for (int s = 0; s < plan->stage_count; s++) {
        if (!holds(plan, rank, s)) {
            continue;
        }
        for (int k = 0; k < (plan->forward_only ? 1 : 2); k++) {
            int source = s - message_kinds[k].step;

            for (int r = 0; source >= 0 && source < plan->stage_count && r < plan->rank_count; r++) {
                if (r != rank && holds(plan, r, source)) {
                    MHP_RETURN_IF_ERROR(list_channel(plan, index, &message_kinds[k], r, source, rank, list));
                }
            }
        }
    }
    if (list->count > 1) {
        qsort(list->items, list->count, sizeof *list->items, compare_receives);
    }
    return MHP_OK;
}

/* The compute order of a rank with its messages: receives before, sends behind the action that makes them. */
static mhp_status insert_messages(mhp_plan *plan, const mhp_action_list *compute, const receive_list *receives, int rank)
{
    size_t next = 0;

    for (size_t i = 0; i < compute->count; i++) {
        while (next < receives->count && receives->items[next].before <= i) {
            MHP_RETURN_IF_ERROR(mhp_plan_append(plan, rank, receives->items[next++].action));
        }
        MHP_RETURN_IF_ERROR(mhp_plan_append(plan, rank, compute->items[i]));
        for (int k = 0; k < 2; k++) {
            int stage, microbatch;

            if (produces(&compute->items[i], &message_kinds[k], &stage, &microbatch) &&
                mhp_crosses(plan, stage, stage + message_kinds[k].step, microbatch)) {
                MHP_RETURN_IF_ERROR(mhp_plan_append(plan, rank, (mhp_action){message_kinds[k].send, stage, microbatch, -1, -1}));
            }
        }
    }
    return MHP_OK;
}

static mhp_status add_messages(mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {{NULL}};
    mhp_action_list *compute = NULL;
    receive_list *receives = NULL;
    size_t ranks = (size_t)plan->rank_count;

    MHP_TRY(out, mhp_plan_index_create(plan, &index));
    MHP_TRY(out, mhp_calloc(&compute, ranks, sizeof *compute));
    MHP_TRY(out, mhp_calloc(&receives, ranks, sizeof *receives));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, list_receives(plan, &index, r, &receives[r]));
    }
    for (int r = 0; r < plan->rank_count; r++) {
        compute[r] = plan->ranks[r].actions;
        memset(&plan->ranks[r].actions, 0, sizeof plan->ranks[r].actions);
        MHP_TRY(out, insert_messages(plan, &compute[r], &receives[r], r));
    }
out:
    for (size_t r = 0; r < ranks; r++) {
        mhp_free(compute ? compute[r].items : NULL);
        mhp_free(receives ? receives[r].items : NULL);
    }
    mhp_free(compute);
    mhp_free(receives);
    mhp_plan_index_destroy(&index);
    return status;
}

static bool ends_weight_gradient(const mhp_action *action, int *stage_out)
{
    *stage_out = action->kind == MHP_ACTION_OVERLAP_F_B ? action->backward_stage : action->stage;
    return action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_WEIGHT_GRADIENT || action->kind == MHP_ACTION_OVERLAP_F_B;
}

/* Puts REDUCE_GRAD behind each stage's last weight gradient on the rank, whatever the plan had: every holder of a stage must have one,
 * and only there is it complete and early. */
static mhp_status place_reductions_of(mhp_plan *plan, int rank)
{
    mhp_status status = MHP_OK;
    mhp_action_list old = plan->ranks[rank].actions;
    size_t *last = NULL;
    int stage;

    MHP_RETURN_IF_ERROR(mhp_calloc(&last, (size_t)plan->stage_count, sizeof *last));
    memset(&plan->ranks[rank].actions, 0, sizeof old);
    for (size_t i = 0; i < old.count; i++) {
        if (ends_weight_gradient(&old.items[i], &stage)) {
            last[stage] = i;
        }
    }
    for (size_t i = 0; i < old.count; i++) {
        if (old.items[i].kind == MHP_ACTION_REDUCE_GRAD) {
            continue;
        }
        MHP_TRY(out, mhp_plan_append(plan, rank, old.items[i]));
        if (ends_weight_gradient(&old.items[i], &stage) && last[stage] == i) {
            MHP_TRY(out, mhp_plan_append(plan, rank, (mhp_action){MHP_ACTION_REDUCE_GRAD, stage, -1, -1, -1}));
        }
    }
out:
    mhp_free(last);
    mhp_free(old.items);
    return status;
}

static mhp_status place_reductions(mhp_plan *plan)
{
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_RETURN_IF_ERROR(place_reductions_of(plan, r));
    }
    return MHP_OK;
}

/* How long a micro-batch needs a slot: places in its rank's list, both included. */
typedef struct lifetime {
    int begin, end, microbatch;
} lifetime;

/* Positions of everything that happens to a (stage, micro-batch). */
static bool lifetime_of(const mhp_plan *plan, const mhp_plan_index *index, mhp_slot_class class_, int s, int m, lifetime *out)
{
    bool backward = !plan->forward_only;
    int f = mhp_index_at(plan, index, MHP_DO_FORWARD, s, m);
    int i = backward ? mhp_index_at(plan, index, MHP_DO_INPUT_GRADIENT, s, m) : f;
    int w = backward ? mhp_index_at(plan, index, MHP_DO_WEIGHT_GRADIENT, s, m) : f;

    out->microbatch = m;
    switch (class_) {
    case MHP_SLOT_INPUT:
        if (s == 0) {
            return false;
        }
        out->begin = mhp_crosses(plan, s, s - 1, m) ? mhp_index_at(plan, index, MHP_DO_RECV_F, s, m)
                                                    : mhp_index_at(plan, index, MHP_DO_FORWARD, s - 1, m);
        out->end = i;
        return true;
    case MHP_SLOT_ACTIVATION:
        *out = (lifetime){f, i, m};
        return true;
    case MHP_SLOT_PRODUCT_INPUT:
        *out = (lifetime){f, w, m};
        return true;
    case MHP_SLOT_PRODUCT_GRADIENT:
        *out = (lifetime){i, w, m};
        return backward;
    case MHP_SLOT_GRADIENT_INPUT:
        if (s == plan->stage_count - 1 || !backward) {
            return false;
        }
        out->begin = mhp_crosses(plan, s, s + 1, m) ? mhp_index_at(plan, index, MHP_DO_RECV_B, s, m)
                                                    : mhp_index_at(plan, index, MHP_DO_INPUT_GRADIENT, s + 1, m);
        out->end = i;
        return true;
    case MHP_SLOT_OUTPUT:
        *out = (lifetime){f, f, m};
        return mhp_crosses(plan, s, s + 1, m);
    case MHP_SLOT_GRADIENT_OUTPUT:
        *out = (lifetime){i, i, m};
        return backward && mhp_crosses(plan, s, s - 1, m);
    default:
        return false;
    }
}

static int compare_lifetimes(const void *left, const void *right)
{
    const lifetime *a = left;
    const lifetime *b = right;

    return a->begin != b->begin ? (a->begin < b->begin ? -1 : 1) : (a->microbatch > b->microbatch) - (a->microbatch < b->microbatch);
}

/* Slots of a send take turns: the producer waits for the end of the last but one send. Others go to the first slot that is free. */
static void assign_slots(mhp_stage_slots *slots, mhp_slot_class class_, const lifetime *lifetimes, int count, int *slot_end)
{
    bool turns = class_ == MHP_SLOT_OUTPUT || class_ == MHP_SLOT_GRADIENT_OUTPUT;

    for (int i = 0; i < count; i++) {
        int slot = turns ? i % SEND_SLOT_COUNT : 0;

        while (!turns && slot < slots->count[class_] && slot_end[slot] >= lifetimes[i].begin) {
            slot++;
        }
        slots->count[class_] = slot + 1 > slots->count[class_] ? slot + 1 : slots->count[class_];
        slot_end[slot] = lifetimes[i].end;
        slots->slot[class_][lifetimes[i].microbatch] = slot;
    }
}

static mhp_status assign_stage(const mhp_plan *plan, const mhp_plan_index *index, int rank, mhp_stage_slots *slots)
{
    mhp_status status = MHP_OK;
    size_t microbatches = (size_t)plan->microbatch_count;
    lifetime *lifetimes = NULL;
    int *slot_end = NULL;

    MHP_TRY(out, mhp_calloc(&lifetimes, microbatches, sizeof *lifetimes));
    MHP_TRY(out, mhp_calloc(&slot_end, microbatches + SEND_SLOT_COUNT, sizeof *slot_end));
    for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
        int count = 0;

        MHP_TRY(out, mhp_calloc(&slots->slot[c], microbatches, sizeof *slots->slot[c]));
        memset(slots->slot[c], 0xff, microbatches * sizeof *slots->slot[c]);
        for (int m = 0; m < plan->microbatch_count; m++) {
            if (mhp_plan_owner(plan, slots->stage, m) == rank &&
                lifetime_of(plan, index, (mhp_slot_class)c, slots->stage, m, &lifetimes[count])) {
                count++;
            }
        }
        qsort(lifetimes, (size_t)count, sizeof *lifetimes, compare_lifetimes);
        assign_slots(slots, (mhp_slot_class)c, lifetimes, count, slot_end);
    }
out:
    mhp_free(lifetimes);
    mhp_free(slot_end);
    return status;
}

static mhp_status assign_rank(mhp_plan *plan, const mhp_plan_index *index, int rank)
{
    mhp_rank_plan *rank_plan = &plan->ranks[rank];

    MHP_RETURN_IF_ERROR(mhp_calloc(&rank_plan->stages, (size_t)plan->stage_count, sizeof *rank_plan->stages));
    for (int s = 0; s < plan->stage_count; s++) {
        if (holds(plan, rank, s)) {
            rank_plan->stages[rank_plan->stage_count].stage = s;
            MHP_RETURN_IF_ERROR(assign_stage(plan, index, rank, &rank_plan->stages[rank_plan->stage_count++]));
        }
    }
    return MHP_OK;
}

mhp_status mhp_plan_lower(mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {{NULL}};

    MHP_TRY(out, mhp_plan_validate(plan));
    if (!has_messages(plan)) {
        MHP_TRY(out, add_messages(plan));
    }
    MHP_TRY(out, place_reductions(plan));
    MHP_TRY(out, mhp_plan_index_create(plan, &index));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, assign_rank(plan, &index, r));
    }
    plan->lowered = true;
    MHP_TRY(out, mhp_plan_validate(plan));
out:
    mhp_plan_index_destroy(&index);
    return status;
}
