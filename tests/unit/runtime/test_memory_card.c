/* A card with too little memory, for one rank and for several that share it. */
#include "core/device/backend.h"
#include "runtime/memory_table.h"
#include "tests/unit/runtime/folder.h"

enum { MIB = 1 << 20 };

static size_t free_bytes;

static mhp_status give_memory(mhp_device *device, size_t *free_out, size_t *total_out)
{
    (void)device;
    *free_out = free_bytes;
    *total_out = (size_t)1000 * MIB;
    return MHP_OK;
}

static const mhp_device_ops ops = {.memory = give_memory};
static mhp_device card = {.ops = &ops, .kind = MHP_DEVICE_CUDA};

static void what_fits_is_taken(void **state)
{
    mhp_memory_plan plan = {.bytes = (size_t)100 * MIB};

    (void)state;
    free_bytes = (size_t)300 * MIB;
    assert_ok(mhp_memory_check_device(&plan, &card, plan.bytes, 1));
    assert_ok(mhp_memory_check_device(&plan, &card, 3 * plan.bytes, 3));
}

static void ranks_that_share_a_card_are_added_up(void **state)
{
    mhp_memory_plan plan = {.bytes = (size_t)100 * MIB};

    (void)state;
    free_bytes = (size_t)300 * MIB;
    assert_int_equal(mhp_memory_check_device(&plan, &card, 4 * plan.bytes, 4), MHP_ERR_NO_MEMORY);
    assert_non_null(strstr(mhp_error_text(), "needs 400.00 MiB on the card for the 4 ranks that share it, 100.00 MiB for this one"));
    assert_non_null(strstr(mhp_error_text(), "300.00 of its 1000.00 MiB are free"));
    assert_non_null(strstr(mhp_error_text(), "--memory-limit 78643200 "));
}

static void another_jobs_memory_is_named(void **state)
{
    mhp_memory_plan plan = {.bytes = (size_t)100 * MIB};

    (void)state;
    free_bytes = (size_t)50 * MIB;
    assert_int_equal(mhp_memory_check_device(&plan, &card, plan.bytes, 1), MHP_ERR_NO_MEMORY);
    assert_null(strstr(mhp_error_text(), "ranks that share"));
    assert_non_null(strstr(mhp_error_text(), "in use by other processes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_is_taken),
        cmocka_unit_test(ranks_that_share_a_card_are_added_up),
        cmocka_unit_test(another_jobs_memory_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
