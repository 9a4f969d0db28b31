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

struct mhp_safetensors {
    char *name;
    mhp_map map;               /* empty if the bytes are the caller's */
    const unsigned char *data; /* the tensors' bytes */
    mhp_safetensors_header header;
};

static mhp_status open_in_place(mhp_safetensors *file, const char *name, const void *bytes,
                                size_t size)
{
    size_t header_bytes;

    MHP_RETURN_IF_ERROR(mhp_strdup(&file->name, name));
    MHP_RETURN_IF_ERROR(
        mhp_safetensors_header_parse(&file->header, name, bytes, size, &header_bytes));
    file->data = (const unsigned char *)bytes + header_bytes;
    return MHP_OK;
}

mhp_status mhp_safetensors_open_bytes(const char *name, const void *bytes, size_t size,
                                      mhp_safetensors **file_out)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;

    MHP_TRY(out, mhp_calloc(&file, 1, sizeof *file));
    MHP_TRY(out, open_in_place(file, name, bytes, size));
    *file_out = file;
    file = NULL;
out:
    mhp_safetensors_close(file);
    return status;
}

mhp_status mhp_safetensors_open(const char *path, mhp_safetensors **file_out)
{
    mhp_status status = MHP_OK;
    mhp_safetensors *file = NULL;

    MHP_TRY(out, mhp_calloc(&file, 1, sizeof *file));
    MHP_TRY(out, mhp_map_file(path, &file->map));
    MHP_TRY(out, open_in_place(file, path, file->map.data, file->map.size));
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
    mhp_safetensors_header_release(&file->header);
    mhp_unmap(&file->map);
    mhp_free(file->name);
    mhp_free(file);
}

size_t mhp_safetensors_count(const mhp_safetensors *file)
{
    return file->header.count;
}

const mhp_tensor_info *mhp_safetensors_info(const mhp_safetensors *file, size_t index)
{
    assert(index < file->header.count);
    return &file->header.entries[index].info;
}

const void *mhp_safetensors_data(const mhp_safetensors *file, size_t index)
{
    assert(index < file->header.count);
    return file->data + file->header.entries[index].begin;
}

long mhp_safetensors_find(const mhp_safetensors *file, const char *name)
{
    const mhp_safetensors_header *header = &file->header;
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

const char *mhp_safetensors_metadata(const mhp_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(file->header.metadata, key));
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

    assert(expected->dtype == MHP_DTYPE_F32 || expected->dtype == MHP_DTYPE_F64);
    mhp_safetensors_shape_text(expected, expected_text);
    if (index < 0) {
        return mhp_error_set(MHP_ERR_NOT_FOUND, "%s: no tensor \"%s\": expected one of shape %s",
                             file->name, expected->name, expected_text);
    }
    found = mhp_safetensors_info(file, (size_t)index);
    if (!same_shape(found, expected)) {
        mhp_safetensors_shape_text(found, found_text);
        return mhp_error_set(MHP_ERR_FORMAT, "%s: tensor \"%s\" has shape %s: expected %s",
                             file->name, expected->name, found_text, expected_text);
    }
    if (!is_float(found->dtype)) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s: tensor \"%s\" has dtype %s: expected F32, F64, BF16 or F16",
                             file->name, expected->name, mhp_dtype_text(found->dtype));
    }
    convert(found->dtype, mhp_safetensors_data(file, (size_t)index), expected->dtype, target,
            (size_t)mhp_tensor_elements(found));
    return MHP_OK;
}
