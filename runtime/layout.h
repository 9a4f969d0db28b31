/* What a configuration lays out before anything is allocated: the lowered plans, the layers of each stage, and the memory that every
 * rank will take. Pure: no device, no messages. */
#ifndef MHP_RUNTIME_LAYOUT_H
#define MHP_RUNTIME_LAYOUT_H

#include <stdio.h>

#include "model/stage.h"
#include "runtime/options.h"
#include "scheduler/costs.h"
#include "scheduler/plan.h"

typedef struct mhp_layout {
    mhp_plan *plan;                 /* lowered and validated */
    mhp_plan *evaluation_plan;      /* the same placement, forward alone */
    mhp_stage_extent *extents;      /* [plan->stage_count] */
} mhp_layout;

/* Generates or reads the plan that the options name, and parts the layers. MHP_ERR_CONFIG, MHP_ERR_PLAN. Release in every case; a
 * zeroed layout is allowed there. */
mhp_status mhp_layout_create(const mhp_model_params *model, const mhp_parallel_params *parallel,
                             const mhp_schedule_params *schedule, mhp_layout *layout_out);
void mhp_layout_release(mhp_layout *layout);

/* Device memory of one rank, in bytes. */
typedef struct mhp_rank_memory {
    int layers;
    int64_t elements;               /* parameters, each copy */
    size_t weights, gradients, optimizer, slots, workspace, batches, total;
} mhp_rank_memory;

/* `rank` is the pipeline rank. */
mhp_status mhp_layout_memory(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                             const mhp_train_params *train, int rank, mhp_rank_memory *memory_out);

/* MHP_ERR_NO_MEMORY, with the parts and what would help, if a rank's memory does not fit into what is free on the device. */
mhp_status mhp_layout_check_memory(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                                   const mhp_train_params *train, int rank, mhp_device *device);

/* What the stages keep and how long messages are, as costs whose times are all 1: without measured times an order is still known by its
 * memory. The inputs of matrix products, which live from F to W, count as activation up to I and as held weight gradient from I on.
 * Release costs_out in every case. */
mhp_status mhp_layout_costs(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                            const mhp_train_params *train, mhp_costs *costs_out);

/* A table of all ranks. */
mhp_status mhp_layout_print_memory(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                                   const mhp_train_params *train, FILE *stream);

#endif
