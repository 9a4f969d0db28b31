#include "runtime/energy.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/hash.h"
#include "core/memory.h"
#include "runtime/live.h"

/* A step that begins so soon after the last one's end is not metered anew: reading a counter takes time too. */
enum { GAP_NS = 1000000 };

/* What every rank tells of itself; the size is a multiple of that of I64. */
typedef struct place {
    uint64_t node, card;            /* card 0: none */
    char reason[MHP_ENERGY_KINDS][MHP_ENERGY_REASON_MAX];
} place;

struct mhp_run_energy {
    mhp_run_energy_params params;
    mhp_nvml nvml;
    char bus_id[MHP_BUS_ID_MAX];
    int rank, size;
    place *places;                  /* [size] */
    int meter_count[MHP_ENERGY_KINDS];              /* in the world */
    mhp_energy_meter *meters[MHP_ENERGY_KINDS];     /* this rank's */
    bool active;                    /* some kind is readable everywhere */
    uint64_t read_ns;
    double between[MHP_ENERGY_KINDS];               /* this rank's, outside of steps */
    mhp_event *summed;
    mhp_energy_total total;
};

const char *mhp_energy_kind_text(int kind)
{
    return kind == MHP_ENERGY_CPU ? "CPU" : "GPU";
}

double mhp_joules_sum(const mhp_joules *joules)
{
    double sum = NAN;

    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        if (!isnan(joules->of[k])) {
            sum = isnan(sum) ? joules->of[k] : sum + joules->of[k];
        }
    }
    return sum;
}

/* ---- who meters what ---- */

int mhp_run_energy_metered_by(const mhp_run_energy *energy, int rank, mhp_energy_kind kind)
{
    const place *own = &energy->places[rank];

    if (kind == MHP_ENERGY_GPU && own->card == 0) {
        return -1;
    }
    for (int r = 0; r < rank; r++) {
        const place *other = &energy->places[r];

        if (other->node == own->node && (kind == MHP_ENERGY_CPU || other->card == own->card)) {
            return r;
        }
    }
    return rank;
}

static bool is_meter_of(const mhp_run_energy *energy, int rank, mhp_energy_kind kind)
{
    return mhp_run_energy_metered_by(energy, rank, kind) == rank;
}

static mhp_status wait_for_sum(mhp_run_energy *energy)
{
    return mhp_event_synchronize(energy->summed, 0);        /* a peer that fails poisons it */
}

/* Everybody learns everybody's place, and the reasons so far. */
static mhp_status exchange(mhp_run_energy *energy)
{
    place *own = &energy->places[energy->rank];

    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        if (energy->meters[k]) {
            snprintf(own->reason[k], sizeof own->reason[k], "%s", mhp_energy_reason(energy->meters[k]));
        }
    }
    MHP_RETURN_IF_ERROR(mhp_group_all_gather(energy->params.world, energy->places, sizeof(place) / sizeof(int64_t), MHP_DTYPE_I64, NULL,
                                             energy->summed));
    return wait_for_sum(energy);
}

static mhp_status open_kind(const mhp_run_energy *energy, mhp_energy_kind kind, mhp_energy_meter **meter_out)
{
    const mhp_run_energy_params *params = &energy->params;

    if (kind == MHP_ENERGY_CPU) {
        return mhp_energy_open_packages(params->packages ? params->packages : MHP_POWERCAP_FOLDER, meter_out);
    }
    return mhp_energy_open_card(params->nvml, energy->bus_id, meter_out);
}

mhp_status mhp_run_energy_meter(const mhp_run_energy *energy, mhp_energy_kind kind, bool shared, mhp_energy_meter **meter_out)
{
    *meter_out = NULL;
    if (kind == MHP_ENERGY_GPU && (energy->bus_id[0] == '\0' || !energy->params.nvml)) {
        return MHP_OK;
    }
    if (!is_meter_of(energy, energy->rank, kind) && !(shared && kind == MHP_ENERGY_GPU)) {
        return MHP_OK;
    }
    return open_kind(energy, kind, meter_out);
}

static mhp_status open_meters(mhp_run_energy *energy)
{
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        for (int rank = 0; rank < energy->size; rank++) {
            energy->meter_count[k] += is_meter_of(energy, rank, (mhp_energy_kind)k);
        }
        MHP_RETURN_IF_ERROR(mhp_run_energy_meter(energy, (mhp_energy_kind)k, false, &energy->meters[k]));
    }
    return MHP_OK;
}

/* The lowest rank's reason, for each kind. */
static void gather_reasons(mhp_run_energy *energy)
{
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        char *text = energy->total.reason[k];
        size_t size = sizeof energy->total.reason[k];

        text[0] = '\0';
        if (energy->meter_count[k] == 0) {
            snprintf(text, size, "no card computes");
        }
        for (int rank = 0; rank < energy->size && text[0] == '\0'; rank++) {
            const char *reason = energy->places[rank].reason[k];

            if (reason[0] != '\0' && energy->size > 1) {
                snprintf(text, size, "rank %d: %.*s", rank, MHP_ENERGY_REASON_MAX - 1, reason);
            } else {
                snprintf(text, size, "%s", reason);
            }
        }
    }
}

