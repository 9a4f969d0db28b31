#include "runtime/summary.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

#define JOULES_PER_KWH 3.6e6

void mhp_summary_derive(mhp_summary *summary, const mhp_emissions_params *emissions)
{
    double steps_j = mhp_joules_sum(&summary->energy.steps);
    int64_t step_count = summary->energy.step_count;

    summary->j_per_step = step_count > 0 ? steps_j / (double)step_count : NAN;
    summary->j_per_token = summary->tokens > 0 ? steps_j / summary->tokens : NAN;
    summary->kwh = mhp_joules_sum(&summary->energy.run) / JOULES_PER_KWH;
    summary->co2e_g = emissions->grams_per_kwh > 0 ? summary->kwh * emissions->pue * emissions->grams_per_kwh : NAN;
}

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* A kind that is not readable is null, with the reason beside it. */
static void set_kind(json_t *energy, const mhp_summary *summary, mhp_energy_kind kind, const char *joules_key, const char *reason_key)
{
    const char *reason = summary->energy.reason[kind];

    json_object_set_new(energy, joules_key, number(summary->energy.run.of[kind]));
    if (!isfinite(summary->energy.run.of[kind])) {
        json_object_set_new(energy, reason_key, json_string(reason[0] != '\0' ? reason : "not readable"));
    }
}

static json_t *energy_to_json(const mhp_summary *summary, const mhp_emissions_params *emissions)
{
    json_t *energy = json_object();

    set_kind(energy, summary, MHP_ENERGY_GPU, "gpu_j", "gpu_reason");
    set_kind(energy, summary, MHP_ENERGY_CPU, "cpu_j", "cpu_reason");
    json_object_set_new(energy, "j_per_step", number(summary->j_per_step));
    json_object_set_new(energy, "j_per_token", number(summary->j_per_token));
    json_object_set_new(energy, "kwh", number(summary->kwh));
    json_object_set_new(energy, "co2e_g", number(summary->co2e_g));
    json_object_set_new(energy, "grams_per_kwh", emissions->grams_per_kwh > 0 ? json_real(emissions->grams_per_kwh) : json_null());
    json_object_set_new(energy, "pue", json_real(emissions->pue));
    return energy;
}

mhp_status mhp_summary_write(const mhp_summary *summary, const mhp_emissions_params *emissions, const char *directory)
{
    mhp_status status = MHP_OK;
    char *path = NULL, *text = NULL;
    json_t *root = json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "steps", (json_int_t)summary->steps, "first_step",
                             (json_int_t)summary->first_step, "tokens", number(summary->tokens), "seconds", number(summary->seconds),
                             "loss", number(summary->loss), "held_out_loss", number(summary->held_out_loss), "best_held_out_loss",
                             number(summary->best_loss), "energy", energy_to_json(summary, emissions));

    MHP_TRY(out, mhp_asprintf(&path, "%s/summary.json", directory));
    text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : NULL;
    if (!text) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "cannot build %s", path);
    }
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
out:
    free(text);
    json_decref(root);
    mhp_free(path);
    return status;
}
