/* What the files of the watchdog share: its state, and what its thread does with what it hears and sees. */
#ifndef MHP_RUNTIME_WATCHDOG_INTERNAL_H
#define MHP_RUNTIME_WATCHDOG_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "comm/liveness.h"
#include "runtime/deadline.h"
#include "runtime/diagnosis.h"
#include "runtime/watchdog.h"

enum { MHP_WATCHDOG_ROOT = 0, MHP_WATCHDOG_TEXT_MAX = MHP_WORD_TEXT_MAX, MHP_WATCHDOG_PATH_MAX = 4096 };

/* A loss that another rank should report; if it does not by then, this one does. */
typedef struct pending_loss {
    uint64_t due_ns;                /* 0: none */
    char text[MHP_WATCHDOG_TEXT_MAX];
} pending_loss;

struct mhp_watchdog {
    mhp_watchdog_params params;
    int rank, size;
    char flight_path[MHP_WATCHDOG_PATH_MAX];
    mhp_flight *flight;
    mhp_liveness *liveness;         /* the thread's, as all below up to the lock */
    mhp_rank_view *ranks;           /* [size] as last heard */
    mhp_deadline *silence;          /* [size] */
    mhp_deadline deadline;          /* of the section */
    mhp_place place;
    pending_loss pending;
    uint64_t tick_ns, beat_ns, dump_ns, ended_ns, preempt_ns, terminate_ns;
    uint64_t own_terminate_ns;      /* of the first signal to this process; terminate_ns: to any */
    bool terminated;
    pthread_mutex_t lock;           /* of the times */
    double typical_s[MHP_SECTION_COUNT], save_s;
    uint64_t enter_ns;              /* the host thread's */
    mhp_section section;
    pthread_t thread;
    bool started;
    int wake;                       /* an eventfd */
    atomic_int stopping, gave_up, wants_stop;
    atomic_int requests[MHP_REQUEST_COUNT];
    atomic_int lowest_failed;       /* of the ranks that said that they failed by themselves, this one too; INT_MAX: none */
    atomic_int failed, failure_told;        /* this rank by itself: asked to tell; told and dumped */
    bool failure_agreed;            /* final when `failed` is set, as the text */
    bool other_reports;             /* final when `gave_up` is set: the cause is another rank's failure, which that one is about to report */
    bool failure_is_late;           /* final when `failure_told` is set: the run had ended for another cause, which is reported */
    char failure[MHP_WATCHDOG_TEXT_MAX];
};

/* Seconds since a moment of mhp_time_ns's clock; 0 if that is to come. */
double mhp_watchdog_seconds(uint64_t then_ns);

/* The thread's: what came in from other ranks, for mhp_liveness_params; context is the watchdog. */
void mhp_watchdog_take_beat(void *context, int rank, const void *beat);
void mhp_watchdog_take_word(void *context, int rank, int kind, const char *text);
void mhp_watchdog_take_loss(void *context, int rank, const char *how);
/* Looks where this rank is. */
void mhp_watchdog_update(mhp_watchdog *watchdog);
/* What was asked for from outside and by the host thread. */
void mhp_watchdog_take_requests(mhp_watchdog *watchdog);
/* Losses to report, silences, deadlines; and the end of a process that does not end by itself. */
void mhp_watchdog_check(mhp_watchdog *watchdog);
/* Of this rank's silence about another: how much longer than the limit it waits, since others may know more. */
double mhp_watchdog_silence_delay_s(const mhp_watchdog *watchdog, int rank);

#endif
