#include "comm/mpi/engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comm/edges_internal.h"
#include "comm/mpi/lane.h"
#include "core/memory.h"

enum { NOTICE_TAG = 1, FAIL_WAIT_MS = 1000, FAIL_GRACE_MS = 200 };

mhp_status mhp_mpi_check(int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;

    if (code == MPI_SUCCESS) {
        return MHP_OK;
    }
    MPI_Error_string(code, text, &length);
    return mhp_error_set(MHP_ERR_COMM, "%s: MPI: %.*s", what, length, text);
}

mhp_status mhp_mpi_begin(mhp_comm *comm, mhp_status status, const char *name, mhp_event *done, mhp_mpi_operation **operation_out)
{
    mhp_mpi_operation *operation;

    if (status >= 0 && comm->free_count == 0) {
        status = mhp_error_set(MHP_ERR_LIMIT, "%s: more than %d operations under way", name, MHP_MPI_REQUESTS_MAX);
    }
    if (status < 0) {
        mhp_event_signal(done, status);
        return status;
    }
    operation = comm->free_operations[--comm->free_count];
    *operation = (mhp_mpi_operation){.name = name, .done = done, .start_ns = mhp_time_ns()};
    operation->parts = 1;               /* held until launch */
    *operation_out = operation;
    return MHP_OK;
}

mhp_status mhp_mpi_room(mhp_comm *comm, mhp_mpi_operation *operation, MPI_Request **request_out)
{
    if (comm->request_count == MHP_MPI_REQUESTS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s: more than %d requests under way", operation->name, MHP_MPI_REQUESTS_MAX);
    }
    comm->lane_of[comm->request_count] = NULL;
    *request_out = &comm->requests[comm->request_count];
    return MHP_OK;
}

void mhp_mpi_added(mhp_comm *comm, mhp_mpi_operation *operation, int expected_bytes)
{
    comm->operation_of[comm->request_count] = operation;
    comm->expected_bytes[comm->request_count] = expected_bytes;
    comm->request_count++;
    operation->parts++;
}

void mhp_mpi_part_ended(mhp_comm *comm, mhp_mpi_operation *operation)
{
    if (--operation->parts > 0) {
        return;
    }
    if (operation->wait_ns) {
        atomic_fetch_add(operation->wait_ns, mhp_time_ns() - operation->start_ns);
    }
    if (comm->observer.ended) {
        comm->observer.ended(comm->observer.context, operation->name, operation->status);
    }
    if (operation->done) {
        mhp_event_signal(operation->done, operation->status);
    }
    comm->free_operations[comm->free_count++] = operation;
}

void mhp_mpi_launch(mhp_comm *comm, mhp_mpi_operation *operation, mhp_status status)
{
    if (status < 0) {
        operation->status = status;
    }
    if (comm->observer.posted) {
        comm->observer.posted(comm->observer.context, operation->name);
    }
    mhp_mpi_part_ended(comm, operation);
}

static void check_part(const mhp_comm *comm, int index, const MPI_Status *result, int code)
{
    mhp_mpi_operation *operation = comm->operation_of[index];
    int bytes = 0;

    if (code != MPI_SUCCESS) {
        operation->status = mhp_mpi_check(code, operation->name);
        return;
    }
    if (!operation->receives) {
        return;
    }
    MPI_Get_count(result, MPI_BYTE, &bytes);
    if (bytes != comm->expected_bytes[index]) {
        operation->status = mhp_error_set(MHP_ERR_COMM, "channel %s: a message part of %d bytes came in, expected %d", operation->name,
                                          bytes, comm->expected_bytes[index]);
    }
}

/* Removes completed requests, keeping the others in order. */
static void compact(mhp_comm *comm)
{
    int kept = 0;

    for (int i = 0; i < comm->request_count; i++) {
        if (comm->requests[i] == MPI_REQUEST_NULL) {
            continue;
        }
        comm->requests[kept] = comm->requests[i];
        comm->operation_of[kept] = comm->operation_of[i];
        comm->expected_bytes[kept] = comm->expected_bytes[i];
        comm->lane_of[kept] = comm->lane_of[i];
        kept++;
    }
    comm->request_count = kept;
}

/* The lanes go on before anybody hears that a request is complete: he may close the channel. */
static void end_requests(mhp_comm *comm, int count)
{
    for (int i = 0; i < count; i++) {
        comm->ended[i] = comm->operation_of[comm->completed[i]];
        comm->freed[i] = comm->lane_of[comm->completed[i]];
    }
    compact(comm);
    for (int i = 0; i < count; i++) {
        if (comm->freed[i]) {
            comm->freed[i]->under_way--;
            mhp_mpi_lane_advance(comm, comm->freed[i]);
        }
    }
    for (int i = 0; i < count; i++) {
        mhp_mpi_part_ended(comm, comm->ended[i]);
    }
}

