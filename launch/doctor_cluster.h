/* mhcpipe doctor --cluster: whether the hosts of a run fit together, and how fast the lines between its ranks are. */
#ifndef MHP_LAUNCH_DOCTOR_CLUSTER_H
#define MHP_LAUNCH_DOCTOR_CLUSTER_H

#include "launch/command.h"

/* Every rank of a launch; `path` may be NULL. Returns the exit status: MHP_EXIT_ERROR if versions, programs or configurations differ. */
int mhp_doctor_cluster(const char *path, const mhp_overrides *overrides);

#endif
