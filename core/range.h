/* Named ranges on the calling thread for a profiler that listens (NVTX); nothing in a build without CUDA. Pushes and pops nest. */
#ifndef MHP_CORE_RANGE_H
#define MHP_CORE_RANGE_H

#include <stdbool.h>

/* Whether anybody could listen: else a name is not worth putting together. */
bool mhp_range_available(void);
void mhp_range_push(const char *name);
void mhp_range_pop(void);

#endif
