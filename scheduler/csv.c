#include "scheduler/csv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "scheduler/placement.h"
#include "scheduler/rows.h"

enum { CELL_BYTES_MAX = 96 };
static const mhp_action_kind old_full_backward = MHP_ACTION_KIND_COUNT;

typedef struct csv_reader {
    const char *name;
    mhp_rows rows;              /* a BW stands there as old_full_backward until the whole file is known */
} csv_reader;

/* ---- cells ---- */

/* "3BW0", which only older files have; false if it is none. */
static bool parse_old_full_backward(const char *text, mhp_action *action_out)
{
    const char *word = strstr(text, "BW");
    char plain[CELL_BYTES_MAX];

    if (!word) {
        return false;
    }
    snprintf(plain, sizeof plain, "%.*sB%s", (int)(word - text), text, word + 2);
    if (mhp_action_parse(plain, action_out) < 0 || action_out->kind != MHP_ACTION_BACKWARD) {
        return false;
    }
    action_out->kind = old_full_backward;
    return true;
}

static mhp_status add_cell(csv_reader *reader, const char *cell, size_t length)
{
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
    if (!parse_old_full_backward(text, &action)) {
        MHP_RETURN_IF_ERROR(mhp_action_parse(text, &action));
    }
    return mhp_rows_add(&reader->rows, &action);
}

static mhp_status parse_row(csv_reader *reader, const char *line, size_t length)
{
    int row = reader->rows.count + 1;
    int cell = 1;
    size_t first = 0;

    MHP_RETURN_IF_ERROR(mhp_error_prefix(mhp_rows_add_rank(&reader->rows), "%s:%d: ", reader->name, row));
    for (size_t i = 0; i <= length; i++) {
        if (i == length || line[i] == ',') {
            MHP_RETURN_IF_ERROR(
                mhp_error_prefix(add_cell(reader, line + first, i - first), "%s:%d: cell %d: ", reader->name, row, cell));
            first = i + 1;
            cell++;
        }
    }
    return MHP_OK;
}

/* ---- older files ---- */

static mhp_action *find_kind(const mhp_rows *rows, mhp_action_kind kind, int *row_out)
{
    for (int r = 0; r < rows->count; r++) {
        for (size_t i = 0; i < rows->items[r].count; i++) {
            if (rows->items[r].items[i].kind == kind) {
                *row_out = r + 1;
                return &rows->items[r].items[i];
            }
        }
    }
    return NULL;
}

/* B meant the input gradient. */
static void translate_old(mhp_rows *rows)
{
    for (int r = 0; r < rows->count; r++) {
        for (size_t i = 0; i < rows->items[r].count; i++) {
            mhp_action *action = &rows->items[r].items[i];

            if (action->kind == MHP_ACTION_BACKWARD) {
                action->kind = MHP_ACTION_INPUT_GRADIENT;
            } else if (action->kind == old_full_backward) {
                action->kind = MHP_ACTION_BACKWARD;
            }
        }
    }
}

static mhp_status raise_mixed(const csv_reader *reader, int row, const mhp_action *action, int old_row)
{
    char text[CELL_BYTES_MAX];

    mhp_action_format(action, text, sizeof text);
    return mhp_error_set(
        MHP_ERR_FORMAT,
        "%s:%d: %s beside a BW in line %d: BW is the full backward of older files, whose B is the input gradient, and no "
        "older file has this action: expected B and I in place of BW and B",
        reader->name, row, text, old_row);
}

/* Which B and W there are of every (stage, micro-batch). */
typedef struct backward_counts {
    unsigned char *has;         /* [stage][microbatch]: HAS_B, HAS_W */
    size_t full, both;          /* B; B that have a W */
} backward_counts;

enum { HAS_B = 1, HAS_W = 2 };

static mhp_status count_backwards(const mhp_rows *rows, backward_counts *counts)
{
    size_t columns = (size_t)rows->microbatch_max + 1;
    size_t cells = ((size_t)rows->stage_max + 1) * columns;

    MHP_RETURN_IF_ERROR(mhp_calloc(&counts->has, cells, 1));
    for (int r = 0; r < rows->count; r++) {
        for (size_t i = 0; i < rows->items[r].count; i++) {
            const mhp_action *action = &rows->items[r].items[i];
            size_t cell = (size_t)action->stage * columns + (size_t)action->microbatch;

            if (action->kind == MHP_ACTION_BACKWARD) {
                counts->has[cell] |= HAS_B;
            } else if (action->kind == MHP_ACTION_WEIGHT_GRADIENT) {
                counts->has[cell] |= HAS_W;
            }
        }
    }
    for (size_t i = 0; i < cells; i++) {
        counts->full += (counts->has[i] & HAS_B) != 0;
        counts->both += counts->has[i] == (HAS_B | HAS_W);
    }
    return MHP_OK;
}

