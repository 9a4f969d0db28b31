#include "comm/channel.h"

#include <assert.h>
#include <time.h>

#include "comm/transport.h"
#include "core/memory.h"

enum { CONNECT_PAUSE_NS = 100000 };

struct mhp_channel {
    const mhp_transport *transport;
    void *state;
    bool connected;
    int parts;
};

static const mhp_transport *transport_of(mhp_transport_kind kind)
{
    switch (kind) {
    case MHP_TRANSPORT_IPC:
        return &mhp_transport_ipc;
    case MHP_TRANSPORT_NCCL:
        return mhp_transport_nccl();
    default:
        return &mhp_transport_mpi;
    }
}

mhp_status mhp_channel_open(mhp_comm *comm, const mhp_channel_params *params, mhp_channel **channel_out)
{
    mhp_status status = MHP_OK;
    mhp_channel *channel = NULL;
    mhp_channel_params whole = *params;

    whole.parts = params->parts > 0 ? params->parts : 1;
    assert(params->slot_count > 0 && params->source != params->target);
    assert(whole.parts <= MHP_CHANNEL_PARTS_MAX);
    assert(whole.parts == 1 || (size_t)(whole.parts - 1) * params->part_bytes < params->slot_bytes);
    MHP_TRY(out, mhp_calloc(&channel, 1, sizeof *channel));
    channel->transport = transport_of(mhp_comm_transport(comm, params->source, params->target));
    channel->connected = !channel->transport->connect;
    channel->parts = whole.parts;
    MHP_TRY(out, channel->transport->open(comm, &whole, &channel->state));
    *channel_out = channel;
    channel = NULL;
out:
    mhp_channel_close(channel);
    return status;
}

void mhp_channel_close(mhp_channel *channel)
{
    if (!channel) {
        return;
    }
    if (channel->state) {
        channel->transport->close(channel->state);
    }
    mhp_free(channel);
}

/* Asks each that is not connected once. */
static mhp_status connect_some(mhp_channel *const *channels, size_t count)
{
    mhp_status result = MHP_OK;

    for (size_t i = 0; i < count; i++) {
        mhp_status status = channels[i]->connected ? MHP_OK : channels[i]->transport->connect(channels[i]->state);

        MHP_RETURN_IF_ERROR(status);
        channels[i]->connected = status == MHP_OK;
        result = status == MHP_OK ? result : status;
    }
    return result;
}

mhp_status mhp_channels_connect(mhp_channel *const *channels, size_t count)
{
    const struct timespec pause = {0, CONNECT_PAUSE_NS};
    mhp_status status;

    while ((status = connect_some(channels, count)) == MHP_IN_PROGRESS) {
        nanosleep(&pause, NULL);
    }
    return status;
}

const char *mhp_channel_transport(const mhp_channel *channel)
{
    return channel->transport->name;
}

mhp_status mhp_channel_send_parts(mhp_channel *channel, const void *buffer, int slot, mhp_event *const *after, mhp_event *done)
{
    if (!channel->connected) {
        MHP_RETURN_IF_ERROR(mhp_channels_connect(&channel, 1));
    }
    return channel->transport->send(channel->state, buffer, slot, after, done);
}

mhp_status mhp_channel_receive_parts(mhp_channel *channel, int slot, mhp_event *after, mhp_event *const *done)
{
    if (!channel->connected) {
        MHP_RETURN_IF_ERROR(mhp_channels_connect(&channel, 1));
    }
    return channel->transport->receive(channel->state, slot, after, done);
}

mhp_status mhp_channel_send(mhp_channel *channel, const void *buffer, int slot, mhp_event *after, mhp_event *done)
{
    assert(channel->parts == 1);
    return mhp_channel_send_parts(channel, buffer, slot, &after, done);
}

mhp_status mhp_channel_receive(mhp_channel *channel, int slot, mhp_event *after, mhp_event *done)
{
    assert(channel->parts == 1);
    return mhp_channel_receive_parts(channel, slot, after, &done);
}

void mhp_channel_get_stats(const mhp_channel *channel, mhp_channel_stats *stats_out)
{
    channel->transport->stats(channel->state, stats_out);
}

void mhp_channel_corrupt(mhp_channel *channel)
{
    if (channel->transport->corrupt) {
        channel->transport->corrupt(channel->state);
    }
}
