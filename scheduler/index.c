#include "scheduler/index.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"

enum { NEIGHBOURS = 3, CELL_BYTES_MAX = 96, ROW_BYTES_MAX = (2 * NEIGHBOURS + 1) * CELL_BYTES_MAX };

const mhp_message_kind mhp_message_kinds[MHP_MESSAGE_KINDS] = {
    {MHP_DO_FORWARD, MHP_DO_SEND_F, MHP_DO_RECV_F, MHP_ACTION_SEND_F, MHP_ACTION_RECV_F, MHP_SLOT_OUTPUT, MHP_SLOT_INPUT, 1},
    {MHP_DO_INPUT_GRADIENT, MHP_DO_SEND_B, MHP_DO_RECV_B, MHP_ACTION_SEND_B, MHP_ACTION_RECV_B, MHP_SLOT_GRADIENT_OUTPUT,
     MHP_SLOT_GRADIENT_INPUT, -1},
};

static size_t cell_of(const mhp_plan *plan, int stage, int microbatch)
{
    return (size_t)stage * (size_t)plan->microbatch_count + (size_t)microbatch;
}

int mhp_index_at(const mhp_plan *plan, const mhp_plan_index *index, mhp_event_kind kind, int stage, int microbatch)
{
    return index->position[kind] ? index->position[kind][cell_of(plan, stage, microbatch)] : -1;
}

bool mhp_crosses(const mhp_plan *plan, int stage, int neighbour, int microbatch)
{
    return neighbour >= 0 && neighbour < plan->stage_count &&
           mhp_plan_owner(plan, stage, microbatch) != mhp_plan_owner(plan, neighbour, microbatch);
}

bool mhp_action_computes(const mhp_action *action)
{
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_INPUT_GRADIENT:
    case MHP_ACTION_WEIGHT_GRADIENT:
    case MHP_ACTION_OVERLAP_F_B:
        return true;
    default:
        return false;
    }
}

bool mhp_action_does(const mhp_action *action, mhp_event_kind pass, int *stage_out, int *microbatch_out)
{
    bool pair = action->kind == MHP_ACTION_OVERLAP_F_B;

    *stage_out = pair && pass != MHP_DO_FORWARD ? action->backward_stage : action->stage;
    *microbatch_out = pair && pass != MHP_DO_FORWARD ? action->backward_microbatch : action->microbatch;
    switch (pass) {
    case MHP_DO_FORWARD:
        return pair || action->kind == MHP_ACTION_FORWARD;
    case MHP_DO_INPUT_GRADIENT:
        return pair || action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_INPUT_GRADIENT;
    case MHP_DO_WEIGHT_GRADIENT:
        return pair || action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_WEIGHT_GRADIENT;
    default:
        return false;
    }
}

/* ---- errors ---- */

/* "rank 1: .. 1F0 1B0 >>1B1<< 1F1 ..": the cell at `position` and its neighbours. */
static void format_neighbourhood(const mhp_plan *plan, int rank, size_t position, char row[ROW_BYTES_MAX])
{
    const mhp_action_list *list = &plan->ranks[rank].actions;
    size_t first = position > NEIGHBOURS ? position - NEIGHBOURS : 0;
    size_t end = position + NEIGHBOURS + 1 < list->count ? position + NEIGHBOURS + 1 : list->count;
    size_t length = (size_t)snprintf(row, ROW_BYTES_MAX, "rank %d:%s", rank, first > 0 ? " .." : "");
    char cell[CELL_BYTES_MAX];

    for (size_t i = first; i < end && length < ROW_BYTES_MAX; i++) {
        mhp_action_format(&list->items[i], cell, sizeof cell);
        length += (size_t)snprintf(row + length, ROW_BYTES_MAX - length, i == position ? " >>%s<<" : " %s", cell);
    }
    if (end < list->count && length < ROW_BYTES_MAX) {
        snprintf(row + length, ROW_BYTES_MAX - length, " ..");
    }
}

mhp_status mhp_plan_error(const mhp_plan *plan, int rank, size_t position, const char *format, ...)
{
    const mhp_action_list *list = &plan->ranks[rank].actions;
    char reason[768];
    char row[ROW_BYTES_MAX];
    char cell[CELL_BYTES_MAX] = "end";
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    if (position < list->count) {
        mhp_action_format(&list->items[position], cell, sizeof cell);
    }
    format_neighbourhood(plan, rank, position, row);
    return mhp_error_set(MHP_ERR_PLAN, "plan %s: rank %d, position %zu, %s: %s\n    %s", plan->name, rank, position, cell, reason,
                         row);
}

