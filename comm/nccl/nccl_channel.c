/* Channels over NCCL: a communicator for each, so that no message waits for one of another channel. */
#include <assert.h>
#include <stdio.h>

#include "comm/mpi/greeting.h"
#include "comm/nccl/nccl_link.h"
#include "comm/transport.h"
#include "core/memory.h"

enum { NAME_MAX_BYTES = 96, SENDER = 0, RECEIVER = 1, PEERS = 2, WARM_UP_BYTES = 256 };

typedef enum nccl_phase { PHASE_MEETING, PHASE_STARTING, PHASE_WARMING_UP, PHASE_CONNECTED } nccl_phase;

typedef struct nccl_channel {
    mhp_nccl_link link;
    mhp_device *device;
    mhp_channel_params params;
    char name[NAME_MAX_BYTES];
    mhp_stream *stream;
    mhp_event *met;                 /* the link's id was sent or is there */
    nccl_phase phase;
    void *warm_up;                  /* device memory */
    uint64_t messages;
} nccl_channel;

typedef struct move_call {
    nccl_channel *channel;
    void *memory;
    size_t bytes;
    bool waits;
} move_call;

static ncclResult_t move(const mhp_nccl_link *link, cudaStream_t stream, const void *argument)
{
    const move_call *call = argument;

    return link->rank == SENDER ? link->api->send(call->memory, call->bytes, ncclUint8, RECEIVER, link->comm, stream)
                                : link->api->receive(call->memory, call->bytes, ncclUint8, SENDER, link->comm, stream);
}

static mhp_status submit_move(void *native, const void *argument)
{
    const move_call *call = argument;
    mhp_nccl_link *link = &call->channel->link;
    mhp_status status = call->waits ? mhp_nccl_link_run(link, move, native, call) : mhp_nccl_link_start(link, move, native, call);

    return status < 0 ? status : MHP_OK;
}

/* The first message sets the ways up, and NCCL waits for both ends meanwhile: it is one that nobody needs, and not waited for. */
static mhp_status warm_up(nccl_channel *channel)
{
    move_call call = {channel, NULL, WARM_UP_BYTES, false};

    MHP_RETURN_IF_ERROR(mhp_device_alloc(channel->device, WARM_UP_BYTES, &channel->warm_up));
    call.memory = channel->warm_up;
    return mhp_stream_submit(channel->stream, submit_move, &call, sizeof call);
}

static mhp_status nccl_connect(void *state)
{
    nccl_channel *channel = state;
    mhp_status status = channel->phase == PHASE_MEETING ? mhp_event_query(channel->met) : mhp_nccl_link_poll(&channel->link);

    if (status != MHP_OK) {
        return status;
    }
    switch (++channel->phase) {
    case PHASE_STARTING:
        MHP_RETURN_IF_ERROR(mhp_nccl_link_begin(&channel->link));
        break;
    case PHASE_WARMING_UP:
        MHP_RETURN_IF_ERROR(warm_up(channel));
        break;
    default:
        return mhp_stream_synchronize(channel->stream);
    }
    return MHP_IN_PROGRESS;
}

static mhp_status pass(nccl_channel *channel, char *memory, int part, mhp_event *after)
{
    mhp_part range = mhp_part_of(&channel->params, part);
    move_call call = {channel, memory + range.offset, range.bytes, true};

    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(channel->stream, after));
    }
    return mhp_stream_submit(channel->stream, submit_move, &call, sizeof call);
}

static mhp_status nccl_send(void *state, const void *buffer, int slot, mhp_event *const *after, mhp_event *done)
{
    nccl_channel *channel = state;

    assert(slot >= 0 && slot < channel->params.slot_count);
    (void)slot;                         /* the receive that meets this send names it */
    channel->messages++;
    for (int p = 0; p < channel->params.parts; p++) {
        MHP_RETURN_IF_ERROR(pass(channel, (char *)(uintptr_t)buffer, p, after[p]));
    }
    return mhp_event_record(done, channel->stream);
}

static mhp_status nccl_receive(void *state, int slot, mhp_event *after, mhp_event *const *done)
{
    nccl_channel *channel = state;
    char *memory = (char *)channel->params.slots + (size_t)slot * channel->params.slot_stride;

    assert(slot >= 0 && slot < channel->params.slot_count);
    channel->messages++;
    for (int p = 0; p < channel->params.parts; p++) {
        MHP_RETURN_IF_ERROR(pass(channel, memory, p, p == 0 ? after : NULL));
        MHP_RETURN_IF_ERROR(mhp_event_record(done[p], channel->stream));
    }
    return MHP_OK;
}

static void nccl_close(void *state)
{
    nccl_channel *channel = state;
    bool met = !channel->met || mhp_event_synchronize(channel->met, 0) == MHP_OK;

    if (channel->stream) {
        (void)mhp_stream_synchronize(channel->stream);
    }
    mhp_nccl_link_close(&channel->link);
    mhp_stream_destroy(channel->stream);
    mhp_device_free(channel->device, channel->warm_up);
    if (met) {                          /* else MPI may still write to it, and complete the event */
        mhp_event_destroy(channel->met);
        mhp_free(channel);
    }
}

static mhp_status greet(nccl_channel *channel, mhp_comm *comm)
{
    mhp_mpi_greeting greeting = {.comm = comm, .name = channel->name, .id = channel->params.id, .source = channel->params.source,
                                 .target = channel->params.target, .data = &channel->link.id, .bytes = (int)sizeof channel->link.id,
                                 .done = channel->met};

    return mhp_mpi_greet(&greeting);
}

static mhp_status nccl_open(mhp_comm *comm, const mhp_channel_params *params, void **state_out)
{
    mhp_status status = MHP_OK;
    nccl_channel *channel = NULL;

    MHP_TRY(out, mhp_calloc(&channel, 1, sizeof *channel));
    channel->device = mhp_comm_device(comm);
    channel->params = *params;
    snprintf(channel->name, sizeof channel->name, "%s", params->name);
    channel->params.name = channel->name;
    channel->link.size = PEERS;
    channel->link.rank = params->source == mhp_comm_rank(comm) ? SENDER : RECEIVER;
    MHP_TRY(out, mhp_nccl_link_init(&channel->link, comm, channel->name));
    if (channel->link.rank == SENDER) {
        MHP_TRY(out, mhp_nccl_link_make_id(&channel->link));
    }
    MHP_TRY(out, mhp_stream_create(channel->device, MHP_STREAM_COPY, MHP_PRIORITY_HIGH, channel->name, &channel->stream));
    MHP_TRY(out, mhp_event_create(channel->device, &channel->met));
    MHP_TRY(out, greet(channel, comm));
    *state_out = channel;
    channel = NULL;
out:
    if (channel) {
        nccl_close(channel);
    }
    return status;
}

static void nccl_stats(const void *state, mhp_channel_stats *stats_out)
{
    const nccl_channel *channel = state;

    *stats_out = (mhp_channel_stats){.messages = channel->messages, .bytes = channel->messages * channel->params.slot_bytes};
}

static const mhp_transport nccl_transport = {
    .name = "nccl",
    .open = nccl_open,
    .close = nccl_close,
    .leave = mhp_nccl_leave,
    .connect = nccl_connect,
    .send = nccl_send,
    .receive = nccl_receive,
    .stats = nccl_stats,
};

const mhp_transport *mhp_transport_nccl(void)
{
    return mhp_nccl_find() ? &nccl_transport : NULL;
}
