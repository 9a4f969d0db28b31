/* AdamW over the held stages. Holders of the same stage share one optimizer state: gradients are reduce-scattered as soon as a
 * stage's last weight gradient is done, everyone updates its own part, and the weights are gathered again. */
#ifndef MHP_RUNTIME_OPTIMIZER_H
#define MHP_RUNTIME_OPTIMIZER_H

#include "runtime/profile/recorder.h"

typedef struct mhp_optimizer mhp_optimizer;

/* NULL is allowed in destroy. `params` and `store` must outlive the optimizer. Moments start at zero. */
mhp_status mhp_optimizer_create(mhp_store *store, const mhp_optimizer_params *params, int64_t total_steps, mhp_stream *compute,
                                mhp_optimizer **optimizer_out);
void mhp_optimizer_destroy(mhp_optimizer *optimizer);
/* Records its steps from now on. The recorder is not ready yet, and outlives the optimizer. */
mhp_status mhp_optimizer_set_recorder(mhp_optimizer *optimizer, mhp_recorder *recorder);

/* The learning rate of a step, counted from 0. */
double mhp_learning_rate(const mhp_optimizer_params *params, int64_t total_steps, int64_t step);

/* Submits the zeroing of all gradients. */
mhp_status mhp_optimizer_zero(mhp_optimizer *optimizer);
/* Sets the moments to zero again; blocks. */
mhp_status mhp_optimizer_reset(mhp_optimizer *optimizer);
/* Starts the reduction of a held stage's gradients behind what the compute stream has now; an mhp_reduce_fn. */
mhp_status mhp_optimizer_reduce(void *optimizer, mhp_held_stage *held);
/* Submits the wait for all reductions; after all began. Behind it this rank's part of the gradients is whole. */
mhp_status mhp_optimizer_await(mhp_optimizer *optimizer);
/* Adds the squares of this rank's part of the gradients to sum[0] (device memory); behind mhp_optimizer_await. */
mhp_status mhp_optimizer_add_squares(mhp_optimizer *optimizer, double *sum);
/* Submits the global norm and the clipping factor, from all ranks' squares: device memory [1]. If a watched sum is above its limit, the
 * update that follows changes nothing. */
mhp_status mhp_optimizer_clip(mhp_optimizer *optimizer, const double *square_sum, const mhp_sum_limit *watches, int watch_count);
/* Submits the update of step `step` (from 0) and the gathering of weights; behind mhp_optimizer_clip. Every rank. The compute stream
 * is behind it when it ends. */
mhp_status mhp_optimizer_update(mhp_optimizer *optimizer, int64_t step);
/* Device memory [2]: the gradient norm before clipping, and the factor, or -1 - w if watch w forbids the update. Valid on the compute
 * stream behind mhp_optimizer_clip. */
const double *mhp_optimizer_judgement(const mhp_optimizer *optimizer);

/* A held stage's moments: device memory, [chunk] each, this rank's part of the stage's elements. */
void mhp_optimizer_moments(mhp_optimizer *optimizer, const mhp_held_stage *held, void **moment1_out, void **moment2_out);
/* Bytes of the optimizer state on this rank. */
size_t mhp_optimizer_bytes(const mhp_optimizer *optimizer);

#endif
