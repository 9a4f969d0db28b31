#include "launch/session.h"

#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/memory.h"
#include "launch/signals.h"

enum { LEAVE_SECONDS = 60 };    /* without a configuration */

/* Of all ranks' warnings rank 0's are printed: what matters to all, all meet. */
static void print_log(void *context, mhp_log_level level, const char *text)
{
    const mhp_session *session = context;

    if (session->root) {
        fprintf(stderr, "mhcpipe: %s: %s\n",
                level == MHP_LOG_WARN ? "warning" : mhp_log_level_text(level), text);
    }
}

static mhp_status open_device(mhp_session *session)
{
    const mhp_parallel_params *parallel = &session->config.parallel;
    mhp_device_params params = {
        .kind = (mhp_device_kind)parallel->device,
        .threads = (int)parallel->threads,
        .seed = (uint64_t)session->config.train.seed,
    };

    mhp_seat_process(parallel, &session->seat);
    params.index = session->seat.card;
    return mhp_device_open(&params, &session->device);
}

/* What this rank can do alone. */
static mhp_status prepare(mhp_session *session, const char *path, const mhp_overrides *overrides)
{
    if (path) {
        MHP_RETURN_IF_ERROR(
            mhp_config_load(&session->config, path, overrides->items, overrides->count));
    } else {
        session->config.parallel.threads = 1;
    }
    return open_device(session);
}

static mhp_status meet(mhp_session *session, const mhp_config *config)
{
    mhp_comm *comm = session->comm;
    mhp_rank_card own;
    int size = mhp_comm_size(comm);

    MHP_RETURN_IF_ERROR(mhp_calloc(&session->ranks, (size_t)size, sizeof *session->ranks));
    MHP_RETURN_IF_ERROR(mhp_comm_agree(comm, mhp_rank_card_fill(config, &own), NULL));
    MHP_RETURN_IF_ERROR(mhp_comm_share(comm, &own, sizeof own, session->ranks));
    if (!config || mhp_rank_cards_check(session->ranks, size) != MHP_OK) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_seat_ranks(comm, config, session->ranks));
    session->root = mhp_comm_rank(comm) == 0;
    return MHP_OK;
}

static mhp_status join(mhp_session *session, const char *path, const mhp_overrides *overrides)
{
    mhp_status status = prepare(session, path, overrides);
    mhp_device_params messenger = {.kind = MHP_DEVICE_CPU, .threads = 1};
    char text[MHP_ERROR_TEXT_MAX];

    snprintf(text, sizeof text, "%s", mhp_error_text());
    if (!session->device) { /* enough of one to tell the others */
        MHP_RETURN_IF_ERROR(mhp_device_open(&messenger, &session->device));
    }
    mhp_signals_limit_start(session->config.watch.start_seconds);       /* 0 without a configuration: no limit */
    MHP_RETURN_IF_ERROR(mhp_comm_open(session->device, &session->comm));
    session->root = mhp_comm_rank(session->comm) == 0;
    mhp_log_set_sink(print_log, session, MHP_LOG_WARN);
    if (status != MHP_OK) {
        mhp_error_set(status, "%s", text);
    }
    MHP_RETURN_IF_ERROR(mhp_comm_agree(session->comm, status, NULL));
    return meet(session, path ? &session->config : NULL);
}

mhp_status mhp_session_join(mhp_session *session, const char *path, const mhp_overrides *overrides)
{
    MHP_RETURN_IF_ERROR(join(session, path, overrides));
    mhp_signals_limit_start(0);
    return MHP_OK;
}

static mhp_status join_alike(mhp_session *session, const char *path, const mhp_overrides *overrides)
{
    MHP_RETURN_IF_ERROR(join(session, path, overrides));
    MHP_RETURN_IF_ERROR(mhp_comm_agree(session->comm, mhp_rank_cards_check(session->ranks, mhp_comm_size(session->comm)), NULL));
    return mhp_comm_choose_transport(session->comm, (mhp_transport_kind)session->config.parallel.transport);
}

mhp_status mhp_session_open(mhp_session *session, const char *path, const mhp_overrides *overrides)
{
    MHP_RETURN_IF_ERROR(join_alike(session, path, overrides));
    mhp_signals_limit_start(0);
    return MHP_OK;
}

/* ---- the folder ---- */

/* Long enough for the ranks of a run that is put back into the queue, or started anew, to be gone. */
static const double folder_patience_s = 5;

