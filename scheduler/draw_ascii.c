/* Rows of text for a terminal. A column is as wide in time as the longest text needs. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "scheduler/draw.h"

enum { TEXT_MAX = 96 };

/* Reductions run beside compute and have no column of their own. */
static bool is_shown(const mhp_draw_box *box)
{
    return box->kind != MHP_BOX_REDUCE;
}

/* Whether the next box is the other half of a pair. */
static bool is_pair(const mhp_drawing *drawing, size_t i)
{
    const mhp_draw_box *box = &drawing->boxes[i];

    return i + 1 < drawing->box_count && box[1].rank == box->rank && box[1].position == box->position;
}

/* "0F3", and "3F0+0B4" for a pair. */
static void text_of(const mhp_drawing *drawing, size_t i, char text[TEXT_MAX])
{
    const mhp_draw_box *box = &drawing->boxes[i];

    if (box->kind == MHP_BOX_OPTIMIZER) {
        snprintf(text, TEXT_MAX, "opt");
    } else if (is_pair(drawing, i)) {
        snprintf(text, TEXT_MAX, "%dF%d+%dB%d", box->stage, box->microbatch, box[1].stage, box[1].microbatch);
    } else {
        snprintf(text, TEXT_MAX, "%d%s%d", box->stage, mhp_box_letter(box->kind), box->microbatch);
    }
}

/* So many columns a unit that every action of at least half a unit has room for its text and a space behind it. */
static double columns_a_unit(const mhp_drawing *drawing)
{
    double columns = 1;

    for (size_t i = 0; i < drawing->box_count; i += is_pair(drawing, i) ? 2 : 1) {
        double units =
            (drawing->boxes[i + (is_pair(drawing, i) ? 1 : 0)].end_us - drawing->boxes[i].start_us) / drawing->unit_us;
        char text[TEXT_MAX];

        text_of(drawing, i, text);
        if (is_shown(&drawing->boxes[i]) && units >= 0.5) {
            columns = fmax(columns, ceil(((double)strlen(text) + 1) / units - 1e-9));
        }
    }
    return columns;
}

static size_t column_of(const mhp_drawing *drawing, double columns, double time_us)
{
    return (size_t)llround(time_us / drawing->unit_us * columns);
}

/* Fills up to a column: a point for every unit in which the rank stands still. */
static size_t write_idle(size_t at, size_t end, size_t unit, FILE *stream)
{
    for (size_t first = at; at < end; at++) {
        fputc((at - first) % unit == 0 ? '.' : ' ', stream);
    }
    return at;
}

static size_t write_box(const mhp_drawing *drawing, size_t i, size_t at, size_t end, FILE *stream)
{
    char text[TEXT_MAX];

    text_of(drawing, i, text);
    if (end > at) {
        fprintf(stream, "%-*.*s", (int)(end - at), (int)(end - at), text);
    }
    return end > at ? end : at;
}

size_t mhp_draw_ascii_columns(const mhp_drawing *drawing)
{
    return 9 + column_of(drawing, columns_a_unit(drawing), drawing->end_us);
}

mhp_status mhp_draw_ascii(const mhp_drawing *drawing, FILE *stream)
{
    double columns = columns_a_unit(drawing);
    size_t i = 0;

    fprintf(stream, "%s\n%s\n\n", drawing->title, drawing->subtitle);
    for (int rank = 0; rank < drawing->rank_count; rank++) {
        size_t at = 0;

        fprintf(stream, "rank %-3d ", rank);
        for (; i < drawing->box_count && drawing->boxes[i].rank == rank; i++) {
            double start_us = drawing->boxes[i].start_us;
            size_t first = i;

            if (!is_shown(&drawing->boxes[i])) {
                continue;
            }
            i += is_pair(drawing, i) ? 1 : 0;
            at = write_idle(at, column_of(drawing, columns, start_us), (size_t)columns, stream);
            at = write_box(drawing, first, at, column_of(drawing, columns, drawing->boxes[i].end_us), stream);
        }
        fputc('\n', stream);
    }
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the picture: %s", strerror(errno)) : MHP_OK;
}
