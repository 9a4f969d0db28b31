/* Variables that CUDA and NCCL read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/environment.h"

static void assert_becomes(const char *name, const char *before, const char *after)
{
    if (before) {
        setenv(name, before, 1);
    } else {
        unsetenv(name);
    }
    mhp_environment_set();
    assert_string_equal(getenv(name), after);
}

static void what_others_set_stays_unless_it_is_too_little(void **state)
{
    (void)state;
    assert_becomes("CUDA_DEVICE_MAX_CONNECTIONS", NULL, "32");
    assert_becomes("CUDA_DEVICE_MAX_CONNECTIONS", "1", "32");
    assert_becomes("CUDA_DEVICE_MAX_CONNECTIONS", "many", "32");
    assert_becomes("CUDA_DEVICE_MAX_CONNECTIONS", "8", "8");
    assert_becomes("NCCL_NVLS_ENABLE", NULL, "0");
    assert_becomes("NCCL_NVLS_ENABLE", "1", "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_others_set_stays_unless_it_is_too_little)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
