/* What a rank did on several lanes, as one line of time. Private to runtime/profile/timeline*. */
#ifndef MHP_RUNTIME_PROFILE_TIMELINE_INTERNAL_H
#define MHP_RUNTIME_PROFILE_TIMELINE_INTERNAL_H

#include "runtime/profile/timeline.h"

/* Fills rank->spans from compute's spans, which follow each other without gaps, and rank->beside, which it sorts. */
mhp_status mhp_timed_rank_join_lanes(mhp_timed_rank *rank, const mhp_timed_span *compute, size_t count);

#endif
