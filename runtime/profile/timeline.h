/* One recorded step of all ranks on one clock, with every wait joined to what it was for. Pure: no device, no messages,
 * no files.
 *
 * Times are microseconds from the moment when the first rank began the step, on rank 0's clock. docs/profiling.md
 * defines every term. */
#ifndef MHP_RUNTIME_PROFILE_TIMELINE_H
#define MHP_RUNTIME_PROFILE_TIMELINE_H

#include "runtime/profile/trace.h"

/* How the ranks' clocks were brought together. */
typedef struct mhp_clocks {
    double *shift_us; /* [rank]: added to the rank's times behind the readings, so that no message arrives before it is
                         made */
    double error_us;  /* the readings are at most this far off: the largest of all ranks' */
    double drift_ppm; /* the fastest clock against rank 0's, or the slowest: by amount */
    double shift_most_us; /* largest amount of a shift */
    size_t clamped_count; /* messages that no shift makes right: they arrive when they are made; 0 unless clocks jump */
    double clamped_most_us;
} mhp_clocks;

/* From the readings of all ranks and the messages of all steps. MHP_ERR_FORMAT: a message that nobody made. Release in
 * every case. */
mhp_status mhp_clocks_create(const mhp_trace_set *set, mhp_clocks *clocks_out);
void mhp_clocks_release(mhp_clocks *clocks);

/* A message, or a rank's part in a collective. It can set off when it is made and its receive is posted, or when the
 * last member has entered; on a channel it starts when the message before it has arrived. */
typedef struct mhp_transfer {
    mhp_trace_cause cause;
    int stage, microbatch; /* the stage that receives; -1 where they mean nothing */
    int source, target; /* world ranks; of a collective: the last member that entered, and the rank whose part it is */
    int slot;
    int64_t bytes;
    double made_us, posted_us;              /* of a collective: when the last member, and when this rank entered */
    double setoff_us, start_us, arrived_us; /* never decreasing */
} mhp_transfer;

typedef struct mhp_timed_span {
    const mhp_trace_span *span;
    double start_us, end_us;
    int awaited[2]; /* of a wait: transfers, or -1 */
} mhp_timed_span;

typedef struct mhp_timed_rank {
    double begin_us, end_us; /* of the step on the host */
    /* What the rank did, without overlap or gaps: the compute stream's spans in its order, and where that waited, what
     * other lanes did meanwhile. A span of the trace may stand here in pieces, one behind the other or apart. */
    mhp_timed_span *spans;
    size_t span_count;
    mhp_timed_span *beside; /* groups of other lanes, whole, in the order of their begin */
    size_t beside_count;
} mhp_timed_rank;

typedef struct mhp_timeline {
    int rank_count;
    double origin_us; /* when the first rank began, behind rank 0's first clock reading */
    double end_us;    /* of the last rank */
    mhp_timed_rank *ranks;
    mhp_transfer *transfers;
    size_t transfer_count;
} mhp_timeline;

/* The traces and clocks must outlive it. Release in every case. */
mhp_status mhp_timeline_create(const mhp_trace_set *set, const mhp_clocks *clocks, int step,
                               mhp_timeline *timeline_out);
void mhp_timeline_release(mhp_timeline *timeline);

/* A moment of a rank's own clock, as a time of the timeline. */
double mhp_timeline_us(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline, int rank,
                       int64_t local_ns);

/* A time of standing still: waits that follow each other, as those of a pair's two passes do, are one. */
enum { MHP_AWAITED_MAX = 160 }; /* a rank awaits the reductions of all its stages, 64 and more */
typedef struct mhp_timed_wait {
    double start_us, end_us;
    int awaited[MHP_AWAITED_MAX]; /* transfers */
    int awaited_count;
    size_t end; /* index of the span behind it */
} mhp_timed_wait;

/* The one that the wait at `index` is part of. */
mhp_timed_wait mhp_timeline_wait(const mhp_timed_rank *rank, size_t index);

/* Whether the compute stream works in this span: groups, norm and update, not what prepares and reports. */
bool mhp_span_computes(const mhp_trace_span *span);

#endif
