/* All ranks' live files of a run, as they are seen from this machine. */
#ifndef MHP_RUNTIME_LIVE_RUN_H
#define MHP_RUNTIME_LIVE_RUN_H

#include "runtime/live.h"

enum { MHP_LIVE_PROBLEM_MAX = 256 };

typedef struct mhp_live_rank {
    bool is_known;
    mhp_live_state state;           /* if it is known */
    mhp_live_health health;         /* likewise */
    double silent_s;                /* since its last sign of life */
    char problem[MHP_LIVE_PROBLEM_MAX];     /* why it is not known */
    double hidden;                  /* of transfer time; left at NaN: no live file has it */
} mhp_live_rank;

/* What holds for the run is what holds for its worst rank, in this order. */
typedef enum mhp_live_verdict {
    MHP_LIVE_RUN_RUNNING,
    MHP_LIVE_RUN_FINISHED,
    MHP_LIVE_RUN_STOPPED,           /* on request, with a checkpoint */
    MHP_LIVE_RUN_INCOMPLETE,        /* a rank's file is missing, foreign or damaged */
    MHP_LIVE_RUN_SILENT,
    MHP_LIVE_RUN_DEAD,
    MHP_LIVE_RUN_FAILED,
} mhp_live_verdict;

typedef struct mhp_live_run {
    mhp_live_rank *ranks;           /* [count] */
    int count;
    mhp_live_verdict verdict;
    const mhp_live_rank *culprit;   /* the lowest rank that the verdict comes from */
} mhp_live_run;

/* Reads DIRECTORY/live. MHP_ERR_NOT_FOUND if DIRECTORY is no run's folder, and rank 0's error if no rank's file can be read. A rank that
 * belongs to another run is a problem of that rank. Release in every case; a zeroed run is allowed there. */
mhp_status mhp_live_run_read(const char *directory, double silence_s, mhp_live_run *run_out);
void mhp_live_run_release(mhp_live_run *run);

/* "running", "silent"; static storage. */
const char *mhp_live_verdict_text(mhp_live_verdict verdict);

#endif
