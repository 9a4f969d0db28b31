#include "launch/signals.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launch/command.h"

/* How much longer others wait than the first rank, which is to print the one line and to end the launch with it. */
enum { BACKSTOP_SECONDS = 2 };

enum { SIGNAL_STATUS = 128 };      /* a shell's, of a process that a signal ended: with the signal's number */

static _Atomic(mhp_watchdog *) told;
static atomic_int told_before;      /* somebody was told at some time */
static atomic_int inside;           /* handlers that are running */

static const char *volatile limit_text, *volatile terminated_text;

static void put(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

/* Nothing for NULL. */
static void put_error(const char *text)
{
    if (text) {
        put("mhcpipe: error: ");
        put(text);
        put("\n");
    }
}

static void take_signal(int number)
{
    mhp_watchdog *watchdog;

    atomic_fetch_add(&inside, 1);
    watchdog = atomic_load(&told);
    if (watchdog) {
        mhp_watchdog_ask(watchdog, number == SIGUSR1   ? MHP_REQUEST_DUMP
                                   : number == SIGUSR2 ? MHP_REQUEST_PREEMPT
                                                       : MHP_REQUEST_TERMINATE);
    } else if (number == SIGTERM || number == SIGINT || (number == SIGUSR2 && !atomic_load(&told_before))) {
        put_error(terminated_text);
        _exit(number == SIGUSR2 ? MHP_EXIT_PREEMPTED : SIGNAL_STATUS + number);
    }
    atomic_fetch_sub(&inside, 1);
}

/* As a shell's background commands have it, for which the terminal's SIGINT is not meant. */
static bool is_ignored(int number)
{
    struct sigaction found;

    return sigaction(number, NULL, &found) == 0 && found.sa_handler == SIG_IGN;
}

void mhp_signals_install(void)
{
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
    struct sigaction action = {.sa_handler = take_signal, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i] != SIGINT || !is_ignored(SIGINT)) {
            sigaction(numbers[i], &action, NULL);
        }
    }
}

void mhp_signals_tell(mhp_watchdog *watchdog)
{
    atomic_store(&told, watchdog);
    atomic_store(&told_before, 1);
    while (!watchdog && atomic_load(&inside) > 0) {
        sched_yield();
    }
}

static void give_up(int number)
{
    (void)number;
    put_error(limit_text);
    _exit(MHP_EXIT_FAILED);
}

void mhp_signals_limit(int64_t seconds, const char *text)
{
    struct sigaction action = {.sa_handler = give_up};

    alarm(0);
    limit_text = text;
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    alarm((unsigned)(seconds > 0 && mhp_launched_rank() > 0 ? seconds + BACKSTOP_SECONDS : seconds));
}

void mhp_signals_limit_start(int64_t seconds)
{
    mhp_signals_limit(seconds, "the launcher and MPI did not bring the ranks together within watch.start_seconds");
}

void mhp_signals_limit_leave(int64_t seconds, int rank, bool is_news)
{
    static char text[128];

    snprintf(text, sizeof text, "rank %d: the ranks did not leave within %lld s", rank, (long long)seconds);
    terminated_text = is_news ? "terminated while the ranks left: one of them may have died" : NULL;
    mhp_signals_limit(seconds, text);
}
