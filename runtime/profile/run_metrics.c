#include "runtime/profile/run_metrics.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/memory.h"

enum { LINE_BYTES_MAX = 1 << 20, STEPS_ROOM = 1024, EVENTS_ROOM = 16 };
static const long long file_bytes_max = 1LL << 30; /* as much as a run that is resumed reads of its own */

const char *mhp_curve_key(mhp_curve curve)
{
    static const char *const keys[] = {"loss",          "held_out_loss",      "gain_forward",
                                       "gain_backward", "worst_gain_forward", "worst_gain_backward"};

    return keys[curve];
}

/* ---- lines ---- */

/* The steps from `step` on are undone: by a rollback, or since one of them stands there again. */
static void undo(mhp_run_metrics *metrics, int64_t step)
{
    while (metrics->step_count > 0 && metrics->steps[metrics->step_count - 1].step >= step) {
        metrics->step_count--;
    }
    for (int i = 0; i < metrics->recorded_count; i++) {
        if (metrics->recorded[i] && metrics->first_recorded + i >= step) {
            json_decref(metrics->recorded[i]);
            metrics->recorded[i] = NULL;
        }
    }
}

static mhp_status add_step(mhp_run_metrics *metrics, json_t *line, int64_t step)
{
    int64_t place = step - metrics->first_recorded;
    mhp_metrics_step *next;

    undo(metrics, step);
    if (metrics->step_count == metrics->step_room) {
        metrics->step_room = metrics->step_room ? 2 * metrics->step_room : STEPS_ROOM;
        MHP_RETURN_IF_ERROR(mhp_realloc(&metrics->steps, metrics->step_room, sizeof *metrics->steps));
    }
    next = &metrics->steps[metrics->step_count++];
    next->step = step;
    for (int curve = 0; curve < MHP_CURVE_COUNT; curve++) {
        const json_t *value = json_object_get(line, mhp_curve_key((mhp_curve)curve));

        next->value[curve] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    if (place >= 0 && place < metrics->recorded_count) {
        metrics->recorded[place] = json_incref(line);
    }
    return MHP_OK;
}

static mhp_status add_event(mhp_run_metrics *metrics, const json_t *line, int64_t step)
{
    const char *kind = json_string_value(json_object_get(line, "event"));
    const json_t *to_step = json_object_get(line, "to_step");
    mhp_metrics_event *next;

    if (json_is_integer(to_step)) {
        undo(metrics, json_integer_value(to_step) + 1);
    }
    if (metrics->event_count == metrics->event_room) {
        metrics->event_room = metrics->event_room ? 2 * metrics->event_room : EVENTS_ROOM;
        MHP_RETURN_IF_ERROR(mhp_realloc(&metrics->events, metrics->event_room, sizeof *metrics->events));
    }
    next = &metrics->events[metrics->event_count++];
    next->step = step;
    snprintf(next->kind, sizeof next->kind, "%s", kind ? kind : "event");
    return MHP_OK;
}

static mhp_status add_line(mhp_run_metrics *metrics, const char *text)
{
    mhp_status status = MHP_OK;
    json_t *line = json_loads(text, 0, NULL);
    const json_t *step = json_object_get(line, "step");

    if (json_is_integer(step)) {
        int64_t number = json_integer_value(step);

        status = json_object_get(line, "event") ? add_event(metrics, line, number) : add_step(metrics, line, number);
    }
    json_decref(line);
    return status;
}

/* ---- the file ---- */

/* Nothing of an odd file is used: a curve that ends in its middle would look like a run that did. */
static void leave_out(mhp_run_metrics *metrics)
{
    undo(metrics, INT64_MIN);
    metrics->event_count = 0;
}

static mhp_status read_lines(mhp_run_metrics *metrics, FILE *file, const char *path)
{
    mhp_status status = MHP_OK;
    char *line = NULL;
    long long number = 0;

    MHP_TRY(out, mhp_calloc(&line, LINE_BYTES_MAX, 1));
    while (fgets(line, LINE_BYTES_MAX, file)) {
        number++;
        if (strlen(line) == LINE_BYTES_MAX - 1) {
            snprintf(metrics->reason, sizeof metrics->reason, "line %lld of %s has more than %d bytes", number, path, LINE_BYTES_MAX - 2);
            goto out;
        }
        MHP_TRY(out, add_line(metrics, line));
    }
    if (ferror(file)) {
        snprintf(metrics->reason, sizeof metrics->reason, "cannot read %s: %s", path, strerror(errno));
    } else if (metrics->step_count == 0) {
        snprintf(metrics->reason, sizeof metrics->reason, "%s has no line of a step", path);
    }
out:
    if (metrics->reason[0] != '\0') {
        leave_out(metrics);
    }
    mhp_free(line);
    return status;
}

/* Whether it is worth reading; if not, the reason. */
static bool can_read(mhp_run_metrics *metrics, FILE *file, const char *path)
{
    struct stat about;

    if (!file && errno == ENOENT) {
        snprintf(metrics->reason, sizeof metrics->reason, "there is no %s", path);
        return false;
    }
    if (!file) {
        snprintf(metrics->reason, sizeof metrics->reason, "cannot read %s: %s", path, strerror(errno));
        return false;
    }
    if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode)) {
        snprintf(metrics->reason, sizeof metrics->reason, "%s is no regular file", path);
        return false;
    }
    if (about.st_size > file_bytes_max) {
        snprintf(metrics->reason, sizeof metrics->reason, "%s has %lld bytes, more than %lld", path, (long long)about.st_size,
                 file_bytes_max);
        return false;
    }
    return true;
}

