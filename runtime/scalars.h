/* The numbers of a step, with the names that each kind of file has for them: docs/metrics.md. */
#ifndef MHP_RUNTIME_SCALARS_H
#define MHP_RUNTIME_SCALARS_H

#include "runtime/trainer.h"

typedef struct mhp_scalar {
    const char *tag;                /* of TensorBoard, "train/loss" */
    const char *metric;             /* of Prometheus, with its unit in base units, "mhcpipe_step_seconds" */
    double per_base;                /* what `value` is divided by for it */
    const char *help;
    double value;
} mhp_scalar;

enum { MHP_SCALARS_MAX = 18 };

/* Fills in what is known of the step, and returns how many: a held-out loss or an energy that is NaN is left out, all else is not. */
int mhp_scalars_of(const mhp_step_report *report, double held_out_loss, mhp_scalar scalars[MHP_SCALARS_MAX]);

#endif
