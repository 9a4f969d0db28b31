/* The world of ranks: start and end, liveness, and how a failure reaches everybody.
 *
 * The comm thread of the device makes every MPI call, from start to end. Functions here and in channel.h and group.h may be called
 * by the host thread only, if not said otherwise. */
#ifndef MHP_COMM_COMM_H
#define MHP_COMM_COMM_H

#include <stdbool.h>

#include "core/device.h"
#include "core/status.h"

typedef struct mhp_comm mhp_comm;

/* Joins the world on the device's comm thread. Every rank; outside mpirun the world has one rank. */
mhp_status mhp_comm_open(mhp_device *device, mhp_comm **comm_out);
/* Leaves it in order. Every rank, after all channels and groups are closed. NULL is allowed. */
void mhp_comm_close(mhp_comm *comm);
/* Numbers the ranks of the world anew: this process becomes rank `rank` of 0 .. size - 1, each of which one process takes. Every rank, right
 * after the opening: before the transport is chosen and whatever else keeps a rank's number. Blocks. MHP_ERR_INVALID if two want the same. */
mhp_status mhp_comm_renumber(mhp_comm *comm, int rank);
int mhp_comm_rank(const mhp_comm *comm);
int mhp_comm_size(const mhp_comm *comm);
mhp_device *mhp_comm_device(mhp_comm *comm);

typedef enum mhp_transport_kind { MHP_TRANSPORT_AUTO, MHP_TRANSPORT_IPC, MHP_TRANSPORT_NCCL, MHP_TRANSPORT_MPI } mhp_transport_kind;

/* Finds out where the ranks are and settles what carries messages. Every rank, once, before channels and groups are opened; blocks; all
 * get the same status. MHP_ERR_CONFIG if the named transport cannot, with what would work. Without this call everything goes over MPI. */
mhp_status mhp_comm_choose_transport(mhp_comm *comm, mhp_transport_kind kind);
/* What carries messages from a rank to another: not AUTO. */
mhp_transport_kind mhp_comm_transport(const mhp_comm *comm, int source, int target);
/* Likewise what carries the sums of a group. */
mhp_transport_kind mhp_comm_group_transport(const mhp_comm *comm, const int *members, int count);
const char *mhp_transport_text(mhp_transport_kind kind);
/* Sums `bytes` over the ranks that use this rank's card, and counts them: itself alone where there are no cards. Every rank, after the
 * transport was chosen; blocks. */
mhp_status mhp_comm_sum_on_card(mhp_comm *comm, size_t bytes, size_t *sum_out, int *ranks_out);

/* Agreement: every rank gives its status; all get MHP_OK if all were, else the worst status and the text of the lowest rank that
 * has it, "rank 2: ..." before it unless every rank failed. Blocks; every rank. `failed_rank_out` (may be NULL) is that rank or -1. */
mhp_status mhp_comm_agree(mhp_comm *comm, mhp_status status, int *failed_rank_out);

/* Whether an agreement ended with an error: then every rank knows of it, and the world can be left in order. */
bool mhp_comm_agreed_failure(const mhp_comm *comm);
/* Every rank has dealt with the failure that all agreed on, and the world goes on. */
void mhp_comm_forget_failure(mhp_comm *comm);

/* Tells all other ranks that this one failed, with the calling thread's error text: their device is poisoned with MHP_ERR_PEER and
 * "rank R: text". Returns when the notice has left or after a second; then call mhp_comm_abort. The result says whether this rank is
 * the one to report the error: where several ranks fail at once it is the lowest of them, and after an agreement rank 0. */
bool mhp_comm_fail(mhp_comm *comm, mhp_status status);
/* Ends this process at once with exit status 1 (the launcher ends what is left); flushes stdio first. Does not return. */
_Noreturn void mhp_comm_abort(mhp_comm *comm);
/* If a notice came in or the world was given up: MHP_ERR_PEER with its text, else MHP_OK. Any thread. */
mhp_status mhp_comm_check(mhp_comm *comm);
/* Gives the world up on this rank: whatever waits for others ends with MHP_ERR_PEER and `text`. The first one counts. Any thread. */
void mhp_comm_lose(mhp_comm *comm, const char *text);

/* Every rank gives `bytes` bytes; all get all of them, [size][bytes], by rank. Host memory. Blocks; every rank. */
mhp_status mhp_comm_share(mhp_comm *comm, const void *own, size_t bytes, void *all);

/* Sees every message and collective that goes over MPI, by the name of its channel or group, when it is posted and when it is done.
 * On the comm thread, so quickly. */
typedef struct mhp_comm_observer {
    void (*posted)(void *context, const char *name);
    void (*ended)(void *context, const char *name, mhp_status status);
    void *context;
} mhp_comm_observer;
/* NULL ends it: the one before is not called any more when this returns. */
mhp_status mhp_comm_observe(mhp_comm *comm, const mhp_comm_observer *observer);

#endif
