#include "runtime/health.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>

enum { MEAN_STEPS = 64, MEAN_STEPS_MIN = 16 };      /* before, a loss has nothing to be compared with */

static const struct fault_words {
    const char *key, *name, *option;
} words[] = {
    [MHP_STEP_GOOD] = {"none", "nothing", ""},
    [MHP_STEP_LOSS] = {"loss", "loss", "max_loss_ratio"},
    [MHP_STEP_GRADIENT_NORM] = {"gradient_norm", "gradient norm", "max_gradient_norm"},
    [MHP_STEP_GAIN_FORWARD] = {"gain_forward", "composed gain forward", "max_gain"},
    [MHP_STEP_GAIN_BACKWARD] = {"gain_backward", "composed gain backward", "max_gain"},
};

/* DBL_MAX, the largest finite number, where nothing is set. */
static double limit_of(const mhp_health *health, mhp_step_fault fault)
{
    const mhp_non_finite_params *params = health->params;
    double limit = params->max_gain;

    if (fault == MHP_STEP_LOSS) {
        limit = health->loss_count < MEAN_STEPS_MIN ? 0 : params->max_loss_ratio * health->loss_mean;
    } else if (fault == MHP_STEP_GRADIENT_NORM) {
        limit = params->max_gradient_norm;
    }
    return limit > 0 && limit < DBL_MAX ? limit : DBL_MAX;
}

/* The limit of a mean as that of the sum. */
static double times(double limit, int64_t count)
{
    return limit < DBL_MAX / (double)count ? limit * (double)count : DBL_MAX;
}

int mhp_health_watch(const mhp_health *health, const mhp_health_sums *sums, mhp_sum_limit watches[MHP_SUM_LIMITS_MAX])
{
    double loss = limit_of(health, MHP_STEP_LOSS);
    int count = 0;

    watches[count++] = (mhp_sum_limit){sums->loss, sums->count, 1, sums->targets > 0 ? times(loss, sums->targets) : DBL_MAX};
    watches[count++] = (mhp_sum_limit){sums->norm, 1, 1, limit_of(health, MHP_STEP_GRADIENT_NORM)};
    for (int direction = 0; sums->gain && direction < 2; direction++) {
        watches[count++] =
            (mhp_sum_limit){sums->gain + direction, sums->count, 2, times(limit_of(health, MHP_STEP_GAIN_FORWARD), sums->count)};
    }
    return count;
}

mhp_step_fault mhp_health_judge(double scale)
{
    assert(scale >= -MHP_STEP_GAIN_BACKWARD);
    return scale < 0 ? (mhp_step_fault)-scale : MHP_STEP_GOOD;
}

void mhp_health_accept(mhp_health *health, double loss)
{
    health->loss_count++;
    health->loss_mean += (loss - health->loss_mean) / (double)(health->loss_count < MEAN_STEPS ? health->loss_count : MEAN_STEPS);
}

const char *mhp_step_fault_text(mhp_step_fault fault)
{
    return words[fault].key;
}

void mhp_health_explain(const mhp_health *health, mhp_step_fault fault, double value, char *text, size_t size)
{
    double limit = limit_of(health, fault);

    if (!isfinite(value) || limit == DBL_MAX) {
        snprintf(text, size, "the %s is %g, expected a finite number", words[fault].name, value);
    } else {
        snprintf(text, size, "the %s is %g, expected at most %g (train.non_finite.%s)", words[fault].name, value, limit,
                 words[fault].option);
    }
}
