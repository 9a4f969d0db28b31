/* The flight recorder of a rank: rings of the last marks of its compute stream and of its last messages, written to a file when somebody
 * asks why nothing moves. Nothing is allocated after the start.
 *
 * A mark is taken when it is submitted; whether the stream has come to it is told by one event that every mark records, so that it costs
 * the same on every device and nothing runs on the host for it. */
#ifndef MHP_RUNTIME_FLIGHT_H
#define MHP_RUNTIME_FLIGHT_H

#include "core/device.h"
#include "runtime/place.h"

typedef struct mhp_flight mhp_flight;

enum { MHP_FLIGHT_MESSAGES = 1024, MHP_FLIGHT_MARKS_MIN = 1024, MHP_FLIGHT_HOST_MAX = 64 };

/* What a dump says of its rank. */
typedef struct mhp_flight_identity {
    int64_t run;                    /* the same on all ranks of a run, greater than that of any run before: Unix time, ns */
    int32_t rank, size, pid;
    char host[MHP_FLIGHT_HOST_MAX];
} mhp_flight_identity;

mhp_status mhp_flight_create(mhp_device *device, const mhp_flight_identity *identity, mhp_flight **flight_out);
/* While no stream has marks under way. NULL is allowed. */
void mhp_flight_destroy(mhp_flight *flight);
/* Makes room for `marks` marks between two synchronizations, before the first of them. */
mhp_status mhp_flight_reserve(mhp_flight *flight, size_t marks);

/* Of all below NULL is allowed and does nothing.
 * The run enters a section. Any thread. */
void mhp_flight_enter(mhp_flight *flight, mhp_section section, int64_t number);
/* Appends a mark to `stream`, always the same stream; the host thread. */
mhp_status mhp_flight_mark(mhp_flight *flight, mhp_stream *stream, const mhp_mark *mark);
/* A message or collective was posted, or ended. Any thread. */
void mhp_flight_message(mhp_flight *flight, const char *name, bool ended, mhp_status status);

/* Where the rank is now. Durations of marks are as exact as this is called often. Any thread. */
void mhp_flight_place(mhp_flight *flight, mhp_place *place_out);

/* Why a dump that somebody asked for was made; that of any other says what failed. */
#define MHP_FLIGHT_ASKED "asked for"

/* Writes rank-NNNNN.json into `directory`, which is made if only it is missing, in place of what is there. Takes no memory and no
 * device. One thread at a time. */
mhp_status mhp_flight_dump(mhp_flight *flight, const char *directory, const char *why);

#endif
