#include "runtime/run.h"

#include <math.h>
#include <stdio.h>

#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "runtime/checkpoint/catalog.h"
#include "runtime/metrics.h"
#include "runtime/profile/identity.h"
#include "runtime/telemetry.h"

struct mhp_run {
    mhp_run_params params;
    mhp_dataset *dataset;
    mhp_trainer *trainer;
    mhp_metrics *metrics;           /* rank 0 of a run with a folder */
    mhp_saver *saver;               /* of a run with a folder */
    mhp_telemetry *telemetry;       /* of training */
    char *resumed_from;             /* checkpoint folder, or NULL */
    mhp_checkpoint_state resumed;
    int64_t first_step;
    int64_t saved_step;             /* of this run's newest checkpoint; -1: none yet */
    int64_t bad_steps;              /* in a row; with the policy to go back, since the newest checkpoint */
    double best_loss;
};

static mhp_status fill_training(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    return mhp_dataset_sample(context, MHP_SPLIT_TRAIN, sample, token, target, document_start);
}

static mhp_status fill_held_out(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    return mhp_dataset_sample(context, MHP_SPLIT_HELD_OUT, sample, token, target, document_start);
}

static bool is_root(const mhp_run *run)
{
    return mhp_comm_rank(run->params.trainer.comm) == 0;
}

static mhp_status agree(const mhp_run *run, mhp_status status)
{
    return mhp_comm_agree(run->params.trainer.comm, status, NULL);
}

/* What each rank can do alone, before anything that needs the others. */
static mhp_status open_files(mhp_run *run)
{
    const mhp_train_params *train = run->params.trainer.train;

    MHP_RETURN_IF_ERROR(mhp_dataset_open(run->params.data, train->sequence_length, (uint64_t)train->seed,
                                         run->params.trainer.model->vocab_size, &run->dataset));
    if (run->params.directory && is_root(run)) {
        MHP_RETURN_IF_ERROR(mhp_mkdirs(run->params.directory));
    }
    return MHP_OK;
}

static mhp_status check_resumed(const mhp_run *run)
{
    const mhp_checkpoint_state *state = &run->resumed;
    int64_t samples = mhp_trainer_batch_samples(run->trainer);

    if (state->seed != run->params.trainer.train->seed) {
        return mhp_error_set(MHP_ERR_CONFIG, "%s was made with train.seed %lld: expected the same, not %lld", run->resumed_from,
                             (long long)state->seed, (long long)run->params.trainer.train->seed);
    }
    if (state->samples_per_step != samples) {
        return mhp_error_set(MHP_ERR_CONFIG, "%s was made with steps of %lld samples: expected the same number, not %lld",
                             run->resumed_from, (long long)state->samples_per_step, (long long)samples);
    }
    if (state->next_sample < (uint64_t)(state->step * samples) || state->next_sample % (uint64_t)samples != 0) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s stopped at sample %llu behind step %lld of %lld samples each: expected their product, or more by whole steps",
                             run->resumed_from, (unsigned long long)state->next_sample, (long long)state->step, (long long)samples);
    }
    return MHP_OK;
}

static void restore_health(mhp_run *run, const mhp_checkpoint_state *state)
{
    mhp_health *health = mhp_trainer_health(run->trainer);

    health->loss_mean = state->loss_mean;
    health->loss_count = state->loss_count;
}

/* Every rank; all get the same status. */
static mhp_status load_parameters(mhp_run *run)
{
    mhp_store *store = mhp_trainer_store(run->trainer);

    MHP_RETURN_IF_ERROR(mhp_checkpoint_restore(store, mhp_trainer_optimizer(run->trainer), run->params.resume, run->params.directory,
                                               &run->resumed, &run->resumed_from));
    if (!run->resumed_from) {
        return agree(run, mhp_store_initialize(store, (uint64_t)run->params.trainer.train->seed));
    }
    MHP_RETURN_IF_ERROR(agree(run, check_resumed(run)));
    run->first_step = run->resumed.step;
    run->best_loss = run->resumed.best_loss;
    restore_health(run, &run->resumed);
    mhp_trainer_seek(run->trainer, run->first_step, run->resumed.next_sample);
    return MHP_OK;
}

/* Rank 0, once nothing speaks against this start any more. */
static mhp_status adopt_folder(const mhp_run *run)
{
    const mhp_run_params *params = &run->params;

    return params->directory && is_root(run)
               ? mhp_checkpoint_adopt(params->resume, params->directory, run->resumed_from, run->resumed.step)
               : MHP_OK;
}

