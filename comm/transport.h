/* Who moves the bytes of channels: one const table a transport. The contracts are those of comm/channel.h. */
#ifndef MHP_COMM_TRANSPORT_H
#define MHP_COMM_TRANSPORT_H

#include "comm/channel.h"

typedef struct mhp_transport {
    const char *name;
    mhp_status (*open)(mhp_comm *comm, const mhp_channel_params *params, void **state_out);
    void (*close)(void *state);
    /* Waits for what closing left under way, some seconds at most; when all channels and groups are closed. False if some of it is left.
     * NULL: nothing. */
    bool (*leave)(void);
    /* MHP_IN_PROGRESS: not yet, ask again. NULL: there is nothing to wait for. The last call comes before the first message. */
    mhp_status (*connect)(void *state);
    /* `params.parts` is at least 1 wherever a transport sees it. */
    mhp_status (*send)(void *state, const void *buffer, int slot, mhp_event *const *after, mhp_event *done);
    mhp_status (*receive)(void *state, int slot, mhp_event *after, mhp_event *const *done);
    void (*stats)(const void *state, mhp_channel_stats *stats_out);
    void (*corrupt)(void *state);       /* NULL: cannot */
} mhp_transport;

/* Part of a message, in bytes of its slot. */
typedef struct mhp_part {
    size_t offset, bytes;
} mhp_part;

static inline mhp_part mhp_part_of(const mhp_channel_params *params, int part)
{
    size_t offset = (size_t)part * params->part_bytes;

    return (mhp_part){offset, part + 1 < params->parts ? params->part_bytes : params->slot_bytes - offset};
}

extern const mhp_transport mhp_transport_mpi;
extern const mhp_transport mhp_transport_ipc;
const mhp_transport *mhp_transport_nccl(void);      /* NULL in a build without NCCL */

#endif
