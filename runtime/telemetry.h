/* What a run tells beside its metrics: energy, live files, TensorBoard, Prometheus, the summary. One for each rank of a run. */
#ifndef MHP_RUNTIME_TELEMETRY_H
#define MHP_RUNTIME_TELEMETRY_H

#include "runtime/summary.h"
#include "runtime/trainer.h"

typedef struct mhp_telemetry mhp_telemetry;

typedef struct mhp_telemetry_params {
    mhp_trainer *trainer;           /* must outlive the telemetry, as must all pointers */
    mhp_comm *comm;
    const char *directory;          /* the run's folder, or NULL: nothing is written */
    const mhp_log_params *log;      /* NULL: neither TensorBoard nor Prometheus */
    const mhp_report_params *report;        /* NULL: no emissions */
    int64_t first_step, total;      /* steps: done before, in all */
} mhp_telemetry_params;

/* Every rank; all get the same status. The live files are not worth an error: without them there is a warning. */
mhp_status mhp_telemetry_open(const mhp_telemetry_params *params, mhp_telemetry **telemetry_out);
/* Before the trainer goes. Without a summary before it, the live files say that the run failed. NULL is allowed. */
void mhp_telemetry_close(mhp_telemetry *telemetry);
/* Says in the live files that the run failed, and leaves everything as it is. NULL is allowed. */
void mhp_telemetry_fail(mhp_telemetry *telemetry);

/* A step begins; it is done; an evaluation begins. Every rank. */
void mhp_telemetry_begin(mhp_telemetry *telemetry);
void mhp_telemetry_end(mhp_telemetry *telemetry, const mhp_step_report *report);
void mhp_telemetry_evaluation(mhp_telemetry *telemetry);
/* Writes what rank 0 writes of a step; held_out_loss is NaN if there was no evaluation. */
mhp_status mhp_telemetry_write(mhp_telemetry *telemetry, const mhp_step_report *report, double held_out_loss);
/* The end of the run: fills in what the summary has beyond the losses, and writes it. `stopped`: on request, before the last step.
 * Every rank. */
mhp_status mhp_telemetry_summary(mhp_telemetry *telemetry, bool stopped, mhp_summary *summary);

#endif
