/* A recorded run, read back from its folder: what report prints and the pipeline's bench tabulates. */
#ifndef MHP_LAUNCH_RUN_REPORT_H
#define MHP_LAUNCH_RUN_REPORT_H

#include <stdio.h>

#include "launch/config.h"
#include "launch/planning.h"
#include "runtime/layout.h"
#include "runtime/profile/report.h"

typedef struct mhp_run_report {
    const char *directory; /* the caller's */
    mhp_config config;
    mhp_layout layout;
    mhp_costs sizes;
    mhp_trace_set traces;
    mhp_analysis analysis;
    mhp_profile_report report;
    mhp_run_metrics metrics;
    mhp_report_energy energy;
} mhp_run_report;

/* Reads config.resolved.yaml, profile/, metrics.jsonl and summary.json of the folder, whose name must outlive the report. Without the
 * last two, or where they cannot be used, the report lacks curves and energy, and says why. Release in every case. */
mhp_status mhp_run_report_read(const char *directory, mhp_run_report *run_out);
void mhp_run_report_release(mhp_run_report *run);

/* What `write` says of the report, its context, into file `name` of the run's folder. */
mhp_status mhp_run_report_write(mhp_run_report *run, const char *name, mhp_write_fn write);

/* For mhp_run_report_write and mhp_write_output; the context is the report. */
mhp_status mhp_run_report_write_page(void *context, FILE *stream);
mhp_status mhp_run_report_write_costs(void *context, FILE *stream);

#endif
