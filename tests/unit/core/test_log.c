/* Log lines: who gets them, who does not, and that calls never overlap. */
#include "tests/unit/core/support.h"

#include <errno.h>
#include <pthread.h>

#include "core/log.h"

typedef struct collected {
    int count;
    bool inside, overlapped;
    mhp_log_level level;
    char text[MHP_LOG_TEXT_MAX];
} collected;

static void collect(void *context, mhp_log_level level, const char *text)
{
    collected *lines = context;

    lines->overlapped |= lines->inside;
    lines->inside = true;
    lines->count++;
    lines->level = level;
    strcpy(lines->text, text);
    errno = ENOSPC;
    lines->inside = false;
}

static int drop_sink(void **state)
{
    (void)state;
    mhp_log_set_sink(NULL, NULL, MHP_LOG_DEBUG);
    return 0;
}

static void test_levels(void **state)
{
    collected lines = {0};

    (void)state;
    mhp_log_set_sink(collect, &lines, MHP_LOG_WARN);
    assert_true(mhp_log_enabled(MHP_LOG_ERROR));
    assert_true(mhp_log_enabled(MHP_LOG_WARN));
    assert_false(mhp_log_enabled(MHP_LOG_INFO));
    mhp_log_info("dropped");
    assert_int_equal(lines.count, 0);
    mhp_log_warn("step %d of %s", 3, "run");
    assert_int_equal(lines.count, 1);
    assert_int_equal(lines.level, MHP_LOG_WARN);
    assert_string_equal(lines.text, "step 3 of run");
    mhp_log_error("bad");
    assert_int_equal(lines.level, MHP_LOG_ERROR);
    mhp_log_debug("dropped");
    assert_int_equal(lines.count, 2);
    assert_string_equal(mhp_log_level_text(MHP_LOG_ERROR), "error");
    assert_string_equal(mhp_log_level_text(MHP_LOG_WARN), "warn");
    assert_string_equal(mhp_log_level_text(MHP_LOG_INFO), "info");
    assert_string_equal(mhp_log_level_text(MHP_LOG_DEBUG), "debug");
}

static void test_no_sink(void **state)
{
    collected before = {0}, after = {0};

    (void)state;
    assert_false(mhp_log_enabled(MHP_LOG_ERROR));
    mhp_log_error("to nobody");
    mhp_log_set_sink(collect, &before, MHP_LOG_DEBUG);
    mhp_log_set_sink(collect, &after, MHP_LOG_DEBUG);
    mhp_log_debug("to the second");
    assert_int_equal(before.count, 0);
    assert_int_equal(after.count, 1);
    mhp_log_set_sink(NULL, NULL, MHP_LOG_DEBUG);
    mhp_log_error("to nobody");
    assert_false(mhp_log_enabled(MHP_LOG_ERROR));
    assert_int_equal(after.count, 1);
}

static void test_what_stays(void **state)
{
    collected lines = {0};

    (void)state;
    mhp_log_set_sink(collect, &lines, MHP_LOG_INFO);
    mhp_error_set(MHP_ERR_IO, "the error");
    errno = EINTR;
    mhp_log_info("about %s", mhp_error_text());
    assert_int_equal(errno, EINTR);
    assert_string_equal(mhp_error_text(), "the error");
    assert_string_equal(lines.text, "about the error");
}

static void test_long_lines_are_cut(void **state)
{
    collected lines = {0};

    (void)state;
    mhp_log_set_sink(collect, &lines, MHP_LOG_INFO);
    mhp_log_info("%*s", 2 * MHP_LOG_TEXT_MAX, "x");
    assert_int_equal(strlen(lines.text), MHP_LOG_TEXT_MAX - 1);
}

enum { THREADS = 4, LINES = 500 };

static void *log_lines(void *unused)
{
    for (int i = 0; i < LINES; i++) {
        mhp_log_info("line %d", i);
    }
    return unused;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];
    collected lines = {0};

    (void)state;
    mhp_log_set_sink(collect, &lines, MHP_LOG_INFO);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    mhp_log_set_sink(NULL, NULL, MHP_LOG_INFO);
    assert_int_equal(lines.count, THREADS * LINES);
    assert_false(lines.overlapped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_levels, drop_sink),
        cmocka_unit_test_teardown(test_no_sink, drop_sink),
        cmocka_unit_test_teardown(test_what_stays, drop_sink),
        cmocka_unit_test_teardown(test_long_lines_are_cut, drop_sink),
        cmocka_unit_test_teardown(test_threads, drop_sink),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
