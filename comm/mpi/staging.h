/* The way between a card's memory and MPI: pinned buffers that a copy stream fills and empties, taken in turns. */
#ifndef MHP_COMM_MPI_STAGING_H
#define MHP_COMM_MPI_STAGING_H

#include "core/device.h"

enum { MHP_STAGING_BUFFERS = 2 };

/* Buffers pass between the copy stream, which completes `copied` when it is done with one, and MPI, which completes `moved`. */
typedef struct mhp_staging_buffer {
    char *memory;                   /* pinned */
    mhp_event *copied, *moved;
} mhp_staging_buffer;

typedef struct mhp_staging {
    mhp_device *device;
    mhp_stream *stream;
    mhp_staging_buffer buffers[MHP_STAGING_BUFFERS];
    unsigned taken;
} mhp_staging;

/* Whether a device needs it. */
bool mhp_staging_is_needed(const mhp_device *device);
/* Close works also after half an open, and on zeros. */
mhp_status mhp_staging_open(mhp_staging *staging, mhp_device *device, const char *name, size_t buffer_bytes);
void mhp_staging_close(mhp_staging *staging);
/* The buffer whose turn it is. */
mhp_staging_buffer *mhp_staging_take(mhp_staging *staging);

#endif
