/* A step of the trainer: its batch, its passes, its statistics, and what they say. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/trainer_internal.h"

mhp_executor_inputs trainer_inputs(const mhp_trainer *trainer, int64_t step, const mhp_batch *batch, double loss_scale)
{
    const step_statistics *statistics = &trainer->statistics;
    size_t first = (size_t)(trainer->store->replica * trainer_microbatches(trainer));
    bool gains = step >= 0 && trainer->params.model->connections.kind != MHP_CONNECTION_RESIDUAL;

    return (mhp_executor_inputs){
        .step = step,
        .token = mhp_batch_token(batch),
        .target = mhp_batch_target(batch),
        .document_start = mhp_batch_document_start(batch),
        .one_document = mhp_batch_one_document(batch),
        .position = mhp_batch_position(batch),
        .loss_scale = loss_scale,
        .loss_sum = statistics->memory + statistics->at.loss + first,
        .gain = gains ? statistics->memory + statistics->at.gain + 2 * first : NULL,
        .worst_gain = gains ? statistics->memory + statistics->at.worst + 2 * (size_t)trainer->store->world_rank : NULL,
    };
}

/* Adds a small number over the world; blocks. */
static mhp_status sum_over_replicas(mhp_trainer *trainer, int64_t *value)
{
    step_statistics *statistics = &trainer->statistics;

    if (trainer_replicas(trainer) == 1) {
        return MHP_OK;
    }
    statistics->targets = trainer->store->pipeline_rank == 0 ? *value : 0;
    MHP_RETURN_IF_ERROR(mhp_group_all_reduce(trainer->store->world, &statistics->targets, 1, MHP_DTYPE_I64, MHP_REDUCE_SUM, NULL,
                                             statistics->summed));
    MHP_RETURN_IF_ERROR(mhp_event_synchronize(statistics->summed, 0));
    *value = statistics->targets;
    return MHP_OK;
}

static mhp_status count_targets(mhp_trainer *trainer, const mhp_batch *batch, int64_t *targets_out)
{
    *targets_out = 0;
    for (int m = 0; m < trainer_microbatches(trainer); m++) {
        *targets_out += mhp_batch_targets(batch, m);
    }
    return sum_over_replicas(trainer, targets_out);
}

void mhp_trainer_seek(mhp_trainer *trainer, int64_t step, uint64_t first_sample)
{
    assert(first_sample >= (uint64_t)(step * mhp_trainer_batch_samples(trainer)));
    trainer->first_sample = first_sample - (uint64_t)(step * mhp_trainer_batch_samples(trainer));
}

uint64_t mhp_trainer_first_sample(const mhp_trainer *trainer, int64_t step)
{
    return trainer->first_sample + (uint64_t)(step * mhp_trainer_batch_samples(trainer));
}

mhp_health *mhp_trainer_health(mhp_trainer *trainer)
{
    return &trainer->health;
}

/* The replica's part of a run of samples that begins at `first`. */
static uint64_t first_of_replica(const mhp_trainer *trainer, uint64_t first)
{
    return first + (uint64_t)(trainer->store->replica * mhp_trainer_batch_samples(trainer) / trainer_replicas(trainer));
}

/* The batch of a step: the one that was read ahead, if it is that. */
static mhp_status batch_of_step(mhp_trainer *trainer, int64_t step, mhp_batch **batch_out)
{
    mhp_batch *batch = trainer->batches[step % 2];
    uint64_t first = first_of_replica(trainer, mhp_trainer_first_sample(trainer, step));

    *batch_out = batch;
    if (batch->filled && batch->first_sample == first) {
        return MHP_OK;
    }
    return mhp_batch_fill(batch, &trainer->params.samples, first, UINT64_MAX);
}

typedef struct busy_mark {
    mhp_trainer *trainer;
    uint64_t start_ns, busy_start_ns;
} busy_mark;

