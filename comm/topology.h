/* Where the ranks of the world are, and what carries messages between any two of them. Pure: every rank computes the same from the same
 * facts. */
#ifndef MHP_COMM_TOPOLOGY_H
#define MHP_COMM_TOPOLOGY_H

#include "comm/comm.h"
#include "core/sharing.h"

enum { MHP_HOST_NAME_MAX = 64, MHP_CARD_NAME_MAX = 32 };

/* What a rank knows of itself; plain bytes, to be sent. */
typedef struct mhp_rank_facts {
    char host[MHP_HOST_NAME_MAX];
    unsigned char boot[MHP_CARD_ID_BYTES];          /* of the host's running system: names may repeat */
    unsigned char card[MHP_CARD_ID_BYTES];
    unsigned char has_card;                         /* the device is a card */
    unsigned char can_share;                        /* core/sharing.h works on it */
    unsigned char has_nccl;
} mhp_rank_facts;

typedef struct mhp_topology {
    int size;
    mhp_rank_facts *ranks;                          /* [size] */
    unsigned char *reaches;                         /* [size][size]: the row's rank has mapped the column's memory and words */
} mhp_topology;

bool mhp_topology_same_host(const mhp_topology *topology, int a, int b);
bool mhp_topology_same_card(const mhp_topology *topology, int a, int b);
/* A rank that uses the same card as a lower one, or -1; the lower one in *other_out. */
int mhp_topology_shared_card(const mhp_topology *topology, int *other_out);

/* MHP_ERR_CONFIG with what would work, if the named transport cannot carry every edge that there may be. `reaches` is not read. */
mhp_status mhp_topology_check(const mhp_topology *topology, mhp_transport_kind kind);
/* What carries messages from `source` to `target`, never AUTO: the named transport, or by itself ipc where the source reaches the target,
 * else nccl between cards of a world where no two ranks share one, else mpi. */
mhp_transport_kind mhp_topology_choose(const mhp_topology *topology, mhp_transport_kind kind, int source, int target);
/* What carries a group's sums: the transport of all edges between members if it is the same, else nccl where no edge needs mpi, else mpi. */
mhp_transport_kind mhp_topology_choose_group(const mhp_topology *topology, mhp_transport_kind kind, const int *members, int count);

#endif
