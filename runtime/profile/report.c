#include "runtime/profile/report.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* The same words as in docs/profiling.md, section Definitions: a test compares them. */
const mhp_definition mhp_profile_definitions[] = {
    {"window",
     "from the host's begin of a step to the host's last result of it, on rank 0's clock; averages are "
     "over all recorded steps"},
    {"compute",
     "the compute stream worked (groups of the model, gradient norm, optimizer), or stood still while "
     "another lane of the rank worked. Time in which both worked counts once"},
    {"made",
     "a message is made when the last group of the pass that makes it ends. Of a state in slices, those "
     "that move before that do not show as transfer, and a wait for them is a bubble"},
    {"transfer",
     "of a message: from the latest of made, its receive was posted and the message before it on its "
     "channel arrived, to its arrival. Of a collective: from the last member's entry to its end on this "
     "rank. Counted at the rank that receives. Waiting for the other side is no part of it. Measured where "
     "streams wait, so copies by a card's copy engines count"},
    {"hidden share",
     "transfer time during which the receiving rank computed, over transfer time; not known of a rank "
     "without transfers"},
    {"exposed",
     "the compute stream stood still, and everything that it waited for had been made and posted, but not "
     "all of it had arrived. Waits of a pair's two passes count as one"},
    {"bubble",
     "the compute stream stood still, and something that it waited for was not made yet, or its receive "
     "not posted"},
    {"other",
     "the rest of the window: the host before and behind the stream's work, preparation and reporting, a "
     "check by replay, and the time between the last arrival and the stream's going on. compute + exposed "
     "+ bubble + other = window, on every rank"},
    {"critical path",
     "from the end of the step back to its begin: through compute as it stands; from a wait over the "
     "transfer that arrived last to the moment when it could set off, and from there on at the rank that "
     "made that so. Its shares add up to the step"},
    {"waited for",
     "bubbles of other ranks in which this rank's work was what they waited for, added up; the order of "
     "stragglers"},
    {"energy",
     "what the meters counted from a step's begin to its end: NVML's of each card, RAPL's of each node's "
     "processor packages; of a step the mean over the recorded steps. Of the whole run, J a step and a "
     "token are of all steps; kWh and CO2e (kWh times report.emissions' pue and grams_per_kwh) also of "
     "what was between them, from before the first step to the end. What could not be read is not known, "
     "never 0"},
    {"idle energy",
     "of a meter: its energy of a step, times the share of their windows that the ranks which it serves "
     "stood still, in bubbles or exposed; of a card or a node's packages that several ranks share, the "
     "mean of these ranks' shares. Summed over meters, mean over the recorded steps. A meter does not tell "
     "when within a step it counted: this takes standing still to draw the step's mean power, and is too "
     "high where it draws less"},
    {"kernel time",
     "at least one kernel ran on the rank's card, on any stream, by the driver's own records (CUPTI)"},
    {"compute by records",
     "at least one kernel, copy or set of the streams that compute ran, outside of preparation and "
     "reporting; and the gaps shorter than 10 us between them inside a stretch of compute, which are "
     "launches. Longer ones are not: there the host was late, which events count as compute. Kernels by "
     "which the runtime reads the card's clock around a wait do not count"},
    {"copies",
     "the time in which at least one copy ran on the rank's card, by any engine, and the bytes of all of "
     "them"},
    {"messages by records",
     "of copies that are the messages, how long they took; of NCCL's kernels, from the later begin of the "
     "two that move a message to the end of the receiver's. Not where it is not certain which moved what"},
    {NULL, NULL},
};

/* ---- what if ---- */

static mhp_status simulate_us(const mhp_plan *plan, const mhp_costs *costs, double *step_us_out)
{
    mhp_simulate_params params = {.costs = costs, .early_gradient = true};
    mhp_simulation simulation;
    mhp_status status = mhp_simulate(plan, &params, &simulation);

    *step_us_out = simulation.makespan_us;
    mhp_simulation_release(&simulation);
    return status;
}

