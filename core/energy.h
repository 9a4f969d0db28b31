/* What processors and cards consume, by the counters that they keep themselves: RAPL's of a node's packages, NVML's of one card.
 *
 * A meter gives joules since it was last read. What cannot be told is NaN with a reason, never 0: no counter, no permission, a counter
 * that went backwards, or one that goes round and was not read for so long that nobody knows how often it did. */
#ifndef MHP_CORE_ENERGY_H
#define MHP_CORE_ENERGY_H

#include <stdint.h>

#include "core/status.h"

typedef struct mhp_energy_meter mhp_energy_meter;

enum {
    MHP_ENERGY_REASON_MAX = 192,
    MHP_ENERGY_PACKAGES_MAX = 64,
    MHP_ENERGY_PACKAGE_WATTS_MAX = 1000,    /* what no package exceeds: tells going round from going backwards */
};

#define MHP_POWERCAP_FOLDER "/sys/class/powercap"

/* NVML's functions that are used here, each with the binary interface that its name's version fixes; 0 is success. */
typedef struct mhp_nvml {
    int (*init)(void);                      /* counted by NVML: every init has its shutdown */
    int (*shutdown)(void);
    const char *(*error_text)(int code);
    int (*find)(const char *bus_id, void **card);
    int (*energy_mj)(void *card, unsigned long long *energy_mj);        /* since the driver was loaded */
} mhp_nvml;

/* Loads NVML, which comes with the driver, and keeps it until the process ends. MHP_ERR_UNSUPPORTED says what is missing. */
mhp_status mhp_nvml_load(mhp_nvml *nvml);

/* A meter of all packages of this node, by the zones intel-rapl:N below `folder` (MHP_POWERCAP_FOLDER), which AMD's processors have as
 * well. Opening fails for lack of memory alone: a meter that cannot be read says so when it is read. */
mhp_status mhp_energy_open_packages(const char *folder, mhp_energy_meter **meter_out);
/* A meter of the card with that PCI bus id. `nvml` must outlive it. */
mhp_status mhp_energy_open_card(const mhp_nvml *nvml, const char *bus_id, mhp_energy_meter **meter_out);
/* NULL is allowed. */
void mhp_energy_close(mhp_energy_meter *meter);

/* Joules since the reading before this one, the first of which is in open; NaN if they cannot be told. `now_ns` is mhp_time_ns's. */
double mhp_energy_read(mhp_energy_meter *meter, uint64_t now_ns);
/* Why a reading was NaN, the first time; "" if none was. Valid until close. */
const char *mhp_energy_reason(const mhp_energy_meter *meter);

#endif
