/* The validator: what a plan must hold, then an execution under rendezvous semantics that must reach its end. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/execute.h"
#include "scheduler/index.h"
#include "scheduler/lower.h"
#include "scheduler/messages.h"
#include "scheduler/slots.h"

enum { CELL_BYTES_MAX = 96, CIRCLE_RANKS_MAX = 4, CIRCLE_BYTES_MAX = 512 };

typedef struct validation {
    const mhp_plan *plan;
    mhp_plan_index index;
    bool messages;              /* the plan holds sends and receives */
    mhp_execution execution;
} validation;

static int at(const validation *v, mhp_event_kind kind, int stage, int microbatch)
{
    return mhp_index_at(v->plan, &v->index, kind, stage, microbatch);
}

static mhp_status missing(const validation *v, int stage, int microbatch, const char *what)
{
    int owner = mhp_plan_owner(v->plan, stage, microbatch);
    int rank = owner < 0 ? 0 : owner;

    return mhp_plan_error(v->plan, rank, v->plan->ranks[rank].actions.count, "%d%s%d is missing", stage, what, microbatch);
}

/* F once, then I once, then W once, on the rank that owns them. */
static mhp_status check_compute(const validation *v, int s, int m)
{
    int owner = mhp_plan_owner(v->plan, s, m);
    int f = at(v, MHP_DO_FORWARD, s, m);
    int i = at(v, MHP_DO_INPUT_GRADIENT, s, m);
    int w = at(v, MHP_DO_WEIGHT_GRADIENT, s, m);

    if (owner < 0 || f < 0) {
        return missing(v, s, m, "F");
    }
    if (v->plan->forward_only) {
        return MHP_OK;
    }
    if (i < 0) {
        return missing(v, s, m, "I or B");
    }
    if (w < 0) {
        return missing(v, s, m, "W or B");
    }
    if (i <= f) {
        return mhp_plan_error(v->plan, owner, (size_t)i, "stands before %dF%d at position %d: expected behind it", s, m, f);
    }
    if (w < i) {
        return mhp_plan_error(v->plan, owner, (size_t)w, "stands before %dI%d at position %d: expected behind it", s, m, i);
    }
    return MHP_OK;
}

/* Of a stage all micro-batches are rebuilt or none, between their F and their I. */
static mhp_status check_rebuild(const validation *v, int s, int m, bool expected)
{
    int owner = mhp_plan_owner(v->plan, s, m);
    int f = at(v, MHP_DO_FORWARD, s, m);
    int i = at(v, MHP_DO_INPUT_GRADIENT, s, m);
    int r = at(v, MHP_DO_REBUILD, s, m);

    if (r < 0) {
        return expected && !v->plan->forward_only
                   ? mhp_plan_error(v->plan, owner, (size_t)i, "%dR%d is missing: expected it before, as stage %d has R of others",
                                    s, m, s)
                   : MHP_OK;
    }
    if (v->plan->forward_only) {
        return mhp_plan_error(v->plan, owner, (size_t)r, "rebuilds for no gradient: expected no R in a plan without backward");
    }
    if (r < f) {
        return mhp_plan_error(v->plan, owner, (size_t)r, "stands before %dF%d at position %d: expected behind it", s, m, f);
    }
    if (r > i) {
        return mhp_plan_error(v->plan, owner, (size_t)r, "stands behind %dI%d at position %d: expected before it", s, m, i);
    }
    return MHP_OK;
}

static mhp_status check_rebuilds(const validation *v)
{
    for (int s = 0; v->index.position[MHP_DO_REBUILD] && s < v->plan->stage_count; s++) {
        bool any = false;

        for (int m = 0; m < v->plan->microbatch_count; m++) {
            any = any || at(v, MHP_DO_REBUILD, s, m) >= 0;
        }
        for (int m = 0; m < v->plan->microbatch_count; m++) {
            MHP_RETURN_IF_ERROR(check_rebuild(v, s, m, any));
        }
    }
    return MHP_OK;
}

/* Of a send or receive. */
static const char *word_of(mhp_event_kind kind)
{
    static const char *const words[MHP_DO_COUNT] = {
        [MHP_DO_SEND_F] = "SEND_F", [MHP_DO_RECV_F] = "RECV_F", [MHP_DO_SEND_B] = "SEND_B", [MHP_DO_RECV_B] = "RECV_B"};

    return words[kind];
}