static double busiest_us(const mhp_simulation *simulation)
{
    double most_us = 0;

    for (int r = 0; r < simulation->rank_count; r++) {
        most_us = fmax(most_us, simulation->ranks[r].busy_us);
    }
    return most_us;
}

static void sort_what_if(mhp_what_if *items)
{
    for (int i = 1; i < MHP_WHAT_IF_COUNT; i++) {
        for (int k = i; k > 0 && items[k].saves_us > items[k - 1].saves_us; k--) {
            mhp_what_if item = items[k];

            items[k] = items[k - 1];
            items[k - 1] = item;
        }
    }
}

static mhp_status ask_what_if(mhp_profile_report *report)
{
    const mhp_costs *costs = &report->measured.costs;
    mhp_costs no_messages = *costs, no_optimizer = *costs;
    mhp_what_if *items = report->what_if;

    no_messages.links = (mhp_section_list){0};
    no_optimizer.all_reduce_us = no_optimizer.optimizer_us = 0;
    items[0] = (mhp_what_if){.name = "messages", .words = "messages took no time"};
    items[1] = (mhp_what_if){.name = "bubble",
                             .words = "no rank ever waited: the busiest one's work alone",
                             .step_us = busiest_us(&report->planned)};
    items[2] = (mhp_what_if){.name = "connections", .words = "the connections' kernels took no time"};
    items[3] = (mhp_what_if){.name = "optimizer", .words = "reductions and optimizer took no time"};
    MHP_RETURN_IF_ERROR(simulate_us(report->plan, &no_messages, &items[0].step_us));
    MHP_RETURN_IF_ERROR(simulate_us(report->plan, &report->measured.without_connections, &items[2].step_us));
    MHP_RETURN_IF_ERROR(simulate_us(report->plan, &no_optimizer, &items[3].step_us));
    for (int i = 0; i < MHP_WHAT_IF_COUNT; i++) {
        items[i].saves_us = report->planned.makespan_us - items[i].step_us;
    }
    sort_what_if(items);
    return MHP_OK;
}

mhp_status mhp_profile_report_create(const mhp_analysis *analysis, const mhp_plan *plan, const mhp_costs *sizes,
                                     mhp_profile_report *report_out)
{
    mhp_simulate_params params = {.costs = &report_out->measured.costs, .early_gradient = true};

    *report_out = (mhp_profile_report){.analysis = analysis, .plan = plan};
    MHP_RETURN_IF_ERROR(mhp_measured_check(analysis, plan));
    MHP_RETURN_IF_ERROR(mhp_measured_create(analysis, plan, sizes, &report_out->measured));
    MHP_RETURN_IF_ERROR(mhp_simulate(plan, &params, &report_out->planned));
    return ask_what_if(report_out);
}

void mhp_profile_report_release(mhp_profile_report *report)
{
    mhp_simulation_release(&report->planned);
    mhp_measured_release(&report->measured);
    *report = (mhp_profile_report){0};
}

mhp_status mhp_profile_report_step(const mhp_profile_report *report, const mhp_step_analysis *step,
                                   mhp_simulation *simulation_out)
{
    MHP_RETURN_IF_ERROR(mhp_measured_simulation(step, report->plan, simulation_out));
    for (int r = 0; r < simulation_out->rank_count;
         r++) { /* what a rank keeps follows from the order of its actions alone */
        simulation_out->ranks[r].bytes_base = report->planned.ranks[r].bytes_base;
        simulation_out->ranks[r].bytes_peak = report->planned.ranks[r].bytes_peak;
    }
    return MHP_OK;
}

/* ---- the table ---- */

