#include "runtime/trainer.h"

#include "core/memory.h"
#include "runtime/memory_table.h"
#include "runtime/profile/identity.h"
#include "runtime/trainer_internal.h"

int64_t mhp_trainer_batch_samples(const mhp_trainer *trainer)
{
    return (int64_t)trainer_replicas(trainer) * trainer_microbatches(trainer) * trainer->params.train->micro_batch_size;
}

static mhp_status create_layout(mhp_trainer *trainer)
{
    int world = mhp_comm_size(trainer->params.comm);
    int64_t expected = trainer->params.parallel->pipeline * trainer->params.parallel->data;

    if (world != expected) {
        return mhp_error_set(MHP_ERR_CONFIG, "started with %d ranks: expected parallel.pipeline x parallel.data = %lld x %lld = %lld",
                             world, (long long)trainer->params.parallel->pipeline, (long long)trainer->params.parallel->data,
                             (long long)expected);
    }
    return mhp_layout_create(trainer->params.model, trainer->params.parallel, trainer->params.schedule, &trainer->layout);
}

static mhp_memory_params memory_params(const mhp_trainer *trainer)
{
    const mhp_trainer_params *params = &trainer->params;

    return (mhp_memory_params){.layout = &trainer->layout, .model = params->model, .parallel = params->parallel,
                               .schedule = params->schedule, .train = params->train};
}

mhp_status mhp_trainer_identity(const mhp_trainer *trainer, mhp_hash *identity_out)
{
    mhp_memory_params params = memory_params(trainer);

    return mhp_profile_identity(&params, identity_out);
}

/* Every rank looks at all ranks' memory, so that all refuse or none. */
static mhp_status plan_memory(mhp_trainer *trainer)
{
    mhp_memory_params params = memory_params(trainer);
    int rank = mhp_comm_rank(trainer->params.comm) % trainer->layout.plan->rank_count;

    MHP_RETURN_IF_ERROR(mhp_memory_check(&params));
    return mhp_memory_plan_create(&params, rank, &trainer->memory);
}

/* Every rank, before any allocates: ranks may share a card. */
static mhp_status check_card(mhp_trainer *trainer)
{
    size_t bytes;
    int ranks;

    MHP_RETURN_IF_ERROR(mhp_comm_sum_on_card(trainer->params.comm, trainer->memory->bytes, &bytes, &ranks));
    return mhp_memory_check_device(trainer->memory, trainer->device, bytes, ranks);
}

static mhp_status create_store(mhp_trainer *trainer)
{
    mhp_store_params params = {
        .comm = trainer->params.comm,
        .plan = trainer->layout.plan,
        .replica_count = trainer_replicas(trainer),
        .model = trainer->params.model,
        .extents = trainer->layout.extents,
        .sequences = (int)trainer->params.train->micro_batch_size,
        .length = (int)trainer->params.train->sequence_length,
        .threads = (int)trainer->params.parallel->threads,
        /* A seal is one sum over the whole message. */
        .slices = trainer->params.parallel->verify == MHP_VERIFY_MESSAGES ? 1 : (int)trainer->params.schedule->overlap.slices,
        .memory = trainer->memory,
        .arena = &trainer->arena,
    };

    MHP_RETURN_IF_ERROR(mhp_store_create(&params, &trainer->store));
    MHP_RETURN_IF_ERROR(mhp_lanes_open(&trainer->lanes, trainer->device, &trainer->params.schedule->overlap));
    trainer->compute = trainer->lanes.stream[MHP_LANE_COMPUTE];
    return MHP_OK;
}

static mhp_status create_recorder(mhp_trainer *trainer)
{
    mhp_recorder_params params = {
        .comm = trainer->params.comm,
        .lanes = &trainer->lanes,
        .profile = trainer->params.profile,
        .directory = trainer->params.directory,
        .total_steps = trainer->params.train->steps,
        .pipeline_ranks = trainer->layout.plan->rank_count,
        .streams = (int)trainer->params.model->connections.streams,
    };

    if (!params.profile || params.profile->steps == 0 || !params.directory) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_trainer_identity(trainer, &params.identity));
    MHP_RETURN_IF_ERROR(mhp_recorder_create(&params, &trainer->recorder));
    mhp_recorder_reserve(trainer->recorder, 7, 0);      /* around the plan: record_phase, record_wait */
    return MHP_OK;
}

