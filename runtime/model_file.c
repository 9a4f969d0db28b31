#include "runtime/model_file.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { ROOT = 0 };

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

static mhp_status largest_stage(gathering_state *gathering)
{
    mhp_store *store = gathering->store;

    for (int s = 0; s < store->params.plan->stage_count; s++) {
        mhp_parameter_layout layout = {0};
        size_t bytes;

        MHP_RETURN_IF_ERROR(mhp_parameter_layout_create(store->params.model, &store->extents[s], &layout));
        bytes = (size_t)layout.elements * element_bytes(store);
        mhp_parameter_layout_destroy(&layout);
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
    mhp_stream_destroy(gathering->stream);
    mhp_event_destroy(gathering->arrived);
    mhp_device_free_host(gathering->store->device, gathering->image);
    mhp_free(gathering->holders);
}

/* Brings `bytes` from `source` on world rank `from` into the root's buffer. Every rank. */
static mhp_status bring(gathering_state *gathering, int from, void *source, size_t bytes)
{
    mhp_store *store = gathering->store;
    bool root = store->world_rank == ROOT;
    void *target = gathering->buffer;

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

/* Brings a stage's parameters from its first holder and appends its tensors. `source` is NULL if this rank does not hold the stage. */
static mhp_status gather_stage(gathering_state *gathering, int stage, void *source)
{
    mhp_status status = MHP_OK;
    mhp_store *store = gathering->store;
    mhp_parameter_layout layout = {0};

    mhp_store_holders(store, stage, gathering->holders);
    MHP_TRY(out, mhp_parameter_layout_create(store->params.model, &store->extents[stage], &layout));
    MHP_TRY(out, bring(gathering, gathering->holders[0], source, (size_t)layout.elements * element_bytes(store)));
    if (store->world_rank == ROOT) {
        MHP_TRY(out, write_image(gathering, &layout));
    }
out:
    mhp_parameter_layout_destroy(&layout);
    return status;
}

/* The tensors of the file: every parameter, stages in order. */
static mhp_status list_tensors(mhp_store *store, mhp_tensor_info **infos_out, size_t *count_out)
{
    mhp_status status = MHP_OK;
    mhp_tensor_info *infos = NULL;
    mhp_parameter_layout layout = {0};
    size_t count = 0;

    for (int s = 0; s < store->params.plan->stage_count; s++) {
        MHP_TRY(out, mhp_parameter_layout_create(store->params.model, &store->extents[s], &layout));
        MHP_TRY(out, mhp_realloc(&infos, count + (size_t)layout.count, sizeof *infos));
        for (int i = 0; i < layout.count; i++) {
            infos[count++] = layout.items[i].info;
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

static mhp_status create_writer(gathering_state *gathering, const char *directory)
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
    MHP_TRY(out, mhp_asprintf(&path, "%s/model.safetensors", directory));
    MHP_TRY(out, list_tensors(gathering->store, &infos, &count));
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
    mhp_status status = MHP_OK;
    gathering_state gathering;

    MHP_TRY(out, agree(store, begin_gathering(&gathering, store)));
    keep_failure(&gathering, create_writer(&gathering, directory));
    for (int s = 0; s < store->params.plan->stage_count; s++) {
        mhp_held_stage *held = mhp_store_find(store, s);

        MHP_TRY(out, gather_stage(&gathering, s, held ? held->parameters : NULL));
    }
    MHP_TRY(out, agree(store, finish_model(&gathering, directory)));
out:
    mhp_safetensors_abandon(gathering.writer);
    if (mhp_comm_may_release(store->params.comm, status)) {
        end_gathering(&gathering);
    }
    return status;
}

/* ---- reading ---- */

enum { INDEX_BYTES_MAX = 1 << 28, FILES_MAX = 1 << 16 };

static bool leaves_folder(const char *name)
{
    return name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL;
}

typedef struct index_files {
    char **paths;
    size_t count;
} index_files;

/* Adds a file of the index once: its tensors stand together. */
static mhp_status add_index_file(const char *directory, const char *index, const char *tensor, const char *name, index_files *files)
{
    char *path = NULL;

    if (!name || leaves_folder(name)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: tensor \"%.300s\": expected the name of a file in the same folder", index, tensor);
    }
    MHP_RETURN_IF_ERROR(mhp_asprintf(&path, "%s/%s", directory, name));
    for (size_t i = files->count; i > 0; i--) {
        if (strcmp(files->paths[i - 1], path) == 0) {
            mhp_free(path);
            return MHP_OK;
        }
    }
    if (files->count == FILES_MAX) {
        mhp_free(path);
        return mhp_error_set(MHP_ERR_LIMIT, "%s names more than %d files, the limit", index, FILES_MAX);
    }
    files->paths[files->count++] = path;
    return MHP_OK;
}

static mhp_status read_index(const char *directory, const char *index, const json_t *root, index_files *files)
{
    json_t *map = json_object_get(root, "weight_map");
    size_t capacity = json_object_size(map) < FILES_MAX ? json_object_size(map) : FILES_MAX;
    const char *tensor;
    json_t *value;

    if (json_object_size(map) == 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: expected an object \"weight_map\" of tensors and their files", index);
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&files->paths, capacity, sizeof *files->paths));
    json_object_foreach(map, tensor, value)
    {
        MHP_RETURN_IF_ERROR(add_index_file(directory, index, tensor, json_string_value(value), files));
    }
    return MHP_OK;
}

static mhp_status open_indexed(const char *directory, const char *index, mhp_safetensors **file_out)
{
    mhp_status status = MHP_OK;
    index_files files = {0};
    json_error_t error;
    json_t *root = NULL;
    char *text = NULL;
    size_t size = 0;

    MHP_TRY(out, mhp_file_read_all(index, INDEX_BYTES_MAX, &text, &size));
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s:%d:%d: %s: expected a JSON object", index, error.line, error.column, error.text);
    }
    MHP_TRY(out, read_index(directory, index, root, &files));
    MHP_TRY(out, mhp_safetensors_open_set((const char *const *)files.paths, files.count, file_out));
out:
    for (size_t i = 0; i < files.count; i++) {
        mhp_free(files.paths[i]);
    }
    mhp_free(files.paths);
    json_decref(root);
    mhp_free(text);
    return status;
}

mhp_status mhp_model_open(const char *directory, mhp_safetensors **file_out)
{
    mhp_status status = MHP_OK;
    char *path = NULL;
    char *index = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/model.safetensors", directory));
    MHP_TRY(out, mhp_asprintf(&index, "%s/" MHP_MODEL_INDEX_NAME, directory));
    if (!mhp_file_exists(path) && mhp_file_exists(index)) {
        MHP_TRY(out, open_indexed(directory, index, file_out));
    } else {
        MHP_TRY(out, mhp_safetensors_open(path, file_out));
    }
out:
    mhp_free(index);
    mhp_free(path);
    return status;
}

mhp_status mhp_model_load(mhp_store *store, const char *directory)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;

    MHP_TRY(out, mhp_model_open(directory, &file));
    MHP_TRY(out, mhp_store_load(store, file, ""));
out:
    mhp_safetensors_close(file);
    return status;
}
