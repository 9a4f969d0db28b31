#include "scheduler/lower.h"

#include <string.h>

#include "core/memory.h"
#include "scheduler/execute.h"
#include "scheduler/index.h"
#include "scheduler/messages.h"
#include "scheduler/slots.h"
#include "scheduler/weights.h"

static mhp_status append_rebuild(mhp_plan *plan, const mhp_plan_index *index, int rank, const mhp_action *action)
{
    int s, m;

    if (!mhp_action_does(action, MHP_DO_INPUT_GRADIENT, &s, &m) || mhp_index_at(plan, index, MHP_DO_REBUILD, s, m) >= 0) {
        return MHP_OK;
    }
    return mhp_plan_append(plan, rank, (mhp_action){MHP_ACTION_REBUILD, s, m, -1, -1});
}

/* Puts R right before the I, B or pair that needs it. There it begins as soon as the compute action before is done: what the rank
 * waits for, the gradient, is waited for by the action behind R, and its receive was posted long before. So R fills the wait if
 * there is one. Any earlier place would only let what it rebuilds lie around longer, and beside that of the gradient before. */
static mhp_status place_rebuilds_of(mhp_plan *plan, const mhp_plan_index *index, int rank)
{
    mhp_status status = MHP_OK;
    mhp_action_list old = plan->ranks[rank].actions;

    memset(&plan->ranks[rank].actions, 0, sizeof old);
    for (size_t i = 0; i < old.count; i++) {
        MHP_TRY(out, append_rebuild(plan, index, rank, &old.items[i]));
        MHP_TRY(out, mhp_plan_append(plan, rank, old.items[i]));
    }
out:
    mhp_free(old.items);
    return status;
}

static mhp_status place_rebuilds(mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {.placement = {NULL, NULL}};

    MHP_TRY(out, mhp_plan_index_create(plan, &index));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, place_rebuilds_of(plan, &index, r));
    }
out:
    mhp_plan_index_destroy(&index);
    return status;
}

/* Puts REDUCE_GRAD behind each stage's last weight gradient on the rank, whatever the plan had: every holder of a stage must have
 * one, and only there is it complete and early. `last` [stage] lends its room. */
static mhp_status place_reductions_of(mhp_plan *plan, int rank, size_t *last)
{
    mhp_status status = MHP_OK;
    mhp_action_list old = plan->ranks[rank].actions;
    int s, m;

    memset(&plan->ranks[rank].actions, 0, sizeof old);
    for (size_t i = 0; i < old.count; i++) {
        if (mhp_action_does(&old.items[i], MHP_DO_WEIGHT_GRADIENT, &s, &m)) {
            last[s] = i;
        }
    }
    for (size_t i = 0; i < old.count; i++) {
        if (old.items[i].kind == MHP_ACTION_REDUCE_GRAD) {
            continue;
        }
        MHP_TRY(out, mhp_plan_append(plan, rank, old.items[i]));
        if (mhp_action_does(&old.items[i], MHP_DO_WEIGHT_GRADIENT, &s, &m) && last[s] == i) {
            MHP_TRY(out, mhp_plan_append(plan, rank, (mhp_action){MHP_ACTION_REDUCE_GRAD, s, -1, -1, -1}));
        }
    }
out:
    mhp_free(old.items);
    return status;
}

static mhp_status place_reductions(mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    size_t *last = NULL;

    MHP_TRY(out, mhp_calloc(&last, (size_t)plan->stage_count, sizeof *last));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, place_reductions_of(plan, r, last));
    }
out:
    mhp_free(last);
    return status;
}

static mhp_status place_slots(mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {.placement = {NULL, NULL}};
    mhp_execution execution = {.start = NULL};

    MHP_TRY(out, mhp_plan_index_create(plan, &index));
    MHP_TRY(out, mhp_plan_execute(plan, &index, false, &execution));
    MHP_TRY(out, mhp_slots_assign(plan, &index, &execution));
out:
    mhp_execution_destroy(plan, &execution);
    mhp_plan_index_destroy(&index);
    return status;
}

mhp_status mhp_plan_lower(mhp_plan *plan, const mhp_lower_params *params)
{
    MHP_RETURN_IF_ERROR(mhp_plan_validate(plan));
    if (params && params->weight_gradients == MHP_WEIGHTS_SHALLOW) {
        MHP_RETURN_IF_ERROR(mhp_plan_advance_weights(plan));
    }
    if (params && params->rebuild) {
        MHP_RETURN_IF_ERROR(place_rebuilds(plan));
    }
    if (!mhp_plan_has_messages(plan)) {
        MHP_RETURN_IF_ERROR(mhp_plan_add_messages(plan));
    }
    MHP_RETURN_IF_ERROR(place_reductions(plan));
    MHP_RETURN_IF_ERROR(place_slots(plan));
    plan->lowered = true;
    return mhp_plan_validate(plan);
}
