/* Groups over NCCL, for device memory; of the host's, MPI does it. */
#include <stdio.h>
#include <time.h>

#include "comm/collectives.h"
#include "comm/nccl/nccl_link.h"
#include "core/memory.h"

enum { NAME_MAX_BYTES = 64, CONNECT_PAUSE_NS = 100000 };

typedef struct nccl_group {
    mhp_nccl_link link;
    mhp_device *device;
    char name[NAME_MAX_BYTES];
    void *mpi;
    mhp_stream *stream;
    void *warm_up;                  /* device memory */
} nccl_group;

typedef struct collective_task {
    nccl_group *group;
    mhp_collective_call call;
} collective_task;

static ncclDataType_t nccl_type(mhp_dtype dtype)
{
    switch (dtype) {
    case MHP_DTYPE_F32:
        return ncclFloat32;
    case MHP_DTYPE_F64:
        return ncclFloat64;
    case MHP_DTYPE_I64:
        return ncclInt64;
    case MHP_DTYPE_BF16:
        return ncclBfloat16;
    default:
        return ncclUint8;
    }
}

static ncclRedOp_t nccl_op(mhp_reduce_op op)
{
    return op == MHP_REDUCE_SUM ? ncclSum : op == MHP_REDUCE_MAX ? ncclMax : ncclMin;
}

static ncclResult_t start_call(const mhp_nccl_link *link, cudaStream_t stream, const void *argument)
{
    const mhp_collective_call *call = argument;
    const mhp_nccl_api *api = link->api;
    ncclDataType_t type = nccl_type(call->dtype);
    size_t count = (size_t)call->count;
    char *own = call->data + (size_t)link->rank * count * mhp_dtype_bytes(call->dtype);

    switch (call->operation) {
    case MHP_COLLECTIVE_ALL_REDUCE:
        return api->all_reduce(call->data, call->data, count, type, nccl_op(call->op), link->comm, stream);
    case MHP_COLLECTIVE_REDUCE_SCATTER:
        return api->reduce_scatter(call->data, own, count, type, ncclSum, link->comm, stream);
    case MHP_COLLECTIVE_ALL_GATHER:
        return api->all_gather(own, call->data, count, type, link->comm, stream);
    case MHP_COLLECTIVE_BROADCAST:
        return api->broadcast(call->data, call->data, count, type, call->from, link->comm, stream);
    case MHP_COLLECTIVE_TRANSFER:
        return link->rank == call->from ? api->send(call->data, count, type, call->to, link->comm, stream)
                                        : api->receive(call->data, count, type, call->from, link->comm, stream);
    default:
        return ncclInvalidArgument;
    }
}

static mhp_status submit_call(void *native, const void *argument)
{
    const collective_task *task = argument;

    return mhp_nccl_link_run(&task->group->link, start_call, native, &task->call);
}

static mhp_status nccl_start(void *state, const mhp_collective_call *call, mhp_event *after)
{
    nccl_group *group = state;
    collective_task task = {group, *call};

    if (call->operation == MHP_COLLECTIVE_BARRIER || !mhp_device_owns(group->device, call->data)) {
        return mhp_collectives_mpi.start(group->mpi, call, after);
    }
    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(group->stream, after));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_submit(group->stream, submit_call, &task, sizeof task));
    return mhp_event_record(call->done, group->stream);
}

/* Sets the ways up. */
static mhp_status connect(nccl_group *group)
{
    const struct timespec pause = {0, CONNECT_PAUSE_NS};
    collective_task task = {group, {.operation = MHP_COLLECTIVE_ALL_REDUCE, .count = 1, .dtype = MHP_DTYPE_F32}};
    mhp_status status = mhp_nccl_link_begin(&group->link);

    while (status == MHP_OK && (status = mhp_nccl_link_poll(&group->link)) == MHP_IN_PROGRESS) {
        nanosleep(&pause, NULL);
        status = MHP_OK;
    }
    MHP_RETURN_IF_ERROR(status);
    MHP_RETURN_IF_ERROR(mhp_device_alloc(group->device, sizeof(float), &group->warm_up));
    task.call.data = group->warm_up;
    MHP_RETURN_IF_ERROR(mhp_stream_zero(group->stream, group->warm_up, sizeof(float)));
    MHP_RETURN_IF_ERROR(mhp_stream_submit(group->stream, submit_call, &task, sizeof task));
    return mhp_stream_synchronize(group->stream);
}

static mhp_status agree_on_id(nccl_group *group)
{
    mhp_status status = MHP_OK;
    ncclUniqueId *ids = NULL;

    if (group->link.rank == 0) {
        MHP_RETURN_IF_ERROR(mhp_nccl_link_make_id(&group->link));
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&ids, (size_t)group->link.size, sizeof *ids));
    MHP_TRY(out, mhp_mpi_group_gather(group->mpi, &group->link.id, sizeof group->link.id, ids));
    group->link.id = ids[0];
out:
    mhp_free(ids);
    return status;
}

static void nccl_close(void *state)
{
    nccl_group *group = state;

    if (group->stream) {
        (void)mhp_stream_synchronize(group->stream);
    }
    mhp_nccl_link_close(&group->link);
    mhp_stream_destroy(group->stream);
    mhp_device_free(group->device, group->warm_up);
    if (group->mpi) {
        mhp_collectives_mpi.close(group->mpi);
    }
    mhp_free(group);
}

static mhp_status nccl_open(mhp_comm *comm, const mhp_collectives_params *params, void **state_out)
{
    mhp_status status = MHP_OK;
    nccl_group *group = NULL;

    MHP_TRY(out, mhp_calloc(&group, 1, sizeof *group));
    group->device = mhp_comm_device(comm);
    snprintf(group->name, sizeof group->name, "%s", params->name);
    group->link.size = params->size;
    group->link.rank = params->index;
    MHP_TRY(out, mhp_nccl_link_init(&group->link, comm, group->name));
    MHP_TRY(out, mhp_collectives_mpi.open(comm, params, &group->mpi));
    MHP_TRY(out, mhp_stream_create(group->device, MHP_STREAM_COPY, MHP_PRIORITY_NORMAL, group->name, &group->stream));
    MHP_TRY(out, agree_on_id(group));
    MHP_TRY(out, connect(group));
    *state_out = group;
    group = NULL;
out:
    if (group) {
        nccl_close(group);
    }
    return status;
}

static const mhp_collectives nccl_collectives = {
    .name = "nccl",
    .open = nccl_open,
    .close = nccl_close,
    .start = nccl_start,
};

const mhp_collectives *mhp_collectives_nccl(void)
{
    return mhp_nccl_find() ? &nccl_collectives : NULL;
}
