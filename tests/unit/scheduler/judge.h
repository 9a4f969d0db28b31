/* A judge of lowered plans: a step-by-step execution that knows nothing of the library's index, executor or slots. */
#ifndef MHP_TESTS_UNIT_SCHEDULER_JUDGE_H
#define MHP_TESTS_UNIT_SCHEDULER_JUDGE_H

#include "tests/unit/scheduler/support.h"

enum { RANKS = 8, STAGES = 16, MICROBATCHES = 32, NOBODY = -1 };

/* Messages of one channel so far: (source stage, source rank, target rank), by direction. */
typedef struct queue {
    int count;
    int microbatch[MICROBATCHES];
} queue;

/* What has happened, by [stage][micro-batch] or by rank. Direction 0 is forward, 1 backward. */
typedef struct world {
    const mhp_plan *plan;
    size_t next[RANKS];
    int owner[STAGES][MICROBATCHES];
    bool forward[STAGES][MICROBATCHES];
    bool input_gradient[STAGES][MICROBATCHES];
    bool weight_gradient[STAGES][MICROBATCHES];
    bool rebuilt[STAGES][MICROBATCHES];
    bool arrived[2][STAGES][MICROBATCHES];          /* at the stage that needs it */
    bool reduced[RANKS][STAGES];
    queue sent[2][STAGES][RANKS][RANKS], posted[2][STAGES][RANKS][RANKS];
    int holder[RANKS][STAGES][MHP_SLOT_CLASS_COUNT][MICROBATCHES];
    const char *wrong;                              /* what the judge objects to; NULL: nothing */
} world;

static inline bool demand(world *w, bool condition, const char *wrong)
{
    if (!condition && !w->wrong) {
        w->wrong = wrong;
    }
    return condition;
}

static inline bool on_rank(const world *w, int rank, int s, int m)
{
    return s >= 0 && s < w->plan->stage_count && w->owner[s][m] == rank;
}

static inline bool crosses(const world *w, int rank, int neighbour, int m)
{
    return neighbour >= 0 && neighbour < w->plan->stage_count && w->owner[neighbour][m] != rank;
}

static inline int *slot_of(world *w, int rank, mhp_slot_class class, int s, int m)
{
    const mhp_stage_slots *slots = mhp_plan_stage_slots(w->plan, rank, s);
    static int nowhere;

    nowhere = NOBODY;
    if (!demand(w, slots && slots->slot[class][m] >= 0 &&
                       slots->slot[class][m] < slots->count[class], "no slot")) {
        return &nowhere;
    }
    return &w->holder[rank][s][class][slots->slot[class][m]];
}

static inline void take(world *w, int rank, mhp_slot_class class, int s, int m)
{
    int *holder = slot_of(w, rank, class, s, m);

    demand(w, *holder == NOBODY, "a slot is taken that is in use");
    *holder = m;
}

static inline void release(world *w, int rank, mhp_slot_class class, int s, int m)
{
    int *holder = slot_of(w, rank, class, s, m);

    demand(w, *holder == m, "a slot lost its contents");
    *holder = NOBODY;
}

/* Whether the input is there and the output's slot is free; both may become so later. */
static inline bool can_compute(world *w, int rank, int s, int m, bool forward)
{
    int source = forward ? s - 1 : s + 1;
    int target = forward ? s + 1 : s - 1;
    mhp_slot_class class = forward ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT;

    if (crosses(w, rank, target, m) && *slot_of(w, rank, class, s, m) != NOBODY) {
        return false;
    }
    if (crosses(w, rank, source, m)) {
        return w->arrived[!forward][s][m];
    }
    return source < 0 || source >= w->plan->stage_count ||
           (forward ? w->forward[source][m] : w->input_gradient[source][m]);
}

static inline bool can_run(world *w, int rank, const mhp_action *action)
{
    if (is_pair(action)) {
        return can_compute(w, rank, action->stage, action->microbatch, true) &&
               can_compute(w, rank, action->backward_stage, action->backward_microbatch, false);
    }
    if (action->kind == MHP_ACTION_FORWARD) {
        return can_compute(w, rank, action->stage, action->microbatch, true);
    }
    if (action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_INPUT_GRADIENT) {
        return can_compute(w, rank, action->stage, action->microbatch, false);
    }
    return true;
}

/* A message is over when both ends have it; then its sender's slot is free. The k-th send of a
 * channel meets the k-th receive, whatever they carry. */
static inline void meet(world *w, int source, int target, int from, int to)
{
    int backward = target < source;
    const queue *sent = &w->sent[backward][source][from][to];
    const queue *posted = &w->posted[backward][source][from][to];
    int last = (sent->count < posted->count ? sent->count : posted->count) - 1;
    int m = last < 0 ? NOBODY : sent->microbatch[last];

    if (last < 0 || w->arrived[backward][target][m]) {
        return;
    }
    if (demand(w, posted->microbatch[last] == m, "a message meets another's receive")) {
        w->arrived[backward][target][m] = true;
        release(w, from, backward ? MHP_SLOT_GRADIENT_OUTPUT : MHP_SLOT_OUTPUT, source, m);
    }
}

