/* Which rank of the pipeline every process is, so that ranks that exchange messages share a host where they can. */
#ifndef MHP_SCHEDULER_MAPPING_H
#define MHP_SCHEDULER_MAPPING_H

#include "scheduler/edges.h"

enum { MHP_MAPPING_EXACT_HOSTS = 16 };

/* rank_of[process] = world rank, a permutation of 0 .. replica_count * plan->rank_count - 1, from the host of every process in the
 * launcher's order; equal strings are one host. A pure function: every process that asks gets the same answer.
 *
 * Of a step's messages the fewest possible pass between hosts if the pipeline's ranks form a chain (all named schedules but
 * interleaved): with H hosts it is cut H - G times, G being the largest number of groups of hosts whose processes make whole
 * pipelines. G is exact unless more than MHP_MAPPING_EXACT_HOSTS hosts are neither a multiple of a pipeline nor one together with a
 * second host; those then keep the launcher's order. For other plans, and for the copies of stages that are reduced, exchanges of two
 * processes improve on that until none does. The launcher's order stays where it is as good. */
mhp_status mhp_mapping_create(const mhp_plan *plan, int replica_count, const char *const *hosts, int *rank_of);

/* What passes between hosts; host_of_rank [world rank] is a number of its host. */
typedef struct mhp_mapping_cost {
    int64_t edges;              /* pairs of ranks on two hosts that exchange messages */
    int64_t messages;           /* of a step */
    int64_t copies;             /* of stages, that are reduced from one host to the other */
} mhp_mapping_cost;
mhp_mapping_cost mhp_mapping_cost_of(const mhp_edge_list *edges, const int *host_of_rank);

#endif
