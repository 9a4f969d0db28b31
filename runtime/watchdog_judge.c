/* What the watchdog's thread makes of what it hears and sees. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/watchdog_internal.h"

enum { ROOT = MHP_WATCHDOG_ROOT, TEXT_BYTES = MHP_WATCHDOG_TEXT_MAX, ORDER_MAX = 5 };

/* After which a process is ended that does not end by itself: where the cause is reported, where another rank is about to report it (and
 * the launcher would end that one with the first that ends), and where it is this rank's own. */
static const double grace_s = 0.5, other_grace_s = 2, own_grace_s = 5;
static const double silent_s = 1.5, backstop_s = 5, link_s = 3;
static const double second_request_s = 1, dump_again_s = 1, term_wait_s = 0.25;

typedef enum word_kind {
    WORD_GIVE_UP,                   /* the run cannot go on, for this cause, which is reported */
    WORD_FAILED,                    /* "RANK text": that rank failed by itself */
    WORD_DUMP,
    WORD_TERMINATE,                 /* a signal came to another rank than rank 0 */
    WORD_STOP,                      /* at once, without a checkpoint */
} word_kind;

static void report(const mhp_watchdog *watchdog, bool is_error, const char *text)
{
    watchdog->params.report(watchdog->params.context, is_error, text);
}

/* ---- the end ---- */

static void dump(mhp_watchdog *watchdog, const char *why)
{
    watchdog->dump_ns = mhp_time_ns();
    if (watchdog->params.directory) {
        (void)mhp_flight_dump(watchdog->flight, watchdog->flight_path, why);    /* a run that has not made its folder has none */
    }
}

/* The cause goes out before anything that takes time. */
static void give_up(mhp_watchdog *watchdog, const char *text, bool reports)
{
    if (watchdog->ended_ns != 0) {
        return;
    }
    watchdog->ended_ns = mhp_time_ns();
    watchdog->pending.due_ns = 0;
    if (reports) {
        report(watchdog, true, text);
    }
    mhp_liveness_tell(watchdog->liveness, WORD_GIVE_UP, text);  /* every rank once, so that all learn of it whoever is gone */
    dump(watchdog, text);
    atomic_store(&watchdog->gave_up, 1);
    mhp_comm_lose(watchdog->params.comm, text);
}

static void end(mhp_watchdog *watchdog, int exit_status)
{
    mhp_liveness_leave(watchdog->liveness);
    watchdog->params.end(watchdog->params.context, exit_status);
}

/* ---- losses ---- */

/* After how long this rank reports the loss of another, if nobody else does: rank 0 at once, and rank 1 in its place. */
static double report_delay_s(const mhp_watchdog *watchdog, int lost)
{
    static const double first_s = 0.3, next_s = 0.1;
    int order = lost == ROOT ? watchdog->rank - 1 : watchdog->rank;

    if (order == 0) {
        return 0;
    }
    if (lost == ROOT) {
        return first_s + next_s * (order < ORDER_MAX ? order : ORDER_MAX);
    }
    return watchdog->rank < lost ? first_s : first_s + next_s;
}

static void describe_loss(const mhp_watchdog *watchdog, int rank, const char *what, const char *how, char text[TEXT_BYTES])
{
    const mhp_rank_view *lost = &watchdog->ranks[rank];
    char place[MHP_PLACE_TEXT_MAX];

    mhp_place_format(&lost->place, place);
    snprintf(text, TEXT_BYTES, "%s %s during %s (last heard of %.2f s ago): %s", lost->name, what, place,
             (double)mhp_liveness_silence_ns(watchdog->liveness, rank) * 1e-9, how);
}

