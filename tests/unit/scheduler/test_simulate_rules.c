/* The rules that determine every time of a simulation, checked one by one on named and random plans with random costs.
 * Together they leave no freedom: what keeps them all is the simulation. */
#include "tests/unit/scheduler/plans.h"

#include <math.h>

#include "scheduler/bound.h"
#include "scheduler/simulate.h"

static void simulate(const mhp_plan *plan, const mhp_costs *costs, bool early, mhp_simulation *out)
{
    assert_ok(mhp_simulate(plan, &(mhp_simulate_params){.costs = costs, .early_gradient = early}, out));
}

/* Where things stand and ended, found again without the simulator's help. */
typedef struct found_times {
    const mhp_plan *plan;
    const mhp_costs *costs;
    const mhp_simulation *simulation;
    bool early;
    double *forward_end, *gradient_end; /* [cell] */
    mhp_span *sent[2], *received[2];    /* [cell of the sender], [cell of the receiver] */
    bool *has_message[2];               /* [cell of the receiver] */
} found_times;

static size_t cell_of(const found_times *t, int s, int m)
{
    return (size_t)s * (size_t)t->plan->microbatch_count + (size_t)m;
}

static void find_times(found_times *t)
{
    size_t cells = (size_t)t->plan->stage_count * (size_t)t->plan->microbatch_count;

    assert_ok(mhp_calloc(&t->forward_end, cells, sizeof(double)));
    assert_ok(mhp_calloc(&t->gradient_end, cells, sizeof(double)));
    for (int k = 0; k < 2; k++) {
        assert_ok(mhp_calloc(&t->sent[k], cells, sizeof(mhp_span)));
        assert_ok(mhp_calloc(&t->received[k], cells, sizeof(mhp_span)));
        assert_ok(mhp_calloc(&t->has_message[k], cells, sizeof(bool)));
    }
    for (int r = 0; r < t->plan->rank_count; r++) {
        for (size_t i = 0; i < t->plan->ranks[r].actions.count; i++) {
            const mhp_action *a = &t->plan->ranks[r].actions.items[i];
            mhp_span span = t->simulation->ranks[r].spans[i];
            double i_end = span.start_us + mhp_costs_stage(t->costs, a->stage)->input_gradient_us;
            size_t cell = a->microbatch >= 0 ? cell_of(t, a->stage, a->microbatch) : 0;

            switch (a->kind) {
            case MHP_ACTION_FORWARD:
                t->forward_end[cell] = span.end_us;
                break;
            case MHP_ACTION_INPUT_GRADIENT:
                t->gradient_end[cell] = span.end_us;
                break;
            case MHP_ACTION_BACKWARD:
                t->gradient_end[cell] = t->early ? i_end : span.end_us;
                break;
            case MHP_ACTION_OVERLAP_F_B:
                t->forward_end[cell] = span.end_us;
                t->gradient_end[cell_of(t, a->backward_stage, a->backward_microbatch)] = span.end_us;
                break;
            case MHP_ACTION_SEND_F:
                t->sent[0][cell] = span;
                break;
            case MHP_ACTION_SEND_B:
                t->sent[1][cell] = span;
                break;
            case MHP_ACTION_RECV_F:
                t->received[0][cell] = span;
                t->has_message[0][cell] = true;
                break;
            case MHP_ACTION_RECV_B:
                t->received[1][cell] = span;
                t->has_message[1][cell] = true;
                break;
            default:
                break;
            }
        }
    }
}

static void forget_times(found_times *t)
{
    mhp_free(t->forward_end);
    mhp_free(t->gradient_end);
    for (int k = 0; k < 2; k++) {
        mhp_free(t->sent[k]);
        mhp_free(t->received[k]);
        mhp_free(t->has_message[k]);
    }
}

static int stage_before(int k, int s)
{
    return k == 0 ? s - 1 : s + 1;
}

