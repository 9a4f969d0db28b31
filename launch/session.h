/* What every command that runs under mpirun does at its start and at its end. */
#ifndef MHP_LAUNCH_SESSION_H
#define MHP_LAUNCH_SESSION_H

#include "comm/comm.h"
#include "core/lock.h"
#include "launch/command.h"
#include "launch/config.h"
#include "launch/seat.h"
#include "runtime/watchdog.h"

typedef struct mhp_session {
    mhp_config config;
    mhp_device *device;
    mhp_comm *comm;
    mhp_lock *folder;       /* rank 0's, of a run with a folder */
    mhp_faults *faults;     /* these two in a run that is watched, else NULL */
    mhp_watchdog *watchdog;
    bool root; /* world rank 0: the one that prints */
    mhp_seat seat;      /* of this process */
    mhp_rank_card *ranks; /* [size of the world]: who is where */
    int exit_status;    /* the command's, of what the process ends with if nothing failed */
} mhp_session;

/* Reads the configuration, binds the process, opens the device, joins the world and takes its rank in it. Every rank
 * gets the same status. The session starts zeroed and is to be closed in every case. MHP_ERR_CONFIG if versions or
 * configurations of two ranks differ. */
mhp_status mhp_session_open(mhp_session *session, const char *path, const mhp_overrides *overrides);

/* The same without a word on differences, in which case every process keeps the launcher's rank. `path` may be NULL: then the
 * configuration stays empty, and the device is the CPU. */
mhp_status mhp_session_join(mhp_session *session, const char *path, const mhp_overrides *overrides);

/* The same as open for what takes long: watches it, answers signals if they are installed, and injects the configured faults. Flight
 * recorders go into the run's folder if it `records`, which it then has for itself until the session is closed, else nowhere. Every rank
 * gets the same status: MHP_ERR_TIMEOUT if another run holds the folder. */
mhp_status mhp_session_open_watched(mhp_session *session, const char *path, const mhp_overrides *overrides, bool records);

/* Leaves the world and returns the exit status. An error that all ranks agreed on is printed once; one
 * of this rank alone is printed, told to the others, and ends the process here, for the others may
 * wait for messages that never come. Then what uses the world is to be there still: mhp_comm_may_release.
 * From here on the process has watch.silence_seconds to end in order; then it ends with a line. */
int mhp_session_close(mhp_session *session, mhp_status status);

#endif
