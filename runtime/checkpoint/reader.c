#include "runtime/checkpoint/reader.h"

#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

struct mhp_checkpoint_reader {
    char *directory;
    mhp_manifest manifest;
    mhp_safetensors *file;          /* all safetensors files as one; NULL if there is none */
    bool *checked;                  /* [tensor_count] */
};

static bool is_safetensors(const char *name)
{
    size_t length = strlen(name), suffix = strlen(".safetensors");

    return length > suffix && strcmp(name + length - suffix, ".safetensors") == 0;
}

static mhp_status path_of(const mhp_checkpoint_reader *reader, const char *name, char **path_out)
{
    return mhp_asprintf(path_out, "%s/%s", reader->directory, name);
}

static mhp_status check_headers(const mhp_checkpoint_reader *reader)
{
    const mhp_manifest *manifest = &reader->manifest;
    size_t part = 0;

    for (int i = 0; i < manifest->file_count; i++) {
        const mhp_manifest_file *file = &manifest->files[i];

        if (is_safetensors(file->name) && !mhp_hash_equal(mhp_safetensors_header_hash(reader->file, part++), file->hash)) {
            return mhp_error_set(MHP_ERR_FORMAT, "%s/%s is corrupt: its header's checksum is not the manifest's", reader->directory,
                                 file->name);
        }
    }
    return MHP_OK;
}

static mhp_status open_files(mhp_checkpoint_reader *reader)
{
    mhp_status status = MHP_OK;
    const mhp_manifest *manifest = &reader->manifest;
    char **paths = NULL;
    size_t count = 0;

    MHP_TRY(out, mhp_calloc(&paths, (size_t)manifest->file_count, sizeof *paths));
    for (int i = 0; i < manifest->file_count; i++) {
        if (is_safetensors(manifest->files[i].name)) {
            MHP_TRY(out, path_of(reader, manifest->files[i].name, &paths[count++]));
        }
    }
    if (count > 0) {
        MHP_TRY(out, mhp_safetensors_open_set((const char *const *)paths, count, &reader->file));
    }
    MHP_TRY(out, check_headers(reader));
out:
    for (size_t i = 0; i < count; i++) {
        mhp_free(paths[i]);
    }
    mhp_free(paths);
    return status;
}

mhp_status mhp_checkpoint_reader_open(const char *directory, mhp_checkpoint_reader **reader_out)
{
    mhp_status status = MHP_OK;
    mhp_checkpoint_reader *reader = NULL;
    char *path = NULL;

    MHP_TRY(out, mhp_calloc(&reader, 1, sizeof *reader));
    MHP_TRY(out, mhp_strdup(&reader->directory, directory));
    MHP_TRY(out, path_of(reader, "manifest.json", &path));
    MHP_TRY(out, mhp_manifest_read(path, &reader->manifest, NULL));
    MHP_TRY(out, mhp_calloc(&reader->checked, reader->manifest.tensor_count, sizeof *reader->checked));
    MHP_TRY(out, open_files(reader));
    *reader_out = reader;
    reader = NULL;
out:
    mhp_free(path);
    mhp_checkpoint_reader_close(reader);
    return status;
}

void mhp_checkpoint_reader_close(mhp_checkpoint_reader *reader)
{
    if (!reader) {
        return;
    }
    mhp_safetensors_close(reader->file);
    mhp_manifest_release(&reader->manifest);
    mhp_free(reader->checked);
    mhp_free(reader->directory);
    mhp_free(reader);
}

const mhp_manifest *mhp_checkpoint_reader_manifest(const mhp_checkpoint_reader *reader)
{
    return &reader->manifest;
}

static bool same_info(const mhp_tensor_info *a, const mhp_tensor_info *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           (a->rank == 0 || memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]) == 0);
}

/* Finds an entry's bytes and checks them once. */
static mhp_status check_entry(mhp_checkpoint_reader *reader, const mhp_manifest_tensor *entry, mhp_tensor_info *stored, const void **data_out)
{
    const char *file = reader->manifest.files[entry->file].name;
    size_t index = (size_t)(entry - reader->manifest.tensors);
    size_t bytes = (size_t)entry->count * mhp_dtype_bytes(entry->info.dtype);
    long at;

    MHP_RETURN_IF_ERROR(mhp_manifest_stored_info(entry, stored));
    at = reader->file ? mhp_safetensors_find(reader->file, stored->name) : -1;
    if (at < 0 || !same_info(mhp_safetensors_info(reader->file, (size_t)at), stored)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s/%s: tensor \"%s\" is not there as the manifest describes it", reader->directory, file,
                             stored->name);
    }
    *data_out = mhp_safetensors_data(reader->file, (size_t)at);
    if (!reader->checked[index] && !mhp_hash_equal(mhp_hash_bytes(*data_out, bytes), entry->hash)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s/%s: tensor \"%s\" is corrupt: its checksum is not the manifest's", reader->directory, file,
                             stored->name);
    }
    reader->checked[index] = true;
    return MHP_OK;
}

