#include "scheduler/report.h"

#include <errno.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/bound.h"

static mhp_status simulate_free_messages(const mhp_plan *plan, const mhp_simulate_params *params,
                                         double *makespan_us_out)
{
    mhp_costs costs = *params->costs;
    mhp_simulate_params free_params = {.costs = &costs, .early_gradient = params->early_gradient};
    mhp_simulation simulation;
    mhp_status status;

    costs.links = (mhp_section_list){0};
    status = mhp_simulate(plan, &free_params, &simulation);
    *makespan_us_out = simulation.makespan_us;
    mhp_simulation_release(&simulation);
    return status;
}

mhp_status mhp_plan_report_create(const mhp_plan *plan, const mhp_simulate_params *params, const char *time_unit,
                                  mhp_plan_report *report_out)
{
    *report_out = (mhp_plan_report){
        .plan = plan, .costs = params->costs, .time_unit = time_unit, .early_gradient = params->early_gradient};
    MHP_RETURN_IF_ERROR(mhp_simulate(plan, params, &report_out->simulation));
    report_out->free_messages_us = report_out->simulation.makespan_us;
    if (params->costs->links.count > 0) {
        MHP_RETURN_IF_ERROR(simulate_free_messages(plan, params, &report_out->free_messages_us));
    }
    report_out->microbatch_us = mhp_microbatch_us(plan, params->costs);
    return mhp_lower_bound(plan, params->costs, &report_out->bound_us);
}

void mhp_plan_report_release(mhp_plan_report *report)
{
    mhp_simulation_release(&report->simulation);
    *report = (mhp_plan_report){0};
}

double mhp_report_microbatches(const mhp_plan_report *report)
{
    return report->microbatch_us > 0 ? report->simulation.makespan_us / report->microbatch_us : 0;
}

double mhp_report_distance(const mhp_plan_report *report)
{
    return report->bound_us > 0 ? report->simulation.makespan_us / report->bound_us - 1 : 0;
}

static mhp_status check_stream(FILE *stream)
{
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the report: %s", strerror(errno)) : MHP_OK;
}

static double share(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static double mean_exposed_us(const mhp_simulation *simulation)
{
    double sum_us = 0;

    for (int r = 0; r < simulation->rank_count; r++) {
        sum_us += simulation->ranks[r].exposed_us;
    }
    return sum_us / simulation->rank_count;
}

/* ---- the table ---- */

static void write_path(const mhp_plan_report *report, FILE *stream)
{
    static const char *const words[] = {"compute", "messages", "reduction", "optimizer"};
    double parts_us[sizeof words / sizeof *words] = {0};
    const char *joint = "";

    for (size_t i = 0; i < report->simulation.path_count; i++) {
        const mhp_path_step *step = &report->simulation.path[i];

        parts_us[step->kind] += step->end_us - step->start_us;
    }
    fprintf(stream, "critical path   ");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (parts_us[i] > 0) {
            fprintf(stream, "%s%s %.1f %%", joint, words[i], share(parts_us[i], report->simulation.makespan_us));
            joint = ", ";
        }
    }
    fputc('\n', stream);
}

static void write_whole(const mhp_plan_report *report, FILE *stream)
{
    const mhp_simulation *simulation = &report->simulation;
    const char *unit = report->time_unit[0] ? report->time_unit : "units";

    fprintf(stream, "makespan        %.6g %s, the work of %.2f micro-batches\n", simulation->makespan_us, unit,
            mhp_report_microbatches(report));
    fprintf(stream, "lower bound     %.6g %s; the makespan is %.2f %% above it\n", report->bound_us, unit,
            100 * mhp_report_distance(report));
    fprintf(stream, "bubble          worst %.1f %%, mean %.1f %%\n", 100 * mhp_simulation_worst_bubble(simulation),
            100 * mhp_simulation_mean_bubble(simulation));
    if (report->costs->links.count > 0) {
        fprintf(stream, "messages        exposed %.1f %% on average; free ones would save %.1f %%\n",
                share(mean_exposed_us(simulation), simulation->makespan_us),
                share(simulation->makespan_us - report->free_messages_us, simulation->makespan_us));
    }
    if (simulation->reduce_exposed_us > 0) {
        fprintf(stream, "reduction       exposed %.1f %%\n",
                share(simulation->reduce_exposed_us, simulation->makespan_us));
    }
    write_path(report, stream);
    fprintf(stream, "a full backward's gradient leaves %s\n",
            report->early_gradient ? "when its I is done" : "at its end");
}