/* The message of stage `s`: there if it crosses ranks, sent behind the pass that makes it, received before that which needs it. */
static mhp_status check_message(const validation *v, const mhp_message_kind *kind, int s, int m)
{
    int target = s + kind->step;
    bool crosses = mhp_crosses(v->plan, s, target, m);
    int sent = at(v, kind->send, s, m);
    int received = at(v, kind->receive, target, m);
    int owner = mhp_plan_owner(v->plan, s, m);
    int target_owner = mhp_plan_owner(v->plan, target, m);
    int made = at(v, kind->pass, s, m);
    int needed = at(v, kind->pass, target, m);

    if (!crosses && (sent >= 0 || received >= 0)) {
        return mhp_plan_error(v->plan, sent >= 0 ? owner : target_owner, (size_t)(sent >= 0 ? sent : received),
                              "stages %d and %d of micro-batch %d are on one rank: expected no message", s, target, m);
    }
    if (!crosses) {
        return MHP_OK;
    }
    if (sent < 0) {
        return missing(v, s, m, word_of(kind->send));
    }
    if (received < 0) {
        return missing(v, target, m, word_of(kind->receive));
    }
    if (sent < made) {
        return mhp_plan_error(v->plan, owner, (size_t)sent, "sends what is made at position %d: expected behind it", made);
    }
    if (received > needed) {
        return mhp_plan_error(v->plan, target_owner, (size_t)received, "receives what is needed at position %d: expected before it",
                              needed);
    }
    return MHP_OK;
}

static mhp_status check_cells(const validation *v)
{
    const mhp_plan *plan = v->plan;

    for (int s = 0; s < plan->stage_count; s++) {
        for (int m = 0; m < plan->microbatch_count; m++) {
            MHP_RETURN_IF_ERROR(check_compute(v, s, m));
        }
    }
    MHP_RETURN_IF_ERROR(check_rebuilds(v));
    for (int s = 0; v->messages && s + 1 < plan->stage_count; s++) {
        for (int m = 0; m < plan->microbatch_count; m++) {
            MHP_RETURN_IF_ERROR(check_message(v, &mhp_message_kinds[MHP_MESSAGE_STATE], s, m));
            if (!plan->forward_only) {
                MHP_RETURN_IF_ERROR(check_message(v, &mhp_message_kinds[MHP_MESSAGE_GRADIENT], s + 1, m));
            }
        }
    }
    return MHP_OK;
}

/* ---- channels ---- */

/* Of a channel's messages, the one from `position` on in the list of the rank that has `kind` for `stage`; -1 at the end. */
static int next_of_channel(const validation *v, int rank, mhp_action_kind kind, int stage, int other_stage, int other_rank,
                           size_t *position)
{
    const mhp_action_list *list = &v->plan->ranks[rank].actions;

    for (; *position < list->count; (*position)++) {
        const mhp_action *action = &list->items[*position];

        if (action->kind == kind && action->stage == stage &&
            mhp_plan_owner(v->plan, other_stage, action->microbatch) == other_rank) {
            return action->microbatch;
        }
    }
    return -1;
}

/* A channel whose ends differ in order: both lists from the start to the first difference. */
static mhp_status raise_channel(const validation *v, const mhp_message_kind *kind, int stage, int source_rank, int target_rank)
{
    int target = stage + kind->step;
    size_t i = 0, j = 0;
    int sent, received;

    for (;; i++, j++) {
        sent = next_of_channel(v, source_rank, kind->send_action, stage, target, target_rank, &i);
        received = next_of_channel(v, target_rank, kind->receive_action, target, stage, source_rank, &j);
        if (sent != received) {
            break;
        }
        assert(sent >= 0);
    }
    mhp_plan_error(v->plan, target_rank, j,
                   "receives micro-batch %d where rank %d sends %d at position %zu: expected the order of the sends", received,
                   source_rank, sent, i);
    return mhp_plan_error_also(v->plan, source_rank, i);
}

/* Of one rank's receives: along each channel the places of the sends must rise. `last` [stage of the rank][source rank] lends its
 * room: the place of the channel's latest send. */
static mhp_status check_receives(const validation *v, const mhp_message_kind *kind, int rank, int *last)
{
    const mhp_action_list *list = &v->plan->ranks[rank].actions;
    size_t channels = (size_t)mhp_placement_count(&v->index.placement, rank) * (size_t)v->plan->rank_count;

    memset(last, 0xff, channels * sizeof *last);
    for (size_t i = 0; i < list->count; i++) {
        const mhp_action *action = &list->items[i];
        int source = action->stage - kind->step;
        int sent, source_rank, *latest;

        if (action->kind != kind->receive_action) {
            continue;
        }
        sent = at(v, kind->send, source, action->microbatch);
        source_rank = mhp_plan_owner(v->plan, source, action->microbatch);
        latest = &last[(size_t)mhp_placement_find(&v->index.placement, rank, action->stage) * (size_t)v->plan->rank_count +
                       (size_t)source_rank];
        if (sent < *latest) {
            return raise_channel(v, kind, source, source_rank, rank);
        }
        *latest = sent;
    }
    return MHP_OK;
}

