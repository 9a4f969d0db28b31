/* What the files of liveness share: connections and what goes over them. */
#ifndef MHP_COMM_LIVENESS_INTERNAL_H
#define MHP_COMM_LIVENESS_INTERNAL_H

#include <poll.h>

#include "comm/liveness.h"

enum { MHP_LIVENESS_TOKEN_BYTES = 16, MHP_LIVENESS_ROOT = 0 };

/* Ranks of one run are one build on one kind of machine: numbers go as they are. */
typedef struct liveness_header {
    int32_t kind, bytes;            /* kind: the caller's, or one of these */
} liveness_header;

enum { MHP_LIVENESS_BEAT = -1, MHP_LIVENESS_GOODBYE = -2 };

typedef struct liveness_frame {
    liveness_header header;
    char payload[MHP_WORD_TEXT_MAX];
} liveness_frame;

typedef struct liveness_peer {
    int rank, fd;                   /* fd -1: closed */
    bool left;                      /* said goodbye */
    uint64_t heard_ns;
    liveness_frame incoming;
    size_t incoming_bytes;
    char rest[sizeof(liveness_frame)];      /* of a frame that went out in part */
    size_t rest_bytes;
} liveness_peer;

struct mhp_liveness {
    mhp_liveness_params params;
    int rank, size;
    unsigned char token[MHP_LIVENESS_TOKEN_BYTES];  /* of the run: nobody else's connection is taken */
    int listener;                   /* -1: closed */
    liveness_peer *peers;           /* by rank, ascending */
    int peer_count;
    struct pollfd *polled;          /* [peer_count + 1] */
    bool left;
};

liveness_peer *mhp_liveness_peer(const mhp_liveness *liveness, int rank);
/* Connects this rank with its peers. Every rank; all get the same status. */
mhp_status mhp_liveness_meet(mhp_liveness *liveness, mhp_comm *comm);

#endif
