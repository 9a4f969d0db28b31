/* What a card's own records of kernels and copies say of a step, to set beside what events say. Pure. docs/profiling.md
 * defines every figure. */
#ifndef MHP_RUNTIME_PROFILE_KERNELS_H
#define MHP_RUNTIME_PROFILE_KERNELS_H

#include "runtime/profile/timeline.h"

/* Between two kernels of one stream stand the end of one, the record of an event (3.3 us of an H100's stream) and the
 * begin of the next. Shorter gaps inside a stretch of compute are the stream's own, which events count as compute; in a
 * longer one the stream had nothing to do, for the host was late. */
enum { MHP_LAUNCH_GAP_US = 10 };

/* Half open. Lists are in the order of their begin once they are merged. */
typedef struct mhp_interval {
    double start_us, end_us;
} mhp_interval;

/* Sorts them, and makes one of those that overlap or touch; empty ones go. The number that is left. */
size_t mhp_intervals_merge(mhp_interval *intervals, size_t count);
/* Of merged intervals: their length; and that of what is in both lists. */
double mhp_intervals_length(const mhp_interval *intervals, size_t count);
double mhp_intervals_common(const mhp_interval *left, size_t left_count, const mhp_interval *right, size_t right_count);
/* What of the stretches is in no interval, in gaps shorter than `shorter_us`. Both merged. */
double mhp_intervals_gaps(const mhp_interval *intervals, size_t count, const mhp_interval *stretches,
                          size_t stretch_count, double shorter_us);

/* Of one rank in a step, or on average over steps. Doubles alone. */
typedef struct mhp_kernel_figures {
    double kernel_count, kernel_us; /* kernels on any stream: how many, and the time in which at least one ran */
    double compute_us;              /* the lanes worked, outside of what prepares and reports; with short gaps */
    double gaps_us;                 /* of which the gaps */
    double copy_us, copy_bytes;     /* copies: the time in which at least one ran, and what all of them moved */
} mhp_kernel_figures;

/* Zeros without records. `timeline`: of one step. */
mhp_status mhp_kernels_measure(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline,
                               int rank, mhp_kernel_figures *figures_out);

/* What events say less what records say, over the former; 0 without either. */
double mhp_kernels_difference(double events_us, double records_us);

#endif
