#include "runtime/model_file.h"

#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { ROOT = 0, MOMENT_COUNT = 2 };

static const char *const moment_prefixes[MOMENT_COUNT] = {"exp_avg.", "exp_avg_sq."};

/* What rank 0 holds while it writes; on the other ranks `writer` stays NULL. `write_status` keeps the first failure, so that rank 0
 * goes on taking part in transfers and nobody waits for ever. */
typedef struct gathering_state {
    mhp_store *store;
    mhp_safetensors_writer *writer;
    mhp_status write_status;
    char write_error[MHP_ERROR_TEXT_MAX];
    void *buffer;                       /* device: the flat image of a stage; rank 0 */
    void *image;                        /* the same on the host */
    size_t buffer_bytes;
    int *holders;
    mhp_event *arrived;
    mhp_stream *stream;
} gathering_state;

static void keep_failure(gathering_state *gathering, mhp_status status)
{
    if (status < 0 && gathering->write_status == MHP_OK) {
        gathering->write_status = status;
        snprintf(gathering->write_error, sizeof gathering->write_error, "%s", mhp_error_text());
    }
}

static size_t element_bytes(const mhp_store *store)
{
    return mhp_dtype_bytes(store->kernels->full_dtype);
}

/* Elements of a stage's flat image, padded for its holders. */
static mhp_status stage_elements(mhp_store *store, int stage, int holder_count, mhp_parameter_layout *layout, int64_t *chunk_out)
{
    MHP_RETURN_IF_ERROR(mhp_parameter_layout_create(store->params.model, &store->extents[stage], layout));
    *chunk_out = (layout->elements + holder_count - 1) / holder_count;
    return MHP_OK;
}

static mhp_status largest_stage(gathering_state *gathering)
{
    mhp_store *store = gathering->store;

    for (int s = 0; s < store->params.plan->stage_count; s++) {
        mhp_parameter_layout layout = {0};
        int holder_count = mhp_store_holders(store, s, gathering->holders);
        int64_t chunk;
        size_t bytes;

        MHP_RETURN_IF_ERROR(stage_elements(store, s, holder_count, &layout, &chunk));
        mhp_parameter_layout_destroy(&layout);
        bytes = (size_t)(chunk * holder_count) * element_bytes(store);
        gathering->buffer_bytes = bytes > gathering->buffer_bytes ? bytes : gathering->buffer_bytes;
    }
    return MHP_OK;
}

static mhp_status begin_gathering(gathering_state *gathering, mhp_store *store)
{
    memset(gathering, 0, sizeof *gathering);
    gathering->store = store;
    MHP_RETURN_IF_ERROR(mhp_calloc(&gathering->holders, (size_t)store->world_size, sizeof *gathering->holders));
    MHP_RETURN_IF_ERROR(mhp_event_create(store->device, &gathering->arrived));
    MHP_RETURN_IF_ERROR(mhp_stream_create(store->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "save", &gathering->stream));
    MHP_RETURN_IF_ERROR(largest_stage(gathering));
    if (store->world_rank == ROOT) {
        gathering->buffer = mhp_store_saving_memory(store, gathering->buffer_bytes);
        MHP_RETURN_IF_ERROR(mhp_device_alloc_host(store->device, gathering->buffer_bytes, &gathering->image));
    }
    return MHP_OK;
}

static void end_gathering(gathering_state *gathering)
{
    mhp_safetensors_abandon(gathering->writer);
    mhp_stream_destroy(gathering->stream);
    mhp_event_destroy(gathering->arrived);
    mhp_device_free_host(gathering->store->device, gathering->image);
    mhp_free(gathering->holders);
}

/* Brings `bytes` from `source` on world rank `from` into the root's buffer at `offset`. Every rank. */
static mhp_status bring(gathering_state *gathering, int from, void *source, size_t offset, size_t bytes)
{
    mhp_store *store = gathering->store;
    bool root = store->world_rank == ROOT;
    void *target = root ? (char *)gathering->buffer + offset : NULL;

    if (from == ROOT) {
        if (!root) {
            return MHP_OK;
        }
        MHP_RETURN_IF_ERROR(mhp_stream_copy(gathering->stream, target, source, bytes));
        return mhp_stream_synchronize(gathering->stream);
    }
    if (!root && store->world_rank != from) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_group_transfer(store->world, root ? target : source, bytes, from, ROOT, NULL, gathering->arrived));
    return mhp_event_synchronize(gathering->arrived, 0);
}

static mhp_status write_image(gathering_state *gathering, const mhp_parameter_layout *layout)
{
    size_t size = element_bytes(gathering->store);

    MHP_RETURN_IF_ERROR(mhp_stream_copy(gathering->stream, gathering->image, gathering->buffer, (size_t)layout->elements * size));
    MHP_RETURN_IF_ERROR(mhp_stream_synchronize(gathering->stream));
    for (int p = 0; p < layout->count && gathering->write_status == MHP_OK; p++) {
        const mhp_parameter *parameter = &layout->items[p];

        keep_failure(gathering, mhp_safetensors_write(gathering->writer, (char *)gathering->image + (size_t)parameter->offset * size,
                                                      (size_t)parameter->elements * size));
    }
    return MHP_OK;
}

