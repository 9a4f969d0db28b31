#include "comm/mpi/lane.h"

#include <time.h>

enum { LANE_REQUESTS_MAX = 16, SETTLE_PAUSE_NS = 50000 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A table that is full is an error only for a lane that no completed request would bring here again. */
static bool has_room(const mhp_comm *comm, const mhp_mpi_lane *lane)
{
    return lane->under_way < LANE_REQUESTS_MAX && (comm->request_count < MHP_MPI_REQUESTS_MAX || lane->under_way == 0);
}

static mhp_status post_piece(mhp_comm *comm, mhp_mpi_lane *lane, mhp_mpi_job *job)
{
    mhp_mpi_operation *operation = job->operation;
    int64_t count = smaller(job->first > 0 ? job->first : job->piece, job->left);
    MPI_Request *request;

    MHP_RETURN_IF_ERROR(mhp_mpi_room(comm, operation, &request));
    MHP_RETURN_IF_ERROR(mhp_mpi_check(job->post(job, job->data, (int)count, request), operation->name));
    comm->lane_of[comm->request_count] = lane;
    mhp_mpi_added(comm, operation, (int)(count * (int64_t)job->unit_bytes));
    lane->under_way++;
    job->data += (size_t)count * job->unit_bytes;
    job->left -= count;
    job->first = 0;
    return MHP_OK;
}

static void leave(mhp_comm *comm, mhp_mpi_lane *lane)
{
    mhp_mpi_job *job = lane->head;

    lane->head = job->next;
    comm->free_jobs[comm->free_job_count++] = job;
    mhp_mpi_part_ended(comm, job->operation);
}

void mhp_mpi_lane_advance(mhp_comm *comm, mhp_mpi_lane *lane)
{
    while (lane->head && has_room(comm, lane)) {
        mhp_mpi_job *job = lane->head;
        mhp_status status = post_piece(comm, lane, job);

        if (status < 0) {
            job->operation->status = status;
        }
        if (status < 0 || job->left <= 0) {
            leave(comm, lane);
        }
    }
}

mhp_status mhp_mpi_enqueue(mhp_comm *comm, mhp_mpi_lane *lane, const mhp_mpi_job *job)
{
    mhp_mpi_job *queued;

    if (comm->free_job_count == 0) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s: more than %d transfers wait", job->operation->name, MHP_MPI_REQUESTS_MAX);
    }
    queued = comm->free_jobs[--comm->free_job_count];
    *queued = *job;
    queued->next = NULL;
    queued->operation->parts++;         /* held until all of it is posted */
    if (lane->head) {
        lane->tail->next = queued;
    } else {
        lane->head = queued;
    }
    lane->tail = queued;
    mhp_mpi_lane_advance(comm, lane);
    return MHP_OK;
}

typedef struct look_call {
    const mhp_mpi_lane *lane;
    bool *idle_out;
} look_call;

static mhp_status look(void *native, const void *argument)
{
    const look_call *call = argument;

    (void)native;
    *call->idle_out = !call->lane->head && call->lane->under_way == 0;
    return MHP_OK;
}

bool mhp_mpi_lane_settle(mhp_comm *comm, mhp_stream *stream, const mhp_mpi_lane *lane)
{
    const struct timespec pause = {0, SETTLE_PAUSE_NS};
    bool idle = false;
    look_call call = {lane, &idle};

    if (stream) {
        (void)mhp_stream_synchronize(stream);
    }
    for (;;) {
        if (mhp_mpi_call(comm, look, &call, sizeof call) < 0) {
            return false;
        }
        if (idle) {
            return true;
        }
        nanosleep(&pause, NULL);
    }
}
