/* Local search: small changes to what stands on the critical path, kept if the step becomes shorter, or now and then if
 * it becomes a little longer (simulated annealing). Every order that beats the best so far is lowered and simulated
 * with its slots before it counts. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "scheduler/index.h"
#include "scheduler/tune_internal.h"

enum {
    REACH_MAX = 12,       /* how far an action is moved at once */
    PLAN_ACTIONS = 1000,  /* the size of plan that `iterations` is meant for ... */
    ITERATIONS_MIN = 100, /* ... and the least that larger ones get */
    STREAM_SEARCH = 1,
};

/* At the start a step may become this much longer with a chance of 1/e; the bound falls to 0. */
static const double first_temperature = 0.004;
/* Of two orders with one makespan the one whose ranks end sooner is better, by this weight. */
static const double end_weight = 0.01;

typedef struct search {
    const tune *t;
    tune_point *best; /* measured with its slots */
    tune_point now;
    mhp_simulation simulation; /* of `now` */
    double now_us, quick_best_us;
    uint64_t drawn;
    mhp_action *backup; /* the list of the rank at work, before the change */
    size_t backup_count, backup_capacity;
} search;

static int draw(search *s, int limit)
{
    return (int)(mhp_random_u64(s->t->params->seed, STREAM_SEARCH, s->drawn++) % (uint64_t)limit);
}

/* ---- what may stand before what ---- */

/* Whether `second` needs what `first` does on the same rank: directly, or handed over from a neighbouring stage. */
static bool needs(const mhp_action *first, const mhp_action *second)
{
    int s, m, t, n;

    if (mhp_action_does(first, MHP_DO_FORWARD, &s, &m)) {
        if (mhp_action_does(second, MHP_DO_FORWARD, &t, &n) && m == n && t == s + 1) {
            return true;
        }
        if ((mhp_action_does(second, MHP_DO_INPUT_GRADIENT, &t, &n) && m == n && t == s) ||
            (second->kind == MHP_ACTION_REBUILD && second->microbatch == m && second->stage == s)) {
            return true;
        }
    }
    if (first->kind == MHP_ACTION_REBUILD && mhp_action_does(second, MHP_DO_INPUT_GRADIENT, &t, &n)) {
        return first->stage == t && first->microbatch == n;
    }
    if (mhp_action_does(first, MHP_DO_INPUT_GRADIENT, &s, &m)) {
        return (mhp_action_does(second, MHP_DO_INPUT_GRADIENT, &t, &n) && m == n && t == s - 1) ||
               (second->kind == MHP_ACTION_WEIGHT_GRADIENT && second->stage == s && second->microbatch == m);
    }
    return false;
}

/* Moves the action at `from` to `to`; false if it would pass something that it needs or that needs it. */
static bool shift(mhp_action_list *list, size_t from, size_t to)
{
    mhp_action moved = list->items[from];

    for (size_t i = from; i != to;) {
        size_t next = to < from ? i - 1 : i + 1;

        if (to < from ? needs(&list->items[next], &moved) : needs(&moved, &list->items[next])) {
            return false;
        }
        list->items[i] = list->items[next];
        i = next;
    }
    list->items[to] = moved;
    return true;
}

/* ---- changes ---- */

static mhp_status insert_at(mhp_plan *plan, int rank, size_t at, mhp_action action)
{
    mhp_action_list *list = &plan->ranks[rank].actions;

    MHP_RETURN_IF_ERROR(mhp_plan_append(plan, rank, action));
    memmove(&list->items[at + 1], &list->items[at], (list->count - 1 - at) * sizeof action);
    list->items[at] = action;
    return MHP_OK;
}

static size_t reach(search *s, size_t from, size_t count, bool back)
{
    size_t distance = 1 + (size_t)draw(s, REACH_MAX);

    return back ? (from > distance ? from - distance : 0) : (from + distance < count ? from + distance : count - 1);
}

/* A full backward becomes I, with W up to some actions later. */
static mhp_status split_backward(search *s, int rank, size_t at, bool *changed)
{
    mhp_action_list *list = &s->now.order->ranks[rank].actions;
    mhp_action weight = list->items[at];

    if (weight.kind != MHP_ACTION_BACKWARD) {
        return MHP_OK;
    }
    *changed = true;
    list->items[at].kind = MHP_ACTION_INPUT_GRADIENT;
    weight.kind = MHP_ACTION_WEIGHT_GRADIENT;
    return insert_at(s->now.order, rank, reach(s, at, list->count + 1, false), weight);
}

