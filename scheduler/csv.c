#include "scheduler/csv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { CELL_BYTES_MAX = 96 };

/* What a row's cells become before the plan's size is known. */
typedef struct csv_rows {
    mhp_action_list *items;
    int count, capacity;
    int stage_max, microbatch_max;
} csv_rows;

static mhp_status append_row(csv_rows *rows)
{
    if (rows->count == MHP_RANKS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "more than %d rows", MHP_RANKS_MAX);
    }
    if (rows->count == rows->capacity) {
        rows->capacity = rows->capacity ? 2 * rows->capacity : 16;
        MHP_RETURN_IF_ERROR(mhp_realloc(&rows->items, (size_t)rows->capacity, sizeof *rows->items));
    }
    memset(&rows->items[rows->count++], 0, sizeof *rows->items);
    return MHP_OK;
}

static void widen(csv_rows *rows, int stage, int microbatch)
{
    rows->stage_max = stage > rows->stage_max ? stage : rows->stage_max;
    rows->microbatch_max = microbatch > rows->microbatch_max ? microbatch : rows->microbatch_max;
}

static mhp_status append_cell(csv_rows *rows, const char *cell, size_t length)
{
    mhp_action_list *row = &rows->items[rows->count - 1];
    char text[CELL_BYTES_MAX];
    mhp_action action;

    while (length > 0 && (*cell == ' ' || *cell == '"')) {
        cell++;
        length--;
    }
    while (length > 0 && (cell[length - 1] == ' ' || cell[length - 1] == '\r' || cell[length - 1] == '"')) {
        length--;
    }
    if (length == 0) {
        return MHP_OK;
    }
    if (length >= sizeof text || memchr(cell, '\0', length)) {
        return mhp_error_set(MHP_ERR_FORMAT, "a cell of %zu bytes: expected an action such as 3F0", length);
    }
    memcpy(text, cell, length);
    text[length] = '\0';
    MHP_RETURN_IF_ERROR(mhp_action_parse(text, &action));
    widen(rows, action.stage, action.microbatch);
    widen(rows, action.backward_stage, action.backward_microbatch);
    if (row->count == row->capacity) {
        row->capacity = row->capacity ? 2 * row->capacity : 64;
        MHP_RETURN_IF_ERROR(mhp_realloc(&row->items, row->capacity, sizeof *row->items));
    }
    row->items[row->count++] = action;
    return MHP_OK;
}

static mhp_status parse_row(csv_rows *rows, const char *name, const char *line, size_t length)
{
    size_t first = 0;
    int cell = 1;

    MHP_RETURN_IF_ERROR(mhp_error_prefix(append_row(rows), "%s:%d: ", name, rows->count + 1));
    for (size_t i = 0; i <= length; i++) {
        if (i == length || line[i] == ',') {
            MHP_RETURN_IF_ERROR(mhp_error_prefix(append_cell(rows, line + first, i - first), "%s:%d: cell %d: ", name, rows->count, cell));
            first = i + 1;
            cell++;
        }
    }
    return MHP_OK;
}

/* Whoever runs a stage's F of a micro-batch owns it. */
static void set_owner(mhp_plan *plan, int rank, const mhp_action *action)
{
    if (action->kind == MHP_ACTION_FORWARD || action->kind == MHP_ACTION_OVERLAP_F_B) {
        int *owner = &plan->owner[(size_t)action->stage * (size_t)plan->microbatch_count + (size_t)action->microbatch];

        *owner = *owner < 0 ? rank : *owner;            /* a second one is the validator's to refuse */
    }
}

static bool has_backward(const csv_rows *rows)
{
    for (int r = 0; r < rows->count; r++) {
        for (size_t i = 0; i < rows->items[r].count; i++) {
            mhp_action_kind kind = rows->items[r].items[i].kind;

            if (kind != MHP_ACTION_FORWARD && kind != MHP_ACTION_SEND_F && kind != MHP_ACTION_RECV_F) {
                return true;
            }
        }
    }
    return false;
}

static mhp_status plan_from_rows(const char *name, csv_rows *rows, mhp_plan **plan_out)
{
    const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;

    if (rows->stage_max < 0 || rows->microbatch_max < 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: no actions: expected one row a rank with cells such as 3F0", name);
    }
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

mhp_status mhp_plan_parse_csv(const char *name, const char *text, size_t length, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    csv_rows rows = {.stage_max = -1, .microbatch_max = -1};
    size_t first = 0;

    while (first < length) {
        const char *end = memchr(text + first, '\n', length - first);
        size_t line = end ? (size_t)(end - (text + first)) : length - first;

        MHP_TRY(out, parse_row(&rows, name, text + first, line));
        first += line + 1;
    }
    MHP_TRY(out, plan_from_rows(name, &rows, plan_out));
out:
    for (int r = 0; r < rows.count; r++) {
        mhp_free(rows.items[r].items);
    }
    mhp_free(rows.items);
    return status;
}

mhp_status mhp_plan_read_csv(const char *path, mhp_plan **plan_out)
{
    mhp_status status;
    char *text = NULL;
    size_t size = 0;

    MHP_RETURN_IF_ERROR(mhp_file_read_all(path, MHP_CSV_BYTES_MAX, &text, &size));
    status = mhp_plan_parse_csv(path, text, size, plan_out);
    mhp_free(text);
    return status;
}

mhp_status mhp_plan_write_csv(const mhp_plan *plan, FILE *stream)
{
    char text[CELL_BYTES_MAX];

    for (int r = 0; r < plan->rank_count; r++) {
        const mhp_action_list *list = &plan->ranks[r].actions;

        for (size_t i = 0; i < list->count; i++) {
            mhp_action_format(&list->items[i], text, sizeof text);
            fprintf(stream, "%s%s", i ? "," : "", text);
        }
        fputc('\n', stream);
    }
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the plan: %s", strerror(errno)) : MHP_OK;
}
