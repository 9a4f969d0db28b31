/* Sees to it that a run ends when it cannot go on, and says why: a thread of every rank that listens for the other ranks, watches the
 * deadline of the section that the run is in, and answers requests from outside. The first cause counts, and one rank reports it.
 *
 * Before anything is ended every rank writes its flight recorder to DIRECTORY/flight. */
#ifndef MHP_RUNTIME_WATCHDOG_H
#define MHP_RUNTIME_WATCHDOG_H

#include <stdbool.h>

#include "comm/comm.h"
#include "runtime/flight.h"
#include "runtime/options.h"

typedef struct mhp_watchdog mhp_watchdog;

typedef struct mhp_watchdog_params {
    mhp_comm *comm;
    const mhp_watch_params *watch;  /* must outlive the watchdog */
    const char *directory;          /* the run's folder; likewise. NULL: no flight recorder is written */
    /* Prints a line: the cause of the end, or a warning. On the thread. */
    void (*report)(void *context, bool is_error, const char *line);
    /* Ends the process at once with an exit status: main does not come to its end by itself, or shall not. On the thread. */
    void (*end)(void *context, int exit_status);
    void *context;
} mhp_watchdog_params;

enum { MHP_EXIT_FAILED = 1, MHP_EXIT_PREEMPTED = 75 };     /* 75: EX_TEMPFAIL, which schedulers take for "start again" */

/* Connects the ranks and starts the thread; the run is in MHP_SECTION_START. Every rank; all get the same status. */
mhp_status mhp_watchdog_open(const mhp_watchdog_params *params, mhp_watchdog **watchdog_out);
/* Before the comm and the device are closed, and behind what has marks. What happens to this process from here on is no loss to the
 * others. NULL is allowed. */
void mhp_watchdog_close(mhp_watchdog *watchdog);

/* Of these NULL is allowed if not said otherwise; the host thread.
 * The run enters a section. */
void mhp_watchdog_enter(mhp_watchdog *watchdog, mhp_section section, int64_t number);
mhp_flight *mhp_watchdog_flight(mhp_watchdog *watchdog);        /* NULL for NULL */
/* A checkpoint took that long from its begin to its end: what the next one is expected to take. */
void mhp_watchdog_saved(mhp_watchdog *watchdog, double seconds);
/* This rank failed with the calling thread's error text, or all ranks agreed on a failure: writes the flight recorder, and tells the
 * others what they do not know, so that they end. Takes two seconds at most. Returns whether this rank is to report the failure: of several
 * that fail at once the lowest, and rank 0 for all that agreed. Once; not NULL. */
bool mhp_watchdog_fail(mhp_watchdog *watchdog, bool agreed);
/* Whether the watchdog gave the run up, for a cause that is reported already; waits `patience_s` for it at most. Where
 * another rank is about to report its failure, returns when it had the time for that: the launcher may end all with the first that ends. */
bool mhp_watchdog_gave_up(mhp_watchdog *watchdog, double patience_s);
/* Whether somebody asked for the run to stop behind this step with a checkpoint. Any thread. */
bool mhp_watchdog_wants_stop(const mhp_watchdog *watchdog);

typedef enum mhp_request {
    MHP_REQUEST_DUMP,               /* every rank writes its flight recorder */
    MHP_REQUEST_PREEMPT,            /* stop behind the step with a checkpoint; a second one, a second later or more: at once */
    MHP_REQUEST_TERMINATE,          /* somebody ends the run soon: like PREEMPT, if no rank was lost and a checkpoint fits; likewise */
    MHP_REQUEST_COUNT
} mhp_request;

/* From a signal's handler, or any thread. */
void mhp_watchdog_ask(mhp_watchdog *watchdog, mhp_request request);

#endif