static double share(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static void write_head(const mhp_profile_report *report, FILE *stream)
{
    const mhp_analysis *analysis = report->analysis;
    const mhp_trace *trace = &analysis->set->ranks[0];

    fprintf(stream, "%s on %d ranks, %d stages, %d micro-batches; steps %lld to %lld, mean %.3f ms\n",
            report->plan->name, analysis->rank_count, report->plan->stage_count, report->plan->microbatch_count,
            (long long)trace->first_step + 1, (long long)trace->first_step + trace->step_count,
            1e-3 * analysis->mean_step_us);
    fprintf(stream,
            "simulated       %.3f ms from the first action to the last update with the measured costs; measured %.3f "
            "ms (%+.1f %%)\n",
            1e-3 * report->planned.makespan_us, 1e-3 * report->measured.plan_us,
            share(report->measured.plan_us - report->planned.makespan_us, report->planned.makespan_us));
    fprintf(stream, "clocks          right within %.1f us; drift %.2f ppm; moved by messages %.1f us at most",
            analysis->clocks.error_us, analysis->clocks.drift_ppm, analysis->clocks.shift_most_us);
    if (analysis->clocks.clamped_count > 0) {
        fprintf(stream, "; %zu links of ranks do not fit, by %.1f us", analysis->clocks.clamped_count,
                analysis->clocks.clamped_most_us);
    }
    fprintf(stream, "\nrecording       %lld marks and %lld transfers a step, %.3f %% of it; reading them between steps %.3f %%\n\n",
            (long long)trace->mark_count, (long long)analysis->transfers_a_step,
            100 * (analysis->marks_share + analysis->transfers_share), 100 * analysis->resolve_share);
}

static void write_ranks(const mhp_analysis *analysis, FILE *stream)
{
    fprintf(stream, "%5s %10s %9s %9s %9s %9s %12s %8s %12s\n", "rank", "step ms", "compute", "exposed", "bubble",
            "other", "transfer ms", "hidden", "waited for");
    for (int rank = 0; rank < analysis->rank_count; rank++) {
        const mhp_rank_figures *figures = &analysis->mean[rank];

        double hidden = mhp_figures_hidden_share(figures);
        char hidden_text[16] = "-";

        if (!isnan(hidden)) {
            snprintf(hidden_text, sizeof hidden_text, "%.1f %%", 100 * hidden);
        }
        fprintf(stream, "%5d %10.3f %7.1f %% %7.1f %% %7.1f %% %7.1f %% %12.3f %8s %10.1f %%\n", rank,
                1e-3 * figures->step_us, share(figures->compute_us, figures->step_us),
                share(figures->exposed_us, figures->step_us), share(figures->bubble_us, figures->step_us),
                share(figures->other_us, figures->step_us), 1e-3 * mhp_figures_transfer_us(figures),
                hidden_text, share(figures->waited_for_us, figures->step_us));
    }
}

/* ---- the card's own records ---- */

static void write_kernels_head(const mhp_analysis *analysis, FILE *stream)
{
    const char *reason = NULL;
    int64_t lost = 0, error_ns = 0;
    int off = 0;

    for (int rank = 0; rank < analysis->rank_count; rank++) {
        const mhp_trace *trace = &analysis->set->ranks[rank];

        off += trace->kernels == MHP_TRACE_KERNELS_OFF;
        reason = trace->kernels == MHP_TRACE_KERNELS_OFF && !reason ? trace->no_kernels : reason;
        lost += trace->records.lost;
        error_ns = trace->records.clock_error_ns > error_ns ? trace->records.clock_error_ns : error_ns;
    }
    if (off > 0) {
        fprintf(stream, "\nkernels         no records of %d of %d ranks: %s\n", off, analysis->rank_count, reason);
    }
    if (mhp_kernels_recorded(analysis) > 0) {
        fprintf(stream, "\nkernels         the card's records; on the host their clock is read within %.1f us; %lld lost\n", 1e-3 * (double)error_ns,
                (long long)lost);
    }
}

static void write_messages(const mhp_message_records *messages, FILE *stream)
{
    if (!messages->unknown) {
        fprintf(stream, "messages        %.3f ms a step by events, %.3f ms by records of %s (%+.2f %%)\n",
                1e-3 * messages->events_us, 1e-3 * messages->records_us, mhp_message_mover_text(messages->mover),
                100 * mhp_kernels_difference(messages->events_us, messages->records_us));
    } else if (messages->events_us > 0) {
        fprintf(stream, "messages        %.3f ms a step by events, not known by records: %s\n",
                1e-3 * messages->events_us, messages->unknown);
    }
}

static void write_kernels(const mhp_analysis *analysis, FILE *stream)
{
    write_kernels_head(analysis, stream);
    if (mhp_kernels_recorded(analysis) == 0) {
        return;
    }
    fprintf(stream, "%5s %10s %10s %15s %15s %10s %10s %12s\n", "rank", "kernels", "kernel ms", "compute, events",
            "compute, rec.", "apart", "copies ms", "copies MB");
    for (int rank = 0; rank < analysis->rank_count; rank++) {
        const mhp_kernel_figures *figures = &analysis->kernels[rank];
        double compute_us = analysis->mean[rank].compute_us;

        if (analysis->set->ranks[rank].kernels == MHP_TRACE_KERNELS_ON) {
            fprintf(stream, "%5d %10.0f %10.3f %12.3f ms %12.3f ms %+8.2f %% %10.3f %12.3f\n", rank,
                    figures->kernel_count, 1e-3 * figures->kernel_us, 1e-3 * compute_us, 1e-3 * figures->compute_us,
                    100 * mhp_kernels_difference(compute_us, figures->compute_us), 1e-3 * figures->copy_us,
                    1e-6 * figures->copy_bytes);
        }
    }
    write_messages(&analysis->messages, stream);
}

static void write_parts(const mhp_analysis *analysis, FILE *stream)
{
    fprintf(stream, "\n%-16s", "compute, ms");
    for (int part = 0; part < MHP_PART_COUNT; part++) {
        fprintf(stream, " %13s", mhp_part_text((mhp_step_part)part));
    }
    fputc('\n', stream);
    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        double sums_us[MHP_PART_COUNT] = {0}, sum_us = 0;

        for (int rank = 0; rank < analysis->rank_count; rank++) {
            for (int part = 0; part < MHP_PART_COUNT; part++) {
                sums_us[part] += analysis->mean[rank].group_us[pass][part];
                sum_us += analysis->mean[rank].group_us[pass][part];
            }
        }
        if (sum_us > 0) {
            fprintf(stream, "%-16s", mhp_pass_text((mhp_pass)pass));
            for (int part = 0; part < MHP_PART_COUNT; part++) {
                fprintf(stream, " %13.3f", 1e-3 * sums_us[part]);
            }
            fputc('\n', stream);
        }
    }
}