/* Whether a request was completed. */
static bool poll_operations(mhp_comm *comm)
{
    int count = 0;
    int code;

    if (comm->request_count == 0) {
        return false;
    }
    code = MPI_Testsome(comm->request_count, comm->requests, &count, comm->completed, comm->statuses);
    if (count == MPI_UNDEFINED || count == 0) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        check_part(comm, comm->completed[i], &comm->statuses[i], code == MPI_ERR_IN_STATUS ? comm->statuses[i].MPI_ERROR : MPI_SUCCESS);
    }
    end_requests(comm, count);
    return true;
}

static mhp_status await_notice(mhp_comm *comm)
{
    return mhp_mpi_check(MPI_Irecv(comm->incoming, (int)sizeof comm->incoming, MPI_CHAR, MPI_ANY_SOURCE, NOTICE_TAG, comm->control,
                                   &comm->notice_request),
                         "MPI_Irecv");
}

void mhp_comm_lose(mhp_comm *comm, const char *text)
{
    if (atomic_exchange(&comm->noticing, 1)) {
        return;
    }
    snprintf(comm->notice, sizeof comm->notice, "%s", text);
    atomic_store(&comm->notified, 1);
    mhp_error_set(MHP_ERR_PEER, "%s", text);
    mhp_device_poison(comm->device, MHP_ERR_PEER);
}

/* Of several ranks that fail, the first notice is what this rank's own work ends with. */
static void take_notice(mhp_comm *comm, int source)
{
    comm->incoming[sizeof comm->incoming - 1] = '\0';
    if (source < atomic_load(&comm->lowest_failed)) {
        atomic_store(&comm->lowest_failed, source);
    }
    mhp_error_set(MHP_ERR_PEER, "rank %d: %s", source, comm->incoming);
    mhp_comm_lose(comm, mhp_error_text());
}

static void poll_notice(mhp_comm *comm)
{
    MPI_Status result;
    int arrived = 1;

    while (comm->notice_request != MPI_REQUEST_NULL && arrived) {
        if (MPI_Test(&comm->notice_request, &arrived, &result) != MPI_SUCCESS) {
            return;
        }
        if (arrived) {
            take_notice(comm, result.MPI_SOURCE);
            (void)await_notice(comm);
        }
    }
}

static void poll_failure(mhp_comm *comm)
{
    int sent = 0;

    if (!atomic_load(&comm->failing) || atomic_load(&comm->failed)) {
        return;
    }
    if (!comm->failure_posted) {
        comm->failure_posted = true;
        for (int rank = 0; rank < comm->size; rank++) {
            comm->failure_requests[rank] = MPI_REQUEST_NULL;
            if (rank != comm->rank) {
                MPI_Isend(comm->failure, (int)sizeof comm->failure, MPI_CHAR, rank, NOTICE_TAG, comm->control,
                          &comm->failure_requests[rank]);
            }
        }
    }
    if (MPI_Testall(comm->size, comm->failure_requests, &sent, MPI_STATUSES_IGNORE) != MPI_SUCCESS || sent) {
        atomic_store(&comm->failed, 1);
    }
}

static int progress(void *context, bool *moved_out)
{
    mhp_comm *comm = context;

    *moved_out = poll_operations(comm);
    poll_notice(comm);
    poll_failure(comm);
    return comm->request_count + mhp_edges_look(comm->edges, comm) + (atomic_load(&comm->failing) && !atomic_load(&comm->failed));
}

mhp_status mhp_mpi_call(mhp_comm *comm, mhp_task_fn call, const void *argument, size_t bytes)
{
    MHP_RETURN_IF_ERROR(mhp_stream_host_call(comm->stream, call, argument, bytes));
    return mhp_stream_synchronize(comm->stream);
}

