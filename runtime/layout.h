/* What a configuration lays out before anything is allocated: the lowered plans and the layers of each stage. Pure: no device, no
 * messages. */
#ifndef MHP_RUNTIME_LAYOUT_H
#define MHP_RUNTIME_LAYOUT_H

#include "model/stage.h"
#include "runtime/options.h"
#include "scheduler/plan.h"

typedef struct mhp_layout {
    mhp_plan *plan;                 /* lowered and validated */
    mhp_plan *evaluation_plan;      /* the same placement, forward alone */
    mhp_stage_extent *extents;      /* [plan->stage_count] */
} mhp_layout;

/* Generates or reads the plan that the options name, and parts the layers. With recompute, a plan from a file that has R keeps to
 * it, and any other gets one for every gradient. MHP_ERR_CONFIG, MHP_ERR_PLAN. Release in every case; a
 * zeroed layout is allowed there. */
mhp_status mhp_layout_create(const mhp_model_params *model, const mhp_parallel_params *parallel,
                             const mhp_schedule_params *schedule, mhp_layout *layout_out);
void mhp_layout_release(mhp_layout *layout);

/* Pipeline ranks that hold a stage. */
int mhp_layout_holders(const mhp_layout *layout, int stage);

#endif
