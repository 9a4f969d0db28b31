/* Groups: collective operations over some ranks of the world, without blocking the host.
 *
 * Every member calls the same operations in the same order. Each operation starts once `after` (NULL: at once) is complete and
 * completes `done`; either may be NULL only where said. Results are the same bits in every run with the same ranks. */
#ifndef MHP_COMM_GROUP_H
#define MHP_COMM_GROUP_H

#include "comm/comm.h"
#include "core/tensor.h"

typedef struct mhp_group mhp_group;
typedef enum mhp_reduce_op { MHP_REDUCE_SUM, MHP_REDUCE_MAX, MHP_REDUCE_MIN } mhp_reduce_op;

/* Members are world ranks, ascending, the same list on each member. Collective over the members only, and blocking. A group of one
 * member is allowed: its operations only keep the order. `id` is unique in the world. */
mhp_status mhp_group_open(mhp_comm *comm, const char *name, int id, const int *members, int member_count, mhp_group **group_out);
void mhp_group_close(mhp_group *group);
/* mhp_comm_may_release, for what the group's calls use. */
bool mhp_group_may_release(const mhp_group *group, mhp_status status);
int mhp_group_size(const mhp_group *group);
int mhp_group_index(const mhp_group *group);    /* this rank's place among the members */
/* "ipc", "nccl" or "mpi"; "none" in a group of one. */
const char *mhp_group_transport(const mhp_group *group);

/* Data is device memory or the host's. dtype is F32, F64 or I64, in an all-gather also BF16. Counts are elements, beyond 2^31 too. */
/* In place over `count` elements. */
mhp_status mhp_group_all_reduce(mhp_group *group, void *data, int64_t count, mhp_dtype dtype, mhp_reduce_op op, mhp_event *after,
                                mhp_event *done);
/* data holds size * chunk elements; afterwards member i's chunk i holds the sum, the rest is undefined. */
mhp_status mhp_group_reduce_scatter(mhp_group *group, void *data, int64_t chunk, mhp_dtype dtype, mhp_event *after, mhp_event *done);
/* data holds size * chunk elements; member i gives chunk i; afterwards all chunks are everywhere. */
mhp_status mhp_group_all_gather(mhp_group *group, void *data, int64_t chunk, mhp_dtype dtype, mhp_event *after, mhp_event *done);
/* Copies `bytes` from member `root` to all. */
mhp_status mhp_group_broadcast(mhp_group *group, void *data, size_t bytes, int root, mhp_event *after, mhp_event *done);
/* One message from member `from` to member `to`; called by these two (others return at once). from == to does nothing. */
mhp_status mhp_group_transfer(mhp_group *group, void *data, size_t bytes, int from, int to, mhp_event *after, mhp_event *done);
/* Blocks until every member is here. */
mhp_status mhp_group_barrier(mhp_group *group);

#endif