/* Runs in stream order at the end of a step: how much of it the compute thread worked, and the memory it took. */
static mhp_status mark_busy(void *native, const void *argument)
{
    const busy_mark *mark = argument;
    const mhp_trainer *trainer = mark->trainer;
    const step_statistics *statistics = &trainer->statistics;
    double wall_ns = (double)(mhp_time_ns() - mark->start_ns);

    (void)native;
    statistics->own[OWN_BYTES] = (double)mhp_device_bytes_peak(trainer->device);
    statistics->own[OWN_STOP] = mhp_watchdog_wants_stop(trainer->params.watchdog);
    statistics->own[OWN_BUSY] = (double)(mhp_lanes_busy_ns(&trainer->lanes) - mark->busy_start_ns) / wall_ns;
    mhp_run_energy_mark(trainer->energy, statistics->own + OWN_ENERGY);
    return MHP_OK;
}

/* What stood on the compute stream since the last mark that is not the plan's: a phase, or the wait for a sum over the world. */
static mhp_trace_span span_of(mhp_trace_kind kind)
{
    return (mhp_trace_span){.kind = (uint8_t)kind, .stage = -1, .microbatch = -1, .slot = -1, .peer = -1};
}

static mhp_status record_phase(const mhp_trainer *trainer, mhp_trace_phase phase)
{
    mhp_trace_span span = span_of(MHP_TRACE_PHASE);

    span.part = (uint8_t)phase;
    return mhp_recorder_mark(trainer->recorder, span);
}

static mhp_status record_wait(const mhp_trainer *trainer, mhp_trace_cause cause)
{
    mhp_trace_span span = span_of(MHP_TRACE_WAIT);

    span.cause = (uint8_t)cause;
    return mhp_recorder_mark(trainer->recorder, span);
}

/* Tells the flight recorder of what is not the executor's. */
static mhp_status mark(const mhp_trainer *trainer, mhp_mark_kind kind, mhp_work work)
{
    mhp_mark mark = {.kind = kind, .work = work, .stage = -1, .microbatch = -1, .peer = -1};

    return mhp_flight_mark(mhp_watchdog_flight(trainer->params.watchdog), trainer->compute, &mark);
}

static mhp_status submit_sum(mhp_trainer *trainer, size_t first, size_t end)
{
    step_statistics *statistics = &trainer->statistics;

    MHP_RETURN_IF_ERROR(mhp_event_record(statistics->filled, trainer->compute));
    return mhp_group_all_reduce(trainer->store->world, statistics->memory + first, (int64_t)(end - first), MHP_DTYPE_F64, MHP_REDUCE_SUM,
                                statistics->filled, statistics->summed);
}

/* Submits the sum over the world of the statistics [first, end). */
static mhp_status sum_statistics(mhp_trainer *trainer, size_t first, size_t end, mhp_trace_cause cause)
{
    mhp_recorder_begin_range(trainer->recorder, mhp_trace_cause_text(cause));
    MHP_RETURN_IF_ERROR(mhp_recorder_end_range(trainer->recorder, submit_sum(trainer, first, end)));
    MHP_RETURN_IF_ERROR(mhp_stream_wait(trainer->compute, trainer->statistics.summed));
    return record_wait(trainer, cause);
}

/* Submits the copy of the statistics to the host, and waits for it and all before. */
static mhp_status fetch_statistics(mhp_trainer *trainer)
{
    step_statistics *statistics = &trainer->statistics;
    size_t bytes = statistics->at.count * sizeof(double);

    mhp_recorder_begin_range(trainer->recorder, mhp_trace_phase_text(MHP_TRACE_REPORT));
    MHP_RETURN_IF_ERROR(mhp_recorder_end_range(trainer->recorder,
                                               mhp_stream_copy(trainer->compute, statistics->host, statistics->memory, bytes)));
    MHP_RETURN_IF_ERROR(record_phase(trainer, MHP_TRACE_REPORT));
    MHP_RETURN_IF_ERROR(mhp_event_record(statistics->filled, trainer->compute));
    MHP_RETURN_IF_ERROR(mhp_event_synchronize(statistics->filled, 0));
    return mhp_stream_check(trainer->compute);
}

/* World rank that computes the loss of micro-batch `i` of all replicas'. */
static int loss_rank(const mhp_trainer *trainer, int i)
{
    const mhp_plan *plan = trainer->layout.plan;

    return i / plan->microbatch_count * plan->rank_count + mhp_plan_owner(plan, plan->stage_count - 1, i % plan->microbatch_count);
}

