#include "runtime/layout.h"

#include <string.h>

#include "core/memory.h"
#include "runtime/partition.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/yaml.h"

/* How many R each stage has, [stage_count]; the caller frees it. */
static mhp_status count_rebuilds(const mhp_plan *plan, int **counts_out)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(counts_out, (size_t)plan->stage_count, sizeof **counts_out));
    for (int r = 0; r < plan->rank_count; r++) {
        const mhp_action_list *list = &plan->ranks[r].actions;

        for (size_t i = 0; i < list->count; i++) {
            const mhp_action *action = &list->items[i];

            if (action->kind == MHP_ACTION_REBUILD && action->stage >= 0 && action->stage < plan->stage_count) {
                (*counts_out)[action->stage]++;
            }
        }
    }
    return MHP_OK;
}

/* Whether the plan has R already: for all micro-batches of a stage or for none. */
static mhp_status find_rebuilds(const mhp_plan *plan, const char *file, bool *found_out)
{
    mhp_status status = MHP_OK;
    int *counts = NULL;

    *found_out = false;
    MHP_TRY(out, count_rebuilds(plan, &counts));
    for (int s = 0; s < plan->stage_count; s++) {
        if (counts[s] != 0 && counts[s] != plan->microbatch_count) {
            MHP_RAISE(out, MHP_ERR_PLAN, "%s: stage %d has %d R for %d micro-batches: expected one for each, or none", file, s, counts[s],
                      plan->microbatch_count);
        }
        *found_out = *found_out || counts[s] > 0;
    }
out:
    mhp_free(counts);
    return status;
}

static mhp_status build_plan(const mhp_schedule_params *schedule, const mhp_parallel_params *parallel, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    mhp_plan *plan = NULL;
    bool has_rebuilds;
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
    if (lower.rebuild) {
        MHP_TRY(out, find_rebuilds(plan, schedule->file, &has_rebuilds));
        lower.rebuild = !has_rebuilds;
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
