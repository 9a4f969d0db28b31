/* Which run a profile in a run's folder belongs to. */
#ifndef MHP_RUNTIME_PROFILE_IDENTITY_H
#define MHP_RUNTIME_PROFILE_IDENTITY_H

#include "core/hash.h"
#include "runtime/memory_plan.h"

/* Checksum of what times and bytes of a step follow from: the sections model, parallel, schedule and train of the resolved
 * configuration, and the lowered plan in place of schedule.file. The number of steps is no part, for a run that goes on may get more of
 * them. The same on every rank. */
mhp_status mhp_profile_identity(const mhp_memory_params *params, mhp_hash *identity_out);

/* One rank, at the start of a run from step `first_step` (from 0) in a folder: removes the traces that stand there, and what was made of
 * them, unless they are of a run of this identity and of steps before that one. */
mhp_status mhp_profile_begin(const char *directory, mhp_hash identity, int64_t first_step);
/* Removes traces, report.json and report.html, whosever they are; what is not there is fine. */
mhp_status mhp_profile_remove(const char *directory);

#endif
