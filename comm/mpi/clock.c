/* Clock readings over MPI. The comm thread is in one call for all of it: what passes through queues and events would be
 * measured too. */
#include "comm/clock.h"

#include <sched.h>
#include <string.h>
#include <time.h>

#include "comm/mpi/engine.h"

enum { CLOCK_TAG = 3, ROUND_TRIPS = 64, IDLE_PAUSE_NS = 50000 };

static const uint64_t deadline_ns = 30000000000u;

typedef struct clock_call {
    mhp_comm *comm;
    mhp_clock_reading *reading;
} clock_call;

/* Polls, for a rank that died must not hold this one. `idle`: the answer may take long, so the core is left to others.
 */
static mhp_status complete(MPI_Request *request, int peer, bool idle)
{
    uint64_t start_ns = mhp_time_ns();
    struct timespec pause = {0, IDLE_PAUSE_NS};
    int done = 0;

    for (;;) {
        MHP_RETURN_IF_ERROR(mhp_mpi_check(MPI_Test(request, &done, MPI_STATUS_IGNORE), "clock reading"));
        if (done) {
            return MHP_OK;
        }
        if (mhp_time_ns() - start_ns > deadline_ns) {
            (void)MPI_Cancel(request);
            return mhp_error_set(MHP_ERR_TIMEOUT, "rank %d did not answer a clock reading within %.0f s", peer,
                                 (double)deadline_ns * 1e-9);
        }
        if (idle) {
            nanosleep(&pause, NULL);
        } else {
            sched_yield();
        }
    }
}

static mhp_status send(const mhp_comm *comm, void *data, int bytes, int peer)
{
    MPI_Request request;

    MHP_RETURN_IF_ERROR(
        mhp_mpi_check(MPI_Isend(data, bytes, MPI_BYTE, peer, CLOCK_TAG, comm->agreement, &request), "clock reading"));
    return complete(&request, peer, false);
}

static mhp_status receive(const mhp_comm *comm, void *data, int bytes, int peer, bool idle)
{
    MPI_Request request;

    MHP_RETURN_IF_ERROR(
        mhp_mpi_check(MPI_Irecv(data, bytes, MPI_BYTE, peer, CLOCK_TAG, comm->agreement, &request), "clock reading"));
    return complete(&request, peer, idle);
}

static mhp_status ask(const mhp_comm *comm, int peer, int64_t session_ns)
{
    mhp_clock_reading best = {.error_ns = INT64_MAX, .session_ns = session_ns};

    for (int i = 0; i < ROUND_TRIPS; i++) {
        int64_t start_ns = (int64_t)mhp_time_ns(), answer_ns = 0, end_ns;

        MHP_RETURN_IF_ERROR(send(comm, &start_ns, sizeof start_ns, peer));
        MHP_RETURN_IF_ERROR(receive(comm, &answer_ns, sizeof answer_ns, peer, false));
        end_ns = (int64_t)mhp_time_ns();
        if ((end_ns - start_ns + 1) / 2 < best.error_ns) {
            best.error_ns = (end_ns - start_ns + 1) / 2;
            best.reference_ns = start_ns + (end_ns - start_ns) / 2;
            best.local_ns = answer_ns;
        }
    }
    return send(comm, &best, sizeof best, peer);
}

static mhp_status answer(const mhp_comm *comm, mhp_clock_reading *reading_out)
{
    for (int i = 0; i < ROUND_TRIPS; i++) {
        int64_t time_ns;

        MHP_RETURN_IF_ERROR(receive(comm, &time_ns, sizeof time_ns, 0, i == 0));
        time_ns = (int64_t)mhp_time_ns();
        MHP_RETURN_IF_ERROR(send(comm, &time_ns, sizeof time_ns, 0));
    }
    return receive(comm, reading_out, sizeof *reading_out, 0, false);
}

static mhp_status read_clock(void *native, const void *argument)
{
    const clock_call *call = argument;
    int64_t now_ns = (int64_t)mhp_time_ns();

    (void)native;
    if (call->comm->rank > 0) {
        return answer(call->comm, call->reading);
    }
    for (int peer = 1; peer < call->comm->size; peer++) {
        MHP_RETURN_IF_ERROR(ask(call->comm, peer, now_ns));
    }
    *call->reading = (mhp_clock_reading){now_ns, now_ns, 0, now_ns};
    return MHP_OK;
}

mhp_status mhp_comm_read_clock(mhp_comm *comm, mhp_clock_reading *reading_out)
{
    clock_call call = {comm, reading_out};

    MHP_RETURN_IF_ERROR(mhp_comm_agree(comm, MHP_OK, NULL)); /* a rank may come late: the deadline is for answers alone */
    MHP_RETURN_IF_ERROR(mhp_stream_host_call(comm->stream, read_clock, &call, sizeof call));
    return mhp_stream_synchronize(comm->stream);
}
