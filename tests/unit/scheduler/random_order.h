/* Random legal schedules, and random changes to them. */
#ifndef MHP_TESTS_UNIT_SCHEDULER_RANDOM_ORDER_H
#define MHP_TESTS_UNIT_SCHEDULER_RANDOM_ORDER_H

#include "core/random.h"
#include "tests/unit/scheduler/support.h"

enum { ORDER_STAGES = 10, ORDER_MICROBATCHES = 12 };

/* Numbers of one seed, in turn. */
typedef struct dice {
    uint64_t seed, index;
} dice;

static inline size_t roll(dice *d, size_t count)
{
    return (size_t)(mhp_random_u64(d->seed, 0, d->index++) % count);
}

/* What has been done of every (stage, micro-batch), and which rank does it. */
typedef struct order {
    mhp_plan *plan;
    int owner[ORDER_STAGES][ORDER_MICROBATCHES];
    bool forward[ORDER_STAGES][ORDER_MICROBATCHES];
    bool gradient[ORDER_STAGES][ORDER_MICROBATCHES];
    bool weight[ORDER_STAGES][ORDER_MICROBATCHES];
} order;

static inline bool forward_is_ready(const order *o, int s, int m)
{
    return !o->forward[s][m] && (s == 0 || o->forward[s - 1][m]);
}

static inline bool gradient_is_ready(const order *o, int s, int m)
{
    return o->forward[s][m] && !o->gradient[s][m] &&
           (s + 1 == o->plan->stage_count || o->gradient[s + 1][m]);
}

static inline bool weight_is_ready(const order *o, int s, int m)
{
    return o->gradient[s][m] && !o->weight[s][m];
}

/* A stage has one rank or two, which share its micro-batches. */
static inline void place_at_random(order *o, dice *d)
{
    for (int s = 0; s < o->plan->stage_count; s++) {
        size_t ranks = (size_t)o->plan->rank_count;
        int owners[2] = {(int)roll(d, ranks), (int)roll(d, ranks)};
        bool shared = roll(d, 3) == 0;

        for (int m = 0; m < o->plan->microbatch_count; m++) {
            int owner = owners[shared ? roll(d, 2) : 0];

            o->owner[s][m] = owner;
            o->plan->owner[s * o->plan->microbatch_count + m] = owner;
        }
    }
}

/* All that could come next; a pair for every forward and gradient that are ready on one rank. */
static inline size_t list_ready(const order *o, mhp_action *ready)
{
    int stages = o->plan->stage_count, microbatches = o->plan->microbatch_count;
    size_t count = 0;

    for (int s = 0; s < stages; s++) {
        for (int m = 0; m < microbatches; m++) {
            if (forward_is_ready(o, s, m)) {
                ready[count++] = (mhp_action){MHP_ACTION_FORWARD, s, m, -1, -1};
            }
            if (gradient_is_ready(o, s, m)) {
                ready[count++] = (mhp_action){MHP_ACTION_INPUT_GRADIENT, s, m, -1, -1};
                ready[count++] = (mhp_action){MHP_ACTION_BACKWARD, s, m, -1, -1};
            }
            if (weight_is_ready(o, s, m)) {
                ready[count++] = (mhp_action){MHP_ACTION_WEIGHT_GRADIENT, s, m, -1, -1};
            }
        }
    }
    return count;
}

/* Of what is ready on the action's rank, a backward that may run beside a forward. */
static inline void try_pair(const order *o, dice *d, mhp_action *action)
{
    int rank = o->owner[action->stage][action->microbatch];
    int first = (int)roll(d, (size_t)o->plan->stage_count);

    for (int i = 0; i < o->plan->stage_count; i++) {
        int s = (first + i) % o->plan->stage_count;

        for (int m = 0; m < o->plan->microbatch_count; m++) {
            if (o->owner[s][m] == rank && gradient_is_ready(o, s, m)) {
                *action = (mhp_action){MHP_ACTION_OVERLAP_F_B, action->stage, action->microbatch,
                                       s, m};
                return;
            }
        }
    }
}

