/* Reads a checkpoint back, into any layout of ranks: each rank reads the tensors that it needs, and every byte that it reads is checked
 * against the manifest. */
#ifndef MHP_RUNTIME_CHECKPOINT_RESTORE_H
#define MHP_RUNTIME_CHECKPOINT_RESTORE_H

#include "runtime/checkpoint/manifest.h"
#include "runtime/optimizer.h"

typedef enum mhp_resume_kind {
    MHP_RESUME_NEVER,
    MHP_RESUME_AUTO,                /* the newest intact checkpoint of the run's folder; from the start if it has none at all */
    MHP_RESUME_LATEST,              /* the one that `latest` names in the run's folder, and no other */
    MHP_RESUME_PATH,                /* a checkpoint, or a run's folder whose `latest` is taken */
} mhp_resume_kind;

typedef struct mhp_resume {
    mhp_resume_kind kind;
    const char *path;               /* MHP_RESUME_PATH only */
} mhp_resume;

/* "auto", "latest", "never"; anything else is a path. NULL is never. */
mhp_resume mhp_resume_parse(const char *text);

/* Finds what `resume` stands for without reading tensors; *directory_out, released with mhp_free, is NULL for a start from the start.
 * One process. */
mhp_status mhp_checkpoint_find(mhp_resume resume, const char *run, char **directory_out);

/* Loads parameters and moments. Every rank; all get the same status. With MHP_RESUME_AUTO a checkpoint that is not intact gives way to
 * the one before it, with a warning in the log; that none is intact is an error. *directory_out is as in mhp_checkpoint_find. `run` may be
 * NULL with MHP_RESUME_PATH. The folder stays as it is. */
mhp_status mhp_checkpoint_restore(mhp_store *store, mhp_optimizer *optimizer, mhp_resume resume, const char *run,
                                  mhp_checkpoint_state *state_out, char **directory_out);
/* Makes the folder `run` that of a run which goes on from the checkpoint `directory` of `step` steps, or from the start for NULL. A
 * checkpoint of the run itself becomes its latest, and later ones are put aside; from any other, all that the folder has of an earlier
 * run is, as aside.h says. With a warning in the log that names what and where. Rank 0, behind restore, before the run writes. */
mhp_status mhp_checkpoint_adopt(mhp_resume resume, const char *run, const char *directory, int64_t step);

/* Reads all of a checkpoint and checks it. One process; needs no model. */
mhp_status mhp_checkpoint_verify(const char *directory, mhp_manifest *manifest_out);

#endif
