/* Traces with known answers: made by hand, and of a simulated plan. */
#ifndef MHP_TESTS_UNIT_RUNTIME_PROFILE_SAMPLE_H
#define MHP_TESTS_UNIT_RUNTIME_PROFILE_SAMPLE_H

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "runtime/profile/trace.h"
#include "scheduler/index.h"
#include "scheduler/simulate.h"

/* A rank whose clock is off: what it reads when rank 0's shows `us` microseconds behind the start. */
typedef struct sample_clock {
    double offset_us, drift;
} sample_clock;

typedef struct sample_rank {
    mhp_trace trace;
    sample_clock clock;
    size_t capacity;
    int step;
    double last_us; /* where the compute stream is */
} sample_rank;

static inline int64_t sample_ns(const sample_rank *rank, double us)
{
    return llround((us + 1e6) * 1e3 * (1 + rank->clock.drift) + rank->clock.offset_us * 1e3);
}

static inline mhp_clock_reading sample_reading(const sample_rank *rank, double us)
{
    return (mhp_clock_reading){sample_ns(rank, us), llround((us + 1e6) * 1e3), 4000, llround((us + 1e6) * 1e3)};
}

/* A trace of `steps` steps, all of them before `end_us`. */
static inline sample_rank sample_begin(int rank, int world, int steps, double end_us, sample_clock clock)
{
    sample_rank out = {
        .trace = {.rank = rank, .world_size = world, .pipeline_ranks = world, .streams = 4, .step_count = steps},
        .clock = clock};

    out.trace.before = sample_reading(&out, -1000);
    out.trace.after = sample_reading(&out, end_us + 1000);
    return out;
}

static inline void sample_add(sample_rank *rank, mhp_trace_span span, double start_us, double end_us)
{
    if (rank->trace.span_count == rank->capacity) {
        rank->capacity = rank->capacity ? 2 * rank->capacity : 64;
        if (mhp_realloc(&rank->trace.spans, rank->capacity, sizeof span) != MHP_OK) {
            abort();
        }
    }
    span.step = rank->step;
    span.start_ns = sample_ns(rank, start_us);
    span.end_ns = sample_ns(rank, end_us);
    rank->trace.spans[rank->trace.span_count++] = span;
}

static inline mhp_trace_span sample_span(mhp_trace_kind kind, int stage, int microbatch)
{
    return (mhp_trace_span){
        .kind = (uint8_t)kind, .action = -1, .stage = stage, .microbatch = microbatch, .slot = -1, .peer = -1};
}

/* The host's span of a step, which comes first, and the preparation behind it. */
static inline void sample_step(sample_rank *rank, double start_us, double compute_us, double end_us)
{
    mhp_trace_span prepare = sample_span(MHP_TRACE_PHASE, -1, -1);

    sample_add(rank, sample_span(MHP_TRACE_STEP, -1, -1), start_us, end_us);
    prepare.part = MHP_TRACE_PREPARE;
    sample_add(rank, prepare, start_us, compute_us);
    rank->last_us = compute_us;
}

/* The compute stream goes on to `end_us`. */
static inline void sample_group(sample_rank *rank, mhp_pass pass, mhp_step_part part, int action, int stage,
                                int microbatch, double end_us)
{
    mhp_trace_span span = sample_span(MHP_TRACE_GROUP, stage, microbatch);

    span.pass = (uint8_t)pass;
    span.part = (uint8_t)part;
    span.action = action;
    sample_add(rank, span, rank->last_us, end_us);
    rank->last_us = end_us;
}

static inline void sample_phase(sample_rank *rank, mhp_trace_phase phase, double end_us)
{
    mhp_trace_span span = sample_span(MHP_TRACE_PHASE, -1, -1);

    span.part = (uint8_t)phase;
    sample_add(rank, span, rank->last_us, end_us);
    rank->last_us = end_us;
}

static inline void sample_wait(sample_rank *rank, mhp_trace_cause cause, int action, int stage, int microbatch,
                               int slot, double end_us)
{
    mhp_trace_span span = sample_span(MHP_TRACE_WAIT, stage, microbatch);

    span.cause = (uint8_t)cause;
    span.pass = cause == MHP_CAUSE_GRADIENT ? MHP_PASS_INPUT_GRADIENT : MHP_PASS_FORWARD;
    span.action = action;
    span.slot = slot;
    sample_add(rank, span, rank->last_us, end_us);
    rank->last_us = end_us;
}

static inline void sample_message(sample_rank *rank, mhp_trace_cause cause, int stage, int microbatch, int peer,
                                  int64_t bytes, double posted_us, double arrived_us)
{
    mhp_trace_span span = sample_span(MHP_TRACE_MESSAGE, stage, microbatch);

    span.cause = (uint8_t)cause;
    span.peer = peer;
    span.bytes = bytes;
    sample_add(rank, span, posted_us, arrived_us);
}

/* ---- a simulated plan ---- */

static inline int sample_slot(const mhp_plan *plan, int rank, mhp_slot_class class_, int stage, int microbatch)
{
    const mhp_stage_slots *slots = mhp_plan_stage_slots(plan, rank, stage);

    return slots && slots->slot[class_] ? slots->slot[class_][microbatch] : -1;
}