static mhp_status create_executors(mhp_trainer *trainer)
{
    mhp_executor_params params = {
        .store = trainer->store,
        .plan = trainer->layout.plan,
        .lanes = &trainer->lanes,
        .pair = mhp_lanes_pair(&trainer->params.schedule->overlap, mhp_device_get_kind(trainer->device)),
        .phase = MHP_PHASE_TRAINING,
        .reduce = mhp_optimizer_reduce,
        .recorder = trainer->recorder,
        .verify_messages = trainer->params.parallel->verify == MHP_VERIFY_MESSAGES,
        .flight = mhp_watchdog_flight(trainer->params.watchdog),
        .faults = trainer->params.faults,
    };

    MHP_RETURN_IF_ERROR(mhp_optimizer_create(trainer->store, trainer->params.optimizer, trainer->params.train->steps,
                                             trainer->compute, &trainer->optimizer));
    MHP_RETURN_IF_ERROR(mhp_optimizer_set_recorder(trainer->optimizer, trainer->recorder));
    params.reduce_context = trainer->optimizer;
    MHP_RETURN_IF_ERROR(mhp_executor_create(&params, &trainer->executor));
    params.plan = trainer->layout.evaluation_plan;
    params.phase = MHP_PHASE_EVALUATION;
    params.reduce = NULL;
    params.recorder = NULL;
    params.faults = NULL;
    return mhp_executor_create(&params, &trainer->evaluator);
}

static mhp_status create_batches(mhp_trainer *trainer)
{
    mhp_batch_shape shape = {
        .microbatches = trainer_microbatches(trainer),
        .sequences = (int)trainer->params.train->micro_batch_size,
        .length = (int)trainer->params.train->sequence_length,
    };
    mhp_batch **batches[MHP_TRAINER_BATCHES] = {&trainer->batches[0], &trainer->batches[1], &trainer->evaluation_batch};

    for (int b = 0; b < MHP_TRAINER_BATCHES; b++) {
        void *memory = mhp_arena_at(&trainer->arena, trainer->memory->batches[b], mhp_batch_bytes(&shape));

        MHP_RETURN_IF_ERROR(mhp_batch_create(trainer->device, &shape, memory, batches[b]));
    }
    return MHP_OK;
}

static mhp_status create_statistics(mhp_trainer *trainer)
{
    step_statistics *statistics = &trainer->statistics;

    statistics->at =
        mhp_statistics_layout_of(trainer_replicas(trainer), trainer_microbatches(trainer), mhp_comm_size(trainer->params.comm));
    statistics->memory = mhp_arena_at(&trainer->arena, trainer->memory->statistics, statistics->at.count * sizeof(double));
    MHP_RETURN_IF_ERROR(mhp_event_create(trainer->device, &statistics->filled));
    MHP_RETURN_IF_ERROR(mhp_event_create(trainer->device, &statistics->summed));
    MHP_RETURN_IF_ERROR(mhp_device_alloc_host(trainer->device, statistics->at.count * sizeof(double), (void **)&statistics->host));
    MHP_RETURN_IF_ERROR(mhp_device_alloc_host(trainer->device, OWN_COUNT * sizeof(double), (void **)&statistics->own));
    MHP_RETURN_IF_ERROR(mhp_calloc(&trainer->rank_energy, (size_t)mhp_comm_size(trainer->params.comm), sizeof *trainer->rank_energy));
    return mhp_device_alloc_host(trainer->device, MHP_OPTIMIZER_SCALARS * sizeof(double), (void **)&trainer->judgement);
}

static mhp_status create_replay(mhp_trainer *trainer)
{
    const step_statistics *statistics = &trainer->statistics;
    const mhp_statistics_layout *at = &statistics->at;

    return trainer->params.train->verify_replay == 0
               ? MHP_OK
               : mhp_replay_create(trainer->store, statistics->memory + at->loss, at->own - at->loss, at->gain - at->loss, &trainer->replay);
}

/* Of a card alone: a CPU loads nothing late. */
static mhp_status warm_up(mhp_trainer *trainer)
{
    mhp_batch *batch = trainer->evaluation_batch;       /* not filled yet: tokens are 0 */
    mhp_executor_inputs inputs = trainer_inputs(trainer, 0, batch, 1);

    if (mhp_device_get_kind(trainer->device) != MHP_DEVICE_CUDA) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_batch_upload(batch, trainer->compute));
    MHP_RETURN_IF_ERROR(mhp_executor_warm_up(trainer->executor, &inputs));
    MHP_RETURN_IF_ERROR(mhp_executor_warm_up(trainer->evaluator, &inputs));
    return mhp_error_prefix(mhp_stream_synchronize(trainer->compute), "warming up: ");
}

