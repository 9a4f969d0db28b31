#include "runtime/layout.h"

#include <string.h>

#include "core/memory.h"
#include "runtime/batch.h"
#include "runtime/executor.h"
#include "runtime/partition.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/yaml.h"

static mhp_status build_plan(const mhp_schedule_params *schedule, const mhp_parallel_params *parallel, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    mhp_plan *plan = NULL;
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
    MHP_TRY(out, mhp_plan_lower(plan, NULL));
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

/* ---- memory ---- */

static int holder_count(const mhp_plan *plan, int stage, int64_t replicas)
{
    int count = 0;

    for (int rank = 0; rank < plan->rank_count; rank++) {
        count += mhp_plan_stage_slots(plan, rank, stage) != NULL;
    }
    return count * (int)replicas;
}

static void add_stage(const mhp_layout *layout, const mhp_stage *stage, int index, int rank, int64_t replicas, mhp_dtype dtype,
                      mhp_rank_memory *memory)
{
    size_t full_bytes = mhp_dtype_bytes(mhp_dtype_full(dtype));
    size_t weight_bytes = full_bytes + (dtype == mhp_dtype_full(dtype) ? 0 : mhp_dtype_bytes(dtype));
    int64_t elements = mhp_stage_layout(stage)->elements;
    int64_t holders = holder_count(layout->plan, index, replicas);
    int64_t chunk = (elements + holders - 1) / holders;
    const mhp_plan *plans[] = {layout->plan, layout->evaluation_plan};
    const mhp_stage_sizes *sizes = mhp_stage_get_sizes(stage);

    memory->layers += layout->extents[index].layer_count;
    memory->elements += elements;
    memory->weights += (size_t)(chunk * holders) * weight_bytes;
    memory->gradients += (size_t)(chunk * holders) * full_bytes;
    memory->optimizer += 2 * (size_t)chunk * full_bytes;
    memory->workspace += sizes->workspace_bytes;
    for (int p = 0; p < 2; p++) {
        const mhp_stage_slots *slots = mhp_plan_stage_slots(plans[p], rank, index);

        for (int c = 0; slots && c < MHP_SLOT_CLASS_COUNT; c++) {
            memory->slots += (size_t)slots->count[c] * mhp_slot_class_stride(sizes, (mhp_slot_class)c);
        }
    }
}

/* The stage as the layout has it, for its sizes. */
static mhp_status create_stage(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                               const mhp_train_params *train, int index, mhp_stage **stage_out)
{
    mhp_stage_params params = {
        .model = model,
        .kernels = mhp_kernels_find((mhp_device_kind)parallel->device, (mhp_dtype)model->dtype),
        .extent = layout->extents[index],
        .sequences = (int)train->micro_batch_size,
        .length = (int)train->sequence_length,
        .threads = (int)parallel->threads,
    };

    if (!params.kernels) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "no kernels for dtype %s on this device", mhp_dtype_text((mhp_dtype)model->dtype));
    }
    return mhp_stage_create(&params, stage_out);
}

mhp_status mhp_layout_memory(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                             const mhp_train_params *train, int rank, mhp_rank_memory *memory_out)
{
    mhp_batch_shape shape = {
        .microbatches = layout->plan->microbatch_count,
        .sequences = (int)train->micro_batch_size,
        .length = (int)train->sequence_length,
    };

    *memory_out = (mhp_rank_memory){.batches = MHP_TRAINER_BATCHES * mhp_batch_bytes(&shape)};
    for (int s = 0; s < layout->plan->stage_count; s++) {
        mhp_stage *stage = NULL;

        if (!mhp_plan_stage_slots(layout->plan, rank, s)) {
            continue;
        }
        MHP_RETURN_IF_ERROR(create_stage(layout, model, parallel, train, s, &stage));
        add_stage(layout, stage, s, rank, parallel->data, (mhp_dtype)model->dtype, memory_out);
        mhp_stage_destroy(stage);
    }
    memory_out->total = memory_out->weights + memory_out->gradients + memory_out->optimizer + memory_out->slots +
                        memory_out->workspace + memory_out->batches;
    return MHP_OK;
}

