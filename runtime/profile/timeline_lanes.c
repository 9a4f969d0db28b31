#include "runtime/profile/timeline_internal.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"

static int compare_starts(const void *left, const void *right)
{
    const mhp_timed_span *a = left, *b = right;

    return (a->start_us > b->start_us) - (a->start_us < b->start_us);
}

static void add_piece(mhp_timed_rank *rank, const mhp_timed_span *whole, double start_us, double end_us)
{
    mhp_timed_span *piece = &rank->spans[rank->span_count++];

    *piece = *whole;
    piece->start_us = start_us;
    piece->end_us = end_us;
}

/* A wait of compute, less what other lanes did meanwhile. Groups before `first` ended before it; the number of these now. */
static size_t fill_wait(mhp_timed_rank *rank, const mhp_timed_span *wait, size_t first)
{
    double now_us = wait->start_us;

    while (first < rank->beside_count && rank->beside[first].end_us <= now_us) {
        first++;
    }
    for (size_t i = first; i < rank->beside_count && rank->beside[i].start_us < wait->end_us; i++) {
        const mhp_timed_span *group = &rank->beside[i];
        double start_us = fmax(group->start_us, now_us), end_us = fmin(group->end_us, wait->end_us);

        if (end_us > start_us) {
            if (start_us > now_us) {
                add_piece(rank, wait, now_us, start_us);
            }
            add_piece(rank, group, start_us, end_us);
            now_us = end_us;
        }
    }
    if (now_us < wait->end_us || now_us == wait->start_us) {
        add_piece(rank, wait, now_us, wait->end_us);
    }
    return first;
}

mhp_status mhp_timed_rank_join_lanes(mhp_timed_rank *rank, const mhp_timed_span *compute, size_t count)
{
    size_t first = 0;

    /* A group cuts a wait in two; of those that go on behind a wait one is cut there, and what is left of it cuts the next one. */
    MHP_RETURN_IF_ERROR(mhp_calloc(&rank->spans, 3 * count + 2 * rank->beside_count, sizeof *rank->spans));
    qsort(rank->beside, rank->beside_count, sizeof *rank->beside, compare_starts);
    for (size_t i = 0; i < count; i++) {
        if (compute[i].span->kind == MHP_TRACE_WAIT) {
            first = fill_wait(rank, &compute[i], first);
        } else {
            add_piece(rank, &compute[i], compute[i].start_us, compute[i].end_us);
        }
    }
    return MHP_OK;
}
