#include "runtime/profile/analyse.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"

enum { PIECES_MAX = 3 }; /* of a wait: bubble, exposed, other */
enum { MARKS_A_TRANSFER = 2 };

/* ---- waits ---- */

static void add_piece(mhp_idle *pieces, size_t *count, mhp_idle piece)
{
    if (piece.end_us > piece.start_us) {
        pieces[(*count)++] = piece;
    }
}

/* Up to the moment when the last of what was awaited could set off, it is a bubble; then exposed, until the last has
 * arrived. */
static size_t cut_wait(const mhp_timeline *timeline, const mhp_timed_wait *wait, mhp_idle *pieces)
{
    double setoff_us = wait->start_us, arrived_us = wait->start_us;
    int late = -1, last = -1, blamed = -1;
    size_t count = 0;

    for (int i = 0; i < wait->awaited_count; i++) {
        const mhp_transfer *transfer = &timeline->transfers[wait->awaited[i]];

        if (transfer->setoff_us > setoff_us) {
            setoff_us = fmin(transfer->setoff_us, wait->end_us);
            late = wait->awaited[i];
            blamed = transfer->made_us >= transfer->posted_us ? transfer->source : transfer->target;
        }
        if (transfer->arrived_us > arrived_us) {
            arrived_us = fmin(transfer->arrived_us, wait->end_us);
            last = wait->awaited[i];
        }
    }
    add_piece(pieces, &count, (mhp_idle){MHP_IDLE_BUBBLE, late, blamed, wait->start_us, setoff_us});
    add_piece(pieces, &count, (mhp_idle){MHP_IDLE_EXPOSED, last, -1, setoff_us, arrived_us});
    add_piece(pieces, &count, (mhp_idle){MHP_IDLE_OTHER, -1, -1, fmax(setoff_us, arrived_us), wait->end_us});
    return count;
}

static mhp_status cut_waits(mhp_step_analysis *analysis, int rank)
{
    const mhp_timed_rank *timed = &analysis->timeline.ranks[rank];
    size_t waits = 0;

    for (size_t i = 0; i < timed->span_count; i++) {
        waits += timed->spans[i].span->kind == MHP_TRACE_WAIT;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&analysis->idle[rank], waits * PIECES_MAX, sizeof **analysis->idle));
    for (size_t i = 0; i < timed->span_count;) {
        mhp_timed_wait wait;

        if (timed->spans[i].span->kind != MHP_TRACE_WAIT) {
            i++;
            continue;
        }
        wait = mhp_timeline_wait(timed, i);
        i = wait.end;
        analysis->idle_count[rank] +=
            cut_wait(&analysis->timeline, &wait, analysis->idle[rank] + analysis->idle_count[rank]);
    }
    return MHP_OK;
}

/* ---- hidden transfers ---- */

/* How much of the time before a moment the rank computed; `before` is the sum up to each span. */
static double computed_us(const mhp_timed_rank *timed, const double *before_us, double time_us)
{
    size_t low = 0, high = timed->span_count;
    const mhp_timed_span *span;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (timed->spans[middle].start_us <= time_us) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return 0;
    }
    span = &timed->spans[low - 1];
    return before_us[low - 1] + (mhp_span_computes(span->span) ? fmin(time_us, span->end_us) - span->start_us : 0);
}

static mhp_status sum_transfers(mhp_step_analysis *analysis, int rank)
{
    const mhp_timed_rank *timed = &analysis->timeline.ranks[rank];
    mhp_rank_figures *figures = &analysis->ranks[rank];
    double *before_us = NULL;
    double sum_us = 0;

    MHP_RETURN_IF_ERROR(mhp_calloc(&before_us, timed->span_count, sizeof *before_us));
    for (size_t i = 0; i < timed->span_count; i++) {
        before_us[i] = sum_us;
        sum_us += mhp_span_computes(timed->spans[i].span) ? timed->spans[i].end_us - timed->spans[i].start_us : 0;
    }
    for (size_t i = 0; i < analysis->timeline.transfer_count; i++) {
        const mhp_transfer *transfer = &analysis->timeline.transfers[i];
        bool message = transfer->cause == MHP_CAUSE_STATE || transfer->cause == MHP_CAUSE_GRADIENT;

        if (transfer->target == rank) {
            figures->transfer_us[transfer->cause] += transfer->arrived_us - transfer->start_us;
            figures->hidden_us[transfer->cause] +=
                computed_us(timed, before_us, transfer->arrived_us) - computed_us(timed, before_us, transfer->start_us);
            figures->message_count += message;
            figures->message_bytes += message ? (double)transfer->bytes : 0;
        }
    }
    mhp_free(before_us);
    return MHP_OK;
}

