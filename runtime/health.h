/* What makes a step bad: a loss, gradient norm or composed gain that is not finite or above a limit.
 *
 * The limits are checked where the sums over all ranks lie, before the update, which a bad step goes without (model/kernels.h, watches):
 * nothing waits for the host, and all ranks decide alike. Here the limits are set, and what was found is told. */
#ifndef MHP_RUNTIME_HEALTH_H
#define MHP_RUNTIME_HEALTH_H

#include "model/kernels.h"
#include "runtime/options.h"

/* In the order of the watches. */
typedef enum mhp_step_fault {
    MHP_STEP_GOOD,
    MHP_STEP_LOSS,
    MHP_STEP_GRADIENT_NORM,
    MHP_STEP_GAIN_FORWARD,
    MHP_STEP_GAIN_BACKWARD,
} mhp_step_fault;

typedef struct mhp_health {
    const mhp_non_finite_params *params;
    double loss_mean;               /* of the good steps: of all at first, then with the weight of the newest MEAN_STEPS */
    int64_t loss_count;
} mhp_health;

/* Where a step's sums lie. Device memory. */
typedef struct mhp_health_sums {
    const double *loss;             /* [count] */
    const double *gain;             /* [count][2], forward and backward; NULL without them */
    const double *norm;             /* [1] */
    int64_t count;                  /* micro-batches of all replicas */
    int64_t targets;                /* whose mean the loss is */
} mhp_health_sums;

/* The watches of a step; returns how many. */
int mhp_health_watch(const mhp_health *health, const mhp_health_sums *sums, mhp_sum_limit watches[MHP_SUM_LIMITS_MAX]);
/* What the factor of mhp_clip_args says. */
mhp_step_fault mhp_health_judge(double scale);
/* Takes the loss of a good step into the mean. */
void mhp_health_accept(mhp_health *health, double loss);

/* "gradient_norm", for records. */
const char *mhp_step_fault_text(mhp_step_fault fault);
/* "the gradient norm is inf, expected a finite number". */
void mhp_health_explain(const mhp_health *health, mhp_step_fault fault, double value, char *text, size_t size);

#endif
