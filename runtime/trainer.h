/* Ties a step together: samples, the plan's actions, reduction, clipping, update, and what the step measured.
 *
 * Every rank of the world creates the same trainer and calls the same functions in the same order; all of them block until the
 * device is done. On an error the caller tells the others by mhp_comm_fail. */
#ifndef MHP_RUNTIME_TRAINER_H
#define MHP_RUNTIME_TRAINER_H

#include "runtime/batch.h"
#include "runtime/energy.h"
#include "runtime/executor.h"
#include "runtime/optimizer.h"
#include "runtime/options.h"
#include "runtime/watchdog.h"

typedef struct mhp_trainer mhp_trainer;

typedef struct mhp_trainer_params {
    mhp_comm *comm;
    const mhp_model_params *model;              /* resolved; all of these must outlive the trainer */
    const mhp_parallel_params *parallel;
    const mhp_schedule_params *schedule;
    const mhp_optimizer_params *optimizer;
    const mhp_train_params *train;
    mhp_sample_source samples;                  /* of training */
    mhp_sample_source held_out;                 /* of evaluation; fill may be NULL if it is never called */
    mhp_watchdog *watchdog;                     /* NULL: none; these outlive the trainer too */
    mhp_faults *faults;                         /* likewise */
} mhp_trainer_params;

typedef struct mhp_step_report {
    int64_t step;                   /* of the step that was done, from 0 */
    double loss;                    /* mean over all targets of the step */
    int64_t targets, tokens;        /* of the whole world */
    double rate, gradient_norm;
    double gain_forward, gain_backward;         /* composed over all sublayers, mean over tokens; 1 for residual */
    double worst_forward, worst_backward;       /* of a single sublayer */
    double step_s;                  /* wall time */
    double bubble;                  /* share of the step in which a rank's compute thread stood still, mean over ranks */
    double flops;                   /* floating-point operations of products, whole world */
    double own_bubble;              /* of this rank */
    mhp_joules energy;              /* of the step, whole world; NaN: not readable, or nobody meters it */
    double bytes_peak;              /* most device memory of any rank so far */
    bool stop;                      /* a rank was asked to stop: the same on every rank */
    const double *losses;           /* [replicas * microbatches]: each micro-batch's sum of losses; until the next step */
    int losses_count;
} mhp_step_report;

/* Parameters are undefined until mhp_store_initialize or a load. NULL is allowed in destroy. */
mhp_status mhp_trainer_create(const mhp_trainer_params *params, mhp_trainer **trainer_out);
void mhp_trainer_destroy(mhp_trainer *trainer);

mhp_store *mhp_trainer_store(mhp_trainer *trainer);
mhp_optimizer *mhp_trainer_optimizer(mhp_trainer *trainer);
const mhp_plan *mhp_trainer_plan(const mhp_trainer *trainer);
const mhp_layout *mhp_trainer_layout(const mhp_trainer *trainer);
/* What this rank planned to hold, and the arena that it holds. */
const mhp_memory_plan *mhp_trainer_memory(const mhp_trainer *trainer);
const mhp_arena *mhp_trainer_arena(const mhp_trainer *trainer);
mhp_stream *mhp_trainer_compute(mhp_trainer *trainer);
/* Notes in `live` what the rank does, from now on; NULL: nowhere. */
void mhp_trainer_watch(mhp_trainer *trainer, mhp_live *live);
/* Has `energy` read at the end of every step from now on, on all ranks; NULL: none. */
void mhp_trainer_meter(mhp_trainer *trainer, mhp_run_energy *energy);
/* Samples that one step reads, over all replicas. */
int64_t mhp_trainer_batch_samples(const mhp_trainer *trainer);

/* Runs step `step` (from 0), which reads the samples step * batch .. + batch - 1. MHP_ERR_NOT_FINITE names step, rank, micro-batch. */
mhp_status mhp_trainer_step(mhp_trainer *trainer, int64_t step, mhp_step_report *report_out);
/* The gradients of a step without the update; they stay in the store, reduced over holders in each one's own part. */
mhp_status mhp_trainer_gradients(mhp_trainer *trainer, int64_t step, mhp_step_report *report_out);
/* Mean loss over the targets of held-out samples 0 .. count - 1. */
mhp_status mhp_trainer_evaluate(mhp_trainer *trainer, uint64_t count, double *loss_out);

#endif