/* Copies what an entry has of the range. Conversion to another type goes through a copy of the entry. */
static mhp_status copy_entry(mhp_checkpoint_reader *reader, const mhp_manifest_tensor *entry, mhp_dtype dtype, int64_t first, int64_t last,
                             int64_t target_first, void *target)
{
    mhp_status status = MHP_OK;
    mhp_tensor_info stored;
    size_t size = mhp_dtype_bytes(dtype);
    const void *data;
    void *converted = NULL;

    MHP_TRY(out, check_entry(reader, entry, &stored, &data));
    if (stored.dtype != dtype) {
        stored.dtype = dtype;
        MHP_TRY(out, mhp_calloc(&converted, (size_t)entry->count, size));
        MHP_TRY(out, mhp_safetensors_read(reader->file, &stored, converted));
        data = converted;
    }
    memcpy((char *)target + (size_t)(first - target_first) * size, (const char *)data + (size_t)(first - entry->first) * size,
           (size_t)(last - first) * size);
out:
    mhp_free(converted);
    return status;
}

static mhp_status check_shape(const mhp_checkpoint_reader *reader, const mhp_manifest_tensor *found, const mhp_tensor_info *expected)
{
    mhp_tensor_info same_type = found->info;

    same_type.dtype = expected->dtype;
    if (same_info(&same_type, expected)) {
        return MHP_OK;
    }
    return mhp_error_set(MHP_ERR_CONFIG, "%s/manifest.json: tensor \"%s\" has another shape, of %lld elements: expected that of the model, "
                         "%lld", reader->directory, expected->name, (long long)mhp_tensor_elements(&found->info),
                         (long long)mhp_tensor_elements(expected));
}

mhp_status mhp_checkpoint_reader_copy(mhp_checkpoint_reader *reader, const mhp_tensor_info *expected, int64_t first, int64_t count,
                                      void *target)
{
    const mhp_manifest_tensor *entries;
    size_t entry_count = mhp_manifest_find(&reader->manifest, expected->name, &entries);
    int64_t next = first;

    for (size_t i = 0; i < entry_count; i++) {
        const mhp_manifest_tensor *entry = &entries[i];
        int64_t last = entry->first + entry->count < first + count ? entry->first + entry->count : first + count;

        MHP_RETURN_IF_ERROR(check_shape(reader, entry, expected));
        if (entry->first <= next && next < last) {
            MHP_RETURN_IF_ERROR(copy_entry(reader, entry, expected->dtype, next, last, first, target));
            next = last;
        }
    }
    if (next != first + count) {
        return mhp_error_set(entry_count == 0 ? MHP_ERR_NOT_FOUND : MHP_ERR_FORMAT,
                             "%s/manifest.json: tensor \"%s\": element %lld is in no file", reader->directory, expected->name,
                             (long long)next);
    }
    return MHP_OK;
}

static mhp_status verify_plain_file(const mhp_checkpoint_reader *reader, const mhp_manifest_file *file)
{
    mhp_status status = MHP_OK;
    char *path = NULL;
    char *text = NULL;
    size_t size = 0;

    MHP_TRY(out, path_of(reader, file->name, &path));
    MHP_TRY(out, mhp_file_read_all(path, MHP_MANIFEST_BYTES_MAX, &text, &size));
    if (!mhp_hash_equal(mhp_hash_bytes(text, size), file->hash)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s is corrupt: its checksum is not the manifest's", path);
    }
out:
    mhp_free(text);
    mhp_free(path);
    return status;
}

mhp_status mhp_checkpoint_reader_verify(mhp_checkpoint_reader *reader)
{
    for (int i = 0; i < reader->manifest.file_count; i++) {
        if (!is_safetensors(reader->manifest.files[i].name)) {
            MHP_RETURN_IF_ERROR(verify_plain_file(reader, &reader->manifest.files[i]));
        }
    }
    for (size_t i = 0; i < reader->manifest.tensor_count; i++) {
        mhp_tensor_info stored;
        const void *data;

        MHP_RETURN_IF_ERROR(check_entry(reader, &reader->manifest.tensors[i], &stored, &data));
    }
    return MHP_OK;
}
