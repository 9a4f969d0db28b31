#include "comm/mpi/greeting.h"

#include "comm/mpi/engine.h"

static mhp_status post_greeting(mhp_status status, const void *argument)
{
    const mhp_mpi_greeting *greeting = argument;
    mhp_comm *comm = greeting->comm;
    mhp_mpi_operation *operation = NULL;
    MPI_Request *request;
    int code;

    MHP_RETURN_IF_ERROR(mhp_mpi_begin(comm, status, greeting->name, greeting->done, &operation));
    operation->receives = greeting->target == comm->rank;
    MHP_TRY(out, mhp_mpi_room(comm, operation, &request));
    code = operation->receives
               ? MPI_Irecv(greeting->data, greeting->bytes, MPI_BYTE, greeting->source, greeting->id, comm->channels, request)
               : MPI_Isend(greeting->data, greeting->bytes, MPI_BYTE, greeting->target, greeting->id, comm->channels, request);
    MHP_TRY(out, mhp_mpi_check(code, greeting->name));
    mhp_mpi_added(comm, operation, greeting->bytes);
out:
    mhp_mpi_launch(comm, operation, status);
    return MHP_OK;
}

mhp_status mhp_mpi_greet(const mhp_mpi_greeting *greeting)
{
    MHP_RETURN_IF_ERROR(mhp_event_arm(greeting->done));
    return mhp_stream_call_always(greeting->comm->stream, post_greeting, greeting, sizeof *greeting);
}
