/* Which cores a rank keeps to, and which card it takes, by the topology of its host. */
#ifndef MHP_LAUNCH_BINDING_H
#define MHP_LAUNCH_BINDING_H

#include <hwloc.h>
#include <stdbool.h>

#include "core/status.h"

typedef struct mhp_binding_params {
    hwloc_topology_t topology;      /* of the host; its allowed cores are those of the job (a control group) */
    hwloc_const_cpuset_t allowed;   /* where this process may run now */
    int local_rank, local_size;     /* among the processes of this host; a size of 0: unknown */
    int threads;                    /* of a rank's products */
    int card;                       /* every rank's; -1: cards go round the local ranks */
    int card_count;                 /* 0: no cards are used */
    const hwloc_const_cpuset_t *near_card;  /* [card_count]: the cores beside it; NULL where that is unknown */
} mhp_binding_params;

typedef struct mhp_binding {
    int card;                       /* 0 without cards */
    bool far;                       /* the launcher keeps this rank to cores that are not beside its card */
    hwloc_bitmap_t cpus;            /* the caller's, to hwloc_bitmap_free; NULL: as it is */
} mhp_binding;

/* A pure function. A rank that the launcher bound - it may not run on all cores of the job - stays as it is. Else the ranks share the
 * cores beside their cards, or all of them: as many whole NUMA nodes each or as few ranks to a node as there are, and in a node runs
 * of whole cores. Never more than `allowed`. If that leaves a rank fewer hardware threads than products have plus one, for messages,
 * the operating system deals them better, and nobody is bound. */
mhp_status mhp_binding_choose(const mhp_binding_params *params, mhp_binding *binding_out);

#endif
