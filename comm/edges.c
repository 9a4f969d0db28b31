#include "comm/edges_internal.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/mpi/engine.h"
#include "comm/transport.h"
#include "core/memory.h"

struct mhp_edges {
    mhp_topology topology;
    mhp_transport_kind kind;
    mhp_node *node;
    pthread_mutex_t lock;           /* of the watches */
    mhp_watch *watches;
};

const char *mhp_transport_text(mhp_transport_kind kind)
{
    static const char *const texts[] = {"auto", "ipc", "nccl", "mpi"};

    return texts[kind];
}

/* The kernel's number of this start of the system; zeros where it has none. */
static void read_boot(unsigned char boot[MHP_CARD_ID_BYTES])
{
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char text[2 * MHP_CARD_ID_BYTES] = "";

    if (file >= 0) {
        if (read(file, text, sizeof text) < 0) {
            memset(text, 0, sizeof text);
        }
        close(file);
    }
    for (int i = 0; i < MHP_CARD_ID_BYTES; i++) {           /* folded, for the text is longer */
        boot[i] = (unsigned char)(text[i] ^ text[MHP_CARD_ID_BYTES + i] << 1);
    }
}

static void find_own(mhp_device *device, mhp_rank_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    if (gethostname(facts->host, sizeof facts->host - 1) != 0) {
        snprintf(facts->host, sizeof facts->host, "unknown");
    }
    read_boot(facts->boot);
    mhp_device_card_id(device, facts->card);
    facts->has_card = mhp_device_get_kind(device) == MHP_DEVICE_CUDA;
    facts->can_share = mhp_device_can_share(device);
    facts->has_nccl = mhp_transport_nccl() != NULL;
}

static bool may_share(const mhp_topology *topology, mhp_transport_kind kind)
{
    bool wanted = kind == MHP_TRANSPORT_IPC || kind == MHP_TRANSPORT_AUTO;

    for (int rank = 0; wanted && rank < topology->size; rank++) {
        wanted = topology->ranks[rank].can_share;
    }
    return wanted && topology->size > 1;
}

/* Named, ipc must reach everywhere. */
static mhp_status check_reach(const mhp_edges *edges, int rank, const char *why)
{
    const mhp_topology *topology = &edges->topology;

    for (int other = 0; edges->kind == MHP_TRANSPORT_IPC && other < topology->size; other++) {
        if (other != rank && !topology->reaches[rank * topology->size + other]) {
            return mhp_error_set(MHP_ERR_CONFIG, "parallel.transport is ipc, and this rank cannot map the memory of rank %d: %s; expected "
                                 "auto, nccl or mpi", other, *why ? why : "the other could not share it");
        }
    }
    return MHP_OK;
}

static mhp_status find_places(mhp_comm *comm, mhp_edges *edges)
{
    mhp_topology *topology = &edges->topology;
    size_t size = (size_t)comm->size;
    char why[MHP_ERROR_TEXT_MAX] = "";
    mhp_rank_facts own;

    find_own(comm->device, &own);
    topology->size = comm->size;
    MHP_RETURN_IF_ERROR(mhp_calloc(&topology->ranks, size, sizeof *topology->ranks));
    MHP_RETURN_IF_ERROR(mhp_calloc(&topology->reaches, size * size, 1));
    MHP_RETURN_IF_ERROR(mhp_comm_share(comm, &own, sizeof own, topology->ranks));
    MHP_RETURN_IF_ERROR(mhp_comm_agree(comm, mhp_topology_check(topology, edges->kind), NULL));
    if (may_share(topology, edges->kind)) {
        MHP_RETURN_IF_ERROR(mhp_node_open(comm, topology, why, &edges->node));
    }
    return mhp_comm_agree(comm, check_reach(edges, comm->rank, why), NULL);
}

mhp_status mhp_comm_choose_transport(mhp_comm *comm, mhp_transport_kind kind)
{
    mhp_status status = MHP_OK;
    mhp_edges *edges = NULL;

    assert(!comm->edges);
    MHP_TRY(out, mhp_calloc(&edges, 1, sizeof *edges));
    edges->kind = kind;
    pthread_mutex_init(&edges->lock, NULL);
    MHP_TRY(out, find_places(comm, edges));
    comm->edges = edges;
    edges = NULL;
out:
    mhp_edges_close(edges);
    return status;
}

mhp_transport_kind mhp_comm_transport(const mhp_comm *comm, int source, int target)
{
    return comm->edges ? mhp_topology_choose(&comm->edges->topology, comm->edges->kind, source, target) : MHP_TRANSPORT_MPI;
}

mhp_transport_kind mhp_comm_group_transport(const mhp_comm *comm, const int *members, int count)
{
    return comm->edges ? mhp_topology_choose_group(&comm->edges->topology, comm->edges->kind, members, count) : MHP_TRANSPORT_MPI;
}

mhp_status mhp_comm_sum_on_card(mhp_comm *comm, size_t bytes, size_t *sum_out, int *ranks_out)
{
    const mhp_edges *edges = comm->edges;
    mhp_status status = MHP_OK;
    size_t *all = NULL;

    *sum_out = bytes;
    *ranks_out = 1;
    if (!edges || comm->size == 1) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&all, (size_t)comm->size, sizeof *all));
    MHP_TRY(out, mhp_comm_share(comm, &bytes, sizeof bytes, all));
    for (int rank = 0; rank < comm->size; rank++) {
        if (rank != comm->rank && mhp_topology_same_card(&edges->topology, rank, comm->rank)) {
            *sum_out += all[rank];
            (*ranks_out)++;
        }
    }
out:
    mhp_free(all);
    return status;
}

mhp_node *mhp_comm_node(const mhp_comm *comm)
{
    return comm->edges ? comm->edges->node : NULL;
}

void mhp_edges_watch(mhp_comm *comm, mhp_watch *watch)
{
    mhp_edges *edges = comm->edges;

    pthread_mutex_lock(&edges->lock);
    watch->next = edges->watches;
    watch->link = &edges->watches;
    if (watch->next) {
        watch->next->link = &watch->next;
    }
    edges->watches = watch;
    pthread_mutex_unlock(&edges->lock);
    mhp_device_wake_comm(comm->device);
}

void mhp_edges_unwatch(mhp_comm *comm, mhp_watch *watch)
{
    mhp_edges *edges = comm->edges;

    pthread_mutex_lock(&edges->lock);
    *watch->link = watch->next;
    if (watch->next) {
        watch->next->link = watch->link;
    }
    pthread_mutex_unlock(&edges->lock);
}

int mhp_edges_look(mhp_edges *edges, mhp_comm *comm)
{
    bool failed;
    int count = 0;

    if (!edges) {
        return 0;
    }
    failed = mhp_stream_check(comm->stream) < 0;
    pthread_mutex_lock(&edges->lock);
    for (mhp_watch *watch = edges->watches; watch; watch = watch->next) {
        if (failed || watch->always) {
            watch->look(watch, failed);
            count++;
        }
    }
    pthread_mutex_unlock(&edges->lock);
    return count;
}

void mhp_edges_close(mhp_edges *edges)
{
    if (!edges) {
        return;
    }
    if (mhp_transport_nccl()) {
        mhp_transport_nccl()->leave();
    }
    mhp_node_close(edges->node);
    pthread_mutex_destroy(&edges->lock);
    mhp_free(edges->topology.reaches);
    mhp_free(edges->topology.ranks);
    mhp_free(edges);
}
