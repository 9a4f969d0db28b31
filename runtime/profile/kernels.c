#include "runtime/profile/kernels.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"

/* ---- intervals ---- */

static int compare_starts(const void *left, const void *right)
{
    const mhp_interval *a = left, *b = right;

    return (a->start_us > b->start_us) - (a->start_us < b->start_us);
}

size_t mhp_intervals_merge(mhp_interval *intervals, size_t count)
{
    size_t kept = 0;

    qsort(intervals, count, sizeof *intervals, compare_starts);
    for (size_t i = 0; i < count; i++) {
        if (intervals[i].end_us <= intervals[i].start_us) {
            continue;
        }
        if (kept > 0 && intervals[i].start_us <= intervals[kept - 1].end_us) {
            intervals[kept - 1].end_us = fmax(intervals[kept - 1].end_us, intervals[i].end_us);
        } else {
            intervals[kept++] = intervals[i];
        }
    }
    return kept;
}

double mhp_intervals_length(const mhp_interval *intervals, size_t count)
{
    double sum_us = 0;

    for (size_t i = 0; i < count; i++) {
        sum_us += intervals[i].end_us - intervals[i].start_us;
    }
    return sum_us;
}

double mhp_intervals_common(const mhp_interval *left, size_t left_count, const mhp_interval *right, size_t right_count)
{
    double sum_us = 0;
    size_t l = 0, r = 0;

    while (l < left_count && r < right_count) {
        double common_us = fmin(left[l].end_us, right[r].end_us) - fmax(left[l].start_us, right[r].start_us);

        sum_us += fmax(common_us, 0);
        if (left[l].end_us < right[r].end_us) {
            l++;
        } else {
            r++;
        }
    }
    return sum_us;
}

static double if_short(double gap_us, double shorter_us)
{
    return gap_us > 0 && gap_us < shorter_us ? gap_us : 0;
}

double mhp_intervals_gaps(const mhp_interval *intervals, size_t count, const mhp_interval *stretches,
                          size_t stretch_count, double shorter_us)
{
    double sum_us = 0;
    size_t i = 0;

    for (size_t s = 0; s < stretch_count; s++) {
        double now_us = stretches[s].start_us;

        while (i < count && intervals[i].end_us <= now_us) {
            i++;
        }
        for (; i < count && intervals[i].start_us < stretches[s].end_us; i++) {
            sum_us += if_short(intervals[i].start_us - now_us, shorter_us);
            now_us = intervals[i].end_us;
            if (now_us > stretches[s].end_us) {
                break; /* the next stretch may begin in it */
            }
        }
        sum_us += if_short(stretches[s].end_us - now_us, shorter_us);
    }
    return sum_us;
}

/* ---- a rank's step ---- */

typedef struct interval_list {
    mhp_interval *items;
    size_t count;
} interval_list;

static void add(interval_list *list, double start_us, double end_us)
{
    list->items[list->count++] = (mhp_interval){start_us, end_us};
}

static double merge(interval_list *list)
{
    list->count = mhp_intervals_merge(list->items, list->count);
    return mhp_intervals_length(list->items, list->count);
}

typedef struct step_lists {
    interval_list kernels, lanes, copies; /* of the records */
    interval_list compute, around;        /* of the spans: what computes; phases that do not */
} step_lists;

static mhp_status make_room(step_lists *lists, size_t records, size_t spans)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&lists->kernels.items, records, sizeof(mhp_interval)));
    MHP_RETURN_IF_ERROR(mhp_calloc(&lists->lanes.items, records, sizeof(mhp_interval)));
    MHP_RETURN_IF_ERROR(mhp_calloc(&lists->copies.items, records, sizeof(mhp_interval)));
    MHP_RETURN_IF_ERROR(mhp_calloc(&lists->compute.items, spans, sizeof(mhp_interval)));
    return mhp_calloc(&lists->around.items, spans, sizeof(mhp_interval));
}

static void free_lists(step_lists *lists)
{
    mhp_free(lists->kernels.items);
    mhp_free(lists->lanes.items);
    mhp_free(lists->copies.items);
    mhp_free(lists->compute.items);
    mhp_free(lists->around.items);
}

static bool is_copy(const mhp_record *record)
{
    return record->kind == MHP_RECORD_COPY_CARD || record->kind == MHP_RECORD_COPY_HOST;
}

static void sort_record(step_lists *lists, const mhp_record *record, double start_us, double end_us,
                        mhp_kernel_figures *figures)
{
    if (record->kind == MHP_RECORD_STAMP) {
        return;
    }
    if (record->kind == MHP_RECORD_KERNEL) {
        add(&lists->kernels, start_us, end_us);
        figures->kernel_count++;
    }
    if (is_copy(record)) {
        add(&lists->copies, start_us, end_us);
        figures->copy_bytes += (double)record->bytes;
    }
    if (record->lane >= 0) {
        add(&lists->lanes, start_us, end_us);
    }
}

static void sort_spans(step_lists *lists, const mhp_timed_rank *timed)
{
    for (size_t i = 0; i < timed->span_count; i++) {
        const mhp_timed_span *one = &timed->spans[i];

        if (mhp_span_computes(one->span)) {
            add(&lists->compute, one->start_us, one->end_us);
        } else if (one->span->kind == MHP_TRACE_PHASE) {
            add(&lists->around, one->start_us, one->end_us);
        }
    }
}

mhp_status mhp_kernels_measure(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline,
                               int rank, mhp_kernel_figures *figures_out)
{
    mhp_status status = MHP_OK;
    const mhp_record_list *records = &set->ranks[rank].records;
    const mhp_timed_rank *timed = &timeline->ranks[rank];
    step_lists lists = {0};

    *figures_out = (mhp_kernel_figures){0};
    if (records->count == 0) {
        return MHP_OK;
    }
    MHP_TRY(out, make_room(&lists, records->count, timed->span_count));
    for (size_t i = 0; i < records->count; i++) {
        const mhp_record *record = &records->items[i];
        double start_us = mhp_timeline_us(set, clocks, timeline, rank, record->start_ns);
        double end_us = mhp_timeline_us(set, clocks, timeline, rank, record->end_ns);

        if (start_us >= timed->begin_us && start_us < timed->end_us) {
            sort_record(&lists, record, start_us, end_us, figures_out);
        }
    }
    sort_spans(&lists, timed);
    (void)merge(&lists.compute);
    (void)merge(&lists.around);
    figures_out->kernel_us = merge(&lists.kernels);
    figures_out->copy_us = merge(&lists.copies);
    figures_out->compute_us = merge(&lists.lanes);
    figures_out->compute_us -=
        mhp_intervals_common(lists.lanes.items, lists.lanes.count, lists.around.items, lists.around.count);
    figures_out->gaps_us = mhp_intervals_gaps(lists.lanes.items, lists.lanes.count, lists.compute.items,
                                              lists.compute.count, MHP_LAUNCH_GAP_US);
    figures_out->compute_us += figures_out->gaps_us;
out:
    free_lists(&lists);
    return status;
}

double mhp_kernels_difference(double events_us, double records_us)
{
    return events_us > 0 ? (events_us - records_us) / events_us : 0;
}
