/* The learning rate by its formulas: warm-up, cosine, steps. */
#include <math.h>

#include "runtime/optimizer.h"
#include "tests/unit/runtime/folder.h"

#define TOLERANCE 1e-15

static void warm_up_is_linear(void **state)
{
    mhp_optimizer_params params = {.lr = 0.8, .warmup_steps = 4, .decay = MHP_DECAY_CONSTANT};

    (void)state;
    for (int step = 0; step < 4; step++) {
        assert_true(fabs(mhp_learning_rate(&params, 10, step) - 0.2 * (step + 1)) < TOLERANCE);
    }
    for (int step = 4; step < 10; step++) {
        assert_true(mhp_learning_rate(&params, 10, step) == 0.8);
    }
    params.warmup_steps = 0;
    assert_true(mhp_learning_rate(&params, 10, 0) == 0.8);
}

static void cosine_falls_to_its_least(void **state)
{
    mhp_optimizer_params params = {
        .lr = 2, .warmup_steps = 10, .decay = MHP_DECAY_COSINE, .min_lr_ratio = 0.1};
    double before = INFINITY;

    (void)state;
    assert_true(mhp_learning_rate(&params, 110, 10) == 2);
    assert_true(fabs(mhp_learning_rate(&params, 110, 60) - 2 * 0.55) < TOLERANCE);
    for (int step = 10; step <= 110; step++) {
        double cosine = cos(acos(-1.0) * (step - 10) / 100.0);
        double rate = mhp_learning_rate(&params, 110, step);

        assert_true(fabs(rate - 2 * (0.1 + 0.9 * (1 + cosine) / 2)) < 1e-14);
        assert_true(rate < before);
        before = rate;
    }
    assert_true(fabs(mhp_learning_rate(&params, 110, 110) - 0.2) < TOLERANCE);
    assert_true(fabs(mhp_learning_rate(&params, 110, 500) - 0.2) < TOLERANCE);
}

static void warm_up_longer_than_the_run(void **state)
{
    mhp_optimizer_params params = {
        .lr = 1, .warmup_steps = 20, .decay = MHP_DECAY_COSINE, .min_lr_ratio = 0.25};

    (void)state;
    assert_true(fabs(mhp_learning_rate(&params, 10, 9) - 0.5) < TOLERANCE);
    assert_true(fabs(mhp_learning_rate(&params, 10, 20) - 0.25) < TOLERANCE);
}

static void steps_take_their_factors(void **state)
{
    double at[] = {0.5, 0.75}, factor[] = {0.5, 0.125};
    mhp_optimizer_params params = {.lr = 4,
                                   .decay = MHP_DECAY_STEP,
                                   .step_at = {at, 2},
                                   .step_factor = {factor, 2}};

    (void)state;
    assert_true(mhp_learning_rate(&params, 100, 0) == 4);
    assert_true(mhp_learning_rate(&params, 100, 49) == 4);
    assert_true(mhp_learning_rate(&params, 100, 50) == 2);
    assert_true(mhp_learning_rate(&params, 100, 74) == 2);
    assert_true(mhp_learning_rate(&params, 100, 75) == 0.5);
    assert_true(mhp_learning_rate(&params, 100, 99) == 0.5);
    params.step_at.count = params.step_factor.count = 0;
    assert_true(mhp_learning_rate(&params, 100, 99) == 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_is_linear),
        cmocka_unit_test(cosine_falls_to_its_least),
        cmocka_unit_test(warm_up_longer_than_the_run),
        cmocka_unit_test(steps_take_their_factors),
    };

    return cmocka_run_group_tests_name("learning_rate", tests, NULL, NULL);
}