static mhp_status sum_flops(mhp_trainer *trainer)
{
    step_statistics *statistics = &trainer->statistics;

    statistics->host[0] = mhp_executor_flops(trainer->executor);
    MHP_RETURN_IF_ERROR(mhp_group_all_reduce(trainer->store->world, statistics->host, 1, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL,
                                             statistics->summed));
    MHP_RETURN_IF_ERROR(mhp_event_synchronize(statistics->summed, 0));
    trainer->flops = statistics->host[0];
    return MHP_OK;
}

mhp_status mhp_trainer_create(const mhp_trainer_params *params, mhp_trainer **trainer_out)
{
    mhp_status status = MHP_OK;
    mhp_trainer *trainer = NULL;

    MHP_TRY(out, mhp_calloc(&trainer, 1, sizeof *trainer));
    trainer->params = *params;
    trainer->health.params = &params->train->non_finite;
    trainer->device = mhp_comm_device(params->comm);
    MHP_TRY(out, mhp_comm_agree(params->comm, create_layout(trainer), NULL));
    MHP_TRY(out, mhp_comm_agree(params->comm, plan_memory(trainer), NULL));
    MHP_TRY(out, mhp_comm_agree(params->comm, check_card(trainer), NULL));
    MHP_TRY(out, mhp_comm_agree(params->comm, mhp_arena_create(trainer->device, trainer->memory->bytes, &trainer->arena), NULL));
    MHP_TRY(out, create_store(trainer));
    MHP_TRY(out, create_recorder(trainer));
    MHP_TRY(out, create_executors(trainer));
    MHP_TRY(out, create_batches(trainer));
    MHP_TRY(out, create_statistics(trainer));
    MHP_TRY(out, create_replay(trainer));
    MHP_TRY(out, warm_up(trainer));
    MHP_TRY(out, mhp_comm_agree(params->comm, mhp_recorder_ready(trainer->recorder), NULL));
    MHP_TRY(out, sum_flops(trainer));
    *trainer_out = trainer;
    trainer = NULL;
out:
    mhp_trainer_destroy(trainer);
    return status;
}

void mhp_trainer_destroy(mhp_trainer *trainer)
{
    if (!trainer) {
        return;
    }
    mhp_lanes_drain(&trainer->lanes);
    mhp_replay_destroy(trainer->replay);
    mhp_device_free_host(trainer->device, trainer->judgement);
    mhp_free(trainer->rank_energy);
    mhp_device_free_host(trainer->device, trainer->statistics.own);
    mhp_device_free_host(trainer->device, trainer->statistics.host);
    mhp_event_destroy(trainer->statistics.summed);
    mhp_event_destroy(trainer->statistics.filled);
    mhp_batch_destroy(trainer->evaluation_batch);
    mhp_batch_destroy(trainer->batches[1]);
    mhp_batch_destroy(trainer->batches[0]);
    mhp_recorder_destroy(trainer->recorder);
    mhp_executor_destroy(trainer->evaluator);
    mhp_executor_destroy(trainer->executor);
    mhp_optimizer_destroy(trainer->optimizer);
    mhp_lanes_close(&trainer->lanes);
    mhp_store_destroy(trainer->store);
    mhp_arena_release(&trainer->arena);
    mhp_memory_plan_destroy(trainer->memory);
    mhp_layout_release(&trainer->layout);
    mhp_free(trainer);
}

mhp_store *mhp_trainer_store(mhp_trainer *trainer)
{
    return trainer->store;
}

mhp_optimizer *mhp_trainer_optimizer(mhp_trainer *trainer)
{
    return trainer->optimizer;
}

const mhp_plan *mhp_trainer_plan(const mhp_trainer *trainer)
{
    return trainer->layout.plan;
}

const mhp_layout *mhp_trainer_layout(const mhp_trainer *trainer)
{
    return &trainer->layout;
}

const mhp_memory_plan *mhp_trainer_memory(const mhp_trainer *trainer)
{
    return trainer->memory;
}

const mhp_arena *mhp_trainer_arena(const mhp_trainer *trainer)
{
    return &trainer->arena;
}

mhp_stream *mhp_trainer_compute(mhp_trainer *trainer)
{
    return trainer->compute;
}

void mhp_trainer_watch(mhp_trainer *trainer, mhp_live *live)
{
    mhp_executor_watch(trainer->executor, live);
    mhp_executor_watch(trainer->evaluator, live);
}

void mhp_trainer_meter(mhp_trainer *trainer, mhp_run_energy *energy)
{
    trainer->energy = energy;
}
