/* The report for machines, written piece by piece, so that a large plan needs no copy of itself in memory. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "scheduler/report.h"

enum { DIGITS = 12 };

/* Writes and releases a value; a NULL one is a lack of memory or text that is not UTF-8. */
static mhp_status dump(json_t *value, FILE *stream)
{
    int failed = value ? json_dumpf(value, stream, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(DIGITS)) : -1;

    json_decref(value);
    return failed ? mhp_error_set(MHP_ERR_IO, "cannot write the report as JSON: %s",
                                  errno ? strerror(errno) : "text that is not UTF-8")
                  : MHP_OK;
}

static mhp_status write_action(const mhp_plan_report *report, int rank, size_t position, FILE *stream)
{
    const mhp_action *action = &report->plan->ranks[rank].actions.items[position];
    mhp_span span = report->simulation.ranks[rank].spans[position];
    char text[96];

    mhp_action_format(action, text, sizeof text);
    return dump(json_pack("[s, f, f]", text, span.start_us, span.end_us), stream);
}

static mhp_status write_rank(const mhp_plan_report *report, int rank, FILE *stream)
{
    const mhp_rank_simulation *out = &report->simulation.ranks[rank];
    const mhp_action_list *list = &report->plan->ranks[rank].actions;

    fprintf(stream, "%s{\"summary\":", rank ? ",\n" : "");
    MHP_RETURN_IF_ERROR(
        dump(json_pack("{s:f, s:f, s:f, s:f, s:I, s:I, s:i, s:i, s:I, s:I}", "busy_us", out->busy_us, "bubble_us",
                       out->bubble_us, "exposed_us", out->exposed_us, "compute_end_us", out->compute_end_us,
                       "message_count", (json_int_t)out->message_count, "message_bytes", (json_int_t)out->message_bytes,
                       "activations_peak", out->activations_peak, "held_peak", out->held_peak, "bytes_base",
                       (json_int_t)out->bytes_base, "bytes_peak", (json_int_t)out->bytes_peak),
             stream));
    fprintf(stream, ",\n\"actions\":[");
    for (size_t i = 0; i < list->count; i++) {
        fputs(i ? "," : "", stream);
        MHP_RETURN_IF_ERROR(write_action(report, rank, i, stream));
    }
    fputs("]}", stream);
    return MHP_OK;
}

static mhp_status write_path(const mhp_plan_report *report, FILE *stream)
{
    static const char *const kinds[] = {"compute", "message", "reduction", "optimizer"};

    fputs("\"critical_path\":[", stream);
    for (size_t i = 0; i < report->simulation.path_count; i++) {
        const mhp_path_step *step = &report->simulation.path[i];

        fputs(i ? "," : "", stream);
        MHP_RETURN_IF_ERROR(
            dump(json_pack("{s:s, s:i, s:I, s:f, s:f}", "kind", kinds[step->kind], "rank", step->rank, "position",
                           (json_int_t)step->position, "start_us", step->start_us, "end_us", step->end_us),
                 stream));
    }
    fputs("],\n", stream);
    return MHP_OK;
}

mhp_status mhp_report_write_json(const mhp_plan_report *report, FILE *stream)
{
    const mhp_plan *plan = report->plan;
    const mhp_simulation *simulation = &report->simulation;

    errno = 0;
    fputs("{\"plan\":", stream);
    MHP_RETURN_IF_ERROR(dump(json_pack("{s:s, s:i, s:i, s:i, s:b, s:b}", "name", plan->name, "ranks", plan->rank_count,
                                       "stages", plan->stage_count, "microbatches", plan->microbatch_count,
                                       "forward_only", plan->forward_only, "lowered", plan->lowered),
                             stream));
    fputs(",\n\"simulation\":", stream);
    MHP_RETURN_IF_ERROR(
        dump(json_pack("{s:s, s:b, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "time_unit",
                       report->time_unit[0] ? report->time_unit : "units", "early_gradient", report->early_gradient,
                       "makespan_us", simulation->makespan_us, "microbatch_us", report->microbatch_us, "lower_bound_us",
                       report->bound_us, "free_messages_makespan_us", report->free_messages_us, "reduce_exposed_us",
                       simulation->reduce_exposed_us, "optimizer_us", simulation->optimizer_us, "worst_bubble",
                       mhp_simulation_worst_bubble(simulation), "mean_bubble", mhp_simulation_mean_bubble(simulation),
                       "peak_bytes", (json_int_t)mhp_simulation_peak_bytes(simulation)),
             stream));
    fputs(",\n", stream);
    MHP_RETURN_IF_ERROR(write_path(report, stream));
    fputs("\"ranks\":[", stream);
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_RETURN_IF_ERROR(write_rank(report, r, stream));
    }
    fputs("]}\n", stream);
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the report: %s", strerror(errno)) : MHP_OK;
}
