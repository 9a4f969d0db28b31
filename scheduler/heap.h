/* Events in the order of their time, those of one time in the order of their number. */
#ifndef MHP_SCHEDULER_HEAP_H
#define MHP_SCHEDULER_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mhp_heap_event {
    double time_us;
    uint32_t id;
} mhp_heap_event;

/* Zeroed at the start; release with mhp_heap_destroy. */
typedef struct mhp_heap {
    mhp_heap_event *items;
    size_t count, capacity;
} mhp_heap;

mhp_status mhp_heap_push(mhp_heap *heap, mhp_heap_event event);
/* Takes the earliest; false if there is none. */
bool mhp_heap_pop(mhp_heap *heap, mhp_heap_event *event_out);
void mhp_heap_destroy(mhp_heap *heap);

#endif