static double produced(const found_times *t, int k, int s, int m)
{
    return (k == 0 ? t->forward_end : t->gradient_end)[cell_of(t, stage_before(k, s), m)];
}

/* When the message into (s, m) could set off. */
static double ready(const found_times *t, int k, int s, int m)
{
    return fmax(produced(t, k, s, m), t->received[k][cell_of(t, s, m)].start_us);
}

/* Of the micro-batches whose slot of this class the rank uses before `position`, the last; by a walk over its list. */
static int user_before(const found_times *t, int rank, size_t position, mhp_slot_class class_, int s, int m)
{
    const mhp_stage_slots *slots = mhp_plan_stage_slots(t->plan, rank, s);
    int k = class_ == MHP_SLOT_INPUT || class_ == MHP_SLOT_OUTPUT ? 0 : 1;
    bool output = class_ == MHP_SLOT_OUTPUT || class_ == MHP_SLOT_GRADIENT_OUTPUT;
    int found = -1;

    for (size_t i = 0; i < position; i++) {
        const mhp_action *a = &t->plan->ranks[rank].actions.items[i];
        mhp_action_kind receive = k == 0 ? MHP_ACTION_RECV_F : MHP_ACTION_RECV_B;
        int maker = output ? s : stage_before(k, s); /* whose F or I fills the slot */
        int other = -1;

        if (!output && a->kind == receive && a->stage == s) {
            other = a->microbatch;
        } else if (a->kind == MHP_ACTION_OVERLAP_F_B && (k == 0 ? a->stage : a->backward_stage) == maker) {
            other = k == 0 ? a->microbatch : a->backward_microbatch;
        } else if (a->stage == maker &&
                   (k == 0 ? a->kind == MHP_ACTION_FORWARD
                           : a->kind == MHP_ACTION_BACKWARD || a->kind == MHP_ACTION_INPUT_GRADIENT)) {
            other = a->microbatch;
        }
        if (other >= 0 && other != m && slots->slot[class_][other] == slots->slot[class_][m]) {
            found = other;
        }
    }
    return found;
}

/* The soonest that an input and a free slot allow; `without` is that with messages that take no time. */
static void limits(const found_times *t, int rank, size_t position, int k, int s, int m, double *at, double *without)
{
    int source = stage_before(k, s), target = k == 0 ? s + 1 : s - 1;
    bool crosses = target >= 0 && target < t->plan->stage_count && t->has_message[k][cell_of(t, target, m)];

    if (k == 1) {
        *at = fmax(*at, t->forward_end[cell_of(t, s, m)]);
    }
    if (source >= 0 && source < t->plan->stage_count) {
        bool message = t->has_message[k][cell_of(t, s, m)];

        *at = fmax(*at, message ? t->received[k][cell_of(t, s, m)].end_us : produced(t, k, s, m));
        *without = fmax(*without, message ? ready(t, k, s, m) : produced(t, k, s, m));
    }
    if (crosses) {
        int before = user_before(t, rank, position, k == 0 ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT, s, m);

        if (before >= 0) {
            *at = fmax(*at, t->sent[k][cell_of(t, s, before)].end_us);
            *without = fmax(*without, ready(t, k, target, before));
        }
    }
}

