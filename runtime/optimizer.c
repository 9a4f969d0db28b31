#include "runtime/optimizer.h"

#include <assert.h>
#include <math.h>

#include "core/memory.h"

/* Consecutive elements of this rank's part that decay alike. */
typedef struct update_range {
    int64_t offset, count;          /* offset in the stage's flat buffer */
    bool decay;
} update_range;

typedef struct stage_state {
    mhp_held_stage *held;
    void *moment1, *moment2;        /* [chunk] */
    update_range *ranges;
    int range_count;
    mhp_event *complete;            /* the stage's gradients are whole on this rank */
    mhp_event *reduced;
    mhp_event *updated;
    mhp_event *gathered;
    mhp_watch *reduce_watch, *gather_watch;     /* of a recorder */
} stage_state;

struct mhp_optimizer {
    mhp_store *store;
    const mhp_optimizer_params *params;
    int64_t total_steps;
    mhp_stream *compute;
    stage_state *stages;
    int stage_count;
    double *scalars;                /* device: norm, scale */
    mhp_recorder *recorder;         /* or NULL */
};

enum { SCALAR_NORM, SCALAR_SCALE };

double mhp_learning_rate(const mhp_optimizer_params *params, int64_t total_steps, int64_t step)
{
    const double pi = 3.14159265358979323846;
    double factor = 1.0;
    double progress;

    if (step < params->warmup_steps) {
        return params->lr * (double)(step + 1) / (double)params->warmup_steps;
    }
    progress = total_steps > params->warmup_steps
                   ? (double)(step - params->warmup_steps) / (double)(total_steps - params->warmup_steps)
                   : 1.0;
    switch ((mhp_rate_decay)params->decay) {
    case MHP_DECAY_COSINE:
        factor = params->min_lr_ratio + (1 - params->min_lr_ratio) * 0.5 * (1 + cos(pi * fmin(progress, 1.0)));
        break;
    case MHP_DECAY_STEP:
        for (size_t i = 0; i < params->step_at.count; i++) {
            if ((double)step >= params->step_at.items[i] * (double)total_steps) {
                factor = params->step_factor.items[i];
            }
        }
        break;
    case MHP_DECAY_CONSTANT:
        break;
    }
    return params->lr * factor;
}

/* Cuts the parameters that lie in [begin, end) into ranges; neighbours that decay alike become one. */
static mhp_status create_ranges(stage_state *state, int64_t begin, int64_t end)
{
    const mhp_parameter_layout *layout = mhp_stage_layout(state->held->stage);

    MHP_RETURN_IF_ERROR(mhp_calloc(&state->ranges, (size_t)layout->count, sizeof *state->ranges));
    for (int p = 0; p < layout->count; p++) {
        const mhp_parameter *parameter = &layout->items[p];
        int64_t first = parameter->offset > begin ? parameter->offset : begin;
        int64_t last = parameter->offset + parameter->elements < end ? parameter->offset + parameter->elements : end;
        update_range *previous = state->range_count > 0 ? &state->ranges[state->range_count - 1] : NULL;

        if (first >= last) {
            continue;
        }
        if (previous && previous->decay == parameter->decay) {
            previous->count = last - previous->offset;          /* the padding between them stays zero */
        } else {
            state->ranges[state->range_count++] = (update_range){first, last - first, parameter->decay};
        }
    }
    return MHP_OK;
}

static size_t part_bytes(const mhp_optimizer *optimizer, const mhp_held_stage *held)
{
    return (size_t)held->chunk * mhp_dtype_bytes(optimizer->store->kernels->full_dtype);
}

static mhp_status create_state(mhp_optimizer *optimizer, stage_state *state, mhp_held_stage *held)
{
    mhp_device *device = optimizer->store->device;
    size_t bytes = part_bytes(optimizer, held);
    int64_t begin = held->chunk * mhp_group_index(held->group);

    state->held = held;
    MHP_RETURN_IF_ERROR(create_ranges(state, begin, begin + held->chunk));
    state->moment1 = mhp_arena_at(optimizer->store->params.arena, held->memory->moment1, bytes);
    state->moment2 = mhp_arena_at(optimizer->store->params.arena, held->memory->moment2, bytes);
    MHP_RETURN_IF_ERROR(mhp_event_create(device, &state->complete));
    MHP_RETURN_IF_ERROR(mhp_event_create(device, &state->reduced));
    MHP_RETURN_IF_ERROR(mhp_event_create(device, &state->updated));
    return mhp_event_create(device, &state->gathered);
}

