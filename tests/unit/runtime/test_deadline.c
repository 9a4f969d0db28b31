/* When something is slow, and when it is over. */
#include "runtime/deadline.h"
#include "tests/unit/runtime/folder.h"

static void a_section_warns_once_then_expires(void **state)
{
    mhp_deadline deadline = mhp_deadline_of_section(600, 0);

    (void)state;
    assert_int_equal(mhp_deadline_check(&deadline, 299.9), MHP_VERDICT_FINE);
    assert_int_equal(mhp_deadline_check(&deadline, 300), MHP_VERDICT_SLOW);
    assert_int_equal(mhp_deadline_check(&deadline, 301), MHP_VERDICT_FINE);
    assert_int_equal(mhp_deadline_check(&deadline, 599.9), MHP_VERDICT_FINE);
    assert_int_equal(mhp_deadline_check(&deadline, 600), MHP_VERDICT_EXPIRED);
    assert_int_equal(mhp_deadline_check(&deadline, 700), MHP_VERDICT_EXPIRED);
}

static void what_is_usual_makes_the_warning_earlier(void **state)
{
    (void)state;
    assert_true(mhp_deadline_of_section(600, 3).slow_s == 30);
    assert_true(mhp_deadline_of_section(600, 0.01).slow_s == 10);
    assert_true(mhp_deadline_of_section(600, 100).slow_s == 300);
    assert_true(mhp_deadline_of_section(4, 0.01).slow_s == 2);
    assert_true(mhp_deadline_of_section(0, 2).slow_s == 20);
}

static void no_limit_never_expires(void **state)
{
    mhp_deadline deadline = mhp_deadline_of_section(0, 0);

    (void)state;
    assert_int_equal(mhp_deadline_check(&deadline, 1e9), MHP_VERDICT_FINE);
}

static void a_silence_that_ended_may_be_reported_again(void **state)
{
    mhp_deadline deadline = mhp_deadline_of_silence(60);

    (void)state;
    assert_int_equal(mhp_deadline_check(&deadline, 14.9), MHP_VERDICT_FINE);
    assert_int_equal(mhp_deadline_check(&deadline, 15), MHP_VERDICT_SLOW);
    assert_int_equal(mhp_deadline_check(&deadline, 16), MHP_VERDICT_FINE);
    assert_int_equal(mhp_deadline_check(&deadline, 0.1), MHP_VERDICT_FINE);
    assert_int_equal(mhp_deadline_check(&deadline, 15), MHP_VERDICT_SLOW);
    assert_int_equal(mhp_deadline_check(&deadline, 60), MHP_VERDICT_EXPIRED);
}

static void a_typical_time_follows_the_latest(void **state)
{
    double mean_s = mhp_typical_time(0, 4);

    (void)state;
    assert_true(mean_s == 4);
    for (int i = 0; i < 50; i++) {
        mean_s = mhp_typical_time(mean_s, 2);
    }
    assert_true(mean_s > 2 && mean_s < 2.001);
}

static void a_save_fits_behind_the_rest_of_the_step(void **state)
{
    (void)state;
    assert_true(mhp_save_fits(2, 1, 0.5, 1.5));
    assert_false(mhp_save_fits(2, 1, 0.4, 1.5));
    assert_true(mhp_save_fits(2, 1, 5, 2));          /* the step is late already: it may end any moment */
    assert_true(mhp_save_fits(2, 0, 0, 0));
    assert_false(mhp_save_fits(-0.1, 0, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_section_warns_once_then_expires),
        cmocka_unit_test(what_is_usual_makes_the_warning_earlier),
        cmocka_unit_test(no_limit_never_expires),
        cmocka_unit_test(a_silence_that_ended_may_be_reported_again),
        cmocka_unit_test(a_typical_time_follows_the_latest),
        cmocka_unit_test(a_save_fits_behind_the_rest_of_the_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
