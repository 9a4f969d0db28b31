#include "comm/group.h"

#include <assert.h>
#include <string.h>

#include "comm/collectives.h"
#include "core/memory.h"

struct mhp_group {
    const mhp_collectives *transport;   /* NULL in a group of one */
    void *state;
    mhp_stream *order;                  /* of events, in a group of one */
    mhp_event *event;                   /* of blocking calls */
    int size, index;
};

static const mhp_collectives *choose(const mhp_comm *comm, const int *members, int count)
{
    mhp_transport_kind kind = mhp_comm_group_transport(comm, members, count);

    if (kind == MHP_TRANSPORT_IPC && count <= MHP_IPC_MEMBERS_MAX) {
        return &mhp_collectives_ipc;
    }
    return kind == MHP_TRANSPORT_NCCL ? mhp_collectives_nccl() : &mhp_collectives_mpi;
}

static int index_of(int rank, const int *members, int count)
{
    int index = 0;

    while (index < count && members[index] != rank) {
        index++;
    }
    assert(index < count);
    return index;
}

mhp_status mhp_group_open(mhp_comm *comm, const char *name, int id, const int *members, int member_count, mhp_group **group_out)
{
    mhp_status status = MHP_OK;
    mhp_group *group = NULL;
    mhp_collectives_params params = {.name = name, .id = id, .members = members, .size = member_count};

    assert(member_count > 0);
    MHP_TRY(out, mhp_calloc(&group, 1, sizeof *group));
    group->size = member_count;
    group->index = params.index = index_of(mhp_comm_rank(comm), members, member_count);
    MHP_TRY(out, mhp_event_create(mhp_comm_device(comm), &group->event));
    if (member_count == 1) {
        MHP_TRY(out, mhp_stream_create(mhp_comm_device(comm), MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, name, &group->order));
    } else {
        group->transport = choose(comm, members, member_count);
        MHP_TRY(out, group->transport->open(comm, &params, &group->state));
    }
    *group_out = group;
    group = NULL;
out:
    mhp_group_close(group);
    return status;
}

void mhp_group_close(mhp_group *group)
{
    if (!group) {
        return;
    }
    if (group->state) {
        group->transport->close(group->state);
    }
    mhp_stream_destroy(group->order);
    mhp_event_destroy(group->event);
    mhp_free(group);
}

int mhp_group_size(const mhp_group *group)
{
    return group->size;
}

int mhp_group_index(const mhp_group *group)
{
    return group->index;
}

const char *mhp_group_transport(const mhp_group *group)
{
    return group->transport ? group->transport->name : "none";
}

static mhp_status start(mhp_group *group, const mhp_collective_call *call, mhp_event *after)
{
    if (group->transport) {
        return group->transport->start(group->state, call, after);
    }
    if (after) {                        /* nothing to do but to keep the order */
        MHP_RETURN_IF_ERROR(mhp_stream_wait(group->order, after));
    }
    return mhp_event_record(call->done, group->order);
}

mhp_status mhp_group_all_reduce(mhp_group *group, void *data, int64_t count, mhp_dtype dtype, mhp_reduce_op op, mhp_event *after,
                                mhp_event *done)
{
    mhp_collective_call call = {.operation = MHP_COLLECTIVE_ALL_REDUCE, .data = data, .count = count, .dtype = dtype, .op = op,
                                .done = done};

    return start(group, &call, after);
}

mhp_status mhp_group_reduce_scatter(mhp_group *group, void *data, int64_t chunk, mhp_dtype dtype, mhp_event *after, mhp_event *done)
{
    mhp_collective_call call = {.operation = MHP_COLLECTIVE_REDUCE_SCATTER, .data = data, .count = chunk, .dtype = dtype,
                                .op = MHP_REDUCE_SUM, .done = done};

    return start(group, &call, after);
}

mhp_status mhp_group_all_gather(mhp_group *group, void *data, int64_t chunk, mhp_dtype dtype, mhp_event *after, mhp_event *done)
{
    mhp_collective_call call = {.operation = MHP_COLLECTIVE_ALL_GATHER, .data = data, .count = chunk, .dtype = dtype, .done = done};

    return start(group, &call, after);
}

mhp_status mhp_group_broadcast(mhp_group *group, void *data, size_t bytes, int root, mhp_event *after, mhp_event *done)
{
    mhp_collective_call call = {.operation = MHP_COLLECTIVE_BROADCAST, .data = data, .count = (int64_t)bytes, .dtype = MHP_DTYPE_U8,
                                .from = root, .done = done};

    return start(group, &call, after);
}

mhp_status mhp_group_transfer(mhp_group *group, void *data, size_t bytes, int from, int to, mhp_event *after, mhp_event *done)
{
    mhp_collective_call call = {.operation = MHP_COLLECTIVE_TRANSFER, .data = data, .count = (int64_t)bytes, .dtype = MHP_DTYPE_U8,
                                .from = from, .to = to, .done = done};

    if (from == to || (group->index != from && group->index != to)) {
        return MHP_OK;
    }
    return start(group, &call, after);
}

mhp_status mhp_group_barrier(mhp_group *group)
{
    mhp_collective_call call = {.operation = MHP_COLLECTIVE_BARRIER, .dtype = MHP_DTYPE_U8, .done = group->event};

    MHP_RETURN_IF_ERROR(start(group, &call, NULL));
    return mhp_event_synchronize(group->event, 0);
}