mhp_status mhp_layout_check_memory(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                                   const mhp_train_params *train, int rank, mhp_device *device)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    mhp_rank_memory memory;
    size_t left, total;

    MHP_RETURN_IF_ERROR(mhp_layout_memory(layout, model, parallel, train, rank, &memory));
    MHP_RETURN_IF_ERROR(mhp_device_memory(device, &left, &total));
    if (memory.total <= left) {
        return MHP_OK;
    }
    return mhp_error_set(MHP_ERR_NO_MEMORY,
                         "the run needs %.2f GiB on the card (weights %.2f, gradients %.2f, optimizer %.2f, slots %.2f, workspace %.2f) "
                         "and %.2f of its %.2f GiB are free: expected a smaller train.micro_batch_size or sequence_length (slots), or "
                         "more ranks (weights, gradients, optimizer)",
                         (double)memory.total / gib, (double)memory.weights / gib, (double)memory.gradients / gib,
                         (double)memory.optimizer / gib, (double)memory.slots / gib, (double)memory.workspace / gib, (double)left / gib,
                         (double)total / gib);
}

static int64_t larger(int64_t a, size_t b)
{
    return (int64_t)b > a ? (int64_t)b : a;
}

mhp_status mhp_layout_costs(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                            const mhp_train_params *train, mhp_costs *costs_out)
{
    mhp_stage_costs *costs = NULL;

    MHP_RETURN_IF_ERROR(mhp_costs_default(costs_out));
    MHP_RETURN_IF_ERROR(mhp_costs_create_stages(costs_out, (size_t)layout->plan->stage_count, &costs));
    for (int s = 0; s < layout->plan->stage_count; s++) {
        mhp_rank_memory memory = {0};
        mhp_stage *stage = NULL;
        const mhp_stage_sizes *sizes;

        MHP_RETURN_IF_ERROR(create_stage(layout, model, parallel, train, s, &stage));
        sizes = mhp_stage_get_sizes(stage);
        add_stage(layout, stage, s, mhp_plan_owner(layout->plan, s, 0), parallel->data, (mhp_dtype)model->dtype, &memory);
        costs[s] = (mhp_stage_costs){.forward_us = 1, .input_gradient_us = 1, .weight_gradient_us = 1};
        costs[s].bytes.weights = (int64_t)(memory.weights + memory.gradients + memory.optimizer + memory.workspace);
        costs[s].bytes.activation = (int64_t)(sizes->activation_bytes + sizes->product_input_bytes);
        costs[s].bytes.held_weight_gradient = (int64_t)(sizes->product_input_bytes + sizes->product_gradient_bytes);
        costs_out->message_bytes = larger(larger(costs_out->message_bytes, sizes->state_bytes), sizes->gradient_bytes);
        mhp_stage_destroy(stage);
    }
    return MHP_OK;
}

mhp_status mhp_layout_print_memory(const mhp_layout *layout, const mhp_model_params *model, const mhp_parallel_params *parallel,
                                   const mhp_train_params *train, FILE *stream)
{
    const double mib = 1024.0 * 1024.0;

    fprintf(stream, "memory in MiB\n%5s %7s %12s %9s %9s %9s %9s %9s %9s %9s\n", "rank", "layers", "parameters", "weights", "gradients",
            "optimizer", "slots", "workspace", "batches", "total");
    for (int rank = 0; rank < layout->plan->rank_count; rank++) {
        mhp_rank_memory memory;

        MHP_RETURN_IF_ERROR(mhp_layout_memory(layout, model, parallel, train, rank, &memory));
        fprintf(stream, "%5d %7d %12lld %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f\n", rank, memory.layers, (long long)memory.elements,
                (double)memory.weights / mib, (double)memory.gradients / mib, (double)memory.optimizer / mib,
                (double)memory.slots / mib, (double)memory.workspace / mib, (double)memory.batches / mib, (double)memory.total / mib);
    }
    return MHP_OK;
}
