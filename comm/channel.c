#include "comm/channel.h"

#include <assert.h>

#include "comm/transport.h"
#include "core/memory.h"

struct mhp_channel {
    const mhp_transport *transport;
    void *state;
};

mhp_status mhp_channel_open(mhp_comm *comm, const mhp_channel_params *params, mhp_channel **channel_out)
{
    mhp_status status = MHP_OK;
    mhp_channel *channel = NULL;

    assert(params->slot_count > 0 && params->source != params->target);
    MHP_TRY(out, mhp_calloc(&channel, 1, sizeof *channel));
    channel->transport = &mhp_transport_mpi;
    MHP_TRY(out, channel->transport->open(comm, params, &channel->state));
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

mhp_status mhp_channel_send(mhp_channel *channel, const void *buffer, int slot, mhp_event *after, mhp_event *done)
{
    return channel->transport->send(channel->state, buffer, slot, after, done);
}

mhp_status mhp_channel_receive(mhp_channel *channel, int slot, mhp_event *after, mhp_event *done)
{
    return channel->transport->receive(channel->state, slot, after, done);
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