/* A pair becomes a forward and a backward, in either order. */
static mhp_status split_pair(search *s, int rank, size_t at, bool *changed)
{
    mhp_action_list *list = &s->now.order->ranks[rank].actions;
    mhp_action pair = list->items[at];
    mhp_action forward = {MHP_ACTION_FORWARD, pair.stage, pair.microbatch, -1, -1};
    mhp_action backward = {MHP_ACTION_BACKWARD, pair.backward_stage, pair.backward_microbatch, -1, -1};
    bool forward_first = draw(s, 2);

    if (pair.kind != MHP_ACTION_OVERLAP_F_B) {
        return MHP_OK;
    }
    *changed = true;
    list->items[at] = forward_first ? backward : forward;
    return insert_at(s->now.order, rank, at, forward_first ? forward : backward);
}

/* Neighbours F and B, in either order, become a pair. */
static void join_pair(search *s, int rank, size_t at, bool *changed)
{
    mhp_action_list *list = &s->now.order->ranks[rank].actions;
    const mhp_action *a = &list->items[at], *b = &list->items[at + 1 < list->count ? at + 1 : at];
    const mhp_action *forward = a->kind == MHP_ACTION_FORWARD ? a : b, *backward = forward == a ? b : a;
    mhp_action pair = {MHP_ACTION_OVERLAP_F_B, forward->stage, forward->microbatch, backward->stage,
                       backward->microbatch};

    if (a == b || forward->kind != MHP_ACTION_FORWARD || backward->kind != MHP_ACTION_BACKWARD || needs(a, b)) {
        return;
    }
    *changed = true;
    list->items[at] = pair;
    memmove(&list->items[at + 1], &list->items[at + 2], (list->count - at - 2) * sizeof pair);
    list->count--;
}

enum {
    CHANGE_EARLIER,
    CHANGE_BEFORE_LATER,
    CHANGE_SPLIT_BACKWARD,
    CHANGE_WEIGHT,
    CHANGE_SPLIT_PAIR,
    CHANGE_JOIN_PAIR,
    CHANGES
};

/* Some W near `at` goes some way in either direction. */
static void move_weight(search *s, mhp_action_list *list, size_t at, bool *changed)
{
    size_t from = reach(s, at, list->count, draw(s, 2));

    if (list->items[from].kind == MHP_ACTION_WEIGHT_GRADIENT) {
        *changed = shift(list, from, reach(s, from, list->count, draw(s, 2)));
    }
}

static mhp_status change(search *s, int rank, size_t at, bool *changed)
{
    mhp_action_list *list = &s->now.order->ranks[rank].actions;

    *changed = false;
    switch (draw(s, CHANGES)) {
    case CHANGE_EARLIER:
        *changed = at > 0 && shift(list, at, reach(s, at, list->count, true));
        return MHP_OK;
    case CHANGE_BEFORE_LATER:
        if (at > 0) {
            *changed = shift(list, at - 1, reach(s, at - 1, list->count, false));
        }
        return MHP_OK;
    case CHANGE_SPLIT_BACKWARD:
        return split_backward(s, rank, at > 0 && draw(s, 2) ? at - 1 : at, changed);
    case CHANGE_WEIGHT:
        move_weight(s, list, at, changed);
        return MHP_OK;
    case CHANGE_SPLIT_PAIR:
        return split_pair(s, rank, at, changed);
    default:
        join_pair(s, rank, at > 0 && draw(s, 2) ? at - 1 : at, changed);
        return MHP_OK;
    }
}

/* ---- one step ---- */

static mhp_status keep_backup(search *s, int rank)
{
    const mhp_action_list *list = &s->now.order->ranks[rank].actions;

    if (list->count > s->backup_capacity) {
        MHP_RETURN_IF_ERROR(mhp_realloc(&s->backup, 2 * list->count, sizeof *s->backup));
        s->backup_capacity = 2 * list->count;
    }
    memcpy(s->backup, list->items, list->count * sizeof *list->items);
    s->backup_count = list->count;
    return MHP_OK;
}

static void restore_backup(search *s, int rank)
{
    mhp_action_list *list = &s->now.order->ranks[rank].actions; /* its room never shrinks */

    memcpy(list->items, s->backup, s->backup_count * sizeof *list->items);
    list->count = s->backup_count;
}

static double value_of(const mhp_simulation *simulation)
{
    double ends_us = 0;

    for (int r = 0; r < simulation->rank_count; r++) {
        ends_us += simulation->ranks[r].compute_end_us;
    }
    return simulation->makespan_us + end_weight * ends_us / simulation->rank_count;
}

