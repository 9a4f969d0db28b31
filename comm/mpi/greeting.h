/* The small messages by which channels of other transports begin. Host thread. */
#ifndef MHP_COMM_MPI_GREETING_H
#define MHP_COMM_MPI_GREETING_H

#include "comm/comm.h"

/* One message of a channel's `id` from `source` to `target`, before all others of that id and pair; `done` completes when `data` was
 * sent or is there. */
typedef struct mhp_mpi_greeting {
    mhp_comm *comm;
    const char *name;               /* outlives it, as does data */
    int id, source, target;
    void *data;
    int bytes;
    mhp_event *done;
} mhp_mpi_greeting;

mhp_status mhp_mpi_greet(const mhp_mpi_greeting *greeting);

#endif
