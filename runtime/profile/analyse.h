/* Where the time of recorded steps went. Pure: traces in, figures out. docs/profiling.md defines every figure. */
#ifndef MHP_RUNTIME_PROFILE_ANALYSE_H
#define MHP_RUNTIME_PROFILE_ANALYSE_H

#include "runtime/profile/kernels.h"
#include "runtime/profile/message_records.h"

/* Why the compute stream stood still. */
typedef enum mhp_idle_kind { MHP_IDLE_EXPOSED, MHP_IDLE_BUBBLE, MHP_IDLE_OTHER, MHP_IDLE_KIND_COUNT } mhp_idle_kind;

typedef struct mhp_idle {
    mhp_idle_kind kind;
    int transfer; /* that was awaited, or -1 */
    int blamed;   /* of a bubble: the rank that everything waited for; else -1 */
    double start_us, end_us;
} mhp_idle;

/* Of one rank in one step, or on average over steps. All times in microseconds; compute + exposed + bubble + other =
 * step. */
typedef struct mhp_rank_figures {
    double step_us;
    double compute_us; /* compute worked (groups, norm, update), or another lane did while it waited */
    double exposed_us; /* it stood still while what it waited for was under way */
    double bubble_us;  /* it stood still because what it waited for was not made yet */
    double other_us;   /* the rest: host, preparation, reporting, latency of waking up */
    double group_us[MHP_PASS_COUNT][MHP_PART_COUNT];
    double phase_us[MHP_TRACE_PHASE_COUNT];
    double transfer_us[MHP_CAUSE_COUNT], hidden_us[MHP_CAUSE_COUNT];      /* of what this rank received */
    double exposed_of_us[MHP_CAUSE_COUNT], bubble_of_us[MHP_CAUSE_COUNT]; /* the two above by what was awaited */
    double message_count, message_bytes;                                  /* received */
    double waited_for_us; /* bubbles of other ranks that ended with this rank's work */
    double path_us;       /* of the critical path, this rank's compute */
} mhp_rank_figures;

typedef enum mhp_path_part {
    MHP_PATH_OF_COMPUTE,  /* a group, by its pass and part */
    MHP_PATH_OF_PHASE,    /* norm and update */
    MHP_PATH_OF_TRANSFER, /* by its cause */
    MHP_PATH_OF_OTHER,
} mhp_path_part;

typedef struct mhp_path_item {
    mhp_path_part part;
    int rank;  /* of a transfer the one that receives */
    int index; /* of the rank's span, or of the transfer; -1 */
    double start_us, end_us;
} mhp_path_item;

/* Shares of the critical path; they add up to its length. */
typedef struct mhp_path_figures {
    double length_us;
    double group_us[MHP_PASS_COUNT][MHP_PART_COUNT];
    double phase_us, other_us;
    double transfer_us[MHP_CAUSE_COUNT];
} mhp_path_figures;

/* One step in full. */
typedef struct mhp_step_analysis {
    int64_t step;
    mhp_timeline timeline;
    mhp_idle **idle;         /* [rank], in the order of time: all waits, in pieces */
    size_t *idle_count;      /* [rank] */
    mhp_rank_figures *ranks; /* [rank] */
    mhp_path_item *path;     /* in the order of time, from 0 to the end without a gap */
    size_t path_count;
    mhp_path_figures path_figures;
} mhp_step_analysis;

typedef struct mhp_analysis {
    const mhp_trace_set *set; /* the caller's */
    mhp_clocks clocks;
    int rank_count, step_count;
    mhp_step_analysis *steps;
    int median; /* the step of median length */
    double mean_step_us;
    mhp_rank_figures *mean; /* [rank], over all steps */
    mhp_path_figures mean_path;
    int *ranking; /* ranks, from the one that others waited for most */
    /* What recording cost, of the worst rank: marks of a step times what one costs, over the step; and the same of its transfers, of
     * which each counts as two marks: on a CPU the note of it and the reading of its events, on a card its begin and its end. */
    double marks_share, transfers_share;
    int64_t transfers_a_step; /* most of any rank and step */
    double resolve_share; /* and the host's time between steps to read them */
    mhp_kernel_figures *kernels; /* [rank], on average over steps; zeros without records; kernels.h */
    mhp_message_records messages;
} mhp_analysis;

/* MHP_ERR_FORMAT for traces that do not belong together. The traces must outlive it. Release in every case. */
mhp_status mhp_analyse(const mhp_trace_set *set, mhp_analysis *analysis_out);
void mhp_analysis_release(mhp_analysis *analysis);

/* One step, on clocks that were created before. Release in every case. */
mhp_status mhp_analyse_step(const mhp_trace_set *set, const mhp_clocks *clocks, int step,
                            mhp_step_analysis *analysis_out);
void mhp_step_analysis_release(mhp_step_analysis *analysis);
/* Fills the path of a step whose waits are cut. Private to runtime/profile/. */
mhp_status mhp_trace_critical_path(mhp_step_analysis *analysis);

/* How many ranks have records of their cards. */
int mhp_kernels_recorded(const mhp_analysis *analysis);

/* Sums over causes and parts. */
double mhp_figures_transfer_us(const mhp_rank_figures *figures);
/* Hidden over transfer, 0 to 1; NaN without transfers. */
double mhp_figures_hidden_share(const mhp_rank_figures *figures);
double mhp_figures_pass_us(const mhp_rank_figures *figures, mhp_pass pass);
double mhp_figures_part_us(const mhp_rank_figures *figures, mhp_step_part part);

#endif
