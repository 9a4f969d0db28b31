#include "core/tensor.h"

#include <assert.h>
#include <string.h>

#define MHP_DTYPE_BYTES(name, text, bytes) bytes,
static const size_t dtype_bytes[MHP_DTYPE_COUNT] = {MHP_DTYPE_LIST(MHP_DTYPE_BYTES)};
#undef MHP_DTYPE_BYTES

#define MHP_DTYPE_NAME(name, text, bytes) text,
static const char *const dtype_text[MHP_DTYPE_COUNT] = {MHP_DTYPE_LIST(MHP_DTYPE_NAME)};
#undef MHP_DTYPE_NAME

size_t mhp_dtype_bytes(mhp_dtype dtype)
{
    return dtype_bytes[dtype];
}

const char *mhp_dtype_text(mhp_dtype dtype)
{
    return dtype_text[dtype];
}

mhp_dtype mhp_dtype_full(mhp_dtype dtype)
{
    return dtype == MHP_DTYPE_BF16 ? MHP_DTYPE_F32 : dtype;
}

double mhp_dtype_load(mhp_dtype dtype, const void *array, int64_t index)
{
    uint32_t bits;
    float value;

    switch (dtype) {
    case MHP_DTYPE_F64:
        return ((const double *)array)[index];
    case MHP_DTYPE_F32:
        return (double)((const float *)array)[index];
    default:
        assert(dtype == MHP_DTYPE_BF16);
        bits = (uint32_t)((const uint16_t *)array)[index] << 16;        /* BF16 is the upper half of F32 */
        memcpy(&value, &bits, sizeof value);
        return (double)value;
    }
}

static uint16_t to_bf16(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);          /* stays a quiet NaN, whatever its lower half was */
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void mhp_dtype_store(mhp_dtype dtype, void *array, int64_t index, double value)
{
    switch (dtype) {
    case MHP_DTYPE_F64:
        ((double *)array)[index] = value;
        break;
    case MHP_DTYPE_F32:
        ((float *)array)[index] = (float)value;
        break;
    default:
        assert(dtype == MHP_DTYPE_BF16);
        ((uint16_t *)array)[index] = to_bf16((float)value);
    }
}

mhp_dtype mhp_dtype_from_text(const char *text)
{
    int i = 0;

    while (i < MHP_DTYPE_COUNT && strcmp(dtype_text[i], text) != 0) {
        i++;
    }
    return (mhp_dtype)i;
}

int64_t mhp_tensor_elements(const mhp_tensor_info *info)
{
    int64_t elements = 1;

    for (int i = 0; i < info->rank; i++) {
        elements *= info->shape[i];
    }
    return elements;
}