mhp_status mhp_optimizer_create(mhp_store *store, const mhp_optimizer_params *params, int64_t total_steps, mhp_stream *compute,
                                mhp_optimizer **optimizer_out)
{
    mhp_status status = MHP_OK;
    mhp_optimizer *optimizer = NULL;

    MHP_TRY(out, mhp_optimizer_params_check(params));
    MHP_TRY(out, mhp_calloc(&optimizer, 1, sizeof *optimizer));
    optimizer->store = store;
    optimizer->params = params;
    optimizer->total_steps = total_steps;
    optimizer->compute = compute;
    MHP_TRY(out, mhp_calloc(&optimizer->stages, (size_t)store->held_count, sizeof *optimizer->stages));
    optimizer->scalars = mhp_arena_at(store->params.arena, store->params.memory->scalars, MHP_OPTIMIZER_SCALARS * sizeof(double));
    for (int i = 0; i < store->held_count; i++) {
        optimizer->stage_count++;
        MHP_TRY(out, create_state(optimizer, &optimizer->stages[i], &store->held[i]));
    }
    MHP_TRY(out, mhp_optimizer_reset(optimizer));
    *optimizer_out = optimizer;
    optimizer = NULL;
out:
    mhp_optimizer_destroy(optimizer);
    return status;
}

void mhp_optimizer_destroy(mhp_optimizer *optimizer)
{
    if (!optimizer) {
        return;
    }
    for (int i = 0; i < optimizer->stage_count; i++) {
        stage_state *state = &optimizer->stages[i];

        mhp_event_destroy(state->complete);
        mhp_event_destroy(state->reduced);
        mhp_event_destroy(state->updated);
        mhp_event_destroy(state->gathered);
        mhp_free(state->ranges);
    }
    mhp_free(optimizer->stages);
    mhp_free(optimizer);
}

static stage_state *find_state(mhp_optimizer *optimizer, const mhp_held_stage *held)
{
    for (int i = 0; i < optimizer->stage_count; i++) {
        if (optimizer->stages[i].held == held) {
            return &optimizer->stages[i];
        }
    }
    return NULL;
}

/* ---- recording ---- */

mhp_status mhp_optimizer_set_recorder(mhp_optimizer *optimizer, mhp_recorder *recorder)
{
    optimizer->recorder = recorder;
    for (int i = 0; i < optimizer->stage_count; i++) {
        stage_state *state = &optimizer->stages[i];

        mhp_recorder_reserve(recorder, 5, 2);   /* wait for the reduction, squares, update, wait for the gathering, copy; both of them */
        if (mhp_group_size(state->held->group) > 1) {
            MHP_RETURN_IF_ERROR(mhp_recorder_add_watch(recorder, "reduction", &state->reduce_watch));
            MHP_RETURN_IF_ERROR(mhp_recorder_add_watch(recorder, "gathering", &state->gather_watch));
        }
    }
    return MHP_OK;
}

static mhp_trace_span span_of(mhp_trace_kind kind, mhp_trace_cause cause, const mhp_held_stage *held)
{
    return (mhp_trace_span){.kind = (uint8_t)kind,
                            .cause = (uint8_t)cause,
                            .stage = held ? held->index : -1,
                            .microbatch = -1,
                            .slot = -1,
                            .peer = -1};
}

static mhp_status record_wait(const mhp_optimizer *optimizer, mhp_trace_cause cause, const mhp_held_stage *held)
{
    return mhp_recorder_mark(optimizer->recorder, span_of(MHP_TRACE_WAIT, cause, held));
}

static mhp_status record_phase(const mhp_optimizer *optimizer, mhp_trace_phase phase, const mhp_held_stage *held)
{
    mhp_trace_span span = span_of(MHP_TRACE_PHASE, MHP_CAUSE_STATE, held);

    span.part = (uint8_t)phase;
    return mhp_recorder_mark(optimizer->recorder, span);
}

static mhp_status record_collective(const mhp_optimizer *optimizer, mhp_trace_cause cause, const stage_state *state)
{
    bool reduces = cause == MHP_CAUSE_REDUCE;
    mhp_trace_span span = span_of(MHP_TRACE_COLLECTIVE, cause, state->held);

    span.bytes = (int64_t)part_bytes(optimizer, state->held) * mhp_group_size(state->held->group);
    return mhp_recorder_transfer(optimizer->recorder, reduces ? state->reduce_watch : state->gather_watch, span,
                                 reduces ? state->complete : state->updated, reduces ? state->reduced : state->gathered);
}

/* ---- a step ---- */

