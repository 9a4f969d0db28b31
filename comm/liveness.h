/* Whether the other ranks still live: TCP connections of its own beside MPI, which has no fault tolerance. Rank 0 holds one to every
 * other rank, and neighbouring ranks hold one to each other, so that a rank is seen by two at least, whoever else is stopped.
 *
 * A connection that closes without a goodbye is a process that ended; a peer that sends nothing is stopped, or its host or the link
 * to it hangs. All that is sent has no meaning here: beats say where a rank is, words are orders and news.
 *
 * One thread at a time may use a liveness; it calls the functions of the parameters from within mhp_liveness_poll. */
#ifndef MHP_COMM_LIVENESS_H
#define MHP_COMM_LIVENESS_H

#include "comm/comm.h"

typedef struct mhp_liveness mhp_liveness;

enum { MHP_BEAT_BYTES_MAX = 512, MHP_WORD_TEXT_MAX = 1024 };

typedef struct mhp_liveness_params {
    size_t beat_bytes;              /* of every beat */
    void (*heard)(void *context, int rank, const void *beat);
    void (*word)(void *context, int rank, int kind, const char *text);
    /* Once for a connection; `how` says what closed it. */
    void (*lost)(void *context, int rank, const char *how);
    void *context;
} mhp_liveness_params;

/* Every rank; blocks until all are connected, and all get the same status. Connections are made within a minute: MHP_ERR_TIMEOUT. A
 * world of one rank has none: *liveness_out is NULL then, which is allowed everywhere here. */
mhp_status mhp_liveness_open(mhp_comm *comm, const mhp_liveness_params *params, mhp_liveness **liveness_out);
/* Says goodbye first: what happens to this process from here on is no loss to the others. */
void mhp_liveness_close(mhp_liveness *liveness);

/* Waits at most `timeout_ms` for something to come in or for `wake` to be readable, and takes what came in. */
void mhp_liveness_poll(mhp_liveness *liveness, int wake, int timeout_ms);
/* Sends a beat [beat_bytes] over every connection. What a peer does not read is not sent again. */
void mhp_liveness_beat(mhp_liveness *liveness, const void *beat);
/* Sends a word over every connection. `kind` is the caller's, >= 0. */
void mhp_liveness_tell(mhp_liveness *liveness, int kind, const char *text);
/* Says goodbye now; nothing is sent or lost afterwards. */
void mhp_liveness_leave(mhp_liveness *liveness);

/* Whether there is a connection to a rank that has not said goodbye; and the nanoseconds since something came over it. */
bool mhp_liveness_is_connected(const mhp_liveness *liveness, int rank);
uint64_t mhp_liveness_silence_ns(const mhp_liveness *liveness, int rank);
/* This process was stopped itself: what the others said meanwhile is unread, and their silence starts now. */
void mhp_liveness_forgive(mhp_liveness *liveness);

#endif