/* Gathers one array of a stage and appends its tensors. `source` is this rank's array, NULL if it does not hold the stage; whole
 * arrays come from the first holder, parted ones (moments) from each. */
static mhp_status gather_stage(gathering_state *gathering, int stage, void *source, bool parted)
{
    mhp_status status = MHP_OK;
    mhp_store *store = gathering->store;
    mhp_parameter_layout layout = {0};
    int holder_count = mhp_store_holders(store, stage, gathering->holders);
    int64_t chunk;

    MHP_TRY(out, stage_elements(store, stage, holder_count, &layout, &chunk));
    if (parted) {
        size_t bytes = (size_t)chunk * element_bytes(store);

        for (int h = 0; h < holder_count; h++) {
            MHP_TRY(out, bring(gathering, gathering->holders[h], source, (size_t)h * bytes, bytes));
        }
    } else {
        MHP_TRY(out, bring(gathering, gathering->holders[0], source, 0, (size_t)layout.elements * element_bytes(store)));
    }
    if (store->world_rank == ROOT) {
        MHP_TRY(out, write_image(gathering, &layout));
    }
out:
    mhp_parameter_layout_destroy(&layout);
    return status;
}

/* The tensors of a file: every parameter once for each prefix, stages in order, all of a stage's first prefix before its second. */
static mhp_status list_tensors(mhp_store *store, const char *const *prefixes, int prefix_count, mhp_tensor_info **infos_out, size_t *count_out)
{
    mhp_status status = MHP_OK;
    mhp_tensor_info *infos = NULL;
    mhp_parameter_layout layout = {0};
    size_t count = 0;

    for (int s = 0; s < store->params.plan->stage_count; s++) {
        MHP_TRY(out, mhp_parameter_layout_create(store->params.model, &store->extents[s], &layout));
        MHP_TRY(out, mhp_realloc(&infos, count + (size_t)(prefix_count * layout.count), sizeof *infos));
        for (int i = 0; i < prefix_count * layout.count; i++) {
            mhp_tensor_info *info = &infos[count++];
            const mhp_tensor_info *parameter = &layout.items[i % layout.count].info;

            *info = *parameter;
            if (snprintf(info->name, sizeof info->name, "%s%s", prefixes[i / layout.count], parameter->name) >= (int)sizeof info->name) {
                MHP_RAISE(out, MHP_ERR_LIMIT, "tensor name %s%s exceeds %d bytes", prefixes[i / layout.count], parameter->name,
                          MHP_TENSOR_NAME_MAX);
            }
        }
        mhp_parameter_layout_destroy(&layout);
    }
    *infos_out = infos;
    *count_out = count;
    infos = NULL;
out:
    mhp_parameter_layout_destroy(&layout);
    mhp_free(infos);
    return status;
}

static mhp_status create_writer(gathering_state *gathering, const char *directory, const char *file, const char *const *prefixes, int prefix_count)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    mhp_status status = MHP_OK;
    mhp_tensor_info *infos = NULL;
    char *path = NULL;
    size_t count = 0;

    if (gathering->store->world_rank != ROOT) {
        return MHP_OK;
    }
    MHP_TRY(out, mhp_mkdirs(directory));
    MHP_TRY(out, mhp_asprintf(&path, "%s/%s", directory, file));
    MHP_TRY(out, list_tensors(gathering->store, prefixes, prefix_count, &infos, &count));
    MHP_TRY(out, mhp_safetensors_create(path, infos, count, metadata, &gathering->writer));
out:
    mhp_free(infos);
    mhp_free(path);
    return status;
}

static mhp_status finish_writer(gathering_state *gathering)
{
    mhp_safetensors_writer *writer = gathering->writer;

    if (gathering->write_status < 0) {
        return mhp_error_set(gathering->write_status, "%s", gathering->write_error);
    }
    gathering->writer = NULL;
    return writer ? mhp_safetensors_finish(writer) : MHP_OK;
}

static mhp_status agree(const mhp_store *store, mhp_status status)
{
    return mhp_comm_agree(store->params.comm, status, NULL);
}

static mhp_status finish_model(gathering_state *gathering, const char *directory)
{
    MHP_RETURN_IF_ERROR(finish_writer(gathering));
    return gathering->store->world_rank == ROOT ? mhp_model_config_write(directory, gathering->store->params.model) : MHP_OK;
}

