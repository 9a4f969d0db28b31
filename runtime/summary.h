/* summary.json: what a run came to, with its energy. */
#ifndef MHP_RUNTIME_SUMMARY_H
#define MHP_RUNTIME_SUMMARY_H

#include "runtime/energy.h"
#include "runtime/options.h"

/* Of one start of a run, up to its end. */
typedef struct mhp_summary {
    int64_t steps, first_step;      /* done in all, and before this start */
    double tokens, seconds;         /* of this start; wall time from the first step to the end */
    double loss, held_out_loss, best_loss;          /* NaN or infinite: none */
    mhp_energy_total energy;
    double j_per_step, j_per_token; /* of the kinds that are readable, in steps; NaN if none is or there was no step */
    double kwh, co2e_g;             /* of the whole start; NaN likewise, co2e_g also without grams_per_kwh */
} mhp_summary;

/* Fills in j_per_step and all below from the rest. */
void mhp_summary_derive(mhp_summary *summary, const mhp_emissions_params *emissions);
/* Writes DIRECTORY/summary.json, whole or not at all. */
mhp_status mhp_summary_write(const mhp_summary *summary, const mhp_emissions_params *emissions, const char *directory);

#endif
