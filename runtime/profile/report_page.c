/* report.html: the template with the data of one run in it. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "runtime/profile/report.h"
#include "runtime/profile/report_template.h"
#include "scheduler/draw.h"

#define PLACE "@DATA@"

enum { DIGITS = 12 };

static void append_number(json_t *array, double value)
{
    json_array_append_new(array, json_real(value));
}

/* ---- a drawing ---- */

static json_t *boxes_json(const mhp_drawing *drawing, double begin_us)
{
    json_t *boxes = json_array();

    for (size_t i = 0; i < drawing->box_count; i++) {
        const mhp_draw_box *box = &drawing->boxes[i];

        json_array_append_new(boxes, json_pack("[i, i, i, i, i, b, f, f]", box->rank, (int)box->kind, box->stage,
                                               box->microbatch, box->shade, box->critical, box->start_us + begin_us,
                                               box->end_us + begin_us));
    }
    return boxes;
}

static json_t *arrows_json(const mhp_drawing *drawing, double begin_us)
{
    json_t *arrows = json_array();

    for (size_t i = 0; i < drawing->arrow_count; i++) {
        const mhp_draw_arrow *arrow = &drawing->arrows[i];

        json_array_append_new(arrows, json_pack("[b, i, i, f, f]", arrow->gradient, arrow->from_rank, arrow->to_rank,
                                                arrow->start_us + begin_us, arrow->end_us + begin_us));
    }
    return arrows;
}

static json_t *frames_json(const mhp_drawing *drawing, double begin_us)
{
    json_t *frames = json_array();

    for (size_t i = 0; i < drawing->frame_count; i++) {
        json_array_append_new(frames,
                              json_pack("[i, f, f]", drawing->frames[i].rank, drawing->frames[i].start_us + begin_us,
                                        drawing->frames[i].end_us + begin_us));
    }
    return frames;
}

static json_t *curves_json(const mhp_drawing *drawing, double begin_us)
{
    json_t *curves = json_array();

    for (int r = 0; r < drawing->rank_count; r++) {
        json_t *points = json_array();

        for (size_t i = 0; i < drawing->curves[r].count; i++) {
            append_number(points, drawing->curves[r].points[i].time_us + begin_us);
            append_number(points, drawing->curves[r].points[i].value);
        }
        json_array_append_new(curves, points);
    }
    return curves;
}

static mhp_status draw_json(const mhp_profile_report *report, const mhp_simulation *simulation, double begin_us,
                            json_t **json_out)
{
    mhp_status status = MHP_OK;
    mhp_drawing drawing = {0};
    mhp_draw_params params = {.plan = report->plan,
                              .costs = &report->measured.costs,
                              .simulation = simulation,
                              .time_unit = "us",
                              .arrows = true};

    MHP_TRY(out, mhp_draw(&params, &drawing));
    *json_out = json_pack("{s:o, s:o, s:o, s:o, s:b, s:f}", "boxes", boxes_json(&drawing, begin_us), "frames",
                          frames_json(&drawing, begin_us), "arrows", arrows_json(&drawing, begin_us), "curves",
                          curves_json(&drawing, begin_us), "bytes", drawing.curve_is_bytes, "peak", drawing.curve_peak);
    if (!*json_out) {
        status = mhp_error_set(MHP_ERR_NO_MEMORY, "cannot build the page");
    }
out:
    mhp_drawing_release(&drawing);
    return status;
}

/* ---- what the measured step has beside its actions ---- */

static void add_optimizer(const mhp_step_analysis *step, int rank, json_t *boxes)
{
    const mhp_timed_rank *timed = &step->timeline.ranks[rank];

    for (size_t i = 0; i < timed->span_count; i++) {
        const mhp_timed_span *span = &timed->spans[i];

        if (span->span->kind == MHP_TRACE_PHASE && mhp_span_computes(span->span)) {
            json_array_append_new(boxes, json_pack("[i, i, i, i, i, b, f, f]", rank, (int)MHP_BOX_OPTIMIZER, -1, -1, 0,
                                                   0, span->start_us, span->end_us));
        }
    }
}

