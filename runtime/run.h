/* A whole run: steps, evaluations, checkpoints and metrics, from the first or a resumed step to the last. */
#ifndef MHP_RUNTIME_RUN_H
#define MHP_RUNTIME_RUN_H

#include "runtime/checkpoint/restore.h"
#include "runtime/checkpoint/saver.h"
#include "runtime/data/sampler.h"
#include "runtime/model_file.h"
#include "runtime/summary.h"
#include "runtime/trainer.h"

typedef struct mhp_run_params {
    mhp_trainer_params trainer;     /* samples and held_out are set by the run */
    const mhp_data_params *data;
    const mhp_eval_params *eval;
    const mhp_checkpoint_params *checkpoint;
    const mhp_log_params *log;      /* NULL: neither TensorBoard nor Prometheus */
    const mhp_report_params *report;        /* NULL: no emissions */
    const char *directory;          /* the run's folder, or NULL: nothing is written */
    const char *configuration;      /* checksum of the resolved configuration, for the manifests; NULL: none */
    mhp_resume resume;
    /* Called on every rank after each step; held_out_loss is NaN if there was no evaluation. May be NULL. */
    void (*progress)(void *context, const mhp_step_report *report, double held_out_loss);
    void *progress_context;
} mhp_run_params;

typedef struct mhp_run_result {
    int64_t steps;                  /* done in all */
    bool stopped;                   /* on request, before the last step; a checkpoint of it is complete */
    double loss, held_out_loss;     /* of the last step; NaN without held-out samples */
    double best_loss;
    mhp_summary summary;            /* with the energy */
} mhp_run_result;

typedef struct mhp_run mhp_run;

/* Opens data and trainer, and loads or initializes the parameters. Every rank; all get the same status. */
mhp_status mhp_run_create(const mhp_run_params *params, mhp_run **run_out);
/* Of these NULL is allowed. For a run that came to its end, on every rank. */
void mhp_run_destroy(mhp_run *run);
/* The same behind any status: where the ranks did not agree on it, messages may be under way, and the run is said to have failed in its
 * live file and else left as it is, for a process that is about to end. */
void mhp_run_end(mhp_run *run, mhp_status status);
mhp_trainer *mhp_run_trainer(mhp_run *run);
/* The checkpoint that the run goes on from, NULL for none; and its state. */
const char *mhp_run_resumed_from(const mhp_run *run, const mhp_checkpoint_state **state_out);

/* Trains to the end. An error of one rank alone is returned there only; the caller then calls mhp_comm_fail. */
mhp_status mhp_run_train(mhp_run *run, mhp_run_result *result_out);
/* The held-out loss alone. */
mhp_status mhp_run_evaluate(mhp_run *run, double *loss_out);

#endif
