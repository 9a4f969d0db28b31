#include "core/safetensors_header.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

#define METADATA_KEY "__metadata__"

/* What an error names: the file and the tensor at hand. */
typedef struct header_place {
    const char *file;
    const char *tensor;
} header_place;

static mhp_status malformed(const header_place *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static mhp_status malformed(const header_place *place, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    mhp_error_vset(MHP_ERR_FORMAT, format, arguments);
    va_end(arguments);
    return mhp_error_prefix(MHP_ERR_FORMAT, "%s: tensor \"%.300s\" ", place->file, place->tensor);
}

void mhp_safetensors_shape_text(const mhp_tensor_info *info,
                                char text[MHP_SAFETENSORS_SHAPE_TEXT_MAX])
{
    size_t length = 0;

    text[length++] = '[';
    for (int i = 0; i < info->rank; i++) {
        length += (size_t)snprintf(text + length, MHP_SAFETENSORS_SHAPE_TEXT_MAX - length, "%s%lld",
                                   i ? ", " : "", (long long)info->shape[i]);
    }
    text[length++] = ']';
    text[length] = '\0';
}

bool mhp_safetensors_tensor_bytes(const mhp_tensor_info *info, size_t *bytes_out)
{
    int64_t bytes = (int64_t)mhp_dtype_bytes(info->dtype);

    for (int i = 0; i < info->rank; i++) {
        if (info->shape[i] < 0 || __builtin_mul_overflow(bytes, info->shape[i], &bytes)) {
            return false;
        }
    }
    *bytes_out = (size_t)bytes;
    return true;
}

static mhp_status parse_dtype(const header_place *place, const json_t *value, mhp_tensor_info *info)
{
    const char *text = json_string_value(value);

    if (!text) {
        return malformed(place, "has no string \"dtype\"");
    }
    info->dtype = mhp_dtype_from_text(text);
    if (info->dtype == MHP_DTYPE_COUNT) {
        return malformed(place,
                         "has dtype \"%.40s\": expected F64, F32, BF16, F16, I64, I32, I16, I8, "
                         "U64, U32, U16, U8 or BOOL",
                         text);
    }
    return MHP_OK;
}

static mhp_status parse_shape(const header_place *place, const json_t *value, mhp_tensor_info *info)
{
    size_t rank = json_array_size(value);

    if (!json_is_array(value)) {
        return malformed(place, "has no list \"shape\"");
    }
    if (rank > MHP_TENSOR_RANK_MAX) {
        return malformed(place, "has %zu dimensions: expected at most %d", rank,
                         MHP_TENSOR_RANK_MAX);
    }
    info->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *item = json_array_get(value, i);

        if (!json_is_integer(item) || json_integer_value(item) < 0) {
            return malformed(place, "has a wrong dimension %zu: expected an integer of at least 0",
                             i);
        }
        info->shape[i] = json_integer_value(item);
    }
    return MHP_OK;
}

static mhp_status parse_offsets(const header_place *place, const json_t *value,
                                mhp_safetensors_entry *entry)
{
    const json_t *begin = json_array_get(value, 0), *end = json_array_get(value, 1);

    if (json_array_size(value) != 2 || !json_is_integer(begin) || !json_is_integer(end)) {
        return malformed(place, "has no \"data_offsets\" of two integers");
    }
    if (json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin)) {
        return malformed(place, "has data_offsets [%lld, %lld]: expected 0 <= begin <= end",
                         (long long)json_integer_value(begin), (long long)json_integer_value(end));
    }
    entry->begin = (size_t)json_integer_value(begin);
    entry->end = (size_t)json_integer_value(end);
    return MHP_OK;
}

static mhp_status parse_entry(const header_place *place, const json_t *object,
                              mhp_safetensors_entry *entry)
{
    char shape[MHP_SAFETENSORS_SHAPE_TEXT_MAX];
    size_t length = strlen(place->tensor), bytes;

    if (length >= MHP_TENSOR_NAME_MAX) {
        return malformed(place, "has a name of %zu bytes: expected at most %d", length,
                         MHP_TENSOR_NAME_MAX - 1);
    }
    if (!json_is_object(object) || json_object_size(object) != 3) {
        return malformed(
            place, "is wrongly described: expected an object of dtype, shape and data_offsets");
    }
    memcpy(entry->info.name, place->tensor, length + 1);
    MHP_RETURN_IF_ERROR(parse_dtype(place, json_object_get(object, "dtype"), &entry->info));
    MHP_RETURN_IF_ERROR(parse_shape(place, json_object_get(object, "shape"), &entry->info));
    MHP_RETURN_IF_ERROR(parse_offsets(place, json_object_get(object, "data_offsets"), entry));
    mhp_safetensors_shape_text(&entry->info, shape);
    if (!mhp_safetensors_tensor_bytes(&entry->info, &bytes)) {
        return malformed(place, "has shape %s of %s: expected fewer than 2^63 bytes", shape,
                         mhp_dtype_text(entry->info.dtype));
    }
    if (bytes != entry->end - entry->begin) {
        return malformed(
            place, "has %zu bytes between its offsets: expected %zu for shape %s of %s",
            entry->end - entry->begin, bytes, shape, mhp_dtype_text(entry->info.dtype));
    }
    return MHP_OK;
}

static mhp_status parse_metadata(mhp_safetensors_header *header, const char *file, json_t *metadata)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metadata)) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s: wrong " METADATA_KEY ": expected an object of strings", file);
    }
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            return mhp_error_set(MHP_ERR_FORMAT,
                                 "%s: wrong " METADATA_KEY " \"%.100s\": expected a string", file,
                                 key);
        }
    }
    header->metadata = json_incref(metadata);
    return MHP_OK;
}