static inline void take_action(order *o, const mhp_action *action)
{
    int rank = o->owner[action->stage][action->microbatch];
    int s, m;

    backward_cell(action, &s, &m);
    if (runs_forward(action)) {
        o->forward[action->stage][action->microbatch] = true;
    }
    if (runs_input_gradient(action)) {
        o->gradient[s][m] = true;
    }
    if (runs_weight_gradient(action)) {
        o->weight[s][m] = true;
    }
    assert_int_equal(mhp_plan_append(o->plan, rank, *action), MHP_OK);
}

/* A compute order that is legal because it was made by running one action after another. */
static inline mhp_plan *random_order(uint64_t seed, int ranks_max)
{
    static order o;
    static mhp_action ready[3 * ORDER_STAGES * ORDER_MICROBATCHES];
    dice d = {.seed = seed, .index = 0};
    int ranks = 1 + (int)roll(&d, (size_t)ranks_max);
    int stages = 1 + (int)roll(&d, ORDER_STAGES);
    int microbatches = 1 + (int)roll(&d, ORDER_MICROBATCHES);
    /* Whole backwards only, split ones only, or both; with or without pairs. */
    size_t style = roll(&d, 3), pairs = roll(&d, 3);
    size_t count;

    memset(&o, 0, sizeof o);
    assert_int_equal(mhp_plan_create(ranks, stages, microbatches, &o.plan), MHP_OK);
    snprintf(o.plan->name, sizeof o.plan->name, "random %d", (int)seed);
    place_at_random(&o, &d);
    while ((count = list_ready(&o, ready)) > 0) {
        mhp_action action = ready[roll(&d, count)];

        if (action.kind == MHP_ACTION_BACKWARD || action.kind == MHP_ACTION_INPUT_GRADIENT) {
            action.kind = style == 0   ? MHP_ACTION_BACKWARD
                          : style == 1 ? MHP_ACTION_INPUT_GRADIENT
                                       : action.kind;
        }
        if (action.kind == MHP_ACTION_FORWARD && roll(&d, 3) < pairs) {
            try_pair(&o, &d, &action);
        }
        take_action(&o, &action);
    }
    return o.plan;
}

static inline mhp_action take_out(mhp_action_list *list, size_t place)
{
    mhp_action action = list->items[place];

    memmove(&list->items[place], &list->items[place + 1],
            (--list->count - place) * sizeof action);
    return action;
}

static inline void put_in(mhp_plan *plan, int rank, size_t place, mhp_action action)
{
    mhp_action_list *list = &plan->ranks[rank].actions;

    assert_int_equal(mhp_plan_append(plan, rank, action), MHP_OK);
    memmove(&list->items[place + 1], &list->items[place],
            (list->count - 1 - place) * sizeof action);
    list->items[place] = action;
}

typedef enum change { CHANGE_SWAP, CHANGE_DROP, CHANGE_DUPLICATE, CHANGE_MOVE, CHANGE_AWAY,
                      CHANGE_COUNT } change;

/* One change on a rank that has at least two actions. */
static inline void mutate(mhp_plan *plan, change kind, dice *d)
{
    int rank = (int)roll(d, (size_t)plan->rank_count);
    int other = (int)roll(d, (size_t)plan->rank_count);
    mhp_action_list *list;
    mhp_action action;
    size_t a, b;

    while (plan->ranks[rank].actions.count < 2) {
        rank = (rank + 1) % plan->rank_count;
    }
    list = &plan->ranks[rank].actions;
    a = roll(d, list->count);
    b = roll(d, list->count - 1);
    action = list->items[a];
    switch (kind) {
    case CHANGE_SWAP:
        b += b >= a;
        list->items[a] = list->items[b];
        list->items[b] = action;
        break;
    case CHANGE_DROP:
        take_out(list, a);
        break;
    case CHANGE_DUPLICATE:
        put_in(plan, rank, b, action);
        break;
    case CHANGE_MOVE:
        put_in(plan, rank, b, take_out(list, a));
        break;
    default:
        take_out(list, a);
        put_in(plan, other, roll(d, plan->ranks[other].actions.count + 1), action);
        break;
    }
}

#endif
