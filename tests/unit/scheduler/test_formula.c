/* The papers' bubbles: the worst rank's of the simulator where F = I = W, and every letter with times of its own. */
#include "tests/unit/scheduler/plans.h"

#include <math.h>

#include "scheduler/formula.h"
#include "scheduler/simulate.h"

static double formula_us(const char *name, const mhp_plan *plan, const mhp_costs *costs)
{
    double bubble_us = -1;

    assert_true(mhp_formula_bubble(name, plan, costs, &bubble_us));
    return bubble_us;
}

static void assert_as_simulated(const char *name, int ranks, int microbatches)
{
    mhp_costs costs;
    mhp_simulation simulation;
    mhp_plan *plan = generate(name, ranks, microbatches);
    mhp_simulate_params params = {.costs = &costs};

    assert_ok(mhp_costs_default(&costs));
    assert_ok(mhp_simulate(plan, &params, &simulation));
    assert_true(fabs(mhp_simulation_worst_bubble(&simulation) * simulation.makespan_us - formula_us(name, plan, &costs)) < 1e-6);
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

static void test_units_are_as_simulated(void **state)
{
    (void)state;
    for (int p = 2; p <= 8; p += 2) {
        assert_as_simulated("gpipe", p, 2 * p);
        assert_as_simulated("1f1b", p, 2 * p);
        assert_as_simulated("interleaved", p, 2 * p);
        assert_as_simulated("zb-h1", p, 2 * p);
        assert_as_simulated("dualpipe", p, 2 * p);
        assert_as_simulated("dualpipev", p, 2 * p);
    }
}

/* F 3, I 5, W 4, so B 9; the pair 10. */
static void test_each_letter_counts(void **state)
{
    static const struct {
        const char *name;
        double bubble_us;
    } cases[] = {{"gpipe", 3 * 12}, {"1f1b", 3 * 12}, {"interleaved", 3 * 12}, {"zb-h1", 3 * (12 - 8)}, {"zb-v", 0},
                 {"dualpipe", 1 * (10 + 9 - 12)}, {"dualpipev", 3 * (10 + 9 - 12)}};
    mhp_costs costs;

    (void)state;
    assert_ok(mhp_costs_default(&costs));
    *(mhp_stage_costs *)costs.stages.items =
        (mhp_stage_costs){.forward_us = 3, .input_gradient_us = 5, .weight_gradient_us = 4, .pair_us = 10};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mhp_plan *plan = generate(cases[i].name, 4, 8);

        assert_true(fabs(formula_us(cases[i].name, plan, &costs) - cases[i].bubble_us) < 1e-9);
        mhp_plan_destroy(plan);
    }
    mhp_costs_release(&costs);
}

static void test_rebuilding_is_part_of_the_backward(void **state)
{
    mhp_lower_params lower = {.rebuild = true};
    mhp_plan *plan = generate("1f1b", 4, 8);
    mhp_costs costs;

    (void)state;
    assert_ok(mhp_costs_default(&costs));
    ((mhp_stage_costs *)costs.stages.items)->rebuild_us = 0.5;
    assert_ok(mhp_plan_lower(plan, &lower));
    assert_true(fabs(formula_us("1f1b", plan, &costs) - 3 * 3.5) < 1e-9);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

static void test_other_schedules_have_none(void **state)
{
    mhp_plan *plan = generate("1f1b", 2, 4);
    mhp_costs costs;
    double bubble_us;

    (void)state;
    assert_ok(mhp_costs_default(&costs));
    assert_false(mhp_formula_bubble("custom", plan, &costs, &bubble_us));
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units_are_as_simulated),
        cmocka_unit_test(test_each_letter_counts),
        cmocka_unit_test(test_rebuilding_is_part_of_the_backward),
        cmocka_unit_test(test_other_schedules_have_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
