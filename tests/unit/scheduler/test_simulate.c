/* The simulator: published bubbles, and small plans by hand. test_simulate_rules.c checks the rules one by one. */
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

static void assert_span(const mhp_plan *plan, const mhp_simulation *simulation, int rank, const char *text,
                        double start, double end)
{
    mhp_span span = simulation->ranks[rank].spans[position_of(plan, rank, text)];

    if (fabs(span.start_us - start) > 1e-9 || fabs(span.end_us - end) > 1e-9) {
        fail_msg("rank %d, %s ran from %g to %g: expected %g to %g", rank, text, span.start_us, span.end_us, start,
                 end);
    }
}

/* ---- published bubbles ---- */

/* In units of F = I = W = `unit`; worst rank, lowered and not. */
static void assert_bubble(const char *name, int ranks, int microbatches, double unit, double expected)
{
    mhp_costs costs;
    mhp_plan *plan = generate(name, ranks, microbatches);

    assert_ok(mhp_costs_default(&costs));
    *(mhp_stage_costs *)costs.stages.items =
        (mhp_stage_costs){.forward_us = unit, .input_gradient_us = unit, .weight_gradient_us = unit};
    for (int pass = 0; pass < 2; pass++) {
        mhp_simulation simulation;
        double worst;

        simulate(plan, &costs, false, &simulation);
        worst = mhp_simulation_worst_bubble(&simulation) * simulation.makespan_us;
        if (fabs(worst - expected * unit) > 1e-9 * unit * ranks * microbatches) {
            fail_msg("%s, %d ranks, %d micro-batches: bubble %g, expected %g", name, ranks, microbatches, worst / unit,
                     expected);
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
            assert_bubble("interleaved", p, rounds * p, 1, 3.0 * (p - 1)); /* in F of one of two chunks */
        }
        for (int m = 2 * p; m <= 4 * p; m += p > 8 ? 5 : 1) {
            assert_bubble("zb-v", p, m, 1, p - 1.0); /* in front of the last rank's first action; none behind it */
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
    static const struct {
        int microbatches;
        double dualpipe, one_f_one_b;
    } rows[] = {{16, 11.1, 30.4}, {32, 5.9, 17.9}, {64, 3.0, 9.9}};

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
        mhp_plan *plans[] = {lowered("gpipe", p, 3 * p), lowered("1f1b", p, 3 * p), lowered("dualpipe", p, 4 * p),
                             lowered("dualpipev", p, 4 * p)};
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

#define UNEVEN                                                                                                         \
    "stages: [{forward_us: 2, input_gradient_us: 3, weight_gradient_us: 1}, {forward_us: 4, input_gradient_us: 5, "    \
    "weight_gradient_us: 6}]\n"

/* A message of 2000 bytes takes 2 at 1 GB/s, and 1 of latency. */
static void test_two_ranks_by_hand(void **state)
{
    mhp_costs costs;
    mhp_plan *plan = lowered("1f1b", 2, 2);
    mhp_simulation late, early;
    double bound_us;

    (void)state;
    read_costs(UNEVEN "links: [{default: true, bandwidth_gb_s: 1, latency_us: 1}]\nmessage_bytes: 2000\nall_reduce_us: "
                      "10\noptimizer_us: 7\n",
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
    simulate(plan, &costs, true, &early); /* I of stage 1 ends 6 before its B */
    assert_span(plan, &early, 1, "1SEND_B0", 14, 17);
    assert_span(plan, &early, 0, "0B0", 17, 21);
    assert_span(plan, &early, 1, "1SEND_B1", 29, 32);
    assert_span(plan, &early, 0, "0REDUCE_GRAD", 36, 46);
    assert_true(early.makespan_us == 53);
    assert_ok(mhp_lower_bound(plan, &costs, &bound_us));
    assert_true(bound_us == 5 + 30 + 10 + 7); /* the second rank's work, behind the first forward and message */
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
               "links: [{from: 0, to: 1, bandwidth_gb_s: 1, latency_us: 10}]\nmessage_bytes: 3000\n",
               &costs);
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
    read_costs("stages: [{forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1}]\nlinks: [{default: true, "
               "latency_us: 10}]\n",
               &costs);
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
               "  bytes: {weights: 1000, activation: 100, held_weight_gradient: 10}}]\n",
               &costs);
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
    ((mhp_stage_costs *)costs.stages.items)[0].bytes.rebuild_keeps = 30;
    simulate(rebuilds, &costs, false, &simulation);
    assert_int_equal(simulation.ranks[0].bytes_peak, 1000 + 100 + 30 + 10);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
    mhp_plan_destroy(rebuilds);
}

/* ---- other plans ---- */

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
    read_costs("stages: [{forward_us: 2, input_gradient_us: 1, weight_gradient_us: 1, bytes: {activation: "
               "5}}]\noptimizer_us: 100\n",
               &costs);
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
    assert_failed(mhp_simulate(plan, &(mhp_simulate_params){.costs = &costs}, &simulation), MHP_ERR_PLAN, "rank 0",
                  "position 0", NULL);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    read_costs(UNEVEN, &costs);
    mhp_plan_destroy(plan);
    plan = lowered("gpipe", 3, 2);
    assert_failed(mhp_simulate(plan, &(mhp_simulate_params){.costs = &costs}, &simulation), MHP_ERR_CONFIG, "2 entries",
                  "3 stages", NULL);
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
        cmocka_unit_test(test_a_plan_without_messages_runs_as_with_free_ones),
        cmocka_unit_test(test_forward_only),
        cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
