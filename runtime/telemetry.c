#include "runtime/telemetry.h"

#include <math.h>
#include <stdio.h>

#include "core/log.h"
#include "core/memory.h"
#include "runtime/prometheus.h"
#include "runtime/tensorboard.h"

struct mhp_telemetry {
    mhp_telemetry_params params;
    mhp_run_energy *energy;
    mhp_live *live;
    mhp_tensorboard *tensorboard;   /* rank 0, as is prometheus */
    mhp_prometheus *prometheus;
    bool is_root;
    mhp_live_phase end;             /* what the live files say at last */
    bool has_warned;                /* of prometheus */
    uint64_t start_ns;              /* of the first step */
    double tokens;
};

/* ---- opening ---- */

static mhp_status open_energy(mhp_telemetry *telemetry)
{
    mhp_run_energy_params params = {
        .world = mhp_trainer_store(telemetry->params.trainer)->world,
        .device = mhp_comm_device(telemetry->params.comm),
    };

    MHP_RETURN_IF_ERROR(mhp_run_energy_open(&params, &telemetry->energy));
    mhp_trainer_meter(telemetry->params.trainer, telemetry->energy);
    return MHP_OK;
}

/* Power of this rank's card, also if it shares it; of its node's packages if it is the one that meters them. */
static mhp_status open_live(mhp_telemetry *telemetry)
{
    mhp_status status = MHP_OK;
    const mhp_plan *plan = mhp_trainer_plan(telemetry->params.trainer);
    mhp_live_params params = {
        .directory = telemetry->params.directory,
        .state = {
            .rank = mhp_comm_rank(telemetry->params.comm),
            .size = mhp_comm_size(telemetry->params.comm),
            .cuda = mhp_device_get_kind(mhp_comm_device(telemetry->params.comm)) == MHP_DEVICE_CUDA,
            .first_step = telemetry->params.first_step,
            .done = telemetry->params.first_step,
            .total = telemetry->params.total,
            .arena_bytes = (double)mhp_trainer_arena(telemetry->params.trainer)->bytes,
        },
    };

    snprintf(params.state.schedule, sizeof params.state.schedule, "%.63s", plan->name);
    MHP_TRY(out, mhp_run_energy_meter(telemetry->energy, MHP_ENERGY_CPU, false, &params.meters[0]));
    MHP_TRY(out, mhp_run_energy_meter(telemetry->energy, MHP_ENERGY_GPU, true, &params.meters[1]));
    MHP_TRY(out, mhp_live_open(&params, &telemetry->live));
    params.meters[0] = params.meters[1] = NULL;
    mhp_trainer_watch(telemetry->params.trainer, telemetry->live);
out:
    mhp_energy_close(params.meters[0]);
    mhp_energy_close(params.meters[1]);
    return status;
}

static mhp_status open_files(mhp_telemetry *telemetry)
{
    const mhp_telemetry_params *params = &telemetry->params;

    if (!params->log || !params->directory || !telemetry->is_root) {
        return MHP_OK;
    }
    if (params->log->tensorboard) {
        MHP_RETURN_IF_ERROR(mhp_tensorboard_open(params->directory, params->first_step, &telemetry->tensorboard));
    }
    if (params->log->prometheus[0] != '\0') {
        MHP_RETURN_IF_ERROR(mhp_error_prefix(mhp_prometheus_open(params->log->prometheus, params->directory, params->first_step,
                                                                 params->total, &telemetry->prometheus), "log.prometheus: "));
    }
    return MHP_OK;
}

/* Whoever cannot write a live file trains all the same. */
static mhp_status open_live_files(mhp_telemetry *telemetry)
{
    const mhp_telemetry_params *params = &telemetry->params;

    if (!params->directory) {
        return MHP_OK;
    }
    if (telemetry->is_root && mhp_live_prepare(params->directory) < 0) {
        mhp_log_warn("no live files: %s", mhp_error_text());
    }
    MHP_RETURN_IF_ERROR(mhp_group_barrier(mhp_trainer_store(params->trainer)->world));
    if (open_live(telemetry) < 0) {
        mhp_log_warn("no live file of rank %d: %s", mhp_comm_rank(params->comm), mhp_error_text());
    }
    return MHP_OK;
}

