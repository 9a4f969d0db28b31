/* Plans as text for a terminal. */
#ifndef MHP_SCHEDULER_TABLE_H
#define MHP_SCHEDULER_TABLE_H

#include <stdio.h>

#include "scheduler/plan.h"

/* One row a rank, one column a unit of time: F, I and W take one, B two, an overlapped pair three, messages none; an action starts as
 * soon as what it needs is done. Behind it each rank's share of idle units, messages and slots. The plan must be valid. MHP_ERR_IO;
 * MHP_ERR_PLAN if the order cannot be run. */
mhp_status mhp_plan_write_table(const mhp_plan *plan, FILE *stream);

#endif
