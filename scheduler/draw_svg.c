/* The coloured grid as SVG: a row a rank, a cell an action with its micro-batch, frames round pairs. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "scheduler/draw_internal.h"

enum {
    CELL_PIXELS = 22,         /* width of a unit */
    WIDTH_PIXELS_MAX = 24000, /* of the grid; cells become narrower */
    ROW_PIXELS = 26,
    GAP_PIXELS = 4,
    ARROW_GAP_PIXELS = 20, /* between rows that arrows join */
    LEFT_PIXELS = 70,
    RIGHT_PIXELS = 64,
    TOP_PIXELS = 64,
    AXIS_PIXELS = 30,
    LEGEND_PIXELS = 30,
    CURVE_PIXELS = 44,
    BASELINE_PIXELS = 4, /* from the middle of a text to its foot */
    DIGIT_PIXELS = 7,    /* width of a digit at the full size of 12 */
    TEXT_PIXELS_MIN = 7,
};

typedef struct colour {
    const char *fill, *text;
} colour;

/* [kind][shade]: a hue for each kind of work, dark and light for the two directions. */
static const colour colours[MHP_BOX_KIND_COUNT][2] = {
    [MHP_BOX_FORWARD] = {{"#2f6db3", "#fff"}, {"#a9cdf0", "#123"}},
    [MHP_BOX_BACKWARD] = {{"#2b7f4f", "#fff"}, {"#a8dbb8", "#123"}},
    [MHP_BOX_INPUT_GRADIENT] = {{"#c05a1c", "#fff"}, {"#f7bf94", "#321"}},
    [MHP_BOX_WEIGHT_GRADIENT] = {{"#8f7400", "#fff"}, {"#f0dc82", "#321"}},
    [MHP_BOX_REBUILD] = {{"#76489e", "#fff"}, {"#d3bdea", "#213"}},
    [MHP_BOX_REDUCE] = {{"#555", "#fff"}, {"#999", "#000"}},
    [MHP_BOX_OPTIMIZER] = {{"#333", "#fff"}, {"#333", "#fff"}},
};

const char *mhp_box_fill(mhp_box_kind kind, int shade)
{
    return colours[kind][shade].fill;
}

const char *mhp_box_text_fill(mhp_box_kind kind, int shade)
{
    return colours[kind][shade].text;
}