/* The first micro-batch of all replicas' whose loss is not finite, or -1. */
static int find_bad_loss(const mhp_trainer *trainer)
{
    const double *losses = trainer->statistics.host + trainer->statistics.at.loss;
    int count = trainer_replicas(trainer) * trainer_microbatches(trainer);

    for (int i = 0; i < count; i++) {
        if (!isfinite(losses[i])) {
            return i;
        }
    }
    return -1;
}

/* "PLACE, rank 1, micro-batch 3: the loss is nan, expected a finite number" */
static void explain_bad_loss(const mhp_trainer *trainer, const char *place, int i, char text[MHP_FAULT_TEXT_MAX])
{
    int length = snprintf(text, MHP_FAULT_TEXT_MAX, "%s, rank %d, micro-batch %d: ", place, loss_rank(trainer, i),
                          i % trainer_microbatches(trainer));

    mhp_health_explain(&trainer->health, MHP_STEP_LOSS, trainer->statistics.host[trainer->statistics.at.loss + (size_t)i], text + length,
                       MHP_FAULT_TEXT_MAX - (size_t)length);
}

static double sum_losses(const mhp_trainer *trainer)
{
    const double *losses = trainer->statistics.host + trainer->statistics.at.loss;
    double sum = 0;

    for (int i = 0; i < trainer_replicas(trainer) * trainer_microbatches(trainer); i++) {
        sum += losses[i];
    }
    return sum;
}

static void report_gains(const mhp_trainer *trainer, mhp_step_report *report)
{
    const step_statistics *statistics = &trainer->statistics;
    int count = trainer_replicas(trainer) * trainer_microbatches(trainer);
    bool streams = trainer->params.model->connections.kind != MHP_CONNECTION_RESIDUAL;

    report->gain_forward = report->gain_backward = streams ? 0 : 1;
    report->worst_forward = report->worst_backward = streams ? 0 : 1;
    for (int i = 0; streams && i < count; i++) {
        report->gain_forward += statistics->host[statistics->at.gain + 2 * (size_t)i] / count;
        report->gain_backward += statistics->host[statistics->at.gain + 2 * (size_t)i + 1] / count;
    }
    for (int rank = 0; streams && rank < trainer->store->world_size; rank++) {
        report->worst_forward = fmax(report->worst_forward, statistics->host[statistics->at.worst + 2 * (size_t)rank]);
        report->worst_backward = fmax(report->worst_backward, statistics->host[statistics->at.worst + 2 * (size_t)rank + 1]);
    }
}

/* What each rank measured of itself. */
static void report_own(mhp_trainer *trainer, mhp_step_report *report)
{
    const step_statistics *statistics = &trainer->statistics;
    int world = trainer->store->world_size;

    report->own_bubble = 1 - statistics->host[statistics->at.own + OWN_COUNT * (size_t)trainer->store->world_rank + OWN_BUSY];
    report->bubble = 1;
    report->meters = trainer->energy;
    report->rank_energy = trainer->rank_energy;
    report->world_size = world;
    for (int rank = 0; rank < world; rank++) {
        const double *own = statistics->host + statistics->at.own + OWN_COUNT * (size_t)rank;

        report->bubble -= own[OWN_BUSY] / world;
        report->bytes_peak = fmax(report->bytes_peak, own[OWN_BYTES]);
        report->stop = report->stop || own[OWN_STOP] != 0;
        for (int k = 0; k < MHP_ENERGY_KINDS; k++) {
            trainer->rank_energy[rank].of[k] = own[OWN_ENERGY + k];
            report->energy.of[k] += own[OWN_ENERGY + k];
        }
    }
}

static void report_step(mhp_trainer *trainer, int64_t step, int64_t targets, mhp_step_report *report)
{
    const step_statistics *statistics = &trainer->statistics;

    memset(report, 0, sizeof *report);
    report->step = step;
    report->first_sample = mhp_trainer_first_sample(trainer, step);
    report->loss = targets > 0 ? sum_losses(trainer) / (double)targets : 0;
    report->targets = targets;
    report->tokens = mhp_trainer_batch_samples(trainer) * trainer->params.train->sequence_length;
    report->rate = mhp_learning_rate(trainer->params.optimizer, trainer->params.train->steps, step);
    report->gradient_norm = trainer->judgement[0];
    report->fault = mhp_health_judge(trainer->judgement[1]);
    report->flops = trainer->flops;
    report->losses = statistics->host + statistics->at.loss;
    report->losses_count = trainer_replicas(trainer) * trainer_microbatches(trainer);
    report_gains(trainer, report);
    report->recorded = mhp_recorder_has_step(trainer->recorder, step);
    report_own(trainer, report);
}

