#include "scheduler/rows.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"

enum { CELLS_ALWAYS_ALLOWED = 1 << 20 };

void mhp_rows_init(mhp_rows *rows)
{
    *rows = (mhp_rows){.stage_max = -1, .microbatch_max = -1};
}

void mhp_rows_release(mhp_rows *rows)
{
    for (int r = 0; r < rows->count; r++) {
        mhp_free(rows->items[r].items);
    }
    mhp_free(rows->items);
    mhp_rows_init(rows);
}

mhp_status mhp_rows_add_rank(mhp_rows *rows)
{
    if (rows->count == MHP_RANKS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "more than %d ranks", MHP_RANKS_MAX);
    }
    if (rows->count == rows->capacity) {
        int capacity = rows->capacity ? 2 * rows->capacity : 16;

        MHP_RETURN_IF_ERROR(mhp_realloc(&rows->items, (size_t)capacity, sizeof *rows->items));
        rows->capacity = capacity;
    }
    memset(&rows->items[rows->count++], 0, sizeof *rows->items);
    return MHP_OK;
}

static void widen(mhp_rows *rows, int stage, int microbatch)
{
    rows->stage_max = stage > rows->stage_max ? stage : rows->stage_max;
    rows->microbatch_max = microbatch > rows->microbatch_max ? microbatch : rows->microbatch_max;
}

static bool runs_forward(const mhp_action *action)
{
    return action->kind == MHP_ACTION_FORWARD || action->kind == MHP_ACTION_OVERLAP_F_B;
}

mhp_status mhp_rows_add(mhp_rows *rows, const mhp_action *action)
{
    MHP_RETURN_IF_ERROR(mhp_action_list_append(&rows->items[rows->count - 1], action));
    widen(rows, action->stage, action->microbatch);
    widen(rows, action->backward_stage, action->backward_microbatch);
    rows->forward_count += runs_forward(action);
    return MHP_OK;
}

mhp_status mhp_rows_check(const mhp_rows *rows, const char *name)
{
    size_t cells = (size_t)(rows->stage_max + 1) * (size_t)(rows->microbatch_max + 1);

    if (rows->stage_max < 0 || rows->microbatch_max < 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: no actions: expected a row for each rank, with actions such as 3F0", name);
    }
    if (cells > CELLS_ALWAYS_ALLOWED && cells > rows->forward_count) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s: %zu forwards of stages up to %d and micro-batches up to %d: expected %zu, one of each", name,
                             rows->forward_count, rows->stage_max, rows->microbatch_max, cells);
    }
    return MHP_OK;
}

static void set_owner(mhp_plan *plan, int rank, const mhp_action *action)
{
    if (runs_forward(action)) {
        int *owner = &plan->owner[(size_t)action->stage * (size_t)plan->microbatch_count + (size_t)action->microbatch];

        *owner = *owner < 0 ? rank : *owner;            /* a second one is the validator's to refuse */
    }
}

static bool has_backward(const mhp_rows *rows)
{
    for (int r = 0; r < rows->count; r++) {
        for (size_t i = 0; i < rows->items[r].count; i++) {
            mhp_action_kind kind = rows->items[r].items[i].kind;

            if (kind != MHP_ACTION_FORWARD && kind != MHP_ACTION_SEND_F && kind != MHP_ACTION_RECV_F &&
                kind != MHP_ACTION_UNSHARD && kind != MHP_ACTION_RESHARD) {
                return true;
            }
        }
    }
    return false;
}

mhp_status mhp_rows_make_plan(mhp_rows *rows, const char *name, mhp_plan **plan_out)
{
    const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;

    MHP_RETURN_IF_ERROR(mhp_plan_create(rows->count, rows->stage_max + 1, rows->microbatch_max + 1, plan_out));
    snprintf((*plan_out)->name, sizeof(*plan_out)->name, "%s", base);
    (*plan_out)->forward_only = !has_backward(rows);
    for (int r = 0; r < rows->count; r++) {
        for (size_t i = 0; i < rows->items[r].count; i++) {
            set_owner(*plan_out, r, &rows->items[r].items[i]);
        }
        (*plan_out)->ranks[r].actions = rows->items[r];
        memset(&rows->items[r], 0, sizeof rows->items[r]);
    }
    return MHP_OK;
}
