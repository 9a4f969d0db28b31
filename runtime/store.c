#include "runtime/store.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"

enum { GROUP_ID_WORLD = 0, GROUP_ID_STAGES = 1 };

static bool holds(const mhp_plan *plan, int pipeline_rank, int stage)
{
    for (int m = 0; m < plan->microbatch_count; m++) {
        if (mhp_plan_owner(plan, stage, m) == pipeline_rank) {
            return true;
        }
    }
    return false;
}

int mhp_store_holders(const mhp_store *store, int stage, int *ranks)
{
    const mhp_plan *plan = store->params.plan;
    int count = 0;

    for (int rank = 0; rank < store->world_size; rank++) {
        if (holds(plan, rank % plan->rank_count, stage)) {
            ranks[count++] = rank;
        }
    }
    return count;
}

mhp_held_stage *mhp_store_find(mhp_store *store, int stage)
{
    for (int i = 0; i < store->held_count; i++) {
        if (store->held[i].index == stage) {
            return &store->held[i];
        }
    }
    return NULL;
}

static size_t full_bytes(const mhp_store *store, int64_t elements)
{
    return (size_t)elements * mhp_dtype_bytes(store->kernels->full_dtype);
}

static bool weights_apart(const mhp_store *store)
{
    return store->kernels->dtype != store->kernels->full_dtype;
}

mhp_status mhp_store_cast_weights(const mhp_store *store, const mhp_held_stage *held, mhp_stream *stream)
{
    mhp_cast_args args = {.count = mhp_stage_layout(held->stage)->elements, .source = held->parameters, .target = held->weights};

    return weights_apart(store) ? mhp_stream_submit(stream, store->kernels->cast, &args, sizeof args) : MHP_OK;
}

static mhp_status create_stage(mhp_store *store, mhp_held_stage *held, int *ranks)
{
    mhp_status status = MHP_OK;
    char name[32];
    mhp_arena *arena = store->params.arena;
    const mhp_stage_memory *memory = mhp_memory_plan_stage(store->params.memory, held->index);
    size_t elements = (size_t)memory->chunk * (size_t)memory->holders;
    mhp_stage_params params = {
        .model = store->params.model,
        .kernels = store->kernels,
        .extent = store->extents[held->index],
        .sequences = store->params.sequences,
        .length = store->params.length,
        .threads = store->params.threads,
        .recompute = memory->recompute,
        .block = memory->block,
        .slices = store->params.slices,
    };
    int holder_count = mhp_store_holders(store, held->index, ranks);

    snprintf(name, sizeof name, "stage %d", held->index);
    MHP_TRY(out, mhp_stage_create(&params, &held->stage));
    MHP_TRY(out, mhp_group_open(store->params.comm, name, GROUP_ID_STAGES + held->index, ranks, holder_count, &held->group));
    assert(holder_count == memory->holders);
    held->memory = memory;
    held->chunk = memory->chunk;
    held->parameters = mhp_arena_at(arena, memory->parameters, elements * mhp_dtype_bytes(store->kernels->full_dtype));
    held->weights = mhp_arena_at(arena, memory->weights, elements * mhp_dtype_bytes(store->kernels->dtype));
    held->gradients = mhp_arena_at(arena, memory->gradients, elements * mhp_dtype_bytes(store->kernels->full_dtype));
    mhp_stage_bind(held->stage, held->parameters, held->weights, held->gradients);
out:
    return mhp_error_prefix(status, "stage %d: ", held->index);
}

static mhp_status create_stages(mhp_store *store)
{
    mhp_status status = MHP_OK;
    const mhp_plan *plan = store->params.plan;
    int *ranks = NULL;

    MHP_TRY(out, mhp_calloc(&ranks, (size_t)store->world_size, sizeof *ranks));
    for (int rank = 0; rank < store->world_size; rank++) {
        ranks[rank] = rank;
    }
    MHP_TRY(out, mhp_group_open(store->params.comm, "world", GROUP_ID_WORLD, ranks, store->world_size, &store->world));
    MHP_TRY(out, mhp_calloc(&store->held, (size_t)plan->stage_count, sizeof *store->held));
    for (int s = 0; s < plan->stage_count; s++) {
        if (holds(plan, store->pipeline_rank, s)) {
            store->held[store->held_count].index = s;
            MHP_TRY(out, create_stage(store, &store->held[store->held_count++], ranks));
        }
    }
out:
    mhp_free(ranks);
    return status;
}

mhp_status mhp_store_create(const mhp_store_params *params, mhp_store **store_out)
{
    mhp_status status = MHP_OK;
    mhp_store *store = NULL;
    size_t stage_count = (size_t)params->plan->stage_count;

    MHP_TRY(out, mhp_calloc(&store, 1, sizeof *store));
    store->params = *params;
    store->device = mhp_comm_device(params->comm);
    store->world_rank = mhp_comm_rank(params->comm);
    store->world_size = mhp_comm_size(params->comm);
    store->pipeline_rank = store->world_rank % params->plan->rank_count;
    store->replica = store->world_rank / params->plan->rank_count;
    assert(store->world_size == params->plan->rank_count * params->replica_count);
    store->kernels = mhp_kernels_find(mhp_device_get_kind(store->device), (mhp_dtype)params->model->dtype);
    if (!store->kernels) {
        MHP_RAISE(out, MHP_ERR_UNSUPPORTED, "no kernels for dtype %s on this device", mhp_dtype_text((mhp_dtype)params->model->dtype));
    }
    MHP_TRY(out, mhp_calloc(&store->extents, stage_count, sizeof *store->extents));
    memcpy(store->extents, params->extents, stage_count * sizeof *store->extents);
    MHP_TRY(out, create_stages(store));
    *store_out = store;
    store = NULL;
out:
    if (mhp_comm_may_release(params->comm, status)) {
        mhp_store_destroy(store);
    }
    return status;
}

