/* Channels over MPI: messages go from the sender's buffer straight into the receiver's slot, or, where memory is a card's, by way of the
 * host. */
#include <assert.h>
#include <stdio.h>

#include "comm/mpi/engine.h"
#include "comm/mpi/staging.h"
#include "comm/transport.h"
#include "core/memory.h"

enum { NAME_MAX_BYTES = 96 };

typedef struct mpi_channel {
    mhp_comm *comm;
    mhp_channel_params params;
    char name[NAME_MAX_BYTES];
    mhp_stream *stream;
    bool staged;
    mhp_staging staging;            /* if staged */
    uint64_t sent;                  /* messages; the host thread's */
    atomic_uint_fast64_t corrupted; /* the message, from 1, whose bit is flipped; 0: none */
    atomic_uint_fast64_t messages, bytes, wait_ns;
} mpi_channel;

typedef struct transfer_call {
    mpi_channel *channel;
    char *buffer;
    mhp_event *done;
    bool receives;
} transfer_call;

static mhp_status post_part(const transfer_call *call, mhp_mpi_operation *operation, size_t offset, int bytes)
{
    const mpi_channel *channel = call->channel;
    mhp_comm *comm = channel->comm;
    MPI_Request *request;
    int code;

    MHP_RETURN_IF_ERROR(mhp_mpi_room(comm, operation, &request));
    if (call->receives) {
        code = MPI_Irecv(call->buffer + offset, bytes, MPI_BYTE, channel->params.source, channel->params.id, comm->channels, request);
    } else {
        code = MPI_Isend(call->buffer + offset, bytes, MPI_BYTE, channel->params.target, channel->params.id, comm->channels, request);
    }
    MHP_RETURN_IF_ERROR(mhp_mpi_check(code, channel->name));
    mhp_mpi_added(comm, operation, bytes);
    return MHP_OK;
}

static mhp_status post_transfer(void *native, const void *argument)
{
    const transfer_call *call = argument;
    mpi_channel *channel = call->channel;
    mhp_status status = MHP_OK;
    mhp_mpi_operation *operation = NULL;

    (void)native;
    MHP_RETURN_IF_ERROR(mhp_mpi_begin(channel->comm, channel->name, call->done, &operation));
    operation->receives = call->receives;
    operation->wait_ns = &channel->wait_ns;
    if (atomic_load(&channel->corrupted) == atomic_load(&channel->messages) + 1) {
        call->buffer[0] ^= 1;
    }
    for (size_t offset = 0; offset < channel->params.slot_bytes; offset += MHP_MPI_PART_BYTES_MAX) {
        size_t rest = channel->params.slot_bytes - offset;

        MHP_TRY(out, post_part(call, operation, offset, (int)(rest < MHP_MPI_PART_BYTES_MAX ? rest : MHP_MPI_PART_BYTES_MAX)));
    }
    atomic_fetch_add(&channel->messages, 1);
    atomic_fetch_add(&channel->bytes, channel->params.slot_bytes);
out:
    mhp_mpi_launch(channel->comm, operation, status);
    return MHP_OK;
}

static mhp_status transfer(mpi_channel *channel, const transfer_call *call, mhp_event *after)
{
    if (after) {                        /* before the arm: `after` may be the same event */
        MHP_RETURN_IF_ERROR(mhp_stream_wait(channel->stream, after));
    }
    MHP_RETURN_IF_ERROR(mhp_event_arm(call->done));
    return mhp_stream_host_call(channel->stream, post_transfer, call, sizeof *call);
}

/* `done` says that the buffer was read; the message may leave later. */
static mhp_status send_staged(mpi_channel *channel, const void *buffer, mhp_event *after, mhp_event *done)
{
    mhp_stream *copies = channel->staging.stream;
    mhp_staging_buffer *staged = mhp_staging_take(&channel->staging);
    transfer_call call = {.channel = channel, .buffer = staged->memory, .done = staged->moved, .receives = false};

    MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, staged->moved));        /* what it held before has left */
    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, after));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_copy(copies, staged->memory, buffer, channel->params.slot_bytes));
    MHP_RETURN_IF_ERROR(mhp_event_record(staged->copied, copies));
    MHP_RETURN_IF_ERROR(mhp_event_record(done, copies));
    return transfer(channel, &call, staged->copied);
}

