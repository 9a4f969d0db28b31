#include "core/safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/safetensors_header.h"

struct mhp_safetensors_writer {
    mhp_file *file;
    char *path;
    size_t expected_bytes, written_bytes; /* of the tensors' data */
    mhp_hash header_hash;
};

static mhp_status describe(json_t *root, const char *path, const mhp_tensor_info *info,
                           size_t begin, size_t *end_out)
{
    json_t *shape, *entry;
    size_t bytes;

    assert(info->rank >= 0 && info->rank <= MHP_TENSOR_RANK_MAX && info->dtype < MHP_DTYPE_COUNT);
    if (!mhp_safetensors_tensor_bytes(info, &bytes) ||
        __builtin_add_overflow(begin, bytes, end_out) || *end_out > INT64_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT,
                             "%s: tensor \"%s\": expected a shape and an end below 2^63 bytes",
                             path, info->name);
    }
    if (strcmp(info->name, "__metadata__") == 0 || json_object_get(root, info->name)) {
        return mhp_error_set(MHP_ERR_INVALID, "%s: tensor \"%s\": expected a name of its own", path,
                             info->name);
    }
    shape = json_array();
    for (int i = 0; i < info->rank; i++) {
        json_array_append_new(shape, json_integer(info->shape[i]));
    }
    if (json_array_size(shape) != (size_t)info->rank) {
        json_decref(shape);
        return mhp_error_set(MHP_ERR_NO_MEMORY, "%s: no memory for the shape of tensor \"%s\"",
                             path, info->name);
    }
    entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", mhp_dtype_text(info->dtype), "shape", shape,
                      "data_offsets", (json_int_t)begin, (json_int_t)*end_out);
    if (json_object_set_new(root, info->name, entry) != 0) {
        return mhp_error_set(MHP_ERR_INVALID,
                             "%s: cannot describe tensor \"%s\": expected a name in UTF-8", path,
                             info->name);
    }
    return MHP_OK;
}

static mhp_status describe_metadata(json_t *root, const char *path, const char *const *metadata)
{
    json_t *object;

    if (!metadata || !metadata[0]) {
        return MHP_OK;
    }
    object = json_object();
    if (!object || json_object_set_new(root, "__metadata__", object) != 0) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "%s: no memory for the metadata", path);
    }
    for (; metadata[0]; metadata += 2) {
        assert(metadata[1]);
        if (json_object_set_new(object, metadata[0], json_string(metadata[1])) != 0) {
            return mhp_error_set(MHP_ERR_INVALID, "%s: metadata \"%s\": expected UTF-8", path,
                                 metadata[0]);
        }
    }
    return MHP_OK;
}

/* Length and JSON, padded with spaces so that the data begins at a block of the file. */
static mhp_status write_header(mhp_safetensors_writer *writer, const json_t *root)
{
    mhp_status status = MHP_OK;
    char *text = json_dumps(root, JSON_COMPACT), *bytes = NULL;
    size_t length = text ? strlen(text) : 0;
    uint64_t blocks = (sizeof blocks + length + MHP_FILE_BLOCK - 1) / MHP_FILE_BLOCK;
    uint64_t padded = blocks * MHP_FILE_BLOCK - sizeof padded;

    if (!text) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "%s: no memory for the header", writer->path);
    }
    if (padded > MHP_SAFETENSORS_HEADER_MAX) {
        MHP_RAISE(out, MHP_ERR_LIMIT, "%s: header of %llu bytes: expected at most %zu",
                  writer->path, (unsigned long long)padded, MHP_SAFETENSORS_HEADER_MAX);
    }
    MHP_TRY(out, mhp_calloc(&bytes, sizeof padded + padded, 1));
    memcpy(bytes, &padded, sizeof padded);
    memcpy(bytes + sizeof padded, text, length);
    memset(bytes + sizeof padded + length, ' ', padded - length);
    writer->header_hash = mhp_hash_bytes(bytes, sizeof padded + padded);
    MHP_TRY(out, mhp_file_write(writer->file, bytes, sizeof padded + padded));
out:
    mhp_free(bytes);
    free(text);
    return status;
}

mhp_status mhp_safetensors_create(const char *path, const mhp_tensor_info *infos, size_t count,
                                  const char *const *metadata, mhp_safetensors_writer **writer_out)
{
    mhp_status status = MHP_OK;
    mhp_safetensors_writer *writer = NULL;
    json_t *root = json_object();

    if (!root) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "%s: no memory for the header", path);
    }
    if (count > MHP_SAFETENSORS_COUNT_MAX) {
        MHP_RAISE(out, MHP_ERR_LIMIT, "%s: %zu tensors: expected at most %zu", path, count,
                  MHP_SAFETENSORS_COUNT_MAX);
    }
    MHP_TRY(out, mhp_calloc(&writer, 1, sizeof *writer));
    MHP_TRY(out, mhp_strdup(&writer->path, path));
    MHP_TRY(out, describe_metadata(root, path, metadata));
    for (size_t i = 0; i < count; i++) {
        MHP_TRY(out,
                describe(root, path, &infos[i], writer->expected_bytes, &writer->expected_bytes));
    }
    MHP_TRY(out, mhp_file_create(path, &writer->file));
    MHP_TRY(out, write_header(writer, root));
    mhp_file_stream(writer->file);
    *writer_out = writer;
    writer = NULL;
out:
    mhp_safetensors_abandon(writer);
    json_decref(root);
    return status;
}

mhp_hash mhp_safetensors_writer_header_hash(const mhp_safetensors_writer *writer)
{
    return writer->header_hash;
}

mhp_status mhp_safetensors_write(mhp_safetensors_writer *writer, const void *data, size_t bytes)
{
    if (bytes > writer->expected_bytes - writer->written_bytes) {
        return mhp_error_set(MHP_ERR_INVALID, "%s: %zu bytes after %zu: expected %zu in all",
                             writer->path, bytes, writer->written_bytes, writer->expected_bytes);
    }
    MHP_RETURN_IF_ERROR(mhp_file_write(writer->file, data, bytes));
    writer->written_bytes += bytes;
    return MHP_OK;
}

mhp_status mhp_safetensors_finish(mhp_safetensors_writer *writer)
{
    mhp_status status = MHP_OK;

    if (writer->written_bytes != writer->expected_bytes) {
        MHP_RAISE(out, MHP_ERR_INVALID, "%s: finished after %zu bytes: expected %zu", writer->path,
                  writer->written_bytes, writer->expected_bytes);
    }
    status = mhp_file_finish(writer->file);
    writer->file = NULL;
out:
    mhp_safetensors_abandon(writer);
    return status;
}

void mhp_safetensors_abandon(mhp_safetensors_writer *writer)
{
    if (!writer) {
        return;
    }
    mhp_file_abandon(writer->file);
    mhp_free(writer->path);
    mhp_free(writer);
}
