/* Small things that all ranks learn of each other, and who looks at the traffic. */
#include <string.h>

#include "comm/mpi/engine.h"
#include "core/memory.h"

typedef struct share_call {
    mhp_comm *comm;
    const char *own;
    char *all;
    int bytes;
} share_call;

static mhp_status post_share(mhp_status status, const void *argument)
{
    const share_call *call = argument;
    mhp_mpi_operation *operation = NULL;
    MPI_Request *request;

    MHP_RETURN_IF_ERROR(mhp_mpi_begin(call->comm, status, "share", call->comm->event, &operation));
    MHP_TRY(out, mhp_mpi_room(call->comm, operation, &request));
    MHP_TRY(out, mhp_mpi_check(MPI_Iallgather(call->own, call->bytes, MPI_BYTE, call->all, call->bytes, MPI_BYTE, call->comm->agreement,
                                              request),
                               "share"));
    mhp_mpi_added(call->comm, operation, 0);
out:
    mhp_mpi_launch(call->comm, operation, status);
    return MHP_OK;
}

static mhp_status run_share(const share_call *call)
{
    MHP_RETURN_IF_ERROR(mhp_event_arm(call->comm->event));
    MHP_RETURN_IF_ERROR(mhp_stream_call_always(call->comm->stream, post_share, call, sizeof *call));
    return mhp_event_synchronize(call->comm->event, 0);
}

/* By way of memory of its own, which stays where the call was given up: MPI may still write to it when the caller has released his. */
mhp_status mhp_comm_share(mhp_comm *comm, const void *own, size_t bytes, void *all)
{
    share_call call = {.comm = comm, .bytes = (int)bytes};
    size_t all_bytes = bytes * (size_t)comm->size;
    char *memory;

    if (bytes > MHP_MPI_PART_BYTES_MAX / (size_t)comm->size) {
        return mhp_error_set(MHP_ERR_LIMIT, "cannot share %zu bytes among %d ranks: more than %d in all", bytes, comm->size,
                             MHP_MPI_PART_BYTES_MAX);
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&memory, all_bytes + bytes, 1));
    memcpy(memory + all_bytes, own, bytes);
    call.own = memory + all_bytes;
    call.all = memory;
    MHP_RETURN_IF_ERROR(run_share(&call));
    memcpy(all, memory, all_bytes);
    mhp_free(memory);
    return MHP_OK;
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
