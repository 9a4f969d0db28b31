/* The validator against a judge: a step-by-step execution that knows nothing of the validator's
 * index. Lowered plans pass both; of plans with one random change each accepts what the other does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/random.h"
#include "scheduler/csv.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"

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
    bool arrived[2][STAGES][MICROBATCHES];          /* at the stage that needs it */
    bool reduced[RANKS][STAGES];
    queue sent[2][STAGES][RANKS][RANKS], posted[2][STAGES][RANKS][RANKS];
    int holder[RANKS][STAGES][MHP_SLOT_CLASS_COUNT][MICROBATCHES];
    const char *wrong;                              /* what the judge objects to; NULL: nothing */
} world;

static bool is_pair(const mhp_action *action)
{
    return action->kind == MHP_ACTION_OVERLAP_F_B;
}

static bool demand(world *w, bool condition, const char *wrong)
{
    if (!condition && !w->wrong) {
        w->wrong = wrong;
    }
    return condition;
}

static bool on_rank(const world *w, int rank, int s, int m)
{
    return s >= 0 && s < w->plan->stage_count && w->owner[s][m] == rank;
}

static bool crosses(const world *w, int rank, int neighbour, int m)
{
    return neighbour >= 0 && neighbour < w->plan->stage_count && w->owner[neighbour][m] != rank;
}

static int *slot_of(world *w, int rank, mhp_slot_class class, int s, int m)
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

static void take(world *w, int rank, mhp_slot_class class, int s, int m)
{
    int *holder = slot_of(w, rank, class, s, m);

    demand(w, *holder == NOBODY, "a slot is taken that is in use");
    *holder = m;
}

static void release(world *w, int rank, mhp_slot_class class, int s, int m)
{
    int *holder = slot_of(w, rank, class, s, m);

    demand(w, *holder == m, "a slot lost its contents");
    *holder = NOBODY;
}

/* Whether the input is there and the output's slot is free; both may become so later. */
static bool can_compute(world *w, int rank, int s, int m, bool forward)
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

static bool can_run(world *w, int rank, const mhp_action *action)
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
static void meet(world *w, int source, int target, int from, int to)
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

static void append(world *w, queue *list, int m)
{
    for (int i = 0; i < list->count; i++) {
        if (!demand(w, list->microbatch[i] != m, "a message twice")) {
            return;
        }
    }
    list->microbatch[list->count++] = m;
}

static void run_message(world *w, int rank, const mhp_action *action)
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

static void begin_forward(world *w, int rank, int s, int m)
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

static void end_forward(world *w, int rank, int s, int m)
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

static void begin_input_gradient(world *w, int rank, int s, int m)
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

static void end_input_gradient(world *w, int rank, int s, int m)
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

static void run_weight_gradient(world *w, int rank, int s, int m)
{
    demand(w, on_rank(w, rank, s, m) && w->input_gradient[s][m], "W before I or elsewhere");
    demand(w, !w->weight_gradient[s][m], "W twice");
    w->weight_gradient[s][m] = true;
    release(w, rank, MHP_SLOT_PRODUCT_INPUT, s, m);
    release(w, rank, MHP_SLOT_PRODUCT_GRADIENT, s, m);
}

static void run_reduction(world *w, int rank, int s)
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
static void run_compute(world *w, int rank, const mhp_action *action)
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

static void run(world *w, int rank, const mhp_action *action)
{
    if (action->kind == MHP_ACTION_REDUCE_GRAD) {
        run_reduction(w, rank, action->stage);
    } else if (action->kind >= MHP_ACTION_SEND_F && action->kind <= MHP_ACTION_RECV_B) {
        run_message(w, rank, action);
    } else {
        run_compute(w, rank, action);
    }
}

static void find_owners(world *w)
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

static void demand_everything_done(world *w)
{
    bool training = !w->plan->forward_only;

    for (int r = 0; r < w->plan->rank_count; r++) {
        demand(w, w->next[r] == w->plan->ranks[r].actions.count, "a rank waits for ever");
    }
    for (int s = 0; s < w->plan->stage_count; s++) {
        for (int m = 0; m < w->plan->microbatch_count; m++) {
            int rank = w->owner[s][m];

            demand(w, w->forward[s][m], "F is missing");
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
static const char *judge(const mhp_plan *plan)
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

static mhp_plan *lowered(const char *name, int ranks, int microbatches, bool forward_only)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches, .chunks = 1};
    mhp_plan *plan = NULL;
    mhp_plan *forward = NULL;

    assert_int_equal(mhp_schedule_generate(name, &shape, &plan), MHP_OK);
    if (forward_only) {
        assert_int_equal(mhp_schedule_forward_only(plan, microbatches, &forward), MHP_OK);
        mhp_plan_destroy(plan);
        plan = forward;
    }
    assert_int_equal(mhp_plan_lower(plan), MHP_OK);
    return plan;
}

static void every_lowered_plan_is_accepted(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *name = mhp_generator_at(g)->name;
        int step = strcmp(name, "dualpipe") == 0 ? 2 : 1;

        for (int p = step; p <= RANKS; p += step) {
            for (int m = strncmp(name, "dual", 4) == 0 ? 2 * p : 1; m <= 2 * p + 6; m += step) {
                for (int forward_only = 0; forward_only < 2; forward_only++) {
                    mhp_plan *plan = lowered(name, p, m, forward_only);
                    const char *wrong = judge(plan);

                    if (wrong || mhp_plan_validate(plan) != MHP_OK) {
                        fail_msg("%s, %d ranks, %d micro-batches: %s", name, p, m,
                                 wrong ? wrong : mhp_error_text());
                    }
                    mhp_plan_destroy(plan);
                }
            }
        }
    }
}