/* Parts of a pass: a third is connections, the rest attention, or on the first stage the embedding. */
static inline void sample_pass(sample_rank *rank, mhp_pass pass, int action, int stage, int microbatch, double took_us)
{
    double middle_us = rank->last_us + took_us / 3, end_us = rank->last_us + took_us;

    sample_group(rank, pass, MHP_PART_CONNECTION, action, stage, microbatch, middle_us);
    sample_group(rank, pass, stage == 0 ? MHP_PART_EMBEDDING : MHP_PART_ATTENTION, action, stage, microbatch, end_us);
}

static inline void sample_action(sample_rank *rank, const mhp_plan *plan, const mhp_costs *costs, int at, mhp_span span)
{
    const mhp_action *action = &plan->ranks[rank->trace.rank].actions.items[at];
    const mhp_stage_costs *own = mhp_costs_stage(costs, action->stage);
    bool pair = action->kind == MHP_ACTION_OVERLAP_F_B;
    int stage = pair ? action->backward_stage : action->stage,
        microbatch = pair ? action->backward_microbatch : action->microbatch;
    double share =
        pair ? (span.end_us - span.start_us) / (own->forward_us + mhp_costs_stage(costs, stage)->input_gradient_us +
                                                mhp_costs_stage(costs, stage)->weight_gradient_us)
             : 1;

    if (action->kind == MHP_ACTION_FORWARD || pair) {
        sample_wait(rank, MHP_CAUSE_STATE, at, action->stage, action->microbatch,
                    sample_slot(plan, rank->trace.rank, MHP_SLOT_OUTPUT, action->stage, action->microbatch),
                    span.start_us);
    }
    if (action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_INPUT_GRADIENT || pair) {
        sample_wait(rank, MHP_CAUSE_GRADIENT, at, stage, microbatch,
                    sample_slot(plan, rank->trace.rank, MHP_SLOT_GRADIENT_OUTPUT, stage, microbatch), span.start_us);
    }
    if (pair) { /* what it sends leaves at its end */
        sample_pass(rank, MHP_PASS_WEIGHT_GRADIENT, at, stage, microbatch,
                    share * mhp_costs_stage(costs, stage)->weight_gradient_us);
        sample_pass(rank, MHP_PASS_INPUT_GRADIENT, at, stage, microbatch,
                    share * mhp_costs_stage(costs, stage)->input_gradient_us);
        sample_pass(rank, MHP_PASS_FORWARD, at, action->stage, action->microbatch, span.end_us - rank->last_us);
        sample_group(rank, MHP_PASS_INPUT_GRADIENT, MHP_PART_CONNECTION, at, stage, microbatch, span.end_us);
        return;
    }
    if (action->kind == MHP_ACTION_FORWARD) {
        sample_pass(rank, MHP_PASS_FORWARD, at, stage, microbatch, span.end_us - rank->last_us);
    } else if (action->kind == MHP_ACTION_REBUILD) {
        sample_pass(rank, MHP_PASS_REBUILD, at, stage, microbatch, span.end_us - rank->last_us);
    } else if (action->kind == MHP_ACTION_INPUT_GRADIENT || action->kind == MHP_ACTION_BACKWARD) {
        sample_pass(rank, MHP_PASS_INPUT_GRADIENT, at, stage, microbatch, own->input_gradient_us);
    }
    if (action->kind == MHP_ACTION_WEIGHT_GRADIENT || action->kind == MHP_ACTION_BACKWARD) {
        sample_pass(rank, MHP_PASS_WEIGHT_GRADIENT, at, stage, microbatch, span.end_us - rank->last_us);
    }
}

static inline void sample_receive(sample_rank *rank, const mhp_plan *plan, const mhp_costs *costs, int at,
                                  mhp_span span)
{
    const mhp_action *action = &plan->ranks[rank->trace.rank].actions.items[at];
    bool state = action->kind == MHP_ACTION_RECV_F;

    if (state || action->kind == MHP_ACTION_RECV_B) {
        int source = state ? action->stage - 1 : action->stage + 1;

        sample_message(rank, state ? MHP_CAUSE_STATE : MHP_CAUSE_GRADIENT, action->stage, action->microbatch,
                       mhp_plan_owner(plan, source, action->microbatch), costs->message_bytes, span.start_us,
                       span.end_us);
    }
}

/* One step of a simulated rank, whose end the whole world awaits. Costs without reductions and optimizer. */
static inline void sample_simulated(sample_rank *rank, const mhp_plan *plan, const mhp_costs *costs,
                                    const mhp_simulation *simulation, double start_us)
{
    const mhp_action_list *list = &plan->ranks[rank->trace.rank].actions;
    const mhp_span *spans = simulation->ranks[rank->trace.rank].spans;
    double end_us = start_us + simulation->makespan_us;

    sample_step(rank, start_us, start_us, end_us);
    for (size_t i = 0; i < list->count; i++) {
        if (mhp_action_takes_time(&list->items[i])) {
            sample_action(rank, plan, costs, (int)i,
                          (mhp_span){start_us + spans[i].start_us, start_us + spans[i].end_us});
        }
    }
    sample_wait(rank, MHP_CAUSE_NORM, -1, -1, -1, -1, end_us);
    for (size_t i = 0; i < list->count; i++) {
        sample_receive(rank, plan, costs, (int)i, (mhp_span){start_us + spans[i].start_us, start_us + spans[i].end_us});
    }
    rank->step++;
}

#endif