static const char *escape_of(char c)
{
    static const char characters[] = "&<>\"";
    static const char *const escapes[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
    const char *found = strchr(characters, c);

    return found ? escapes[found - characters] : NULL;
}

void mhp_svg_text(const char *text, FILE *stream)
{
    for (; *text; text++) {
        const char *escape = escape_of(*text);

        if (escape) {
            fputs(escape, stream);
        } else if ((unsigned char)*text >= 0x20) {
            fputc(*text, stream);
        }
    }
}

void mhp_svg_layout(const mhp_drawing *drawing, bool curves, mhp_svg_page *page_out)
{
    double units = drawing->end_us / drawing->unit_us;
    double cell = units * CELL_PIXELS > WIDTH_PIXELS_MAX ? WIDTH_PIXELS_MAX / units : CELL_PIXELS;
    double rows = drawing->rank_count;
    double gap = drawing->arrow_count > 0 ? ARROW_GAP_PIXELS : GAP_PIXELS;

    *page_out = (mhp_svg_page){
        .pixels_a_us = cell / drawing->unit_us,
        .left = LEFT_PIXELS,
        .top = TOP_PIXELS,
        .row_height = ROW_PIXELS,
        .row_gap = gap,
        .grid_width = units * cell,
        .grid_height = rows * (ROW_PIXELS + gap) - gap,
        .curve_height = curves ? CURVE_PIXELS : 0,
        .curve_gap = 3 * GAP_PIXELS,
    };
    page_out->width = LEFT_PIXELS + page_out->grid_width + RIGHT_PIXELS;
    page_out->width = page_out->width < 640 ? 640 : page_out->width;
    page_out->curves_top = TOP_PIXELS + page_out->grid_height + AXIS_PIXELS + LEGEND_PIXELS + 2 * GAP_PIXELS;
    page_out->height = page_out->curves_top + (curves ? 20 + rows * (page_out->curve_height + page_out->curve_gap) : 0);
}

static double x_of(const mhp_svg_page *page, double time_us)
{
    return page->left + time_us * page->pixels_a_us;
}

static double row_of(const mhp_svg_page *page, int rank)
{
    return page->top + rank * (page->row_height + page->row_gap);
}

/* ---- style ---- */

/* The head of an arrow. */
static void write_tip(const char *id, const char *fill, FILE *stream)
{
    fprintf(stream, "<marker id=\"%s\" viewBox=\"0 0 6 6\" refX=\"5\" refY=\"3\" markerWidth=\"6\" markerHeight=\"6\"", id);
    fprintf(stream, " orient=\"auto\"><path d=\"M0 0L6 3L0 6z\" fill=\"%s\"/></marker>\n", fill);
}

static void write_style(FILE *stream)
{
    fputs("<style>\n"
          ".grid text{font:12px Helvetica,Arial,sans-serif;text-anchor:middle}\n"
          ".grid .name{text-anchor:start;fill:#222}\n"
          ".grid .title{font-size:16px;font-weight:bold}\n"
          ".grid .small{font-size:11px;fill:#555}\n"
          ".axis{stroke:#bbb;stroke-width:1}\n"
          ".frame{fill:none;stroke:#111;stroke-width:1.8}\n"
          ".cell rect{stroke:#fff;stroke-width:.8}\n"
          ".arrow{fill:none;stroke:#0a3d91;stroke-width:1;opacity:.55}\n"
          ".arrow.g{stroke:#a02c00}\n"
          ".curve{fill:#b9c9dd;stroke:#446;stroke-width:1}\n",
          stream);
    for (int kind = 0; kind < MHP_BOX_KIND_COUNT; kind++) {
        for (int shade = 0; shade < 2; shade++) {
            const colour *c = &colours[kind][shade];

            fprintf(stream, ".%s%d rect{fill:%s}.%s%d text{fill:%s}", mhp_box_letter((mhp_box_kind)kind), shade,
                    c->fill, mhp_box_letter((mhp_box_kind)kind), shade, c->text);
        }
    }
    fputs("\n</style>\n<defs>\n", stream);
    write_tip("tip", "#0a3d91", stream);
    write_tip("tipg", "#a02c00", stream);
    fputs("</defs>\n", stream);
}

/* ---- parts ---- */

static void write_heads(const mhp_drawing *drawing, const mhp_svg_page *page, FILE *stream)
{
    fprintf(stream, "<text class=\"name title\" x=\"10\" y=\"24\">");
    mhp_svg_text(drawing->title, stream);
    fprintf(stream, "</text>\n<text class=\"name small\" x=\"10\" y=\"46\">");
    mhp_svg_text(drawing->subtitle, stream);
    fprintf(stream, "; bubble of each rank on the right</text>\n");
    for (int r = 0; r < drawing->rank_count; r++) {
        double y = row_of(page, r);

        fprintf(stream, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"#f1f1f1\"/>", page->left, y,
                page->grid_width, page->row_height);
        fprintf(stream, "<text class=\"name\" x=\"10\" y=\"%.2f\">rank %d</text>",
                y + page->row_height / 2 + BASELINE_PIXELS, r);
        fprintf(stream, "<text class=\"name small\" x=\"%.2f\" y=\"%.2f\">%.1f %%</text>\n",
                page->left + page->grid_width + 8, y + page->row_height / 2 + BASELINE_PIXELS,
                100 * drawing->bubble[r]);
    }
}

static void write_axis(const mhp_drawing *drawing, const mhp_svg_page *page, FILE *stream)
{
    double bottom = page->top + page->grid_height;

    for (size_t i = 0; i < drawing->tick_count; i++) {
        double x = x_of(page, drawing->ticks[i].time_us);

        fprintf(stream, "<line class=\"axis\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\"/>", x, bottom, x,
                bottom + 6);
        fprintf(stream, "<text class=\"small\" x=\"%.2f\" y=\"%.2f\">%s</text>\n", x, bottom + 20,
                drawing->ticks[i].label);
    }
    fprintf(stream, "<text class=\"name small\" x=\"10\" y=\"%.2f\">time%s%s</text>\n", bottom + 20,
            drawing->time_unit[0] ? ", " : "", drawing->time_unit);
}

/* The number of the micro-batch, as large as its cell allows; none in a cell that is too narrow. */
static void write_number(int number, double x, double y, double width, FILE *stream)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%d", number);
    double size = fmin(12.0, 12.0 * (width - 2) / (length * DIGIT_PIXELS));

    if (size >= TEXT_PIXELS_MIN) {
        fprintf(stream, "<text x=\"%.2f\" y=\"%.2f\"", x + width / 2, y + size / 3);
        if (size < 12) {
            fprintf(stream, " style=\"font-size:%.1fpx\"", size);
        }
        fprintf(stream, ">%s</text>", text);
    }
}

