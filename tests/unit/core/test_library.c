/* Functions of a library found at run time: of this program itself. */
#include "tests/unit/core/support.h"

#include <dlfcn.h>
#include <string.h>

#include "core/library.h"

static void functions_are_filled_in(void **state)
{
    void *program = dlopen(NULL, RTLD_NOW | RTLD_LOCAL);
    size_t (*length)(const char *text) = NULL;
    int (*compare)(const char *a, const char *b) = NULL;
    const mhp_library_symbol symbols[] = {{"strlen", &length}, {"strcmp", &compare}};

    (void)state;
    assert_non_null(program);
    assert_null(mhp_library_bind(program, symbols, 2));
    assert_int_equal(length("four"), 4);
    assert_int_equal(compare("a", "a"), 0);
    dlclose(program);
}

static void the_first_missing_one_is_named(void **state)
{
    void *program = dlopen(NULL, RTLD_NOW | RTLD_LOCAL);
    size_t (*length)(const char *text) = NULL;
    void (*missing)(void) = NULL;
    const mhp_library_symbol symbols[] = {{"strlen", &length}, {"mhp_no_such_1", &missing}, {"mhp_no_such_2", &missing}};

    (void)state;
    assert_string_equal(mhp_library_bind(program, symbols, 3), "mhp_no_such_1");
    assert_non_null(length);
    assert_null(missing);
    dlclose(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_filled_in),
        cmocka_unit_test(the_first_missing_one_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
