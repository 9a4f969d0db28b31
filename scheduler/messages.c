#include "scheduler/messages.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/execute.h"
#include "scheduler/index.h"

/* Where a receive goes: before the target rank's action `before`. Of those before one action, that which is needed first stands
 * first; `needed` is by then no later than that of the channel's messages behind it. */
typedef struct receive_place {
    int before, needed;
} receive_place;

typedef struct placed_receive {
    receive_place place;
    int sent;                   /* place of the pass that makes it, in its rank's list */
    mhp_action action;
} placed_receive;

typedef struct insertion {
    mhp_plan *plan;
    mhp_plan_index index;
    mhp_execution execution;
    receive_place *places[MHP_MESSAGE_KINDS];   /* [source stage][microbatch] */
    receive_place *channel_last;                /* [stage of a rank][other rank]: of the message behind, while walking backwards */
} insertion;

bool mhp_plan_has_messages(const mhp_plan *plan)
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

/* How many actions of the rank begin before the unit. */
static int begun_before(const insertion *x, int rank, int unit)
{
    const int *start = x->execution.start[rank];
    int low = 0;
    int high = (int)x->plan->ranks[rank].actions.count;

    while (low < high) {
        int middle = low + (high - low) / 2;

        if (start[middle] < unit) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The place in the rank's list that is passed by the unit: behind all that ended by then. */
static int passed_by(const insertion *x, int rank, int unit)
{
    int begun = begun_before(x, rank, unit);
    const mhp_action *last = begun > 0 ? &x->plan->ranks[rank].actions.items[begun - 1] : NULL;

    return last && x->execution.start[rank][begun - 1] + mhp_action_units(last) > unit ? begun - 1 : begun;
}

/* Before the compute action ahead of the one that needs the message. */
static int ahead_of(const insertion *x, int rank, int needed)
{
    const mhp_action *items = x->plan->ranks[rank].actions.items;
    int at = needed;

    while (at > 0 && !mhp_action_computes(&items[at - 1])) {
        at--;
    }
    return at > 0 ? at - 1 : 0;
}

/* Not between an R and its gradient: R takes time too. */
static int before_rebuild(const insertion *x, int rank, int place)
{
    while (place > 0 && x->plan->ranks[rank].actions.items[place - 1].kind == MHP_ACTION_REBUILD) {
        place--;
    }
    return place;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static size_t cell_of(const insertion *x, int stage, int microbatch)
{
    return (size_t)stage * (size_t)x->plan->microbatch_count + (size_t)microbatch;
}

/* The receive of what the pass at `position` of `rank` makes; the channel's later ones have their places. */
static void place_receive(const insertion *x, int kind, int rank, int position, int s, int m)
{
    const mhp_message_kind *message = &mhp_message_kinds[kind];
    int target = s + message->step;
    int target_rank = mhp_plan_owner(x->plan, target, m);
    int made = x->execution.start[rank][position] + mhp_action_units(&x->plan->ranks[rank].actions.items[position]);
    int needed = mhp_index_at(x->plan, &x->index, message->pass, target, m);
    size_t local = (size_t)mhp_placement_find(&x->index.placement, rank, s);
    receive_place *behind = &x->channel_last[local * (size_t)x->plan->rank_count + (size_t)target_rank];
    int before = smaller(ahead_of(x, target_rank, needed), passed_by(x, target_rank, made));

    before = before_rebuild(x, target_rank, before);
    *behind = (receive_place){smaller(before, behind->before), smaller(needed, behind->needed)};
    x->places[kind][cell_of(x, s, m)] = *behind;
}

static void place_receives_of(const insertion *x, int kind, int rank)
{
    const mhp_action_list *list = &x->plan->ranks[rank].actions;
    size_t channels = (size_t)mhp_placement_count(&x->index.placement, rank) * (size_t)x->plan->rank_count;

    for (size_t i = 0; i < channels; i++) {
        x->channel_last[i] = (receive_place){INT_MAX, INT_MAX};
    }
    for (size_t i = list->count; i-- > 0;) {
        const mhp_message_kind *message = &mhp_message_kinds[kind];
        int s, m;

        if (mhp_action_does(&list->items[i], message->pass, &s, &m) && mhp_crosses(x->plan, s, s + message->step, m)) {
            place_receive(x, kind, rank, (int)i, s, m);
        }
    }
}

static mhp_status place_receives(insertion *x)
{
    size_t cells = (size_t)x->plan->stage_count * (size_t)x->plan->microbatch_count;
    int most = 0;

    for (int r = 0; r < x->plan->rank_count; r++) {
        int count = mhp_placement_count(&x->index.placement, r);

        most = count > most ? count : most;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->channel_last, (size_t)most * (size_t)x->plan->rank_count, sizeof *x->channel_last));
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&x->places[k], cells, sizeof *x->places[k]));
        for (int r = 0; r < x->plan->rank_count; r++) {
            place_receives_of(x, k, r);
        }
    }
    return MHP_OK;
}