static int slots_of(const mhp_plan *plan, int rank, mhp_slot_class class_)
{
    int count = 0;

    for (int i = 0; i < plan->ranks[rank].stage_count; i++) {
        count += plan->ranks[rank].stages[i].count[class_];
    }
    return count;
}

static void write_rank(const mhp_plan_report *report, int rank, FILE *stream)
{
    const mhp_rank_simulation *out = &report->simulation.ranks[rank];
    double makespan_us = report->simulation.makespan_us;

    fprintf(stream, "%5d %7.1f %% %7.1f %% %11d %8d", rank, share(out->bubble_us, makespan_us),
            share(out->exposed_us, makespan_us), out->activations_peak, out->held_peak);
    if (report->plan->lowered) {
        fprintf(stream, " %7zu %10.2f %7d %10d", out->message_count, (double)out->message_bytes / (1 << 20),
                slots_of(report->plan, rank, MHP_SLOT_INPUT), slots_of(report->plan, rank, MHP_SLOT_GRADIENT_INPUT));
    }
    if (mhp_simulation_peak_bytes(&report->simulation) > 0) {
        fprintf(stream, " %10.2f", (double)out->bytes_peak / (1 << 20));
    }
    fputc('\n', stream);
}

mhp_status mhp_report_write_table(const mhp_plan_report *report, FILE *stream)
{
    bool has_bytes = mhp_simulation_peak_bytes(&report->simulation) > 0;

    write_whole(report, stream);
    fprintf(stream, "\n%5s %9s %9s %11s %8s", "rank", "bubble", "exposed", "activations", "W queue");
    fprintf(stream, "%s%s\n", report->plan->lowered ? "   sends   sent MiB  states  gradients" : "",
            has_bytes ? "   peak MiB" : "");
    for (int r = 0; r < report->plan->rank_count; r++) {
        write_rank(report, r, stream);
    }
    if (report->plan->lowered) {
        fprintf(stream, "states and gradients: slots for what the rank receives, a micro-batch each\n");
    }
    return check_stream(stream);
}

/* ---- comparison ---- */

mhp_status mhp_report_write_comparison_head(FILE *stream)
{
    fprintf(stream, "%-20s %6s %6s %12s %12s %11s %7s %7s %9s %11s %8s %10s\n", "schedule", "stages", "chunks",
            "makespan", "micro-batches", "above bound", "worst", "mean", "exposed", "activations", "W queue",
            "peak MiB");
    return check_stream(stream);
}

mhp_status mhp_report_write_comparison_row(const mhp_plan_report *report, FILE *stream)
{
    const mhp_simulation *simulation = &report->simulation;
    int activations = 0, held = 0;

    for (int r = 0; r < simulation->rank_count; r++) {
        activations =
            simulation->ranks[r].activations_peak > activations ? simulation->ranks[r].activations_peak : activations;
        held = simulation->ranks[r].held_peak > held ? simulation->ranks[r].held_peak : held;
    }
    fprintf(stream, "%-20s %6d %6.3g %12.6g %13.2f %9.2f %% %5.1f %% %5.1f %% %7.1f %% %11d %8d %10.2f\n",
            report->plan->name, report->plan->stage_count, (double)report->plan->stage_count / report->plan->rank_count,
            simulation->makespan_us, mhp_report_microbatches(report), 100 * mhp_report_distance(report),
            100 * mhp_simulation_worst_bubble(simulation), 100 * mhp_simulation_mean_bubble(simulation),
            share(mean_exposed_us(simulation), simulation->makespan_us), activations, held,
            (double)mhp_simulation_peak_bytes(simulation) / (1 << 20));
    return check_stream(stream);
}