/* The world with its ranks in the order of `rank`. */
static mhp_status duplicate_world(int rank, MPI_Comm *copy_out)
{
    MHP_RETURN_IF_ERROR(mhp_mpi_check(MPI_Comm_split(MPI_COMM_WORLD, 0, rank, copy_out), "MPI_Comm_split"));
    return mhp_mpi_check(MPI_Comm_set_errhandler(*copy_out, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

static mhp_status create_communicators(mhp_comm *comm, int rank)
{
    MHP_RETURN_IF_ERROR(duplicate_world(rank, &comm->channels));
    MHP_RETURN_IF_ERROR(duplicate_world(rank, &comm->agreement));
    MHP_RETURN_IF_ERROR(duplicate_world(rank, &comm->control));
    MPI_Comm_rank(comm->control, &comm->rank);
    MPI_Comm_size(comm->control, &comm->size);
    return await_notice(comm);
}

static void free_communicators(mhp_comm *comm)
{
    MPI_Cancel(&comm->notice_request);
    MPI_Wait(&comm->notice_request, MPI_STATUS_IGNORE);
    MPI_Comm_free(&comm->control);
    MPI_Comm_free(&comm->agreement);
    MPI_Comm_free(&comm->channels);
}

static mhp_status join_world(void *native, const void *argument)
{
    mhp_comm *comm;
    int provided = MPI_THREAD_SINGLE, rank;

    (void)native;
    memcpy(&comm, argument, sizeof comm);
    MHP_RETURN_IF_ERROR(mhp_mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    if (provided < MPI_THREAD_FUNNELED) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "this MPI cannot run beside threads: level %d, expected at least %d", provided,
                             MPI_THREAD_FUNNELED);
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return create_communicators(comm, rank);
}

static mhp_status leave_world(void *native, const void *argument)
{
    mhp_comm *comm;

    (void)native;
    memcpy(&comm, argument, sizeof comm);
    free_communicators(comm);
    return mhp_mpi_check(MPI_Finalize(), "MPI_Finalize");
}

mhp_status mhp_comm_open(mhp_device *device, mhp_comm **comm_out)
{
    mhp_status status = MHP_OK;
    mhp_comm *comm = NULL;

    MHP_TRY(out, mhp_calloc(&comm, 1, sizeof *comm));
    comm->device = device;
    comm->notice_request = MPI_REQUEST_NULL;
    atomic_init(&comm->lowest_failed, INT_MAX);
    comm->free_count = MHP_MPI_REQUESTS_MAX;
    comm->free_job_count = MHP_MPI_REQUESTS_MAX;
    for (int i = 0; i < MHP_MPI_REQUESTS_MAX; i++) {
        comm->free_operations[i] = &comm->operations[i];
        comm->free_jobs[i] = &comm->jobs[i];
    }
    MHP_TRY(out, mhp_event_create(device, &comm->event));
    MHP_TRY(out, mhp_stream_create(device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL, "world", &comm->stream));
    MHP_TRY(out, mhp_mpi_call(comm, join_world, &comm, sizeof comm));
    MHP_TRY(out, mhp_calloc(&comm->failure_requests, (size_t)comm->size, sizeof *comm->failure_requests));
    MHP_TRY(out, mhp_device_set_progress(device, progress, comm));
    *comm_out = comm;
    comm = NULL;
out:
    if (comm) {
        mhp_stream_destroy(comm->stream);
        mhp_event_destroy(comm->event);
        mhp_free(comm->failure_requests);
        mhp_free(comm);
    }
    return status;
}

bool mhp_comm_close(mhp_comm *comm)
{
    bool all_left;

    if (!comm) {
        return true;
    }
    (void)mhp_stream_synchronize(comm->stream);
    (void)mhp_device_set_progress(comm->device, NULL, NULL);
    (void)mhp_mpi_call(comm, leave_world, &comm, sizeof comm);
    all_left = mhp_edges_close(comm->edges);    /* the comm thread is past its last look at them */
    mhp_stream_destroy(comm->stream);
    mhp_event_destroy(comm->event);
    mhp_free(comm->failure_requests);
    mhp_free(comm);
    return all_left;
}

typedef struct renumber_call {
    mhp_comm *comm;
    int rank;
} renumber_call;

static mhp_status renumber(void *native, const void *argument)
{
    const renumber_call *call = argument;

    (void)native;
    free_communicators(call->comm);
    return create_communicators(call->comm, call->rank);
}

mhp_status mhp_comm_renumber(mhp_comm *comm, int rank)
{
    renumber_call call = {comm, rank};
    mhp_status status = MHP_OK;

    assert(!comm->edges);
    MHP_RETURN_IF_ERROR(mhp_mpi_call(comm, renumber, &call, sizeof call));
    if (comm->rank != rank) {           /* the world is ordered by what its processes asked for */
        status = mhp_error_set(MHP_ERR_INVALID, "asked for rank %d of %d and became %d: another process asked for it too", rank,
                               comm->size, comm->rank);
    }
    return mhp_comm_agree(comm, status, NULL);
}

int mhp_comm_rank(const mhp_comm *comm)
{
    return comm->rank;
}

int mhp_comm_size(const mhp_comm *comm)
{
    return comm->size;
}

mhp_device *mhp_comm_device(mhp_comm *comm)
{
    return comm->device;
}

typedef struct agreement_call {
    mhp_comm *comm;
    bool tells;                     /* the second round: the text is broadcast from `root` */
    int root;
} agreement_call;

/* First round: the lowest status and who has it. Second: its text. */
static mhp_status post_agreement(mhp_status status, const void *argument)
{
    const agreement_call *call = argument;
    mhp_mpi_verdict *verdict = &call->comm->verdict;
    mhp_mpi_operation *operation = NULL;
    MPI_Request *request;

    MHP_RETURN_IF_ERROR(mhp_mpi_begin(call->comm, status, "agreement", call->comm->event, &operation));
    MHP_TRY(out, mhp_mpi_room(call->comm, operation, &request));
    if (call->tells) {
        MHP_TRY(out, mhp_mpi_check(MPI_Ibcast(verdict->text, MHP_ERROR_TEXT_MAX, MPI_CHAR, call->root, call->comm->agreement, request),
                                   "agreement"));
    } else {
        MHP_TRY(out, mhp_mpi_check(MPI_Iallreduce(verdict->own, verdict->worst, 2, MPI_2INT, MPI_MINLOC, call->comm->agreement, request),
                                   "agreement"));
    }
    mhp_mpi_added(call->comm, operation, 0);
out:
    mhp_mpi_launch(call->comm, operation, status);
    return MHP_OK;
}

static mhp_status run_agreement(mhp_comm *comm, const agreement_call *call)
{
    MHP_RETURN_IF_ERROR(mhp_event_arm(comm->event));
    MHP_RETURN_IF_ERROR(mhp_stream_call_always(comm->stream, post_agreement, call, sizeof *call));
    return mhp_event_synchronize(comm->event, 0);
}

mhp_status mhp_comm_agree(mhp_comm *comm, mhp_status status, int *failed_rank_out)
{
    int own_status = status < 0 ? status : 0;
    mhp_mpi_verdict *verdict = &comm->verdict;
    const mhp_ranked_status own[] = {{own_status, comm->rank}, {-own_status, comm->rank}};     /* least: the worst; 0 if anybody is well */
    const mhp_ranked_status *worst = verdict->worst;
    agreement_call call = {.comm = comm};

    memcpy(verdict->own, own, sizeof own);
    memcpy(verdict->worst, own, sizeof own);
    snprintf(verdict->text, sizeof verdict->text, "%s", status < 0 ? mhp_error_text() : "");
    if (failed_rank_out) {
        *failed_rank_out = -1;
    }
    if (comm->size > 1) {
        MHP_RETURN_IF_ERROR(run_agreement(comm, &call));
    }
    if (worst[0].status == 0) {
        return MHP_OK;
    }
    if (failed_rank_out) {
        *failed_rank_out = worst[0].rank;
    }
    call.tells = true;
    call.root = worst[0].rank;
    if (comm->size > 1) {
        MHP_RETURN_IF_ERROR(run_agreement(comm, &call));
    }
    comm->agreed_failure = true;
    if (worst[1].status > 0) {
        return mhp_error_set((mhp_status)worst[0].status, "%s", verdict->text);
    }
    return mhp_error_set((mhp_status)worst[0].status, "rank %d: %s", worst[0].rank, verdict->text);
}

bool mhp_comm_agreed_failure(const mhp_comm *comm)
{
    return comm->agreed_failure;
}

bool mhp_comm_may_release(const mhp_comm *comm, mhp_status status)
{
    return status >= 0 || comm->agreed_failure;
}

void mhp_comm_forget_failure(mhp_comm *comm)
{
    comm->agreed_failure = false;
}

/* Before this rank ends: the launcher ends the others when one has ended, also the one that is about to report. */
static void let_another_report(void)
{
    const struct timespec grace = {0, 2 * FAIL_GRACE_MS * 1000000};

    nanosleep(&grace, NULL);
}

bool mhp_comm_fail(mhp_comm *comm, mhp_status status)
{
    struct timespec pause = {0, 1000000};
    int waited_ms = 0;

    if (comm->agreed_failure || comm->size == 1) {
        return comm->rank == 0;
    }
    if (status == MHP_ERR_PEER) {       /* everybody knows it from the rank that failed */
        let_another_report();
        return false;
    }
    snprintf(comm->failure, sizeof comm->failure, "%s", mhp_error_text());
    atomic_store(&comm->failing, 1);
    while (waited_ms < FAIL_WAIT_MS && (!atomic_load(&comm->failed) || (waited_ms < FAIL_GRACE_MS && comm->rank > 0))) {
        mhp_device_wake_comm(comm->device);
        nanosleep(&pause, NULL);
        waited_ms++;
    }
    if (comm->rank > atomic_load(&comm->lowest_failed)) {
        let_another_report();
        return false;
    }
    return true;
}

_Noreturn void mhp_comm_abort(mhp_comm *comm)
{
    (void)comm;
    fflush(stdout);
    fflush(stderr);
    _exit(1);
}

mhp_status mhp_comm_check(mhp_comm *comm)
{
    return atomic_load(&comm->notified) ? mhp_error_set(MHP_ERR_PEER, "%s", comm->notice) : MHP_OK;
}
