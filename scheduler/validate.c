/* The validator: what a plan must hold, then an execution under rendezvous semantics that must reach its end. */
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/index.h"
#include "scheduler/lower.h"

typedef struct validation {
    const mhp_plan *plan;
    mhp_plan_index index;
    bool messages;              /* the plan holds sends and receives */
    size_t *cursor;             /* [rank]: the next action of the execution */
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

/* The message of stage `s` to `target`: there if it crosses ranks, sent behind its producer, received before its consumer. */
static mhp_status check_message(const validation *v, int s, int target, int m, mhp_event_kind producer, mhp_event_kind send,
                                mhp_event_kind receive)
{
    const char *name = producer == MHP_DO_FORWARD ? "F" : "B";
    bool crosses = mhp_crosses(v->plan, s, target, m);
    int sent = at(v, send, s, m);
    int received = at(v, receive, target, m);
    int owner = mhp_plan_owner(v->plan, s, m);
    int target_owner = mhp_plan_owner(v->plan, target, m);

    if (crosses && (sent < 0 || received < 0)) {
        return missing(v, sent < 0 ? s : target, m, sent < 0 ? (name[0] == 'F' ? "SEND_F" : "SEND_B")
                                                             : (name[0] == 'F' ? "RECV_F" : "RECV_B"));
    }
    if (!crosses && (sent >= 0 || received >= 0)) {
        return mhp_plan_error(v->plan, sent >= 0 ? owner : target_owner, (size_t)(sent >= 0 ? sent : received),
                              "stages %d and %d of micro-batch %d are on one rank: expected no message", s, target, m);
    }
    if (!crosses) {
        return MHP_OK;
    }
    if (sent < at(v, producer, s, m)) {
        return mhp_plan_error(v->plan, owner, (size_t)sent, "sends what is made at position %d: expected behind it", at(v, producer, s, m));
    }
    if (received > at(v, producer, target, m)) {
        return mhp_plan_error(v->plan, target_owner, (size_t)received, "receives what is needed at position %d: expected before it",
                              at(v, producer, target, m));
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
    for (int s = 0; v->messages && s + 1 < plan->stage_count; s++) {
        for (int m = 0; m < plan->microbatch_count; m++) {
            MHP_RETURN_IF_ERROR(check_message(v, s, s + 1, m, MHP_DO_FORWARD, MHP_DO_SEND_F, MHP_DO_RECV_F));
            if (!plan->forward_only) {
                MHP_RETURN_IF_ERROR(check_message(v, s + 1, s, m, MHP_DO_INPUT_GRADIENT, MHP_DO_SEND_B, MHP_DO_RECV_B));
            }
        }
    }
    return MHP_OK;
}

/* Of a channel's messages, the one after `position` in the list of the rank that has `kind` for `stage`; -1 at the end. */
static int next_of_channel(const validation *v, int rank, mhp_action_kind kind, int stage, int other_stage, int other_rank, size_t *position)
{
    const mhp_action_list *list = &v->plan->ranks[rank].actions;

    for (; *position < list->count; (*position)++) {
        const mhp_action *action = &list->items[*position];

        if (action->kind == kind && action->stage == stage && mhp_plan_owner(v->plan, other_stage, action->microbatch) == other_rank) {
            return action->microbatch;
        }
    }
    return -1;
}

static mhp_status check_channel(const validation *v, int stage, int source_rank, int target_rank, bool forward)
{
    int target = forward ? stage + 1 : stage - 1;
    size_t i = 0;
    size_t j = 0;

    for (;; i++, j++) {
        int sent = next_of_channel(v, source_rank, forward ? MHP_ACTION_SEND_F : MHP_ACTION_SEND_B, stage, target, target_rank, &i);
        int received = next_of_channel(v, target_rank, forward ? MHP_ACTION_RECV_F : MHP_ACTION_RECV_B, target, stage, source_rank, &j);

        if (sent != received) {
            return mhp_plan_error(v->plan, target_rank, j, "receives micro-batch %d where rank %d sends %d: expected the order of the sends",
                                  received, source_rank, sent);
        }
        if (sent < 0) {
            return MHP_OK;
        }
    }
}

static mhp_status check_channels(const validation *v)
{
    const mhp_plan *plan = v->plan;

    for (int s = 0; s + 1 < plan->stage_count; s++) {
        int low = -1;
        int high = -1;

        for (int m = 0; m < plan->microbatch_count; m++) {
            bool same = mhp_plan_owner(plan, s, m) == low && mhp_plan_owner(plan, s + 1, m) == high;

            low = mhp_plan_owner(plan, s, m);
            high = mhp_plan_owner(plan, s + 1, m);
            if (same || low == high) {
                continue;
            }
            MHP_RETURN_IF_ERROR(check_channel(v, s, low, high, true));
            if (!plan->forward_only) {
                MHP_RETURN_IF_ERROR(check_channel(v, s + 1, high, low, false));
            }
        }
    }
    return MHP_OK;
}

/* Whether the execution is past something that rank `rank` does at `position`. */
static bool passed(const validation *v, int rank, int position)
{
    return position >= 0 && v->cursor[rank] > (size_t)position;
}

/* A send is over when its receive is posted and it was begun. */
static bool arrived(const validation *v, int source, int target, int m, bool forward)
{
    return passed(v, mhp_plan_owner(v->plan, source, m), at(v, forward ? MHP_DO_SEND_F : MHP_DO_SEND_B, source, m)) &&
           passed(v, mhp_plan_owner(v->plan, target, m), at(v, forward ? MHP_DO_RECV_F : MHP_DO_RECV_B, target, m));
}

/* The slot that the output goes to must have been sent before. */
static bool output_is_free(const validation *v, int s, int m, bool forward)
{
    int target = forward ? s + 1 : s - 1;
    int rank = mhp_plan_owner(v->plan, s, m);
    mhp_slot_class class_ = forward ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT;
    const mhp_stage_slots *slots = v->plan->lowered ? mhp_plan_stage_slots(v->plan, rank, s) : NULL;
    mhp_event_kind kind = forward ? MHP_DO_FORWARD : MHP_DO_INPUT_GRADIENT;

    if (!slots || slots->slot[class_][m] < 0) {
        return true;
    }
    for (int other = 0; other < v->plan->microbatch_count; other++) {
        if (slots->slot[class_][other] == slots->slot[class_][m] && at(v, kind, s, other) < at(v, kind, s, m) &&
            !arrived(v, s, target, other, forward)) {
            return false;
        }
    }
    return true;
}

/* Whether stage `s` may run its forward or input gradient of micro-batch `m`: its input is there and its output has a place. */
static bool can_do(const validation *v, int s, int m, bool forward)
{
    int source = forward ? s - 1 : s + 1;

    if (!output_is_free(v, s, m, forward)) {
        return false;
    }
    if (source < 0 || source >= v->plan->stage_count) {
        return true;
    }
    if (v->messages && mhp_crosses(v->plan, s, source, m)) {
        return arrived(v, source, s, m, forward);
    }
    return passed(v, mhp_plan_owner(v->plan, source, m), at(v, forward ? MHP_DO_FORWARD : MHP_DO_INPUT_GRADIENT, source, m));
}

/* Inside a pair the backward half may not depend on the forward half, nor the other way round: both need what came before. */
static bool can_run(const validation *v, const mhp_action *action)
{
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return can_do(v, action->stage, action->microbatch, true);
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_INPUT_GRADIENT:
        return can_do(v, action->stage, action->microbatch, false);
    case MHP_ACTION_OVERLAP_F_B:
        return can_do(v, action->stage, action->microbatch, true) &&
               can_do(v, action->backward_stage, action->backward_microbatch, false);
    default:
        return true;
    }
}

static mhp_status check_end(const validation *v)
{
    for (int r = 0; r < v->plan->rank_count; r++) {
        const mhp_action_list *list = &v->plan->ranks[r].actions;

        if (v->cursor[r] < list->count) {
            const mhp_action *action = &list->items[v->cursor[r]];
            bool forward = action->kind == MHP_ACTION_FORWARD ||
                           (action->kind == MHP_ACTION_OVERLAP_F_B && !can_do(v, action->stage, action->microbatch, true));
            int s = forward || action->kind != MHP_ACTION_OVERLAP_F_B ? action->stage : action->backward_stage;

            return mhp_plan_error(v->plan, r, v->cursor[r], "can never run: it waits for stage %d, which waits for it (deadlock)",
                                  forward ? s - 1 : s + 1);
        }
    }
    return MHP_OK;
}

static mhp_status execute(validation *v)
{
    bool progress = true;

    MHP_RETURN_IF_ERROR(mhp_calloc(&v->cursor, (size_t)v->plan->rank_count, sizeof *v->cursor));
    while (progress) {
        progress = false;
        for (int r = 0; r < v->plan->rank_count; r++) {
            const mhp_action_list *list = &v->plan->ranks[r].actions;

            while (v->cursor[r] < list->count && can_run(v, &list->items[v->cursor[r]])) {
                v->cursor[r]++;
                progress = true;
            }
        }
    }
    return check_end(v);
}

typedef struct slot_use {
    int begin, end;
} slot_use;

/* Where a class's slot is taken and given back, in places of the rank's list. */
static slot_use use_of(const validation *v, mhp_slot_class class_, int s, int m)
{
    const mhp_plan *plan = v->plan;
    int f = at(v, MHP_DO_FORWARD, s, m);
    int i = plan->forward_only ? f : at(v, MHP_DO_INPUT_GRADIENT, s, m);
    int w = plan->forward_only ? f : at(v, MHP_DO_WEIGHT_GRADIENT, s, m);

    switch (class_) {
    case MHP_SLOT_INPUT:
        return (slot_use){mhp_crosses(plan, s, s - 1, m) ? at(v, MHP_DO_RECV_F, s, m) : at(v, MHP_DO_FORWARD, s - 1, m), i};
    case MHP_SLOT_GRADIENT_INPUT:
        return (slot_use){mhp_crosses(plan, s, s + 1, m) ? at(v, MHP_DO_RECV_B, s, m) : at(v, MHP_DO_INPUT_GRADIENT, s + 1, m), i};
    case MHP_SLOT_ACTIVATION:
        return (slot_use){f, i};
    case MHP_SLOT_PRODUCT_INPUT:
        return (slot_use){f, w};
    default:
        return (slot_use){i, w};
    }
}

static mhp_status check_slot_pair(const validation *v, const mhp_stage_slots *slots, int rank, mhp_slot_class class_, int a, int b)
{
    slot_use first = use_of(v, class_, slots->stage, a);
    slot_use second = use_of(v, class_, slots->stage, b);

    if (first.begin <= second.end && second.begin <= first.end) {
        return mhp_plan_error(v->plan, rank, (size_t)second.begin, "slot %d of class %d is still used by micro-batch %d of stage %d",
                              slots->slot[class_][b], (int)class_, a, slots->stage);
    }
    return MHP_OK;
}

static mhp_status check_slot(const validation *v, const mhp_stage_slots *slots, int rank, mhp_slot_class class_, int m)
{
    int slot = slots->slot[class_][m];
    bool sends = class_ == MHP_SLOT_OUTPUT || class_ == MHP_SLOT_GRADIENT_OUTPUT;

    if (slot < 0) {
        return MHP_OK;
    }
    if (slot >= slots->count[class_]) {
        return mhp_plan_error(v->plan, rank, 0, "slot %d of class %d of stage %d: expected less than %d", slot, (int)class_, slots->stage,
                              slots->count[class_]);
    }
    for (int other = m + 1; !sends && other < v->plan->microbatch_count; other++) {
        if (slots->slot[class_][other] == slot) {
            MHP_RETURN_IF_ERROR(check_slot_pair(v, slots, rank, class_, m, other));
        }
    }
    return MHP_OK;
}

static mhp_status check_slots(const validation *v)
{
    for (int r = 0; v->plan->lowered && r < v->plan->rank_count; r++) {
        for (int i = 0; i < v->plan->ranks[r].stage_count; i++) {
            for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
                for (int m = 0; m < v->plan->microbatch_count; m++) {
                    MHP_RETURN_IF_ERROR(check_slot(v, &v->plan->ranks[r].stages[i], r, (mhp_slot_class)c, m));
                }
            }
        }
    }
    return MHP_OK;
}

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

