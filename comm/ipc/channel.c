/* Channels within one host: the copy engine moves a message from the sender's buffer straight into the receiver's slot, and two words
 * say which slot is free and which is full. Streams write and await the words; no thread of the host and no multiprocessor takes part.
 *
 * The receiver's k-th receive writes k to the word `free`, which the sender's stream awaits; behind its copy that writes k to `full`,
 * which the receiver's streams await. Both words are the receiver's. Of messages in parts, k counts the parts in `full`. */
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>

#include "comm/edges_internal.h"
#include "comm/mpi/greeting.h"
#include "comm/transport.h"
#include "core/memory.h"

/* The count begins just below where it wraps around, so that every run passes there. */
static const uint32_t FIRST_SEQUENCE = UINT32_MAX - 20;

/* How far poison sets a word ahead: whatever a stream awaits has been reached then. */
enum { NAME_MAX_BYTES = 96, AHEAD = 1 << 30 };

/* What the sender must know of the receiver. */
typedef struct slots_card {
    mhp_shared_name memory;
    size_t offset, stride;
    int free_word, full_word;
} slots_card;

typedef struct ipc_channel {
    mhp_watch watch;
    mhp_comm *comm;
    mhp_node *node;
    mhp_device *device;
    mhp_channel_params params;
    char name[NAME_MAX_BYTES];
    bool sends;
    mhp_stream *stream;
    mhp_event *met;                 /* the card was sent or is there */
    slots_card card;
    char *slots;                    /* in this process */
    void *attached;                 /* sender: the receiver's memory */
    mhp_word *is_free, *is_full;
    bool watched, has_words;
    /* What the words will be when all that was asked for is done. */
    _Atomic uint32_t free_count, full_count;
    uint64_t messages;
} ipc_channel;

/* Receiver: the words, and the card that names them. */
static mhp_status prepare_slots(ipc_channel *channel)
{
    slots_card *card = &channel->card;
    int rank = channel->params.target;

    MHP_RETURN_IF_ERROR(mhp_device_share(channel->device, channel->params.slots, &card->memory, &card->offset));
    card->stride = channel->params.slot_stride;
    MHP_RETURN_IF_ERROR(mhp_node_take_word(channel->node, FIRST_SEQUENCE, &card->free_word));
    MHP_RETURN_IF_ERROR(mhp_node_take_word(channel->node, FIRST_SEQUENCE, &card->full_word));
    channel->has_words = true;
    channel->is_free = mhp_node_word(channel->node, rank, card->free_word);
    channel->is_full = mhp_node_word(channel->node, rank, card->full_word);
    channel->slots = channel->params.slots;
    return MHP_OK;
}

/* Nobody may ever write what this end's streams await: they are let go. The other end, still alive, may yet write what it has under way,
 * below that; the next look mends it. */
static void let_go(mhp_watch *watch, bool failed)
{
    ipc_channel *channel = (ipc_channel *)(void *)watch;

    if (failed) {
        if (channel->sends) {
            atomic_store(channel->is_free, atomic_load(&channel->free_count) + AHEAD);
        } else {
            atomic_store(channel->is_full, atomic_load(&channel->full_count) + AHEAD);
        }
    }
}

static void watch(ipc_channel *channel)
{
    channel->watch.look = let_go;
    mhp_edges_watch(channel->comm, &channel->watch);
    channel->watched = true;
}

static mhp_status ipc_connect(void *state)
{
    ipc_channel *channel = state;
    const slots_card *card = &channel->card;
    mhp_status status = mhp_event_query(channel->met);

    if (status != MHP_OK || !channel->sends) {
        return status < 0 ? mhp_error_prefix(status, "%s: ", channel->name) : status;
    }
    status = mhp_device_attach(channel->device, &card->memory, &channel->attached);
    if (status < 0) {
        return mhp_error_prefix(status, "%s: ", channel->name);
    }
    channel->slots = (char *)channel->attached + card->offset;
    channel->is_free = mhp_node_word(channel->node, channel->params.target, card->free_word);
    channel->is_full = mhp_node_word(channel->node, channel->params.target, card->full_word);
    watch(channel);
    return MHP_OK;
}

static uint32_t next(_Atomic uint32_t *count)
{
    return atomic_fetch_add(count, 1) + 1;
}

static mhp_status send_part(ipc_channel *channel, const char *buffer, char *target, mhp_part part, mhp_event *after)
{
    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(channel->stream, after));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_copy(channel->stream, target + part.offset, buffer + part.offset, part.bytes));
    return mhp_stream_write_word(channel->stream, channel->is_full, next(&channel->full_count));
}

