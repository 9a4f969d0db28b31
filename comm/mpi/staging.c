#include "comm/mpi/staging.h"

#include <string.h>

bool mhp_staging_is_needed(const mhp_device *device)
{
    return !mhp_device_is_host_memory(device);
}

mhp_status mhp_staging_open(mhp_staging *staging, mhp_device *device, const char *name, size_t buffer_bytes)
{
    staging->device = device;
    MHP_RETURN_IF_ERROR(mhp_stream_create(device, MHP_STREAM_COPY, MHP_PRIORITY_HIGH, name, &staging->stream));
    for (int i = 0; i < MHP_STAGING_BUFFERS; i++) {
        mhp_staging_buffer *buffer = &staging->buffers[i];

        MHP_RETURN_IF_ERROR(mhp_device_alloc_host(device, buffer_bytes, (void **)&buffer->memory));
        MHP_RETURN_IF_ERROR(mhp_event_create(device, &buffer->copied));
        MHP_RETURN_IF_ERROR(mhp_event_create(device, &buffer->moved));
    }
    return MHP_OK;
}

void mhp_staging_close(mhp_staging *staging)
{
    mhp_stream_destroy(staging->stream);
    for (int i = 0; i < MHP_STAGING_BUFFERS; i++) {
        if (staging->buffers[i].moved) {        /* a message may still leave that its sender is done with */
            (void)mhp_event_synchronize(staging->buffers[i].moved, 0);
        }
        mhp_event_destroy(staging->buffers[i].moved);
        mhp_event_destroy(staging->buffers[i].copied);
        mhp_device_free_host(staging->device, staging->buffers[i].memory);
    }
    memset(staging, 0, sizeof *staging);
}

mhp_staging_buffer *mhp_staging_take(mhp_staging *staging)
{
    return &staging->buffers[staging->taken++ % MHP_STAGING_BUFFERS];
}