static void explain_fault(const mhp_trainer *trainer, mhp_step_report *report)
{
    const double values[] = {
        [MHP_STEP_LOSS] = report->loss,
        [MHP_STEP_GRADIENT_NORM] = report->gradient_norm,
        [MHP_STEP_GAIN_FORWARD] = report->gain_forward,
        [MHP_STEP_GAIN_BACKWARD] = report->gain_backward,
    };
    char place[32];
    int bad_loss = find_bad_loss(trainer);
    int length;

    snprintf(place, sizeof place, "step %lld", (long long)report->step + 1);
    if (report->fault == MHP_STEP_LOSS && bad_loss >= 0) {
        explain_bad_loss(trainer, place, bad_loss, report->fault_text);
        return;
    }
    length = snprintf(report->fault_text, MHP_FAULT_TEXT_MAX, "%s: ", place);
    mhp_health_explain(&trainer->health, report->fault, values[report->fault], report->fault_text + length,
                       MHP_FAULT_TEXT_MAX - (size_t)length);
}

static mhp_status submit_preparation(mhp_trainer *trainer, mhp_batch *batch)
{
    step_statistics *statistics = &trainer->statistics;

    MHP_RETURN_IF_ERROR(mhp_batch_upload(batch, trainer->compute));
    MHP_RETURN_IF_ERROR(mhp_stream_zero(trainer->compute, statistics->memory, statistics->at.count * sizeof(double)));
    return mhp_optimizer_zero(trainer->optimizer);
}

/* Submits the plan over the step's samples with gradients at zero before, and their reduction. */
static mhp_status submit_gradients(mhp_trainer *trainer, int64_t step, mhp_batch *batch, int64_t targets)
{
    mhp_executor_inputs inputs = trainer_inputs(trainer, step, batch, targets > 0 ? 1.0 / (double)targets : 0);

    mhp_recorder_begin_range(trainer->recorder, mhp_trace_phase_text(MHP_TRACE_PREPARE));
    MHP_RETURN_IF_ERROR(mhp_recorder_end_range(trainer->recorder, submit_preparation(trainer, batch)));
    MHP_RETURN_IF_ERROR(record_phase(trainer, MHP_TRACE_PREPARE));
    MHP_RETURN_IF_ERROR(mhp_executor_run(trainer->executor, &inputs));
    MHP_RETURN_IF_ERROR(mhp_optimizer_await(trainer->optimizer));
    return trainer->params.tamper ? trainer->params.tamper(trainer->params.tamper_context, step) : MHP_OK;
}

/* Puts this rank's own measurements into its places of the statistics. */
static mhp_status submit_marks(mhp_trainer *trainer, uint64_t start_ns, uint64_t busy_start_ns)
{
    step_statistics *statistics = &trainer->statistics;
    double *own = statistics->memory + statistics->at.own + OWN_COUNT * (size_t)trainer->store->world_rank;
    busy_mark mark = {trainer, start_ns, busy_start_ns};
    mhp_status status;

    mhp_recorder_begin_range(trainer->recorder, mhp_trace_phase_text(MHP_TRACE_REPORT));
    status = mhp_stream_host_call(trainer->compute, mark_busy, &mark, sizeof mark);
    if (status >= 0) {
        status = mhp_stream_copy(trainer->compute, own, statistics->own, OWN_COUNT * sizeof(double));
    }
    return mhp_recorder_end_range(trainer->recorder, status);
}

