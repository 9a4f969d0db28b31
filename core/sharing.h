/* What processes of one host share: device memory, and words that streams write and await without a thread of the host.
 *
 * Backends that can: CUDA, and the test backend, on which tests of all this need no card. Others return MHP_ERR_UNSUPPORTED. Functions
 * are the host thread's if not said otherwise. */
#ifndef MHP_CORE_SHARING_H
#define MHP_CORE_SHARING_H

#include "core/device.h"

enum { MHP_SHARED_NAME_BYTES = 80, MHP_CARD_ID_BYTES = 16 };

/* What another process needs to find an allocation; plain bytes, to be sent. Equal for all pointers into one allocation. */
typedef struct mhp_shared_name {
    unsigned char bytes[MHP_SHARED_NAME_BYTES];
} mhp_shared_name;

bool mhp_device_can_share(const mhp_device *device);
/* The same 16 bytes for every device of one card, on its host; zeros where there is none. */
void mhp_device_card_id(mhp_device *device, unsigned char id_out[MHP_CARD_ID_BYTES]);

/* Whether mhp_device_alloc gave the memory that holds `pointer`. */
bool mhp_device_owns(const mhp_device *device, const void *pointer);
/* The name of the allocation (mhp_device_alloc) that holds `pointer`, and how far into it that is. */
mhp_status mhp_device_share(mhp_device *device, const void *pointer, mhp_shared_name *name_out, size_t *offset_out);
/* The start of another process's allocation, in this one; to be detached as often as attached. Streams copy to
 * and from it. It stays valid when its owner ends. */
mhp_status mhp_device_attach(mhp_device *device, const mhp_shared_name *name, void **pointer_out);
void mhp_device_detach(mhp_device *device, void *pointer);

/* A count that only grows, modulo 2^32; "reached" compares by the sign of the difference. It lies in host memory that the processes
 * map and each of them has pinned. */
typedef _Atomic uint32_t mhp_word;

static inline bool mhp_word_has_reached(mhp_word *word, uint32_t value)
{
    return (int32_t)(*word - value) >= 0;
}

/* Lets streams of the device reach the words in host memory that was mapped otherwise; whole pages. Unpin before it is unmapped. */
mhp_status mhp_device_pin(mhp_device *device, void *memory, size_t bytes);
void mhp_device_unpin(mhp_device *device, void *memory);

/* Appends: *word = value, after all earlier items of the stream and visible to all processes behind what these wrote. Compute and copy
 * streams alone, here and below. */
mhp_status mhp_stream_write_word(mhp_stream *stream, mhp_word *word, uint32_t value);
/* Makes later items wait until the word has reached `value`. */
mhp_status mhp_stream_await_word(mhp_stream *stream, mhp_word *word, uint32_t value);
/* Makes the event stand for "the word has reached `value`", as a record or an arm would: who waits for it from now on waits for the word
 * itself. A record before it must be complete when an arm comes after it. Such an event has no time. Poison completes it, but does not
 * write the word. */
mhp_status mhp_event_follow(mhp_event *event, mhp_word *word, uint32_t value);

#endif
