/* The generators, and what they share to fill a plan. */
#ifndef MHP_SCHEDULER_GENERATORS_H
#define MHP_SCHEDULER_GENERATORS_H

#include "scheduler/generator.h"

extern const mhp_generator mhp_generator_gpipe;
extern const mhp_generator mhp_generator_1f1b;
extern const mhp_generator mhp_generator_interleaved;
extern const mhp_generator mhp_generator_zb_h1;
extern const mhp_generator mhp_generator_zb_v;
extern const mhp_generator mhp_generator_dualpipe;
extern const mhp_generator mhp_generator_dualpipev;

/* Appends an action; the rank that runs a forward becomes the owner. */
mhp_status mhp_emit(mhp_plan *plan, int rank, mhp_action_kind kind, int stage, int microbatch);
mhp_status mhp_emit_pair(mhp_plan *plan, int rank, int stage, int microbatch, int backward_stage, int backward_microbatch);

/* The eight steps that DualPipe and DualPipeV share, for one rank. Direction d runs stage[d], micro-batches from first[d] on.
 * h, k: docs/schedules.md; main_count is the number of iterations of step 4. */
typedef struct mhp_dual_rank {
    int rank, h, k, main_count;
    int stage[2], first[2];
} mhp_dual_rank;
mhp_status mhp_emit_dual(mhp_plan *plan, const mhp_dual_rank *dual);

#endif
