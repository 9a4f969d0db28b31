#include "runtime/metrics.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { METRICS_BYTES_MAX = 1 << 30 };

struct mhp_metrics {
    char *path;
    FILE *file;
};

/* Whether a line stays if the run goes on at first_step. */
static bool stays(const char *line, size_t length, int64_t first_step)
{
    json_t *root = json_loadb(line, length, 0, NULL);
    const json_t *step = json_object_get(root, "step");
    bool kept = json_is_integer(step) && (json_integer_value(step) <= first_step || json_object_get(root, "event"));    /* from 1 */

    json_decref(root);
    return kept;
}

static mhp_status keep_lines_before(const char *path, int64_t first_step)
{
    mhp_status status = MHP_OK;
    char *text = NULL;
    size_t size;
    size_t kept = 0;

    if (!mhp_file_exists(path)) {
        return MHP_OK;
    }
    MHP_TRY(out, mhp_file_read_all(path, METRICS_BYTES_MAX, &text, &size));
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - (text + at)) + 1 : size - at;

        if (end && stays(text + at, length, first_step)) {
            memmove(text + kept, text + at, length);
            kept += length;
        }
        at += length;
    }
    MHP_TRY(out, mhp_file_write_atomic(path, text, kept));
out:
    mhp_free(text);
    return status;
}

mhp_status mhp_metrics_open(const char *directory, int64_t first_step, mhp_metrics **metrics_out)
{
    mhp_status status = MHP_OK;
    mhp_metrics *metrics = NULL;

    MHP_TRY(out, mhp_calloc(&metrics, 1, sizeof *metrics));
    MHP_TRY(out, mhp_asprintf(&metrics->path, "%s/metrics.jsonl", directory));
    MHP_TRY(out, keep_lines_before(metrics->path, first_step));
    metrics->file = fopen(metrics->path, "a");
    if (!metrics->file) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot write %s: %s", metrics->path, strerror(errno));
    }
    *metrics_out = metrics;
    metrics = NULL;
out:
    mhp_metrics_close(metrics);
    return status;
}

void mhp_metrics_close(mhp_metrics *metrics)
{
    if (!metrics) {
        return;
    }
    if (metrics->file) {
        fclose(metrics->file);
    }
    mhp_free(metrics->path);
    mhp_free(metrics);
}

/* JSON has no infinity, and the line of a step that diverges is wanted all the same. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* What is not readable is null; summary.json has the reasons. */
static void set_energy(json_t *root, const mhp_step_report *report)
{
    double sum_j = mhp_joules_sum(&report->energy);

    json_object_set_new(root, "energy_gpu_j", number(report->energy.of[MHP_ENERGY_GPU]));
    json_object_set_new(root, "energy_cpu_j", number(report->energy.of[MHP_ENERGY_CPU]));
    json_object_set_new(root, "energy_j", number(sum_j));
    json_object_set_new(root, "j_per_token", number(report->tokens > 0 ? sum_j / (double)report->tokens : NAN));
}

/* A meter of `kind`, and the ranks that it serves so far: those whose energy it counts. */
static json_t *meter_to_json(int kind, double joules)
{
    return json_pack("{s:s, s:[], s:o}", "kind", kind == MHP_ENERGY_GPU ? "gpu" : "cpu", "ranks", "j", number(joules));
}

/* What each meter of the world read, and which ranks share it: for the report, which knows how long each rank stood still. */
static mhp_status set_meters(json_t *root, const mhp_step_report *report, int kind)
{
    json_t *list = json_object_get(root, "energy_meters"), **served = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&served, (size_t)report->world_size, sizeof *served));
    for (int rank = 0; rank < report->world_size; rank++) {
        int by = mhp_run_energy_metered_by(report->meters, rank, (mhp_energy_kind)kind);

        if (by == rank) {
            json_t *meter = meter_to_json(kind, report->rank_energy[rank].of[kind]);

            served[rank] = json_object_get(meter, "ranks");
            json_array_append_new(list, meter);
        }
        if (by >= 0) {
            json_array_append_new(served[by], json_integer(rank));
        }
    }
    mhp_free(served);
    return MHP_OK;
}

static json_t *report_to_json(const mhp_step_report *report, double held_out_loss)
{
    double seconds = report->step_s > 0 ? report->step_s : 1e-9;
    json_t *root = json_pack(
        "{s:I, s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "step",
        (json_int_t)report->step + 1, "loss", number(report->loss), "lr", number(report->rate),
        "grad_norm", number(report->gradient_norm), "tokens", (json_int_t)report->tokens, "targets",
        (json_int_t)report->targets, "tokens_per_s", number((double)report->tokens / seconds),
        "ms_per_step", number(seconds * 1e3), "bubble", number(report->bubble), "gain_forward",
        number(report->gain_forward), "gain_backward", number(report->gain_backward),
        "worst_gain_forward", number(report->worst_forward), "worst_gain_backward",
        number(report->worst_backward), "peak_bytes", number(report->bytes_peak), "flops_per_s",
        number(report->flops / seconds));

    if (root && isfinite(held_out_loss)) {
        json_object_set_new(root, "held_out_loss", json_real(held_out_loss));
    }
    if (root) {
        set_energy(root, report);
    }
    return root;
}

/* `root` may be NULL; it is released. */
static mhp_status write_line(mhp_metrics *metrics, json_t *root)
{
    mhp_status status = MHP_OK;
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

    if (!text) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "cannot build a line of %s", metrics->path);
    }
    if (fprintf(metrics->file, "%s\n", text) < 0 || fflush(metrics->file) != 0) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot write %s: %s", metrics->path, strerror(errno));
    }
out:
    json_decref(root);
    free(text);
    return status;
}

mhp_status mhp_metrics_write(mhp_metrics *metrics, const mhp_step_report *report, double held_out_loss)
{
    json_t *root = report_to_json(report, held_out_loss);
    bool metered = report->recorded && report->meters && !isnan(mhp_joules_sum(&report->energy));

    if (root && metered) {
        json_object_set_new(root, "energy_meters", json_array());
    }
    for (int kind = 0; root && metered && kind < MHP_ENERGY_KINDS; kind++) {
        mhp_status status = set_meters(root, report, kind);

        if (status < 0) {
            json_decref(root);
            return status;
        }
    }
    return write_line(metrics, root);
}

mhp_status mhp_metrics_write_event(mhp_metrics *metrics, const char *event, const mhp_step_report *report, int64_t to_step)
{
    json_t *root = json_pack("{s:s, s:I, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "event", event, "step", (json_int_t)report->step + 1, "fault",
                             mhp_step_fault_text(report->fault), "text", report->fault_text, "first_sample",
                             (json_int_t)report->first_sample, "loss", number(report->loss), "grad_norm", number(report->gradient_norm),
                             "gain_forward", number(report->gain_forward), "gain_backward", number(report->gain_backward));

    if (root && to_step >= 0) {
        json_object_set_new(root, "to_step", json_integer(to_step));
    }
    return write_line(metrics, root);
}
