/* summary.json: what energy comes to for a step, a token, a run and the climate; null with a reason where it is not known. */
#include <jansson.h>
#include <math.h>

#include "runtime/summary.h"
#include "tests/unit/runtime/folder.h"

static const mhp_emissions_params no_emissions = {0, 1};

/* 8 steps: 7.2 MJ of cards in steps, 10.8 MJ in all; half of that again for processors. */
static mhp_summary measured(void)
{
    return (mhp_summary){
        .steps = 10, .first_step = 2, .tokens = 4000, .seconds = 100, .loss = 2.5, .held_out_loss = NAN, .best_loss = INFINITY,
        .energy = {.steps = {{3.6e6, 7.2e6}}, .run = {{5.4e6, 10.8e6}}, .step_count = 8},
    };
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-9 * fabs(expected))) {
        fail_msg("%.12g, expected %.12g", found, expected);
    }
}

static void all_is_known(void **state)
{
    const mhp_emissions_params emissions = {400, 1.5};
    mhp_summary summary = measured();

    (void)state;
    mhp_summary_derive(&summary, &emissions);
    assert_near(summary.j_per_step, 10.8e6 / 8);
    assert_near(summary.j_per_token, 2700);
    assert_near(summary.kwh, 4.5);
    assert_near(summary.co2e_g, 4.5 * 1.5 * 400);
}

/* What is readable counts, and says what it is by the other's being null. */
static void cards_alone(void **state)
{
    mhp_summary summary = measured();

    (void)state;
    summary.energy.steps.of[MHP_ENERGY_CPU] = summary.energy.run.of[MHP_ENERGY_CPU] = NAN;
    mhp_summary_derive(&summary, &no_emissions);
    assert_near(summary.j_per_step, 0.9e6);
    assert_near(summary.kwh, 3);
    assert_true(isnan(summary.co2e_g));
}

static void nothing_is_never_0(void **state)
{
    const mhp_emissions_params emissions = {400, 1};
    mhp_summary summary = measured();

    (void)state;
    summary.energy.steps = summary.energy.run = (mhp_joules){{NAN, NAN}};
    mhp_summary_derive(&summary, &emissions);
    assert_true(isnan(summary.j_per_step) && isnan(summary.j_per_token) && isnan(summary.kwh) && isnan(summary.co2e_g));
    summary = measured();       /* a run that was at its end when it was started */
    summary.energy.step_count = 0;
    summary.tokens = 0;
    mhp_summary_derive(&summary, &emissions);
    assert_true(isnan(summary.j_per_step) && isnan(summary.j_per_token) && !isnan(summary.kwh));
}

static void the_file(void **state)
{
    const mhp_emissions_params emissions = {400, 1.5};
    mhp_summary summary = measured();
    json_t *root;
    const json_t *energy;

    (void)state;
    summary.energy.run.of[MHP_ENERGY_CPU] = summary.energy.steps.of[MHP_ENERGY_CPU] = NAN;
    snprintf(summary.energy.reason[MHP_ENERGY_CPU], sizeof summary.energy.reason[0], "rank 3: \"x\": Permission denied");
    mhp_summary_derive(&summary, &emissions);
    assert_ok(mhp_summary_write(&summary, &emissions, test_folder));
    root = json_load_file(test_path("summary.json"), 0, NULL);
    assert_non_null(root);
    energy = json_object_get(root, "energy");
    assert_int_equal(json_integer_value(json_object_get(root, "steps")), 10);
    assert_int_equal(json_integer_value(json_object_get(root, "first_step")), 2);
    assert_true(json_is_null(json_object_get(root, "held_out_loss")) && json_is_null(json_object_get(root, "best_held_out_loss")));
    assert_true(json_is_null(json_object_get(energy, "cpu_j")));
    assert_string_equal(json_string_value(json_object_get(energy, "cpu_reason")), "rank 3: \"x\": Permission denied");
    assert_null(json_object_get(energy, "gpu_reason"));
    assert_near(json_real_value(json_object_get(energy, "gpu_j")), 10.8e6);
    assert_near(json_real_value(json_object_get(energy, "kwh")), 3);
    assert_near(json_real_value(json_object_get(energy, "co2e_g")), 1800);
    json_decref(root);
}

static void no_folder(void **state)
{
    mhp_summary summary = measured();

    (void)state;
    assert_error(mhp_summary_write(&summary, &no_emissions, test_path("nowhere")), MHP_ERR_IO, "nowhere/summary.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_known), cmocka_unit_test(cards_alone), cmocka_unit_test(nothing_is_never_0),
        TEST_IN_FOLDER(the_file),       TEST_IN_FOLDER(no_folder),
    };

    return cmocka_run_group_tests_name("summary", tests, NULL, NULL);
}
