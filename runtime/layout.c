#include "runtime/layout.h"

#include <string.h>

#include "core/memory.h"
#include "runtime/partition.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/yaml.h"

static mhp_status build_plan(const mhp_schedule_params *schedule, const mhp_parallel_params *parallel, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    mhp_plan *plan = NULL;
    mhp_lower_params lower = {.rebuild = schedule->recompute.what != MHP_RECOMPUTE_NONE,
                              .weight_gradients = (mhp_weight_placement)schedule->weight_gradients};
    mhp_schedule_shape shape = {
        .ranks = (int)parallel->pipeline, .microbatches = (int)schedule->microbatches, .chunks = (int)schedule->chunks};

    if (schedule->file[0] != '\0') {
        MHP_TRY(out, mhp_plan_read(schedule->file, &plan));
    } else if (strcmp(schedule->kind, "custom") == 0) {
        MHP_RAISE(out, MHP_ERR_CONFIG, "schedule.kind is custom: expected schedule.file, the schedule as YAML or CSV");
    } else {
        MHP_TRY(out, mhp_schedule_generate(schedule->kind, &shape, &plan));
    }
    if (plan->rank_count != parallel->pipeline || plan->microbatch_count != schedule->microbatches) {
        MHP_RAISE(out, MHP_ERR_CONFIG,
                  "%s is a plan for %d ranks and %d micro-batches: expected parallel.pipeline, %lld, and schedule.microbatches, %lld",
                  schedule->file, plan->rank_count, plan->microbatch_count, (long long)parallel->pipeline,
                  (long long)schedule->microbatches);
    }
    if (plan->forward_only) {
        MHP_RAISE(out, MHP_ERR_PLAN, "%s has no backward action: expected a plan that trains", schedule->file);
    }
    MHP_TRY(out, mhp_plan_lower(plan, &lower));
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    return status;
}

mhp_status mhp_layout_create(const mhp_model_params *model, const mhp_parallel_params *parallel,
                             const mhp_schedule_params *schedule, mhp_layout *layout_out)
{
    *layout_out = (mhp_layout){0};
    MHP_RETURN_IF_ERROR(build_plan(schedule, parallel, &layout_out->plan));
    MHP_RETURN_IF_ERROR(
        mhp_schedule_forward_only(layout_out->plan, layout_out->plan->microbatch_count, &layout_out->evaluation_plan));
    MHP_RETURN_IF_ERROR(mhp_plan_lower(layout_out->evaluation_plan, NULL));
    MHP_RETURN_IF_ERROR(mhp_calloc(&layout_out->extents, (size_t)layout_out->plan->stage_count, sizeof *layout_out->extents));
    return mhp_partition_layers(model->num_hidden_layers, layout_out->plan->stage_count, &schedule->layers_per_stage,
                                layout_out->extents);
}

void mhp_layout_release(mhp_layout *layout)
{
    mhp_plan_destroy(layout->evaluation_plan);
    mhp_plan_destroy(layout->plan);
    mhp_free(layout->extents);
    *layout = (mhp_layout){0};
}

int mhp_layout_holders(const mhp_layout *layout, int stage)
{
    int count = 0;

    for (int rank = 0; rank < layout->plan->rank_count; rank++) {
        count += mhp_plan_stage_slots(layout->plan, rank, stage) != NULL;
    }
    return count;
}