/* ---- sums ---- */

static void sum_spans(mhp_step_analysis *analysis, int rank)
{
    const mhp_timed_rank *timed = &analysis->timeline.ranks[rank];
    mhp_rank_figures *figures = &analysis->ranks[rank];
    double first_us = timed->span_count > 0 ? timed->spans[0].start_us : timed->end_us;
    double last_us = timed->span_count > 0 ? timed->spans[timed->span_count - 1].end_us : timed->end_us;

    figures->step_us = timed->end_us - timed->begin_us;
    figures->other_us = first_us - timed->begin_us + timed->end_us - last_us;
    for (size_t i = 0; i < timed->span_count; i++) {
        const mhp_trace_span *span = timed->spans[i].span;
        double took_us = timed->spans[i].end_us - timed->spans[i].start_us;

        if (span->kind == MHP_TRACE_GROUP) {
            figures->group_us[span->pass][span->part] += took_us;
        } else if (span->kind == MHP_TRACE_PHASE) {
            figures->phase_us[span->part] += took_us;
        }
        if (mhp_span_computes(span)) {
            figures->compute_us += took_us;
        } else if (span->kind == MHP_TRACE_PHASE) {
            figures->other_us += took_us;
        }
    }
}

static void sum_idle(mhp_step_analysis *analysis, int rank)
{
    mhp_rank_figures *figures = &analysis->ranks[rank];

    for (size_t i = 0; i < analysis->idle_count[rank]; i++) {
        const mhp_idle *idle = &analysis->idle[rank][i];
        double took_us = idle->end_us - idle->start_us;

        switch (idle->kind) {
        case MHP_IDLE_EXPOSED:
            figures->exposed_us += took_us;
            figures->exposed_of_us[analysis->timeline.transfers[idle->transfer].cause] += took_us;
            break;
        case MHP_IDLE_BUBBLE:
            figures->bubble_us += took_us;
            figures->bubble_of_us[analysis->timeline.transfers[idle->transfer].cause] += took_us;
            analysis->ranks[idle->blamed].waited_for_us += idle->blamed != rank ? took_us : 0;
            break;
        default:
            figures->other_us += took_us;
            break;
        }
    }
}

static void sum_path(mhp_step_analysis *analysis)
{
    mhp_path_figures *figures = &analysis->path_figures;

    for (size_t i = 0; i < analysis->path_count; i++) {
        const mhp_path_item *item = &analysis->path[i];
        double took_us = item->end_us - item->start_us;
        const mhp_timed_span *spans = analysis->timeline.ranks[item->rank].spans;

        figures->length_us += took_us;
        switch (item->part) {
        case MHP_PATH_OF_COMPUTE:
            figures->group_us[spans[item->index].span->pass][spans[item->index].span->part] += took_us;
            analysis->ranks[item->rank].path_us += took_us;
            break;
        case MHP_PATH_OF_PHASE:
            figures->phase_us += took_us;
            analysis->ranks[item->rank].path_us += took_us;
            break;
        case MHP_PATH_OF_TRANSFER:
            figures->transfer_us[analysis->timeline.transfers[item->index].cause] += took_us;
            break;
        default:
            figures->other_us += took_us;
            break;
        }
    }
}

mhp_status mhp_analyse_step(const mhp_trace_set *set, const mhp_clocks *clocks, int step,
                            mhp_step_analysis *analysis_out)
{
    size_t count = (size_t)set->count;

    *analysis_out = (mhp_step_analysis){.step = set->ranks[0].first_step + step};
    MHP_RETURN_IF_ERROR(mhp_timeline_create(set, clocks, step, &analysis_out->timeline));
    MHP_RETURN_IF_ERROR(mhp_calloc(&analysis_out->idle, count, sizeof *analysis_out->idle));
    MHP_RETURN_IF_ERROR(mhp_calloc(&analysis_out->idle_count, count, sizeof *analysis_out->idle_count));
    MHP_RETURN_IF_ERROR(mhp_calloc(&analysis_out->ranks, count, sizeof *analysis_out->ranks));
    for (int rank = 0; rank < set->count; rank++) {
        MHP_RETURN_IF_ERROR(cut_waits(analysis_out, rank));
        sum_spans(analysis_out, rank);
        sum_idle(analysis_out, rank);
        MHP_RETURN_IF_ERROR(sum_transfers(analysis_out, rank));
    }
    MHP_RETURN_IF_ERROR(mhp_trace_critical_path(analysis_out));
    sum_path(analysis_out);
    return MHP_OK;
}