static void check_rank(const found_times *t, int rank)
{
    const mhp_rank_simulation *out = &t->simulation->ranks[rank];
    double free_at = 0, busy = t->simulation->optimizer_us, exposed = 0;

    for (size_t i = 0; i < t->plan->ranks[rank].actions.count; i++) {
        const mhp_action *a = &t->plan->ranks[rank].actions.items[i];
        double at = free_at, without = free_at;

        if (!mhp_action_takes_time(a)) {
            continue;
        }
        if (a->kind == MHP_ACTION_FORWARD || a->kind == MHP_ACTION_OVERLAP_F_B) {
            limits(t, rank, i, 0, a->stage, a->microbatch, &at, &without);
        }
        if (a->kind == MHP_ACTION_BACKWARD || a->kind == MHP_ACTION_INPUT_GRADIENT) {
            limits(t, rank, i, 1, a->stage, a->microbatch, &at, &without);
        }
        if (a->kind == MHP_ACTION_OVERLAP_F_B) {
            limits(t, rank, i, 1, a->backward_stage, a->backward_microbatch, &at, &without);
        }
        assert_true(out->spans[i].start_us == at);
        assert_true(out->spans[i].end_us == at + mhp_action_us(t->costs, a));
        exposed += at - without;
        busy += mhp_action_us(t->costs, a);
        free_at = out->spans[i].end_us;
    }
    assert_true(fabs(out->exposed_us - exposed) < 1e-9);
    assert_true(fabs(out->busy_us - busy) < 1e-9);
    assert_true(fabs(out->bubble_us + busy - t->simulation->makespan_us) < 1e-9);
}

/* A receive is posted when the one before it in its channel is, and its slot is free; and no later. */
static void check_posts(const found_times *t, int rank)
{
    for (size_t i = 0; i < t->plan->ranks[rank].actions.count; i++) {
        const mhp_action *a = &t->plan->ranks[rank].actions.items[i];
        int k = a->kind == MHP_ACTION_RECV_B;
        double posted = 0;
        int user;

        if (a->kind != MHP_ACTION_RECV_F && a->kind != MHP_ACTION_RECV_B) {
            continue;
        }
        for (size_t j = 0; j < i; j++) {
            const mhp_action *b = &t->plan->ranks[rank].actions.items[j];

            if (b->kind == a->kind && b->stage == a->stage &&
                mhp_plan_owner(t->plan, stage_before(k, a->stage), b->microbatch) ==
                    mhp_plan_owner(t->plan, stage_before(k, a->stage), a->microbatch)) {
                posted = fmax(posted, t->simulation->ranks[rank].spans[j].start_us);
            }
        }
        user = user_before(t, rank, i, k ? MHP_SLOT_GRADIENT_INPUT : MHP_SLOT_INPUT, a->stage, a->microbatch);
        posted = user >= 0 ? fmax(posted, t->gradient_end[cell_of(t, a->stage, user)]) : posted;
        assert_true(t->simulation->ranks[rank].spans[i].start_us == posted);
    }
}

typedef struct moved {
    double ready, start, end;
} moved;

static int compare_moved(const void *left, const void *right)
{
    const moved *a = left, *b = right;

    return a->start != b->start ? (a->start < b->start ? -1 : 1) : (a->ready > b->ready) - (a->ready < b->ready);
}

/* First come, first served, and never idle while somebody waits. */
static void check_link(const found_times *t, int from, int to, const mhp_link_time *time)
{
    moved *list = NULL;
    size_t count = 0;
    double free_at = 0;

    assert_ok(mhp_calloc(&list, 2 * (size_t)t->plan->stage_count * (size_t)t->plan->microbatch_count, sizeof *list));
    for (int k = 0; k < 2; k++) {
        for (int s = 0; s < t->plan->stage_count; s++) {
            for (int m = 0; m < t->plan->microbatch_count; m++) {
                if (t->has_message[k][cell_of(t, s, m)] && mhp_plan_owner(t->plan, s, m) == to &&
                    mhp_plan_owner(t->plan, stage_before(k, s), m) == from) {
                    mhp_span sent = t->sent[k][cell_of(t, stage_before(k, s), m)];

                    assert_true(sent.end_us == t->received[k][cell_of(t, s, m)].end_us);
                    list[count++] = (moved){ready(t, k, s, m), sent.start_us, sent.end_us};
                }
            }
        }
    }
    qsort(list, count, sizeof *list, compare_moved);
    for (size_t i = 0; i < count; i++) {
        assert_true(i == 0 || list[i].ready >= list[i - 1].ready);
        assert_true(list[i].start == fmax(list[i].ready, free_at));
        free_at = list[i].start + time->busy_us;
        assert_true(list[i].end == free_at + time->latency_us);
    }
    mhp_free(list);
}

