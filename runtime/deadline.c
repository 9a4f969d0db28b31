#include "runtime/deadline.h"

static const double slow_factor = 10, slow_least_s = 10, slow_part = 0.5, silent_part = 0.25, weight = 0.2;

mhp_deadline mhp_deadline_of_section(double limit_s, double typical_s)
{
    mhp_deadline deadline = {.limit_s = limit_s, .slow_s = slow_part * limit_s};
    double slow_s = slow_factor * typical_s > slow_least_s ? slow_factor * typical_s : slow_least_s;

    if (typical_s > 0 && (limit_s == 0 || slow_s < deadline.slow_s)) {
        deadline.slow_s = slow_s;
    }
    return deadline;
}

mhp_deadline mhp_deadline_of_silence(double limit_s)
{
    return (mhp_deadline){.limit_s = limit_s, .slow_s = silent_part * limit_s};
}

mhp_verdict mhp_deadline_check(mhp_deadline *deadline, double elapsed_s)
{
    if (deadline->limit_s > 0 && elapsed_s >= deadline->limit_s) {
        return MHP_VERDICT_EXPIRED;
    }
    if (deadline->slow_s == 0 || elapsed_s < deadline->slow_s) {
        deadline->warned = false;
        return MHP_VERDICT_FINE;
    }
    if (deadline->warned) {
        return MHP_VERDICT_FINE;
    }
    deadline->warned = true;
    return MHP_VERDICT_SLOW;
}

double mhp_typical_time(double mean_s, double seen_s)
{
    return mean_s == 0 ? seen_s : (1 - weight) * mean_s + weight * seen_s;
}

bool mhp_save_fits(double left_s, double step_s, double elapsed_s, double save_s)
{
    double rest_s = step_s > elapsed_s ? step_s - elapsed_s : 0;

    return rest_s + save_s <= left_s;
}