void mhp_step_analysis_release(mhp_step_analysis *analysis)
{
    for (int rank = 0; analysis->idle && rank < analysis->timeline.rank_count; rank++) {
        mhp_free(analysis->idle[rank]);
    }
    mhp_free(analysis->idle);
    mhp_free(analysis->idle_count);
    mhp_free(analysis->ranks);
    mhp_free(analysis->path);
    mhp_timeline_release(&analysis->timeline);
    *analysis = (mhp_step_analysis){0};
}

/* ---- all steps ---- */

/* Figures are structs of doubles alone. */
static void add_doubles(void *sum, const void *part, size_t bytes, double factor)
{
    double *to = sum;
    const double *from = part;

    for (size_t i = 0; i < bytes / sizeof *to; i++) {
        to[i] += factor * from[i];
    }
}

static void average(mhp_analysis *analysis)
{
    double factor = 1.0 / analysis->step_count;

    for (int s = 0; s < analysis->step_count; s++) {
        const mhp_step_analysis *step = &analysis->steps[s];

        for (int rank = 0; rank < analysis->rank_count; rank++) {
            add_doubles(&analysis->mean[rank], &step->ranks[rank], sizeof *analysis->mean, factor);
        }
        add_doubles(&analysis->mean_path, &step->path_figures, sizeof analysis->mean_path, factor);
        analysis->mean_step_us += factor * step->timeline.end_us;
    }
}

/* Ties go to the lower number. */
static int find_median(const mhp_analysis *analysis)
{
    for (int s = 0; s < analysis->step_count; s++) {
        int before = 0;

        for (int other = 0; other < analysis->step_count; other++) {
            double difference = analysis->steps[other].timeline.end_us - analysis->steps[s].timeline.end_us;

            before += difference < 0 || (difference == 0 && other < s);
        }
        if (before == (analysis->step_count - 1) / 2) {
            return s;
        }
    }
    return 0;
}

static void rank_stragglers(mhp_analysis *analysis)
{
    for (int i = 0; i < analysis->rank_count; i++) {
        int place = i;

        while (place > 0 &&
               analysis->mean[analysis->ranking[place - 1]].waited_for_us < analysis->mean[i].waited_for_us) {
            analysis->ranking[place] = analysis->ranking[place - 1];
            place--;
        }
        analysis->ranking[place] = i;
    }
}

/* Most transfers that a rank recorded in one step. */
static int64_t count_transfers(const mhp_trace *trace)
{
    int64_t most = 0;

    for (int step = 0; step < trace->step_count; step++) {
        size_t count;
        const mhp_trace_span *spans = mhp_trace_step(trace, step, &count);
        int64_t transfers = 0;

        for (size_t i = 0; i < count; i++) {
            transfers += spans[i].kind == MHP_TRACE_MESSAGE || spans[i].kind == MHP_TRACE_COLLECTIVE;
        }
        most = transfers > most ? transfers : most;
    }
    return most;
}

static void weigh_recording(mhp_analysis *analysis)
{
    for (int rank = 0; rank < analysis->rank_count && analysis->mean_step_us > 0; rank++) {
        const mhp_trace *trace = &analysis->set->ranks[rank];
        int64_t transfers = count_transfers(trace);
        double marks_us = 1e-3 * trace->mark_ns * (double)trace->mark_count;
        double transfers_us = 1e-3 * trace->mark_ns * MARKS_A_TRANSFER * (double)transfers;
        double resolve_us = 1e-3 * (double)trace->resolve_ns / analysis->step_count;

        analysis->transfers_a_step = transfers > analysis->transfers_a_step ? transfers : analysis->transfers_a_step;
        analysis->transfers_share = fmax(analysis->transfers_share, transfers_us / analysis->mean_step_us);
        analysis->marks_share = fmax(analysis->marks_share, marks_us / analysis->mean_step_us);
        analysis->resolve_share = fmax(analysis->resolve_share, resolve_us / analysis->mean_step_us);
    }
}