static mhp_status create_saver(mhp_run *run)
{
    mhp_saver_params params = {
        .store = mhp_trainer_store(run->trainer),
        .optimizer = mhp_trainer_optimizer(run->trainer),
        .run = run->params.directory,
        .keep_last = run->params.checkpoint->keep_last,
        .keep_every = run->params.checkpoint->keep_every,
    };

    return run->params.directory ? mhp_saver_create(&params, &run->saver) : MHP_OK;
}

/* Rank 0: what a run of the same folder left behind is cut at the step that this one goes on from. */
static mhp_status begin_files(mhp_run *run)
{
    const char *directory = run->params.directory;
    mhp_hash identity = {0};

    if (run->first_step > 0) { /* else nothing stays, whosever it is */
        MHP_RETURN_IF_ERROR(mhp_trainer_identity(run->trainer, &identity));
    }
    MHP_RETURN_IF_ERROR(mhp_profile_begin(directory, identity, run->first_step));
    return mhp_metrics_open(directory, run->first_step, &run->metrics);
}

mhp_status mhp_run_create(const mhp_run_params *params, mhp_run **run_out)
{
    mhp_status status = MHP_OK;
    mhp_run *run = NULL;

    MHP_TRY(out, mhp_calloc(&run, 1, sizeof *run));
    run->params = *params;
    run->best_loss = INFINITY;
    run->saved_step = -1;
    MHP_TRY(out, agree(run, open_files(run)));
    run->params.trainer.samples = (mhp_sample_source){fill_training, run->dataset};
    run->params.trainer.held_out = (mhp_sample_source){fill_held_out, run->dataset};
    MHP_TRY(out, mhp_trainer_create(&run->params.trainer, &run->trainer));
    MHP_TRY(out, load_parameters(run));
    MHP_TRY(out, agree(run, adopt_folder(run)));
    MHP_TRY(out, create_saver(run));
    if (run->params.directory && is_root(run)) {
        status = begin_files(run);
    }
    MHP_TRY(out, agree(run, status));
    *run_out = run;
    run = NULL;
out:
    if (mhp_comm_may_release(params->trainer.comm, status)) {
        mhp_run_destroy(run);
    }
    return status;
}

void mhp_run_destroy(mhp_run *run)
{
    if (!run) {
        return;
    }
    mhp_telemetry_close(run->telemetry);
    mhp_metrics_close(run->metrics);
    mhp_saver_destroy(run->saver);
    mhp_free(run->resumed_from);
    mhp_trainer_destroy(run->trainer);
    mhp_dataset_close(run->dataset);
    mhp_free(run);
}

void mhp_run_end(mhp_run *run, mhp_status status)
{
    if (run && !mhp_comm_may_release(run->params.trainer.comm, status)) {
        mhp_telemetry_fail(run->telemetry);
    } else {
        mhp_run_destroy(run);
    }
}

mhp_trainer *mhp_run_trainer(mhp_run *run)
{
    return run->trainer;
}

const char *mhp_run_resumed_from(const mhp_run *run, const mhp_checkpoint_state **state_out)
{
    *state_out = &run->resumed;
    return run->resumed_from;
}

static uint64_t held_out_samples(const mhp_run *run)
{
    uint64_t count = mhp_dataset_held_out_count(run->dataset);
    uint64_t limit = (uint64_t)run->params.eval->sequences;

    return limit > 0 && limit < count ? limit : count;
}

mhp_status mhp_run_evaluate(mhp_run *run, double *loss_out)
{
    uint64_t count = held_out_samples(run);

    *loss_out = NAN;
    return count > 0 ? mhp_trainer_evaluate(run->trainer, count, loss_out) : MHP_OK;
}

static bool is_due(int64_t every, int64_t done, int64_t total)
{
    return done == total || (every > 0 && done % every == 0);
}

static mhp_bad_step_policy policy_of(const mhp_run *run)
{
    return (mhp_bad_step_policy)run->params.trainer.train->non_finite.policy;
}

static void enter(mhp_run *run, mhp_section section, int64_t done)
{
    mhp_watchdog_enter(run->params.trainer.watchdog, section, done);
}

static mhp_status save_checkpoint(mhp_run *run, int64_t done)
{
    const mhp_health *health = mhp_trainer_health(run->trainer);
    mhp_checkpoint_state state = {
        .step = done,
        .next_sample = mhp_trainer_first_sample(run->trainer, done),
        .samples_per_step = mhp_trainer_batch_samples(run->trainer),
        .seed = run->params.trainer.train->seed,
        .best_loss = run->best_loss,
        .loss_mean = health->loss_mean,
        .loss_count = health->loss_count,
    };

    enter(run, MHP_SECTION_SAVE, done);
    snprintf(state.configuration, sizeof state.configuration, "%s", run->params.configuration ? run->params.configuration : "");
    MHP_RETURN_IF_ERROR(mhp_saver_begin(run->saver, &state));
    run->saved_step = done;
    run->bad_steps = policy_of(run) == MHP_BAD_STEP_ROLLBACK ? 0 : run->bad_steps;
    return MHP_OK;
}

