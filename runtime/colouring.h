/* Interval colouring with sizes: gives every item a place in one region so that items which are alive at the same time are apart. */
#ifndef MHP_RUNTIME_COLOURING_H
#define MHP_RUNTIME_COLOURING_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

/* Moments, both included. An item's intervals ascend and are apart. */
typedef struct mhp_interval {
    int begin, end;
    struct mhp_interval *next;
} mhp_interval;

typedef struct mhp_coloured {
    size_t bytes;
    const mhp_interval *alive;
    size_t offset;              /* found; a multiple of what `bytes` are multiples of */
} mhp_coloured;

/* Largest first, each at the lowest place that is free of what is alive with it: never more than the sum of all, and with equal sizes
 * and one interval each exactly the most that is ever alive. Takes time quadratic in `count`. */
mhp_status mhp_colour(mhp_coloured *items, int count, size_t *bytes_out);

#endif