static inline void append(world *w, queue *list, int m)
{
    for (int i = 0; i < list->count; i++) {
        if (!demand(w, list->microbatch[i] != m, "a message twice")) {
            return;
        }
    }
    list->microbatch[list->count++] = m;
}

static inline void run_message(world *w, int rank, const mhp_action *action)
{
    bool forward = action->kind == MHP_ACTION_SEND_F || action->kind == MHP_ACTION_RECV_F;
    bool sends = action->kind == MHP_ACTION_SEND_F || action->kind == MHP_ACTION_SEND_B;
    int s = action->stage;
    int m = action->microbatch;
    int other = sends == forward ? s + 1 : s - 1;
    int source = sends ? s : other;
    int target = sends ? other : s;

    if (!demand(w, on_rank(w, rank, s, m) && crosses(w, rank, other, m), "a message of nobody") ||
        !demand(w, w->owner[other][m] >= 0, "the other end runs nowhere")) {
        return;
    }
    if (sends) {
        demand(w, forward ? w->forward[s][m] : w->input_gradient[s][m], "sent before it is made");
        append(w, &w->sent[!forward][source][rank][w->owner[other][m]], m);
    } else {
        demand(w, forward ? !w->forward[s][m] : !w->input_gradient[s][m], "received after use");
        append(w, &w->posted[!forward][source][w->owner[other][m]][rank], m);
        take(w, rank, forward ? MHP_SLOT_INPUT : MHP_SLOT_GRADIENT_INPUT, s, m);
    }
    if (!w->wrong) {
        meet(w, source, target, w->owner[source][m], w->owner[target][m]);
    }
}

static inline void begin_forward(world *w, int rank, int s, int m)
{
    demand(w, on_rank(w, rank, s, m) && !w->forward[s][m], "F twice or elsewhere");
    if (on_rank(w, rank, s + 1, m)) {
        take(w, rank, MHP_SLOT_INPUT, s + 1, m);
    } else if (crosses(w, rank, s + 1, m)) {
        take(w, rank, MHP_SLOT_OUTPUT, s, m);
    }
    take(w, rank, MHP_SLOT_ACTIVATION, s, m);
    take(w, rank, MHP_SLOT_PRODUCT_INPUT, s, m);
}

static inline void end_forward(world *w, int rank, int s, int m)
{
    w->forward[s][m] = true;
    if (w->plan->forward_only) {
        if (s > 0) {
            release(w, rank, MHP_SLOT_INPUT, s, m);
        }
        release(w, rank, MHP_SLOT_ACTIVATION, s, m);
        release(w, rank, MHP_SLOT_PRODUCT_INPUT, s, m);
    }
}

static inline void begin_input_gradient(world *w, int rank, int s, int m)
{
    demand(w, on_rank(w, rank, s, m) && w->forward[s][m], "I before F or elsewhere");
    demand(w, !w->input_gradient[s][m], "I twice");
    take(w, rank, MHP_SLOT_PRODUCT_GRADIENT, s, m);
    if (on_rank(w, rank, s - 1, m)) {
        take(w, rank, MHP_SLOT_GRADIENT_INPUT, s - 1, m);
    } else if (crosses(w, rank, s - 1, m)) {
        take(w, rank, MHP_SLOT_GRADIENT_OUTPUT, s, m);
    }
}

static inline void end_input_gradient(world *w, int rank, int s, int m)
{
    w->input_gradient[s][m] = true;
    release(w, rank, MHP_SLOT_ACTIVATION, s, m);
    if (s > 0) {
        release(w, rank, MHP_SLOT_INPUT, s, m);
    }
    if (s + 1 < w->plan->stage_count) {
        release(w, rank, MHP_SLOT_GRADIENT_INPUT, s, m);
    }
}

static inline void run_weight_gradient(world *w, int rank, int s, int m)
{
    demand(w, on_rank(w, rank, s, m) && w->input_gradient[s][m], "W before I or elsewhere");
    demand(w, !w->weight_gradient[s][m], "W twice");
    w->weight_gradient[s][m] = true;
    release(w, rank, MHP_SLOT_PRODUCT_INPUT, s, m);
    release(w, rank, MHP_SLOT_PRODUCT_GRADIENT, s, m);
}

