/* The simulator: published bubbles, small plans by hand, and the rules that determine every time, checked one by one on random plans. */
#include "tests/unit/scheduler/plans.h"

#include <math.h>

#include "scheduler/bound.h"
#include "scheduler/csv.h"
#include "scheduler/simulate.h"

static void simulate(const mhp_plan *plan, const mhp_costs *costs, bool early, mhp_simulation *out)
{
    assert_ok(mhp_simulate(plan, &(mhp_simulate_params){.costs = costs, .early_gradient = early}, out));
}

static void read_costs(const char *text, mhp_costs *costs)
{
    assert_ok(mhp_costs_parse("c.yaml", text, strlen(text), costs));
}

static mhp_plan *read_plan(const char *text)
{
    mhp_plan *plan = NULL;

    assert_ok(mhp_plan_parse_csv("p.csv", text, strlen(text), &plan));
    assert_ok(mhp_plan_lower(plan, NULL));
    return plan;
}

static size_t position_of(const mhp_plan *plan, int rank, const char *text)
{
    char found[96];

    for (size_t i = 0; i < plan->ranks[rank].actions.count; i++) {
        mhp_action_format(&plan->ranks[rank].actions.items[i], found, sizeof found);
        if (strcmp(found, text) == 0) {
            return i;
        }
    }
    fail_msg("rank %d has no %s", rank, text);
    return 0;
}

static void assert_span(const mhp_plan *plan, const mhp_simulation *simulation, int rank, const char *text, double start, double end)
{
    mhp_span span = simulation->ranks[rank].spans[position_of(plan, rank, text)];

    if (fabs(span.start_us - start) > 1e-9 || fabs(span.end_us - end) > 1e-9) {
        fail_msg("rank %d, %s ran from %g to %g: expected %g to %g", rank, text, span.start_us, span.end_us, start, end);
    }
}

/* ---- published bubbles ---- */

