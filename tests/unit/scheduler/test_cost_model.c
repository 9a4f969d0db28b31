/* Costs of other cuts: totals are kept, ends stay at the ends, the same cut gives the same costs. */
#include "tests/unit/scheduler/plans.h"

#include <math.h>

#include "scheduler/cost_model.h"

static mhp_costs costs_of(int stages, const mhp_stage_costs *items)
{
    mhp_costs costs;
    mhp_stage_costs *list = NULL;

    assert_ok(mhp_costs_default(&costs));
    assert_ok(mhp_costs_create_stages(&costs, (size_t)stages, &list));
    memcpy(list, items, (size_t)stages * sizeof *items);
    return costs;
}

static double total_us(const mhp_costs *costs, int stages)
{
    double sum_us = 0;

    for (int s = 0; s < stages; s++) {
        sum_us += mhp_stage_work_us(mhp_costs_stage(costs, s));
    }
    return sum_us;
}

static void assert_near(double found, double expected)
{
    if (fabs(found - expected) > 1e-9 * (1 + fabs(expected))) {
        fail_msg("%.17g, expected %.17g", found, expected);
    }
}

/* Four stages of two layers: an embedding of 1 in front, a head of 8 behind. */
static const mhp_stage_costs ends[4] = {{3, 3, 3, .bytes = {.activation = 20}},
                                        {2, 2, 2, .bytes = {.activation = 20}},
                                        {2, 2, 2, .bytes = {.activation = 20}},
                                        {10, 10, 10, .bytes = {.activation = 60}}};

static void test_ends_stay_at_the_ends(void **state)
{
    static const double even[4] = {2, 2, 2, 2}, other[4] = {3, 2, 2, 1}, two[2] = {7, 1};
    mhp_costs costs = costs_of(4, ends), cut;
    mhp_cost_model *model = NULL;

    (void)state;
    assert_ok(mhp_cost_model_create(&costs, even, 4, &model));
    assert_ok(mhp_cost_model_cut(model, other, 4, &cut));
    assert_near(mhp_costs_stage(&cut, 0)->forward_us, 4);
    assert_near(mhp_costs_stage(&cut, 1)->forward_us, 2);
    assert_near(mhp_costs_stage(&cut, 3)->forward_us, 9);
    assert_int_equal(mhp_costs_stage(&cut, 3)->bytes.activation, 50);
    assert_int_equal(mhp_costs_stage(&cut, 0)->bytes.activation, 30);
    mhp_costs_release(&cut);
    assert_ok(mhp_cost_model_cut(model, two, 2, &cut));
    assert_near(mhp_costs_stage(&cut, 0)->weight_gradient_us, 8);
    assert_near(mhp_costs_stage(&cut, 1)->weight_gradient_us, 9);
    mhp_costs_release(&cut);
    mhp_cost_model_destroy(model);
    mhp_costs_release(&costs);
}

