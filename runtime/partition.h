/* Which sublayers each stage holds. */
#ifndef MHP_RUNTIME_PARTITION_H
#define MHP_RUNTIME_PARTITION_H

#include "core/option.h"
#include "model/parameters.h"

/* Fills extents[stage_count]: as given by `layers_per_stage` (may be NULL or empty), or in whole layers as even as possible with the
 * longer stages first, since the last one also has the head. MHP_ERR_CONFIG if there are more stages than layers and none are given, or
 * if the given lengths are not stage_count multiples of 1/2, each above 0, that add up to layer_count. */
mhp_status mhp_partition_layers(int64_t layer_count, int stage_count, const mhp_float_list *layers_per_stage, mhp_stage_extent *extents);

#endif
