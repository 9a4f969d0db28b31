#include "runtime/checkpoint/parts.h"

#include <stdio.h>

#include "core/memory.h"

const char *const mhp_moment_prefixes[MHP_MOMENT_COUNT] = {"exp_avg.", "exp_avg_sq."};

/* One array of one held stage: elements begin .. end - 1 of its flat buffer. */
typedef struct staged_range {
    const mhp_held_stage *held;
    const char *prefix;             /* of the tensors' names */
    const void *source;             /* device memory of element `begin` */
    int64_t begin, end;
    char *copy;                     /* host */
} staged_range;

enum { RANGES_OF_STAGE = 1 + MHP_MOMENT_COUNT };

struct mhp_checkpoint_parts {
    mhp_store *store;
    mhp_stream *stream;
    staged_range *ranges;           /* of all stages: parameters first, then moments */
    int range_count;
    mhp_checkpoint_piece *pieces;
    size_t piece_count, bytes;
};

static size_t element_bytes(const mhp_store *store)
{
    return mhp_dtype_bytes(store->kernels->full_dtype);
}

static int64_t at_least(int64_t value, int64_t bound)
{
    return value > bound ? value : bound;
}

static int64_t at_most(int64_t value, int64_t bound)
{
    return value < bound ? value : bound;
}

/* The whole parameters that begin in this rank's share. */
static staged_range parameter_range(const mhp_checkpoint_parts *parts, const mhp_held_stage *held)
{
    const mhp_parameter_layout *layout = mhp_stage_layout(held->stage);
    int64_t share = held->chunk * mhp_group_index(held->group);
    staged_range range = {.held = held, .prefix = "", .begin = -1};

    for (int p = 0; p < layout->count; p++) {
        const mhp_parameter *parameter = &layout->items[p];

        if (parameter->offset >= share && parameter->offset < share + held->chunk) {
            range.begin = range.begin < 0 ? parameter->offset : range.begin;
            range.end = parameter->offset + parameter->elements;
        }
    }
    range.begin = at_least(range.begin, 0);
    range.source = (const char *)held->parameters + (size_t)range.begin * element_bytes(parts->store);
    return range;
}

static mhp_status add_range(mhp_checkpoint_parts *parts, staged_range range)
{
    size_t bytes = (size_t)at_least(range.end - range.begin, 0) * element_bytes(parts->store);

    if (bytes == 0) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_device_alloc_host(parts->store->device, bytes, (void **)&range.copy));
    parts->bytes += bytes;
    parts->ranges[parts->range_count++] = range;
    return MHP_OK;
}

static mhp_status create_ranges(mhp_checkpoint_parts *parts, mhp_optimizer *optimizer)
{
    mhp_store *store = parts->store;

    MHP_RETURN_IF_ERROR(mhp_calloc(&parts->ranges, (size_t)store->held_count * RANGES_OF_STAGE, sizeof *parts->ranges));
    for (int i = 0; i < store->held_count; i++) {
        MHP_RETURN_IF_ERROR(add_range(parts, parameter_range(parts, &store->held[i])));
    }
    for (int i = 0; i < store->held_count; i++) {
        const mhp_held_stage *held = &store->held[i];
        int64_t begin = held->chunk * mhp_group_index(held->group);
        void *moments[MHP_MOMENT_COUNT];

        mhp_optimizer_moments(optimizer, held, &moments[0], &moments[1]);
        for (int k = 0; k < MHP_MOMENT_COUNT; k++) {
            staged_range range = {.held = held, .prefix = mhp_moment_prefixes[k], .source = moments[k], .begin = begin,
                                  .end = at_most(begin + held->chunk, mhp_stage_layout(held->stage)->elements)};

            MHP_RETURN_IF_ERROR(add_range(parts, range));
        }
    }
    return MHP_OK;
}

static mhp_status add_piece(mhp_checkpoint_parts *parts, const staged_range *range, const mhp_parameter *parameter)
{
    int64_t first = at_least(parameter->offset, range->begin);
    int64_t last = at_most(parameter->offset + parameter->elements, range->end);
    mhp_checkpoint_piece *piece = &parts->pieces[parts->piece_count];
    mhp_tensor_info *info = &piece->tensor.info;

    if (first >= last) {
        return MHP_OK;
    }
    *info = parameter->info;
    if (snprintf(info->name, sizeof info->name, "%s%s", range->prefix, parameter->info.name) >= (int)sizeof info->name) {
        return mhp_error_set(MHP_ERR_LIMIT, "tensor name %s%s exceeds %d bytes", range->prefix, parameter->info.name,
                             MHP_TENSOR_NAME_MAX - 1);
    }
    piece->tensor.first = first - parameter->offset;
    piece->tensor.count = last - first;
    piece->tensor.owner = parts->store->world_rank;
    piece->kind = range->prefix[0] == '\0' ? MHP_PART_MODEL : MHP_PART_OPTIMIZER;
    piece->data = range->copy + (size_t)(first - range->begin) * element_bytes(parts->store);
    parts->piece_count++;
    return MHP_OK;
}

static mhp_status create_pieces(mhp_checkpoint_parts *parts)
{
    size_t capacity = 0;

    for (int r = 0; r < parts->range_count; r++) {
        capacity += (size_t)mhp_stage_layout(parts->ranges[r].held->stage)->count;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&parts->pieces, capacity, sizeof *parts->pieces));
    for (int r = 0; r < parts->range_count; r++) {
        const mhp_parameter_layout *layout = mhp_stage_layout(parts->ranges[r].held->stage);

        for (int p = 0; p < layout->count; p++) {
            MHP_RETURN_IF_ERROR(add_piece(parts, &parts->ranges[r], &layout->items[p]));
        }
    }
    return MHP_OK;
}

mhp_status mhp_checkpoint_parts_create(mhp_store *store, mhp_optimizer *optimizer, mhp_checkpoint_parts **parts_out)
{
    mhp_status status = MHP_OK;
    mhp_checkpoint_parts *parts = NULL;

    MHP_TRY(out, mhp_calloc(&parts, 1, sizeof *parts));
    parts->store = store;
    MHP_TRY(out, mhp_stream_create(store->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "save", &parts->stream));
    MHP_TRY(out, create_ranges(parts, optimizer));
    MHP_TRY(out, create_pieces(parts));
    *parts_out = parts;
    parts = NULL;
out:
    mhp_checkpoint_parts_destroy(parts);
    return status;
}

void mhp_checkpoint_parts_destroy(mhp_checkpoint_parts *parts)
{
    if (!parts) {
        return;
    }
    mhp_stream_destroy(parts->stream);
    for (int r = 0; r < parts->range_count; r++) {
        mhp_device_free_host(parts->store->device, parts->ranges[r].copy);
    }
    mhp_free(parts->ranges);
    mhp_free(parts->pieces);
    mhp_free(parts);
}

mhp_status mhp_checkpoint_parts_stage(mhp_checkpoint_parts *parts)
{
    size_t size = element_bytes(parts->store);

    for (int r = 0; r < parts->range_count; r++) {
        const staged_range *range = &parts->ranges[r];

        MHP_RETURN_IF_ERROR(mhp_stream_copy(parts->stream, range->copy, range->source, (size_t)(range->end - range->begin) * size));
    }
    return mhp_stream_synchronize(parts->stream);
}

const mhp_checkpoint_piece *mhp_checkpoint_parts_pieces(const mhp_checkpoint_parts *parts, size_t *count_out)
{
    *count_out = parts->piece_count;
    return parts->pieces;
}

size_t mhp_checkpoint_parts_bytes(const mhp_checkpoint_parts *parts)
{
    return parts->bytes;
}
