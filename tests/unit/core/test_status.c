/* Status codes and the error text of a thread. */
#include "tests/unit/core/support.h"

#include <pthread.h>

#include "core/status.h"

static void test_texts(void **state)
{
#define CHECK(name, value, text)                                                                   \
    assert_int_equal(name, value);                                                                 \
    assert_string_equal(mhp_status_text(name), text);
    (void)state;
    MHP_STATUS_LIST(CHECK)
#undef CHECK
    assert_string_equal(mhp_status_text((mhp_status)-99), "unknown status");
}

static void test_set_and_prefix(void **state)
{
    (void)state;
    assert_int_equal(mhp_error_set(MHP_ERR_IO, "cannot %s", "read"), MHP_ERR_IO);
    assert_string_equal(mhp_error_text(), "cannot read");
    assert_int_equal(mhp_error_prefix(MHP_ERR_IO, "stage %d: ", 3), MHP_ERR_IO);
    assert_int_equal(mhp_error_prefix(MHP_ERR_IO, "rank %d: ", 1), MHP_ERR_IO);
    assert_string_equal(mhp_error_text(), "rank 1: stage 3: cannot read");
    assert_int_equal(mhp_error_prefix(MHP_OK, "x: "), MHP_OK);
    assert_int_equal(mhp_error_prefix(MHP_IN_PROGRESS, "x: "), MHP_IN_PROGRESS);
    assert_string_equal(mhp_error_text(), "rank 1: stage 3: cannot read");
}

static void test_text_as_its_own_argument(void **state)
{
    (void)state;
    mhp_error_set(MHP_ERR_IO, "inner");
    mhp_error_set(MHP_ERR_IO, "%s and %s", mhp_error_text(), mhp_error_text());
    assert_string_equal(mhp_error_text(), "inner and inner");
    mhp_error_prefix(MHP_ERR_IO, "[%s] ", mhp_error_text());
    assert_string_equal(mhp_error_text(), "[inner and inner] inner and inner");
}

static void test_long_texts_are_cut(void **state)
{
    char text[2 * MHP_ERROR_TEXT_MAX];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    mhp_error_set(MHP_ERR_IO, "%s", text);
    assert_int_equal(strlen(mhp_error_text()), MHP_ERROR_TEXT_MAX - 1);
    mhp_error_prefix(MHP_ERR_IO, "front: ");
    assert_int_equal(strlen(mhp_error_text()), MHP_ERROR_TEXT_MAX - 1);
    assert_memory_equal(mhp_error_text(), "front: xxx", 10);
    mhp_error_prefix(MHP_ERR_IO, "%s", text);
    assert_int_equal(strlen(mhp_error_text()), MHP_ERROR_TEXT_MAX - 1);
}

static void *other_thread(void *found)
{
    strcpy(found, mhp_error_text());
    mhp_error_set(MHP_ERR_COMM, "of the other");
    return NULL;
}

static void test_text_is_of_the_thread(void **state)
{
    char found[MHP_ERROR_TEXT_MAX] = "untouched";
    pthread_t thread;

    (void)state;
    mhp_error_set(MHP_ERR_IO, "of this one");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, found), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(found, "");
    assert_string_equal(mhp_error_text(), "of this one");
}

static mhp_status with_exit(mhp_status given, int *steps)
{
    mhp_status status = MHP_OK;

    MHP_TRY(out, given);
    ++*steps;
    MHP_RAISE(out, MHP_ERR_PLAN, "step %d", *steps);
out:
    *steps += 10;
    return status;
}

static mhp_status without_exit(mhp_status given)
{
    MHP_RETURN_IF_ERROR(given);
    return MHP_OK;
}

static void test_macros(void **state)
{
    int steps = 0;

    (void)state;
    assert_failed(with_exit(MHP_IN_PROGRESS, &steps), MHP_ERR_PLAN, "step 1", NULL);
    assert_int_equal(steps, 11);
    assert_int_equal(with_exit(MHP_ERR_PEER, &steps), MHP_ERR_PEER);
    assert_int_equal(steps, 21);
    assert_int_equal(without_exit(MHP_ERR_PEER), MHP_ERR_PEER);
    assert_int_equal(without_exit(MHP_IN_PROGRESS), MHP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_set_and_prefix),
        cmocka_unit_test(test_text_as_its_own_argument),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_text_is_of_the_thread),
        cmocka_unit_test(test_macros),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
