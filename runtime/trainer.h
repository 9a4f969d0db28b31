/* Ties a step together: samples, the plan's actions, reduction, clipping, update, and what the step measured.
 *
 * Every rank of the world creates the same trainer and calls the same functions in the same order; all of them block until the
 * device is done. On an error the caller tells the others by mhp_comm_fail. */
#ifndef MHP_RUNTIME_TRAINER_H
#define MHP_RUNTIME_TRAINER_H

#include "runtime/batch.h"
#include "runtime/energy.h"
#include "runtime/executor.h"
#include "runtime/health.h"
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
    const mhp_profile_params *profile;          /* NULL: nothing is recorded */
    const char *directory;                      /* the run's folder, for what is recorded; with profile */
    mhp_sample_source samples;                  /* of training */
    mhp_sample_source held_out;                 /* of evaluation; fill may be NULL if it is never called */
    mhp_watchdog *watchdog;                     /* NULL: none; these outlive the trainer too */
    mhp_faults *faults;                         /* likewise */
    /* For tests; NULL: nothing. Called when a step's losses and gradients have been submitted, before anything is made of them; may submit
     * to the trainer's compute stream. A step that is run twice calls it twice. */
    mhp_status (*tamper)(void *context, int64_t step);
    void *tamper_context;
} mhp_trainer_params;

enum { MHP_FAULT_TEXT_MAX = 256 };

typedef struct mhp_step_report {
    int64_t step;                   /* of the step that was done, from 0 */
    uint64_t first_sample;          /* that it read */
    mhp_step_fault fault;           /* not good: there was no update */
    char fault_text[MHP_FAULT_TEXT_MAX];        /* "step 8: the gradient norm is inf, ..." */
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
    const mhp_run_energy *meters;   /* who meters what; NULL: nobody */
    const mhp_joules *rank_energy;  /* [world]: what each rank's meters read, 0 of what another one meters; until the next step */
    int world_size;
    bool recorded;                  /* the step is one of those in the run's traces */
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
/* Of what it records: runtime/profile/identity.h. */
mhp_status mhp_trainer_identity(const mhp_trainer *trainer, mhp_hash *identity_out);
/* Notes in `live` what the rank does, from now on; NULL: nowhere. */
void mhp_trainer_watch(mhp_trainer *trainer, mhp_live *live);
/* Has `energy` read at the end of every step from now on, on all ranks; NULL: none. */
void mhp_trainer_meter(mhp_trainer *trainer, mhp_run_energy *energy);
/* Samples that one step reads, over all replicas. */
int64_t mhp_trainer_batch_samples(const mhp_trainer *trainer);

/* Step `step` reads the samples from `first_sample` on, each later one those behind. At first, step 0 reads from 0 on. */
void mhp_trainer_seek(mhp_trainer *trainer, int64_t step, uint64_t first_sample);
uint64_t mhp_trainer_first_sample(const mhp_trainer *trainer, int64_t step);
/* What losses are compared with; to be kept and restored with the parameters. */
mhp_health *mhp_trainer_health(mhp_trainer *trainer);

/* Runs step `step` (from 0). A bad step changes neither parameters nor moments: MHP_OK with a fault in the report, the same on all
 * ranks. What follows from it is the caller's to say. */
mhp_status mhp_trainer_step(mhp_trainer *trainer, int64_t step, mhp_step_report *report_out);
/* The gradients of a step without the update; they stay in the store, reduced over holders in each one's own part. A bad step is
 * MHP_ERR_NOT_FINITE. */
mhp_status mhp_trainer_gradients(mhp_trainer *trainer, int64_t step, mhp_step_report *report_out);
/* Mean loss over the targets of held-out samples 0 .. count - 1. */
mhp_status mhp_trainer_evaluate(mhp_trainer *trainer, uint64_t count, double *loss_out);

#endif
