#include "runtime/arena.h"

#include <assert.h>

mhp_status mhp_arena_create(mhp_device *device, size_t bytes, mhp_arena *arena_out)
{
    void *memory = NULL;

    *arena_out = (mhp_arena){.device = device};
    MHP_RETURN_IF_ERROR(mhp_device_alloc(device, bytes, &memory));
    arena_out->memory = memory;
    arena_out->bytes = bytes;
    return MHP_OK;
}

void mhp_arena_release(mhp_arena *arena)
{
    if (arena->device) {
        mhp_device_free(arena->device, arena->memory);
    }
    *arena = (mhp_arena){0};
}

void *mhp_arena_at(mhp_arena *arena, size_t offset, size_t bytes)
{
    size_t end = (offset + bytes + MHP_ARENA_ALIGNMENT - 1) / MHP_ARENA_ALIGNMENT * MHP_ARENA_ALIGNMENT;

    assert(offset % MHP_ARENA_ALIGNMENT == 0 && end <= arena->bytes);
    arena->high_water = end > arena->high_water ? end : arena->high_water;
    return arena->memory + offset;
}