static mhp_status ipc_send(void *state, const void *buffer, int slot, mhp_event *const *after, mhp_event *done)
{
    ipc_channel *channel = state;
    char *target = channel->slots + (size_t)slot * channel->card.stride;

    assert(slot >= 0 && slot < channel->params.slot_count);
    channel->messages++;
    if (after[0]) {                     /* nothing of the channel's stream stands behind the slot before there is something to send */
        MHP_RETURN_IF_ERROR(mhp_stream_wait(channel->stream, after[0]));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_await_word(channel->stream, channel->is_free, next(&channel->free_count)));
    for (int p = 0; p < channel->params.parts; p++) {
        MHP_RETURN_IF_ERROR(send_part(channel, buffer, target, mhp_part_of(&channel->params, p), p > 0 ? after[p] : NULL));
    }
    return mhp_event_record(done, channel->stream);
}

static mhp_status ipc_receive(void *state, int slot, mhp_event *after, mhp_event *const *done)
{
    ipc_channel *channel = state;

    assert(slot >= 0 && slot < channel->params.slot_count);
    (void)slot;                         /* the send that meets this receive names it */
    channel->messages++;
    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(channel->stream, after));
    }
    MHP_RETURN_IF_ERROR(mhp_stream_write_word(channel->stream, channel->is_free, next(&channel->free_count)));
    for (int p = 0; p < channel->params.parts; p++) {
        MHP_RETURN_IF_ERROR(mhp_event_follow(done[p], channel->is_full, next(&channel->full_count)));
    }
    return MHP_OK;
}

static void ipc_close(void *state)
{
    ipc_channel *channel = state;
    bool met = !channel->met || mhp_event_synchronize(channel->met, 0) == MHP_OK;

    if (channel->stream) {
        (void)mhp_stream_synchronize(channel->stream);
    }
    if (channel->watched) {
        mhp_edges_unwatch(channel->comm, &channel->watch);
    }
    mhp_device_detach(channel->device, channel->attached);
    if (channel->has_words) {
        mhp_node_give_word(channel->node, channel->card.free_word);
        mhp_node_give_word(channel->node, channel->card.full_word);
    }
    if (met) {                          /* else MPI may still write to it, and complete the event */
        mhp_event_destroy(channel->met);
        mhp_free(channel);
    }
}

static mhp_status greet(ipc_channel *channel, mhp_comm *comm)
{
    mhp_mpi_greeting greeting = {.comm = comm, .name = channel->name, .id = channel->params.id, .source = channel->params.target,
                                 .target = channel->params.source, .data = &channel->card, .bytes = (int)sizeof channel->card,
                                 .done = channel->met};

    return mhp_mpi_greet(&greeting);
}

static mhp_status ipc_open(mhp_comm *comm, const mhp_channel_params *params, void **state_out)
{
    mhp_status status = MHP_OK;
    ipc_channel *channel = NULL;

    MHP_TRY(out, mhp_calloc(&channel, 1, sizeof *channel));
    channel->comm = comm;
    channel->node = mhp_comm_node(comm);
    channel->device = mhp_comm_device(comm);
    channel->params = *params;
    channel->sends = params->source == mhp_comm_rank(comm);
    atomic_init(&channel->free_count, FIRST_SEQUENCE);
    atomic_init(&channel->full_count, FIRST_SEQUENCE);
    snprintf(channel->name, sizeof channel->name, "%s", params->name);
    channel->params.name = channel->name;
    MHP_TRY(out, mhp_node_stream(channel->node, channel->sends, &channel->stream));
    if (!channel->sends) {
        MHP_TRY(out, prepare_slots(channel));
        watch(channel);
    }
    MHP_TRY(out, mhp_event_create(channel->device, &channel->met));
    MHP_TRY(out, greet(channel, comm));
    *state_out = channel;
    channel = NULL;
out:
    if (channel) {
        ipc_close(channel);
    }
    return mhp_error_prefix(status, "%s: ", params->name);
}

static void ipc_stats(const void *state, mhp_channel_stats *stats_out)
{
    const ipc_channel *channel = state;

    *stats_out = (mhp_channel_stats){.messages = channel->messages, .bytes = channel->messages * channel->params.slot_bytes};
}

const mhp_transport mhp_transport_ipc = {
    .name = "ipc",
    .open = ipc_open,
    .close = ipc_close,
    .connect = ipc_connect,
    .send = ipc_send,
    .receive = ipc_receive,
    .stats = ipc_stats,
};
