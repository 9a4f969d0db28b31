/* A simulated plan in numbers: its table, the comparison of several, and all of it for machines. docs/planning.md
 * defines the numbers. */
#ifndef MHP_SCHEDULER_REPORT_H
#define MHP_SCHEDULER_REPORT_H

#include <stdio.h>

#include "scheduler/simulate.h"

typedef struct mhp_plan_report {
    const mhp_plan *plan; /* these two are the caller's */
    const mhp_costs *costs;
    const char *time_unit; /* "us"; "" for unit costs */
    bool early_gradient;
    mhp_simulation simulation;
    double free_messages_us; /* the makespan if messages took no time */
    double bound_us;         /* mhp_lower_bound */
    double microbatch_us;    /* mhp_microbatch_us */
} mhp_plan_report;

/* Simulates, with and without messages, and bounds. Plan and costs must outlive the report. Errors: see mhp_simulate.
 * Release in every case; zeroed is allowed. */
mhp_status mhp_plan_report_create(const mhp_plan *plan, const mhp_simulate_params *params, const char *time_unit,
                                  mhp_plan_report *report_out);
void mhp_plan_report_release(mhp_plan_report *report);

/* The makespan in units of one micro-batch's work; how far above the lower bound it is, 0.05 for 5 %. */
double mhp_report_microbatches(const mhp_plan_report *report);
double mhp_report_distance(const mhp_plan_report *report);

/* A few lines on the whole, then a row a rank. MHP_ERR_IO. */
mhp_status mhp_report_write_table(const mhp_plan_report *report, FILE *stream);

/* The head of a comparison and one row of it. */
mhp_status mhp_report_write_comparison_head(FILE *stream);
mhp_status mhp_report_write_comparison_row(const mhp_plan_report *report, FILE *stream);

/* One JSON object: the plan with the times of all actions, every number of the table, the critical path. */
mhp_status mhp_report_write_json(const mhp_plan_report *report, FILE *stream);

#endif