/* Numbers of one seed, in turn. */
typedef struct dice {
    uint64_t seed, index;
} dice;

static size_t roll(dice *d, size_t count)
{
    return (size_t)(mhp_random_u64(d->seed, 0, d->index++) % count);
}

static mhp_action take_out(mhp_action_list *list, size_t place)
{
    mhp_action action = list->items[place];

    memmove(&list->items[place], &list->items[place + 1],
            (--list->count - place) * sizeof action);
    return action;
}

static void put_in(mhp_plan *plan, int rank, size_t place, mhp_action action)
{
    mhp_action_list *list = &plan->ranks[rank].actions;

    assert_int_equal(mhp_plan_append(plan, rank, action), MHP_OK);
    memmove(&list->items[place + 1], &list->items[place],
            (list->count - 1 - place) * sizeof action);
    list->items[place] = action;
}

typedef enum change { CHANGE_SWAP, CHANGE_DROP, CHANGE_DUPLICATE, CHANGE_MOVE, CHANGE_AWAY,
                      CHANGE_COUNT } change;

static void mutate(mhp_plan *plan, change kind, dice *d)
{
    int rank = (int)roll(d, (size_t)plan->rank_count);
    int other = (int)roll(d, (size_t)plan->rank_count);
    mhp_action_list *list = &plan->ranks[rank].actions;
    size_t a = roll(d, list->count);
    size_t b = roll(d, list->count - 1);
    mhp_action action = list->items[a];

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
        put_in(plan, other, roll(d, plan->ranks[other].actions.count), action);
        break;
    }
}

/* The text names a rank and a place that exist and marks the cell, unless it is the list's end. */
static void assert_names_a_place(const mhp_plan *plan)
{
    const char *place = strstr(mhp_error_text(), ": rank ");
    int rank = -1;
    size_t position = 0;

    assert_non_null(place);
    assert_int_equal(sscanf(place, ": rank %d, position %zu, ", &rank, &position), 2);
    assert_in_range(rank, 0, plan->rank_count - 1);
    assert_in_range(position, 0, plan->ranks[rank].actions.count);
    if (position < plan->ranks[rank].actions.count) {
        char cell[128];

        mhp_action_format(&plan->ranks[rank].actions.items[position], cell + 2, sizeof cell - 4);
        memcpy(cell, ">>", 2);
        strcat(cell, "<<");
        assert_non_null(strstr(mhp_error_text(), cell));
    } else {
        assert_non_null(strstr(mhp_error_text(), ", end: "));
    }
}

static void assert_mutants_judged_alike(const char *name, int ranks, int microbatches,
                                        bool forward_only, int count)
{
    int verdicts[2] = {0};

    for (int i = 0; i < count; i++) {
        dice d = {.seed = (uint64_t)i, .index = 0};
        mhp_plan *plan = lowered(name, ranks, microbatches, forward_only);
        change kind = (change)(i % CHANGE_COUNT);
        const char *wrong;
        mhp_status status;

        mutate(plan, kind, &d);
        wrong = judge(plan);
        status = mhp_plan_validate(plan);
        if ((status == MHP_OK) != (wrong == NULL)) {
            fail_msg("%s, %d ranks, %d micro-batches, change %d, seed %d: judge %s, validator %s",
                     name, ranks, microbatches, (int)kind, i, wrong ? wrong : "accepts",
                     status == MHP_OK ? "accepts" : mhp_error_text());
        }
        if (status != MHP_OK) {
            assert_int_equal(status, MHP_ERR_PLAN);
            assert_names_a_place(plan);
        }
        verdicts[status == MHP_OK]++;
        mhp_plan_destroy(plan);
    }
    assert_true(verdicts[0] > count / 2);
    assert_true(verdicts[1] > 0);
}

static void changed_plans_are_refused_or_still_right(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *name = mhp_generator_at(g)->name;

        assert_mutants_judged_alike(name, 2, 4, false, 1000);
        assert_mutants_judged_alike(name, 4, 10, false, 2000);
        assert_mutants_judged_alike(name, 4, 8, true, 500);
    }
}

static void assert_refused(const char *text, const char *place, const char *reason)
{
    mhp_plan *plan = NULL;

    assert_int_equal(mhp_plan_parse_csv("some.csv", text, strlen(text), &plan), MHP_OK);
    assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
    assert_names_a_place(plan);
    if (!strstr(mhp_error_text(), place) || !strstr(mhp_error_text(), reason)) {
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", mhp_error_text(), place, reason);
    }
    mhp_plan_destroy(plan);
}

