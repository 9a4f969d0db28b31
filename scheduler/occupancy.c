#include "scheduler/occupancy.h"

#include "core/memory.h"

static size_t cell_of(const mhp_plan *plan, int stage, int microbatch)
{
    return (size_t)stage * (size_t)plan->microbatch_count + (size_t)microbatch;
}

static bool in_range(const mhp_plan *plan, const mhp_action *action)
{
    return action->stage < plan->stage_count && action->microbatch >= 0 && action->microbatch < plan->microbatch_count;
}

static mhp_status note_rebuilt(mhp_occupancy_plan *whole)
{
    const mhp_plan *plan = whole->plan;

    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            const mhp_action *action = &plan->ranks[r].actions.items[i];

            if (action->kind != MHP_ACTION_REBUILD || !in_range(plan, action)) {
                continue;
            }
            if (!whole->rebuilt) {
                MHP_RETURN_IF_ERROR(
                    mhp_calloc(&whole->rebuilt, (size_t)plan->stage_count * (size_t)plan->microbatch_count, 1));
            }
            whole->rebuilt[cell_of(plan, action->stage, action->microbatch)] = 1;
        }
    }
    return MHP_OK;
}

/* Each holder of a stage keeps its weights once. */
static mhp_status add_weights(mhp_occupancy_plan *whole)
{
    const mhp_plan *plan = whole->plan;
    int *counted = NULL; /* [rank]: the last stage whose weights were added, from 1 */

    MHP_RETURN_IF_ERROR(mhp_calloc(&counted, (size_t)plan->rank_count, sizeof *counted));
    for (int s = 0; s < plan->stage_count; s++) {
        for (int m = 0; m < plan->microbatch_count; m++) {
            int rank = mhp_plan_owner(plan, s, m);

            if (rank >= 0 && counted[rank] != s + 1) {
                counted[rank] = s + 1;
                whole->base_bytes[rank] += mhp_costs_stage(whole->costs, s)->bytes.weights;
            }
        }
    }
    mhp_free(counted);
    return MHP_OK;
}

static void add_slots(mhp_occupancy_plan *whole)
{
    for (int r = 0; r < whole->plan->rank_count; r++) {
        const mhp_rank_plan *rank = &whole->plan->ranks[r];

        for (int i = 0; i < rank->stage_count; i++) {
            const int *count = rank->stages[i].count;
            int64_t slots = (int64_t)count[MHP_SLOT_INPUT] + count[MHP_SLOT_OUTPUT] + count[MHP_SLOT_GRADIENT_INPUT] +
                            count[MHP_SLOT_GRADIENT_OUTPUT];

            whole->base_bytes[r] += slots * mhp_costs_slot_bytes(whole->costs, rank->stages[i].stage);
        }
    }
}

mhp_status mhp_occupancy_plan_create(const mhp_plan *plan, const mhp_costs *costs, mhp_occupancy_plan *out)
{
    *out = (mhp_occupancy_plan){.plan = plan, .costs = costs};
    MHP_RETURN_IF_ERROR(mhp_calloc(&out->base_bytes, (size_t)plan->rank_count, sizeof *out->base_bytes));
    MHP_RETURN_IF_ERROR(add_weights(out));
    if (plan->lowered) {
        add_slots(out);
    }
    return note_rebuilt(out);
}

void mhp_occupancy_plan_destroy(mhp_occupancy_plan *whole)
{
    mhp_free(whole->rebuilt);
    mhp_free(whole->base_bytes);
    *whole = (mhp_occupancy_plan){0};
}

void mhp_occupancy_begin(mhp_occupancy *occupancy, const mhp_occupancy_plan *whole, int rank)
{
    *occupancy =
        (mhp_occupancy){.whole = whole, .bytes = whole->base_bytes[rank], .bytes_peak = whole->base_bytes[rank]};
}

static void keep_activation(mhp_occupancy *occupancy, int stage, int count)
{
    occupancy->activations += count;
    occupancy->bytes += count * mhp_costs_stage(occupancy->whole->costs, stage)->bytes.activation;
}

/* Of what is rebuilt: the part that goes at the end of F and comes back with R. */
static void keep_rebuilt(mhp_occupancy *occupancy, int stage, int count)
{
    const mhp_stage_bytes *bytes = &mhp_costs_stage(occupancy->whole->costs, stage)->bytes;

    occupancy->activations += count;
    occupancy->bytes += count * (bytes->activation - bytes->rebuild_keeps);
}

static void keep_held(mhp_occupancy *occupancy, int stage, int count)
{
    occupancy->bytes += count * mhp_costs_stage(occupancy->whole->costs, stage)->bytes.held_weight_gradient;
}

static void note_peaks(mhp_occupancy *occupancy)
{
    if (occupancy->activations > occupancy->activations_peak) {
        occupancy->activations_peak = occupancy->activations;
    }
    if (occupancy->held > occupancy->held_peak) {
        occupancy->held_peak = occupancy->held;
    }
    if (occupancy->bytes > occupancy->bytes_peak) {
        occupancy->bytes_peak = occupancy->bytes;
    }
}

void mhp_occupancy_start(mhp_occupancy *occupancy, const mhp_action *action)
{
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        keep_activation(occupancy, action->stage, 1);
        break;
    case MHP_ACTION_REBUILD:
        keep_rebuilt(occupancy, action->stage, 1);
        break;
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_INPUT_GRADIENT:
        keep_held(occupancy, action->stage, 1);
        break;
    case MHP_ACTION_OVERLAP_F_B:
        keep_activation(occupancy, action->stage, 1);
        keep_held(occupancy, action->backward_stage, 1);
        break;
    default:
        break;
    }
    note_peaks(occupancy);
}

static void end_forward(mhp_occupancy *occupancy, const mhp_action *action)
{
    const mhp_occupancy_plan *whole = occupancy->whole;
    bool is_rebuilt = whole->rebuilt && whole->rebuilt[cell_of(whole->plan, action->stage, action->microbatch)];

    if (is_rebuilt) {
        keep_rebuilt(occupancy, action->stage, -1);
    } else if (whole->plan->forward_only) {
        keep_activation(occupancy, action->stage, -1);
    }
}

void mhp_occupancy_end(mhp_occupancy *occupancy, const mhp_action *action)
{
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        end_forward(occupancy, action);
        break;
    case MHP_ACTION_BACKWARD:
        keep_activation(occupancy, action->stage, -1);
        keep_held(occupancy, action->stage, -1);
        break;
    case MHP_ACTION_INPUT_GRADIENT:
        keep_activation(occupancy, action->stage, -1);
        occupancy->held++;
        break;
    case MHP_ACTION_WEIGHT_GRADIENT:
        keep_held(occupancy, action->stage, -1);
        occupancy->held--;
        break;
    case MHP_ACTION_OVERLAP_F_B:
        end_forward(occupancy, action);
        keep_activation(occupancy, action->backward_stage, -1);
        keep_held(occupancy, action->backward_stage, -1);
        break;
    default:
        break;
    }
    note_peaks(occupancy);
}