mhp_status mhp_plan_error_also(const mhp_plan *plan, int rank, size_t position)
{
    char before[MHP_ERROR_TEXT_MAX];
    char row[ROW_BYTES_MAX];

    snprintf(before, sizeof before, "%s", mhp_error_text());
    format_neighbourhood(plan, rank, position, row);
    return mhp_error_set(MHP_ERR_PLAN, "%s\n    %s", before, row);
}

/* ---- places ---- */

typedef struct placing {
    const mhp_plan *plan;
    mhp_plan_index *index;
    int rank;
    size_t position;
} placing;

static mhp_status create_positions(const mhp_plan *plan, mhp_plan_index *index, mhp_event_kind kind)
{
    size_t cells = (size_t)plan->stage_count * (size_t)plan->microbatch_count;

    if (index->position[kind]) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&index->position[kind], cells, sizeof(int)));
    memset(index->position[kind], 0xff, cells * sizeof(int));
    return MHP_OK;
}

static mhp_status place(const placing *at, mhp_event_kind kind, int stage, int microbatch)
{
    const mhp_plan *plan = at->plan;
    int *cell;
    int owner;

    if (stage < 0 || stage >= plan->stage_count || microbatch < 0 || microbatch >= plan->microbatch_count) {
        return mhp_plan_error(plan, at->rank, at->position,
                              "stage or micro-batch out of range: expected stages 0 to %d, micro-batches 0 to %d",
                              plan->stage_count - 1, plan->microbatch_count - 1);
    }
    owner = mhp_plan_owner(plan, stage, microbatch);
    if (owner < 0) {
        return mhp_plan_error(plan, at->rank, at->position,
                              "micro-batch %d of stage %d belongs to nobody: expected its F on this rank", microbatch, stage);
    }
    if (owner != at->rank && kind == MHP_DO_FORWARD) {
        return mhp_plan_error(
            plan, at->rank, at->position,
            "micro-batch %d of stage %d belongs to rank %d: expected a stage of two ranks to run other micro-batches on "
            "each, as those of the reverse direction",
            microbatch, stage, owner);
    }
    if (owner != at->rank) {
        return mhp_plan_error(plan, at->rank, at->position,
                              "micro-batch %d of stage %d belongs to rank %d, which runs its F: expected it there", microbatch,
                              stage, owner);
    }
    MHP_RETURN_IF_ERROR(create_positions(plan, at->index, kind));
    cell = &at->index->position[kind][cell_of(plan, stage, microbatch)];
    if (*cell >= 0) {
        return mhp_plan_error(plan, at->rank, at->position, "done already at position %d: expected once", *cell);
    }
    *cell = (int)at->position;
    return MHP_OK;
}

/* A message goes to a stage that is there, or comes from one. */
static mhp_status place_message(const placing *at, mhp_event_kind kind, const mhp_action *action, int neighbour)
{
    if (neighbour < 0 || neighbour >= at->plan->stage_count) {
        return mhp_plan_error(at->plan, at->rank, at->position, "there is no stage %d: expected no message", neighbour);
    }
    return place(at, kind, action->stage, action->microbatch);
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
    if (mhp_placement_find(&at->index->placement, at->rank, stage) >= 0) {
        return MHP_OK;
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
        return place_message(at, MHP_DO_SEND_F, action, action->stage + 1);
    case MHP_ACTION_RECV_F:
        return place_message(at, MHP_DO_RECV_F, action, action->stage - 1);
    case MHP_ACTION_SEND_B:
        return place_message(at, MHP_DO_SEND_B, action, action->stage - 1);
    case MHP_ACTION_RECV_B:
        return place_message(at, MHP_DO_RECV_B, action, action->stage + 1);
    case MHP_ACTION_REBUILD:
        return place(at, MHP_DO_REBUILD, action->stage, action->microbatch);
    default:
        return check_holder(at, action->stage);
    }
}

mhp_status mhp_plan_index_create(const mhp_plan *plan, mhp_plan_index *index_out)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {.placement = {NULL, NULL}};

    MHP_TRY(out, mhp_placement_create(plan, &index.placement));
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
    mhp_placement_destroy(&index->placement);
}
