/* What the card's copy engine for tensors (the tensor memory accelerator, from compute capability 9.0 on) must know of an array to bring
 * a box of it into shared memory: see CUDA's programming guide, "tensor map". */
#ifndef MHP_MODEL_CUDA_TENSOR_MAP_H
#define MHP_MODEL_CUDA_TENSOR_MAP_H

#include <cuda.h>

#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Boxes of `columns` x `tokens` of all `streams` of a state in bf16 [tokens, streams, hidden], by coordinates {column, token, stream}.
 * In shared memory a box is [streams][tokens][columns]. What lies outside of the array reads as 0.
 * `state` and 2 * hidden are multiples of 16. MHP_ERR_DEVICE where the driver knows no tensor maps, or refuses this one. */
typedef struct mhp_cuda_boxes {
    const void *state;
    int tokens, streams, hidden;
    int columns_of_box, tokens_of_box;
} mhp_cuda_boxes;
mhp_status mhp_cuda_tensor_map(const mhp_cuda_boxes *boxes, CUtensorMap *map_out);

#ifdef __cplusplus
}
#endif

#endif
