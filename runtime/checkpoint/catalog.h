/* The folder RUN/checkpoints: step-NNNNNNNN for each checkpoint, and `latest`, which names the newest with its manifest's checksum.
 * Names that begin with "." are checkpoints that are being written or removed; a crash leaves them, and nobody reads them. One process
 * changes the folder, rank 0's; anybody may read it. */
#ifndef MHP_RUNTIME_CHECKPOINT_CATALOG_H
#define MHP_RUNTIME_CHECKPOINT_CATALOG_H

#include "runtime/checkpoint/manifest.h"

/* Steps of the checkpoints that have a manifest, ascending. *steps_out is released with mhp_free. */
mhp_status mhp_catalog_steps(const char *run, int64_t **steps_out, size_t *count_out);

/* RUN/checkpoints/step-NNNNNNNN, and where that is written before it is complete. Released with mhp_free. */
mhp_status mhp_catalog_path(const char *run, int64_t step, char **path_out);
mhp_status mhp_catalog_work_path(const char *run, int64_t step, char **path_out);

/* Removes what a crash has left, and makes the folder. */
mhp_status mhp_catalog_clean(const char *run);
/* Makes the empty work folder of a step. */
mhp_status mhp_catalog_begin(const char *run, int64_t step);
/* Syncs the work folder, gives it its name, in place of an older checkpoint of that step if there is one, and points `latest` at it. */
mhp_status mhp_catalog_commit(const char *run, int64_t step, mhp_hash checksum);
/* Points `latest` at a checkpoint. */
mhp_status mhp_catalog_set_latest(const char *run, int64_t step, mhp_hash checksum);
/* The step that `latest` names, once it is found to be right: MHP_ERR_NOT_FOUND without it, MHP_ERR_FORMAT if it is malformed, names no
 * checkpoint, or one whose manifest has another checksum. */
mhp_status mhp_catalog_latest(const char *run, int64_t *step_out);

/* Removes all but the last `keep_last` (0: keeps all) and those whose step is a multiple of `keep_every` (0: none). */
mhp_status mhp_catalog_retain(const char *run, int64_t keep_last, int64_t keep_every);

#endif