mhp_status mhp_telemetry_open(const mhp_telemetry_params *params, mhp_telemetry **telemetry_out)
{
    mhp_status status = MHP_OK;
    mhp_telemetry *telemetry = NULL;

    MHP_TRY(out, mhp_calloc(&telemetry, 1, sizeof *telemetry));
    telemetry->params = *params;
    telemetry->end = MHP_LIVE_FAILED;
    telemetry->is_root = mhp_comm_rank(params->comm) == 0;
    MHP_TRY(out, mhp_comm_agree(params->comm, open_files(telemetry), NULL));
    MHP_TRY(out, open_energy(telemetry));
    MHP_TRY(out, open_live_files(telemetry));
    *telemetry_out = telemetry;
    telemetry = NULL;
out:
    if (mhp_comm_may_release(params->comm, status)) {
        mhp_telemetry_close(telemetry);
    }
    return status;
}

void mhp_telemetry_close(mhp_telemetry *telemetry)
{
    if (!telemetry) {
        return;
    }
    (void)mhp_stream_synchronize(mhp_trainer_compute(telemetry->params.trainer));   /* what was submitted uses both */
    mhp_trainer_watch(telemetry->params.trainer, NULL);
    mhp_trainer_meter(telemetry->params.trainer, NULL);
    mhp_live_close(telemetry->live, telemetry->end);
    mhp_prometheus_close(telemetry->prometheus);
    mhp_tensorboard_close(telemetry->tensorboard);
    mhp_run_energy_close(telemetry->energy);
    mhp_free(telemetry);
}

void mhp_telemetry_fail(mhp_telemetry *telemetry)
{
    if (telemetry) {
        mhp_live_end(telemetry->live, MHP_LIVE_FAILED);
    }
}

/* ---- steps ---- */

void mhp_telemetry_begin(mhp_telemetry *telemetry)
{
    mhp_live_enter(telemetry->live, MHP_LIVE_STEP);
    mhp_run_energy_begin(telemetry->energy);
    telemetry->start_ns = telemetry->start_ns > 0 ? telemetry->start_ns : mhp_time_ns();
}

void mhp_telemetry_end(mhp_telemetry *telemetry, const mhp_step_report *report)
{
    telemetry->tokens += (double)report->tokens;
    mhp_live_step(telemetry->live, report->step + 1, report->step_s, report->own_bubble, report->loss,
                  report->step_s > 0 ? (double)report->tokens / report->step_s : NAN);
    mhp_run_energy_add(telemetry->energy, &report->energy);
}

void mhp_telemetry_evaluation(mhp_telemetry *telemetry)
{
    mhp_live_enter(telemetry->live, MHP_LIVE_EVALUATION);
}

/* A file that others watch is not worth the run. */
static void write_prometheus(mhp_telemetry *telemetry, int64_t done, const mhp_scalar *scalars, int count)
{
    if (mhp_prometheus_write(telemetry->prometheus, done, scalars, count) < 0 && !telemetry->has_warned) {
        telemetry->has_warned = true;
        mhp_log_warn("log.prometheus: %s; training goes on without it", mhp_error_text());
    }
}

mhp_status mhp_telemetry_write(mhp_telemetry *telemetry, const mhp_step_report *report, double held_out_loss)
{
    mhp_scalar scalars[MHP_SCALARS_MAX];
    int64_t done = report->step + 1;
    int count;

    mhp_live_enter(telemetry->live, MHP_LIVE_BETWEEN);
    if (!telemetry->tensorboard && !telemetry->prometheus) {
        return MHP_OK;
    }
    count = mhp_scalars_of(report, held_out_loss, scalars);
    if (telemetry->prometheus &&
        (done % telemetry->params.log->every == 0 || done == telemetry->params.total || !isnan(held_out_loss))) {
        write_prometheus(telemetry, done, scalars, count);
    }
    return telemetry->tensorboard ? mhp_tensorboard_write(telemetry->tensorboard, done, scalars, count) : MHP_OK;
}

mhp_status mhp_telemetry_summary(mhp_telemetry *telemetry, bool stopped, mhp_summary *summary)
{
    static const mhp_emissions_params no_emissions = {0, 1};
    const mhp_telemetry_params *params = &telemetry->params;
    const mhp_emissions_params *emissions = params->report ? &params->report->emissions : &no_emissions;

    summary->first_step = params->first_step;
    summary->tokens = telemetry->tokens;
    summary->seconds = telemetry->start_ns > 0 ? (double)(mhp_time_ns() - telemetry->start_ns) * 1e-9 : 0;
    MHP_RETURN_IF_ERROR(mhp_run_energy_total(telemetry->energy, &summary->energy));
    mhp_summary_derive(summary, emissions);
    if (params->directory && telemetry->is_root) {
        MHP_RETURN_IF_ERROR(mhp_summary_write(summary, emissions, params->directory));
    }
    telemetry->end = stopped ? MHP_LIVE_STOPPED : MHP_LIVE_FINISHED;
    return MHP_OK;
}
