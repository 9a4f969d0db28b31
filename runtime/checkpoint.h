/* Checkpoints: RUN/checkpoints/step-N with model, optimizer state and state.json, and RUN/checkpoints/latest that names the newest
 * complete one. state.json is written last: a folder without it is not a checkpoint. */
#ifndef MHP_RUNTIME_CHECKPOINT_H
#define MHP_RUNTIME_CHECKPOINT_H

#include "runtime/model_file.h"

typedef struct mhp_checkpoint_state {
    int64_t step;                   /* optimizer steps done */
    uint64_t next_sample;           /* first sample of the next step */
    int64_t seed;
    double best_loss;               /* lowest held-out loss so far; infinite if there was none */
} mhp_checkpoint_state;

/* Every rank; blocks; all get the same status. */
mhp_status mhp_checkpoint_save(mhp_store *store, mhp_optimizer *optimizer, const char *run_directory, const mhp_checkpoint_state *state);

/* Finds the checkpoint folder that `path` stands for: a checkpoint itself, or a run's folder, whose newest complete one is taken.
 * The caller releases *directory_out with mhp_free. */
mhp_status mhp_checkpoint_find(const char *path, char **directory_out);

/* Every rank reads by itself. */
mhp_status mhp_checkpoint_load(mhp_store *store, mhp_optimizer *optimizer, const char *directory, mhp_checkpoint_state *state_out);

#endif