/* The value of the order at hand; DBL_MAX if it cannot run or does not fit. */
static mhp_status evaluate(search *s, mhp_simulation *simulation_out, double *value_out)
{
    bool fits;
    mhp_status status = mhp_tune_simulate(s->t, &s->now, simulation_out, &fits);

    *value_out = fits ? value_of(simulation_out) : DBL_MAX;
    return status;
}

/* Some compute action on the critical path. */
static bool choose_place(search *s, int *rank_out, size_t *at_out)
{
    const mhp_simulation *simulation = &s->simulation;
    size_t first = simulation->path_count > 0 ? (size_t)draw(s, (int)simulation->path_count) : 0;

    for (size_t i = 0; i < simulation->path_count; i++) {
        const mhp_path_step *step = &simulation->path[(first + i) % simulation->path_count];

        if (step->kind == MHP_PATH_COMPUTE) {
            *rank_out = step->rank;
            *at_out = step->position;
            return true;
        }
    }
    return false;
}

static bool is_accepted(search *s, double value, double temperature_us)
{
    double above_us = value - s->now_us;

    if (value == DBL_MAX || above_us <= 0) {
        return value < DBL_MAX;
    }
    return temperature_us > 0 &&
           mhp_random_uniform(s->t->params->seed, STREAM_SEARCH, s->drawn++) < exp(-above_us / temperature_us);
}

/* Lowers what looks better than the best, and keeps it if it is. */
static mhp_status note_if_best(search *s)
{
    mhp_status status = MHP_OK;
    tune_point tried = {0};

    if (s->now_us >= s->quick_best_us * (1 - 1e-9)) {
        return MHP_OK;
    }
    s->quick_best_us = s->now_us;
    MHP_TRY(out, mhp_tune_point_copy(&s->now, &tried));
    MHP_TRY(out, mhp_tune_measure(s->t, &tried));
    s->now.slots_bytes = tried.slots_bytes;
    if (tried.row.fits && tried.row.rebuilt_stages == s->best->row.rebuilt_stages &&
        tried.row.makespan_us < s->best->row.makespan_us) {
        tune_point old = *s->best;

        *s->best = tried;
        tried = old;
    }
out:
    mhp_tune_point_destroy(&tried);
    return status;
}

static mhp_status step(search *s, double temperature_us)
{
    mhp_simulation simulation = {0};
    mhp_status status = MHP_OK;
    int rank = 0;
    size_t at = 0;
    bool changed = false;
    double value;

    if (!choose_place(s, &rank, &at)) {
        return MHP_OK;
    }
    MHP_TRY(out, keep_backup(s, rank));
    MHP_TRY(out, change(s, rank, at, &changed));
    if (!changed) {
        restore_backup(s, rank); /* a shift may have stopped on its way */
        goto out;
    }
    MHP_TRY(out, evaluate(s, &simulation, &value));
    if (!is_accepted(s, value, temperature_us)) {
        restore_backup(s, rank);
        goto out;
    }
    mhp_simulation_release(&s->simulation);
    s->simulation = simulation;
    simulation = (mhp_simulation){0};
    s->now_us = value;
    status = note_if_best(s);
out:
    mhp_simulation_release(&simulation);
    return status;
}

static int iterations_for(const tune *t, const mhp_plan *plan)
{
    size_t actions = 0;
    double iterations;

    for (int r = 0; r < plan->rank_count; r++) {
        actions += plan->ranks[r].actions.count;
    }
    iterations =
        actions > PLAN_ACTIONS ? t->params->iterations * (double)PLAN_ACTIONS / (double)actions : t->params->iterations;
    return iterations < ITERATIONS_MIN && t->params->iterations > 0 ? ITERATIONS_MIN : (int)iterations;
}

mhp_status mhp_tune_search(const tune *t, tune_point *point)
{
    mhp_status status = MHP_OK;
    search s = {.t = t, .best = point};
    int iterations = iterations_for(t, point->order);

    MHP_TRY(out, mhp_tune_point_copy(point, &s.now));
    MHP_TRY(out, evaluate(&s, &s.simulation, &s.now_us));
    s.quick_best_us = s.now_us;
    for (int i = 0; i < iterations && s.now_us < DBL_MAX; i++) {
        MHP_TRY(out, step(&s, first_temperature * s.quick_best_us * (1 - (double)i / iterations)));
    }
out:
    mhp_simulation_release(&s.simulation);
    mhp_tune_point_destroy(&s.now);
    mhp_free(s.backup);
    return status;
}
