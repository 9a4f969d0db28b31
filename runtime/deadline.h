/* When something takes too long: first a warning, then the end. Pure: the caller has the clock. */
#ifndef MHP_RUNTIME_DEADLINE_H
#define MHP_RUNTIME_DEADLINE_H

#include <stdbool.h>

typedef enum mhp_verdict { MHP_VERDICT_FINE, MHP_VERDICT_SLOW, MHP_VERDICT_EXPIRED } mhp_verdict;

typedef struct mhp_deadline {
    double limit_s;                 /* 0: none */
    double slow_s;                  /* from which on it is worth a warning */
    bool warned;
} mhp_deadline;

/* A section whose like took `typical_s` before (0: not known): slow at ten times that, but not below 10 s and not beyond half of the
 * limit; without a typical time at half of the limit. */
mhp_deadline mhp_deadline_of_section(double limit_s, double typical_s);
/* Signs of life: a silence is worth a warning at a quarter of the limit. */
mhp_deadline mhp_deadline_of_silence(double limit_s);

/* After `elapsed_s`. MHP_VERDICT_SLOW once until the time falls below slow_s again; MHP_VERDICT_EXPIRED as often as asked. */
mhp_verdict mhp_deadline_check(mhp_deadline *deadline, double elapsed_s);

/* Mean of what was seen, the latest counting most; `mean_s` 0: nothing yet. */
double mhp_typical_time(double mean_s, double seen_s);

/* Whether what is left of a step and then a checkpoint fit into what is left after a signal. A time that is not known yet (0) counts as
 * none: an attempt costs nothing, for a checkpoint that is cut short harms none before it. */
bool mhp_save_fits(double left_s, double step_s, double elapsed_s, double save_s);

#endif