void mhp_watchdog_take_loss(void *context, int rank, const char *how)
{
    mhp_watchdog *watchdog = context;
    double delay_s = report_delay_s(watchdog, rank);
    char text[TEXT_BYTES];

    if (watchdog->ended_ns != 0 || watchdog->pending.due_ns != 0) {
        return;
    }
    watchdog->ranks[rank].state = MHP_RANK_LOST;
    describe_loss(watchdog, rank, "died", how, text);
    if (delay_s == 0) {
        give_up(watchdog, text, true);
        return;
    }
    dump(watchdog, text);
    memcpy(watchdog->pending.text, text, sizeof text);
    watchdog->pending.due_ns = mhp_time_ns() + (uint64_t)(delay_s * 1e9);
}

/* Rank 0 hears all others, and rank 1 hears rank 0. Those who hear less wait longer. */
static bool reports_silence(const mhp_watchdog *watchdog, int rank)
{
    return rank == ROOT ? watchdog->rank == 1 : watchdog->rank == ROOT;
}

double mhp_watchdog_silence_delay_s(const mhp_watchdog *watchdog, int rank)
{
    return reports_silence(watchdog, rank) ? 0 : link_s;
}

static void expire_silence(mhp_watchdog *watchdog, int rank, bool reports, double elapsed_s)
{
    mhp_rank_view *view = &watchdog->ranks[rank];
    char how[256], text[TEXT_BYTES];

    view->state = MHP_RANK_SILENT;
    if (reports) {
        snprintf(how, sizeof how, "no sign of life within watch.silence_seconds, %lld s: it is stopped, or its host or network hangs",
                 (long long)watchdog->params.watch->silence_seconds);
    } else {
        snprintf(how, sizeof how, "rank %d has heard nothing of it for %.1f s though other ranks have: the link between their hosts is "
                 "cut", watchdog->rank, elapsed_s);
    }
    describe_loss(watchdog, rank, "was lost", how, text);
    give_up(watchdog, text, true);
}

static void check_silence(mhp_watchdog *watchdog, int rank)
{
    bool reports = reports_silence(watchdog, rank);
    double elapsed_s = (double)mhp_liveness_silence_ns(watchdog->liveness, rank) * 1e-9;
    const mhp_rank_view *view = &watchdog->ranks[rank];
    char place[MHP_PLACE_TEXT_MAX], text[TEXT_BYTES];

    switch (mhp_deadline_check(&watchdog->silence[rank], elapsed_s)) {
    case MHP_VERDICT_EXPIRED:
        expire_silence(watchdog, rank, reports, elapsed_s);
        break;
    case MHP_VERDICT_SLOW:
        if (reports) {
            mhp_place_format(&view->place, place);
            snprintf(text, sizeof text, "%s has given no sign of life for %.1f s (it is stopped, or its host or network hangs), and was "
                     "last in %s; the run ends after %lld s", view->name, elapsed_s, place,
                     (long long)watchdog->params.watch->silence_seconds);
            report(watchdog, false, text);
        }
        break;
    case MHP_VERDICT_FINE:
        break;
    }
}

/* ---- deadlines of sections ---- */

typedef struct section_limit {
    const char *key;
    double limit_s;
} section_limit;

static section_limit limit_of(const mhp_watchdog *watchdog, int section)
{
    const mhp_watch_params *watch = watchdog->params.watch;

    switch (section) {
    case MHP_SECTION_START:
        return (section_limit){"watch.start_seconds", (double)watch->start_seconds};
    case MHP_SECTION_STEP:
    case MHP_SECTION_EVALUATION:
        return (section_limit){"watch.step_seconds", (double)watch->step_seconds};
    default:
        return (section_limit){"watch.save_seconds", (double)watch->save_seconds};
    }
}

static double typical_time(mhp_watchdog *watchdog, int section)
{
    double typical_s;

    pthread_mutex_lock(&watchdog->lock);
    typical_s = watchdog->typical_s[section];
    pthread_mutex_unlock(&watchdog->lock);
    return typical_s;
}

