/* What the files of the trainer share. Private to runtime/trainer*. */
#ifndef MHP_RUNTIME_TRAINER_INTERNAL_H
#define MHP_RUNTIME_TRAINER_INTERNAL_H

#include "runtime/replay.h"
#include "runtime/trainer.h"

/* Share of the step that compute worked; most device memory; whether this rank was asked to stop; joules by kind. */
enum { OWN_BUSY, OWN_BYTES, OWN_STOP, OWN_ENERGY, OWN_COUNT = MHP_STATISTICS_OWN };
_Static_assert(OWN_ENERGY + MHP_ENERGY_KINDS == OWN_COUNT, "the memory plan has room for a rank's own measurements");

/* What ranks add up at the end of a step, as doubles: every value has a place that one rank fills and the others leave at 0, so that
 * the sum is exact and the same for any number of ranks. */
typedef struct step_statistics {
    double *memory;                 /* device */
    double *host;
    mhp_statistics_layout at;
    double *own;                    /* host: [OWN_COUNT], this rank's */
    mhp_event *filled, *summed;
} step_statistics;

struct mhp_trainer {
    mhp_trainer_params params;
    mhp_device *device;
    mhp_layout layout;
    mhp_memory_plan *memory;
    mhp_arena arena;
    mhp_store *store;
    mhp_lanes lanes;
    mhp_stream *compute;            /* of the lanes */
    mhp_recorder *recorder;         /* NULL: nothing is recorded */
    mhp_executor *executor, *evaluator;
    mhp_optimizer *optimizer;
    mhp_batch *batches[2];          /* the one that runs and the one that is read meanwhile */
    mhp_batch *evaluation_batch;
    step_statistics statistics;
    double *judgement;              /* host copy of the optimizer's */
    double flops;                   /* of the world, a step */
    mhp_health health;
    mhp_replay *replay;             /* NULL: no step is run twice */
    uint64_t first_sample;          /* that step 0 would read */
    mhp_run_energy *energy;         /* may be NULL */
    mhp_joules *rank_energy;        /* [world]: of the last step */
    int64_t done;                   /* number of the last step, from 1 */
};

static inline int trainer_microbatches(const mhp_trainer *trainer)
{
    return trainer->layout.plan->microbatch_count;
}

static inline int trainer_replicas(const mhp_trainer *trainer)
{
    return (int)trainer->params.parallel->data;
}

/* What an executor works on. `step` is -1 in an evaluation, which has no gains. */
mhp_executor_inputs trainer_inputs(const mhp_trainer *trainer, int64_t step, const mhp_batch *batch, double loss_scale);

#endif
