/* Plans as CSV: one row a rank, one cell an action, an empty cell a bubble. Rows may be of any length; "," is
 * a rank without actions, and an empty line none, allowed at the end alone. PyTorch's files
 * (torch.distributed.pipelining, compute order alone or with messages) have the same shape and grammar. Those from before I and B
 * had their meaning of today, with B for the input gradient and BW for the full backward, are recognised by a BW, or by a W for
 * every B and no I; where that leaves two readings they are refused with the reason. */
#ifndef MHP_SCHEDULER_CSV_H
#define MHP_SCHEDULER_CSV_H

#include <stdio.h>

#include "scheduler/plan.h"

enum { MHP_CSV_BYTES_MAX = 64 << 20 };

/* Reads a plan; ranks, stages, micro-batches and owners follow from its rows. Not validated. Errors name file, line and cell. */
mhp_status mhp_plan_read_csv(const char *path, mhp_plan **plan_out);
/* The same from memory; `name` stands for the file. */
mhp_status mhp_plan_parse_csv(const char *name, const char *text, size_t length, mhp_plan **plan_out);

typedef enum mhp_csv_dialect {
    MHP_CSV_MHCPIPE,
    MHP_CSV_TORCH,              /* what torch.distributed.pipelining loads: no R; a stage on one rank alone; with a backward */
} mhp_csv_dialect;

/* Writes every rank's actions. MHP_ERR_UNSUPPORTED says why the dialect has no words for the plan, before anything is written. */
mhp_status mhp_plan_write_csv_as(const mhp_plan *plan, mhp_csv_dialect dialect, FILE *stream);
/* In the first of them. */
mhp_status mhp_plan_write_csv(const mhp_plan *plan, FILE *stream);

#endif