mhp_status mhp_optimizer_zero(mhp_optimizer *optimizer)
{
    for (int i = 0; i < optimizer->stage_count; i++) {
        const mhp_held_stage *held = optimizer->stages[i].held;
        size_t bytes = part_bytes(optimizer, held) * (size_t)mhp_group_size(held->group);

        MHP_RETURN_IF_ERROR(mhp_stream_zero(optimizer->compute, held->gradients, bytes));
    }
    return MHP_OK;
}

mhp_status mhp_optimizer_reset(mhp_optimizer *optimizer)
{
    for (int i = 0; i < optimizer->stage_count; i++) {
        const stage_state *state = &optimizer->stages[i];
        size_t bytes = part_bytes(optimizer, state->held);

        MHP_RETURN_IF_ERROR(mhp_stream_zero(optimizer->compute, state->moment1, bytes));
        MHP_RETURN_IF_ERROR(mhp_stream_zero(optimizer->compute, state->moment2, bytes));
    }
    return mhp_stream_synchronize(optimizer->compute);
}

static mhp_status submit_reduction(mhp_optimizer *optimizer, const stage_state *state)
{
    const mhp_held_stage *held = state->held;

    MHP_RETURN_IF_ERROR(mhp_event_record(state->complete, optimizer->compute));
    MHP_RETURN_IF_ERROR(mhp_group_reduce_scatter(held->group, held->gradients, held->chunk, optimizer->store->kernels->full_dtype,
                                                 state->complete, state->reduced));
    return record_collective(optimizer, MHP_CAUSE_REDUCE, state);
}

mhp_status mhp_optimizer_reduce(void *context, mhp_held_stage *held)
{
    mhp_optimizer *optimizer = context;

    if (mhp_group_size(held->group) == 1) {
        return MHP_OK;
    }
    mhp_recorder_begin_range(optimizer->recorder, mhp_trace_cause_text(MHP_CAUSE_REDUCE));
    return mhp_recorder_end_range(optimizer->recorder, submit_reduction(optimizer, find_state(optimizer, held)));
}

static void *at_element(const mhp_optimizer *optimizer, void *base, int64_t element)
{
    return (char *)base + element * (int64_t)mhp_dtype_bytes(optimizer->store->kernels->full_dtype);
}

mhp_status mhp_optimizer_await(mhp_optimizer *optimizer)
{
    for (int i = 0; i < optimizer->stage_count; i++) {
        const stage_state *state = &optimizer->stages[i];

        MHP_RETURN_IF_ERROR(mhp_stream_wait(optimizer->compute, state->reduced));
        MHP_RETURN_IF_ERROR(mhp_recorder_arrived(optimizer->recorder, state->reduced));
        MHP_RETURN_IF_ERROR(record_wait(optimizer, MHP_CAUSE_REDUCE, state->held));
    }
    return MHP_OK;
}

mhp_status mhp_optimizer_add_squares(mhp_optimizer *optimizer, double *sum)
{
    const mhp_kernels *kernels = optimizer->store->kernels;

    for (int i = 0; i < optimizer->stage_count; i++) {
        const stage_state *state = &optimizer->stages[i];

        for (int r = 0; r < state->range_count; r++) {
            mhp_square_sum_args args = {
                .count = state->ranges[r].count,
                .x = at_element(optimizer, state->held->gradients, state->ranges[r].offset),
                .sum = sum,
            };

            MHP_RETURN_IF_ERROR(mhp_stream_submit(optimizer->compute, kernels->square_sum, &args, sizeof args));
        }
        MHP_RETURN_IF_ERROR(record_phase(optimizer, MHP_TRACE_NORM, state->held));
    }
    return MHP_OK;
}

mhp_status mhp_optimizer_clip(mhp_optimizer *optimizer, const double *square_sum, const mhp_sum_limit *watches, int watch_count)
{
    mhp_clip_args args = {
        .clip = optimizer->params->clip,
        .square_sum = square_sum,
        .norm = &optimizer->scalars[SCALAR_NORM],
        .scale = &optimizer->scalars[SCALAR_SCALE],
        .watch_count = watch_count,
    };

    assert(watch_count <= MHP_SUM_LIMITS_MAX);
    for (int w = 0; w < watch_count; w++) {
        args.watches[w] = watches[w];
    }
    return mhp_stream_submit(optimizer->compute, optimizer->store->kernels->clip, &args, sizeof args);
}

