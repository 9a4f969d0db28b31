/* Channels over MPI: messages go from the sender's buffer straight into the receiver's slot, or, where memory is a card's, by way of the
 * host. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "comm/mpi/lane.h"
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
    mhp_event *arrived[MHP_STAGING_BUFFERS][MHP_CHANNEL_PARTS_MAX];     /* staged receives: a part is in its buffer */
    mhp_mpi_lane lane;
    mhp_mpi_operation *sending;     /* the comm thread's: the message whose parts are on their way; NULL behind a failure */
    uint64_t sent;                  /* messages; the host thread's */
    atomic_uint_fast64_t corrupted; /* the message, from 1, whose bit is flipped; 0: none */
    atomic_uint_fast64_t messages, bytes, wait_ns;
} mpi_channel;

/* One part of a message. */
typedef struct transfer_call {
    mpi_channel *channel;
    char *buffer;                   /* of the whole message */
    int part;
    mhp_event *done;                /* of a receive: of this part; of a send: of all */
    bool receives;
} transfer_call;

static int post_piece(const mhp_mpi_job *job, char *data, int count, MPI_Request *request)
{
    const mpi_channel *channel;
    int id;

    memcpy(&channel, job->argument, sizeof channel);
    id = channel->params.id;
    if (job->operation->receives) {
        return MPI_Irecv(data, count, MPI_BYTE, channel->params.source, id, channel->comm->channels, request);
    }
    return MPI_Isend(data, count, MPI_BYTE, channel->params.target, id, channel->comm->channels, request);
}

static mhp_status post_part(const transfer_call *call, mhp_mpi_operation *operation)
{
    mpi_channel *channel = call->channel;
    mhp_part part = mhp_part_of(&channel->params, call->part);
    mhp_mpi_job job = {.operation = operation, .post = post_piece, .data = call->buffer + part.offset, .unit_bytes = 1,
                       .left = (int64_t)part.bytes, .first = MHP_MPI_HEAD_BYTES, .piece = MHP_MPI_PIECE_BYTES};

    memcpy(job.argument, &channel, sizeof channel);
    return part.bytes > 0 ? mhp_mpi_enqueue(channel->comm, &channel->lane, &job) : MHP_OK;
}

/* A send is one operation from its first part to its last, for MPI may be done with parts in any order; a receive is one a part. A stream
 * that fails between two parts ends the operation that the first one began. */
static mhp_status post_transfer(mhp_status status, const void *argument)
{
    const transfer_call *call = argument;
    mpi_channel *channel = call->channel;
    mhp_mpi_operation *received = NULL;
    mhp_mpi_operation **operation = call->receives ? &received : &channel->sending;
    bool first = call->part == 0, last = call->part + 1 == channel->params.parts;

    if (call->receives || first) {
        MHP_RETURN_IF_ERROR(mhp_mpi_begin(channel->comm, status, channel->name, call->done, operation));
        (*operation)->receives = call->receives;
        (*operation)->wait_ns = last ? &channel->wait_ns : NULL;
    } else if (!*operation) {
        return status;
    }
    if (first && atomic_load(&channel->corrupted) == atomic_load(&channel->messages) + 1) {
        call->buffer[0] ^= 1;
    }
    status = status < 0 ? status : post_part(call, *operation);
    if (call->receives || last || status < 0) {
        mhp_mpi_launch(channel->comm, *operation, status);
        *operation = NULL;
    }
    if (last) {
        atomic_fetch_add(&channel->messages, 1);
        atomic_fetch_add(&channel->bytes, channel->params.slot_bytes);
    }
    return MHP_OK;
}

/* The arm of `done`, where the call is the first for it, comes behind the wait: `after` may be the same event. A stream that says that it
 * has failed takes the call all the same, which ends what the parts before began. */
static mhp_status transfer(mpi_channel *channel, const transfer_call *call, mhp_event *after)
{
    mhp_status waited = after ? mhp_stream_wait(channel->stream, after) : MHP_OK;
    mhp_status called;

    if (call->receives || call->part == 0) {
        MHP_RETURN_IF_ERROR(mhp_event_arm(call->done));
    }
    called = mhp_stream_call_always(channel->stream, post_transfer, call, sizeof *call);
    return waited < 0 ? waited : called;
}

static mhp_status copy_part(mpi_channel *channel, mhp_stream *copies, char *target, const char *source, int part)
{
    mhp_part range = mhp_part_of(&channel->params, part);

    return mhp_stream_copy(copies, target + range.offset, source + range.offset, range.bytes);
}

