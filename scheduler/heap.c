#include "scheduler/heap.h"

#include "core/memory.h"

static bool is_before(const mhp_heap_event *a, const mhp_heap_event *b)
{
    return a->time_us != b->time_us ? a->time_us < b->time_us : a->id < b->id;
}

mhp_status mhp_heap_push(mhp_heap *heap, mhp_heap_event event)
{
    size_t at = heap->count;

    if (heap->count == heap->capacity) {
        size_t capacity = heap->capacity ? 2 * heap->capacity : 256;

        MHP_RETURN_IF_ERROR(mhp_realloc(&heap->items, capacity, sizeof *heap->items));
        heap->capacity = capacity;
    }
    heap->count++;
    while (at > 0 && is_before(&event, &heap->items[(at - 1) / 2])) {
        heap->items[at] = heap->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->items[at] = event;
    return MHP_OK;
}

bool mhp_heap_pop(mhp_heap *heap, mhp_heap_event *event_out)
{
    mhp_heap_event last;
    size_t at = 0;

    if (heap->count == 0) {
        return false;
    }
    *event_out = heap->items[0];
    last = heap->items[--heap->count];
    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < heap->count && is_before(&heap->items[child + 1], &heap->items[child])) {
            child++;
        }
        if (child >= heap->count || !is_before(&heap->items[child], &last)) {
            break;
        }
        heap->items[at] = heap->items[child];
        at = child;
    }
    if (heap->count > 0) {
        heap->items[at] = last;
    }
    return true;
}

void mhp_heap_destroy(mhp_heap *heap)
{
    mhp_free(heap->items);
    *heap = (mhp_heap){0};
}