/* Before anything in the folder changes: what fails from here on dumps its flight recorder there. */
static mhp_status hold_folder(mhp_session *session, const char *directory)
{
    mhp_status status = MHP_OK;

    if (session->root && directory) {
        status = mhp_folder_lock(directory, folder_patience_s, &session->folder);
    }
    return mhp_comm_agree(session->comm, status, NULL);
}

/* ---- the watch ---- */

static void print_watch(void *context, bool is_error, const char *line)
{
    (void)context;
    fprintf(stderr, "mhcpipe: %s: %s\n", is_error ? "error" : "warning", line);
}

/* Nothing is flushed: main may hold stdio while it stands still. */
static void end_process(void *context, int exit_status)
{
    (void)context;
    _exit(exit_status);
}

mhp_status mhp_session_open_watched(mhp_session *session, const char *path, const mhp_overrides *overrides, bool records)
{
    const mhp_config *config = &session->config;
    mhp_watchdog_params params = {.watch = &config->watch, .report = print_watch, .end = end_process};
    mhp_status status;

    MHP_RETURN_IF_ERROR(join_alike(session, path, overrides));
    MHP_RETURN_IF_ERROR(hold_folder(session, records ? config->log.dir : NULL));
    status = mhp_faults_create(&config->fault, mhp_comm_rank(session->comm), &session->faults);
    MHP_RETURN_IF_ERROR(mhp_comm_agree(session->comm, status, NULL));
    params.comm = session->comm;
    params.directory = records ? config->log.dir : NULL;
    MHP_RETURN_IF_ERROR(mhp_watchdog_open(&params, &session->watchdog));
    mhp_signals_tell(session->watchdog);
    mhp_signals_limit_start(0);         /* from here on the watchdog has a limit for the start */
    return MHP_OK;
}

static void end_watch(mhp_session *session)
{
    if (session->watchdog) {
        mhp_signals_tell(NULL);
        mhp_watchdog_close(session->watchdog);
    }
    mhp_faults_destroy(session->faults);
}

/* ---- the end ---- */

/* Whether the watchdog has reported why the run ends. MPI may notice a lost rank first. */
static bool is_reported(mhp_session *session, mhp_status status)
{
    static const double patience_s = 0.5;

    return mhp_watchdog_gave_up(session->watchdog, status == MHP_ERR_COMM ? patience_s : 0);
}

/* Tells the other ranks; whether this one is to print the error. */
static bool fail(mhp_session *session, mhp_status status, bool agreed)
{
    if (!session->watchdog) {
        return mhp_comm_fail(session->comm, status);
    }
    return status != MHP_ERR_PEER && mhp_watchdog_fail(session->watchdog, agreed);
}

static void end_on_error(mhp_session *session, mhp_status status)
{
    mhp_comm *comm = session->comm;
    bool agreed = comm && mhp_comm_agreed_failure(comm);

    if (comm && is_reported(session, status)) {
        mhp_comm_abort(comm);
    }
    if (!comm || fail(session, status, agreed)) {
        if (comm && !agreed && mhp_comm_size(comm) > 1) {
            mhp_error_prefix(status, "rank %d: ", mhp_comm_rank(comm));
        }
        mhp_print_error();
    }
    if (comm && !agreed) {
        mhp_comm_abort(comm);
    }
}

/* False if the process must end as it is, for threads of a library are left behind. */
static bool leave(mhp_session *session, bool is_news)
{
    int64_t limit_s = session->config.watch.silence_seconds;

    fflush(stdout);
    mhp_signals_limit_leave(limit_s > 0 ? limit_s : LEAVE_SECONDS, session->comm ? mhp_comm_rank(session->comm) : 0,
                            is_news && session->root);
    end_watch(session);
    return mhp_comm_close(session->comm);
}

int mhp_session_close(mhp_session *session, mhp_status status)
{
    int exit_status;

    if (status == MHP_OK && session->watchdog) {        /* who comes late to the end is the watchdog's */
        status = mhp_comm_agree(session->comm, MHP_OK, NULL);
    }
    if (status < 0) {
        end_on_error(session, status);
    }
    exit_status = status < 0 ? MHP_EXIT_ERROR : session->exit_status;
    mhp_log_set_sink(NULL, NULL, MHP_LOG_WARN);
    if (!leave(session, exit_status == 0)) {
        _exit(exit_status);
    }
    mhp_folder_unlock(session->folder);        /* behind leaving no rank of the run writes any more */
    mhp_device_close(session->device);
    mhp_config_release(&session->config);
    mhp_free(session->ranks);
    return exit_status;
}
