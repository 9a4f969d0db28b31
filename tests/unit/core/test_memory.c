/* Memory that is zeroed, checked and counted. */
#include "tests/unit/core/support.h"

#include "core/memory.h"

static void calloc_is_zeroed_and_checked(void **state)
{
    unsigned char *bytes = NULL;

    (void)state;
    assert_ok(mhp_calloc(&bytes, 1000, 3));
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(bytes[i], 0);
    }
    mhp_free(bytes);
    assert_ok(mhp_calloc(&bytes, 0, 8));
    assert_non_null(bytes);
    mhp_free(bytes);
    assert_ok(mhp_calloc(&bytes, 8, 0));
    assert_non_null(bytes);
    mhp_free(bytes);
    mhp_free(NULL);
}

static void pages_are_zeroed_and_aligned(void **state)
{
    static const size_t sizes[] = {0, 1, MHP_PAGE_BYTES, (2 << 20) - 1, 2 << 20, (5 << 20) + 3};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *bytes = NULL;
        size_t sum = 0;

        assert_ok(mhp_calloc_pages(&bytes, sizes[i]));
        assert_int_equal((uintptr_t)bytes % MHP_PAGE_BYTES, 0);
        for (size_t at = 0; at < sizes[i]; at++) {
            sum += bytes[at];
        }
        assert_int_equal(sum, 0);
        mhp_free(bytes);
    }
}

static void realloc_keeps_contents(void **state)
{
    int *numbers = NULL;

    (void)state;
    assert_ok(mhp_realloc(&numbers, 4, sizeof *numbers));
    for (int i = 0; i < 4; i++) {
        numbers[i] = i + 1;
    }
    assert_ok(mhp_realloc(&numbers, 5000, sizeof *numbers));
    assert_int_equal(numbers[0], 1);
    assert_int_equal(numbers[3], 4);
    assert_ok(mhp_realloc(&numbers, 2, sizeof *numbers));
    assert_int_equal(numbers[1], 2);
    assert_ok(mhp_realloc(&numbers, 0, sizeof *numbers));
    assert_non_null(numbers);
    mhp_free(numbers);
}

static void test_overflow(void **state)
{
    int number = 7;
    int *pointer = &number;

    (void)state;
    assert_failed(mhp_calloc(&pointer, SIZE_MAX, 2), MHP_ERR_NO_MEMORY, "18446744073709551615",
                  "2 bytes", NULL);
    assert_failed(mhp_realloc(&pointer, SIZE_MAX / 4 + 1, 4), MHP_ERR_NO_MEMORY, "4 bytes", NULL);
    assert_failed(mhp_calloc_pages(&pointer, SIZE_MAX), MHP_ERR_NO_MEMORY, "18446744073709551615",
                  NULL);
    assert_failed(mhp_calloc_pages(&pointer, PTRDIFF_MAX), MHP_ERR_NO_MEMORY, NULL);
    assert_ptr_equal(pointer, &number);
    assert_int_equal(number, 7);
}

static void test_strings(void **state)
{
    char *text = NULL;

    (void)state;
    assert_ok(mhp_strdup(&text, "copied"));
    assert_string_equal(text, "copied");
    mhp_free(text);
    assert_ok(mhp_strdup(&text, ""));
    assert_string_equal(text, "");
    mhp_free(text);
    assert_ok(mhp_asprintf(&text, "%s-%05d", "rank", 12));
    assert_string_equal(text, "rank-00012");
    mhp_free(text);
    assert_ok(mhp_asprintf(&text, "%*s", 10000, "x"));
    assert_int_equal(strlen(text), 10000);
    mhp_free(text);
}

static void test_count(void **state)
{
    uint64_t before = mhp_allocation_count();
    char *texts[3] = {NULL};

    (void)state;
    assert_ok(mhp_calloc(&texts[0], 1, 1));
    assert_ok(mhp_realloc(&texts[0], 2, 1));
    assert_ok(mhp_strdup(&texts[1], "x"));
    assert_ok(mhp_asprintf(&texts[2], "y"));
    assert_int_equal(mhp_allocation_count() - before, 4);
    for (int i = 0; i < 3; i++) {
        mhp_free(texts[i]);
    }
    assert_int_equal(mhp_allocation_count() - before, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calloc_is_zeroed_and_checked),
        cmocka_unit_test(pages_are_zeroed_and_aligned),
        cmocka_unit_test(realloc_keeps_contents),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
