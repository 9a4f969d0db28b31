/* The energy of a run: every rank's share of meters, summed over the world. A node's packages and a card are metered once, by the lowest
 * rank that is there, however many ranks share them. */
#ifndef MHP_RUNTIME_ENERGY_H
#define MHP_RUNTIME_ENERGY_H

#include "comm/group.h"
#include "core/energy.h"

typedef struct mhp_run_energy mhp_run_energy;

typedef enum mhp_energy_kind { MHP_ENERGY_CPU, MHP_ENERGY_GPU, MHP_ENERGY_KINDS } mhp_energy_kind;

/* "CPU", "GPU"; static storage. */
const char *mhp_energy_kind_text(int kind);

/* Joules by kind; NaN: not readable. */
typedef struct mhp_joules {
    double of[MHP_ENERGY_KINDS];
} mhp_joules;

/* The sum of what is readable; NaN if nothing is. */
double mhp_joules_sum(const mhp_joules *joules);

/* What all cost since the opening: in steps, and in all, with what was between them (evaluations, what a step waited for). */
typedef struct mhp_energy_total {
    mhp_joules steps, run;
    int64_t step_count;
    char reason[MHP_ENERGY_KINDS][MHP_ENERGY_REASON_MAX + 24];      /* why a kind is not readable; "" if it is */
} mhp_energy_total;

typedef struct mhp_run_energy_params {
    mhp_group *world;               /* every rank; must outlive the energy, as must the device */
    mhp_device *device;
    const char *packages;           /* NULL: MHP_POWERCAP_FOLDER */
    const mhp_nvml *nvml;           /* NULL: the driver's */
    const char *node;               /* what tells nodes apart; NULL: the kernel's boot id */
    const char *bus_id;             /* NULL: the device's */
} mhp_run_energy_params;

/* Every rank, as all below. NULL is allowed in close. */
mhp_status mhp_run_energy_open(const mhp_run_energy_params *params, mhp_run_energy **energy_out);
void mhp_run_energy_close(mhp_run_energy *energy);

/* Rank of the world that meters what `rank` is on: the processor packages of its node, or its card; -1 without a card. The same on
 * every rank. */
int mhp_run_energy_metered_by(const mhp_run_energy *energy, int rank, mhp_energy_kind kind);

/* Opens another meter of what this rank meters in the world, for whoever wants power; NULL if it is not this rank that does. With
 * `shared` also of a card that another rank meters. */
mhp_status mhp_run_energy_meter(const mhp_run_energy *energy, mhp_energy_kind kind, bool shared, mhp_energy_meter **meter_out);

/* Before a step, on the host's thread: what was between it and the last one is not the step's. Without any counter nothing is done. */
void mhp_run_energy_begin(mhp_run_energy *energy);
/* At the step's end, in the order of the compute stream: the joules of the step that this rank meters, to be added up over all ranks. 0
 * of a kind that others meter, NaN of one that cannot be read. A NULL energy: NaN. */
void mhp_run_energy_mark(mhp_run_energy *energy, double joules[MHP_ENERGY_KINDS]);
/* The step is done, and this is the sum over all ranks. */
void mhp_run_energy_add(mhp_run_energy *energy, const mhp_joules *step);

/* The whole, the same on every rank; blocks. */
mhp_status mhp_run_energy_total(mhp_run_energy *energy, mhp_energy_total *total_out);

#endif
