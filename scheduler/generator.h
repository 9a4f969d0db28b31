/* Named schedules. Each generator is one small file that fills a plan with the compute order of every rank. */
#ifndef MHP_SCHEDULER_GENERATOR_H
#define MHP_SCHEDULER_GENERATOR_H

#include "scheduler/plan.h"

typedef struct mhp_schedule_shape {
    int ranks;                  /* pipeline ranks, >= 1 */
    int microbatches;           /* of one replica and step, >= 1 */
    int chunks;                 /* stages a rank for the interleaved schedules; ignored elsewhere */
} mhp_schedule_shape;

typedef struct mhp_generator {
    const char *name;           /* "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipev" */
    const char *help;
    /* MHP_ERR_PLAN with the nearest values that work if the shape does not suit the schedule. */
    mhp_status (*check)(const mhp_schedule_shape *shape);
    int (*stage_count)(const mhp_schedule_shape *shape);
    /* Appends the compute order of one rank, in time proportional to its length. */
    mhp_status (*emit_rank)(const mhp_schedule_shape *shape, int rank, mhp_plan *plan);
} mhp_generator;

/* By name; NULL if unknown. By index; NULL past the end. */
const mhp_generator *mhp_generator_find(const char *name);
const mhp_generator *mhp_generator_at(size_t index);

/* Checks the shape and generates the compute order; not lowered. MHP_ERR_NOT_FOUND names the known schedules. */
mhp_status mhp_schedule_generate(const char *name, const mhp_schedule_shape *shape, mhp_plan **plan_out);
/* The same with the order of one rank alone: the other ranks' lists stay empty, and of the owners those are known that it is. */
mhp_status mhp_schedule_generate_rank(const char *name, const mhp_schedule_shape *shape, int rank, mhp_plan **plan_out);

/* The compute order of an evaluation with another plan's placement: every rank runs the F of its stages, nothing else. Micro-batches
 * are dealt to the owners in the same proportion as in `plan`; `microbatches` may differ from the plan's. Not lowered. */
mhp_status mhp_schedule_forward_only(const mhp_plan *plan, int microbatches, mhp_plan **plan_out);

#endif
