/* Who moves the bytes of channels: one const table a transport. The contracts are those of comm/channel.h. */
#ifndef MHP_COMM_TRANSPORT_H
#define MHP_COMM_TRANSPORT_H

#include "comm/channel.h"

typedef struct mhp_transport {
    const char *name;
    mhp_status (*open)(mhp_comm *comm, const mhp_channel_params *params, void **state_out);
    void (*close)(void *state);
    /* Waits for what closing left under way; when all channels and groups are closed. NULL: nothing. */
    void (*leave)(void);
    /* MHP_IN_PROGRESS: not yet, ask again. NULL: there is nothing to wait for. The last call comes before the first message. */
    mhp_status (*connect)(void *state);
    mhp_status (*send)(void *state, const void *buffer, int slot, mhp_event *after, mhp_event *done);
    mhp_status (*receive)(void *state, int slot, mhp_event *after, mhp_event *done);
    void (*stats)(const void *state, mhp_channel_stats *stats_out);
    void (*corrupt)(void *state);       /* NULL: cannot */
} mhp_transport;

extern const mhp_transport mhp_transport_mpi;
extern const mhp_transport mhp_transport_ipc;
const mhp_transport *mhp_transport_nccl(void);      /* NULL in a build without NCCL */

#endif