/* The sums over the world, the norm and the clipping, and what the watches say of the step. */
static mhp_status submit_norm(mhp_trainer *trainer, int64_t targets)
{
    const step_statistics *statistics = &trainer->statistics;
    double *memory = statistics->memory;
    const double *judgement = mhp_optimizer_judgement(trainer->optimizer);
    bool streams = trainer->params.model->connections.kind != MHP_CONNECTION_RESIDUAL;
    mhp_health_sums sums = {
        .loss = memory + statistics->at.loss,
        .gain = streams ? memory + statistics->at.gain : NULL,
        .norm = judgement,
        .count = trainer_replicas(trainer) * trainer_microbatches(trainer),
        .targets = targets,
    };
    mhp_sum_limit watches[MHP_SUM_LIMITS_MAX];
    int watch_count = mhp_health_watch(&trainer->health, &sums, watches);

    MHP_RETURN_IF_ERROR(mhp_optimizer_add_squares(trainer->optimizer, memory + statistics->at.squares));
    MHP_RETURN_IF_ERROR(sum_statistics(trainer, 0, statistics->at.own, MHP_CAUSE_NORM));
    MHP_RETURN_IF_ERROR(mhp_optimizer_clip(trainer->optimizer, memory + statistics->at.squares, watches, watch_count));
    MHP_RETURN_IF_ERROR(
        mhp_stream_copy(trainer->compute, trainer->judgement, judgement, MHP_OPTIMIZER_SCALARS * sizeof(double)));
    return record_phase(trainer, MHP_TRACE_NORM);
}

static mhp_status submit_judgement(mhp_trainer *trainer, int64_t targets)
{
    mhp_recorder_begin_range(trainer->recorder, mhp_trace_phase_text(MHP_TRACE_NORM));
    return mhp_recorder_end_range(trainer->recorder, submit_norm(trainer, targets));
}

/* Runs forward and backward passes a second time, and compares; a difference on any rank is an error on all. */
static mhp_status verify_replay(mhp_trainer *trainer, int64_t step, mhp_batch *batch, int64_t targets)
{
    mhp_event *arrived = trainer->statistics.filled;
    mhp_status status;

    MHP_RETURN_IF_ERROR(mhp_replay_submit(trainer->replay, 0, trainer->compute));
    MHP_RETURN_IF_ERROR(submit_gradients(trainer, step, batch, targets));
    MHP_RETURN_IF_ERROR(mhp_replay_submit(trainer->replay, 1, trainer->compute));
    MHP_RETURN_IF_ERROR(mhp_event_record(arrived, trainer->compute));
    MHP_RETURN_IF_ERROR(mhp_event_synchronize(arrived, 0));
    status = mhp_error_prefix(mhp_replay_compare(trainer->replay), "step %lld: ", (long long)step + 1);
    return mhp_comm_agree(trainer->params.comm, status, NULL);
}

static mhp_status run_step(mhp_trainer *trainer, int64_t step, bool update, mhp_step_report *report)
{
    const mhp_statistics_layout *at = &trainer->statistics.at;
    uint64_t start_ns = mhp_time_ns();
    uint64_t busy_ns = mhp_lanes_busy_ns(&trainer->lanes);
    mhp_batch *batch, *next;
    int64_t targets;

    MHP_RETURN_IF_ERROR(mhp_recorder_begin_step(trainer->recorder, step, start_ns));
    trainer->done = step + 1;
    mhp_watchdog_enter(trainer->params.watchdog, MHP_SECTION_STEP, step + 1);
    mhp_faults_enter(trainer->params.faults, step + 1);
    MHP_RETURN_IF_ERROR(batch_of_step(trainer, step, &batch));
    MHP_RETURN_IF_ERROR(count_targets(trainer, batch, &targets));
    MHP_RETURN_IF_ERROR(submit_gradients(trainer, step, batch, targets));
    if (trainer->replay && (step + 1) % trainer->params.train->verify_replay == 0) {
        mhp_recorder_pause(trainer->recorder);
        MHP_RETURN_IF_ERROR(verify_replay(trainer, step, batch, targets));
        mhp_recorder_resume(trainer->recorder);
        MHP_RETURN_IF_ERROR(record_phase(trainer, MHP_TRACE_REPORT));
    }
    MHP_RETURN_IF_ERROR(mark(trainer, MHP_MARK_ALL, MHP_WORK_NORM));
    MHP_RETURN_IF_ERROR(submit_judgement(trainer, targets));
    MHP_RETURN_IF_ERROR(mark(trainer, MHP_MARK_RUN, MHP_WORK_OPTIMIZER));
    if (update) {
        MHP_RETURN_IF_ERROR(mhp_optimizer_update(trainer->optimizer, step));
    }
    MHP_RETURN_IF_ERROR(submit_marks(trainer, start_ns, busy_ns));
    if (update && step + 1 < trainer->params.train->steps) {
        MHP_RETURN_IF_ERROR(batch_of_step(trainer, step + 1, &next));
    }
    MHP_RETURN_IF_ERROR(record_phase(trainer, MHP_TRACE_REPORT));
    MHP_RETURN_IF_ERROR(mark(trainer, MHP_MARK_ALL, MHP_WORK_STATISTICS));
    MHP_RETURN_IF_ERROR(sum_statistics(trainer, at->own, at->count, MHP_CAUSE_STATISTICS));
    MHP_RETURN_IF_ERROR(fetch_statistics(trainer));
    MHP_RETURN_IF_ERROR(mhp_recorder_end_step(trainer->recorder));
    report_step(trainer, step, targets, report);
    report->step_s = (double)(mhp_time_ns() - start_ns) * 1e-9;
    if (report->fault != MHP_STEP_GOOD) {
        explain_fault(trainer, report);
    }
    return MHP_OK;
}

