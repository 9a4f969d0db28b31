/* Which sublayers each stage gets. */
#include "runtime/partition.h"
#include "tests/unit/runtime/folder.h"

enum { STAGES = 4 };

/* Lengths in layers. */
static void assert_lengths(const mhp_stage_extent *extents, const double *lengths, int count)
{
    double first = 0;

    for (int s = 0; s < count; s++) {
        assert_true(extents[s].first_sublayer == 2 * first);
        assert_true(extents[s].sublayer_count == 2 * lengths[s]);
        assert_true(mhp_stage_layers(&extents[s]) == lengths[s]);
        assert_int_equal(extents[s].first, s == 0);
        assert_int_equal(extents[s].last, s == count - 1);
        first += lengths[s];
    }
}

static void even_parts_are_equal(void **state)
{
    mhp_stage_extent extents[STAGES];

    (void)state;
    assert_ok(mhp_partition_layers(8, STAGES, NULL, extents));
    assert_lengths(extents, (double[]){2, 2, 2, 2}, STAGES);
    assert_ok(mhp_partition_layers(5, 1, NULL, extents));
    assert_lengths(extents, (double[]){5}, 1);
}

static void longer_stages_come_first(void **state)
{
    mhp_stage_extent extents[STAGES];
    mhp_float_list empty = {NULL, 0};

    (void)state;
    assert_ok(mhp_partition_layers(7, STAGES, NULL, extents));
    assert_lengths(extents, (double[]){2, 2, 2, 1}, STAGES);
    assert_ok(mhp_partition_layers(5, STAGES, &empty, extents));
    assert_lengths(extents, (double[]){2, 1, 1, 1}, STAGES);
}

static void given_lengths_are_taken(void **state)
{
    mhp_stage_extent extents[STAGES];
    double lengths[] = {1, 3, 3, 1};
    mhp_float_list given = {lengths, STAGES};

    (void)state;
    assert_ok(mhp_partition_layers(8, STAGES, &given, extents));
    assert_lengths(extents, (double[]){1, 3, 3, 1}, STAGES);
}

static void layers_may_be_halved(void **state)
{
    mhp_stage_extent extents[STAGES];
    double lengths[] = {0.5, 2, 1.5, 3};
    double short_lengths[] = {0.5, 0.5, 0.5, 0.5};
    double quarters[] = {0.5, 2.25, 1.25, 3};
    mhp_float_list given = {lengths, STAGES};

    (void)state;
    assert_ok(mhp_partition_layers(7, STAGES, &given, extents));
    assert_lengths(extents, (double[]){0.5, 2, 1.5, 3}, STAGES);
    given.items = short_lengths;                /* more stages than layers */
    assert_ok(mhp_partition_layers(2, STAGES, &given, extents));
    assert_lengths(extents, short_lengths, STAGES);
    given.items = quarters;
    assert_error(mhp_partition_layers(7, STAGES, &given, extents), MHP_ERR_CONFIG, "stage 1 2.25 layers");
}

static void wrong_lengths_are_refused(void **state)
{
    mhp_stage_extent extents[STAGES];
    double lengths[] = {1, 3, 3, 1};
    double empty_stage[] = {0, 4, 3, 1};
    double negative[] = {9, -3, 1, 1};
    mhp_float_list given = {lengths, STAGES};
    mhp_float_list few = {lengths, 3};

    (void)state;
    assert_error(mhp_partition_layers(7, STAGES, &few, extents), MHP_ERR_CONFIG, "3 entries");
    assert_error(mhp_partition_layers(9, STAGES, &given, extents), MHP_ERR_CONFIG, "8 layers");
    given.items = empty_stage;
    assert_error(mhp_partition_layers(8, STAGES, &given, extents), MHP_ERR_CONFIG, "a multiple of 0.5");
    given.items = negative;
    assert_error(mhp_partition_layers(8, STAGES, &given, extents), MHP_ERR_CONFIG, "a multiple of 0.5");
}

static void more_stages_than_layers_are_refused(void **state)
{
    mhp_stage_extent extents[STAGES];

    (void)state;
    assert_error(mhp_partition_layers(3, STAGES, NULL, extents), MHP_ERR_CONFIG, "4 stages");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_parts_are_equal),
        cmocka_unit_test(longer_stages_come_first),
        cmocka_unit_test(given_lengths_are_taken),
        cmocka_unit_test(layers_may_be_halved),
        cmocka_unit_test(wrong_lengths_are_refused),
        cmocka_unit_test(more_stages_than_layers_are_refused),
    };

    return cmocka_run_group_tests_name("partition", tests, NULL, NULL);
}
