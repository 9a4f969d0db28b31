#include "runtime/checkpoint/manifest.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

/* The first line: {"xxh3_128":"DIGITS",\n */
#define CHECKSUM_BEGIN "{\"xxh3_128\":\""
#define CHECKSUM_END   "\",\n"
#define CHECKSUM_LINE_BYTES (sizeof CHECKSUM_BEGIN - 1 + MHP_HASH_TEXT_MAX - 1 + sizeof CHECKSUM_END - 1)

enum { MANIFEST_VERSION = 2, TENSORS_MAX = 1 << 22, RANKS_MAX = 1 << 20 };

void mhp_manifest_release(mhp_manifest *manifest)
{
    mhp_free(manifest->files);
    mhp_free(manifest->tensors);
    *manifest = (mhp_manifest){0};
}

/* Room for one more item, by doubling. */
static mhp_status grow(void *items, size_t count, size_t limit, size_t size, const char *what)
{
    if (count == limit) {
        return mhp_error_set(MHP_ERR_LIMIT, "more than %zu %s in a manifest, the limit", limit, what);
    }
    if ((count & (count - 1)) != 0) {   /* full at powers of two only */
        return MHP_OK;
    }
    return mhp_realloc(items, count > 0 ? 2 * count : 1, size);
}

mhp_status mhp_manifest_add_file(mhp_manifest *manifest, const char *name, mhp_hash hash)
{
    mhp_manifest_file *file;

    if (strlen(name) >= MHP_MANIFEST_NAME_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "file name %.100s: expected at most %d bytes", name, MHP_MANIFEST_NAME_MAX - 1);
    }
    MHP_RETURN_IF_ERROR(grow(&manifest->files, (size_t)manifest->file_count, MHP_MANIFEST_FILES_MAX, sizeof *file, "files"));
    file = &manifest->files[manifest->file_count++];
    *file = (mhp_manifest_file){.hash = hash};
    memcpy(file->name, name, strlen(name) + 1);
    return MHP_OK;
}

mhp_status mhp_manifest_add_tensor(mhp_manifest *manifest, const mhp_manifest_tensor *tensor)
{
    MHP_RETURN_IF_ERROR(grow(&manifest->tensors, manifest->tensor_count, TENSORS_MAX, sizeof *tensor, "tensors"));
    manifest->tensors[manifest->tensor_count++] = *tensor;
    return MHP_OK;
}

mhp_status mhp_manifest_merge(mhp_manifest *manifest, const mhp_manifest *part)
{
    int first_file = manifest->file_count;

    for (int i = 0; i < part->file_count; i++) {
        MHP_RETURN_IF_ERROR(mhp_manifest_add_file(manifest, part->files[i].name, part->files[i].hash));
    }
    for (size_t i = 0; i < part->tensor_count; i++) {
        mhp_manifest_tensor tensor = part->tensors[i];

        tensor.file += first_file;
        MHP_RETURN_IF_ERROR(mhp_manifest_add_tensor(manifest, &tensor));
    }
    return MHP_OK;
}

mhp_status mhp_manifest_stored_info(const mhp_manifest_tensor *tensor, mhp_tensor_info *info_out)
{
    *info_out = tensor->info;
    if (tensor->count == mhp_tensor_elements(&tensor->info)) {
        return MHP_OK;
    }
    info_out->rank = 1;
    info_out->shape[0] = tensor->count;
    if (snprintf(info_out->name, sizeof info_out->name, "%s[%lld:%lld]", tensor->info.name, (long long)tensor->first,
                 (long long)(tensor->first + tensor->count)) >= (int)sizeof info_out->name) {
        return mhp_error_set(MHP_ERR_LIMIT, "tensor name %s with a range exceeds %d bytes", tensor->info.name, MHP_TENSOR_NAME_MAX - 1);
    }
    return MHP_OK;
}

/* ---- writing ---- */

static json_t *hash_to_json(mhp_hash hash)
{
    char text[MHP_HASH_TEXT_MAX];

    mhp_hash_print(hash, text);
    return json_string(text);
}

static json_t *tensor_to_json(const mhp_manifest_tensor *tensor)
{
    json_t *shape = json_array();

    for (int i = 0; i < tensor->info.rank; i++) {
        json_array_append_new(shape, json_integer(tensor->info.shape[i]));
    }
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:i, s:i, s:o}", "name", tensor->info.name, "dtype", mhp_dtype_text(tensor->info.dtype),
                     "shape", shape, "first", (json_int_t)tensor->first, "count", (json_int_t)tensor->count, "owner", tensor->owner,
                     "file", tensor->file, "xxh3_128", hash_to_json(tensor->hash));
}