static void write_path(const mhp_path_figures *path, FILE *stream)
{
    fprintf(stream, "\ncritical path  ");
    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        double sum_us = 0;

        for (int part = 0; part < MHP_PART_COUNT; part++) {
            sum_us += path->group_us[pass][part];
        }
        if (sum_us > 0) {
            fprintf(stream, " %s %.1f %%,", mhp_pass_letter((mhp_pass)pass), share(sum_us, path->length_us));
        }
    }
    for (int cause = 0; cause < MHP_CAUSE_COUNT; cause++) {
        if (path->transfer_us[cause] > 0) {
            fprintf(stream, " %s %.1f %%,", mhp_trace_cause_text((mhp_trace_cause)cause),
                    share(path->transfer_us[cause], path->length_us));
        }
    }
    fprintf(stream, " optimizer %.1f %%, other %.1f %%\n", share(path->phase_us, path->length_us),
            share(path->other_us, path->length_us));
}

mhp_status mhp_profile_report_table(const mhp_profile_report *report, FILE *stream)
{
    write_head(report, stream);
    write_ranks(report->analysis, stream);
    write_kernels(report->analysis, stream);
    mhp_report_energy_table(report->energy, stream);
    write_parts(report->analysis, stream);
    write_path(&report->analysis->mean_path, stream);
    fprintf(stream, "\nwhat would help most, by the simulator\n");
    for (int i = 0; i < MHP_WHAT_IF_COUNT; i++) {
        fprintf(stream, "%6.1f %%  if %s\n", share(report->what_if[i].saves_us, report->planned.makespan_us),
                report->what_if[i].words);
    }
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the report: %s", strerror(errno)) : MHP_OK;
}
