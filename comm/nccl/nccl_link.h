/* A communicator of NCCL: how it begins, how its calls are waited for, and how it ends when a rank is lost. Private to comm/nccl/. */
#ifndef MHP_COMM_NCCL_LINK_H
#define MHP_COMM_NCCL_LINK_H

#include <nccl.h>
#include <pthread.h>

#include "comm/edges_internal.h"

/* What is used of libnccl, which is looked for when the program runs: without it the other transports still work. */
typedef struct mhp_nccl_api {
    __typeof__(ncclGetUniqueId) *get_unique_id;
    __typeof__(ncclCommInitRankConfig) *init;
    __typeof__(ncclCommFinalize) *finalize;
    __typeof__(ncclCommDestroy) *destroy;
    __typeof__(ncclCommAbort) *abort;
    __typeof__(ncclCommGetAsyncError) *async_error;
    __typeof__(ncclGetErrorString) *error_text;
    __typeof__(ncclGetLastError) *last_error;
    __typeof__(ncclGroupStart) *group_start;
    __typeof__(ncclGroupEnd) *group_end;
    __typeof__(ncclSend) *send;
    __typeof__(ncclRecv) *receive;
    __typeof__(ncclAllReduce) *all_reduce;
    __typeof__(ncclReduceScatter) *reduce_scatter;
    __typeof__(ncclAllGather) *all_gather;
    __typeof__(ncclBroadcast) *broadcast;
} mhp_nccl_api;

/* NULL if there is none. */
const mhp_nccl_api *mhp_nccl_find(void);

typedef struct mhp_nccl_link {
    mhp_watch watch;
    mhp_comm *world;
    const mhp_nccl_api *api;
    const char *name;               /* for errors; outlives the link */
    ncclUniqueId id;                /* made by rank 0 of the link, known to all before it begins */
    int size, rank;
    pthread_mutex_t lock;           /* of comm: the comm thread may end it amid the host thread's calls */
    ncclComm_t comm;
    bool watched, aborted;
} mhp_nccl_link;

mhp_status mhp_nccl_link_init(mhp_nccl_link *link, mhp_comm *world, const char *name);
/* Rank 0 of the link. */
mhp_status mhp_nccl_link_make_id(mhp_nccl_link *link);
/* Begins to connect; does not wait. */
mhp_status mhp_nccl_link_begin(mhp_nccl_link *link);
/* MHP_IN_PROGRESS while the last call is under way. */
mhp_status mhp_nccl_link_poll(mhp_nccl_link *link);
/* A call on the link's communicator, made once with the lock held. */
typedef ncclResult_t (*mhp_nccl_call)(const mhp_nccl_link *link, cudaStream_t stream, const void *argument);
/* Makes a call, without waiting for it. */
mhp_status mhp_nccl_link_start(mhp_nccl_link *link, mhp_nccl_call call, cudaStream_t stream, const void *argument);
/* Makes a call, and waits until it is in its stream. */
mhp_status mhp_nccl_link_run(mhp_nccl_link *link, mhp_nccl_call call, cudaStream_t stream, const void *argument);
/* Nothing is under way, or the device is poisoned. Also after half an init, and on zeros. */
void mhp_nccl_link_close(mhp_nccl_link *link);
/* Waits until the communicators of closed links are gone, on all their ranks, some seconds at most. False if some are left: the process
 * must then end by _exit. */
bool mhp_nccl_leave(void);

#endif
