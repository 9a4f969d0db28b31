/* Who does the operations of groups: one const table a transport. The contracts are those of comm/group.h; a group has at least two
 * members here. */
#ifndef MHP_COMM_COLLECTIVES_H
#define MHP_COMM_COLLECTIVES_H

#include "comm/group.h"

typedef enum mhp_collective {
    MHP_COLLECTIVE_ALL_REDUCE,
    MHP_COLLECTIVE_REDUCE_SCATTER,
    MHP_COLLECTIVE_ALL_GATHER,
    MHP_COLLECTIVE_BROADCAST,
    MHP_COLLECTIVE_TRANSFER,
    MHP_COLLECTIVE_BARRIER,
} mhp_collective;

typedef struct mhp_collective_call {
    mhp_collective operation;
    char *data;
    int64_t count;                  /* elements; of one chunk where there are chunks; bytes for broadcast and transfer */
    mhp_dtype dtype;
    mhp_reduce_op op;
    int from, to;
    mhp_event *done;
} mhp_collective_call;

typedef struct mhp_collectives_params {
    const char *name;               /* copied */
    int id;
    const int *members;             /* world ranks */
    int size, index;
} mhp_collectives_params;

typedef struct mhp_collectives {
    const char *name;
    mhp_status (*open)(mhp_comm *comm, const mhp_collectives_params *params, void **state_out);     /* of members alone; blocks */
    void (*close)(void *state);
    mhp_status (*start)(void *state, const mhp_collective_call *call, mhp_event *after);
} mhp_collectives;

extern const mhp_collectives mhp_collectives_mpi;
extern const mhp_collectives mhp_collectives_ipc;
const mhp_collectives *mhp_collectives_nccl(void);  /* NULL in a build without NCCL */

/* The most members of a group by ipc. */
enum { MHP_IPC_MEMBERS_MAX = 16 };

/* Of the group's members, over its own communicator: all[i] = member i's `bytes`. For transports that begin over MPI; `state` is that of
 * mhp_collectives_mpi. Blocks. */
mhp_status mhp_mpi_group_gather(void *state, const void *own, size_t bytes, void *all);

#endif