/* In units of F = I = W = `unit`; worst rank, lowered and not. */
static void assert_bubble(const char *name, int ranks, int microbatches, double unit, double expected)
{
    mhp_costs costs;
    mhp_plan *plan = generate(name, ranks, microbatches);

    assert_ok(mhp_costs_default(&costs));
    *(mhp_stage_costs *)costs.stages.items = (mhp_stage_costs){.forward_us = unit, .input_gradient_us = unit, .weight_gradient_us = unit};
    for (int pass = 0; pass < 2; pass++) {
        mhp_simulation simulation;
        double worst;

        simulate(plan, &costs, false, &simulation);
        worst = mhp_simulation_worst_bubble(&simulation) * simulation.makespan_us;
        if (fabs(worst - expected * unit) > 1e-9 * unit * ranks * microbatches) {
            fail_msg("%s, %d ranks, %d micro-batches: bubble %g, expected %g", name, ranks, microbatches, worst / unit, expected);
        }
        for (int r = 0; r < ranks; r++) {
            assert_true(simulation.ranks[r].exposed_us == 0);
        }
        mhp_simulation_release(&simulation);
        assert_ok(pass == 0 ? mhp_plan_lower(plan, NULL) : MHP_OK);
    }
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

static void test_bubbles_equal_the_formulas(void **state)
{
    (void)state;
    for (int p = 1; p <= 16; p++) {
        for (int m = 1; m <= 3 * p; m += p > 8 ? 5 : 1) {
            assert_bubble("gpipe", p, m, 1, 3.0 * (p - 1));
            assert_bubble("1f1b", p, m, 1, 3.0 * (p - 1));
        }
        for (int m = p; m <= 3 * p; m += p > 8 ? 5 : 1) {
            assert_bubble("zb-h1", p, m, 1, p - 1.0);
        }
        for (int rounds = 1; rounds <= 3; rounds++) {
            assert_bubble("interleaved", p, rounds * p, 1, 3.0 * (p - 1));      /* in F of one of two chunks */
        }
        for (int m = 2 * p; m <= 4 * p; m += p > 8 ? 5 : 1) {
            assert_bubble("zb-v", p, m, 1, p - 1.0);    /* in front of the last rank's first action; none behind it */
        }
        for (int m = 2 * p; m <= 4 * p + 2; m += 2) {
            if (p % 2 == 0) {
                assert_bubble("dualpipe", p, m, 1, 2.0 * (p / 2 - 1));
            }
            assert_bubble("dualpipev", p, m, 1, 2.0 * (p - 1));
            assert_bubble("dualpipev", p, m + 1, 1, 2.0 * (p - 1));
        }
    }
    assert_bubble("1f1b", 8, 16, 137.25, 21);
    assert_bubble("dualpipe", 8, 20, 0.375, 6);
}

static void assert_share(const char *name, int ranks, int microbatches, double per_cent)
{
    mhp_costs costs;
    mhp_plan *plan = lowered(name, ranks, microbatches);
    mhp_simulation simulation;

    assert_ok(mhp_costs_default(&costs));
    simulate(plan, &costs, false, &simulation);
    assert_true(fabs(100 * mhp_simulation_worst_bubble(&simulation) - per_cent) < 0.05 + 1e-9);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

static void test_bubbles_in_per_cent_as_published(void **state)
{
    static const struct { int microbatches; double dualpipe, one_f_one_b; } rows[] = {{16, 11.1, 30.4}, {32, 5.9, 17.9}, {64, 3.0, 9.9}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_share("dualpipe", 8, rows[i].microbatches, rows[i].dualpipe);
        assert_share("1f1b", 8, rows[i].microbatches, rows[i].one_f_one_b);
    }
}

/* Activations as docs/schedules.md gives them, and the depth of the W queue: k + 1. */
static void test_what_ranks_keep(void **state)
{
    mhp_costs costs;

    (void)state;
    assert_ok(mhp_costs_default(&costs));
    for (int p = 2; p <= 12; p += 2) {
        mhp_plan *plans[] = {lowered("gpipe", p, 3 * p), lowered("1f1b", p, 3 * p), lowered("dualpipe", p, 4 * p), lowered("dualpipev", p, 4 * p)};
        mhp_simulation simulations[4];

        for (int i = 0; i < 4; i++) {
            simulate(plans[i], &costs, false, &simulations[i]);
        }
        for (int r = 0; r < p; r++) {
            int k = r < p - 1 - r ? r : p - 1 - r;

            assert_int_equal(simulations[0].ranks[r].activations_peak, 3 * p);
            assert_int_equal(simulations[1].ranks[r].activations_peak, p - r);
            assert_int_equal(simulations[2].ranks[r].activations_peak, p + 1);
            assert_int_equal(simulations[3].ranks[r].activations_peak, 2 * p + 1);
            assert_int_equal(simulations[0].ranks[r].held_peak, 0);
            assert_int_equal(simulations[2].ranks[r].held_peak, k + 1);
            assert_int_equal(simulations[3].ranks[r].held_peak, r + 1);
        }
        for (int i = 0; i < 4; i++) {
            mhp_simulation_release(&simulations[i]);
            mhp_plan_destroy(plans[i]);
        }
    }
    mhp_costs_release(&costs);
}

/* ---- by hand ---- */

#define UNEVEN \
    "stages: [{forward_us: 2, input_gradient_us: 3, weight_gradient_us: 1}, {forward_us: 4, input_gradient_us: 5, weight_gradient_us: 6}]\n"

/* A message of 2000 bytes takes 2 at 1 GB/s, and 1 of latency. */
static void test_two_ranks_by_hand(void **state)
{
    mhp_costs costs;
    mhp_plan *plan = lowered("1f1b", 2, 2);
    mhp_simulation late, early;
    double bound_us;

    (void)state;
    read_costs(UNEVEN "links: [{default: true, bandwidth_gb_s: 1, latency_us: 1}]\nmessage_bytes: 2000\nall_reduce_us: 10\noptimizer_us: 7\n",
               &costs);
    simulate(plan, &costs, false, &late);
    assert_span(plan, &late, 0, "0F0", 0, 2);
    assert_span(plan, &late, 0, "0SEND_F0", 2, 5);
    assert_span(plan, &late, 1, "1F0", 5, 9);
    assert_span(plan, &late, 0, "0F1", 2, 4);
    assert_span(plan, &late, 0, "0SEND_F1", 4, 7);
    assert_span(plan, &late, 1, "1B0", 9, 20);
    assert_span(plan, &late, 1, "1SEND_B0", 20, 23);
    assert_span(plan, &late, 0, "0B0", 23, 27);
    assert_span(plan, &late, 1, "1F1", 20, 24);
    assert_span(plan, &late, 1, "1B1", 24, 35);
    assert_span(plan, &late, 1, "1REDUCE_GRAD", 35, 45);
    assert_span(plan, &late, 0, "0B1", 38, 42);
    assert_span(plan, &late, 0, "0REDUCE_GRAD", 42, 52);
    assert_true(late.makespan_us == 59);
    assert_true(late.reduce_exposed_us == 10);
    assert_true(late.ranks[0].busy_us == 12 + 7 && late.ranks[0].bubble_us == 40);
    assert_true(late.ranks[1].busy_us == 30 + 7);
    assert_true(late.ranks[0].exposed_us == 6 && late.ranks[1].exposed_us == 3);
    assert_int_equal(late.ranks[0].message_count, 2);
    assert_int_equal(late.ranks[0].message_bytes, 4000);
    simulate(plan, &costs, true, &early);           /* I of stage 1 ends 6 before its B */
    assert_span(plan, &early, 1, "1SEND_B0", 14, 17);
    assert_span(plan, &early, 0, "0B0", 17, 21);
    assert_span(plan, &early, 1, "1SEND_B1", 29, 32);
    assert_span(plan, &early, 0, "0REDUCE_GRAD", 36, 46);
    assert_true(early.makespan_us == 53);
    assert_ok(mhp_lower_bound(plan, &costs, &bound_us));
    assert_true(bound_us == 5 + 30 + 10 + 7);       /* the second rank's work, behind the first forward and message */
    mhp_simulation_release(&late);
    mhp_simulation_release(&early);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

/* Two messages made at once share a link: the second waits for the first one's bytes, not for its latency. */
static void test_messages_of_a_link_queue(void **state)
{
    mhp_costs costs;
    mhp_plan *plan = read_plan("0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n");
    mhp_simulation simulation;

    (void)state;
    read_costs("stages: [{forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1}]\n"
               "links: [{from: 0, to: 1, bandwidth_gb_s: 1, latency_us: 10}]\nmessage_bytes: 3000\n", &costs);
    simulate(plan, &costs, false, &simulation);
    assert_span(plan, &simulation, 0, "0SEND_F0", 1, 14);
    assert_span(plan, &simulation, 0, "0SEND_F1", 4, 17);
    assert_span(plan, &simulation, 1, "1F1", 17, 18);
    assert_span(plan, &simulation, 1, "1SEND_B0", 20, 20);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

/* Two output slots: the third forward waits until the first message has left. */
static void test_compute_waits_for_a_free_slot(void **state)
{
    mhp_costs costs;
    mhp_plan *plan = lowered("gpipe", 2, 4);
    mhp_simulation simulation;

    (void)state;
    read_costs("stages: [{forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1}]\nlinks: [{default: true, latency_us: 10}]\n", &costs);
    simulate(plan, &costs, false, &simulation);
    assert_span(plan, &simulation, 0, "0F0", 0, 1);
    assert_span(plan, &simulation, 0, "0F1", 1, 2);
    assert_span(plan, &simulation, 0, "0F2", 11, 12);
    assert_span(plan, &simulation, 0, "0F3", 12, 13);
    assert_true(simulation.ranks[0].exposed_us >= 9);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

static void test_memory_by_hand(void **state)
{
    mhp_costs costs;
    mhp_plan *plan = read_plan("0F0,0F1,0I0,0I1,0W0,0W1\n");
    mhp_plan *rebuilds = read_plan("0F0,0F1,0R0,0I0,0W0,0R1,0I1,0W1\n");
    mhp_simulation simulation;

    (void)state;
    read_costs("stages: [{forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1, rebuild_us: 0.5,\n"
               "  bytes: {weights: 1000, activation: 100, held_weight_gradient: 10}}]\n", &costs);
    simulate(plan, &costs, false, &simulation);
    assert_int_equal(simulation.ranks[0].bytes_base, 1000);
    assert_int_equal(simulation.ranks[0].bytes_peak, 1000 + 200 + 10);
    assert_int_equal(simulation.ranks[0].activations_peak, 2);
    assert_int_equal(simulation.ranks[0].held_peak, 2);
    assert_int_equal(mhp_simulation_peak_bytes(&simulation), 1210);
    mhp_simulation_release(&simulation);
    simulate(rebuilds, &costs, false, &simulation);
    assert_int_equal(simulation.ranks[0].bytes_peak, 1000 + 100 + 10);
    assert_int_equal(simulation.ranks[0].activations_peak, 1);
    assert_span(rebuilds, &simulation, 0, "0R0", 2, 2.5);
    assert_true(simulation.makespan_us == 7);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
    mhp_plan_destroy(rebuilds);
}

/* ---- the rules, one by one ---- */

/* Where things stand and ended, found again without the simulator's help. */
typedef struct found_times {
    const mhp_plan *plan;
    const mhp_costs *costs;
    const mhp_simulation *simulation;
    bool early;
    double *forward_end, *gradient_end;         /* [cell] */
    mhp_span *sent[2], *received[2];            /* [cell of the sender], [cell of the receiver] */
    bool *has_message[2];                       /* [cell of the receiver] */
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
            case MHP_ACTION_FORWARD: t->forward_end[cell] = span.end_us; break;
            case MHP_ACTION_INPUT_GRADIENT: t->gradient_end[cell] = span.end_us; break;
            case MHP_ACTION_BACKWARD: t->gradient_end[cell] = t->early ? i_end : span.end_us; break;
            case MHP_ACTION_OVERLAP_F_B:
                t->forward_end[cell] = span.end_us;
                t->gradient_end[cell_of(t, a->backward_stage, a->backward_microbatch)] = span.end_us;
                break;
            case MHP_ACTION_SEND_F: t->sent[0][cell] = span; break;
            case MHP_ACTION_SEND_B: t->sent[1][cell] = span; break;
            case MHP_ACTION_RECV_F: t->received[0][cell] = span; t->has_message[0][cell] = true; break;
            case MHP_ACTION_RECV_B: t->received[1][cell] = span; t->has_message[1][cell] = true; break;
            default: break;
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
        int maker = output ? s : stage_before(k, s);         /* whose F or I fills the slot */
        int other = -1;

        if (!output && a->kind == receive && a->stage == s) {
            other = a->microbatch;
        } else if (a->kind == MHP_ACTION_OVERLAP_F_B && (k == 0 ? a->stage : a->backward_stage) == maker) {
            other = k == 0 ? a->microbatch : a->backward_microbatch;
        } else if (a->stage == maker && (k == 0 ? a->kind == MHP_ACTION_FORWARD
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
static const mhp_lower_params lowerings[] = {{false, MHP_WEIGHTS_DEEP}, {true, MHP_WEIGHTS_DEEP}, {false, MHP_WEIGHTS_SHALLOW}};

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

/* Without messages that take time and limits of slots the order alone counts: lowering changes nothing. */
static void test_a_plan_without_messages_runs_as_with_free_ones(void **state)
{
    dice d = {.seed = 3};

    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        mhp_plan *plan = generate(mhp_generator_at(g)->name, 4, 12);
        mhp_costs costs;
        mhp_simulation before, after;

        random_costs(&d, 4, plan->stage_count, &costs);
        costs.links.count = 0;
        costs.all_reduce_us = 0;
        simulate(plan, &costs, true, &before);
        assert_ok(mhp_plan_lower(plan, NULL));
        simulate(plan, &costs, true, &after);
        assert_true(before.makespan_us == after.makespan_us);
        mhp_simulation_release(&before);
        mhp_simulation_release(&after);
        mhp_costs_release(&costs);
        mhp_plan_destroy(plan);
    }
}

static void test_forward_only(void **state)
{
    mhp_costs costs;
    mhp_plan *plan = lowered("1f1b", 4, 8), *forward = NULL;
    mhp_simulation simulation;
    double bound_us;

    (void)state;
    read_costs("stages: [{forward_us: 2, input_gradient_us: 1, weight_gradient_us: 1, bytes: {activation: 5}}]\noptimizer_us: 100\n", &costs);
    assert_ok(mhp_schedule_forward_only(plan, 8, &forward));
    assert_ok(mhp_plan_lower(forward, NULL));
    simulate(forward, &costs, false, &simulation);
    assert_true(simulation.makespan_us == 2 * (8 + 3));
    assert_int_equal(simulation.ranks[0].bytes_peak - simulation.ranks[0].bytes_base, 5);
    assert_ok(mhp_lower_bound(forward, &costs, &bound_us));
    assert_true(bound_us == simulation.makespan_us);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
    mhp_plan_destroy(forward);
}

static void test_errors(void **state)
{
    static const char text[] = "1F0,0F1\n1F1,0F0\n";
    mhp_plan *plan = NULL;
    mhp_costs costs;
    mhp_simulation simulation;

    (void)state;
    assert_ok(mhp_plan_parse_csv("some.csv", text, strlen(text), &plan));
    assert_ok(mhp_costs_default(&costs));
    assert_failed(mhp_simulate(plan, &(mhp_simulate_params){.costs = &costs}, &simulation), MHP_ERR_PLAN, "rank 0", "position 0", NULL);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    read_costs(UNEVEN, &costs);
    mhp_plan_destroy(plan);
    plan = lowered("gpipe", 3, 2);
    assert_failed(mhp_simulate(plan, &(mhp_simulate_params){.costs = &costs}, &simulation), MHP_ERR_CONFIG, "2 entries", "3 stages", NULL);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bubbles_equal_the_formulas),
        cmocka_unit_test(test_bubbles_in_per_cent_as_published),
        cmocka_unit_test(test_what_ranks_keep),
        cmocka_unit_test(test_two_ranks_by_hand),
        cmocka_unit_test(test_messages_of_a_link_queue),
        cmocka_unit_test(test_compute_waits_for_a_free_slot),
        cmocka_unit_test(test_memory_by_hand),
        cmocka_unit_test(test_the_rules_hold_for_named_schedules),
        cmocka_unit_test(test_the_rules_hold_for_random_plans),
        cmocka_unit_test(test_a_plan_without_messages_runs_as_with_free_ones),
        cmocka_unit_test(test_forward_only),
        cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
