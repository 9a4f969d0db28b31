/* Signals that a run answers: SIGUSR1 dumps the flight recorders, SIGUSR2 is preemption, SIGTERM and SIGINT may be. */
#ifndef MHP_LAUNCH_SIGNALS_H
#define MHP_LAUNCH_SIGNALS_H

#include "runtime/watchdog.h"

/* Without a watchdog SIGUSR2 ends the process with MHP_EXIT_PREEMPTED and SIGTERM and SIGINT end it as they do by default: nothing has
 * been done yet that could be lost. */
void mhp_signals_install(void);
/* Who is told from now on; NULL: nobody, and the signals do nothing any more. When it returns the one before is not told again. */
void mhp_signals_tell(mhp_watchdog *watchdog);

/* Ends the process with one line when the launcher and MPI take longer than that to bring the ranks together; 0 when they have. */
void mhp_signals_limit_start(int64_t seconds);

/* Ends the process with this line, "mhcpipe: error: TEXT", in so many seconds; 0: the limit before is off. The text is the caller's. */
void mhp_signals_limit(int64_t seconds, const char *text);

#endif