static int compare_receives(const void *left, const void *right)
{
    const placed_receive *a = left;
    const placed_receive *b = right;

    if (a->place.before != b->place.before) {
        return a->place.before < b->place.before ? -1 : 1;
    }
    if (a->place.needed != b->place.needed) {
        return a->place.needed < b->place.needed ? -1 : 1;
    }
    if (a->sent != b->sent) {
        return a->sent < b->sent ? -1 : 1;
    }
    return a->action.kind != b->action.kind ? (int)a->action.kind - (int)b->action.kind : a->action.stage - b->action.stage;
}

/* All that the rank receives, in the order of their places, in `receives`, which has room for two a compute action; and how many it
 * sends. */
static size_t list_messages(const insertion *x, int rank, placed_receive *receives, size_t *send_count_out)
{
    const mhp_action_list *list = &x->plan->ranks[rank].actions;
    size_t count = 0;

    *send_count_out = 0;
    for (size_t i = 0; i < list->count; i++) {
        for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
            const mhp_message_kind *message = &mhp_message_kinds[k];
            int s, m;

            if (!mhp_action_does(&list->items[i], message->pass, &s, &m)) {
                continue;
            }
            *send_count_out += mhp_crosses(x->plan, s, s + message->step, m);
            if (mhp_crosses(x->plan, s, s - message->step, m)) {
                receives[count++] = (placed_receive){
                    .place = x->places[k][cell_of(x, s - message->step, m)],
                    .sent = mhp_index_at(x->plan, &x->index, message->pass, s - message->step, m),
                    .action = {message->receive_action, s, m, -1, -1},
                };
            }
        }
    }
    if (count > 1) {
        qsort(receives, count, sizeof *receives, compare_receives);
    }
    return count;
}

static void put_sends(const mhp_plan *plan, const mhp_action *action, mhp_action_list *list)
{
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        const mhp_message_kind *message = &mhp_message_kinds[k];
        int s, m;

        if (mhp_action_does(action, message->pass, &s, &m) && mhp_crosses(plan, s, s + message->step, m)) {
            list->items[list->count++] = (mhp_action){message->send_action, s, m, -1, -1};
        }
    }
}

static mhp_status insert_messages(const insertion *x, int rank, placed_receive *receives)
{
    mhp_action_list *list = &x->plan->ranks[rank].actions;
    mhp_action_list longer = {NULL, 0, 0};
    size_t send_count, next = 0;
    size_t receive_count = list_messages(x, rank, receives, &send_count);

    longer.capacity = list->count + receive_count + send_count;
    MHP_RETURN_IF_ERROR(mhp_calloc(&longer.items, longer.capacity, sizeof *longer.items));
    for (size_t i = 0; i < list->count; i++) {
        while (next < receive_count && (size_t)receives[next].place.before <= i) {
            longer.items[longer.count++] = receives[next++].action;
        }
        longer.items[longer.count++] = list->items[i];
        put_sends(x->plan, &list->items[i], &longer);
    }
    mhp_free(list->items);
    *list = longer;
    return MHP_OK;
}

mhp_status mhp_plan_add_messages(mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    insertion x = {.plan = plan};
    placed_receive *receives = NULL;
    size_t most = 0;

    for (int r = 0; r < plan->rank_count; r++) {
        most = plan->ranks[r].actions.count > most ? plan->ranks[r].actions.count : most;
    }
    MHP_TRY(out, mhp_plan_index_create(plan, &x.index));
    MHP_TRY(out, mhp_plan_execute(plan, &x.index, false, &x.execution));
    MHP_TRY(out, place_receives(&x));
    MHP_TRY(out, mhp_calloc(&receives, most * MHP_MESSAGE_KINDS, sizeof *receives));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, insert_messages(&x, r, receives));
    }
out:
    mhp_free(receives);
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        mhp_free(x.places[k]);
    }
    mhp_free(x.channel_last);
    mhp_execution_destroy(plan, &x.execution);
    mhp_plan_index_destroy(&x.index);
    return status;
}
