#include "runtime/memory_costs.h"

#include "core/memory.h"

static int64_t larger(int64_t a, size_t b)
{
    return (int64_t)b > a ? (int64_t)b : a;
}

static mhp_stage_costs costs_of(const mhp_stage_memory *memory, size_t holders, size_t full_bytes, size_t real_bytes)
{
    const size_t *bytes = memory->sizes.bytes;
    size_t elements = (size_t)memory->chunk * (size_t)memory->holders;
    size_t weights = elements * (2 * full_bytes + (real_bytes == full_bytes ? 0 : real_bytes)) + 2 * elements / holders * full_bytes;
    size_t kept = bytes[MHP_LIFE_ACTIVATION] + bytes[MHP_LIFE_PRODUCT_INPUT];
    size_t activation = kept + bytes[MHP_LIFE_REBUILT_INPUT] + bytes[MHP_LIFE_BLOCK];
    size_t workspace = bytes[MHP_LIFE_FORWARD] > bytes[MHP_LIFE_BACKWARD] ? bytes[MHP_LIFE_FORWARD] : bytes[MHP_LIFE_BACKWARD];

    return (mhp_stage_costs){
        .forward_us = 1,
        .input_gradient_us = 1,
        .weight_gradient_us = 1,
        .bytes = {.weights = (int64_t)(weights + workspace),
                  .activation = (int64_t)activation,
                  .rebuild_keeps = (int64_t)(memory->recompute == MHP_RECOMPUTE_NONE ? activation : kept),
                  .held_weight_gradient = (int64_t)(bytes[MHP_LIFE_PRODUCT_INPUT] + bytes[MHP_LIFE_REBUILT_INPUT] +
                                                    bytes[MHP_LIFE_PRODUCT_GRADIENT])},
    };
}

mhp_status mhp_memory_costs(const mhp_memory_params *params, bool held_once, mhp_costs *costs_out)
{
    const mhp_plan *plan = params->layout->plan;
    mhp_dtype dtype = (mhp_dtype)params->model->dtype;
    mhp_stage_costs *costs = NULL;

    MHP_RETURN_IF_ERROR(mhp_costs_default(costs_out));
    MHP_RETURN_IF_ERROR(mhp_costs_create_stages(costs_out, (size_t)plan->stage_count, &costs));
    for (int r = 0; r < plan->rank_count; r++) {
        mhp_stage_memory *stages = NULL;
        int count = 0;

        MHP_RETURN_IF_ERROR(mhp_memory_measure_stages(params, r, &stages, &count));
        for (int i = 0; i < count; i++) {
            costs[stages[i].stage] = costs_of(&stages[i], (size_t)(held_once ? params->parallel->data : stages[i].holders), mhp_dtype_bytes(mhp_dtype_full(dtype)), mhp_dtype_bytes(dtype));
            costs_out->message_bytes =
                larger(larger(costs_out->message_bytes, stages[i].sizes.state_bytes), stages[i].sizes.gradient_bytes);
        }
        mhp_free(stages);
    }
    return MHP_OK;
}