static mhp_status check_channels(const validation *v)
{
    mhp_status status = MHP_OK;
    int *last = NULL;
    int most = 0;

    for (int r = 0; r < v->plan->rank_count; r++) {
        int count = mhp_placement_count(&v->index.placement, r);

        most = count > most ? count : most;
    }
    MHP_TRY(out, mhp_calloc(&last, (size_t)most * (size_t)v->plan->rank_count, sizeof *last));
    for (int r = 0; r < v->plan->rank_count; r++) {
        for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
            MHP_TRY(out, check_receives(v, &mhp_message_kinds[k], r, last));
        }
    }
out:
    mhp_free(last);
    return status;
}

/* ---- execution ---- */

/* Something that a rank does at a place in its list. */
typedef struct plan_place {
    int rank, position;
} plan_place;

static bool passed(const validation *v, plan_place place)
{
    return v->execution.next[place.rank] > (size_t)place.position;
}

static plan_place place_of(const validation *v, mhp_event_kind kind, int stage, int microbatch)
{
    return (plan_place){mhp_plan_owner(v->plan, stage, microbatch), at(v, kind, stage, microbatch)};
}

/* The receive that keeps the slot of a pass's output taken; false if it is free. */
static bool find_full_slot(const validation *v, const mhp_message_kind *kind, int s, int m, plan_place *waited)
{
    plan_place pass = place_of(v, kind->pass, s, m);
    const mhp_stage_slots *slots = v->plan->lowered ? mhp_plan_stage_slots(v->plan, pass.rank, s) : NULL;
    const int *slot = slots ? slots->slot[kind->source_class] : NULL;

    for (int other = 0; slot && slot[m] >= 0 && other < v->plan->microbatch_count; other++) {
        if (slot[other] == slot[m] && at(v, kind->pass, s, other) < pass.position) {
            plan_place sent = place_of(v, kind->send, s, other);

            *waited = passed(v, sent) ? place_of(v, kind->receive, s + kind->step, other) : sent;
            if (!passed(v, *waited)) {
                return true;
            }
        }
    }
    return false;
}

/* What the next action of a stuck rank waits for. */
static plan_place find_waited(const validation *v, int rank)
{
    const mhp_action *action = &v->plan->ranks[rank].actions.items[v->execution.next[rank]];
    plan_place waited = {rank, (int)v->execution.next[rank]};

    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        const mhp_message_kind *kind = &mhp_message_kinds[k];
        int s, m, source;

        if (!mhp_action_does(action, kind->pass, &s, &m)) {
            continue;
        }
        source = s - kind->step;
        if (source >= 0 && source < v->plan->stage_count) {
            bool message = v->messages && mhp_crosses(v->plan, s, source, m);
            plan_place made = place_of(v, message ? kind->send : kind->pass, source, m);

            if (!passed(v, made)) {
                return made;
            }
        }
        if (find_full_slot(v, kind, s, m, &waited)) {
            return waited;
        }
    }
    return waited;
}

static void format_cell(const validation *v, plan_place place, char text[static CELL_BYTES_MAX])
{
    mhp_action_format(&v->plan->ranks[place.rank].actions.items[place.position], text, CELL_BYTES_MAX);
}

/* A circle of ranks, from `rank` on, each of which waits for the next: what for, and where each of them stands. */
static mhp_status raise_circle(const validation *v, int rank)
{
    char circle[CIRCLE_BYTES_MAX] = "";
    size_t length = 0;
    int shown = 0;
    int at_rank = rank;

    do {
        plan_place waited = find_waited(v, at_rank);
        char cell[CELL_BYTES_MAX];

        format_cell(v, waited, cell);
        if (shown++ < CIRCLE_RANKS_MAX && length < sizeof circle) {
            length += (size_t)snprintf(circle + length, sizeof circle - length, "%s %s of rank %d, position %d",
                                       shown > 1 ? ", which waits for" : "", cell, waited.rank, waited.position);
        }
        at_rank = waited.rank;
    } while (at_rank != rank);
    mhp_plan_error(v->plan, rank, v->execution.next[rank], "can never run: it waits for%s%s (deadlock)", circle,
                   shown > CIRCLE_RANKS_MAX ? ", and so on" : "");
    at_rank = find_waited(v, rank).rank;
    for (int i = 1; i < CIRCLE_RANKS_MAX && at_rank != rank; i++) {
        mhp_plan_error_also(v->plan, at_rank, v->execution.next[at_rank]);
        at_rank = find_waited(v, at_rank).rank;
    }
    return MHP_ERR_PLAN;
}

