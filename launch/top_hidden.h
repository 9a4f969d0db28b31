/* The hidden share that mhcpipe top shows: that of the recorded steps, from the traces that a run with --profile leaves. The run
 * itself does nothing for it. */
#ifndef MHP_LAUNCH_TOP_HIDDEN_H
#define MHP_LAUNCH_TOP_HIDDEN_H

#include "runtime/live_run.h"

/* What was read before; begins as zeros. */
typedef struct mhp_top_hidden {
    double *shares; /* [count] */
    int count;
    uint64_t written_ns; /* Unix time at which the traces were written */
} mhp_top_hidden;

/* Fills in every rank's hidden share, 0 to 1: NaN without traces of this very start of the run. Traces are read once. */
void mhp_top_hidden_fill(mhp_top_hidden *hidden, const char *directory, mhp_live_run *run);
void mhp_top_hidden_release(mhp_top_hidden *hidden);

#endif