/* Looks where this rank is; another section has another deadline. */
void mhp_watchdog_update(mhp_watchdog *watchdog)
{
    mhp_place before = watchdog->place;
    mhp_rank_view *own = &watchdog->ranks[watchdog->rank];

    mhp_flight_place(watchdog->flight, &watchdog->place);
    own->place = watchdog->place;
    own->state = MHP_RANK_PRESENT;
    if (watchdog->place.section != before.section || watchdog->place.number != before.number ||
        watchdog->place.section_s < before.section_s) {
        watchdog->deadline = mhp_deadline_of_section(limit_of(watchdog, watchdog->place.section).limit_s,
                                                     typical_time(watchdog, watchdog->place.section));
    }
}

/* What rank 0 makes of the places that all ranks told it; another rank knows its own. */
static void diagnose(mhp_watchdog *watchdog, char text[MHP_DIAGNOSIS_TEXT_MAX])
{
    char place[MHP_PLACE_TEXT_MAX];

    if (watchdog->rank != ROOT) {
        mhp_place_format(&watchdog->place, place);
        snprintf(text, MHP_DIAGNOSIS_TEXT_MAX, "rank 0 has not said why; rank %d is at %s", watchdog->rank, place);
        return;
    }
    for (int rank = 0; rank < watchdog->size; rank++) {
        mhp_rank_view *view = &watchdog->ranks[rank];

        if (rank != ROOT && view->state != MHP_RANK_UNKNOWN) {
            view->silent_s = (double)mhp_liveness_silence_ns(watchdog->liveness, rank) * 1e-9;
            view->state = view->silent_s >= silent_s ? MHP_RANK_SILENT : MHP_RANK_PRESENT;
        }
    }
    mhp_diagnose(watchdog->ranks, watchdog->size, text);
}

/* Rank 0 knows where all are, and speaks; the others wait a little longer, in case that it cannot. */
static void check_section(mhp_watchdog *watchdog)
{
    section_limit limit = limit_of(watchdog, watchdog->place.section);
    double elapsed_s = watchdog->place.section_s - (watchdog->rank == ROOT ? 0 : backstop_s);
    mhp_place section = {.section = watchdog->place.section, .number = watchdog->place.number};
    mhp_verdict verdict = mhp_deadline_check(&watchdog->deadline, elapsed_s);
    char place[MHP_PLACE_TEXT_MAX], cause[MHP_DIAGNOSIS_TEXT_MAX] = "", text[TEXT_BYTES + MHP_DIAGNOSIS_TEXT_MAX];

    if (verdict == MHP_VERDICT_FINE || (verdict == MHP_VERDICT_SLOW && watchdog->rank != ROOT)) {
        return;
    }
    mhp_place_format(&section, place);
    diagnose(watchdog, cause);
    if (verdict == MHP_VERDICT_SLOW) {
        snprintf(text, sizeof text, "%s has lasted %.1f s and ends the run at %.0f s: %s", place, elapsed_s, limit.limit_s, cause);
        report(watchdog, false, text);
        return;
    }
    snprintf(text, sizeof text, "%s made no end within %s, %.0f s: %s", place, limit.key, limit.limit_s, cause);
    give_up(watchdog, text, true);
}

/* ---- words and requests ---- */

static void stop_at_once(mhp_watchdog *watchdog, const char *why)
{
    mhp_liveness_tell(watchdog->liveness, WORD_STOP, why);
    if (watchdog->rank == ROOT) {
        report(watchdog, false, why);
    }
    end(watchdog, MHP_EXIT_PREEMPTED);
}

static void dump_if_asked(mhp_watchdog *watchdog, bool tells)
{
    char text[TEXT_BYTES];

    if (mhp_watchdog_seconds(watchdog->dump_ns) < dump_again_s) {
        return;                         /* the launcher tells all ranks, and all ranks tell each other */
    }
    dump(watchdog, MHP_FLIGHT_ASKED);
    if (tells) {
        mhp_liveness_tell(watchdog->liveness, WORD_DUMP, "");
    }
    if (watchdog->rank == ROOT && watchdog->params.directory) {
        snprintf(text, sizeof text, "every rank writes its flight recorder to %.*s, which mhcpipe diagnose %.*s reads", TEXT_BYTES / 3,
                 watchdog->flight_path, TEXT_BYTES / 3, watchdog->params.directory);
        report(watchdog, false, text);
    }
}

