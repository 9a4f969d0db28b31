/* The critical path of a measured step: from its end back to its begin, always to what the present part waited for
 * last. */
#include <math.h>

#include "core/memory.h"
#include "runtime/profile/analyse.h"

typedef struct walk {
    mhp_step_analysis *analysis;
    size_t capacity;
    int rank;
    double time_us; /* everything behind it is on the path */
} walk;

/* Appends what lies before the present moment, and goes there; not beyond the begin of the step, which the host's clock gives: a card's
 * first mark may stand a little before it. */
static mhp_status go_back(walk *w, mhp_path_part part, int index, double to_us)
{
    mhp_step_analysis *analysis = w->analysis;

    to_us = fmax(to_us, 0);
    if (to_us < w->time_us) {
        if (analysis->path_count == w->capacity) {
            w->capacity = w->capacity ? 2 * w->capacity : 256;
            MHP_RETURN_IF_ERROR(mhp_realloc(&analysis->path, w->capacity, sizeof *analysis->path));
        }
        analysis->path[analysis->path_count++] = (mhp_path_item){part, w->rank, index, to_us, w->time_us};
    }
    w->time_us = to_us;
    return MHP_OK;
}

/* The last span of the rank that begins before the present moment, -1 if there is none. */
static int find_span(const walk *w)
{
    const mhp_timed_rank *timed = &w->analysis->timeline.ranks[w->rank];
    size_t low = 0, high = timed->span_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (timed->spans[middle].start_us < w->time_us) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return (int)low - 1;
}

/* What came in last of what a wait was for; -1 if all was there before, or if the path came here from what would be it:
 * an entry into a collective stands a little behind the begin of the wait for it. */
static int find_last_arrival(const walk *w, const mhp_timed_wait *wait)
{
    const mhp_transfer *transfers = w->analysis->timeline.transfers;
    int last = -1;

    for (int i = 0; i < wait->awaited_count; i++) {
        int at = wait->awaited[i];

        if (transfers[at].arrived_us > wait->start_us && transfers[at].setoff_us < w->time_us &&
            (last < 0 || transfers[at].arrived_us > transfers[last].arrived_us)) {
            last = at;
        }
    }
    return last;
}

static mhp_status cross_wait(walk *w, int index)
{
    mhp_timed_wait wait = mhp_timeline_wait(&w->analysis->timeline.ranks[w->rank], (size_t)index);
    int last = find_last_arrival(w, &wait);
    const mhp_transfer *transfer;

    if (last < 0) {
        return go_back(w, MHP_PATH_OF_OTHER, -1, wait.start_us);
    }
    transfer = &w->analysis->timeline.transfers[last];
    MHP_RETURN_IF_ERROR(go_back(w, MHP_PATH_OF_OTHER, -1, fmin(transfer->arrived_us, w->time_us)));
    MHP_RETURN_IF_ERROR(go_back(w, MHP_PATH_OF_TRANSFER, last, fmin(transfer->setoff_us, w->time_us)));
    w->rank = transfer->made_us >= transfer->posted_us ? transfer->source : transfer->target;
    return MHP_OK;
}

static mhp_status cross_span(walk *w, int index)
{
    const mhp_timed_span *span = &w->analysis->timeline.ranks[w->rank].spans[index];

    if (w->time_us > span->end_us) {
        return go_back(w, MHP_PATH_OF_OTHER, -1, span->end_us);
    }
    if (span->span->kind == MHP_TRACE_WAIT) {
        return cross_wait(w, index);
    }
    if (span->span->kind == MHP_TRACE_GROUP) {
        return go_back(w, MHP_PATH_OF_COMPUTE, index, span->start_us);
    }
    return go_back(w, mhp_span_computes(span->span) ? MHP_PATH_OF_PHASE : MHP_PATH_OF_OTHER, index, span->start_us);
}

static void reverse(mhp_path_item *items, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        mhp_path_item item = items[i];

        items[i] = items[count - 1 - i];
        items[count - 1 - i] = item;
    }
}

mhp_status mhp_trace_critical_path(mhp_step_analysis *analysis)
{
    const mhp_timeline *timeline = &analysis->timeline;
    walk w = {.analysis = analysis, .time_us = timeline->end_us};
    size_t most = 2; /* every span and transfer is crossed once */

    for (int rank = 0; rank < timeline->rank_count; rank++) {
        w.rank = timeline->ranks[rank].end_us >= timeline->end_us ? rank : w.rank;
        most += 2 * timeline->ranks[rank].span_count;
    }
    most += 2 * timeline->transfer_count;
    for (size_t i = 0; i < most && w.time_us > 0; i++) {
        int index = find_span(&w);

        if (index < 0) {
            break;
        }
        MHP_RETURN_IF_ERROR(cross_span(&w, index));
    }
    MHP_RETURN_IF_ERROR(go_back(&w, MHP_PATH_OF_OTHER, -1, 0));
    reverse(analysis->path, analysis->path_count);
    return MHP_OK;
}