static json_t *idle_json(const mhp_step_analysis *step, int rank_count)
{
    json_t *idles = json_array();

    for (int rank = 0; rank < rank_count; rank++) {
        for (size_t i = 0; i < step->idle_count[rank]; i++) {
            const mhp_idle *idle = &step->idle[rank][i];
            const mhp_transfer *transfer = idle->transfer >= 0 ? &step->timeline.transfers[idle->transfer] : NULL;

            json_array_append_new(idles,
                                  json_pack("[i, i, f, f, s, i, i]", rank, (int)idle->kind, idle->start_us,
                                            idle->end_us, transfer ? mhp_trace_cause_text(transfer->cause) : "",
                                            transfer ? transfer->microbatch : -1, transfer ? transfer->source : -1));
        }
    }
    return idles;
}

static mhp_status measured_json(const mhp_profile_report *report, const mhp_step_analysis *step, json_t **json_out)
{
    mhp_status status = MHP_OK;
    mhp_simulation measured = {0};

    MHP_TRY(out, mhp_profile_report_step(report, step, &measured));
    MHP_TRY(out, draw_json(report, &measured, mhp_measured_begin_us(step), json_out));
    for (int rank = 0; rank < report->plan->rank_count; rank++) {
        add_optimizer(step, rank, json_object_get(*json_out, "boxes"));
    }
    json_object_set_new(*json_out, "idle", idle_json(step, report->plan->rank_count));
out:
    mhp_simulation_release(&measured);
    return status;
}

/* ---- the whole ---- */

static json_t *kinds_json(void)
{
    json_t *kinds = json_array();

    for (int kind = 0; kind < MHP_BOX_KIND_COUNT; kind++) {
        json_array_append_new(
            kinds, json_pack("{s:s, s:s, s:[s, s], s:[s, s]}", "letter", mhp_box_letter((mhp_box_kind)kind), "words",
                             mhp_box_words((mhp_box_kind)kind), "fill", mhp_box_fill((mhp_box_kind)kind, 0),
                             mhp_box_fill((mhp_box_kind)kind, 1), "text", mhp_box_text_fill((mhp_box_kind)kind, 0),
                             mhp_box_text_fill((mhp_box_kind)kind, 1)));
    }
    return kinds;
}

static mhp_status page_json(const mhp_profile_report *report, const mhp_run_metrics *metrics, json_t **json_out)
{
    mhp_status status = MHP_OK;
    const mhp_step_analysis *step = &report->analysis->steps[report->analysis->median];
    double begin_us = mhp_measured_begin_us(step);
    double end_us = fmax(step->timeline.end_us, begin_us + report->planned.makespan_us); /* both are drawn whole */
    json_t *figures = NULL, *planned = NULL, *measured = NULL, *curves = NULL;

    MHP_TRY(out, mhp_profile_report_json(report, &figures));
    MHP_TRY(out, draw_json(report, &report->planned, begin_us, &planned));
    MHP_TRY(out, measured_json(report, step, &measured));
    MHP_TRY(out, mhp_run_metrics_json(metrics, &curves));
    *json_out = json_pack("{s:O, s:O, s:O, s:o, s:O, s:f}", "report", figures, "planned", planned, "measured", measured,
                          "kinds", kinds_json(), "metrics", curves, "end_us", end_us);
    if (!*json_out) {
        status = mhp_error_set(MHP_ERR_NO_MEMORY, "cannot build the page");
    }
out:
    json_decref(figures);
    json_decref(planned);
    json_decref(measured);
    json_decref(curves);
    return status;
}

/* No text in the data can end the script that it stands in. */
static void write_data(const char *text, FILE *stream)
{
    for (; *text; text++) {
        if (*text == '<') {
            fputs("\\u003c", stream);
        } else {
            fputc(*text, stream);
        }
    }
}

mhp_status mhp_profile_report_page(const mhp_profile_report *report, const mhp_run_metrics *metrics, FILE *stream)
{
    mhp_status status = MHP_OK;
    const char *place = strstr(mhp_report_template, PLACE);
    json_t *data = NULL;
    char *text = NULL;

    MHP_TRY(out, page_json(report, metrics, &data));
    text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS));
    if (!text) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "cannot build the page");
    }
    fwrite(mhp_report_template, 1, (size_t)(place - mhp_report_template), stream);
    write_data(text, stream);
    fputs(place + strlen(PLACE), stream);
    if (ferror(stream)) {
        status = mhp_error_set(MHP_ERR_IO, "cannot write the page: %s", strerror(errno));
    }
out:
    free(text);
    json_decref(data);
    return status;
}
