/* What was measured in the scheduler's words: costs that plan and tune read, and a step as a simulation, to draw it. */
#ifndef MHP_RUNTIME_PROFILE_MEASURED_H
#define MHP_RUNTIME_PROFILE_MEASURED_H

#include "runtime/profile/analyse.h"
#include "scheduler/simulate.h"

/* Whether the traces are of this plan: MHP_ERR_FORMAT says where they differ. */
mhp_status mhp_measured_check(const mhp_analysis *analysis, const mhp_plan *plan);

typedef struct mhp_measured {
    mhp_costs costs;               /* times measured, bytes as given */
    mhp_costs without_connections; /* the same less the connections' kernels */
    double plan_us; /* mean over steps: from the first rank's first action to the end of the last update */
} mhp_measured;

/* Means over steps, micro-batches and holders. `sizes` has an entry for every stage of the plan, with its bytes. Where one size of
 * message was sent, its time is put down to bandwidth. Release in every case. */
mhp_status mhp_measured_create(const mhp_analysis *analysis, const mhp_plan *plan, const mhp_costs *sizes,
                               mhp_measured *measured_out);
void mhp_measured_release(mhp_measured *measured);

/* When the step's first action begins and its last update ends. */
double mhp_measured_begin_us(const mhp_step_analysis *step);
double mhp_measured_end_us(const mhp_step_analysis *step);

/* One step of the first replica as a simulation, whose time 0 is mhp_measured_begin_us: spans of actions, the compute
 * on the critical path, bubbles. Release in every case. */
mhp_status mhp_measured_simulation(const mhp_step_analysis *step, const mhp_plan *plan, mhp_simulation *simulation_out);

#endif
