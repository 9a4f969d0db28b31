/* safetensors: every tensor of an accepted file is read whole, and through the conversion to F64. */
#include <stdlib.h>

#include "core/memory.h"
#include "core/safetensors.h"
#include "tests/fuzz/fuzz.h"

enum { ELEMENTS_MAX = 1 << 16 };

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
        for (size_t i = 0; i < mhp_safetensors_count(file); i++) {
            read_tensor(file, i);
        }
        (void)mhp_safetensors_metadata(file, "format");
    }
    mhp_safetensors_close(file);
    return 0;
}
