/* The JSON header of a safetensors file, read and checked. Private to core/safetensors*.c. */
#ifndef MHP_CORE_SAFETENSORS_HEADER_H
#define MHP_CORE_SAFETENSORS_HEADER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"
#include "core/tensor.h"

/* Of the header's length, which is read whole (the format itself allows 100 MB), and of the number of tensors. */
#define MHP_SAFETENSORS_HEADER_MAX ((size_t)16 << 20)
#define MHP_SAFETENSORS_COUNT_MAX  ((size_t)1 << 20)

enum {
    MHP_SAFETENSORS_LENGTH_BYTES = 8,
    MHP_SAFETENSORS_SHAPE_TEXT_MAX = MHP_TENSOR_RANK_MAX * 22 + 3
};

typedef struct mhp_safetensors_entry {
    mhp_tensor_info info;
    size_t begin, end; /* bytes from the start of the tensors' data */
} mhp_safetensors_entry;

typedef struct mhp_safetensors_header {
    mhp_safetensors_entry *entries; /* by place in the file */
    size_t count;
    size_t *by_name;  /* indices of the entries by name */
    json_t *metadata; /* NULL: none */
} mhp_safetensors_header;

/* Reads the header of a file of `size` bytes and checks it against them; *header_bytes_out is where
 * the tensors' data begins. The header is to be released after an error as well. */
mhp_status mhp_safetensors_header_parse(mhp_safetensors_header *header, const char *name,
                                        const unsigned char *bytes, size_t size,
                                        size_t *header_bytes_out);
void mhp_safetensors_header_release(mhp_safetensors_header *header);

/* "[2, 3]" */
void mhp_safetensors_shape_text(const mhp_tensor_info *info,
                                char text[MHP_SAFETENSORS_SHAPE_TEXT_MAX]);

/* Bytes of a tensor; false if they do not fit into 63 bits or a dimension is negative. */
bool mhp_safetensors_tensor_bytes(const mhp_tensor_info *info, size_t *bytes_out);

#endif
