/* In place of nccl_*.c in a build without NCCL. */
#include "comm/collectives.h"
#include "comm/transport.h"

const mhp_transport *mhp_transport_nccl(void)
{
    return NULL;
}

const mhp_collectives *mhp_collectives_nccl(void)
{
    return NULL;
}
