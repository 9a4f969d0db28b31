/* What the report needs of a run's metrics.jsonl: the curves that it plots, the bad steps, and the lines of the recorded steps.
 * Nothing in that file is an error: what cannot be used is left out, and the reason kept. */
#ifndef MHP_RUNTIME_PROFILE_RUN_METRICS_H
#define MHP_RUNTIME_PROFILE_RUN_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

struct json_t; /* jansson.h */

typedef enum mhp_curve {
    MHP_CURVE_LOSS,
    MHP_CURVE_HELD_OUT_LOSS,
    MHP_CURVE_GAIN_FORWARD,
    MHP_CURVE_GAIN_BACKWARD,
    MHP_CURVE_WORST_FORWARD,
    MHP_CURVE_WORST_BACKWARD,
    MHP_CURVE_COUNT,
} mhp_curve;

/* Its key in metrics.jsonl, and on the page. */
const char *mhp_curve_key(mhp_curve curve);

typedef struct mhp_metrics_step {
    int64_t step;                  /* from 1 */
    double value[MHP_CURVE_COUNT]; /* NaN: none */
} mhp_metrics_step;

typedef struct mhp_metrics_event {
    int64_t step; /* that was bad, from 1 */
    char kind[16]; /* "stop", "skip", "rollback" */
} mhp_metrics_event;

enum { MHP_METRICS_REASON_MAX = 256 };

typedef struct mhp_run_metrics {
    mhp_metrics_step *steps; /* each step once, in their order: not those that a rollback undid */
    mhp_metrics_event *events;
    size_t step_count, step_room, event_count, event_room;
    struct json_t **recorded; /* [recorded_count]: the lines of the recorded steps; NULL: there is none */
    int64_t first_recorded;   /* from 1 */
    int recorded_count;
    char reason[MHP_METRICS_REASON_MAX]; /* why there are no steps; "" if there are */
} mhp_run_metrics;

/* Reads DIRECTORY/metrics.jsonl line by line. `first_recorded`, from 1, and `recorded_count` say which lines are kept whole. Lines that
 * are no objects, as one that was cut off, are left out; a file of more than 1 GiB, with a line of more than 1 MiB or without any step
 * is left out as a whole. MHP_ERR_NO_MEMORY alone. Release in every case. */
mhp_status mhp_run_metrics_read(const char *directory, int64_t first_recorded, int recorded_count, mhp_run_metrics *metrics_out);
void mhp_run_metrics_release(mhp_run_metrics *metrics);

/* For the page: {"loss": [step, value, step, value, ...], ..., "events": [[step, kind], ...], "reason": text or null}. Of a longer curve
 * MHP_CURVE_POINTS_MAX points are left: its ends, and of each equal stretch between the smallest and the largest. */
enum { MHP_CURVE_POINTS_MAX = 2000, MHP_CURVE_EVENTS_MAX = 500 };
mhp_status mhp_run_metrics_json(const mhp_run_metrics *metrics, struct json_t **json_out);

#endif
