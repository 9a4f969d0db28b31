/* Signals that a run answers: SIGUSR1 dumps the flight recorders, SIGUSR2 is preemption, SIGTERM and SIGINT may be. */
#ifndef MHP_LAUNCH_SIGNALS_H
#define MHP_LAUNCH_SIGNALS_H

#include "runtime/watchdog.h"

/* Without a watchdog SIGUSR2 ends the process with MHP_EXIT_PREEMPTED and SIGTERM and SIGINT end it as they do by default: nothing has
 * been done yet that could be lost. */
void mhp_signals_install(void);
/* Who is told from now on; NULL: nobody, SIGTERM ends the process, and the others do nothing any more. When it returns the one before is
 * not told again. */
void mhp_signals_tell(mhp_watchdog *watchdog);

/* Ends the process with this line, "mhcpipe: error: TEXT", in so many seconds; 0: the limit before is off. The text is the caller's. What
 * the launcher did not start as its first rank waits a little longer, for one line is enough. */
void mhp_signals_limit(int64_t seconds, const char *text);
/* The limit for the launcher and MPI bringing the ranks together; 0 when they have, and whoever watches the rest does. */
void mhp_signals_limit_start(int64_t seconds);
/* The limit for the end of the process, where MPI waits for all ranks. `is_news`: SIGTERM is not to be expected, and has a line as well. */
void mhp_signals_limit_leave(int64_t seconds, int rank, bool is_news);

#endif