mhp_status mhp_model_save(mhp_store *store, const char *directory)
{
    static const char *const prefixes[] = {""};
    mhp_status status = MHP_OK;
    gathering_state gathering;

    MHP_TRY(out, agree(store, begin_gathering(&gathering, store)));
    keep_failure(&gathering, create_writer(&gathering, directory, "model.safetensors", prefixes, 1));
    for (int s = 0; s < store->params.plan->stage_count; s++) {
        mhp_held_stage *held = mhp_store_find(store, s);

        MHP_TRY(out, gather_stage(&gathering, s, held ? held->parameters : NULL, false));
    }
    MHP_TRY(out, agree(store, finish_model(&gathering, directory)));
out:
    end_gathering(&gathering);
    return status;
}

mhp_status mhp_moments_save(mhp_store *store, mhp_optimizer *optimizer, const char *directory)
{
    mhp_status status = MHP_OK;
    gathering_state gathering;

    MHP_TRY(out, agree(store, begin_gathering(&gathering, store)));
    keep_failure(&gathering, create_writer(&gathering, directory, "optimizer.safetensors", moment_prefixes, MOMENT_COUNT));
    for (int s = 0; s < store->params.plan->stage_count; s++) {
        mhp_held_stage *held = mhp_store_find(store, s);
        void *moments[MOMENT_COUNT] = {NULL, NULL};

        if (held) {
            mhp_optimizer_moments(optimizer, held, &moments[0], &moments[1]);
        }
        for (int k = 0; k < MOMENT_COUNT; k++) {
            MHP_TRY(out, gather_stage(&gathering, s, moments[k], true));
        }
    }
    MHP_TRY(out, agree(store, finish_writer(&gathering)));
out:
    end_gathering(&gathering);
    return status;
}

mhp_status mhp_model_load(mhp_store *store, const char *directory)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/model.safetensors", directory));
    MHP_TRY(out, mhp_safetensors_open(path, &file));
    MHP_TRY(out, mhp_store_load(store, file, ""));
out:
    mhp_safetensors_close(file);
    mhp_free(path);
    return status;
}

/* Copies this rank's part of one parameter's moment out of the whole tensor. */
static void copy_part(const mhp_store *store, const mhp_parameter *parameter, int64_t begin, int64_t chunk, const void *whole, void *part)
{
    size_t size = element_bytes(store);
    int64_t first = parameter->offset > begin ? parameter->offset : begin;
    int64_t last = parameter->offset + parameter->elements;

    last = last < begin + chunk ? last : begin + chunk;
    if (first < last) {
        memcpy((char *)part + (size_t)(first - begin) * size, (const char *)whole + (size_t)(first - parameter->offset) * size,
               (size_t)(last - first) * size);
    }
}

static mhp_status load_moment(mhp_store *store, const mhp_held_stage *held, const mhp_safetensors *file, const char *prefix, void *moment,
                              mhp_stream *stream)
{
    mhp_status status = MHP_OK;
    const mhp_parameter_layout *layout = mhp_stage_layout(held->stage);
    size_t size = element_bytes(store);
    void *whole = NULL;
    void *part = NULL;

    MHP_TRY(out, mhp_calloc(&part, (size_t)held->chunk, size));
    for (int p = 0; p < layout->count; p++) {
        const mhp_parameter *parameter = &layout->items[p];
        mhp_tensor_info expected = parameter->info;

        snprintf(expected.name, sizeof expected.name, "%s%.*s", prefix, MHP_TENSOR_NAME_MAX - 32, parameter->info.name);
        MHP_TRY(out, mhp_calloc(&whole, (size_t)parameter->elements, size));
        MHP_TRY(out, mhp_safetensors_read(file, &expected, whole));
        copy_part(store, parameter, held->chunk * mhp_group_index(held->group), held->chunk, whole, part);
        mhp_free(whole);
        whole = NULL;
    }
    MHP_TRY(out, mhp_stream_copy(stream, moment, part, (size_t)held->chunk * size));
    MHP_TRY(out, mhp_stream_synchronize(stream));
out:
    mhp_free(whole);
    mhp_free(part);
    return status;
}

mhp_status mhp_moments_load(mhp_store *store, mhp_optimizer *optimizer, const char *directory)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;
    mhp_stream *stream = NULL;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/optimizer.safetensors", directory));
    MHP_TRY(out, mhp_safetensors_open(path, &file));
    MHP_TRY(out, mhp_stream_create(store->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "load", &stream));
    for (int i = 0; i < store->held_count; i++) {
        void *moments[MOMENT_COUNT];

        mhp_optimizer_moments(optimizer, &store->held[i], &moments[0], &moments[1]);
        for (int k = 0; k < MOMENT_COUNT; k++) {
            MHP_TRY(out, load_moment(store, &store->held[i], file, moment_prefixes[k], moments[k], stream));
        }
    }
out:
    mhp_stream_destroy(stream);
    mhp_safetensors_close(file);
    mhp_free(path);
    return status;
}
