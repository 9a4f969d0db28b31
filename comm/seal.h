/* Seals: checksums that messages carry behind their bytes, set by the sender and checked by the receiver.
 *
 * They go through channels as part of the message, so they hold over every transport, and from the memory that the sender filled to the
 * memory that the receiver reads. The comm thread sums up; where memory is a card's, the bytes are copied to the host for that. */
#ifndef MHP_COMM_SEAL_H
#define MHP_COMM_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "core/device.h"

enum { MHP_SEAL_BYTES = 64 };

/* A message with its seal: the room that a slot needs. */
static inline size_t mhp_sealed_bytes(size_t message_bytes)
{
    return (message_bytes + MHP_SEAL_BYTES - 1) / MHP_SEAL_BYTES * MHP_SEAL_BYTES + MHP_SEAL_BYTES;
}

typedef struct mhp_seals mhp_seals;

typedef struct mhp_seals_params {
    mhp_device *device;
    const char *name;               /* of the channel, for errors; copied */
    size_t message_bytes;           /* without the seal */
    int slot_count;                 /* of the receiver */
    /* What a message's label, which both ends know, stands for: "step 3, micro-batch 2". */
    void (*describe)(uint64_t label, char *text, size_t size);
} mhp_seals_params;

/* One for each end of a channel. Destroying waits for what is under way; NULL is allowed. */
mhp_status mhp_seals_create(const mhp_seals_params *params, mhp_seals **seals_out);
void mhp_seals_destroy(mhp_seals *seals);

/* Source: sums up a message once `after` is complete, and puts the seal behind it. *sealed_out, which the message is to be sent behind,
 * stands for this seal until the next one is asked for. */
mhp_status mhp_seals_set(mhp_seals *seals, void *message, uint64_t label, mhp_event *after, mhp_event **sealed_out);

/* Target: the event that the channel completes when a message is in the slot. */
mhp_event *mhp_seals_landed(const mhp_seals *seals, int slot);
/* Target, behind the receive into that slot: completes `done` when the message is there and is what was sealed, and else with
 * MHP_ERR_COMM, which names channel and message. */
mhp_status mhp_seals_check(mhp_seals *seals, void *message, int slot, uint64_t label, mhp_event *done);

/* For tests: called on the receiver with the bytes of every sealed message before they are checked, on the comm thread. NULL removes
 * it. */
typedef void (*mhp_message_fault_fn)(void *context, const char *name, uint64_t label, void *bytes, size_t size);
void mhp_seals_set_fault(mhp_message_fault_fn fault, void *context);

#endif
