/* Manifests of checkpoints, without their checksum being right: what is accepted keeps its promises. */
#include <stdlib.h>
#include <string.h>

#include "runtime/checkpoint/manifest.h"
#include "tests/fuzz/fuzz.h"

static void check_tensor(const mhp_manifest *manifest, size_t index)
{
    const mhp_manifest_tensor *tensor = &manifest->tensors[index];
    const mhp_manifest_tensor *first;
    mhp_tensor_info stored;
    size_t count = mhp_manifest_find(manifest, tensor->info.name, &first);

    if (first > tensor || first + count <= tensor || tensor->file >= manifest->file_count || tensor->first < 0 || tensor->count < 0 ||
        tensor->first + tensor->count > mhp_tensor_elements(&tensor->info) || strchr(manifest->files[tensor->file].name, '/')) {
        abort();
    }
    if (tensor > first && (tensor[-1].first + tensor[-1].count > tensor->first || tensor[-1].info.dtype != tensor->info.dtype)) {
        abort();
    }
    (void)mhp_manifest_stored_info(tensor, &stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mhp_manifest manifest;

    if (mhp_manifest_parse("fuzz", (const char *)data, size, false, &manifest, NULL) == MHP_OK) {
        for (size_t i = 0; i < manifest.tensor_count; i++) {
            check_tensor(&manifest, i);
        }
    }
    mhp_manifest_release(&manifest);
    return 0;
}