static json_t *state_to_json(const mhp_manifest *manifest)
{
    const mhp_checkpoint_state *state = &manifest->state;
    json_t *root = json_pack("{s:i, s:I, s:I, s:I, s:I, s:s, s:i}", "version", MANIFEST_VERSION, "step", (json_int_t)state->step,
                             "next_sample", (json_int_t)state->next_sample, "samples_per_step", (json_int_t)state->samples_per_step,
                             "seed", (json_int_t)state->seed, "configuration", state->configuration, "ranks", manifest->rank_count);

    if (root && isfinite(state->best_loss)) {
        json_object_set_new(root, "best_loss", json_real(state->best_loss));
    }
    if (root && state->loss_count > 0) {
        json_object_set_new(root, "loss_mean", json_real(state->loss_mean));
        json_object_set_new(root, "loss_count", json_integer(state->loss_count));
    }
    return root;
}

static json_t *manifest_to_json(const mhp_manifest *manifest)
{
    json_t *root = state_to_json(manifest);
    json_t *files = json_array();
    json_t *tensors = json_array();

    for (int i = 0; i < manifest->file_count; i++) {
        json_array_append_new(files, json_pack("{s:s, s:o}", "name", manifest->files[i].name, "xxh3_128",
                                               hash_to_json(manifest->files[i].hash)));
    }
    for (size_t i = 0; i < manifest->tensor_count; i++) {
        json_array_append_new(tensors, tensor_to_json(&manifest->tensors[i]));
    }
    if (!root || json_object_set_new(root, "files", files) != 0 || json_object_set_new(root, "tensors", tensors) != 0 ||
        json_array_size(files) != (size_t)manifest->file_count || json_array_size(tensors) != manifest->tensor_count) {
        json_decref(root);
        return NULL;
    }
    return root;
}

mhp_status mhp_manifest_write(const mhp_manifest *manifest, const char *path, mhp_hash *checksum_out)
{
    mhp_status status = MHP_OK;
    json_t *root = manifest_to_json(manifest);
    char *body = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    char *text = NULL;
    char digits[MHP_HASH_TEXT_MAX];
    mhp_hash checksum;

    if (!body) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "cannot build %s", path);
    }
    checksum = mhp_hash_bytes(body + 1, strlen(body) - 1);      /* behind the brace, which the first line has */
    mhp_hash_print(checksum, digits);
    MHP_TRY(out, mhp_asprintf(&text, CHECKSUM_BEGIN "%s" CHECKSUM_END "%s", digits, body + 1));
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
    if (checksum_out) {
        *checksum_out = checksum;
    }
out:
    json_decref(root);
    free(body);
    mhp_free(text);
    return status;
}

/* ---- reading ---- */

static mhp_status read_integer(const char *name, const json_t *object, const char *key, int64_t maximum, int64_t *value_out)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > maximum) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"%s\": expected an integer from 0 to %lld", name, key, (long long)maximum);
    }
    *value_out = json_integer_value(value);
    return MHP_OK;
}

static mhp_status read_hash(const char *name, const json_t *object, mhp_hash *hash_out)
{
    const char *text = json_string_value(json_object_get(object, "xxh3_128"));

    if (!text || strlen(text) != MHP_HASH_TEXT_MAX - 1 || !mhp_hash_parse(text, hash_out)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"xxh3_128\": expected %d hexadecimal digits", name, MHP_HASH_TEXT_MAX - 1);
    }
    return MHP_OK;
}

static bool is_file_name(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

    return text && text[0] != '\0' && text[0] != '.' && strlen(text) < MHP_MANIFEST_NAME_MAX && text[strspn(text, letters)] == '\0';
}

static mhp_status read_file(const char *name, const json_t *object, mhp_manifest *manifest)
{
    const char *file = json_string_value(json_object_get(object, "name"));
    mhp_hash hash;

    if (!is_file_name(file)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: file %d has no good \"name\": expected letters, digits, -, _ and ., at most %d", name,
                             manifest->file_count, MHP_MANIFEST_NAME_MAX - 1);
    }
    MHP_RETURN_IF_ERROR(mhp_error_prefix(read_hash(name, object, &hash), "file %s: ", file));
    return mhp_manifest_add_file(manifest, file, hash);
}

static mhp_status read_shape(const char *name, const json_t *object, mhp_tensor_info *info, int64_t *elements_out)
{
    const json_t *shape = json_object_get(object, "shape");
    int64_t elements = (int64_t)mhp_dtype_bytes(info->dtype);

    if (!json_is_array(shape) || json_array_size(shape) > MHP_TENSOR_RANK_MAX) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"shape\": expected a list of at most %d integers", name, MHP_TENSOR_RANK_MAX);
    }
    info->rank = (int)json_array_size(shape);
    for (int i = 0; i < info->rank; i++) {
        const json_t *item = json_array_get(shape, (size_t)i);

        info->shape[i] = json_is_integer(item) ? json_integer_value(item) : -1;
        if (info->shape[i] < 0 || __builtin_mul_overflow(elements, info->shape[i], &elements)) {
            return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"shape\": expected sizes from 0 and fewer than 2^63 bytes", name);
        }
    }
    *elements_out = elements / (int64_t)mhp_dtype_bytes(info->dtype);
    return MHP_OK;
}

