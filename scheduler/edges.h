/* Who of the world talks to whom: what a placement over hosts looks at, and what a check of the network measures. */
#ifndef MHP_SCHEDULER_EDGES_H
#define MHP_SCHEDULER_EDGES_H

#include <stdint.h>

#include "scheduler/plan.h"

/* Two ranks of the world, a < b. World rank = replica * the plan's ranks + pipeline rank. */
typedef struct mhp_edge {
    int a, b;
    int64_t messages;           /* states and gradients of a step, both ways together */
    int64_t copies;             /* stages that both hold, and reduce one after the other */
} mhp_edge;

typedef struct mhp_edge_list {
    mhp_edge *items;            /* by a, then b */
    size_t count;
} mhp_edge_list;

/* The edges of `replica_count` replicas of a plan, from its owners; it need not be lowered. A forward-only plan has gradients counted
 * all the same. Release with mhp_edges_release, which a zeroed list needs not. */
mhp_status mhp_edges_create(const mhp_plan *plan, int replica_count, mhp_edge_list *list_out);
void mhp_edges_release(mhp_edge_list *list);

#endif
