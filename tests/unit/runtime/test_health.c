/* Bad steps: each fault is found by the kernel that clips, in its order; the limits; the mean of losses; and an update that is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>

#include "runtime/health.h"

enum { COUNT = 3, TARGETS = 10, ELEMENTS = 5 };

typedef struct sums {
    double squares, judgement[2], loss[COUNT], gain[COUNT][2];
} sums;

static const sums good = {.squares = 9, .loss = {10, 11, 9}, .gain = {{1, 2}, {2, 3}, {3, 4}}};

static mhp_step_fault judge(const mhp_health *health, const sums *step, double clip)
{
    const mhp_kernels *kernels = mhp_kernels_find(MHP_DEVICE_CPU, MHP_DTYPE_F32);
    sums copy = *step;
    mhp_health_sums where = {.loss = copy.loss, .gain = copy.gain[0], .norm = &copy.judgement[0], .count = COUNT, .targets = TARGETS};
    mhp_clip_args args = {.clip = clip, .square_sum = &copy.squares, .norm = &copy.judgement[0], .scale = &copy.judgement[1]};

    args.watch_count = mhp_health_watch(health, &where, args.watches);
    assert_int_equal(kernels->clip(NULL, &args), MHP_OK);
    assert_true(copy.judgement[0] == sqrt(copy.squares) || isnan(copy.squares));
    if (copy.judgement[1] > 0) {
        assert_true(copy.judgement[1] == (clip == 0 ? 1 : clip / (copy.judgement[0] + 1e-6)));
    }
    return mhp_health_judge(copy.judgement[1]);
}

static void what_is_not_finite_is_bad(void **state)
{
    static const double bad[] = {NAN, -NAN, INFINITY};
    const mhp_non_finite_params params = {.policy = MHP_BAD_STEP_SKIP};
    mhp_health health = {.params = &params};

    (void)state;
    assert_int_equal(judge(&health, &good, 0), MHP_STEP_GOOD);
    assert_int_equal(judge(&health, &good, 1), MHP_STEP_GOOD);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sums step = good;

        step.gain[2][1] = bad[i];
        assert_int_equal(judge(&health, &step, 1), MHP_STEP_GAIN_BACKWARD);
        step.gain[1][0] = bad[i];
        assert_int_equal(judge(&health, &step, 1), MHP_STEP_GAIN_FORWARD);
        step.squares = bad[i];
        assert_int_equal(judge(&health, &step, 0), MHP_STEP_GRADIENT_NORM);
        step.loss[1] = bad[i];
        assert_int_equal(judge(&health, &step, 0), MHP_STEP_LOSS);
    }
}

static void limits_are_kept(void **state)
{
    mhp_non_finite_params params = {.max_gradient_norm = 3, .max_gain = 3};
    mhp_health health = {.params = &params};

    (void)state;
    assert_int_equal(judge(&health, &good, 1), MHP_STEP_GOOD);
    params.max_gradient_norm = 2.999;
    assert_int_equal(judge(&health, &good, 1), MHP_STEP_GRADIENT_NORM);
    params = (mhp_non_finite_params){.max_gain = 2.999};
    assert_int_equal(judge(&health, &good, 1), MHP_STEP_GAIN_BACKWARD);
    params.max_gain = 1.999;
    assert_int_equal(judge(&health, &good, 1), MHP_STEP_GAIN_FORWARD);
    params.max_gain = DBL_MAX / 2;      /* times the count it is beyond what a double holds */
    assert_int_equal(judge(&health, &good, 1), MHP_STEP_GOOD);
}

/* The loss of the sums above is 3. */
static void a_loss_is_compared_with_those_before(void **state)
{
    const mhp_non_finite_params params = {.max_loss_ratio = 1.5};
    mhp_health health = {.params = &params};
    sums step = good;

    (void)state;
    step.loss[0] = 1000;
    for (int i = 0; i < 16; i++) {
        assert_int_equal(judge(&health, &step, 1), MHP_STEP_GOOD);
        mhp_health_accept(&health, i % 2 == 0 ? 1 : 3);
    }
    assert_true(fabs(health.loss_mean - 2) < 1e-12);
    assert_int_equal(judge(&health, &good, 1), MHP_STEP_GOOD);
    step = good;
    step.loss[0] += 1e-9;
    assert_int_equal(judge(&health, &step, 1), MHP_STEP_LOSS);
    for (int i = 0; i < 2000; i++) {
        mhp_health_accept(&health, 5);
    }
    assert_true(fabs(health.loss_mean - 5) < 1e-9);
}

static void the_text_names_value_and_limit(void **state)
{
    const mhp_non_finite_params params = {.max_gradient_norm = 3};
    const mhp_health health = {.params = &params};
    char text[128];

    (void)state;
    mhp_health_explain(&health, MHP_STEP_GRADIENT_NORM, 4.5, text, sizeof text);
    assert_string_equal(text, "the gradient norm is 4.5, expected at most 3 (train.non_finite.max_gradient_norm)");
    mhp_health_explain(&health, MHP_STEP_GRADIENT_NORM, INFINITY, text, sizeof text);
    assert_string_equal(text, "the gradient norm is inf, expected a finite number");
    mhp_health_explain(&health, MHP_STEP_GAIN_BACKWARD, INFINITY, text, sizeof text);
    assert_string_equal(text, "the composed gain backward is inf, expected a finite number");
}

static void the_update_is_left_out(void **state)
{
    static const mhp_dtype dtypes[] = {MHP_DTYPE_F32, MHP_DTYPE_F64};

    (void)state;
    for (size_t d = 0; d < 2; d++) {
        const mhp_kernels *kernels = mhp_kernels_find(MHP_DEVICE_CPU, dtypes[d]);
        double scale = -MHP_STEP_GRADIENT_NORM, grad[ELEMENTS], memory[3][ELEMENTS], before[3][ELEMENTS];
        mhp_adamw_args args = {.count = ELEMENTS, .rate = 0.1, .beta1 = 0.9, .beta2 = 0.9, .epsilon = 1e-8, .decay = 0.1, .step = 1,
                               .gradient_scale = &scale, .grad = grad, .parameter = memory[0], .moment1 = memory[1], .moment2 = memory[2]};

        memset(grad, 0x40, sizeof grad);
        memset(memory, 0x41, sizeof memory);
        memcpy(before, memory, sizeof memory);
        assert_int_equal(kernels->adamw(NULL, &args), MHP_OK);
        assert_memory_equal(before, memory, sizeof memory);
        scale = 1;
        assert_int_equal(kernels->adamw(NULL, &args), MHP_OK);
        assert_memory_not_equal(before[0], memory[0], sizeof memory[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_finite_is_bad),  cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(a_loss_is_compared_with_those_before), cmocka_unit_test(the_text_names_value_and_limit),
        cmocka_unit_test(the_update_is_left_out),
    };

    return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