static mhp_status raise_ambiguous(const csv_reader *reader, const backward_counts *counts)
{
    size_t columns = (size_t)reader->rows.microbatch_max + 1;
    size_t alone = 0, both = 0;

    while (counts->has[alone] != HAS_B) {
        alone++;
    }
    while (counts->has[both] != (HAS_B | HAS_W)) {
        both++;
    }
    return mhp_error_set(
        MHP_ERR_FORMAT,
        "%s: %zuB%zu has a W and %zuB%zu has none: B is a full backward, or in older files the input gradient: expected I "
        "for input gradients",
        reader->name, both / columns, both % columns, alone / columns, alone % columns);
}

/* Files with W but neither I nor BW: if every B has a W, B is the input gradient. */
static mhp_status translate_unmarked(csv_reader *reader)
{
    mhp_status status = MHP_OK;
    backward_counts counts = {NULL, 0, 0};

    MHP_TRY(out, count_backwards(&reader->rows, &counts));
    if (counts.both > 0 && counts.both < counts.full) {
        status = raise_ambiguous(reader, &counts);
    } else if (counts.both > 0) {
        translate_old(&reader->rows);
    }
out:
    mhp_free(counts.has);
    return status;
}

static mhp_status translate(csv_reader *reader)
{
    static const mhp_action_kind newer[] = {MHP_ACTION_INPUT_GRADIENT, MHP_ACTION_OVERLAP_F_B, MHP_ACTION_REBUILD};
    int row, old_row = 0;
    bool old = find_kind(&reader->rows, old_full_backward, &old_row) != NULL;

    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++) {
        const mhp_action *action = find_kind(&reader->rows, newer[i], &row);

        if (action) {
            return old ? raise_mixed(reader, row, action, old_row) : MHP_OK;
        }
    }
    if (old) {
        translate_old(&reader->rows);
        return MHP_OK;
    }
    return find_kind(&reader->rows, MHP_ACTION_WEIGHT_GRADIENT, &row) ? translate_unmarked(reader) : MHP_OK;
}

/* ---- files ---- */

static bool is_blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
            return false;
        }
    }
    return true;
}

mhp_status mhp_plan_parse_csv(const char *name, const char *text, size_t length, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    csv_reader reader = {.name = name};
    size_t first = 0;
    bool has_blank = false;

    mhp_rows_init(&reader.rows);
    while (first < length) {
        const char *end = memchr(text + first, '\n', length - first);
        size_t line = end ? (size_t)(end - (text + first)) : length - first;

        if (is_blank(text + first, line)) {
            has_blank = true;       /* allowed at the end */
        } else if (has_blank) {
            MHP_RAISE(out, MHP_ERR_FORMAT, "%s:%d: an empty line: expected a rank's actions, or \",\" for a rank without any", name,
                      reader.rows.count + 1);
        } else {
            MHP_TRY(out, parse_row(&reader, text + first, line));
        }
        first += line + 1;
    }
    MHP_TRY(out, mhp_rows_check(&reader.rows, name));
    MHP_TRY(out, translate(&reader));
    MHP_TRY(out, mhp_rows_make_plan(&reader.rows, name, plan_out));
out:
    mhp_rows_release(&reader.rows);
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

/* A stage has one rank there, and without a backward no file loads. */
static mhp_status check_torch(const mhp_plan *plan)
{
    if (plan->forward_only) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "plan %s has no backward: expected one, as torch loads no other", plan->name);
    }
    for (int s = 0; s < plan->stage_count; s++) {
        for (int m = 1; m < plan->microbatch_count; m++) {
            int first = mhp_plan_owner(plan, s, 0), owner = mhp_plan_owner(plan, s, m);

            if (owner != first) {
                return mhp_error_set(
                    MHP_ERR_UNSUPPORTED,
                    "plan %s: stage %d is on rank %d and on rank %d: expected every stage on one rank, as torch knows no other",
                    plan->name, s, first, owner);
            }
        }
    }
    return MHP_OK;
}

mhp_status mhp_plan_write_csv_as(const mhp_plan *plan, mhp_csv_dialect dialect, FILE *stream)
{
    char text[CELL_BYTES_MAX];

    if (dialect == MHP_CSV_TORCH) {
        MHP_RETURN_IF_ERROR(check_torch(plan));
    }
    for (int r = 0; r < plan->rank_count; r++) {
        const mhp_action_list *list = &plan->ranks[r].actions;
        bool first = true;

        for (size_t i = 0; i < list->count; i++) {
            if (dialect == MHP_CSV_TORCH && list->items[i].kind == MHP_ACTION_REBUILD) {
                continue;
            }
            mhp_action_format(&list->items[i], text, sizeof text);
            fprintf(stream, "%s%s", first ? "" : ",", text);
            first = false;
        }
        fputs(first && dialect == MHP_CSV_MHCPIPE ? ",\n" : "\n", stream);     /* an empty line is no row there */
    }
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the plan: %s", strerror(errno)) : MHP_OK;
}

mhp_status mhp_plan_write_csv(const mhp_plan *plan, FILE *stream)
{
    return mhp_plan_write_csv_as(plan, MHP_CSV_MHCPIPE, stream);
}