/* "0F3: forward ...|rank|position|start|end|critical", read by the script of a page; data-m is the micro-batch to
 * follow. */
static void write_details(const mhp_draw_box *box, FILE *stream)
{
    fprintf(stream, " data-d=\"");
    if (box->stage < 0) {
        fprintf(stream, "%s", mhp_box_words(box->kind));
    } else if (box->microbatch < 0) {
        fprintf(stream, "%s, stage %d", mhp_box_words(box->kind), box->stage);
    } else {
        fprintf(stream, "%d%s%d: %s, stage %d, micro-batch %d", box->stage, mhp_box_letter(box->kind), box->microbatch,
                mhp_box_words(box->kind), box->stage, box->microbatch);
    }
    fprintf(stream, "|%d|%zu|%.9g|%.9g|%d\" data-m=\"%d\"", box->rank, box->position, box->start_us, box->end_us,
            box->critical, box->microbatch);
}

static void write_box(const mhp_draw_box *box, const mhp_svg_page *page, bool details, FILE *stream)
{
    bool strip = box->kind == MHP_BOX_REDUCE; /* beside compute: at the foot of the row */
    double x = x_of(page, box->start_us), width = (box->end_us - box->start_us) * page->pixels_a_us;
    double height = strip ? 5 : page->row_height;
    double y = row_of(page, box->rank) + page->row_height - height;

    fprintf(stream, "<g class=\"cell %s%d%s\"", mhp_box_letter(box->kind), box->shade,
            details && box->critical ? " crit" : "");
    if (details) {
        write_details(box, stream);
    }
    fprintf(stream, "><rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"/>", x, y, width, height);
    if (!strip && box->microbatch >= 0) {
        write_number(box->microbatch, x, y + height / 2, width, stream);
    }
    fputs("</g>\n", stream);
}

static void write_frames(const mhp_drawing *drawing, const mhp_svg_page *page, FILE *stream)
{
    for (size_t i = 0; i < drawing->frame_count; i++) {
        const mhp_draw_frame *frame = &drawing->frames[i];

        fprintf(stream, "<rect class=\"frame\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" rx=\"2\"/>\n",
                x_of(page, frame->start_us) + 1, row_of(page, frame->rank) + 1,
                (frame->end_us - frame->start_us) * page->pixels_a_us - 2, page->row_height - 2);
    }
}

/* From the edge of the sender's row that faces the receiver to that of the receiver's. */
static void write_arrows(const mhp_drawing *drawing, const mhp_svg_page *page, FILE *stream)
{
    for (size_t i = 0; i < drawing->arrow_count; i++) {
        const mhp_draw_arrow *arrow = &drawing->arrows[i];
        bool down = arrow->to_rank > arrow->from_rank;
        double y1 = row_of(page, arrow->from_rank) + (down ? page->row_height : 0);
        double y2 = row_of(page, arrow->to_rank) + (down ? 0 : page->row_height);

        fprintf(stream, "<path class=\"arrow%s\" marker-end=\"url(#tip%s)\" d=\"M%.2f %.2fL%.2f %.2f\"/>\n",
                arrow->gradient ? " g" : "", arrow->gradient ? "g" : "", x_of(page, arrow->start_us), y1,
                x_of(page, arrow->end_us), y2);
    }
}

static bool is_used(const mhp_drawing *drawing, mhp_box_kind kind, int shade)
{
    for (size_t i = 0; i < drawing->box_count; i++) {
        if (drawing->boxes[i].kind == kind && drawing->boxes[i].shade == shade) {
            return true;
        }
    }
    return false;
}

static void write_legend(const mhp_drawing *drawing, const mhp_svg_page *page, FILE *stream)
{
    double x = page->left, y = page->top + page->grid_height + AXIS_PIXELS + 4;

    for (int kind = 0; kind < MHP_BOX_KIND_COUNT; kind++) {
        bool used[2] = {is_used(drawing, (mhp_box_kind)kind, 0), is_used(drawing, (mhp_box_kind)kind, 1)};
        const char *words = mhp_box_words((mhp_box_kind)kind);

        for (int shade = 0; shade < 2; shade++) {
            if (used[shade]) {
                fprintf(stream, "<g class=\"%s%d\"><rect x=\"%.2f\" y=\"%.2f\" width=\"16\" height=\"14\"/></g>",
                        mhp_box_letter((mhp_box_kind)kind), shade, x, y);
                x += 18;
            }
        }
        if (used[0] || used[1]) {
            fprintf(stream, "<text class=\"name small\" x=\"%.2f\" y=\"%.2f\">%s</text>\n", x + 4,
                    y + 7 + BASELINE_PIXELS, words);
            x += 22 + 5.6 * (double)strlen(words);
        }
    }
    fprintf(stream, "<text class=\"name small\" x=\"%.2f\" y=\"%.2f\">%s</text>\n", x + 4, y + 7 + BASELINE_PIXELS,
            drawing->shades);
}

/* What each rank keeps, over the same axis. */
static void write_curve(const mhp_drawing *drawing, const mhp_svg_page *page, int rank, FILE *stream)
{
    const mhp_draw_curve *curve = &drawing->curves[rank];
    double top = page->curves_top + 20 + rank * (page->curve_height + page->curve_gap);
    double bottom = top + page->curve_height;
    double scale = drawing->curve_peak > 0 ? page->curve_height / drawing->curve_peak : 0;
    double peak = drawing->curve_is_bytes ? curve->peak / (1 << 20) : curve->peak;

    fprintf(stream, "<path class=\"curve\" data-r=\"%d\" d=\"M%.2f %.2f", rank, page->left, bottom);
    for (size_t i = 0; i < curve->count; i++) {
        double end_us = i + 1 < curve->count ? curve->points[i + 1].time_us : drawing->end_us;

        fprintf(stream, "L%.2f %.2fH%.2f", x_of(page, curve->points[i].time_us),
                bottom - curve->points[i].value * scale, x_of(page, end_us));
    }
    fprintf(stream, "V%.2fz\"/><text class=\"name\" x=\"10\" y=\"%.2f\">rank %d</text>", bottom,
            bottom - page->curve_height / 2 + BASELINE_PIXELS, rank);
    fprintf(stream, "<text class=\"name small\" x=\"%.2f\" y=\"%.2f\">%.4g</text>\n", page->left + page->grid_width + 8,
            bottom - page->curve_height / 2 + BASELINE_PIXELS, peak);
}

static void write_curves(const mhp_drawing *drawing, const mhp_svg_page *page, FILE *stream)
{
    fprintf(stream,
            "<text class=\"name small\" x=\"10\" y=\"%.2f\">what a rank keeps, %s; its peak on the right</text>\n",
            page->curves_top + 6 + BASELINE_PIXELS, drawing->curve_is_bytes ? "MiB" : "activations of micro-batches");
    for (int r = 0; r < drawing->rank_count; r++) {
        write_curve(drawing, page, r, stream);
    }
}

void mhp_svg_write(const mhp_drawing *drawing, const mhp_svg_page *page, bool details, FILE *stream)
{
    fprintf(stream, "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"grid\" width=\"%.0f\" height=\"%.0f\"",
            page->width, page->height);
    fprintf(stream, " viewBox=\"0 0 %.0f %.0f\">\n", page->width, page->height);
    write_style(stream);
    fputs("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n", stream);
    write_heads(drawing, page, stream);
    write_axis(drawing, page, stream);
    for (size_t i = 0; i < drawing->box_count; i++) {
        write_box(&drawing->boxes[i], page, details, stream);
    }
    write_frames(drawing, page, stream);
    write_arrows(drawing, page, stream);
    write_legend(drawing, page, stream);
    if (page->curve_height > 0) {
        write_curves(drawing, page, stream);
    }
    fputs("</svg>\n", stream);
}

mhp_status mhp_draw_svg(const mhp_drawing *drawing, FILE *stream)
{
    mhp_svg_page page;

    mhp_svg_layout(drawing, false, &page);
    mhp_svg_write(drawing, &page, false, stream);
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the picture: %s", strerror(errno)) : MHP_OK;
}
