/* The flight recorders of all ranks together, as their dumps have them. */
#ifndef MHP_RUNTIME_FLIGHT_REPORT_H
#define MHP_RUNTIME_FLIGHT_REPORT_H

#include <stdbool.h>

#include "core/status.h"
#include "runtime/diagnosis.h"

enum { MHP_DUMP_WHY_MAX = 1024, MHP_DUMP_NAME_MAX = 96 };

typedef struct mhp_dump {
    bool found;
    int64_t time;                   /* Unix time, seconds */
    char why[MHP_DUMP_WHY_MAX];
    int under_way;                  /* messages and collectives that were posted and have not ended */
    char oldest[MHP_DUMP_NAME_MAX]; /* the first of them, and how long ago it was posted */
    double oldest_s;
} mhp_dump;

typedef struct mhp_flight_report {
    int64_t run;
    int size, found_count;
    int64_t time;                   /* of the newest dump */
    mhp_rank_view *ranks;           /* [size] */
    mhp_dump *dumps;                /* [size] */
} mhp_flight_report;

/* Reads the dumps in `run`/flight that are of the newest run there. A rank without one is MHP_RANK_UNKNOWN; one whose dump is much older
 * than the newest is MHP_RANK_SILENT. MHP_ERR_NOT_FOUND: there are none; MHP_ERR_FORMAT names the file that is no dump. Release in every
 * case; a zeroed report is allowed there. */
mhp_status mhp_flight_report_read(const char *run, mhp_flight_report *report_out);
/* Adds one dump; `path` stands for it in errors. A newer run's replaces all, an older one's is left out. */
mhp_status mhp_flight_report_add(mhp_flight_report *report, const char *path, const char *text, size_t bytes);
void mhp_flight_report_release(mhp_flight_report *report);

/* Why the dumps were made: what failed, by the first one that says so, else that they were asked for. "" if none was found. */
const char *mhp_flight_report_why(const mhp_flight_report *report);
/* Whether that says what failed. */
bool mhp_flight_is_failure(const char *why);

#endif
