/* A meter and its sources. Private to core/energy*. */
#ifndef MHP_CORE_ENERGY_INTERNAL_H
#define MHP_CORE_ENERGY_INTERNAL_H

#include <stdbool.h>

#include "core/energy.h"

typedef struct energy_counter {
    int file;               /* RAPL */
    void *card;             /* NVML */
    char *name;             /* for reasons */
    double range_j;         /* where it goes round; 0: nowhere */
    double energy_j;        /* at the last reading, if that was good */
    bool known;
} energy_counter;

/* Where counters come from. */
typedef struct energy_source {
    /* The counter now; an error's text is the reason. */
    mhp_status (*sample)(const mhp_energy_meter *meter, const energy_counter *counter, double *energy_j);
    void (*close)(mhp_energy_meter *meter);
} energy_source;

struct mhp_energy_meter {
    const energy_source *source;
    const mhp_nvml *nvml;
    bool nvml_is_up;
    energy_counter counters[MHP_ENERGY_PACKAGES_MAX];
    int count;
    uint64_t read_ns;
    char reason[MHP_ENERGY_REASON_MAX];
};

/* A meter without counters. */
mhp_status mhp_energy_create(const energy_source *source, mhp_energy_meter **meter_out);
/* Keeps the first reason. */
void mhp_energy_fail(mhp_energy_meter *meter, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Reads all counters for the first time. */
void mhp_energy_start(mhp_energy_meter *meter);

#endif
