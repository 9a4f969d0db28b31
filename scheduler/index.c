#include "scheduler/index.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"

enum { NEIGHBOURS = 3 };

static size_t cell_of(const mhp_plan *plan, int stage, int microbatch)
{
    return (size_t)stage * (size_t)plan->microbatch_count + (size_t)microbatch;
}

int mhp_index_at(const mhp_plan *plan, const mhp_plan_index *index, mhp_event_kind kind, int stage, int microbatch)
{
    return index->position[kind][cell_of(plan, stage, microbatch)];
}

bool mhp_crosses(const mhp_plan *plan, int stage, int neighbour, int microbatch)
{
    return neighbour >= 0 && neighbour < plan->stage_count &&
           mhp_plan_owner(plan, stage, microbatch) != mhp_plan_owner(plan, neighbour, microbatch);
}

mhp_status mhp_plan_error(const mhp_plan *plan, int rank, size_t position, const char *format, ...)
{
    const mhp_action_list *list = &plan->ranks[rank].actions;
    size_t first = position > NEIGHBOURS ? position - NEIGHBOURS : 0;
    size_t last = position + NEIGHBOURS < list->count ? position + NEIGHBOURS : list->count - 1;
    char reason[512];
    char cells[512] = "";
    char cell[96] = "";
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    for (size_t i = first; list->count > 0 && i <= last; i++) {
        size_t length = strlen(cells);

        mhp_action_format(&list->items[i], cell, sizeof cell);
        snprintf(cells + length, sizeof cells - length, i == position ? " >>%s<<" : " %s", cell);
    }
    if (position < list->count) {
        mhp_action_format(&list->items[position], cell, sizeof cell);
    } else {
        snprintf(cell, sizeof cell, "end");
    }
    return mhp_error_set(MHP_ERR_PLAN, "plan %s: rank %d, position %zu, %s: %s\n    rank %d:%s%s%s", plan->name, rank, position, cell,
                         reason, rank, first > 0 ? " .." : "", cells, last + 1 < list->count ? " .." : "");
}

typedef struct placing {
    const mhp_plan *plan;
    mhp_plan_index *index;
    int rank;
    size_t position;
} placing;

static mhp_status place(const placing *at, mhp_event_kind kind, int stage, int microbatch)
{
    const mhp_plan *plan = at->plan;
    int *cell;
    int owner;

    if (stage < 0 || stage >= plan->stage_count || microbatch < 0 || microbatch >= plan->microbatch_count) {
        return mhp_plan_error(plan, at->rank, at->position, "stage or micro-batch out of range: expected stages 0 to %d, micro-batches 0 to %d",
                              plan->stage_count - 1, plan->microbatch_count - 1);
    }
    owner = mhp_plan_owner(plan, stage, microbatch);
    if (owner != at->rank) {
        return mhp_plan_error(plan, at->rank, at->position, "stage %d of micro-batch %d belongs to %s %d: expected it there", stage,
                              microbatch, owner < 0 ? "nobody:" : "rank", owner);
    }
    cell = &at->index->position[kind][cell_of(plan, stage, microbatch)];
    if (*cell >= 0) {
        return mhp_plan_error(plan, at->rank, at->position, "done already at position %d: expected once", *cell);
    }
    *cell = (int)at->position;
    return MHP_OK;
}

static mhp_status place_backward(const placing *at, int stage, int microbatch)
{
    MHP_RETURN_IF_ERROR(place(at, MHP_DO_INPUT_GRADIENT, stage, microbatch));
    return place(at, MHP_DO_WEIGHT_GRADIENT, stage, microbatch);
}

/* Actions of a whole stage belong on a rank that runs some micro-batch of it. */
static mhp_status check_holder(const placing *at, int stage)
{
    const mhp_plan *plan = at->plan;

    if (stage < 0 || stage >= plan->stage_count) {
        return mhp_plan_error(plan, at->rank, at->position, "expected a stage from 0 to %d", plan->stage_count - 1);
    }
    for (int m = 0; m < plan->microbatch_count; m++) {
        if (mhp_plan_owner(plan, stage, m) == at->rank) {
            return MHP_OK;
        }
    }
    return mhp_plan_error(plan, at->rank, at->position, "stage %d is not on this rank", stage);
}

static mhp_status place_action(const placing *at, const mhp_action *action)
{
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return place(at, MHP_DO_FORWARD, action->stage, action->microbatch);
    case MHP_ACTION_BACKWARD:
        return place_backward(at, action->stage, action->microbatch);
    case MHP_ACTION_INPUT_GRADIENT:
        return place(at, MHP_DO_INPUT_GRADIENT, action->stage, action->microbatch);
    case MHP_ACTION_WEIGHT_GRADIENT:
        return place(at, MHP_DO_WEIGHT_GRADIENT, action->stage, action->microbatch);
    case MHP_ACTION_OVERLAP_F_B:
        MHP_RETURN_IF_ERROR(place(at, MHP_DO_FORWARD, action->stage, action->microbatch));
        return place_backward(at, action->backward_stage, action->backward_microbatch);
    case MHP_ACTION_SEND_F:
        return place(at, MHP_DO_SEND_F, action->stage, action->microbatch);
    case MHP_ACTION_RECV_F:
        return place(at, MHP_DO_RECV_F, action->stage, action->microbatch);
    case MHP_ACTION_SEND_B:
        return place(at, MHP_DO_SEND_B, action->stage, action->microbatch);
    case MHP_ACTION_RECV_B:
        return place(at, MHP_DO_RECV_B, action->stage, action->microbatch);
    default:
        return check_holder(at, action->stage);
    }
}

mhp_status mhp_plan_index_create(const mhp_plan *plan, mhp_plan_index *index_out)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {{NULL}};
    size_t cells = (size_t)plan->stage_count * (size_t)plan->microbatch_count;

    for (int k = 0; k < MHP_DO_COUNT; k++) {
        MHP_TRY(out, mhp_calloc(&index.position[k], cells, sizeof(int)));
        memset(index.position[k], 0xff, cells * sizeof(int));
    }
    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            placing at = {plan, &index, r, i};

            MHP_TRY(out, place_action(&at, &plan->ranks[r].actions.items[i]));
        }
    }
    *index_out = index;
    memset(&index, 0, sizeof index);
out:
    mhp_plan_index_destroy(&index);
    return status;
}

void mhp_plan_index_destroy(mhp_plan_index *index)
{
    for (int k = 0; k < MHP_DO_COUNT; k++) {
        mhp_free(index->position[k]);
        index->position[k] = NULL;
    }
}
