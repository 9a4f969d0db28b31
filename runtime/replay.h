/* Runs of one step's forward and backward passes that must give the same bits: this rank's losses and its part of the gradients are kept
 * after the first and compared after the second. What differs is a fault of a machine, or of our own. */
#ifndef MHP_RUNTIME_REPLAY_H
#define MHP_RUNTIME_REPLAY_H

#include "runtime/store.h"

typedef struct mhp_replay mhp_replay;

/* `statistics`: device memory, [count] doubles that are compared as well: `loss_count` losses, one a micro-batch of all replicas', then
 * gains. All must outlive it. NULL is allowed in destroy. */
mhp_status mhp_replay_create(mhp_store *store, const double *statistics, size_t count, size_t loss_count, mhp_replay **replay_out);
void mhp_replay_destroy(mhp_replay *replay);

/* Submits copies to the host of what run `run`, 0 or 1, has left; behind the reduction of the gradients. */
mhp_status mhp_replay_submit(mhp_replay *replay, int run, mhp_stream *compute);
/* Once both have arrived. MHP_ERR_DEVICE names the first loss or tensor that differs, its element and both values. */
mhp_status mhp_replay_compare(const mhp_replay *replay);

#endif
