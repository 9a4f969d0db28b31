/* The energy of the recorded steps, and how much of it went while ranks stood still; and that of the whole run. docs/profiling.md defines
 * every figure. */
#ifndef MHP_RUNTIME_PROFILE_REPORT_ENERGY_H
#define MHP_RUNTIME_PROFILE_REPORT_ENERGY_H

#include <stdio.h>

#include "runtime/energy.h"
#include "runtime/profile/analyse.h"
#include "runtime/profile/run_metrics.h"

enum { MHP_REPORT_REASON_MAX = 512 };

/* Joules of a step, mean over the recorded steps; NaN: not known. */
typedef struct mhp_step_joules {
    double step_j;
    double bubble_j, exposed_j; /* of it: while the meter's ranks stood still in bubbles, and exposed */
} mhp_step_joules;

/* A card, or a node's processor packages. */
typedef struct mhp_meter_figures {
    mhp_energy_kind kind;
    int *ranks; /* [rank_count]: that it serves */
    int rank_count;
    mhp_step_joules of;
} mhp_meter_figures;

typedef struct mhp_report_energy {
    mhp_step_joules of[MHP_ENERGY_KINDS], sum;                    /* the sum: of the kinds that are known */
    char reason[MHP_ENERGY_KINDS][MHP_REPORT_REASON_MAX];         /* why something of a kind is not known; "" if all is */
    double j_per_token;                                           /* of the recorded steps */
    mhp_meter_figures *meters;
    int meter_count;
    char meter_reason[MHP_REPORT_REASON_MAX]; /* why there are none; "" if there are */
    /* From summary.json, of the start of the run that recorded the steps; NaN: not known. */
    double run_j_per_step, run_j_per_token, kwh, co2e_g, grams_per_kwh, pue;
    char run_reason[MHP_REPORT_REASON_MAX], co2e_reason[MHP_REPORT_REASON_MAX];
} mhp_report_energy;

/* `metrics` was read for the steps of `analysis`; both may go afterwards. `directory`: the run's, for its summary.json. MHP_ERR_NO_MEMORY
 * alone: what cannot be read is not known. Release in every case. */
mhp_status mhp_report_energy_create(const mhp_analysis *analysis, const mhp_run_metrics *metrics, const char *directory,
                                    mhp_report_energy *energy_out);
void mhp_report_energy_release(mhp_report_energy *energy);

/* The object `energy` of report.json, and the lines of the table; NULL: not read, null and nothing. */
struct json_t *mhp_report_energy_json(const mhp_report_energy *energy);
void mhp_report_energy_table(const mhp_report_energy *energy, FILE *stream);

#endif
