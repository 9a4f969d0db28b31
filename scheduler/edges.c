#include "scheduler/edges.h"

#include <stdlib.h>

#include "core/memory.h"
#include "scheduler/placement.h"

enum { MESSAGES_A_CROSSING = 2 };       /* the state one way, its gradient the other */

typedef struct edge_builder {
    mhp_edge *items;
    size_t count, capacity;
} edge_builder;

static mhp_status add_edge(edge_builder *builder, int a, int b, int64_t messages, int64_t copies)
{
    if (builder->count == builder->capacity) {
        size_t capacity = builder->capacity > 0 ? 2 * builder->capacity : 64;

        MHP_RETURN_IF_ERROR(mhp_realloc(&builder->items, capacity, sizeof *builder->items));
        builder->capacity = capacity;
    }
    builder->items[builder->count++] = (mhp_edge){a < b ? a : b, a < b ? b : a, messages, copies};
    return MHP_OK;
}

static int compare_edges(const void *left, const void *right)
{
    const mhp_edge *x = left, *y = right;

    return x->a != y->a ? (x->a > y->a) - (x->a < y->a) : (x->b > y->b) - (x->b < y->b);
}

/* Adds up the edges between the same two ranks. */
static void merge(edge_builder *builder)
{
    size_t kept = 0;

    if (builder->count > 1) {
        qsort(builder->items, builder->count, sizeof *builder->items, compare_edges);
    }
    for (size_t i = 0; i < builder->count; i++) {
        mhp_edge *last = kept > 0 ? &builder->items[kept - 1] : NULL;

        if (last && compare_edges(last, &builder->items[i]) == 0) {
            last->messages += builder->items[i].messages;
            last->copies += builder->items[i].copies;
        } else {
            builder->items[kept++] = builder->items[i];
        }
    }
    builder->count = kept;
}

/* Messages of one replica between neighbouring stages; `messages` [rank_count] is scratch, of one owner of the earlier stage. */
static mhp_status add_stage_messages(edge_builder *builder, const mhp_plan *plan, int stage)
{
    for (int m = 0; m < plan->microbatch_count; m++) {
        int from = mhp_plan_owner(plan, stage, m);
        int to = mhp_plan_owner(plan, stage + 1, m);
        mhp_edge *last = builder->count > 0 ? &builder->items[builder->count - 1] : NULL;

        if (from < 0 || to < 0 || from == to) {
            continue;
        }
        if (last && last->a == (from < to ? from : to) && last->b == (from < to ? to : from)) {
            last->messages += MESSAGES_A_CROSSING;      /* mostly: one entry a stage, not one a micro-batch */
        } else {
            MHP_RETURN_IF_ERROR(add_edge(builder, from, to, MESSAGES_A_CROSSING, 0));
        }
    }
    return MHP_OK;
}

static mhp_status add_messages(edge_builder *builder, const mhp_plan *plan, int replica_count)
{
    size_t of_one;

    for (int s = 0; s + 1 < plan->stage_count; s++) {
        MHP_RETURN_IF_ERROR(add_stage_messages(builder, plan, s));
    }
    merge(builder);
    of_one = builder->count;
    for (int d = 1; d < replica_count; d++) {
        int base = d * plan->rank_count;

        for (size_t i = 0; i < of_one; i++) {
            mhp_edge edge = builder->items[i];

            MHP_RETURN_IF_ERROR(add_edge(builder, base + edge.a, base + edge.b, edge.messages, 0));
        }
    }
    return MHP_OK;
}

/* Holders of a stage in ascending order: a reduction goes from each to the next. */
static mhp_status add_copies(edge_builder *builder, const mhp_plan *plan, const mhp_placement *placement, int replica_count)
{
    for (int s = 0; s < plan->stage_count; s++) {
        int last = -1;

        for (int rank = 0; rank < replica_count * plan->rank_count; rank++) {
            if (mhp_placement_find(placement, rank % plan->rank_count, s) < 0) {
                continue;
            }
            if (last >= 0) {
                MHP_RETURN_IF_ERROR(add_edge(builder, last, rank, 0, 1));
            }
            last = rank;
        }
    }
    return MHP_OK;
}

mhp_status mhp_edges_create(const mhp_plan *plan, int replica_count, mhp_edge_list *list_out)
{
    mhp_status status = MHP_OK;
    edge_builder builder = {0};
    mhp_placement placement = {0};

    MHP_TRY(out, mhp_placement_create(plan, &placement));
    MHP_TRY(out, add_messages(&builder, plan, replica_count));
    MHP_TRY(out, add_copies(&builder, plan, &placement, replica_count));
    merge(&builder);
    *list_out = (mhp_edge_list){builder.items, builder.count};
    builder.items = NULL;
out:
    mhp_free(builder.items);
    mhp_placement_destroy(&placement);
    return status;
}

void mhp_edges_release(mhp_edge_list *list)
{
    mhp_free(list->items);
    *list = (mhp_edge_list){0};
}
