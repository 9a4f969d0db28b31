/* Small things that all ranks learn of each other, and who looks at the traffic. */
#include "comm/mpi/engine.h"

typedef struct share_call {
    mhp_comm *comm;
    const void *own;
    void *all;
    int bytes;
} share_call;

static mhp_status post_share(void *native, const void *argument)
{
    const share_call *call = argument;
    mhp_status status = MHP_OK;
    mhp_mpi_operation *operation = NULL;
    MPI_Request *request;

    (void)native;
    MHP_RETURN_IF_ERROR(mhp_mpi_begin(call->comm, "share", call->comm->event, &operation));
    MHP_TRY(out, mhp_mpi_room(call->comm, operation, &request));
    MHP_TRY(out, mhp_mpi_check(MPI_Iallgather(call->own, call->bytes, MPI_BYTE, call->all, call->bytes, MPI_BYTE, call->comm->agreement,
                                              request),
                               "share"));
    mhp_mpi_added(call->comm, operation, 0);
out:
    mhp_mpi_launch(call->comm, operation, status);
    return MHP_OK;
}

mhp_status mhp_comm_share(mhp_comm *comm, const void *own, size_t bytes, void *all)
{
    share_call call = {comm, own, all, (int)bytes};

    if (bytes > MHP_MPI_PART_BYTES_MAX / (size_t)comm->size) {
        return mhp_error_set(MHP_ERR_LIMIT, "cannot share %zu bytes among %d ranks: more than %d in all", bytes, comm->size,
                             MHP_MPI_PART_BYTES_MAX);
    }
    MHP_RETURN_IF_ERROR(mhp_event_arm(comm->event));
    MHP_RETURN_IF_ERROR(mhp_stream_host_call(comm->stream, post_share, &call, sizeof call));
    return mhp_event_synchronize(comm->event, 0);
}

typedef struct observe_call {
    mhp_comm *comm;
    mhp_comm_observer observer;
} observe_call;

static mhp_status set_observer(void *native, const void *argument)
{
    const observe_call *call = argument;

    (void)native;
    call->comm->observer = call->observer;
    return MHP_OK;
}

mhp_status mhp_comm_observe(mhp_comm *comm, const mhp_comm_observer *observer)
{
    observe_call call = {.comm = comm};

    if (observer) {
        call.observer = *observer;
    }
    return mhp_mpi_call(comm, set_observer, &call, sizeof call);
}