static mhp_status read_tensor_fields(const char *name, const json_t *object, mhp_manifest *manifest, mhp_manifest_tensor *tensor)
{
    const char *dtype = json_string_value(json_object_get(object, "dtype"));
    int64_t elements = 0, owner = 0, file = 0;

    tensor->info.dtype = dtype ? mhp_dtype_from_text(dtype) : MHP_DTYPE_COUNT;
    if (tensor->info.dtype == MHP_DTYPE_COUNT) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"dtype\": expected a type of safetensors", name);
    }
    MHP_RETURN_IF_ERROR(read_shape(name, object, &tensor->info, &elements));
    MHP_RETURN_IF_ERROR(read_integer(name, object, "first", elements, &tensor->first));
    MHP_RETURN_IF_ERROR(read_integer(name, object, "count", elements - tensor->first, &tensor->count));
    MHP_RETURN_IF_ERROR(read_integer(name, object, "owner", RANKS_MAX, &owner));
    MHP_RETURN_IF_ERROR(read_integer(name, object, "file", manifest->file_count - 1, &file));
    MHP_RETURN_IF_ERROR(read_hash(name, object, &tensor->hash));
    tensor->owner = (int)owner;
    tensor->file = (int)file;
    return MHP_OK;
}

static mhp_status read_tensor(const char *name, const json_t *object, mhp_manifest *manifest)
{
    const char *text = json_string_value(json_object_get(object, "name"));
    mhp_manifest_tensor tensor = {0};

    if (!text || text[0] == '\0' || strlen(text) >= MHP_TENSOR_NAME_MAX) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: tensor %zu has no \"name\" of 1 to %d bytes", name, manifest->tensor_count,
                             MHP_TENSOR_NAME_MAX - 1);
    }
    memcpy(tensor.info.name, text, strlen(text) + 1);
    MHP_RETURN_IF_ERROR(mhp_error_prefix(read_tensor_fields(name, object, manifest, &tensor), "tensor \"%s\": ", text));
    return mhp_manifest_add_tensor(manifest, &tensor);
}

static mhp_status read_lists(const char *name, const json_t *root, mhp_manifest *manifest)
{
    const json_t *files = json_object_get(root, "files");
    const json_t *tensors = json_object_get(root, "tensors");
    const json_t *item;
    size_t i;

    if (!json_is_array(files) || !json_is_array(tensors)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: expected lists \"files\" and \"tensors\"", name);
    }
    json_array_foreach(files, i, item)
    {
        MHP_RETURN_IF_ERROR(read_file(name, item, manifest));
    }
    json_array_foreach(tensors, i, item)
    {
        MHP_RETURN_IF_ERROR(read_tensor(name, item, manifest));
    }
    return MHP_OK;
}

/* Both or neither. */
static mhp_status read_loss_mean(const char *name, const json_t *root, mhp_checkpoint_state *state)
{
    const json_t *mean = json_object_get(root, "loss_mean");

    if (!mean) {
        return MHP_OK;
    }
    if (!json_is_number(mean)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"loss_mean\": expected a number", name);
    }
    state->loss_mean = json_number_value(mean);
    return read_integer(name, root, "loss_count", INT64_MAX / 2, &state->loss_count);
}

static mhp_status read_state(const char *name, const json_t *root, mhp_manifest *manifest)
{
    mhp_checkpoint_state *state = &manifest->state;
    const char *configuration = json_string_value(json_object_get(root, "configuration"));
    const json_t *best = json_object_get(root, "best_loss");
    int64_t version = 0, next_sample = 0, ranks = 0;

    MHP_RETURN_IF_ERROR(read_integer(name, root, "version", INT64_MAX, &version));
    if (version != MANIFEST_VERSION) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s has version %lld: expected %d", name, (long long)version, MANIFEST_VERSION);
    }
    MHP_RETURN_IF_ERROR(read_integer(name, root, "step", INT64_MAX / 2, &state->step));
    MHP_RETURN_IF_ERROR(read_integer(name, root, "next_sample", INT64_MAX / 2, &next_sample));
    MHP_RETURN_IF_ERROR(read_integer(name, root, "samples_per_step", INT64_MAX / 2, &state->samples_per_step));
    MHP_RETURN_IF_ERROR(read_integer(name, root, "seed", INT64_MAX, &state->seed));
    MHP_RETURN_IF_ERROR(read_integer(name, root, "ranks", RANKS_MAX, &ranks));
    if (!configuration || strlen(configuration) >= MHP_HASH_TEXT_MAX) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"configuration\": expected a checksum", name);
    }
    memcpy(state->configuration, configuration, strlen(configuration) + 1);
    state->next_sample = (uint64_t)next_sample;
    state->best_loss = json_is_number(best) ? json_number_value(best) : INFINITY;
    manifest->rank_count = (int)ranks;
    return read_loss_mean(name, root, state);
}

