#include "core/safetensors.h"

#include <assert.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/safetensors_header.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian; so must the machine be"
#endif

/* One file of the set. */
typedef struct safetensors_part {
    char *name;
    mhp_map map;                /* empty if the bytes are the caller's */
    const unsigned char *bytes; /* the whole file */
    const unsigned char *data;  /* the tensors' bytes */
    mhp_safetensors_header header;
    size_t first; /* index of its first tensor among all */
} safetensors_part;

struct mhp_safetensors {
    safetensors_part *parts;
    size_t part_count, count;
};

static mhp_status open_in_place(mhp_safetensors *file, const char *name, const void *bytes,
                                size_t size)
{
    safetensors_part *part = &file->parts[file->part_count - 1];
    size_t header_bytes;

    MHP_RETURN_IF_ERROR(mhp_strdup(&part->name, name));
    MHP_RETURN_IF_ERROR(
        mhp_safetensors_header_parse(&part->header, name, bytes, size, &header_bytes));
    part->bytes = bytes;
    part->data = part->bytes + header_bytes;
    part->first = file->count;
    for (size_t i = 0; i < part->header.count && file->part_count > 1; i++) {
        const char *tensor = part->header.entries[i].info.name;
        long other = mhp_safetensors_find(file, tensor);

        if (other >= 0 && (size_t)other < part->first) {
            return mhp_error_set(MHP_ERR_FORMAT, "%s: tensor \"%s\" stands in %s as well", name,
                                 tensor, mhp_safetensors_path(file, (size_t)other));
        }
    }
    file->count += part->header.count;
    return MHP_OK;
}

/* A part to be opened; whatever comes of it, closing the set releases it. */
static mhp_status begin_set(size_t part_count, mhp_safetensors **file_out)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;

    MHP_TRY(out, mhp_calloc(&file, 1, sizeof *file));
    MHP_TRY(out, mhp_calloc(&file->parts, part_count, sizeof *file->parts));
    *file_out = file;
    file = NULL;
out:
    mhp_safetensors_close(file);
    return status;
}

mhp_status mhp_safetensors_open_bytes(const char *name, const void *bytes, size_t size,
                                      mhp_safetensors **file_out)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;

    MHP_TRY(out, begin_set(1, &file));
    file->part_count = 1;
    MHP_TRY(out, open_in_place(file, name, bytes, size));
    *file_out = file;
    file = NULL;
out:
    mhp_safetensors_close(file);
    return status;
}

mhp_status mhp_safetensors_open(const char *path, mhp_safetensors **file_out)
{
    return mhp_safetensors_open_set(&path, 1, file_out);
}

mhp_status mhp_safetensors_open_set(const char *const *paths, size_t path_count,
                                    mhp_safetensors **file_out)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;

    assert(path_count > 0);
    MHP_TRY(out, begin_set(path_count, &file));
    for (size_t i = 0; i < path_count; i++) {
        safetensors_part *part = &file->parts[file->part_count++];

        MHP_TRY(out, mhp_map_file(paths[i], &part->map));
        MHP_TRY(out, open_in_place(file, paths[i], part->map.data, part->map.size));
    }
    *file_out = file;
    file = NULL;
out:
    mhp_safetensors_close(file);
    return status;
}

void mhp_safetensors_close(mhp_safetensors *file)
{
    if (!file) {
        return;
    }
    for (size_t i = 0; i < file->part_count; i++) {
        mhp_safetensors_header_release(&file->parts[i].header);
        mhp_unmap(&file->parts[i].map);
        mhp_free(file->parts[i].name);
    }
    mhp_free(file->parts);
    mhp_free(file);
}

size_t mhp_safetensors_count(const mhp_safetensors *file)
{
    return file->count;
}

