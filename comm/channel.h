/* Channels: ordered, slotted messages from one rank to another, without blocking the host.
 *
 * One channel carries one kind of message in one direction: its k-th send meets its k-th receive. Both ends open it with the same
 * `id`. The receiver owns `slot_count` slots of `slot_bytes` bytes, `slot_stride` apart from `slots` on; a message lands straight in
 * its slot, which both ends know from the plan. It may go in parts, one behind the other, each as soon as it is there. */
#ifndef MHP_COMM_CHANNEL_H
#define MHP_COMM_CHANNEL_H

#include "comm/comm.h"

typedef struct mhp_channel mhp_channel;

enum { MHP_CHANNEL_PARTS_MAX = 16 };

typedef struct mhp_channel_params {
    const char *name;           /* for errors and traces: "state 2->3" */
    int id;                     /* unique in the world, 0 .. 32767 */
    int source, target;         /* world ranks; they differ */
    size_t slot_bytes;          /* of one message; any size, also beyond 2 GiB */
    int slot_count;
    void *slots;                /* on the target: device memory; NULL on the source */
    size_t slot_stride;
    int parts;                  /* of a message, at most MHP_CHANNEL_PARTS_MAX; 0: one. Both ends alike */
    size_t part_bytes;          /* of every part but the last, which has the rest; of one part ignored */
} mhp_channel_params;

/* On both ranks, in any order; nobody waits. Close when no message is under way; NULL is allowed. */
mhp_status mhp_channel_open(mhp_comm *comm, const mhp_channel_params *params, mhp_channel **channel_out);
void mhp_channel_close(mhp_channel *channel);
/* Waits until the other ends of these channels are open as well and messages can go. Both ranks; optional: the first send or receive does
 * it for its channel. Call it when all channels that a rank needs are open: the other ends may wait likewise. */
mhp_status mhp_channels_connect(mhp_channel *const *channels, size_t count);
/* "ipc", "nccl" or "mpi". */
const char *mhp_channel_transport(const mhp_channel *channel);

/* Of a channel whose messages have one part.
 * Source: sends slot_bytes bytes from `buffer` into slot `slot` of the target once `after` (NULL: at once) is complete. `done`
 * completes when the buffer may be written again. */
mhp_status mhp_channel_send(mhp_channel *channel, const void *buffer, int slot, mhp_event *after, mhp_event *done);
/* Target: posts the receive into `slot` once `after` (NULL: at once) says that the slot is free. `done` completes when the message
 * is there. */
mhp_status mhp_channel_receive(mhp_channel *channel, int slot, mhp_event *after, mhp_event *done);

/* The same for a message in parts: one event each, in order. `done` of a send comes behind all parts, and is none of `after`. */
mhp_status mhp_channel_send_parts(mhp_channel *channel, const void *buffer, int slot, mhp_event *const *after, mhp_event *done);
mhp_status mhp_channel_receive_parts(mhp_channel *channel, int slot, mhp_event *after, mhp_event *const *done);

/* Source, for injected faults: the next message that is sent leaves with a bit flipped, behind whatever checks it on this rank. Does
 * nothing where the transport cannot. */
void mhp_channel_corrupt(mhp_channel *channel);

/* Totals since the channel was opened, for reports: messages, bytes, and nanoseconds between posting and completion, 0 where no thread of
 * the host takes part. */
typedef struct mhp_channel_stats { uint64_t messages, bytes, wait_ns; } mhp_channel_stats;
void mhp_channel_get_stats(const mhp_channel *channel, mhp_channel_stats *stats_out);

#endif