/* A first stage on a slower card is not an embedding: what the costs tell of the ends counts, for times. */
static void test_ends_that_are_told(void **state)
{
    static const double even[4] = {2, 2, 2, 2}, other[4] = {1, 3, 3, 1};
    static const mhp_stage_costs told[4] = {{5, 5, 5, .ends = {1, 1, 0}, .bytes = {.activation = 24}, .pair_us = 7.5},
                                            {2, 2, 2, .bytes = {.activation = 20}},
                                            {2, 2, 2, .bytes = {.activation = 20}},
                                            {10, 10, 10, .ends = {6, 4, 2}, .bytes = {.activation = 60}}};
    mhp_costs costs = costs_of(4, told), cut, again;
    mhp_cost_model *model = NULL;

    (void)state;
    assert_ok(mhp_cost_model_create(&costs, even, 4, &model));
    assert_ok(mhp_cost_model_cut(model, other, 4, &cut));
    assert_near(mhp_costs_stage(&cut, 0)->forward_us, 1 + 2);           /* the end, and one of two layers of 2 */
    assert_near(mhp_costs_stage(&cut, 0)->weight_gradient_us, 2.5);
    assert_near(mhp_costs_stage(&cut, 0)->pair_us, (3 + 3 + 2.5) / 2);
    assert_int_equal(mhp_costs_stage(&cut, 0)->bytes.activation, 14);
    assert_near(mhp_costs_stage(&cut, 1)->forward_us, 2 + 2);           /* of the first stage's layers, and its own */
    assert_near(mhp_costs_stage(&cut, 3)->forward_us, 6 + 2);
    assert_near(mhp_costs_stage(&cut, 3)->input_gradient_us, 4 + 3);
    assert_near(total_us(&cut, 4), total_us(&costs, 4));
    assert_near(mhp_costs_stage(&cut, 0)->ends.input_gradient_us, 1);
    assert_near(mhp_costs_stage(&cut, 3)->ends.forward_us, 6);
    mhp_cost_model_destroy(model);
    assert_ok(mhp_cost_model_create(&cut, other, 4, &model));           /* a cut of the cut knows them still */
    assert_ok(mhp_cost_model_cut(model, even, 4, &again));
    assert_near(mhp_costs_stage(&again, 0)->weight_gradient_us, 2.5 + 4.0 / 3 + 0.5 / 3);
    assert_near(mhp_costs_stage(&again, 3)->forward_us, 6 + 2 + 4.0 / 3);
    mhp_costs_release(&again);
    mhp_costs_release(&cut);
    mhp_cost_model_destroy(model);
    mhp_costs_release(&costs);
}

/* Two cards, one slower: what is put into the middle costs the mean of both. */
static void test_layers_of_two_stages(void **state)
{
    static const double two[2] = {4, 4}, more[2] = {6, 6};
    static const mhp_stage_costs told[2] = {{10, 10, 10, .ends = {2, 2, 2}}, {18, 18, 18, .ends = {6, 6, 6}}};
    mhp_costs costs = costs_of(2, told), cut;
    mhp_cost_model *model = NULL;

    (void)state;
    assert_ok(mhp_cost_model_create(&costs, two, 2, &model));
    assert_ok(mhp_cost_model_deepen(model, 4));
    assert_ok(mhp_cost_model_cut(model, more, 2, &cut));
    assert_near(mhp_costs_stage(&cut, 0)->forward_us, 2 + 4 * 2 + 2 * 2.5);
    assert_near(mhp_costs_stage(&cut, 1)->forward_us, 6 + 4 * 3 + 2 * 2.5);
    assert_near(mhp_costs_stage(&cut, 0)->ends.forward_us, 2);
    mhp_costs_release(&cut);
    mhp_cost_model_destroy(model);
    mhp_costs_release(&costs);
}

static void test_totals_are_kept(void **state)
{
    dice d = {.seed = 9};

    (void)state;
    for (int i = 0; i < 200; i++) {
        int stages = 1 + (int)roll(&d, 9), others = 1 + (int)roll(&d, 16);
        mhp_costs costs, cut, same;
        mhp_cost_model *model = NULL;
        double layers[9];

        random_costs(&d, 2, stages, &costs);
        for (int s = 0; s < stages; s++) {
            layers[s] = 1 + (int)roll(&d, 4);
        }
        assert_ok(mhp_cost_model_create(&costs, layers, stages, &model));
        assert_ok(mhp_cost_model_cut_evenly(model, others, &cut));
        assert_near(total_us(&cut, others), total_us(&costs, stages));
        assert_int_equal(cut.links.count, costs.links.count);
        assert_ok(mhp_cost_model_cut(model, layers, stages, &same));
        assert_memory_equal(same.stages.items, costs.stages.items, (size_t)stages * sizeof(mhp_stage_costs));
        mhp_costs_release(&same);
        mhp_costs_release(&cut);
        mhp_costs_release(&costs);
        mhp_cost_model_destroy(model);
    }
}

