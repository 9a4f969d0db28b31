/* What a comm knows of its ranks' places, and what its transports share. */
#ifndef MHP_COMM_EDGES_INTERNAL_H
#define MHP_COMM_EDGES_INTERNAL_H

#include "comm/ipc/node.h"

typedef struct mhp_edges mhp_edges;

/* NULL is allowed. False as of mhp_comm_close. */
bool mhp_edges_close(mhp_edges *edges);
/* NULL if no edge is ipc's. */
mhp_node *mhp_comm_node(const mhp_comm *comm);

/* What the comm thread looks at between its other work while it is registered; `failed`: the device is poisoned, and what waits for other
 * ranks must be let go, again at every look. It is not looked at any more when unwatch returns. */
typedef struct mhp_watch {
    struct mhp_watch *next, **link;
    void (*look)(struct mhp_watch *watch, bool failed);
    bool always;                    /* also while nothing failed */
} mhp_watch;

void mhp_edges_watch(mhp_comm *comm, mhp_watch *watch);
void mhp_edges_unwatch(mhp_comm *comm, mhp_watch *watch);
/* On the comm thread, again and again. Returns how many want to be looked at soon. */
int mhp_edges_look(mhp_edges *edges, mhp_comm *comm);

#endif