static mhp_status save_best(mhp_run *run, double loss)
{
    mhp_status status;
    char *directory = NULL;

    if (!run->params.directory || !(loss < run->best_loss)) {
        return MHP_OK;
    }
    run->best_loss = loss;
    MHP_RETURN_IF_ERROR(mhp_asprintf(&directory, "%s/best", run->params.directory));
    status = mhp_model_save(mhp_trainer_store(run->trainer), directory);
    mhp_free(directory);
    return status;
}

/* Whether the checkpoint under way failed; what the last one took is what the next one is expected to take. */
static mhp_status check_saver(mhp_run *run)
{
    mhp_saver_stats stats;

    mhp_saver_get_stats(run->saver, &stats);
    mhp_watchdog_saved(run->params.trainer.watchdog, stats.stage_s + stats.write_s);
    return mhp_saver_check(run->saver);
}

/* What follows a step: evaluation, the best model, metrics, a checkpoint. */
static mhp_status follow_step(mhp_run *run, const mhp_step_report *report, mhp_run_result *result)
{
    int64_t done = report->step + 1;
    int64_t total = run->params.trainer.train->steps;
    double loss = NAN;

    if (run->saver) {
        MHP_RETURN_IF_ERROR(check_saver(run));
    }
    if (is_due(run->params.eval->every, done, total)) {
        mhp_telemetry_evaluation(run->telemetry);
        MHP_RETURN_IF_ERROR(mhp_run_evaluate(run, &loss));
        result->held_out_loss = loss;
        enter(run, MHP_SECTION_SAVE, done);
        MHP_RETURN_IF_ERROR(save_best(run, loss));
    }
    if (run->metrics) {
        MHP_RETURN_IF_ERROR(mhp_metrics_write(run->metrics, report, loss));
    }
    MHP_RETURN_IF_ERROR(mhp_telemetry_write(run->telemetry, report, loss));
    if (run->params.progress) {
        run->params.progress(run->params.progress_context, report, loss);
    }
    result->stopped = report->stop && done < total;
    if (run->saver && (is_due(run->params.checkpoint->every, done, total) || result->stopped)) {
        MHP_RETURN_IF_ERROR(save_checkpoint(run, done));
    }
    result->steps = done;
    result->loss = report->loss;
    return MHP_OK;
}

static mhp_status open_telemetry(mhp_run *run)
{
    mhp_telemetry_params params = {
        .trainer = run->trainer,
        .comm = run->params.trainer.comm,
        .directory = run->params.directory,
        .log = run->params.log,
        .report = run->params.report,
        .first_step = run->first_step,
        .total = run->params.trainer.train->steps,
    };

    return mhp_telemetry_open(&params, &run->telemetry);
}

/* Every rank. */
static mhp_status summarize(mhp_run *run, mhp_run_result *result)
{
    result->best_loss = run->best_loss;
    result->summary = (mhp_summary){.steps = result->steps, .loss = result->loss, .held_out_loss = result->held_out_loss,
                                    .best_loss = run->best_loss};
    return mhp_telemetry_summary(run->telemetry, result->stopped, &result->summary);
}

/* ---- bad steps ---- */

/* The steps done in the state that the run goes back to: of its newest checkpoint, of the one that it came from, or of none. */
static int64_t way_back(const mhp_run *run)
{
    if (run->saved_step >= 0) {
        return run->saved_step;
    }
    return run->resumed_from ? run->resumed.step : 0;
}

/* Loads that state. Every rank; all get the same status. */
static mhp_status go_back(mhp_run *run)
{
    mhp_store *store = mhp_trainer_store(run->trainer);
    mhp_optimizer *optimizer = mhp_trainer_optimizer(run->trainer);
    mhp_checkpoint_state state = {.step = 0};
    mhp_resume resume = {.kind = MHP_RESUME_PATH, .path = run->resumed_from};
    mhp_status status = MHP_OK;
    char *saved = NULL, *from = NULL;

    if (run->saved_step < 0 && !run->resumed_from) {
        MHP_TRY(out, agree(run, mhp_store_initialize(store, (uint64_t)run->params.trainer.train->seed)));
        MHP_TRY(out, agree(run, mhp_optimizer_reset(optimizer)));
    } else {
        if (run->saved_step >= 0) {
            MHP_TRY(out, mhp_saver_wait(run->saver));
            MHP_TRY(out, mhp_catalog_path(run->params.directory, run->saved_step, &saved));
            resume.path = saved;
        }
        MHP_TRY(out, mhp_checkpoint_restore(store, optimizer, resume, run->params.directory, &state, &from));
    }
    restore_health(run, &state);
out:
    mhp_free(from);
    mhp_free(saved);
    return status;
}