/* The stage whose weight gradient the action adds to, or -1. */
static int weight_gradient_stage(const mhp_action *action)
{
    switch (action->kind) {
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_WEIGHT_GRADIENT:
        return action->stage;
    case MHP_ACTION_OVERLAP_F_B:
        return action->backward_stage;
    default:
        return -1;
    }
}

/* On one rank; `reduced` and `last` [stage] lend their room: places of REDUCE_GRAD and of the last weight gradient, from 1. */
static mhp_status check_reductions_of(const validation *v, int rank, size_t *reduced, size_t *last)
{
    const mhp_action_list *list = &v->plan->ranks[rank].actions;

    memset(reduced, 0, (size_t)v->plan->stage_count * sizeof *reduced);
    memset(last, 0, (size_t)v->plan->stage_count * sizeof *last);
    for (size_t i = 0; i < list->count; i++) {
        int stage = weight_gradient_stage(&list->items[i]);

        if (stage >= 0 && reduced[stage] > 0) {
            return mhp_plan_error(v->plan, rank, i, "adds to gradients that were reduced at position %zu: expected it before",
                                  reduced[stage] - 1);
        }
        if (stage >= 0) {
            last[stage] = i + 1;
        }
        if (list->items[i].kind == MHP_ACTION_REDUCE_GRAD) {
            if (reduced[list->items[i].stage] > 0) {
                return mhp_plan_error(v->plan, rank, i, "done already at position %zu: expected once", reduced[list->items[i].stage] - 1);
            }
            reduced[list->items[i].stage] = i + 1;
        }
    }
    for (int s = 0; s < v->plan->stage_count; s++) {
        if (last[s] > 0 && reduced[s] == 0) {
            return mhp_plan_error(v->plan, rank, last[s] - 1, "the last weight gradient of stage %d: expected REDUCE_GRAD behind it", s);
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

static bool any_message(const validation *v)
{
    size_t cells = (size_t)v->plan->stage_count * (size_t)v->plan->microbatch_count;

    for (int k = MHP_DO_SEND_F; k <= MHP_DO_RECV_B; k++) {
        for (size_t i = 0; i < cells; i++) {
            if (v->index.position[k][i] >= 0) {
                return true;
            }
        }
    }
    return false;
}

mhp_status mhp_plan_validate(const mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    validation v = {.plan = plan};

    MHP_TRY(out, mhp_plan_index_create(plan, &v.index));
    v.messages = plan->lowered || any_message(&v);
    MHP_TRY(out, check_cells(&v));
    if (v.messages) {
        MHP_TRY(out, check_channels(&v));
    }
    MHP_TRY(out, check_reductions(&v));
    MHP_TRY(out, check_slots(&v));
    MHP_TRY(out, execute(&v));
out:
    mhp_plan_index_destroy(&v.index);
    mhp_free(v.cursor);
    return status;
}
