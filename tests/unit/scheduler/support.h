/* What the tests of schedules share: plans by name, and an execution in units that knows nothing of the library's. */
#ifndef MHP_TESTS_UNIT_SCHEDULER_SUPPORT_H
#define MHP_TESTS_UNIT_SCHEDULER_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/csv.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"

static inline bool takes_shape(const char *name, int ranks, int microbatches, int chunks)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches, .chunks = chunks};

    return mhp_generator_find(name)->check(&shape) == MHP_OK;
}

static inline mhp_plan *generate_chunks(const char *name, int ranks, int microbatches, int chunks)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches, .chunks = chunks};
    mhp_plan *plan = NULL;

    if (mhp_schedule_generate(name, &shape, &plan) != MHP_OK) {
        fail_msg("%s on %d ranks, %d micro-batches: %s", name, ranks, microbatches,
                 mhp_error_text());
    }
    return plan;
}

/* Two stages a rank where the schedule lets one choose. */
static inline mhp_plan *generate(const char *name, int ranks, int microbatches)
{
    return generate_chunks(name, ranks, microbatches, 2);
}

/* The training plan, or one that evaluates with its placement. */
static inline mhp_plan *generate_either(const char *name, int ranks, int microbatches,
                                        bool forward_only)
{
    mhp_plan *plan = generate(name, ranks, microbatches);
    mhp_plan *forward = NULL;

    if (!forward_only) {
        return plan;
    }
    assert_int_equal(mhp_schedule_forward_only(plan, microbatches, &forward), MHP_OK);
    mhp_plan_destroy(plan);
    return forward;
}

static inline void lower_plan(mhp_plan *plan, const mhp_lower_params *params)
{
    if (mhp_plan_lower(plan, params) != MHP_OK) {
        fail_msg("%s, %d ranks, %d micro-batches: %s", plan->name, plan->rank_count,
                 plan->microbatch_count, mhp_error_text());
    }
    assert_true(plan->lowered);
}

static inline mhp_plan *parse_csv(const char *text)
{
    mhp_plan *plan = NULL;

    if (mhp_plan_parse_csv("dir/some.csv", text, strlen(text), &plan) != MHP_OK) {
        fail_msg("\"%s\": %s", text, mhp_error_text());
    }
    return plan;
}

static inline bool is_pair(const mhp_action *action)
{
    return action->kind == MHP_ACTION_OVERLAP_F_B;
}

static inline bool is_compute(const mhp_action *action)
{
    return action->kind <= MHP_ACTION_WEIGHT_GRADIENT || is_pair(action);
}

static inline bool runs_forward(const mhp_action *action)
{
    return action->kind == MHP_ACTION_FORWARD || is_pair(action);
}

static inline bool runs_input_gradient(const mhp_action *action)
{
    return action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_INPUT_GRADIENT ||
           is_pair(action);
}

static inline bool runs_weight_gradient(const mhp_action *action)
{
    return action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_WEIGHT_GRADIENT ||
           is_pair(action);
}

static inline int units_of(const mhp_action *action)
{
    return runs_forward(action) + runs_input_gradient(action) + runs_weight_gradient(action);
}

/* The (stage, micro-batch) of the backward half of a pair, else of the action. */
static inline void backward_cell(const mhp_action *action, int *stage, int *microbatch)
{
    *stage = is_pair(action) ? action->backward_stage : action->stage;
    *microbatch = is_pair(action) ? action->backward_microbatch : action->microbatch;
}

/* When everything ends if messages take no time: rounds over all ranks until nothing moves. */
typedef struct unit_times {
    int makespan;
    int *begin, *end, *busy; /* [rank]: of its first action, of its last, and its work */
} unit_times;

static inline bool input_is_ready(const mhp_plan *plan, const int *forward, const int *gradient,
                                  const mhp_action *action, int *at)
{
    size_t row = (size_t)plan->microbatch_count;
    int before = 0, after = 0;
    int s, m;

    if (runs_forward(action) && action->stage > 0) {
        before = forward[(size_t)(action->stage - 1) * row + (size_t)action->microbatch];
    }
    backward_cell(action, &s, &m);
    if (runs_input_gradient(action)) {
        after = s + 1 < plan->stage_count ? gradient[(size_t)(s + 1) * row + (size_t)m]
                                          : forward[(size_t)s * row + (size_t)m];
    }
    *at = before > *at ? before : *at;
    *at = after > *at ? after : *at;
    return before >= 0 && after >= 0;
}

static inline void note_end(const mhp_plan *plan, int *forward, int *gradient,
                            const mhp_action *action, int end)
{
    size_t row = (size_t)plan->microbatch_count;
    int s, m;

    if (runs_forward(action)) {
        forward[(size_t)action->stage * row + (size_t)action->microbatch] = end;
    }
    backward_cell(action, &s, &m);
    if (runs_input_gradient(action)) {
        gradient[(size_t)s * row + (size_t)m] = end;
    }
}

/* Fails if the order cannot run. Release with free_times. */
static inline unit_times run_in_units(const mhp_plan *plan)
{
    size_t cells = (size_t)plan->stage_count * (size_t)plan->microbatch_count;
    size_t ranks = (size_t)plan->rank_count;
    unit_times times = {0, calloc(ranks, sizeof(int)), calloc(ranks, sizeof(int)),
                        calloc(ranks, sizeof(int))};
    int *forward = malloc(cells * sizeof(int)), *gradient = malloc(cells * sizeof(int));
    size_t *next = calloc(ranks, sizeof(size_t));
    bool moved = true;

    memset(forward, 0xff, cells * sizeof(int));
    memset(gradient, 0xff, cells * sizeof(int));
    while (moved) {
        moved = false;
        for (size_t r = 0; r < ranks; r++) {
            const mhp_action_list *list = &plan->ranks[r].actions;
            const mhp_action *action = &list->items[next[r]];
            int at = times.end[r];

            if (next[r] == list->count || !input_is_ready(plan, forward, gradient, action, &at)) {
                continue;
            }
            moved = true;
            next[r]++;
            if (units_of(action) > 0) {
                times.begin[r] = times.busy[r] == 0 ? at : times.begin[r];
                times.busy[r] += units_of(action);
                times.end[r] = at + units_of(action);
                note_end(plan, forward, gradient, action, times.end[r]);
            }
        }
    }
    for (size_t r = 0; r < ranks; r++) {
        assert_int_equal(next[r], plan->ranks[r].actions.count);
        times.makespan = times.end[r] > times.makespan ? times.end[r] : times.makespan;
    }
    free(forward);
    free(gradient);
    free(next);
    return times;
}

static inline void free_times(unit_times *times)
{
    free(times->begin);
    free(times->end);
    free(times->busy);
}

/* Makespan less work, of the rank that has the least work or the most. */
static inline int worst_bubble(const mhp_plan *plan)
{
    unit_times times = run_in_units(plan);
    int worst = 0;

    for (int r = 0; r < plan->rank_count; r++) {
        int bubble = times.makespan - times.busy[r];

        worst = bubble > worst ? bubble : worst;
    }
    free_times(&times);
    return worst;
}

static inline int makespan_of(const mhp_plan *plan)
{
    unit_times times = run_in_units(plan);
    int makespan = times.makespan;

    free_times(&times);
    return makespan;
}

#endif