/* The message may come before its slot is free. */
static mhp_status receive_staged(mpi_channel *channel, void *slot, mhp_event *after, mhp_event *done)
{
    mhp_stream *copies = channel->staging.stream;
    mhp_staging_buffer *staged = mhp_staging_take(&channel->staging);
    transfer_call call = {.channel = channel, .buffer = staged->memory, .done = staged->moved, .receives = true};

    MHP_RETURN_IF_ERROR(transfer(channel, &call, staged->copied));      /* what it held before is in its slot */
    MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, staged->moved));
    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, after));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_copy(copies, slot, staged->memory, channel->params.slot_bytes));
    MHP_RETURN_IF_ERROR(mhp_event_record(staged->copied, copies));
    return mhp_event_record(done, copies);
}

static mhp_status mpi_send(void *state, const void *buffer, int slot, mhp_event *after, mhp_event *done)
{
    mpi_channel *channel = state;
    transfer_call call = {.channel = channel, .buffer = (char *)(uintptr_t)buffer, .done = done, .receives = false};

    assert(slot >= 0 && slot < channel->params.slot_count);
    (void)slot;                         /* the receive that meets this send names it */
    channel->sent++;
    if (channel->staged) {
        return send_staged(channel, buffer, after, done);
    }
    return transfer(channel, &call, after);
}

static mhp_status mpi_receive(void *state, int slot, mhp_event *after, mhp_event *done)
{
    mpi_channel *channel = state;
    transfer_call call = {.channel = channel, .done = done, .receives = true};

    assert(slot >= 0 && slot < channel->params.slot_count);
    call.buffer = (char *)channel->params.slots + (size_t)slot * channel->params.slot_stride;
    if (channel->staged) {
        return receive_staged(channel, call.buffer, after, done);
    }
    return transfer(channel, &call, after);
}

static void mpi_close(void *state)
{
    mpi_channel *channel = state;

    mhp_stream_destroy(channel->stream);
    mhp_staging_close(&channel->staging);
    mhp_free(channel);
}

static mhp_status mpi_open(mhp_comm *comm, const mhp_channel_params *params, void **state_out)
{
    mhp_status status = MHP_OK;
    mpi_channel *channel = NULL;

    MHP_TRY(out, mhp_calloc(&channel, 1, sizeof *channel));
    channel->comm = comm;
    channel->params = *params;
    snprintf(channel->name, sizeof channel->name, "%s", params->name);
    channel->params.name = channel->name;
    channel->staged = mhp_staging_is_needed(mhp_comm_device(comm));
    if (channel->staged) {
        MHP_TRY(out, mhp_staging_open(&channel->staging, mhp_comm_device(comm), channel->name, params->slot_bytes));
    }
    MHP_TRY(out, mhp_stream_create(mhp_comm_device(comm), MHP_STREAM_COMM, MHP_PRIORITY_NORMAL, channel->name, &channel->stream));
    *state_out = channel;
    channel = NULL;
out:
    if (channel) {
        mpi_close(channel);
    }
    return status;
}

static void mpi_corrupt(void *state)
{
    mpi_channel *channel = state;

    atomic_store(&channel->corrupted, channel->sent + 1);
}

static void mpi_stats(const void *state, mhp_channel_stats *stats_out)
{
    mpi_channel *channel = (mpi_channel *)(uintptr_t)state;

    stats_out->messages = atomic_load(&channel->messages);
    stats_out->bytes = atomic_load(&channel->bytes);
    stats_out->wait_ns = atomic_load(&channel->wait_ns);
}

const mhp_transport mhp_transport_mpi = {
    .name = "mpi",
    .open = mpi_open,
    .close = mpi_close,
    .send = mpi_send,
    .receive = mpi_receive,
    .stats = mpi_stats,
    .corrupt = mpi_corrupt,
};