static mhp_status update_stage(mhp_optimizer *optimizer, stage_state *state, int64_t step)
{
    mhp_held_stage *held = state->held;
    const mhp_optimizer_params *params = optimizer->params;
    const mhp_kernels *kernels = optimizer->store->kernels;
    int64_t begin = held->chunk * mhp_group_index(held->group);
    bool casts_along = mhp_group_size(held->group) == 1 && held->weights != held->parameters;   /* else behind the gathering */

    for (int r = 0; r < state->range_count; r++) {
        const update_range *range = &state->ranges[r];
        mhp_adamw_args args = {
            .count = range->count,
            .rate = mhp_learning_rate(params, optimizer->total_steps, step),
            .beta1 = params->beta1,
            .beta2 = params->beta2,
            .epsilon = params->eps,
            .decay = range->decay ? params->weight_decay : 0,
            .step = step + 1,
            .gradient_scale = &optimizer->scalars[SCALAR_SCALE],
            .grad = at_element(optimizer, held->gradients, range->offset),
            .parameter = at_element(optimizer, held->parameters, range->offset),
            .moment1 = at_element(optimizer, state->moment1, range->offset - begin),
            .moment2 = at_element(optimizer, state->moment2, range->offset - begin),
            .weight = casts_along ? (char *)held->weights + (size_t)range->offset * mhp_dtype_bytes(kernels->dtype) : NULL,
        };

        MHP_RETURN_IF_ERROR(mhp_stream_submit(optimizer->compute, kernels->adamw, &args, sizeof args));
    }
    return record_phase(optimizer, MHP_TRACE_UPDATE, held);
}

static mhp_status submit_gathering(mhp_optimizer *optimizer, stage_state *state)
{
    const mhp_held_stage *held = state->held;

    MHP_RETURN_IF_ERROR(mhp_event_record(state->updated, optimizer->compute));
    MHP_RETURN_IF_ERROR(mhp_group_all_gather(held->group, held->parameters, held->chunk, optimizer->store->kernels->full_dtype,
                                             state->updated, state->gathered));
    return record_collective(optimizer, MHP_CAUSE_GATHER, state);
}

static mhp_status submit_update(mhp_optimizer *optimizer, stage_state *state, int64_t step)
{
    mhp_recorder_begin_range(optimizer->recorder, mhp_trace_phase_text(MHP_TRACE_UPDATE));
    MHP_RETURN_IF_ERROR(mhp_recorder_end_range(optimizer->recorder, update_stage(optimizer, state, step)));
    if (mhp_group_size(state->held->group) == 1) {
        return MHP_OK;
    }
    mhp_recorder_begin_range(optimizer->recorder, mhp_trace_cause_text(MHP_CAUSE_GATHER));
    return mhp_recorder_end_range(optimizer->recorder, submit_gathering(optimizer, state));
}

static mhp_status submit_copy(mhp_optimizer *optimizer, const mhp_held_stage *held)
{
    mhp_recorder_begin_range(optimizer->recorder, mhp_trace_phase_text(MHP_TRACE_UPDATE));
    return mhp_recorder_end_range(optimizer->recorder, mhp_store_cast_weights(optimizer->store, held, optimizer->compute));
}

mhp_status mhp_optimizer_update(mhp_optimizer *optimizer, int64_t step)
{
    for (int i = 0; i < optimizer->stage_count; i++) {
        MHP_RETURN_IF_ERROR(submit_update(optimizer, &optimizer->stages[i], step));
    }
    for (int i = 0; i < optimizer->stage_count; i++) {
        const mhp_held_stage *held = optimizer->stages[i].held;

        if (mhp_group_size(held->group) > 1) {
            MHP_RETURN_IF_ERROR(mhp_stream_wait(optimizer->compute, optimizer->stages[i].gathered));
            MHP_RETURN_IF_ERROR(mhp_recorder_arrived(optimizer->recorder, optimizer->stages[i].gathered));
            MHP_RETURN_IF_ERROR(record_wait(optimizer, MHP_CAUSE_GATHER, held));
            MHP_RETURN_IF_ERROR(submit_copy(optimizer, held));
            MHP_RETURN_IF_ERROR(record_phase(optimizer, MHP_TRACE_UPDATE, held));
        }
    }
    return MHP_OK;
}

const double *mhp_optimizer_judgement(const mhp_optimizer *optimizer)
{
    return optimizer->scalars;
}

void mhp_optimizer_moments(mhp_optimizer *optimizer, const mhp_held_stage *held, void **moment1_out, void **moment2_out)
{
    stage_state *state = find_state(optimizer, held);

    *moment1_out = state->moment1;
    *moment2_out = state->moment2;
}

size_t mhp_optimizer_bytes(const mhp_optimizer *optimizer)
{
    size_t bytes = 0;

    for (int i = 0; i < optimizer->stage_count; i++) {
        bytes += 2 * part_bytes(optimizer, optimizer->stages[i].held);
    }
    return bytes;
}
