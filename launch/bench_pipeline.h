/* mhcpipe bench pipeline: the step of a pipeline under several settings in turn, in one process start. */
#ifndef MHP_LAUNCH_BENCH_PIPELINE_H
#define MHP_LAUNCH_BENCH_PIPELINE_H

#include "launch/session.h"

typedef struct mhp_bench_pipeline_params {
    const char *config;             /* path */
    const mhp_overrides *overrides; /* of all rows, before those of a row */
    const char *rows;               /* path of the file that names rows: "NAME KEY=VALUE KEY=VALUE ..." a line, # begins a comment;
                                       NULL: one row, the configuration as it is */
    const char *output;             /* folder: rows.tsv, and one folder a row */
    int repetitions;                /* timed steps of either kind, >= 1 */
    int recorded;                   /* steps, >= 1 */
    int row_seconds;                /* after which a row ends the process; 0: none */
} mhp_bench_pipeline_params;

/* For each row a trainer with random parameters and tokens: steps to warm up, timed steps of forward and backward alone, timed steps with
 * the optimizer, and recorded ones. Rank 0 prints a line a row and writes OUTPUT/rows.tsv (a line is added when its row is done) and
 * OUTPUT/NAME/{report.html, step.svg, costs.yaml, config.resolved.yaml, profile/}. A row that all ranks refuse is told with its reason, and the
 * next one follows; what one rank alone meets ends the command. The file system is the ranks' common one. Every rank. */
mhp_status mhp_bench_pipeline(mhp_session *session, const mhp_bench_pipeline_params *params);

#endif