/* The part that a tensor lies in: the last one that begins at or before it. */
static const safetensors_part *part_of(const mhp_safetensors *file, size_t index)
{
    size_t low = 0, high = file->part_count;

    assert(index < file->count);
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (file->parts[middle].first <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &file->parts[low];
}

static const mhp_safetensors_entry *entry_of(const mhp_safetensors *file, size_t index)
{
    const safetensors_part *part = part_of(file, index);

    return &part->header.entries[index - part->first];
}

const mhp_tensor_info *mhp_safetensors_info(const mhp_safetensors *file, size_t index)
{
    return &entry_of(file, index)->info;
}

const void *mhp_safetensors_data(const mhp_safetensors *file, size_t index)
{
    return part_of(file, index)->data + entry_of(file, index)->begin;
}

const char *mhp_safetensors_path(const mhp_safetensors *file, size_t index)
{
    return part_of(file, index)->name;
}

mhp_hash mhp_safetensors_header_hash(const mhp_safetensors *file, size_t part)
{
    const safetensors_part *at = &file->parts[part];

    assert(part < file->part_count);
    return mhp_hash_bytes(at->bytes, (size_t)(at->data - at->bytes));
}

static long find_in_part(const mhp_safetensors_header *header, const char *name)
{
    size_t low = 0, high = header->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        size_t index = header->by_name[middle];
        int order = strcmp(name, header->entries[index].info.name);

        if (order == 0) {
            return (long)index;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return -1;
}

long mhp_safetensors_find(const mhp_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->part_count; i++) {
        long index = find_in_part(&file->parts[i].header, name);

        if (index >= 0) {
            return (long)file->parts[i].first + index;
        }
    }
    return -1;
}

const char *mhp_safetensors_metadata(const mhp_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(file->parts[0].header.metadata, key));
}

static float bits_to_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16; exact, NaN payloads kept. */
static float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31,
             fraction = half & 1023;

    if (exponent == 31) {
        return bits_to_float(sign | 0x7f800000 | fraction << 13);
    }
    if (exponent == 0) { /* subnormal: fraction units of 2^-24 */
        return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
    }
    return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
}

/* One element of a float type at an address of any alignment. */
static double element_at(mhp_dtype dtype, const unsigned char *bytes)
{
    double wide;
    float single;
    uint16_t half;

    switch (dtype) {
    case MHP_DTYPE_F64:
        memcpy(&wide, bytes, sizeof wide);
        return wide;
    case MHP_DTYPE_F32:
        memcpy(&single, bytes, sizeof single);
        return (double)single;
    default:
        memcpy(&half, bytes, sizeof half);
        return (double)(dtype == MHP_DTYPE_BF16 ? bits_to_float((uint32_t)half << 16)
                                                : half_to_float(half));
    }
}

static bool is_float(mhp_dtype dtype)
{
    return dtype == MHP_DTYPE_F32 || dtype == MHP_DTYPE_F64 || dtype == MHP_DTYPE_BF16 ||
           dtype == MHP_DTYPE_F16;
}

static void convert(mhp_dtype from, const unsigned char *source, mhp_dtype to, void *target,
                    size_t elements)
{
    size_t bytes = mhp_dtype_bytes(from);

    if (from == to) {
        if (elements > 0) {
            memcpy(target, source, elements * bytes);
        }
    } else if (to == MHP_DTYPE_F32) {
        for (size_t i = 0; i < elements; i++) {
            ((float *)target)[i] = (float)element_at(from, source + i * bytes);
        }
    } else {
        for (size_t i = 0; i < elements; i++) {
            ((double *)target)[i] = element_at(from, source + i * bytes);
        }
    }
}

static bool same_shape(const mhp_tensor_info *a, const mhp_tensor_info *b)
{
    return a->rank == b->rank &&
           (a->rank == 0 || memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]) == 0);
}

mhp_status mhp_safetensors_read(const mhp_safetensors *file, const mhp_tensor_info *expected,
                                void *target)
{
    char found_text[MHP_SAFETENSORS_SHAPE_TEXT_MAX], expected_text[MHP_SAFETENSORS_SHAPE_TEXT_MAX];
    long index = mhp_safetensors_find(file, expected->name);
    const mhp_tensor_info *found;
    const char *path;

    assert(expected->dtype == MHP_DTYPE_F32 || expected->dtype == MHP_DTYPE_F64);
    mhp_safetensors_shape_text(expected, expected_text);
    if (index < 0) {
        return mhp_error_set(MHP_ERR_NOT_FOUND, "%s: no tensor \"%s\": expected one of shape %s",
                             file->parts[0].name, expected->name, expected_text);
    }
    found = mhp_safetensors_info(file, (size_t)index);
    path = mhp_safetensors_path(file, (size_t)index);
    if (!same_shape(found, expected)) {
        mhp_safetensors_shape_text(found, found_text);
        return mhp_error_set(MHP_ERR_FORMAT, "%s: tensor \"%s\" has shape %s: expected %s",
                             path, expected->name, found_text, expected_text);
    }
    if (!is_float(found->dtype)) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s: tensor \"%s\" has dtype %s: expected F32, F64, BF16 or F16",
                             path, expected->name, mhp_dtype_text(found->dtype));
    }
    convert(found->dtype, mhp_safetensors_data(file, (size_t)index), expected->dtype, target,
            (size_t)mhp_tensor_elements(found));
    return MHP_OK;
}