/* What the card's own records say of all steps. */
static mhp_status read_kernels(mhp_analysis *analysis)
{
    double factor = 1.0 / analysis->step_count;

    MHP_RETURN_IF_ERROR(mhp_calloc(&analysis->kernels, (size_t)analysis->rank_count, sizeof *analysis->kernels));
    mhp_message_records_begin(analysis->set, &analysis->messages);
    for (int s = 0; s < analysis->step_count; s++) {
        const mhp_timeline *timeline = &analysis->steps[s].timeline;

        MHP_RETURN_IF_ERROR(mhp_message_records_add(analysis->set, &analysis->clocks, timeline, &analysis->messages));
        for (int rank = 0; rank < analysis->rank_count; rank++) {
            mhp_kernel_figures figures = {0};

            MHP_RETURN_IF_ERROR(mhp_kernels_measure(analysis->set, &analysis->clocks, timeline, rank, &figures));
            add_doubles(&analysis->kernels[rank], &figures, sizeof figures, factor);
        }
    }
    for (int rank = 0; rank < analysis->rank_count; rank++) {
        const double *transfer_us = analysis->mean[rank].transfer_us;

        analysis->messages.events_us += transfer_us[MHP_CAUSE_STATE] + transfer_us[MHP_CAUSE_GRADIENT];
    }
    return MHP_OK;
}

mhp_status mhp_analyse(const mhp_trace_set *set, mhp_analysis *analysis_out)
{
    *analysis_out = (mhp_analysis){.set = set, .rank_count = set->count};
    MHP_RETURN_IF_ERROR(mhp_clocks_create(set, &analysis_out->clocks));
    MHP_RETURN_IF_ERROR(
        mhp_calloc(&analysis_out->steps, (size_t)set->ranks[0].step_count, sizeof *analysis_out->steps));
    for (int step = 0; step < set->ranks[0].step_count; step++) {
        analysis_out->step_count++;
        MHP_RETURN_IF_ERROR(mhp_analyse_step(set, &analysis_out->clocks, step, &analysis_out->steps[step]));
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&analysis_out->mean, (size_t)set->count, sizeof *analysis_out->mean));
    MHP_RETURN_IF_ERROR(mhp_calloc(&analysis_out->ranking, (size_t)set->count, sizeof *analysis_out->ranking));
    average(analysis_out);
    analysis_out->median = find_median(analysis_out);
    rank_stragglers(analysis_out);
    weigh_recording(analysis_out);
    return read_kernels(analysis_out);
}

void mhp_analysis_release(mhp_analysis *analysis)
{
    for (int step = 0; step < analysis->step_count; step++) {
        mhp_step_analysis_release(&analysis->steps[step]);
    }
    mhp_free(analysis->steps);
    mhp_free(analysis->mean);
    mhp_free(analysis->ranking);
    mhp_free(analysis->kernels);
    mhp_clocks_release(&analysis->clocks);
    *analysis = (mhp_analysis){0};
}

int mhp_kernels_recorded(const mhp_analysis *analysis)
{
    int count = 0;

    for (int rank = 0; rank < analysis->rank_count; rank++) {
        count += analysis->set->ranks[rank].kernels == MHP_TRACE_KERNELS_ON;
    }
    return count;
}

double mhp_figures_transfer_us(const mhp_rank_figures *figures)
{
    double sum_us = 0;

    for (int cause = 0; cause < MHP_CAUSE_COUNT; cause++) {
        sum_us += figures->transfer_us[cause];
    }
    return sum_us;
}

double mhp_figures_hidden_share(const mhp_rank_figures *figures)
{
    double transfer_us = mhp_figures_transfer_us(figures), hidden_us = 0;

    for (int cause = 0; cause < MHP_CAUSE_COUNT; cause++) {
        hidden_us += figures->hidden_us[cause];
    }
    return transfer_us > 0 ? hidden_us / transfer_us : NAN;
}

double mhp_figures_pass_us(const mhp_rank_figures *figures, mhp_pass pass)
{
    double sum_us = 0;

    for (int part = 0; part < MHP_PART_COUNT; part++) {
        sum_us += figures->group_us[pass][part];
    }
    return sum_us;
}

double mhp_figures_part_us(const mhp_rank_figures *figures, mhp_step_part part)
{
    double sum_us = 0;

    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        sum_us += figures->group_us[pass][part];
    }
    return sum_us;
}
