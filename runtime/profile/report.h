/* The report of a profiled run: figures for machines, a table for a terminal, a trace for Perfetto, a page for a
 * browser. docs/profiling.md describes all of them. */
#ifndef MHP_RUNTIME_PROFILE_REPORT_H
#define MHP_RUNTIME_PROFILE_REPORT_H

#include <stdio.h>

#include "runtime/profile/measured.h"
#include "runtime/profile/report_energy.h"

struct json_t; /* jansson.h */

/* The simulated step if something cost nothing. */
typedef struct mhp_what_if {
    const char *name;  /* for machines: "messages" */
    const char *words; /* for a person */
    double step_us, saves_us;
} mhp_what_if;

enum { MHP_WHAT_IF_COUNT = 4 };

typedef struct mhp_profile_report {
    const mhp_analysis *analysis; /* these two are the caller's */
    const mhp_plan *plan;
    mhp_measured measured;
    mhp_simulation planned;                 /* the plan with the measured costs */
    mhp_what_if what_if[MHP_WHAT_IF_COUNT]; /* what saves most first */
    const mhp_report_energy *energy;        /* the caller's, set behind create; NULL: not read */
} mhp_profile_report;

/* `sizes`: the plan's stages with their bytes. MHP_ERR_FORMAT if the traces are of another plan. Release in every case.
 */
mhp_status mhp_profile_report_create(const mhp_analysis *analysis, const mhp_plan *plan, const mhp_costs *sizes,
                                     mhp_profile_report *report_out);
void mhp_profile_report_release(mhp_profile_report *report);

/* A step of the first replica, with the memory that the plan has. Release in every case. */
mhp_status mhp_profile_report_step(const mhp_profile_report *report, const mhp_step_analysis *step,
                                   mhp_simulation *simulation_out);

/* report.json; the caller releases it by json_decref. */
mhp_status mhp_profile_report_json(const mhp_profile_report *report, struct json_t **json_out);
/* The table for a terminal. MHP_ERR_IO. */
mhp_status mhp_profile_report_table(const mhp_profile_report *report, FILE *stream);
/* All recorded steps in Chrome's trace format, which Perfetto and Kineto's tools read. MHP_ERR_IO. */
mhp_status mhp_profile_report_trace(const mhp_profile_report *report, FILE *stream);
/* One file that needs no network. `metrics` has its curves. MHP_ERR_IO. */
mhp_status mhp_profile_report_page(const mhp_profile_report *report, const mhp_run_metrics *metrics, FILE *stream);

/* Term and definition, ended by NULLs: what stands in the report about its words. */
typedef struct mhp_definition {
    const char *term, *text;
} mhp_definition;
extern const mhp_definition mhp_profile_definitions[];

#endif
