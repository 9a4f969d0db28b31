/* A text file for Prometheus (node_exporter's textfile collector, or anything that serves files), in its exposition format 0.0.4. */
#ifndef MHP_RUNTIME_PROMETHEUS_H
#define MHP_RUNTIME_PROMETHEUS_H

#include "runtime/scalars.h"

typedef struct mhp_prometheus mhp_prometheus;

/* Writes the file for the first time, so that a path that cannot be written shows before the first step. `run` is the label of all
 * samples. One rank. Close leaves the file as it is; NULL is allowed there. */
mhp_status mhp_prometheus_open(const char *path, const char *run, int64_t done, int64_t total, mhp_prometheus **prometheus_out);
void mhp_prometheus_close(mhp_prometheus *prometheus);
/* Replaces the file: readers see the old or the new one, whole. It is not made to survive a loss of power. */
mhp_status mhp_prometheus_write(mhp_prometheus *prometheus, int64_t done, const mhp_scalar *scalars, int count);

#endif
