/* Plans as text for a terminal, in units of F = I = W = 1 with free messages. */
#ifndef MHP_SCHEDULER_TABLE_H
#define MHP_SCHEDULER_TABLE_H

#include <stdio.h>

#include "scheduler/report.h"

/* The picture of mhp_draw_ascii, if its rows have at most MHP_TABLE_COLUMNS_MAX columns, and below it the table of a
 * report. MHP_ERR_IO; MHP_ERR_PLAN if the order cannot be run. */
mhp_status mhp_plan_write_table(const mhp_plan *plan, FILE *stream);
/* The same for costs of any kind. */
mhp_status mhp_report_write(const mhp_plan_report *report, FILE *stream);

enum { MHP_TABLE_COLUMNS_MAX = 1000 };

#endif