mhp_status mhp_run_metrics_read(const char *directory, int64_t first_recorded, int recorded_count, mhp_run_metrics *metrics_out)
{
    mhp_status status = MHP_OK;
    FILE *file = NULL;
    char *path = NULL;

    *metrics_out = (mhp_run_metrics){.first_recorded = first_recorded, .recorded_count = recorded_count};
    MHP_TRY(out, mhp_calloc(&metrics_out->recorded, (size_t)recorded_count, sizeof(json_t *)));
    MHP_TRY(out, mhp_asprintf(&path, "%s/metrics.jsonl", directory));
    file = fopen(path, "re");
    if (can_read(metrics_out, file, path)) {
        status = read_lines(metrics_out, file, path);
    }
out:
    if (file) {
        fclose(file);
    }
    mhp_free(path);
    return status;
}

void mhp_run_metrics_release(mhp_run_metrics *metrics)
{
    for (int i = 0; metrics->recorded && i < metrics->recorded_count; i++) {
        json_decref(metrics->recorded[i]);
    }
    mhp_free(metrics->recorded);
    mhp_free(metrics->steps);
    mhp_free(metrics->events);
    *metrics = (mhp_run_metrics){0};
}

/* ---- thinned, for the page ---- */

static void append_point(json_t *points, const mhp_metrics_step *step, mhp_curve curve)
{
    json_array_append_new(points, json_integer(step->step));
    json_array_append_new(points, json_real(step->value[curve]));
}

/* The smallest and the largest of a curve's points [first, end), in the order of their steps. */
static void append_extremes(json_t *points, const mhp_metrics_step *const *of, size_t first, size_t end, mhp_curve curve)
{
    size_t least = first, most = first;

    for (size_t i = first; i < end; i++) {
        least = of[i]->value[curve] < of[least]->value[curve] ? i : least;
        most = of[i]->value[curve] > of[most]->value[curve] ? i : most;
    }
    append_point(points, of[least < most ? least : most], curve);
    if (least != most) {
        append_point(points, of[least < most ? most : least], curve);
    }
}

static void append_thinned(json_t *points, const mhp_metrics_step *const *of, size_t count, mhp_curve curve)
{
    size_t buckets = (MHP_CURVE_POINTS_MAX - 2) / 2, inner = count - 2;

    append_point(points, of[0], curve);
    for (size_t b = 0; b < buckets; b++) {
        append_extremes(points, of, 1 + inner * b / buckets, 1 + inner * (b + 1) / buckets, curve);
    }
    append_point(points, of[count - 1], curve);
}

/* `of` has room for all steps. */
static json_t *curve_json(const mhp_run_metrics *metrics, const mhp_metrics_step **of, mhp_curve curve)
{
    json_t *points = json_array();
    size_t count = 0;

    for (size_t i = 0; i < metrics->step_count; i++) {
        if (isfinite(metrics->steps[i].value[curve])) {
            of[count++] = &metrics->steps[i];
        }
    }
    if (count > MHP_CURVE_POINTS_MAX) {
        append_thinned(points, of, count, curve);
        return points;
    }
    for (size_t i = 0; i < count; i++) {
        append_point(points, of[i], curve);
    }
    return points;
}

static json_t *events_json(const mhp_run_metrics *metrics)
{
    size_t every = (metrics->event_count + MHP_CURVE_EVENTS_MAX - 1) / MHP_CURVE_EVENTS_MAX;
    json_t *events = json_array();

    for (size_t i = 0; i < metrics->event_count; i += every) {
        json_array_append_new(events, json_pack("[I, s]", (json_int_t)metrics->events[i].step, metrics->events[i].kind));
    }
    return events;
}

mhp_status mhp_run_metrics_json(const mhp_run_metrics *metrics, json_t **json_out)
{
    const mhp_metrics_step **of = NULL;
    json_t *root;

    MHP_RETURN_IF_ERROR(mhp_calloc(&of, metrics->step_count, sizeof(const mhp_metrics_step *)));
    root = json_pack("{s:o, s:s?}", "events", events_json(metrics), "reason", metrics->reason[0] != '\0' ? metrics->reason : NULL);
    for (int curve = 0; root && curve < MHP_CURVE_COUNT; curve++) {
        json_object_set_new(root, mhp_curve_key((mhp_curve)curve), curve_json(metrics, of, (mhp_curve)curve));
    }
    mhp_free(of);
    if (!root) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot build the page");
    }
    *json_out = root;
    return MHP_OK;
}
