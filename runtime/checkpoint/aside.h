/* What a start finds in its folder and does not go on with is put aside under names that nothing has yet: abandoned-NAME, and
 * abandoned-NAME.2, .3 and so on for what is put aside later. Nothing removes it but its owner. One process, rank 0's. */
#ifndef MHP_RUNTIME_CHECKPOINT_ASIDE_H
#define MHP_RUNTIME_CHECKPOINT_ASIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* What was put aside at once, all under one number. */
typedef struct mhp_aside {
    bool any;
    size_t checkpoints;
    int64_t newest;                 /* step of the newest of these, if there are any */
    char suffix[16];                /* behind the names: "", ".2", ... */
} mhp_aside;

/* The checkpoints in RUN/checkpoints behind `step`. */
mhp_status mhp_put_aside_after(const char *run, int64_t step, mhp_aside *aside_out);
/* A whole run: its checkpoints, metrics.jsonl, summary.json, config.resolved.yaml and best. Nothing if it has neither a checkpoint nor a
 * best model nor a line of metrics. */
mhp_status mhp_put_aside_run(const char *run, mhp_aside *aside_out);

#endif
