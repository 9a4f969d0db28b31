/* The one piece of device memory that a rank takes, before its first step. Places in it come from the memory plan. */
#ifndef MHP_RUNTIME_ARENA_H
#define MHP_RUNTIME_ARENA_H

#include "core/device.h"

enum { MHP_ARENA_ALIGNMENT = 256 };    /* of places and their ends; what CUDA's allocator gives */

typedef struct mhp_arena {
    mhp_device *device;
    char *memory;
    size_t bytes;
    size_t high_water;          /* end of the highest place that was ever asked for */
} mhp_arena;

/* MHP_ERR_NO_MEMORY. Release in every case; a zeroed arena is allowed there. */
mhp_status mhp_arena_create(mhp_device *device, size_t bytes, mhp_arena *arena_out);
void mhp_arena_release(mhp_arena *arena);

/* The address of a place, which must lie within the arena; host thread. */
void *mhp_arena_at(mhp_arena *arena, size_t offset, size_t bytes);

#endif
