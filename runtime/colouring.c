#include "runtime/colouring.h"

#include <stdlib.h>

#include "core/memory.h"

static bool meet(const mhp_interval *a, const mhp_interval *b)
{
    while (a && b) {
        if (a->begin <= b->end && b->begin <= a->end) {
            return true;
        }
        if (a->end < b->end) {
            a = a->next;
        } else {
            b = b->next;
        }
    }
    return false;
}

static int larger_first(const void *left, const void *right)
{
    const mhp_coloured *a = *(mhp_coloured *const *)left;
    const mhp_coloured *b = *(mhp_coloured *const *)right;

    if (a->bytes != b->bytes) {
        return a->bytes > b->bytes ? -1 : 1;
    }
    if (a->alive->begin != b->alive->begin) {
        return a->alive->begin < b->alive->begin ? -1 : 1;
    }
    return a < b ? -1 : a > b;
}

/* The lowest free place, with `placed` ascending by offset. */
static size_t lowest_place(const mhp_coloured *item, mhp_coloured *const *placed, int count)
{
    size_t offset = 0;

    for (int i = 0; i < count && placed[i]->offset < offset + item->bytes; i++) {
        size_t end = placed[i]->offset + placed[i]->bytes;

        if (end > offset && meet(item->alive, placed[i]->alive)) {
            offset = end;
        }
    }
    return offset;
}

mhp_status mhp_colour(mhp_coloured *items, int count, size_t *bytes_out)
{
    mhp_status status = MHP_OK;
    mhp_coloured **order = NULL, **placed = NULL;

    *bytes_out = 0;
    MHP_TRY(out, mhp_calloc(&order, (size_t)count, sizeof *order));
    MHP_TRY(out, mhp_calloc(&placed, (size_t)count, sizeof *placed));
    for (int i = 0; i < count; i++) {
        order[i] = &items[i];
    }
    qsort(order, (size_t)count, sizeof *order, larger_first);
    for (int i = 0; i < count; i++) {
        mhp_coloured *item = order[i];
        int at = i;

        item->offset = lowest_place(item, placed, i);
        for (; at > 0 && placed[at - 1]->offset > item->offset; at--) {
            placed[at] = placed[at - 1];
        }
        placed[at] = item;
        *bytes_out = item->offset + item->bytes > *bytes_out ? item->offset + item->bytes : *bytes_out;
    }
out:
    mhp_free(order);
    mhp_free(placed);
    return status;
}