void mhp_store_destroy(mhp_store *store)
{
    if (!store) {
        return;
    }
    for (int i = store->held_count - 1; i >= 0; i--) {
        mhp_held_stage *held = &store->held[i];

        mhp_group_close(held->group);
        mhp_stage_destroy(held->stage);
    }
    mhp_group_close(store->world);
    mhp_free(store->held);
    mhp_free(store->extents);
    mhp_free(store);
}

void *mhp_store_saving_memory(const mhp_store *store, size_t bytes)
{
    const mhp_memory_plan *memory = store->params.memory;

    assert(bytes <= memory->saving_bytes);
    return mhp_arena_at(store->params.arena, memory->saving, bytes);
}

static void convert_from_double(mhp_dtype dtype, const double *source, void *target, int64_t count)
{
    if (dtype == MHP_DTYPE_F64) {
        memcpy(target, source, (size_t)count * sizeof(double));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        ((float *)target)[i] = (float)source[i];
    }
}

/* Where a parameter of the held stage lies in a host image of its flat buffer. */
static void *image_at(const mhp_store *store, void *image, const mhp_parameter *parameter)
{
    return (char *)image + full_bytes(store, parameter->offset);
}

/* Builds a host image of each stage's parameters with `fill` and copies it to the device; padding is zero. */
typedef mhp_status (*fill_fn)(const mhp_store *store, const mhp_parameter *parameter, void *target, void *context);

static mhp_status fill_stages(mhp_store *store, fill_fn fill, void *context)
{
    mhp_status status = MHP_OK;
    void *image = NULL;
    mhp_stream *stream = NULL;

    MHP_TRY(out, mhp_stream_create(store->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "load", &stream));
    for (int i = 0; i < store->held_count; i++) {
        mhp_held_stage *held = &store->held[i];
        const mhp_parameter_layout *layout = mhp_stage_layout(held->stage);
        size_t bytes = full_bytes(store, held->chunk * mhp_group_size(held->group));

        MHP_TRY(out, mhp_calloc(&image, bytes, 1));
        for (int p = 0; p < layout->count; p++) {
            MHP_TRY(out, fill(store, &layout->items[p], image_at(store, image, &layout->items[p]), context));
        }
        MHP_TRY(out, mhp_stream_copy(stream, held->parameters, image, bytes));
        MHP_TRY(out, mhp_store_cast_weights(store, held, stream));
        MHP_TRY(out, mhp_stream_synchronize(stream));
        mhp_free(image);
        image = NULL;
    }
out:
    mhp_stream_destroy(stream);
    mhp_free(image);
    return status;
}

static mhp_status fill_initial(const mhp_store *store, const mhp_parameter *parameter, void *target, void *context)
{
    double *values = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&values, (size_t)parameter->elements, sizeof *values));
    mhp_parameter_initialize(store->params.model, parameter, *(const uint64_t *)context, values);
    convert_from_double(store->kernels->full_dtype, values, target, parameter->elements);
    mhp_free(values);
    return MHP_OK;
}

mhp_status mhp_store_initialize(mhp_store *store, uint64_t seed)
{
    return fill_stages(store, fill_initial, &seed);
}

typedef struct load_context {
    const mhp_safetensors *file;
    const char *prefix;
} load_context;

static mhp_status fill_loaded(const mhp_store *store, const mhp_parameter *parameter, void *target, void *context)
{
    const load_context *load = context;
    mhp_tensor_info expected = parameter->info;

    (void)store;
    if (snprintf(expected.name, sizeof expected.name, "%s%s", load->prefix, parameter->info.name) >= (int)sizeof expected.name) {
        return mhp_error_set(MHP_ERR_LIMIT, "tensor name %s%s exceeds %d bytes", load->prefix, parameter->info.name,
                             MHP_TENSOR_NAME_MAX);
    }
    return mhp_safetensors_read(load->file, &expected, target);
}

mhp_status mhp_store_load(mhp_store *store, const mhp_safetensors *file, const char *prefix)
{
    load_context context = {.file = file, .prefix = prefix};

    return fill_stages(store, fill_loaded, &context);
}

int64_t mhp_store_model_elements(const mhp_store *store)
{
    int64_t elements = 0;

    for (int s = 0; s < store->params.plan->stage_count; s++) {
        mhp_parameter_layout layout = {0};

        if (mhp_parameter_layout_create(store->params.model, &store->extents[s], &layout) < 0) {
            return -1;
        }
        for (int p = 0; p < layout.count; p++) {
            elements += layout.items[p].elements;
        }
        mhp_parameter_layout_destroy(&layout);
    }
    return elements;
}