/* All ranks see the same sums, so all of them come here. */
static mhp_status fail_all(mhp_trainer *trainer, const char *text)
{
    return mhp_comm_agree(trainer->params.comm, mhp_error_set(MHP_ERR_NOT_FINITE, "%s", text), NULL);
}

mhp_status mhp_trainer_step(mhp_trainer *trainer, int64_t step, mhp_step_report *report_out)
{
    MHP_RETURN_IF_ERROR(run_step(trainer, step, true, report_out));
    if (report_out->fault == MHP_STEP_GOOD && report_out->targets > 0) {
        mhp_health_accept(&trainer->health, report_out->loss);
    }
    return MHP_OK;
}

mhp_status mhp_trainer_gradients(mhp_trainer *trainer, int64_t step, mhp_step_report *report_out)
{
    MHP_RETURN_IF_ERROR(run_step(trainer, step, false, report_out));
    return report_out->fault == MHP_STEP_GOOD ? MHP_OK : fail_all(trainer, report_out->fault_text);
}

mhp_status mhp_trainer_evaluate(mhp_trainer *trainer, uint64_t count, double *loss_out)
{
    step_statistics *statistics = &trainer->statistics;
    mhp_batch *batch = trainer->evaluation_batch;
    uint64_t samples = (uint64_t)mhp_trainer_batch_samples(trainer);
    double sum = 0;
    int64_t targets = 0;

    for (uint64_t first = 0; first < count; first += samples) {
        mhp_executor_inputs inputs = trainer_inputs(trainer, -1, batch, 0);
        int64_t part_targets;
        int bad_loss;

        mhp_watchdog_enter(trainer->params.watchdog, MHP_SECTION_EVALUATION, trainer->done);
        MHP_RETURN_IF_ERROR(mhp_batch_fill(batch, &trainer->params.held_out, first_of_replica(trainer, first), count));
        MHP_RETURN_IF_ERROR(count_targets(trainer, batch, &part_targets));
        MHP_RETURN_IF_ERROR(mhp_batch_upload(batch, trainer->compute));
        MHP_RETURN_IF_ERROR(mhp_stream_zero(trainer->compute, statistics->memory, statistics->at.count * sizeof(double)));
        MHP_RETURN_IF_ERROR(mhp_executor_run(trainer->evaluator, &inputs));
        MHP_RETURN_IF_ERROR(mark(trainer, MHP_MARK_ALL, MHP_WORK_STATISTICS));
        MHP_RETURN_IF_ERROR(sum_statistics(trainer, 0, statistics->at.own, MHP_CAUSE_NORM));
        MHP_RETURN_IF_ERROR(fetch_statistics(trainer));
        bad_loss = find_bad_loss(trainer);
        if (bad_loss >= 0) {
            char text[MHP_FAULT_TEXT_MAX];

            explain_bad_loss(trainer, "evaluation", bad_loss, text);
            return fail_all(trainer, text);
        }
        sum += sum_losses(trainer);
        targets += part_targets;
    }
    *loss_out = targets > 0 ? sum / (double)targets : 0;
    return MHP_OK;
}