static mhp_status parse_entries(mhp_safetensors_header *header, const char *file, json_t *root)
{
    const char *key;
    json_t *value;

    if (json_object_size(root) > MHP_SAFETENSORS_COUNT_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s: %zu tensors: expected at most %zu", file,
                             json_object_size(root), MHP_SAFETENSORS_COUNT_MAX);
    }
    MHP_RETURN_IF_ERROR(
        mhp_calloc(&header->entries, json_object_size(root), sizeof *header->entries));
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, METADATA_KEY) == 0) {
            MHP_RETURN_IF_ERROR(parse_metadata(header, file, value));
        } else {
            header_place place = {file, key};

            MHP_RETURN_IF_ERROR(parse_entry(&place, value, &header->entries[header->count]));
            header->count++;
        }
    }
    return MHP_OK;
}

static int order_by_place(const void *left, const void *right)
{
    const mhp_safetensors_entry *a = left, *b = right;

    if (a->begin != b->begin) {
        return a->begin < b->begin ? -1 : 1;
    }
    if (a->end != b->end) { /* empty tensors go before the one that starts where they lie */
        return a->end < b->end ? -1 : 1;
    }
    return strcmp(a->info.name, b->info.name);
}

static int order_by_name(const void *left, const void *right, void *context)
{
    const mhp_safetensors_entry *entries = context;

    return strcmp(entries[*(const size_t *)left].info.name,
                  entries[*(const size_t *)right].info.name);
}

/* The tensors must tile the data: from its first byte to its last, without a gap or an overlap. */
static mhp_status check_places(mhp_safetensors_header *header, const char *file, size_t data_bytes)
{
    size_t expected = 0;

    qsort(header->entries, header->count, sizeof *header->entries, order_by_place);
    for (size_t i = 0; i < header->count; i++) {
        const mhp_safetensors_entry *entry = &header->entries[i];
        header_place place = {file, entry->info.name};

        if (entry->begin != expected) {
            return malformed(
                &place, "%s the tensor before it: begins at byte %zu of the data, expected %zu",
                entry->begin < expected ? "overlaps" : "leaves a gap after", entry->begin,
                expected);
        }
        if (entry->end > data_bytes) {
            return malformed(&place, "ends at byte %zu of the data: the file holds %zu", entry->end,
                             data_bytes);
        }
        expected = entry->end;
    }
    if (expected != data_bytes) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s: %zu bytes of data: expected %zu, where the last tensor ends",
                             file, data_bytes, expected);
    }
    return MHP_OK;
}

static mhp_status index_names(mhp_safetensors_header *header)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&header->by_name, header->count, sizeof *header->by_name));
    for (size_t i = 0; i < header->count; i++) {
        header->by_name[i] = i;
    }
    qsort_r(header->by_name, header->count, sizeof *header->by_name, order_by_name,
            header->entries);
    return MHP_OK;
}

/* Checks the length before the header. */
static mhp_status parse_length(const char *file, const unsigned char *bytes, size_t size,
                               size_t *length_out)
{
    uint64_t length;

    if (size < MHP_SAFETENSORS_LENGTH_BYTES) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s: %zu bytes: expected a safetensors file of at least %d", file,
                             size, MHP_SAFETENSORS_LENGTH_BYTES);
    }
    memcpy(&length, bytes, sizeof length);
    if (length > MHP_SAFETENSORS_HEADER_MAX) {
        return mhp_error_set(
            MHP_ERR_LIMIT,
            "%s: header of %llu bytes: expected at most %zu (is it a safetensors file?)", file,
            (unsigned long long)length, MHP_SAFETENSORS_HEADER_MAX);
    }
    if (length > size - MHP_SAFETENSORS_LENGTH_BYTES) {
        return mhp_error_set(
            MHP_ERR_FORMAT,
            "%s: truncated: header of %llu bytes, but the file holds %zu after its length", file,
            (unsigned long long)length, size - MHP_SAFETENSORS_LENGTH_BYTES);
    }
    if (length < 2 || bytes[MHP_SAFETENSORS_LENGTH_BYTES] != '{') {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: no header at byte %d: expected a JSON object",
                             file, MHP_SAFETENSORS_LENGTH_BYTES);
    }
    *length_out = (size_t)length;
    return MHP_OK;
}

mhp_status mhp_safetensors_header_parse(mhp_safetensors_header *header, const char *name,
                                        const unsigned char *bytes, size_t size,
                                        size_t *header_bytes_out)
{
    mhp_status status = MHP_OK;
    json_t *root = NULL;
    json_error_t error;
    size_t length = 0;

    MHP_TRY(out, parse_length(name, bytes, size, &length));
    root = json_loadb((const char *)bytes + MHP_SAFETENSORS_LENGTH_BYTES, length,
                      JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s: byte %d: header is no JSON of unique keys: %s", name,
                  MHP_SAFETENSORS_LENGTH_BYTES + error.position, error.text);
    }
    *header_bytes_out = MHP_SAFETENSORS_LENGTH_BYTES + length;
    MHP_TRY(out, parse_entries(header, name, root));
    MHP_TRY(out, check_places(header, name, size - *header_bytes_out));
    MHP_TRY(out, index_names(header));
out:
    json_decref(root);
    return status;
}

void mhp_safetensors_header_release(mhp_safetensors_header *header)
{
    mhp_free(header->entries);
    mhp_free(header->by_name);
    json_decref(header->metadata);
    *header = (mhp_safetensors_header){0};
}