/* `done` says that the buffer was read; the message may leave later. */
static mhp_status send_staged(mpi_channel *channel, const char *buffer, mhp_event *const *after, mhp_event *done)
{
    mhp_stream *copies = channel->staging.stream;
    mhp_staging_buffer *staged = mhp_staging_take(&channel->staging);
    transfer_call call = {.channel = channel, .buffer = staged->memory, .done = staged->moved, .receives = false};

    MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, staged->moved));        /* what it held before has left */
    for (int p = 0; p < channel->params.parts; p++) {
        if (after[p]) {
            MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, after[p]));
        }
        MHP_RETURN_IF_ERROR(copy_part(channel, copies, staged->memory, buffer, p));
        MHP_RETURN_IF_ERROR(mhp_event_record(staged->copied, copies));
        call.part = p;
        MHP_RETURN_IF_ERROR(transfer(channel, &call, staged->copied));
    }
    return mhp_event_record(done, copies);
}

/* The message may come before its slot is free. All parts are asked for before the first is awaited. */
static mhp_status receive_staged(mpi_channel *channel, char *slot, mhp_event *after, mhp_event *const *done)
{
    mhp_stream *copies = channel->staging.stream;
    mhp_staging_buffer *staged = mhp_staging_take(&channel->staging);
    mhp_event **arrived = channel->arrived[staged - channel->staging.buffers];
    transfer_call call = {.channel = channel, .buffer = staged->memory, .receives = true};

    for (int p = 0; p < channel->params.parts; p++) {
        call.part = p;
        call.done = arrived[p];
        MHP_RETURN_IF_ERROR(transfer(channel, &call, p == 0 ? staged->copied : NULL));      /* what it held before is in its slot */
    }
    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, after));
    }
    for (int p = 0; p < channel->params.parts; p++) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, arrived[p]));
        MHP_RETURN_IF_ERROR(copy_part(channel, copies, slot, staged->memory, p));
        MHP_RETURN_IF_ERROR(mhp_event_record(done[p], copies));
    }
    return mhp_event_record(staged->copied, copies);
}

static mhp_status mpi_send(void *state, const void *buffer, int slot, mhp_event *const *after, mhp_event *done)
{
    mpi_channel *channel = state;
    transfer_call call = {.channel = channel, .buffer = (char *)(uintptr_t)buffer, .done = done, .receives = false};

    assert(slot >= 0 && slot < channel->params.slot_count);
    (void)slot;                         /* the receive that meets this send names it */
    channel->sent++;
    if (channel->staged) {
        return send_staged(channel, buffer, after, done);
    }
    for (; call.part < channel->params.parts; call.part++) {
        MHP_RETURN_IF_ERROR(transfer(channel, &call, after[call.part]));
    }
    return MHP_OK;
}

static mhp_status mpi_receive(void *state, int slot, mhp_event *after, mhp_event *const *done)
{
    mpi_channel *channel = state;
    transfer_call call = {.channel = channel, .receives = true};

    assert(slot >= 0 && slot < channel->params.slot_count);
    call.buffer = (char *)channel->params.slots + (size_t)slot * channel->params.slot_stride;
    if (channel->staged) {
        return receive_staged(channel, call.buffer, after, done);
    }
    for (; call.part < channel->params.parts; call.part++) {
        call.done = done[call.part];
        MHP_RETURN_IF_ERROR(transfer(channel, &call, call.part == 0 ? after : NULL));
    }
    return MHP_OK;
}

static void mpi_close(void *state)
{
    mpi_channel *channel = state;

    if (!mhp_mpi_lane_settle(channel->comm, channel->stream, &channel->lane)) {
        return;
    }
    mhp_stream_destroy(channel->stream);
    mhp_staging_close(&channel->staging);
    for (int i = 0; i < MHP_STAGING_BUFFERS; i++) {
        for (int p = 0; p < MHP_CHANNEL_PARTS_MAX; p++) {
            mhp_event_destroy(channel->arrived[i][p]);
        }
    }
    mhp_free(channel);
}

static mhp_status open_staging(mpi_channel *channel, mhp_device *device)
{
    MHP_RETURN_IF_ERROR(mhp_staging_open(&channel->staging, device, channel->name, channel->params.slot_bytes));
    for (int i = 0; i < MHP_STAGING_BUFFERS; i++) {
        for (int p = 0; p < channel->params.parts; p++) {
            MHP_RETURN_IF_ERROR(mhp_event_create(device, &channel->arrived[i][p]));
        }
    }
    return MHP_OK;
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
        MHP_TRY(out, open_staging(channel, mhp_comm_device(comm)));
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