/* ---- opening and closing ---- */

/* Only a rank with a card looks for it; what is missing is the card's reason. */
static void load_nvml(mhp_run_energy *energy)
{
    place *own = &energy->places[energy->rank];

    if (energy->params.nvml || own->card == 0) {
        return;
    }
    if (mhp_nvml_load(&energy->nvml) == MHP_OK) {
        energy->params.nvml = &energy->nvml;
    } else {
        snprintf(own->reason[MHP_ENERGY_GPU], sizeof own->reason[MHP_ENERGY_GPU], "%s", mhp_error_text());
    }
}

static mhp_status find_place(mhp_run_energy *energy)
{
    place *own = &energy->places[energy->rank];

    own->node = energy->params.node ? mhp_hash_bytes(energy->params.node, strlen(energy->params.node)).low : mhp_live_node();
    if (energy->params.bus_id) {
        snprintf(energy->bus_id, sizeof energy->bus_id, "%s", energy->params.bus_id);
    } else {
        mhp_device_bus_id(energy->params.device, energy->bus_id);
    }
    own->card = energy->bus_id[0] != '\0' ? mhp_hash_bytes(energy->bus_id, strlen(energy->bus_id)).low : 0;
    MHP_RETURN_IF_ERROR(exchange(energy));
    load_nvml(energy);
    MHP_RETURN_IF_ERROR(open_meters(energy));
    MHP_RETURN_IF_ERROR(exchange(energy));
    gather_reasons(energy);
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        energy->active |= energy->total.reason[k][0] == '\0';
    }
    energy->read_ns = mhp_time_ns();
    return MHP_OK;
}

mhp_status mhp_run_energy_open(const mhp_run_energy_params *params, mhp_run_energy **energy_out)
{
    mhp_status status = MHP_OK;
    mhp_run_energy *energy = NULL;

    static_assert(sizeof(place) % sizeof(int64_t) == 0, "an all-gather moves elements");
    MHP_TRY(out, mhp_calloc(&energy, 1, sizeof *energy));
    energy->params = *params;
    energy->rank = mhp_group_index(params->world);
    energy->size = mhp_group_size(params->world);
    MHP_TRY(out, mhp_calloc(&energy->places, (size_t)energy->size, sizeof *energy->places));
    MHP_TRY(out, mhp_event_create(params->device, &energy->summed));
    MHP_TRY(out, find_place(energy));
    *energy_out = energy;
    energy = NULL;
out:
    mhp_run_energy_close(energy);
    return status;
}

void mhp_run_energy_close(mhp_run_energy *energy)
{
    if (!energy) {
        return;
    }
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        mhp_energy_close(energy->meters[k]);
    }
    mhp_event_destroy(energy->summed);
    mhp_free(energy->places);
    mhp_free(energy);
}

/* ---- steps ---- */

/* Joules of this rank's meters since the last reading: 0 of a kind that other ranks meter, NaN of one that nobody can read. */
static void read_meters(mhp_run_energy *energy, double joules[MHP_ENERGY_KINDS])
{
    energy->read_ns = mhp_time_ns();
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        bool is_unreadable = energy->meter_count[k] == 0 || energy->places[energy->rank].reason[k][0] != '\0';

        joules[k] = energy->meters[k] ? mhp_energy_read(energy->meters[k], energy->read_ns) : is_unreadable ? NAN : 0;
    }
}

void mhp_run_energy_begin(mhp_run_energy *energy)
{
    double joules[MHP_ENERGY_KINDS];

    if (!energy->active || mhp_time_ns() - energy->read_ns < GAP_NS) {
        return;
    }
    read_meters(energy, joules);
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        energy->between[k] += joules[k];
    }
}

void mhp_run_energy_mark(mhp_run_energy *energy, double joules[MHP_ENERGY_KINDS])
{
    if (energy && energy->active) {
        read_meters(energy, joules);
        return;
    }
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        joules[k] = NAN;
    }
}

void mhp_run_energy_add(mhp_run_energy *energy, const mhp_joules *step)
{
    energy->total.step_count++;
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        energy->total.steps.of[k] += step->of[k];
    }
}

/* What was between steps, summed over all ranks. */
static mhp_status sum_between(mhp_run_energy *energy)
{
    double joules[MHP_ENERGY_KINDS];

    read_meters(energy, joules);
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        energy->between[k] += joules[k];
    }
    MHP_RETURN_IF_ERROR(mhp_group_all_reduce(energy->params.world, energy->between, MHP_ENERGY_KINDS, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL,
                                             energy->summed));
    return wait_for_sum(energy);
}

mhp_status mhp_run_energy_total(mhp_run_energy *energy, mhp_energy_total *total_out)
{
    if (energy->active) {
        MHP_RETURN_IF_ERROR(sum_between(energy));
        MHP_RETURN_IF_ERROR(exchange(energy));
        gather_reasons(energy);
    }
    for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
        energy->total.steps.of[k] = energy->active ? energy->total.steps.of[k] : NAN;
        energy->total.run.of[k] = energy->active ? energy->total.steps.of[k] + energy->between[k] : NAN;
    }
    *total_out = energy->total;
    return MHP_OK;
}
