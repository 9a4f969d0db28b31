#include "runtime/watchdog.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/memory.h"
#include "runtime/watchdog_internal.h"

enum { TICK_MS = 100, FAILURES_NS = 400000000, PATH_LENGTH_MAX = MHP_WATCHDOG_PATH_MAX - 64 };

static const double beat_s = 0.09, stopped_s = 2, told_s = 1, other_reports_s = 1;

double mhp_watchdog_seconds(uint64_t then_ns)
{
    uint64_t now_ns = mhp_time_ns();

    return now_ns > then_ns ? (double)(now_ns - then_ns) * 1e-9 : 0;
}

static void wake(const mhp_watchdog *watchdog)
{
    const uint64_t one = 1;

    (void)!write(watchdog->wake, &one, sizeof one);
}

/* ---- the thread ---- */

/* This process stood still itself, perhaps as all did: that counts neither for the others' silence nor for the section. */
static void forgive(mhp_watchdog *watchdog, double stood_s)
{
    mhp_liveness_forgive(watchdog->liveness);
    watchdog->deadline.slow_s += stood_s;
    watchdog->deadline.limit_s += stood_s;
}

static void tick(mhp_watchdog *watchdog)
{
    uint64_t drained;

    mhp_liveness_poll(watchdog->liveness, watchdog->wake, TICK_MS);
    (void)!read(watchdog->wake, &drained, sizeof drained);
    if (mhp_watchdog_seconds(watchdog->tick_ns) >= stopped_s) {
        forgive(watchdog, mhp_watchdog_seconds(watchdog->tick_ns));
    }
    watchdog->tick_ns = mhp_time_ns();
    mhp_watchdog_update(watchdog);
    if (mhp_watchdog_seconds(watchdog->beat_ns) >= beat_s) {
        watchdog->beat_ns = mhp_time_ns();
        mhp_liveness_beat(watchdog->liveness, &watchdog->place);
    }
    mhp_watchdog_take_requests(watchdog);
    mhp_watchdog_check(watchdog);
}

static void *run_thread(void *context)
{
    mhp_watchdog *watchdog = context;

    while (!atomic_load(&watchdog->stopping)) {
        tick(watchdog);
    }
    mhp_watchdog_take_requests(watchdog);
    return NULL;
}

/* ---- start and end ---- */

/* Names all ranks; the run's number is rank 0's clock. */
static mhp_status share_identities(mhp_watchdog *watchdog, mhp_flight_identity *own)
{
    mhp_status status = MHP_OK;
    mhp_flight_identity *all = NULL;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    own->run = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    gethostname(own->host, sizeof own->host - 1);
    MHP_TRY(out, mhp_calloc(&all, (size_t)watchdog->size, sizeof *all));
    MHP_TRY(out, mhp_comm_share(watchdog->params.comm, own, sizeof *own, all));
    own->run = all[MHP_WATCHDOG_ROOT].run;
    for (int rank = 0; rank < watchdog->size; rank++) {
        mhp_rank_view *view = &watchdog->ranks[rank];

        view->state = MHP_RANK_UNKNOWN;
        snprintf(view->name, sizeof view->name, "rank %d (host %.*s, pid %d)", rank, MHP_FLIGHT_HOST_MAX - 1, all[rank].host,
                 (int)all[rank].pid);
        watchdog->silence[rank] = mhp_deadline_of_silence((double)watchdog->params.watch->silence_seconds +
                                                          mhp_watchdog_silence_delay_s(watchdog, rank));
    }
out:
    mhp_free(all);
    return status;
}

static mhp_status start(mhp_watchdog *watchdog)
{
    int error;

    watchdog->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watchdog->wake < 0) {
        return mhp_error_set(MHP_ERR_LIMIT, "cannot make an event file: %s", strerror(errno));
    }
    watchdog->tick_ns = mhp_time_ns();
    mhp_watchdog_update(watchdog);
    watchdog->deadline = mhp_deadline_of_section((double)watchdog->params.watch->start_seconds, 0);
    error = pthread_create(&watchdog->thread, NULL, run_thread, watchdog);
    if (error != 0) {
        return mhp_error_set(MHP_ERR_LIMIT, "cannot start the thread of the watchdog: %s", strerror(error));
    }
    watchdog->started = true;
    return MHP_OK;
}

static void message_posted(void *context, const char *name)
{
    mhp_flight_message(context, name, false, MHP_OK);
}

static void message_ended(void *context, const char *name, mhp_status status)
{
    mhp_flight_message(context, name, true, status);
}

static mhp_status allocate(mhp_watchdog *watchdog)
{
    int length = watchdog->params.directory
                     ? snprintf(watchdog->flight_path, sizeof watchdog->flight_path, "%s/flight", watchdog->params.directory)
                     : 0;

    if (length >= PATH_LENGTH_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "log.dir: a path of %d bytes, expected less than %d", length, PATH_LENGTH_MAX);
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&watchdog->ranks, (size_t)watchdog->size, sizeof *watchdog->ranks));
    return mhp_calloc(&watchdog->silence, (size_t)watchdog->size, sizeof *watchdog->silence);
}

