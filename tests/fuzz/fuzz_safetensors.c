/* safetensors: of an accepted file every tensor lies within the bytes, the tensors together are all of the data, and each is read
 * through the conversion to F64. */
#include <stdlib.h>

#include "core/memory.h"
#include "core/safetensors.h"
#include "tests/fuzz/fuzz.h"

enum { ELEMENTS_MAX = 1 << 16 };

/* Where the tensor ends; it must begin where the one before it ended. */
static const char *end_of(const mhp_safetensors *file, size_t index, const char *begin)
{
    const mhp_tensor_info *info = mhp_safetensors_info(file, index);

    if (begin && mhp_safetensors_data(file, index) != begin) {
        abort();
    }
    return (const char *)mhp_safetensors_data(file, index) + mhp_tensor_elements(info) * (int64_t)mhp_dtype_bytes(info->dtype);
}

static void read_tensor(const mhp_safetensors *file, size_t index)
{
    mhp_tensor_info expected = *mhp_safetensors_info(file, index);
    int64_t elements = mhp_tensor_elements(&expected);
    double *values = NULL;

    if (mhp_safetensors_find(file, expected.name) != (long)index) {
        abort();
    }
    if (elements < ELEMENTS_MAX && mhp_calloc(&values, (size_t)elements, sizeof *values) == MHP_OK) {
        expected.dtype = MHP_DTYPE_F64;
        (void)mhp_safetensors_read(file, &expected, values);
    }
    mhp_free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mhp_safetensors *file = NULL;

    if (mhp_safetensors_open_bytes("fuzz", data, size, &file) == MHP_OK) {
        size_t count = mhp_safetensors_count(file);
        const char *end = NULL;

        for (size_t i = 0; i < count; i++) {
            end = end_of(file, i, end);
            read_tensor(file, i);
        }
        if (count > 0 && end != (const char *)data + size) {
            abort();
        }
        (void)mhp_safetensors_metadata(file, "format");
    }
    mhp_safetensors_close(file);
    return 0;
}
