/* The ranks' clocks compared by message round trips. */
#ifndef MHP_COMM_CLOCK_H
#define MHP_COMM_CLOCK_H

#include "comm/comm.h"

/* One moment on two clocks, both mhp_time_ns: this rank's and rank 0's. */
typedef struct mhp_clock_reading {
    int64_t local_ns, reference_ns;
    int64_t error_ns;   /* they are at most this far apart: half of the shortest round trip; 0 on rank 0 */
    int64_t session_ns; /* rank 0's clock when this reading began: the same on every rank, and in no other reading */
} mhp_clock_reading;

/* Rank 0 exchanges small messages with one rank after the other; the shortest round trip of each counts. Blocks; every
 * rank, with no message under way. MHP_ERR_TIMEOUT if a rank does not answer. */
mhp_status mhp_comm_read_clock(mhp_comm *comm, mhp_clock_reading *reading_out);

#endif
