/* report.json: every figure of the report, for machines. */
#include "runtime/profile/report.h"

#include <jansson.h>

/* A number that JSON can hold; null for others. */
static json_t *number(double value)
{
    json_t *real = json_real(value);

    return real ? real : json_null();
}

static json_t *passes_json(const double group_us[MHP_PASS_COUNT][MHP_PART_COUNT])
{
    json_t *passes = json_object();

    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        json_t *parts = json_object();

        for (int part = 0; part < MHP_PART_COUNT; part++) {
            json_object_set_new(parts, mhp_part_text((mhp_step_part)part), number(group_us[pass][part]));
        }
        json_object_set_new(passes, mhp_pass_letter((mhp_pass)pass), parts);
    }
    return passes;
}

static json_t *transfers_json(const mhp_rank_figures *figures)
{
    json_t *transfers = json_object();

    for (int cause = 0; cause < MHP_CAUSE_COUNT; cause++) {
        json_object_set_new(transfers, mhp_trace_cause_text((mhp_trace_cause)cause),
                            json_pack("{s:o, s:o, s:o, s:o}", "transfer_us", number(figures->transfer_us[cause]),
                                      "hidden_us", number(figures->hidden_us[cause]), "exposed_us",
                                      number(figures->exposed_of_us[cause]), "bubble_us",
                                      number(figures->bubble_of_us[cause])));
    }
    return transfers;
}

/* Null where nothing was recorded. */
static json_t *kernels_json(const mhp_analysis *analysis, int rank)
{
    const mhp_trace *trace = &analysis->set->ranks[rank];
    const mhp_kernel_figures *figures = &analysis->kernels[rank];
    double events_us = analysis->mean[rank].compute_us;

    if (trace->kernels != MHP_TRACE_KERNELS_ON) {
        return json_null();
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o}", "kernels", number(figures->kernel_count),
                     "kernel_us", number(figures->kernel_us), "compute_events_us", number(events_us),
                     "compute_records_us", number(figures->compute_us), "gaps_us", number(figures->gaps_us),
                     "difference_percent", number(100 * mhp_kernels_difference(events_us, figures->compute_us)),
                     "copy_us", number(figures->copy_us), "copy_bytes", number(figures->copy_bytes), "lost",
                     (json_int_t)trace->records.lost, "clock_error_us",
                     number(1e-3 * (double)trace->records.clock_error_ns));
}

/* Why a rank has no records though they were asked for; else null. */
static json_t *no_kernels_json(const mhp_trace *trace)
{
    return trace->kernels == MHP_TRACE_KERNELS_OFF ? json_string(trace->no_kernels) : json_null();
}

static json_t *messages_json(const mhp_message_records *messages)
{
    if (messages->unknown) {
        return json_null();
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "of", mhp_message_mover_text(messages->mover), "events_us",
                     number(messages->events_us), "records_us", number(messages->records_us), "difference_percent",
                     number(100 * mhp_kernels_difference(messages->events_us, messages->records_us)));
}

/* Why messages have no reading by records though ranks have records; else null. */
static json_t *no_messages_json(const mhp_analysis *analysis)
{
    const char *unknown = analysis->messages.unknown;

    return unknown && mhp_kernels_recorded(analysis) > 0 ? json_string(unknown) : json_null();
}

static json_t *rank_json(const mhp_analysis *analysis, int rank)
{
    const mhp_rank_figures *figures = &analysis->mean[rank];
    json_t *object = json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "rank", rank, "step_us",
                               number(figures->step_us), "compute_us", number(figures->compute_us), "exposed_us",
                               number(figures->exposed_us), "bubble_us", number(figures->bubble_us), "other_us",
                               number(figures->other_us), "transfer_us", number(mhp_figures_transfer_us(figures)),
                               "hidden_share", number(mhp_figures_hidden_share(figures)), "messages",
                               number(figures->message_count), "message_bytes", number(figures->message_bytes),
                               "waited_for_us", number(figures->waited_for_us), "path_us", number(figures->path_us));

    json_object_set_new(object, "groups_us", passes_json(figures->group_us));
    json_object_set_new(object, "norm_us", number(figures->phase_us[MHP_TRACE_NORM]));
    json_object_set_new(object, "update_us", number(figures->phase_us[MHP_TRACE_UPDATE]));
    json_object_set_new(object, "transfers", transfers_json(figures));
    json_object_set_new(object, "records", kernels_json(analysis, rank));
    json_object_set_new(object, "no_records", no_kernels_json(&analysis->set->ranks[rank]));
    return object;
}