static void check_path(const found_times *t)
{
    const mhp_simulation *out = t->simulation;
    double at = 0;

    assert_true(out->path_count > 0);
    for (size_t i = 0; i < out->path_count; i++) {
        const mhp_path_step *step = &out->path[i];

        assert_true(step->start_us == at);
        assert_true(step->end_us > step->start_us);
        at = step->end_us;
        if (step->kind == MHP_PATH_COMPUTE || step->kind == MHP_PATH_REDUCE) {
            assert_true(out->ranks[step->rank].spans[step->position].start_us == step->start_us);
            assert_true(out->ranks[step->rank].spans[step->position].end_us >= step->end_us);
        } else if (step->kind == MHP_PATH_MESSAGE) {
            mhp_action_kind kind = t->plan->ranks[step->rank].actions.items[step->position].kind;

            assert_true(kind == MHP_ACTION_SEND_F || kind == MHP_ACTION_SEND_B);
            assert_true(out->ranks[step->rank].spans[step->position].start_us == step->start_us);
        }
    }
    assert_true(at == out->makespan_us);
}

static void check_rules(const mhp_plan *plan, const mhp_costs *costs, bool early)
{
    mhp_simulation simulation;
    mhp_link_time *times = NULL;
    found_times t = {.plan = plan, .costs = costs, .simulation = &simulation, .early = early};
    double bound_us;

    simulate(plan, costs, early, &simulation);
    find_times(&t);
    assert_ok(mhp_costs_link_times(costs, plan->rank_count, &times));
    for (int r = 0; r < plan->rank_count; r++) {
        check_rank(&t, r);
        check_posts(&t, r);
        for (int to = 0; to < plan->rank_count; to++) {
            check_link(&t, r, to, &times[r * plan->rank_count + to]);
        }
    }
    check_path(&t);
    assert_ok(mhp_lower_bound(plan, costs, &bound_us));
    assert_true(bound_us <= simulation.makespan_us * (1 + 1e-12));
    mhp_free(times);
    forget_times(&t);
    mhp_simulation_release(&simulation);
}

/* As it is, with rebuilds, or with weight gradients as early as they may be. */
static const mhp_lower_params lowerings[] = {
    {false, MHP_WEIGHTS_DEEP}, {true, MHP_WEIGHTS_DEEP}, {false, MHP_WEIGHTS_SHALLOW}};

enum { LOWERINGS = sizeof lowerings / sizeof *lowerings };

static void test_the_rules_hold_for_named_schedules(void **state)
{
    dice d = {.seed = 5};

    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        for (int p = 2; p <= 6; p += 2) {
            for (int i = 0; i < 6; i++) {
                mhp_plan *plan = generate(mhp_generator_at(g)->name, p, (2 + i / 2) * p);
                mhp_costs costs;

                lower_plan(plan, &lowerings[i % LOWERINGS]);
                random_costs(&d, p, plan->stage_count, &costs);
                check_rules(plan, &costs, i % 2);
                mhp_costs_release(&costs);
                mhp_plan_destroy(plan);
            }
        }
    }
}

static void test_the_rules_hold_for_random_plans(void **state)
{
    dice d = {.seed = 11};

    (void)state;
    for (int i = 0; i < 300; i++) {
        mhp_plan *plan = random_order((uint64_t)i, 4);
        mhp_costs costs;

        lower_plan(plan, &lowerings[i % LOWERINGS]);
        random_costs(&d, plan->rank_count, plan->stage_count, &costs);
        check_rules(plan, &costs, i % 2);
        mhp_costs_release(&costs);
        mhp_plan_destroy(plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rules_hold_for_named_schedules),
        cmocka_unit_test(test_the_rules_hold_for_random_plans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