static void wrong_compute_orders_are_named(void **state)
{
    (void)state;
    assert_refused("0F0,0B0,0F1\n", "rank 0, position 3, end", "0I or B1 is missing");
    assert_refused("0F0,0I0\n", "rank 0, position 2, end", "0W or B0 is missing");
    assert_refused("0F0,0B0,0B1\n", "rank 0, position 2, 0B1", "belongs to nobody");
    assert_refused("0B0,0F0\n", "rank 0, position 0, 0B0", "stands before 0F0");
    assert_refused("0F0,0W0,0I0\n", "rank 0, position 1, 0W0", "stands before 0I0");
    assert_refused("0F0,0F0,0B0\n", "rank 0, position 1, 0F0", "done already at position 0");
    assert_refused("0F0,0B0,0W0\n", "rank 0, position 2, 0W0", "done already at position 1");
    assert_refused("0F0\n0B0\n", "rank 1, position 0, 0B0", "belongs to rank 0");
    assert_refused("1F0,0F1\n1F1,0F0\n", "rank 0, position 0, 1F0", "deadlock");
    assert_refused("(0F0;0B0)OVERLAP_F_B\n", "rank 0, position 0, (0F0;0B0)", "stands before");
}

static void wrong_messages_are_named(void **state)
{
    (void)state;
    assert_refused("0F0,0SEND_F0\n1F0\n", "rank 1, position 1, end", "1RECV_F0 is missing");
    assert_refused("0F0\n1RECV_F0,1F0\n", "rank 0, position 1, end", "0SEND_F0 is missing");
    assert_refused("0SEND_F0,0F0\n1RECV_F0,1F0\n", "rank 0, position 0", "made at position 1");
    assert_refused("0F0,0SEND_F0\n1F0,1RECV_F0\n", "rank 1, position 1", "needed at position 0");
    assert_refused("0F0,0SEND_F0,1F0,1RECV_F0\n", "rank 0, position 1", "expected no message");
    assert_refused("0F0,0SEND_F0,0F1,0SEND_F1\n1RECV_F1,1RECV_F0,1F0,1F1\n",
                   "rank 1, position 0, 1RECV_F1", "rank 0 sends 0");
}

/* The last cell of a long row: what is far away is left out of the text, what is near is shown. */
static void the_neighbourhood_is_shown(void **state)
{
    (void)state;
    assert_refused("0F0,0F1,0F2,0F3,0B0,0B0,0B1,0B2,0B3\n", "rank 0, position 5, 0B0",
                   "rank 0: .. 0F2 0F3 0B0 >>0B0<< 0B1 0B2 0B3");
}

/* F2 needs the slot of F0, whose send stands behind it: nothing else can make room. */
static void a_send_behind_the_next_use_of_its_slot_is_a_deadlock(void **state)
{
    mhp_plan *plan = lowered("gpipe", 2, 4, true);
    mhp_action_list *list = &plan->ranks[0].actions;

    (void)state;
    /* F0 SEND0 F1 SEND1 F2 ... becomes F0 F1 F2 SEND0 SEND1 ...: the channel keeps its order. */
    put_in(plan, 0, 4, take_out(list, 1));
    put_in(plan, 0, 4, take_out(list, 2));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(list->items[i].kind, i < 3 ? MHP_ACTION_FORWARD : MHP_ACTION_SEND_F);
        assert_int_equal(list->items[i].microbatch, i % 3);
    }
    assert_string_equal(judge(plan), "a rank waits for ever");
    assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
    assert_non_null(strstr(mhp_error_text(), "rank 0, position"));
    mhp_plan_destroy(plan);
}

static void shared_slots_are_refused(void **state)
{
    static const mhp_slot_class classes[] = {MHP_SLOT_INPUT, MHP_SLOT_ACTIVATION,
                                             MHP_SLOT_PRODUCT_INPUT};

    (void)state;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        mhp_plan *plan = lowered("gpipe", 2, 4, false);
        int *slot = plan->ranks[1].stages[0].slot[classes[i]];

        slot[3] = slot[2];
        assert_non_null(judge(plan));
        assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
        assert_non_null(strstr(mhp_error_text(), "rank 1, position"));
        assert_non_null(strstr(mhp_error_text(), "still used by micro-batch 2 of stage 1"));
        slot[3] = plan->ranks[1].stages[0].count[classes[i]];
        assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
        assert_non_null(strstr(mhp_error_text(), "expected less than"));
        mhp_plan_destroy(plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_lowered_plan_is_accepted),
        cmocka_unit_test(changed_plans_are_refused_or_still_right),
        cmocka_unit_test(wrong_compute_orders_are_named),
        cmocka_unit_test(wrong_messages_are_named),
        cmocka_unit_test(the_neighbourhood_is_shown),
        cmocka_unit_test(a_send_behind_the_next_use_of_its_slot_is_a_deadlock),
        cmocka_unit_test(shared_slots_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