static json_t *path_json(const mhp_path_figures *path)
{
    json_t *transfers = json_object();

    for (int cause = 0; cause < MHP_CAUSE_COUNT; cause++) {
        json_object_set_new(transfers, mhp_trace_cause_text((mhp_trace_cause)cause), number(path->transfer_us[cause]));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "length_us", number(path->length_us), "groups_us",
                     passes_json(path->group_us), "transfers_us", transfers, "optimizer_us", number(path->phase_us),
                     "other_us", number(path->other_us));
}

static json_t *run_json(const mhp_profile_report *report)
{
    static const char *const devices[] = {"cpu", "test", "cuda"};
    const mhp_trace *trace = &report->analysis->set->ranks[0];
    int device = trace->device >= 0 && trace->device <= MHP_DEVICE_CUDA ? trace->device : 0;

    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:s, s:I, s:i, s:I}", "schedule", report->plan->name, "ranks",
                     report->analysis->rank_count, "pipeline_ranks", report->plan->rank_count, "stages",
                     report->plan->stage_count, "microbatches", report->plan->microbatch_count, "streams",
                     trace->streams, "device", devices[device], "first_step", (json_int_t)trace->first_step + 1,
                     "steps", trace->step_count, "median_step",
                     (json_int_t)report->analysis->steps[report->analysis->median].step + 1);
}

static json_t *clock_json(const mhp_clocks *clocks)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:o}", "error_us", number(clocks->error_us), "drift_ppm",
                     number(clocks->drift_ppm), "shift_us", number(clocks->shift_most_us), "links_that_do_not_fit",
                     (json_int_t)clocks->clamped_count, "misfit_us", number(clocks->clamped_most_us));
}

static json_t *recording_json(const mhp_analysis *analysis)
{
    const mhp_trace *trace = &analysis->set->ranks[0];

    return json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "marks_a_step", (json_int_t)trace->mark_count, "transfers_a_step",
                     (json_int_t)analysis->transfers_a_step, "mark_ns", number(trace->mark_ns), "marks_share",
                     number(analysis->marks_share), "transfers_share", number(analysis->transfers_share), "share",
                     number(analysis->marks_share + analysis->transfers_share), "reading_share", number(analysis->resolve_share));
}

static json_t *lists_json(const mhp_profile_report *report, json_t *root)
{
    const mhp_analysis *analysis = report->analysis;
    json_t *ranks = json_array(), *stragglers = json_array(), *steps = json_array(), *what_if = json_array(),
           *words = json_object();

    for (int i = 0; i < analysis->rank_count; i++) {
        int rank = analysis->ranking[i];

        json_array_append_new(ranks, rank_json(analysis, i));
        json_array_append_new(stragglers, json_pack("{s:i, s:o}", "rank", rank, "waited_for_us",
                                                    number(analysis->mean[rank].waited_for_us)));
    }
    for (int i = 0; i < analysis->step_count; i++) {
        json_array_append_new(steps, json_pack("{s:I, s:o}", "step", (json_int_t)analysis->steps[i].step + 1, "step_us",
                                               number(analysis->steps[i].timeline.end_us)));
    }
    for (int i = 0; i < MHP_WHAT_IF_COUNT; i++) {
        const mhp_what_if *item = &report->what_if[i];

        json_array_append_new(what_if, json_pack("{s:s, s:s, s:o, s:o}", "name", item->name, "if", item->words,
                                                 "step_us", number(item->step_us), "saves_us", number(item->saves_us)));
    }
    for (const mhp_definition *definition = mhp_profile_definitions; definition->term; definition++) {
        json_object_set_new(words, definition->term, json_string(definition->text));
    }
    json_object_set_new(root, "energy", mhp_report_energy_json(report->energy));
    json_object_set_new(root, "ranks", ranks);
    json_object_set_new(root, "messages_by_records", messages_json(&analysis->messages));
    json_object_set_new(root, "no_messages_by_records", no_messages_json(analysis));
    json_object_set_new(root, "stragglers", stragglers);
    json_object_set_new(root, "steps", steps);
    json_object_set_new(root, "what_if", what_if);
    json_object_set_new(root, "definitions", words);
    return root;
}

mhp_status mhp_profile_report_json(const mhp_profile_report *report, json_t **json_out)
{
    const mhp_analysis *analysis = report->analysis;
    json_t *root = json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "format", "mhcpipe report", "version", 1,
                             "run", run_json(report), "clock", clock_json(&analysis->clocks), "recording",
                             recording_json(analysis), "mean_step_us", number(analysis->mean_step_us),
                             "measured_plan_us", number(report->measured.plan_us), "simulated_plan_us",
                             number(report->planned.makespan_us), "critical_path", path_json(&analysis->mean_path));

    if (!root) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot build the report");
    }
    *json_out = lists_json(report, root);
    return MHP_OK;
}
