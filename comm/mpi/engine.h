/* The MPI side of a comm: communicators and the table of requests that the comm thread polls. Everything here that touches MPI runs on
 * the comm thread. */
#ifndef MHP_COMM_MPI_ENGINE_H
#define MHP_COMM_MPI_ENGINE_H

#include <mpi.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "comm/comm.h"
#include "core/tensor.h"

enum { MHP_MPI_REQUESTS_MAX = 4096, MHP_MPI_PART_BYTES_MAX = 1 << 30 };

/* One transfer or collective: as many requests as it has parts. */
typedef struct mhp_mpi_operation {
    const char *name;               /* of the channel or group; outlives the operation */
    mhp_event *done;
    int parts;                      /* requests that are not complete */
    bool receives;                  /* the byte count is checked */
    atomic_uint_fast64_t *wait_ns;  /* where the time from posting to completion is added; may be NULL */
    uint64_t start_ns;
    mhp_status status;
} mhp_mpi_operation;

/* Data that goes in pieces, posted one after the other: comm/mpi/lane.h. */
typedef struct mhp_mpi_job mhp_mpi_job;
/* Posts one piece of a job; MPI's code. */
typedef int (*mhp_mpi_post_fn)(const mhp_mpi_job *job, char *data, int count, MPI_Request *request);

struct mhp_mpi_job {
    mhp_mpi_job *next;
    mhp_mpi_operation *operation;
    mhp_mpi_post_fn post;
    char *data;                     /* not posted yet: `left` units */
    size_t unit_bytes;
    int64_t left, first, piece;     /* units; `first`: of the next piece, if not 0 */
    _Alignas(16) char argument[96]; /* post's */
};

/* One a channel or group; zeros when it is opened. */
typedef struct mhp_mpi_lane {
    mhp_mpi_job *head, *tail;
    int under_way;                  /* requests */
} mhp_mpi_lane;

typedef struct mhp_ranked_status {
    int status, rank;               /* MPI_2INT */
} mhp_ranked_status;

/* An agreement's memory. It is not the caller's, who may be gone when an agreement that was given up goes on. */
typedef struct mhp_mpi_verdict {
    mhp_ranked_status own[2], worst[2];
    char text[MHP_ERROR_TEXT_MAX];
} mhp_mpi_verdict;

struct mhp_comm {
    mhp_device *device;
    bool agreed_failure;
    mhp_mpi_verdict verdict;
    struct mhp_edges *_Atomic edges;        /* NULL: everything goes over MPI */
    mhp_stream *stream;             /* set-up and agreement */
    mhp_event *event;               /* of calls on `stream` */
    mhp_comm_observer observer;     /* the comm thread's */
    int rank, size;
    MPI_Comm channels, agreement, control;
    MPI_Request requests[MHP_MPI_REQUESTS_MAX];
    mhp_mpi_operation *operation_of[MHP_MPI_REQUESTS_MAX];
    int expected_bytes[MHP_MPI_REQUESTS_MAX];       /* of a receive's part */
    mhp_mpi_lane *lane_of[MHP_MPI_REQUESTS_MAX];    /* NULL: of none */
    int request_count;
    mhp_mpi_operation operations[MHP_MPI_REQUESTS_MAX];
    mhp_mpi_operation *free_operations[MHP_MPI_REQUESTS_MAX];
    int free_count;
    mhp_mpi_job jobs[MHP_MPI_REQUESTS_MAX];
    mhp_mpi_job *free_jobs[MHP_MPI_REQUESTS_MAX];
    int free_job_count;
    int completed[MHP_MPI_REQUESTS_MAX];            /* scratch of a poll */
    MPI_Status statuses[MHP_MPI_REQUESTS_MAX];
    mhp_mpi_operation *ended[MHP_MPI_REQUESTS_MAX]; /* likewise: whose, and in which lane */
    mhp_mpi_lane *freed[MHP_MPI_REQUESTS_MAX];
    MPI_Request notice_request;
    char incoming[MHP_ERROR_TEXT_MAX];              /* the receive of a failure notice lands here */
    char notice[MHP_ERROR_TEXT_MAX];                /* the first one, with its rank */
    atomic_int noticing, notified;                  /* somebody writes `notice`; it is final */
    atomic_int lowest_failed;                       /* rank that sent a notice; INT_MAX if none */
    atomic_int failing, failed;                     /* this rank's own notice: asked for, sent */
    char failure[MHP_ERROR_TEXT_MAX];
    bool failure_posted;
    MPI_Request *failure_requests;                  /* [size] */
};

/* Turns MPI's error code into a status with MPI's words. */
mhp_status mhp_mpi_check(int code, const char *what);

/* Runs `call` on the comm thread and waits for it. */
mhp_status mhp_mpi_call(mhp_comm *comm, mhp_task_fn call, const void *argument, size_t bytes);

/* A fresh operation, for a call of mhp_stream_call_always; requests are added to it by mhp_mpi_room and mhp_mpi_added, then mhp_mpi_launch
 * lets it complete. On an error, or where `status`, the stream's, is one, `done` completes with it: it is armed, and nobody else would. */
mhp_status mhp_mpi_begin(mhp_comm *comm, mhp_status status, const char *name, mhp_event *done, mhp_mpi_operation **operation_out);
/* Room for one more request; the caller fills it by an MPI call and then calls mhp_mpi_added. */
mhp_status mhp_mpi_room(mhp_comm *comm, mhp_mpi_operation *operation, MPI_Request **request_out);
void mhp_mpi_added(mhp_comm *comm, mhp_mpi_operation *operation, int expected_bytes);
/* One request less; the last one completes the operation's event. */
void mhp_mpi_part_ended(mhp_comm *comm, mhp_mpi_operation *operation);
/* After the last request, or on a failure of one: completes at once if there is none. */
void mhp_mpi_launch(mhp_comm *comm, mhp_mpi_operation *operation, mhp_status status);

#endif
