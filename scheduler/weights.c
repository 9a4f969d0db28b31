#include "scheduler/weights.h"

#include <string.h>

#include "core/memory.h"
#include "scheduler/execute.h"

/* A W whose I has run. */
typedef struct waiting_weight {
    mhp_action action;
    bool done;
} waiting_weight;

/* One rank. */
typedef struct advance {
    const mhp_plan *plan;
    const mhp_plan_index *index;
    const mhp_action_list *old;
    const int *start;           /* [position in `old`] */
    mhp_action_list list;
    size_t last_message;        /* how much of `old` lies before the end of its last pass that sends something */
    waiting_weight *queue;      /* in the order of their I */
    size_t *queue_place;        /* [position of an I in `old`] */
    size_t queue_first, queue_end;
    int now;                    /* unit in which the rank is free, as far as `list` goes */
} advance;

static void put(advance *a, mhp_action action, int start)
{
    a->list.items[a->list.count++] = action;
    a->now = (start > a->now ? start : a->now) + mhp_action_units(&action);
}

static bool waits(advance *a)
{
    while (a->queue_first < a->queue_end && a->queue[a->queue_first].done) {
        a->queue_first++;
    }
    return a->queue_first < a->queue_end;
}

static void put_weight(advance *a, waiting_weight *weight)
{
    weight->done = true;
    put(a, weight->action, a->now);
}

/* The place of a W goes to the oldest that waits if its own has run. Never to another before its own: a W that moves back would
 * hold its slots for longer. */
static void use_weight_place(advance *a, const mhp_action *action)
{
    int gradient = mhp_index_at(a->plan, a->index, MHP_DO_INPUT_GRADIENT, action->stage, action->microbatch);
    waiting_weight *own = &a->queue[a->queue_place[gradient]];

    if (!own->done) {
        put_weight(a, own);
    } else if (waits(a)) {
        put_weight(a, &a->queue[a->queue_first]);
    }
}

static void copy_action(advance *a, size_t i)
{
    const mhp_action *action = &a->old->items[i];

    if (action->kind == MHP_ACTION_WEIGHT_GRADIENT) {
        use_weight_place(a, action);
        return;
    }
    while (waits(a) && (i >= a->last_message || (mhp_action_computes(action) && a->now < a->start[i]))) {
        put_weight(a, &a->queue[a->queue_first]);
    }
    put(a, *action, a->start[i]);
    if (action->kind == MHP_ACTION_INPUT_GRADIENT) {
        a->queue_place[i] = a->queue_end;
        a->queue[a->queue_end++].action = (mhp_action){MHP_ACTION_WEIGHT_GRADIENT, action->stage, action->microbatch, -1, -1};
    }
}

static bool sends(const mhp_plan *plan, const mhp_action *action)
{
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        int s, m;

        if (mhp_action_does(action, mhp_message_kinds[k].pass, &s, &m) && mhp_crosses(plan, s, s + mhp_message_kinds[k].step, m)) {
            return true;
        }
    }
    return false;
}

static mhp_status advance_rank(mhp_plan *plan, const mhp_plan_index *index, int rank, const int *start)
{
    mhp_status status = MHP_OK;
    mhp_action_list *old = &plan->ranks[rank].actions;
    advance a = {.plan = plan, .index = index, .old = old, .start = start};

    MHP_TRY(out, mhp_calloc(&a.list.items, old->count, sizeof *a.list.items));
    MHP_TRY(out, mhp_calloc(&a.queue, old->count, sizeof *a.queue));
    MHP_TRY(out, mhp_calloc(&a.queue_place, old->count, sizeof *a.queue_place));
    a.list.capacity = old->count;
    for (size_t i = 0; i < old->count; i++) {
        a.last_message = sends(plan, &old->items[i]) ? i + 1 : a.last_message;
    }
    for (size_t i = 0; i < old->count; i++) {
        copy_action(&a, i);
    }
    while (waits(&a)) {
        put_weight(&a, &a.queue[a.queue_first]);
    }
    mhp_free(old->items);
    *old = a.list;
    a.list.items = NULL;
out:
    mhp_free(a.queue_place);
    mhp_free(a.queue);
    mhp_free(a.list.items);
    return status;
}

mhp_status mhp_plan_advance_weights(mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {.placement = {NULL, NULL}};
    mhp_execution execution = {.start = NULL};

    MHP_TRY(out, mhp_plan_index_create(plan, &index));
    MHP_TRY(out, mhp_plan_execute(plan, &index, false, &execution));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, advance_rank(plan, &index, r, execution.start[r]));
    }
out:
    mhp_execution_destroy(plan, &execution);
    mhp_plan_index_destroy(&index);
    return status;
}
