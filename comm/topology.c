#include "comm/topology.h"

#include <string.h>

bool mhp_topology_same_host(const mhp_topology *topology, int a, int b)
{
    const mhp_rank_facts *x = &topology->ranks[a], *y = &topology->ranks[b];

    return strncmp(x->host, y->host, sizeof x->host) == 0 && memcmp(x->boot, y->boot, sizeof x->boot) == 0;
}

bool mhp_topology_same_card(const mhp_topology *topology, int a, int b)
{
    const mhp_rank_facts *x = &topology->ranks[a], *y = &topology->ranks[b];

    return x->has_card && y->has_card && mhp_topology_same_host(topology, a, b) && memcmp(x->card, y->card, sizeof x->card) == 0;
}

int mhp_topology_shared_card(const mhp_topology *topology, int *other_out)
{
    for (int rank = 1; rank < topology->size; rank++) {
        for (int other = 0; other < rank; other++) {
            if (mhp_topology_same_card(topology, other, rank)) {
                *other_out = other;
                return rank;
            }
        }
    }
    return -1;
}

static mhp_status check_ipc(const mhp_topology *topology)
{
    for (int rank = 0; rank < topology->size; rank++) {
        if (!topology->ranks[rank].can_share) {
            return mhp_error_set(MHP_ERR_CONFIG, "parallel.transport is ipc and rank %d computes on a processor: ipc moves memory of cards; "
                                 "expected auto or mpi", rank);
        }
        if (!mhp_topology_same_host(topology, 0, rank)) {
            return mhp_error_set(MHP_ERR_CONFIG, "parallel.transport is ipc, rank 0 runs on host %s and rank %d on host %s: ipc reaches the "
                                 "ranks of one host; expected auto, which takes ipc within a host and nccl or mpi between hosts",
                                 topology->ranks[0].host, rank, topology->ranks[rank].host);
        }
    }
    return MHP_OK;
}

static mhp_status check_nccl(const mhp_topology *topology)
{
    int other = -1;
    int rank;

    for (rank = 0; rank < topology->size; rank++) {
        if (!topology->ranks[rank].has_card) {
            return mhp_error_set(MHP_ERR_CONFIG, "parallel.transport is nccl and rank %d computes on a processor: nccl moves memory of cards; "
                                 "expected auto or mpi", rank);
        }
        if (!topology->ranks[rank].has_nccl) {
            return mhp_error_set(MHP_ERR_CONFIG, "parallel.transport is nccl, and rank %d runs a build without NCCL: build it where nccl.h and "
                                 "libnccl are; expected auto, ipc or mpi", rank);
        }
    }
    rank = mhp_topology_shared_card(topology, &other);
    if (rank >= 0) {
        return mhp_error_set(MHP_ERR_CONFIG, "parallel.transport is nccl, and ranks %d and %d share a card of host %s: nccl needs a card for "
                             "each rank; ipc can carry messages between ranks of one card; expected auto, ipc or mpi", other, rank,
                             topology->ranks[rank].host);
    }
    return MHP_OK;
}

mhp_status mhp_topology_check(const mhp_topology *topology, mhp_transport_kind kind)
{
    return kind == MHP_TRANSPORT_IPC ? check_ipc(topology) : kind == MHP_TRANSPORT_NCCL ? check_nccl(topology) : MHP_OK;
}

mhp_transport_kind mhp_topology_choose(const mhp_topology *topology, mhp_transport_kind kind, int source, int target)
{
    if (kind != MHP_TRANSPORT_AUTO) {
        return kind;
    }
    if (topology->reaches[source * topology->size + target]) {
        return MHP_TRANSPORT_IPC;
    }
    return check_nccl(topology) == MHP_OK ? MHP_TRANSPORT_NCCL : MHP_TRANSPORT_MPI;
}

mhp_transport_kind mhp_topology_choose_group(const mhp_topology *topology, mhp_transport_kind kind, const int *members, int count)
{
    bool used[MHP_TRANSPORT_MPI + 1] = {false};

    for (int i = 0; i < count; i++) {
        for (int j = 0; j < count; j++) {
            if (i != j) {
                used[mhp_topology_choose(topology, kind, members[i], members[j])] = true;
            }
        }
    }
    return used[MHP_TRANSPORT_MPI] ? MHP_TRANSPORT_MPI : used[MHP_TRANSPORT_NCCL] ? MHP_TRANSPORT_NCCL : MHP_TRANSPORT_IPC;
}