/* Rank 0 alone has metrics. */
static mhp_status record(mhp_run *run, const char *event, const mhp_step_report *report, int64_t to_step)
{
    return run->metrics ? mhp_metrics_write_event(run->metrics, event, report, to_step) : MHP_OK;
}

/* The lines of the steps that are undone go. */
static mhp_status rewind_metrics(mhp_run *run, int64_t to_step)
{
    if (!run->metrics) {
        return MHP_OK;
    }
    mhp_metrics_close(run->metrics);
    run->metrics = NULL;
    return mhp_metrics_open(run->params.directory, to_step, &run->metrics);
}

static mhp_status roll_back(mhp_run *run, const mhp_step_report *report)
{
    uint64_t next_sample = mhp_trainer_first_sample(run->trainer, report->step + 1);
    int64_t to_step = way_back(run);

    mhp_log_warn("%s; going back to the state behind %lld steps, and on with sample %llu", report->fault_text, (long long)to_step,
                 (unsigned long long)next_sample);
    enter(run, MHP_SECTION_SAVE, report->step + 1);
    MHP_RETURN_IF_ERROR(agree(run, record(run, "rollback", report, to_step)));
    MHP_RETURN_IF_ERROR(go_back(run));
    mhp_trainer_seek(run->trainer, to_step, next_sample);
    return agree(run, rewind_metrics(run, to_step));
}

/* The policy that holds for this bad step. */
static mhp_bad_step_policy choose(mhp_run *run)
{
    return ++run->bad_steps > run->params.trainer.train->non_finite.patience ? MHP_BAD_STEP_STOP : policy_of(run);
}

/* Ends the run; the metrics have the reason in any case. */
static mhp_status stop(mhp_run *run, const mhp_step_report *report)
{
    MHP_RETURN_IF_ERROR(agree(run, record(run, "stop", report, -1)));
    return agree(run, mhp_error_set(MHP_ERR_NOT_FINITE, "%s%s", report->fault_text,
                                    policy_of(run) == MHP_BAD_STEP_STOP ? "" : "; train.non_finite.patience is at its end"));
}

/* Runs step *step, does what follows it, and sets *step to the next one. */
static mhp_status advance(mhp_run *run, int64_t *step, mhp_run_result *result)
{
    mhp_step_report report;
    mhp_bad_step_policy policy;

    mhp_telemetry_begin(run->telemetry);
    MHP_RETURN_IF_ERROR(mhp_trainer_step(run->trainer, *step, &report));
    mhp_telemetry_end(run->telemetry, &report);
    if (report.fault == MHP_STEP_GOOD) {
        run->bad_steps = policy_of(run) == MHP_BAD_STEP_ROLLBACK ? run->bad_steps : 0;
    } else {
        policy = choose(run);
        if (policy == MHP_BAD_STEP_STOP) {
            return stop(run, &report);
        }
        if (policy == MHP_BAD_STEP_ROLLBACK) {
            *step = way_back(run);
            return roll_back(run, &report);
        }
        mhp_log_warn("%s; its update is skipped", report.fault_text);
        MHP_RETURN_IF_ERROR(record(run, "skip", &report, -1));
    }
    (*step)++;
    return follow_step(run, &report, result);
}

mhp_status mhp_run_train(mhp_run *run, mhp_run_result *result_out)
{
    int64_t step = run->first_step;

    *result_out = (mhp_run_result){.steps = run->first_step, .loss = NAN, .held_out_loss = NAN};
    MHP_RETURN_IF_ERROR(open_telemetry(run));
    while (step < run->params.trainer.train->steps && !result_out->stopped) {
        MHP_RETURN_IF_ERROR(advance(run, &step, result_out));
    }
    enter(run, MHP_SECTION_SAVE, result_out->steps);
    MHP_RETURN_IF_ERROR(run->saver ? mhp_saver_wait(run->saver) : MHP_OK);
    enter(run, MHP_SECTION_END, 0);
    return summarize(run, result_out);
}
