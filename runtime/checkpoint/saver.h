/* Writes checkpoints while training goes on: every rank copies its part, then a thread of its own writes it to the work folder and
 * syncs it; rank 0's thread waits for the parts of all, writes the manifest, and makes the checkpoint complete. At most one is under
 * way: the next one waits for it.
 *
 * Whatever fails, the checkpoints that were complete stay as they are. The threads coordinate by files alone, so all ranks must see one
 * file system. */
#ifndef MHP_RUNTIME_CHECKPOINT_SAVER_H
#define MHP_RUNTIME_CHECKPOINT_SAVER_H

#include "runtime/checkpoint/manifest.h"
#include "runtime/optimizer.h"

typedef struct mhp_saver mhp_saver;

typedef struct mhp_saver_params {
    mhp_store *store;               /* these three must outlive the saver */
    mhp_optimizer *optimizer;
    const char *run;                /* the run's folder */
    int64_t keep_last, keep_every;  /* see mhp_catalog_retain */
} mhp_saver_params;

/* Allocates the copies, removes what a crash left, and starts the thread. Every rank; all get the same status. Destroy gives up a
 * checkpoint that is under way; NULL is allowed there. */
mhp_status mhp_saver_create(const mhp_saver_params *params, mhp_saver **saver_out);
void mhp_saver_destroy(mhp_saver *saver);

/* Waits for the checkpoint before this one, copies, and lets the thread write. Every rank, behind a step; all get the same status. */
mhp_status mhp_saver_begin(mhp_saver *saver, const mhp_checkpoint_state *state);
/* Whether this rank's part failed so far; does not wait. An error is of one rank alone, see mhp_comm_fail. */
mhp_status mhp_saver_check(mhp_saver *saver);
/* Waits until the checkpoint that is under way, if any, is complete. Every rank; all get the same status. */
mhp_status mhp_saver_wait(mhp_saver *saver);

/* What the last checkpoint took, this rank: the copy that the step waited for; the writing beside it, on rank 0 until the checkpoint was
 * complete; then the removal of those that do not stay; the thread's processor time for both; and its bytes. */
typedef struct mhp_saver_stats {
    double stage_s, write_s, remove_s, cpu_s;
    size_t bytes;
} mhp_saver_stats;
void mhp_saver_get_stats(mhp_saver *saver, mhp_saver_stats *stats_out);

#endif