/* Every stuck rank waits for another, so that following them ends in a circle; the one with the least rank is told. */
static mhp_status raise_deadlock(const validation *v)
{
    int rank = 0, least;

    while (v->execution.next[rank] == v->plan->ranks[rank].actions.count) {
        rank++;
    }
    for (int i = 0; i < v->plan->rank_count; i++) {
        rank = find_waited(v, rank).rank;
    }
    least = rank;
    for (int next = find_waited(v, rank).rank; next != rank; next = find_waited(v, next).rank) {
        least = next < least ? next : least;
    }
    return raise_circle(v, least);
}

static mhp_status check_execution(validation *v)
{
    MHP_RETURN_IF_ERROR(mhp_plan_execute(v->plan, &v->index, v->plan->lowered, &v->execution));
    return v->execution.finished ? MHP_OK : raise_deadlock(v);
}

/* ---- reductions ---- */

static bool has_reductions(const mhp_plan *plan)
{
    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            if (plan->ranks[r].actions.items[i].kind == MHP_ACTION_REDUCE_GRAD) {
                return true;
            }
        }
    }
    return false;
}

/* On one rank; `reduced` and `last` [stage] lend their room: places of REDUCE_GRAD and of the last weight gradient, from 1. */
static mhp_status check_reductions_of(const validation *v, int rank, size_t *reduced, size_t *last)
{
    const mhp_action_list *list = &v->plan->ranks[rank].actions;

    memset(reduced, 0, (size_t)v->plan->stage_count * sizeof *reduced);
    memset(last, 0, (size_t)v->plan->stage_count * sizeof *last);
    for (size_t i = 0; i < list->count; i++) {
        int stage, microbatch;
        bool adds = mhp_action_does(&list->items[i], MHP_DO_WEIGHT_GRADIENT, &stage, &microbatch);

        if (adds && reduced[stage] > 0) {
            return mhp_plan_error(v->plan, rank, i, "adds to gradients that were reduced at position %zu: expected it before",
                                  reduced[stage] - 1);
        }
        if (adds) {
            last[stage] = i + 1;
        }
        if (list->items[i].kind == MHP_ACTION_REDUCE_GRAD) {
            if (reduced[list->items[i].stage] > 0) {
                return mhp_plan_error(v->plan, rank, i, "done already at position %zu: expected once",
                                      reduced[list->items[i].stage] - 1);
            }
            reduced[list->items[i].stage] = i + 1;
        }
    }
    for (int s = 0; s < v->plan->stage_count; s++) {
        if (last[s] > 0 && reduced[s] == 0) {
            return mhp_plan_error(v->plan, rank, last[s] - 1,
                                  "the last weight gradient of stage %d: expected REDUCE_GRAD behind it", s);
        }
    }
    return MHP_OK;
}

/* Every holder of a stage reduces its gradients once, when they are whole; a plan that is not lowered may leave it out. */
static mhp_status check_reductions(const validation *v)
{
    mhp_status status = MHP_OK;
    size_t stages = (size_t)v->plan->stage_count;
    size_t *reduced = NULL, *last = NULL;

    if (!v->plan->lowered && !has_reductions(v->plan)) {
        return MHP_OK;
    }
    MHP_TRY(out, mhp_calloc(&reduced, stages, sizeof *reduced));
    MHP_TRY(out, mhp_calloc(&last, stages, sizeof *last));
    for (int r = 0; r < v->plan->rank_count; r++) {
        MHP_TRY(out, check_reductions_of(v, r, reduced, last));
    }
out:
    mhp_free(last);
    mhp_free(reduced);
    return status;
}

mhp_status mhp_plan_validate(const mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    validation v = {.plan = plan};

    MHP_TRY(out, mhp_plan_index_create(plan, &v.index));
    v.messages = plan->lowered || mhp_plan_has_messages(plan);
    MHP_TRY(out, check_cells(&v));
    if (v.messages) {
        MHP_TRY(out, check_channels(&v));
    }
    MHP_TRY(out, check_reductions(&v));
    if (plan->lowered) {
        MHP_TRY(out, mhp_slots_check(plan));
    }
    MHP_TRY(out, check_execution(&v));
out:
    mhp_execution_destroy(plan, &v.execution);
    mhp_plan_index_destroy(&v.index);
    return status;
}