/* "RANK text": one that failed by itself, and reports it unless a lower one does. Rank 0 tells those whom it cannot reach. */
static void take_failure(mhp_watchdog *watchdog, const char *said)
{
    char text[TEXT_BYTES];
    int failed = atoi(said);

    if (failed >= atomic_load(&watchdog->lowest_failed)) {
        return;
    }
    atomic_store(&watchdog->lowest_failed, failed);
    if (watchdog->rank == ROOT) {
        mhp_liveness_tell(watchdog->liveness, WORD_FAILED, said);
    }
    snprintf(text, sizeof text, "rank %d: %s", failed, said + strcspn(said, " ") + 1);
    if (watchdog->ended_ns == 0) {
        watchdog->other_reports = true;
        give_up(watchdog, text, false);
    }
}

void mhp_watchdog_take_word(void *context, int rank, int kind, const char *text)
{
    mhp_watchdog *watchdog = context;

    (void)rank;
    switch ((word_kind)kind) {
    case WORD_GIVE_UP:
        give_up(watchdog, text, false);
        break;
    case WORD_FAILED:
        take_failure(watchdog, text);
        break;
    case WORD_DUMP:
        dump_if_asked(watchdog, watchdog->rank == ROOT);
        break;
    case WORD_TERMINATE:
        if (watchdog->terminate_ns == 0) {
            watchdog->terminate_ns = mhp_time_ns();
        }
        break;
    case WORD_STOP:
        stop_at_once(watchdog, text);
        break;
    }
}

void mhp_watchdog_take_beat(void *context, int rank, const void *beat)
{
    mhp_watchdog *watchdog = context;

    memcpy(&watchdog->ranks[rank].place, beat, sizeof(mhp_place));
    watchdog->ranks[rank].state = MHP_RANK_PRESENT;
}

static void take_preemption(mhp_watchdog *watchdog)
{
    if (watchdog->place.section == MHP_SECTION_START) {
        stop_at_once(watchdog, "asked to stop before the first step");
    } else if (watchdog->preempt_ns != 0 && mhp_watchdog_seconds(watchdog->preempt_ns) >= second_request_s) {
        stop_at_once(watchdog, "asked to stop a second time: stops at once, without a checkpoint");
    } else if (watchdog->preempt_ns == 0) {
        watchdog->preempt_ns = mhp_time_ns();
        atomic_store(&watchdog->wants_stop, 1);
        if (watchdog->rank == ROOT) {
            report(watchdog, false, "asked to stop: saves a checkpoint behind this step, then stops");
        }
    }
}

/* A second one counts on the rank that got the first: what the launcher tells all of them reaches some late. */
static void take_termination(mhp_watchdog *watchdog)
{
    uint64_t now_ns = mhp_time_ns();

    if (watchdog->own_terminate_ns != 0 && mhp_watchdog_seconds(watchdog->own_terminate_ns) >= second_request_s &&
        watchdog->ended_ns == 0) {
        stop_at_once(watchdog, "terminated a second time: stops at once, without a checkpoint");
        return;
    }
    watchdog->own_terminate_ns = watchdog->own_terminate_ns == 0 ? now_ns : watchdog->own_terminate_ns;
    if (watchdog->terminate_ns == 0) {
        watchdog->terminate_ns = now_ns;
        mhp_liveness_tell(watchdog->liveness, WORD_TERMINATE, "");
    }
}