static int order_of_tensors(const void *left, const void *right)
{
    const mhp_manifest_tensor *a = left, *b = right;
    int order = strcmp(a->info.name, b->info.name);

    return order != 0 ? order : (a->first > b->first) - (a->first < b->first);
}

static bool same_whole(const mhp_tensor_info *a, const mhp_tensor_info *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]) == 0;
}

/* Sorts, and checks that entries of one tensor agree and do not overlap. */
static mhp_status order_tensors(const char *name, mhp_manifest *manifest)
{
    mhp_manifest_tensor *tensors = manifest->tensors;

    if (manifest->tensor_count > 1) {
        qsort(tensors, manifest->tensor_count, sizeof *tensors, order_of_tensors);
    }
    for (size_t i = 1; i < manifest->tensor_count; i++) {
        if (strcmp(tensors[i - 1].info.name, tensors[i].info.name) != 0) {
            continue;
        }
        if (!same_whole(&tensors[i - 1].info, &tensors[i].info) || tensors[i].first < tensors[i - 1].first + tensors[i - 1].count ||
            tensors[i].first == tensors[i - 1].first) {
            return mhp_error_set(MHP_ERR_FORMAT, "%s: tensor \"%s\": two entries disagree or overlap at element %lld", name,
                                 tensors[i].info.name, (long long)tensors[i].first);
        }
    }
    return MHP_OK;
}

/* The first line's checksum against the bytes behind it. */
static mhp_status check_first_line(const char *name, const char *text, size_t size, bool checked, mhp_hash *checksum_out)
{
    const char *digits = text + sizeof CHECKSUM_BEGIN - 1;

    if (size < CHECKSUM_LINE_BYTES || memcmp(text, CHECKSUM_BEGIN, sizeof CHECKSUM_BEGIN - 1) != 0 ||
        !mhp_hash_parse(digits, checksum_out) ||
        memcmp(digits + MHP_HASH_TEXT_MAX - 1, CHECKSUM_END, sizeof CHECKSUM_END - 1) != 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s:1: expected " CHECKSUM_BEGIN "and %d hexadecimal digits", name, MHP_HASH_TEXT_MAX - 1);
    }
    if (checked && !mhp_hash_equal(mhp_hash_bytes(text + CHECKSUM_LINE_BYTES, size - CHECKSUM_LINE_BYTES), *checksum_out)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is corrupt: its checksum is not that of its first line", name);
    }
    return MHP_OK;
}

mhp_status mhp_manifest_parse(const char *name, const char *text, size_t size, bool checked, mhp_manifest *manifest_out,
                              mhp_hash *checksum_out)
{
    mhp_status status = MHP_OK;
    json_error_t error;
    json_t *root = NULL;
    mhp_hash checksum;

    *manifest_out = (mhp_manifest){0};
    MHP_TRY(out, check_first_line(name, text, size, checked, &checksum));
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s:%d:%d: %s: expected a JSON object", name, error.line, error.column, error.text);
    }
    MHP_TRY(out, read_state(name, root, manifest_out));
    MHP_TRY(out, read_lists(name, root, manifest_out));
    MHP_TRY(out, order_tensors(name, manifest_out));
    if (checksum_out) {
        *checksum_out = checksum;
    }
out:
    json_decref(root);
    return status;
}

mhp_status mhp_manifest_read(const char *path, mhp_manifest *manifest_out, mhp_hash *checksum_out)
{
    mhp_status status = MHP_OK;
    char *text = NULL;
    size_t size = 0;

    *manifest_out = (mhp_manifest){0};
    MHP_TRY(out, mhp_file_read_all(path, MHP_MANIFEST_BYTES_MAX, &text, &size));
    MHP_TRY(out, mhp_manifest_parse(path, text, size, true, manifest_out, checksum_out));
out:
    mhp_free(text);
    return status;
}

size_t mhp_manifest_find(const mhp_manifest *manifest, const char *name, const mhp_manifest_tensor **first_out)
{
    size_t low = 0, high = manifest->tensor_count, count = 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(manifest->tensors[middle].info.name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *first_out = manifest->tensors + low;
    while (low + count < manifest->tensor_count && strcmp(manifest->tensors[low + count].info.name, name) == 0) {
        count++;
    }
    return count;
}
