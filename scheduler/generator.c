#include "scheduler/generator.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "scheduler/generators.h"

static const mhp_generator *const generators[] = {
    &mhp_generator_gpipe,
    &mhp_generator_1f1b,
    &mhp_generator_interleaved,
    &mhp_generator_zb_h1,
    &mhp_generator_zb_v,
    &mhp_generator_dualpipe,
    &mhp_generator_dualpipev,
};

enum { GENERATOR_COUNT = sizeof generators / sizeof *generators };

const mhp_generator *mhp_generator_at(size_t index)
{
    return index < GENERATOR_COUNT ? generators[index] : NULL;
}

const mhp_generator *mhp_generator_find(const char *name)
{
    for (size_t i = 0; i < GENERATOR_COUNT; i++) {
        if (strcmp(generators[i]->name, name) == 0) {
            return generators[i];
        }
    }
    return NULL;
}

static mhp_status unknown(const char *name)
{
    char known[256] = "";

    for (size_t i = 0; i < GENERATOR_COUNT; i++) {
        size_t length = strlen(known);

        snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "", generators[i]->name);
    }
    return mhp_error_set(MHP_ERR_NOT_FOUND, "no schedule is called \"%s\": expected one of %s", name, known);
}

static mhp_status find_generator(const char *name, const mhp_schedule_shape *shape, const mhp_generator **generator_out)
{
    const mhp_generator *generator = mhp_generator_find(name);

    if (!generator) {
        return unknown(name);
    }
    if (shape->ranks < 1 || shape->microbatches < 1) {
        return mhp_error_set(MHP_ERR_PLAN, "%s on %d ranks with %d micro-batches: expected at least 1 of each", name, shape->ranks,
                             shape->microbatches);
    }
    *generator_out = generator;
    return generator->check(shape);
}

/* The orders of ranks from `first` to before `end`. */
static mhp_status generate(const char *name, const mhp_schedule_shape *shape, int first, int end, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    const mhp_generator *generator = NULL;
    mhp_plan *plan = NULL;

    MHP_TRY(out, find_generator(name, shape, &generator));
    MHP_TRY(out, mhp_plan_create(shape->ranks, generator->stage_count(shape), shape->microbatches, &plan));
    for (int r = first; r < end; r++) {
        MHP_TRY(out, generator->emit_rank(shape, r, plan));
    }
    snprintf(plan->name, sizeof plan->name, "%s", name);
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    return status;
}

mhp_status mhp_schedule_generate(const char *name, const mhp_schedule_shape *shape, mhp_plan **plan_out)
{
    return generate(name, shape, 0, shape->ranks, plan_out);
}

mhp_status mhp_schedule_generate_rank(const char *name, const mhp_schedule_shape *shape, int rank, mhp_plan **plan_out)
{
    if (rank < 0 || rank >= shape->ranks) {
        return mhp_error_set(MHP_ERR_PLAN, "%s on %d ranks: rank %d: expected one from 0 to %d", name, shape->ranks, rank, shape->ranks - 1);
    }
    return generate(name, shape, rank, rank + 1, plan_out);
}

mhp_status mhp_emit(mhp_plan *plan, int rank, mhp_action_kind kind, int stage, int microbatch)
{
    mhp_action action = {kind, stage, microbatch, -1, -1};

    if (kind == MHP_ACTION_FORWARD) {
        plan->owner[(size_t)stage * (size_t)plan->microbatch_count + (size_t)microbatch] = rank;
    }
    return mhp_plan_append(plan, rank, action);
}

mhp_status mhp_emit_pair(mhp_plan *plan, int rank, int stage, int microbatch, int backward_stage, int backward_microbatch)
{
    mhp_action action = {MHP_ACTION_OVERLAP_F_B, stage, microbatch, backward_stage, backward_microbatch};

    plan->owner[(size_t)stage * (size_t)plan->microbatch_count + (size_t)microbatch] = rank;
    return mhp_plan_append(plan, rank, action);
}

/* The micro-batch of `plan` whose owners stand for micro-batch m of `count`: the same place in the same order. */
static int model_of(const mhp_plan *plan, int m, int count)
{
    return (int)((int64_t)m * plan->microbatch_count / count);
}

mhp_status mhp_schedule_forward_only(const mhp_plan *plan, int microbatches, mhp_plan **plan_out)
{
    mhp_plan *forward = NULL;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_plan_create(plan->rank_count, plan->stage_count, microbatches, &forward));
    forward->forward_only = true;
    snprintf(forward->name, sizeof forward->name, "%.48s, forward", plan->name);
    /* Stage by stage within a micro-batch, micro-batches in order: no rank waits for a later action of another. */
    for (int m = 0; m < microbatches; m++) {
        for (int s = 0; s < plan->stage_count; s++) {
            int rank = mhp_plan_owner(plan, s, model_of(plan, m, microbatches));

            MHP_TRY(out, mhp_emit(forward, rank, MHP_ACTION_FORWARD, s, m));
        }
    }
    *plan_out = forward;
    forward = NULL;
out:
    mhp_plan_destroy(forward);
    return status;
}
