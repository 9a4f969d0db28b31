/* Plans as CSV: one row a rank, one cell an action, an empty cell a bubble. PyTorch's files have the same shape. */
#ifndef MHP_SCHEDULER_CSV_H
#define MHP_SCHEDULER_CSV_H

#include <stdio.h>

#include "scheduler/plan.h"

enum { MHP_CSV_BYTES_MAX = 64 << 20 };

/* Reads a plan; ranks, stages, micro-batches and owners follow from its rows. Not validated. Errors name file, line and cell. */
mhp_status mhp_plan_read_csv(const char *path, mhp_plan **plan_out);
/* The same from memory; `name` stands for the file. */
mhp_status mhp_plan_parse_csv(const char *name, const char *text, size_t length, mhp_plan **plan_out);

/* Writes every rank's actions. */
mhp_status mhp_plan_write_csv(const mhp_plan *plan, FILE *stream);

#endif
