#include "core/sharing.h"

#include <string.h>

#include "core/device/backend.h"

static mhp_status refuse(void)
{
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "this device shares nothing with other processes");
}

bool mhp_device_can_share(const mhp_device *device)
{
    return device->kind != MHP_DEVICE_CPU && device->ops->sharing;
}

void mhp_device_card_id(mhp_device *device, unsigned char id_out[MHP_CARD_ID_BYTES])
{
    memset(id_out, 0, MHP_CARD_ID_BYTES);
    if (device->ops->sharing && device->ops->sharing->card_id) {
        device->ops->sharing->card_id(device, id_out);
    }
}

bool mhp_device_owns(const mhp_device *device, const void *pointer)
{
    return mhp_device_can_share(device) && device->ops->sharing->owns(device, pointer);
}

mhp_status mhp_device_share(mhp_device *device, const void *pointer, mhp_shared_name *name_out, size_t *offset_out)
{
    return mhp_device_can_share(device) ? device->ops->sharing->share(device, pointer, name_out, offset_out) : refuse();
}

mhp_status mhp_device_attach(mhp_device *device, const mhp_shared_name *name, void **pointer_out)
{
    return mhp_device_can_share(device) ? device->ops->sharing->attach(device, name, pointer_out) : refuse();
}

void mhp_device_detach(mhp_device *device, void *pointer)
{
    if (pointer) {
        device->ops->sharing->detach(device, pointer);
    }
}

mhp_status mhp_device_pin(mhp_device *device, void *memory, size_t bytes)
{
    return mhp_device_can_share(device) ? device->ops->sharing->pin(device, memory, bytes) : refuse();
}

void mhp_device_unpin(mhp_device *device, void *memory)
{
    if (memory) {
        device->ops->sharing->unpin(device, memory);
    }
}

mhp_status mhp_stream_write_word(mhp_stream *stream, mhp_word *word, uint32_t value)
{
    return mhp_device_can_share(stream->device) ? stream->device->ops->sharing->write_word(stream, word, value) : refuse();
}

mhp_status mhp_stream_await_word(mhp_stream *stream, mhp_word *word, uint32_t value)
{
    return mhp_device_can_share(stream->device) ? stream->device->ops->sharing->await_word(stream, word, value) : refuse();
}

mhp_status mhp_event_follow(mhp_event *event, mhp_word *word, uint32_t value)
{
    return mhp_device_can_share(event->device) ? event->device->ops->sharing->follow(event, word, value) : refuse();
}