/* A launcher that has lost a rank terminates the others; then the loss is the news, and comes within this wait. */
static void decide_termination(mhp_watchdog *watchdog)
{
    double left_s = (double)watchdog->params.watch->term_seconds - mhp_watchdog_seconds(watchdog->terminate_ns);
    double step_s = typical_time(watchdog, MHP_SECTION_STEP), save_s;

    if (watchdog->terminated || watchdog->rank != ROOT || watchdog->pending.due_ns != 0 ||
        mhp_watchdog_seconds(watchdog->terminate_ns) < term_wait_s) {
        return;
    }
    watchdog->terminated = true;
    pthread_mutex_lock(&watchdog->lock);
    save_s = watchdog->save_s;
    pthread_mutex_unlock(&watchdog->lock);
    if (watchdog->place.section == MHP_SECTION_START) {
        stop_at_once(watchdog, "terminated before the first step");
    } else if (mhp_save_fits(left_s, step_s, watchdog->place.section_s, save_s)) {
        atomic_store(&watchdog->wants_stop, 1);
        report(watchdog, false, "terminated: saves a checkpoint behind this step, then stops");
    } else {
        stop_at_once(watchdog, "terminated: stops at once, for a checkpoint does not fit into watch.term_seconds");
    }
}

/* The ranks that agreed on a failure leave in order; of another one they have to be told. */
static void tell_failure(mhp_watchdog *watchdog)
{
    char said[TEXT_BYTES];

    watchdog->failure_is_late = watchdog->ended_ns != 0;
    if (!watchdog->failure_is_late) {
        if (!watchdog->failure_agreed) {
            watchdog->ended_ns = mhp_time_ns();
            snprintf(said, sizeof said, "%d %.*s", watchdog->rank, TEXT_BYTES - 32, watchdog->failure);
            mhp_liveness_tell(watchdog->liveness, WORD_FAILED, said);
        }
        dump(watchdog, watchdog->failure);
    }
    atomic_store(&watchdog->failure_told, 1);
}

void mhp_watchdog_take_requests(mhp_watchdog *watchdog)
{
    if (atomic_exchange(&watchdog->requests[MHP_REQUEST_DUMP], 0)) {
        dump_if_asked(watchdog, true);
    }
    if (atomic_exchange(&watchdog->requests[MHP_REQUEST_PREEMPT], 0)) {
        take_preemption(watchdog);
    }
    if (atomic_exchange(&watchdog->requests[MHP_REQUEST_TERMINATE], 0)) {
        take_termination(watchdog);
    }
    if (atomic_load(&watchdog->failed) && !atomic_load(&watchdog->failure_told)) {
        tell_failure(watchdog);
    }
}

/* ---- all of it ---- */

static double grace_of(mhp_watchdog *watchdog)
{
    if (atomic_load(&watchdog->failed)) {
        return own_grace_s;
    }
    if (watchdog->other_reports) {      /* a launcher that terminates the rest has seen the end of a rank that has reported */
        return watchdog->terminate_ns != 0 ? 0 : other_grace_s;
    }
    return grace_s;
}

void mhp_watchdog_check(mhp_watchdog *watchdog)
{
    if (watchdog->ended_ns != 0) {
        if (mhp_watchdog_seconds(watchdog->ended_ns) >= grace_of(watchdog)) {
            end(watchdog, MHP_EXIT_FAILED);
        }
        return;
    }
    if (watchdog->pending.due_ns != 0 && mhp_time_ns() >= watchdog->pending.due_ns) {
        give_up(watchdog, watchdog->pending.text, true);
        return;
    }
    if (watchdog->terminate_ns != 0) {
        decide_termination(watchdog);
    }
    for (int rank = 0; rank < watchdog->size && watchdog->ended_ns == 0; rank++) {
        if (mhp_liveness_is_connected(watchdog->liveness, rank)) {
            check_silence(watchdog, rank);
        }
    }
    if (watchdog->ended_ns == 0) {
        check_section(watchdog);
    }
}
