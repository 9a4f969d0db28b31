/* Token files: the input is the length of the index (4 bytes), the index, the tokens; an index of length 0 means llm.c's format. */
#include <string.h>

#include "runtime/data/indexed.h"
#include "tests/fuzz/fuzz.h"

static volatile int64_t tokens_sum;     /* so that they are read */

static void read_all(const mhp_indexed *file)
{
    mhp_indexed_info info = mhp_indexed_describe(file);

    for (uint64_t d = 0; d < info.documents; d++) {
        uint64_t first, count;

        mhp_indexed_document(file, d, &first, &count);
        for (uint64_t i = 0; i < count; i++) {
            tokens_sum = tokens_sum ^ mhp_indexed_token(file, first + i);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mhp_indexed *file = NULL;
    uint32_t index_bytes;

    if (size < sizeof index_bytes) {
        return 0;
    }
    memcpy(&index_bytes, data, sizeof index_bytes);
    data += sizeof index_bytes;
    size -= sizeof index_bytes;
    if (index_bytes > size) {
        return 0;
    }
    if (mhp_indexed_open_bytes("fuzz", index_bytes > 0 ? data : NULL, index_bytes, data + index_bytes, size - index_bytes, &file) ==
        MHP_OK) {
        read_all(file);
    }
    mhp_indexed_close(file);
    return 0;
}
