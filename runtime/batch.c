#include "runtime/batch.h"

#include <string.h>

#include "core/memory.h"

static size_t tokens_of(const mhp_batch_shape *shape)
{
    return (size_t)shape->sequences * (size_t)shape->length;
}

static size_t part_elements(const mhp_batch_shape *shape)
{
    return (size_t)shape->microbatches * tokens_of(shape);
}

size_t mhp_batch_bytes(const mhp_batch_shape *shape)
{
    return (3 * part_elements(shape) + tokens_of(shape)) * sizeof(int32_t);
}

mhp_status mhp_batch_create(mhp_device *device, const mhp_batch_shape *shape, void *memory, mhp_batch **batch_out)
{
    mhp_status status = MHP_OK;
    mhp_batch *batch = NULL;
    int32_t *position;

    MHP_TRY(out, mhp_calloc(&batch, 1, sizeof *batch));
    batch->shape = *shape;
    batch->device = device;
    MHP_TRY(out, mhp_device_alloc_host(device, mhp_batch_bytes(shape), (void **)&batch->host));
    batch->memory = memory;
    memset(batch->host, 0, mhp_batch_bytes(shape));
    position = batch->host + 3 * part_elements(shape);
    for (size_t t = 0; t < tokens_of(shape); t++) {
        position[t] = (int32_t)(t % (size_t)shape->length);
    }
    *batch_out = batch;
    batch = NULL;
out:
    mhp_batch_destroy(batch);
    return status;
}

void mhp_batch_destroy(mhp_batch *batch)
{
    if (!batch) {
        return;
    }
    mhp_device_free_host(batch->device, batch->host);
    mhp_free(batch);
}

mhp_status mhp_batch_fill(mhp_batch *batch, const mhp_sample_source *source, uint64_t first_sample, uint64_t end)
{
    size_t part = part_elements(&batch->shape);
    size_t length = (size_t)batch->shape.length;
    size_t samples = (size_t)batch->shape.microbatches * (size_t)batch->shape.sequences;

    batch->filled = false;
    for (size_t i = 0; i < samples; i++) {
        int32_t *token = batch->host + i * length;
        uint64_t sample = first_sample + i;

        if (sample < end) {
            MHP_RETURN_IF_ERROR(source->fill(source->context, sample, token, token + part, token + 2 * part));
            continue;
        }
        for (size_t t = 0; t < length; t++) {
            token[t] = 0;
            token[t + part] = MHP_TARGET_MASKED;
            token[t + 2 * part] = 0;
        }
    }
    batch->first_sample = first_sample;
    batch->filled = true;
    return MHP_OK;
}

int64_t mhp_batch_targets(const mhp_batch *batch, int microbatch)
{
    const int32_t *target = batch->host + part_elements(&batch->shape) + (size_t)microbatch * tokens_of(&batch->shape);
    int64_t count = 0;

    for (size_t t = 0; t < tokens_of(&batch->shape); t++) {
        count += target[t] != MHP_TARGET_MASKED;
    }
    return count;
}

bool mhp_batch_one_document(const mhp_batch *batch)
{
    const int32_t *start = batch->host + 2 * part_elements(&batch->shape);

    for (size_t i = 0; i < part_elements(&batch->shape); i++) {
        if (start[i] != 0) {
            return false;
        }
    }
    return true;
}

mhp_status mhp_batch_upload(mhp_batch *batch, mhp_stream *stream)
{
    return mhp_stream_copy(stream, batch->memory, batch->host, mhp_batch_bytes(&batch->shape));
}

const int32_t *mhp_batch_token(const mhp_batch *batch)
{
    return batch->memory;
}

const int32_t *mhp_batch_target(const mhp_batch *batch)
{
    return batch->memory + part_elements(&batch->shape);
}

const int32_t *mhp_batch_document_start(const mhp_batch *batch)
{
    return batch->memory + 2 * part_elements(&batch->shape);
}

const int32_t *mhp_batch_position(const mhp_batch *batch)
{
    return batch->memory + 3 * part_elements(&batch->shape);
}
