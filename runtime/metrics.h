/* metrics.jsonl: one JSON object a step, and one for each bad step: that one has a key "event". */
#ifndef MHP_RUNTIME_METRICS_H
#define MHP_RUNTIME_METRICS_H

#include "runtime/trainer.h"

typedef struct mhp_metrics mhp_metrics;

/* Opens DIR/metrics.jsonl for appending. Lines of steps from `first_step` on are dropped first, so that a resumed run leaves each
 * step once; events stay. One rank. Close ends it; NULL is allowed there. */
mhp_status mhp_metrics_open(const char *directory, int64_t first_step, mhp_metrics **metrics_out);
void mhp_metrics_close(mhp_metrics *metrics);

/* Appends a step; held_out_loss is left out if it is not a number. A full disk is an error that names the file. */
mhp_status mhp_metrics_write(mhp_metrics *metrics, const mhp_step_report *report, double held_out_loss);

/* Appends what a step with a fault led to: "stop", "skip" or "rollback", which went back to the state behind
 * `to_step` steps (-1: none). */
mhp_status mhp_metrics_write_event(mhp_metrics *metrics, const char *event, const mhp_step_report *report, int64_t to_step);

#endif