static inline void run_reduction(world *w, int rank, int s)
{
    bool held = false;

    for (int m = 0; m < w->plan->microbatch_count; m++) {
        held = held || on_rank(w, rank, s, m);
        demand(w, !on_rank(w, rank, s, m) || w->weight_gradient[s][m], "reduced before W");
    }
    demand(w, held && !w->reduced[rank][s], "reduced twice or elsewhere");
    w->reduced[rank][s] = true;
}

/* Inside one action everything is taken before anything is given back. */
static inline void run_compute(world *w, int rank, const mhp_action *action)
{
    bool pair = is_pair(action);
    bool forward = pair || action->kind == MHP_ACTION_FORWARD;
    bool both = pair || action->kind == MHP_ACTION_BACKWARD;
    bool gradient = both || action->kind == MHP_ACTION_INPUT_GRADIENT;
    int s = pair ? action->backward_stage : action->stage;
    int m = pair ? action->backward_microbatch : action->microbatch;

    if (forward) {
        begin_forward(w, rank, action->stage, action->microbatch);
    }
    if (gradient) {
        begin_input_gradient(w, rank, s, m);
    }
    if (forward) {
        end_forward(w, rank, action->stage, action->microbatch);
    }
    if (gradient) {
        end_input_gradient(w, rank, s, m);
    }
    if (both || action->kind == MHP_ACTION_WEIGHT_GRADIENT) {
        run_weight_gradient(w, rank, s, m);
    }
}

static inline void run_rebuild(world *w, int rank, int s, int m)
{
    demand(w, on_rank(w, rank, s, m) && w->forward[s][m], "R before F or elsewhere");
    demand(w, !w->input_gradient[s][m] && !w->rebuilt[s][m], "R twice or too late");
    w->rebuilt[s][m] = true;
}

static inline void run(world *w, int rank, const mhp_action *action)
{
    if (action->kind == MHP_ACTION_REDUCE_GRAD) {
        run_reduction(w, rank, action->stage);
    } else if (action->kind >= MHP_ACTION_SEND_F && action->kind <= MHP_ACTION_RECV_B) {
        run_message(w, rank, action);
    } else if (action->kind == MHP_ACTION_REBUILD) {
        run_rebuild(w, rank, action->stage, action->microbatch);
    } else {
        run_compute(w, rank, action);
    }
}

static inline void find_owners(world *w)
{
    memset(w->owner, 0xff, sizeof w->owner);
    for (int r = 0; r < w->plan->rank_count; r++) {
        for (size_t i = 0; i < w->plan->ranks[r].actions.count; i++) {
            const mhp_action *action = &w->plan->ranks[r].actions.items[i];

            if (action->kind == MHP_ACTION_FORWARD || is_pair(action)) {
                int *owner = &w->owner[action->stage][action->microbatch];

                demand(w, *owner == NOBODY, "F twice");
                *owner = r;
            }
        }
    }
}

static inline void demand_everything_done(world *w)
{
    bool training = !w->plan->forward_only;

    for (int r = 0; r < w->plan->rank_count; r++) {
        demand(w, w->next[r] == w->plan->ranks[r].actions.count, "a rank waits for ever");
    }
    for (int s = 0; s < w->plan->stage_count; s++) {
        for (int m = 0; m < w->plan->microbatch_count; m++) {
            int rank = w->owner[s][m];

            if (!demand(w, w->forward[s][m], "F is missing")) {
                return;
            }
            demand(w, w->rebuilt[s][m] == w->rebuilt[s][0], "R of some, not of others");
            demand(w, !training || w->input_gradient[s][m], "I is missing");
            demand(w, !training || w->weight_gradient[s][m], "W is missing");
            demand(w, !training || w->reduced[rank][s], "REDUCE_GRAD is missing");
            demand(w, !crosses(w, rank, s + 1, m) || w->arrived[0][s + 1][m], "not received");
            demand(w, !training || !crosses(w, rank, s - 1, m) || w->arrived[1][s - 1][m],
                   "not received");
        }
    }
}

/* What is wrong with a lowered plan, NULL if nothing: every rank runs its list in order, compute
 * waits for its input and its output's slot, messages for their other end. */
static inline const char *judge(const mhp_plan *plan)
{
    static world w;
    bool moved = true;

    memset(&w, 0, sizeof w);
    memset(w.holder, 0xff, sizeof w.holder);
    w.plan = plan;
    find_owners(&w);
    while (moved && !w.wrong) {
        moved = false;
        for (int r = 0; r < plan->rank_count && !w.wrong; r++) {
            const mhp_action_list *list = &plan->ranks[r].actions;

            /* One action a rank and round, so that ranks advance side by side. */
            if (w.next[r] < list->count && can_run(&w, r, &list->items[w.next[r]])) {
                run(&w, r, &list->items[w.next[r]++]);
                moved = true;
            }
        }
    }
    if (!w.wrong) {
        demand_everything_done(&w);
    }
    return w.wrong;
}

#endif
