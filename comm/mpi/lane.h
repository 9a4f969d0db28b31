/* Lanes: what a channel or a group hands to MPI, in pieces of their own requests, few of them at a time.
 *
 * MPI tells nothing of a request until it is complete, and needs many polls for a large one. That pieces complete tells the comm thread
 * that data flows, so that it polls at once again; and that few are posted keeps the table of requests small. Both ends cut alike and post
 * in the order of their jobs, so that the n-th piece of one meets the n-th of the other. All of it is the comm thread's but for
 * settling. */
#ifndef MHP_COMM_MPI_LANE_H
#define MHP_COMM_MPI_LANE_H

#include "comm/mpi/engine.h"

enum {
    MHP_MPI_PIECE_BYTES = 256 << 10,
    MHP_MPI_HEAD_BYTES = 2048,      /* goes at once, without asking the receiver: it announces the rest */
};

/* Queues a copy of `job`, and posts what may be. `first`, `piece` and `left` are the caller's, the same on all ranks that take part. The
 * operation waits for all pieces; it fails with what fails of them. MHP_ERR_LIMIT if too many jobs wait. */
mhp_status mhp_mpi_enqueue(mhp_comm *comm, mhp_mpi_lane *lane, const mhp_mpi_job *job);
/* Posts what may be after a request of the lane is complete. */
void mhp_mpi_lane_advance(mhp_comm *comm, mhp_mpi_lane *lane);
/* On the host thread, before the lane's channel or group is released: waits until what was submitted to its stream, if there is one, is
 * done and nothing of it is under way. False if the world was given up meanwhile: then MPI may yet use what the lane's requests name, and
 * all of it must stay. */
bool mhp_mpi_lane_settle(mhp_comm *comm, mhp_stream *stream, const mhp_mpi_lane *lane);

#endif
