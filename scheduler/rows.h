/* What a file's ranks become before the plan's size is known. Shared by the readers. */
#ifndef MHP_SCHEDULER_ROWS_H
#define MHP_SCHEDULER_ROWS_H

#include "scheduler/plan.h"

typedef struct mhp_rows {
    mhp_action_list *items;             /* [rank] */
    int count, capacity;
    int stage_max, microbatch_max;      /* -1 without actions */
    size_t forward_count;
} mhp_rows;

/* Empty rows. Release with mhp_rows_release. */
void mhp_rows_init(mhp_rows *rows);
void mhp_rows_release(mhp_rows *rows);

/* The next rank; actions go to the latest. */
mhp_status mhp_rows_add_rank(mhp_rows *rows);
mhp_status mhp_rows_add(mhp_rows *rows, const mhp_action *action);

/* Refuses rows without actions, and such that name far more stages and micro-batches than they have forwards, before anything of
 * that size is allocated. MHP_ERR_FORMAT; `name` is the file's. */
mhp_status mhp_rows_check(const mhp_rows *rows, const char *name);

/* A plan that takes the rows' actions; whoever runs a stage's F of a micro-batch owns it. Checked rows only. */
mhp_status mhp_rows_make_plan(mhp_rows *rows, const char *name, mhp_plan **plan_out);

#endif