static void test_a_single_entry_is_even(void **state)
{
    static const mhp_stage_costs one[1] = {{4, 6, 2, .pair_us = 9}};
    static const double layers[2] = {3, 3};
    mhp_costs costs = costs_of(1, one), cut;
    mhp_cost_model *model = NULL;

    (void)state;
    assert_ok(mhp_cost_model_create(&costs, layers, 2, &model));
    assert_ok(mhp_cost_model_cut_evenly(model, 4, &cut));
    for (int s = 0; s < 4; s++) {
        assert_near(mhp_costs_stage(&cut, s)->forward_us, 2);
        assert_near(mhp_costs_stage(&cut, s)->pair_us, 4.5);
    }
    mhp_costs_release(&cut);
    mhp_cost_model_destroy(model);
    mhp_costs_release(&costs);
}

/* Eight layers more between the ends: each stage of the even cut is as it was. */
static void test_more_layers_come_into_the_middle(void **state)
{
    static const double even[4] = {2, 2, 2, 2}, other[3] = {1, 14, 1};
    mhp_costs costs = costs_of(4, ends), cut;
    mhp_cost_model *model = NULL;

    (void)state;
    assert_ok(mhp_cost_model_create(&costs, even, 4, &model));
    assert_ok(mhp_cost_model_deepen(model, 8));
    assert_ok(mhp_cost_model_cut_evenly(model, 8, &cut));
    for (int s = 0; s < 8; s++) {
        assert_near(mhp_costs_stage(&cut, s)->input_gradient_us, s == 0 ? 3 : s == 7 ? 10 : 2);
        assert_int_equal(mhp_costs_stage(&cut, s)->bytes.activation, s == 7 ? 60 : 20);
    }
    mhp_costs_release(&cut);
    assert_ok(mhp_cost_model_cut_evenly(model, 4, &cut)); /* as many stages as before, and longer */
    assert_near(mhp_costs_stage(&cut, 0)->forward_us, 5);
    assert_near(mhp_costs_stage(&cut, 1)->forward_us, 4);
    assert_near(mhp_costs_stage(&cut, 3)->forward_us, 12);
    mhp_costs_release(&cut);
    assert_ok(mhp_cost_model_cut(model, other, 3, &cut));
    assert_near(mhp_costs_stage(&cut, 1)->forward_us, 14);
    mhp_costs_release(&cut);
    mhp_cost_model_destroy(model);
    mhp_costs_release(&costs);
}

/* Slots are as large as any of the layers' own stages. */
static void test_more_layers_keep_slots(void **state)
{
    static const mhp_stage_costs two[2] = {{1, 1, 1, .bytes = {.slot = 7}}, {5, 5, 5, .bytes = {.slot = 9}}};
    static const double layers[2] = {1, 1};
    mhp_costs costs = costs_of(2, two), cut;
    mhp_cost_model *model = NULL;

    (void)state;
    assert_ok(mhp_cost_model_create(&costs, layers, 2, &model));
    assert_ok(mhp_cost_model_deepen(model, 2));
    assert_ok(mhp_cost_model_cut_evenly(model, 4, &cut));
    assert_near(mhp_costs_stage(&cut, 1)->forward_us, 1);
    assert_near(mhp_costs_stage(&cut, 3)->forward_us, 5);
    assert_int_equal(mhp_costs_stage(&cut, 0)->bytes.slot, 7);
    assert_int_equal(mhp_costs_stage(&cut, 1)->bytes.slot, 9);
    assert_int_equal(mhp_costs_stage(&cut, 3)->bytes.slot, 9);
    mhp_costs_release(&cut);
    mhp_cost_model_destroy(model);
    assert_ok(mhp_cost_model_create(&costs, layers, 1, &model));
    assert_int_equal(mhp_cost_model_deepen(model, 1), MHP_ERR_CONFIG);
    mhp_cost_model_destroy(model);
    mhp_costs_release(&costs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends_stay_at_the_ends),
        cmocka_unit_test(test_ends_that_are_told),
        cmocka_unit_test(test_layers_of_two_stages),
        cmocka_unit_test(test_totals_are_kept),
        cmocka_unit_test(test_a_single_entry_is_even),
        cmocka_unit_test(test_more_layers_come_into_the_middle),
        cmocka_unit_test(test_more_layers_keep_slots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