mhp_status mhp_watchdog_open(const mhp_watchdog_params *params, mhp_watchdog **watchdog_out)
{
    mhp_status status = MHP_OK;
    mhp_watchdog *watchdog = NULL;
    mhp_flight_identity own = {.rank = mhp_comm_rank(params->comm), .size = mhp_comm_size(params->comm), .pid = (int32_t)getpid()};
    mhp_liveness_params liveness = {.beat_bytes = sizeof(mhp_place), .heard = mhp_watchdog_take_beat,
                                    .word = mhp_watchdog_take_word, .lost = mhp_watchdog_take_loss};
    mhp_comm_observer observer = {.posted = message_posted, .ended = message_ended};

    MHP_RETURN_IF_ERROR(mhp_calloc(&watchdog, 1, sizeof *watchdog));
    pthread_mutex_init(&watchdog->lock, NULL);
    watchdog->params = *params;
    watchdog->wake = -1;
    atomic_init(&watchdog->lowest_failed, INT_MAX);
    watchdog->rank = own.rank;
    watchdog->size = own.size;
    watchdog->enter_ns = mhp_time_ns();
    MHP_TRY(out, mhp_comm_agree(params->comm, allocate(watchdog), NULL));
    MHP_TRY(out, share_identities(watchdog, &own));
    MHP_TRY(out, mhp_comm_agree(params->comm, mhp_flight_create(mhp_comm_device(params->comm), &own, &watchdog->flight), NULL));
    liveness.context = watchdog;
    MHP_TRY(out, mhp_liveness_open(params->comm, &liveness, &watchdog->liveness));
    observer.context = watchdog->flight;
    MHP_TRY(out, mhp_comm_observe(params->comm, &observer));
    MHP_TRY(out, mhp_comm_agree(params->comm, start(watchdog), NULL));
    *watchdog_out = watchdog;
    watchdog = NULL;
out:
    mhp_watchdog_close(watchdog);
    return status;
}

void mhp_watchdog_close(mhp_watchdog *watchdog)
{
    if (!watchdog) {
        return;
    }
    if (watchdog->started) {
        atomic_store(&watchdog->stopping, 1);
        wake(watchdog);
        pthread_join(watchdog->thread, NULL);
    }
    mhp_liveness_close(watchdog->liveness);
    (void)mhp_comm_observe(watchdog->params.comm, NULL);
    mhp_flight_destroy(watchdog->flight);
    if (watchdog->wake >= 0) {
        close(watchdog->wake);
    }
    pthread_mutex_destroy(&watchdog->lock);
    mhp_free(watchdog->silence);
    mhp_free(watchdog->ranks);
    mhp_free(watchdog);
}

/* ---- the host thread ---- */

void mhp_watchdog_enter(mhp_watchdog *watchdog, mhp_section section, int64_t number)
{
    uint64_t now_ns = mhp_time_ns();

    if (!watchdog) {
        return;
    }
    pthread_mutex_lock(&watchdog->lock);
    watchdog->typical_s[watchdog->section] =
        mhp_typical_time(watchdog->typical_s[watchdog->section], (double)(now_ns - watchdog->enter_ns) * 1e-9);
    pthread_mutex_unlock(&watchdog->lock);
    watchdog->section = section;
    watchdog->enter_ns = now_ns;
    mhp_flight_enter(watchdog->flight, section, number);
}

mhp_flight *mhp_watchdog_flight(mhp_watchdog *watchdog)
{
    return watchdog ? watchdog->flight : NULL;
}

void mhp_watchdog_saved(mhp_watchdog *watchdog, double seconds)
{
    if (watchdog) {
        pthread_mutex_lock(&watchdog->lock);
        watchdog->save_s = seconds;
        pthread_mutex_unlock(&watchdog->lock);
    }
}

/* Waits until a flag of the thread is set. */
static bool await(atomic_int *flag, double patience_s)
{
    const struct timespec pause = {0, 2000000};
    uint64_t start_ns = mhp_time_ns();

    while (!atomic_load(flag) && mhp_watchdog_seconds(start_ns) < patience_s) {
        nanosleep(&pause, NULL);
    }
    return atomic_load(flag);
}

/* Whether this rank is to report: of several ranks that fail at once the lowest does. */
static bool reports_failure(mhp_watchdog *watchdog, bool agreed)
{
    const struct timespec wait = {0, FAILURES_NS};

    if (await(&watchdog->failure_told, told_s) && watchdog->failure_is_late) {
        return false;
    }
    if (agreed || watchdog->rank == MHP_WATCHDOG_ROOT) {
        return watchdog->rank == MHP_WATCHDOG_ROOT;
    }
    nanosleep(&wait, NULL);
    return watchdog->rank <= atomic_load(&watchdog->lowest_failed);
}

bool mhp_watchdog_fail(mhp_watchdog *watchdog, bool agreed)
{
    const struct timespec wait = {0, 2 * FAILURES_NS};
    bool reports;

    snprintf(watchdog->failure, sizeof watchdog->failure, "%.*s", MHP_WATCHDOG_TEXT_MAX - 1, mhp_error_text());
    watchdog->failure_agreed = agreed;
    atomic_store(&watchdog->failed, 1);
    wake(watchdog);
    reports = reports_failure(watchdog, agreed);
    if (!reports && !agreed) {
        nanosleep(&wait, NULL);         /* the one that reports has the time for it: the launcher may end all with the first that ends */
    }
    return reports;
}

bool mhp_watchdog_gave_up(mhp_watchdog *watchdog, double patience_s)
{
    const struct timespec pause = {0, 2000000};

    if (!watchdog || !await(&watchdog->gave_up, patience_s)) {
        return false;
    }
    while (watchdog->other_reports && mhp_watchdog_seconds(watchdog->ended_ns) < other_reports_s) {
        nanosleep(&pause, NULL);
    }
    return true;
}

bool mhp_watchdog_wants_stop(const mhp_watchdog *watchdog)
{
    return watchdog && atomic_load(&watchdog->wants_stop);
}

void mhp_watchdog_ask(mhp_watchdog *watchdog, mhp_request request)
{
    int saved_errno = errno;

    atomic_store(&watchdog->requests[request], 1);
    wake(watchdog);
    errno = saved_errno;
}
