/* Random numbers: known values, ranges, moments, and permutations that are ones. */
#include "tests/unit/core/support.h"

#include <math.h>

#include "core/random.h"

/* Philox4x32-10 as its authors publish it: kat_vectors of Random123. The counter is index and
 * stream, the key is the seed. */
static void test_known_answers(void **state)
{
    static const struct {
        uint64_t seed, stream, index;
        uint32_t expected[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mhp_u32x4 drawn = mhp_random_u32x4(cases[i].seed, cases[i].stream, cases[i].index);

        assert_memory_equal(drawn.values, cases[i].expected, sizeof drawn.values);
    }
    assert_true(mhp_random_u64(0, 0, 0) == 0xe169c58d6627e8d5);
}

static void test_pure(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t bits = mhp_random_u64(5, 6, i);
        double normal = mhp_random_normal(5, 6, i), uniform = mhp_random_uniform(5, 6, i);
        uint64_t place = mhp_random_permute(5, 6, i, 1000);

        mhp_random_u64(5, 6, 999 - i);
        mhp_random_permute(5, 7, i, 1001);
        assert_true(mhp_random_u64(5, 6, i) == bits);
        assert_true(mhp_random_normal(5, 6, i) == normal);
        assert_true(mhp_random_uniform(5, 6, i) == uniform);
        assert_true(mhp_random_permute(5, 6, i, 1000) == place);
    }
}

static void test_every_argument_counts(void **state)
{
    (void)state;
    for (int bit = 0; bit < 63; bit++) {
        uint64_t one = (uint64_t)1 << bit;

        assert_true(mhp_random_u64(one, 0, 0) != mhp_random_u64(0, 0, 0));
        assert_true(mhp_random_u64(0, one, 0) != mhp_random_u64(0, 0, 0));
        assert_true(mhp_random_u64(0, 0, one) != mhp_random_u64(0, 0, 0));
    }
}

static void test_uniform(void **state)
{
    enum { COUNT = 200000, BINS = 16 };
    int bins[BINS] = {0};
    double sum = 0;

    (void)state;
    for (uint64_t i = 0; i < COUNT; i++) {
        double value = mhp_random_uniform(1, 2, i);

        assert_true(value >= 0 && value < 1);
        assert_true(value * 0x1p53 == floor(value * 0x1p53));
        bins[(int)(value * BINS)]++;
        sum += value;
    }
    assert_true(fabs(sum / COUNT - 0.5) < 0.004); /* over 5 deviations of the mean */
    for (int i = 0; i < BINS; i++) {
        assert_in_range(bins[i], COUNT / BINS - 600, COUNT / BINS + 600);
    }
}

static void test_normal(void **state)
{
    enum { COUNT = 200000 };
    double sum = 0, squares = 0, fourths = 0;
    int within = 0;

    (void)state;
    for (uint64_t i = 0; i < COUNT; i++) {
        double value = mhp_random_normal(1, 3, i);

        assert_true(fabs(value) < 8.6);
        sum += value;
        squares += value * value;
        fourths += value * value * value * value;
        within += fabs(value) < 1;
    }
    assert_true(fabs(sum / COUNT) < 0.012);
    assert_true(fabs(squares / COUNT - 1) < 0.017);
    assert_true(fabs(fourths / COUNT - 3) < 0.12);
    assert_true(fabs((double)within / COUNT - 0.682689) < 0.006);
}

/* The sums of products of neighbours, of streams and of seeds stay near what chance allows. */
static void test_independence(void **state)
{
    enum { COUNT = 100000 };
    double neighbours = 0, streams = 0, seeds = 0;

    (void)state;
    for (uint64_t i = 0; i < COUNT; i++) {
        double value = mhp_random_normal(1, 1, i);

        neighbours += value * mhp_random_normal(1, 1, i + 1);
        streams += value * mhp_random_normal(1, 2, i);
        seeds += value * mhp_random_normal(2, 1, i);
    }
    assert_true(fabs(neighbours / COUNT) < 0.016);
    assert_true(fabs(streams / COUNT) < 0.016);
    assert_true(fabs(seeds / COUNT) < 0.016);
}

static void assert_permutes(uint64_t seed, uint64_t stream, uint64_t count)
{
    unsigned char *seen = calloc(count, 1);

    assert_non_null(seen);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t place = mhp_random_permute(seed, stream, i, count);

        assert_true(place < count);
        assert_int_equal(seen[place]++, 0);
    }
    free(seen);
}

static void test_permute_is_a_bijection(void **state)
{
    static const uint64_t large[] = {4095, 4096, 4097, 9999, 10000, 10001, 65537, 100003};

    (void)state;
    for (uint64_t count = 1; count <= 300; count++) {
        assert_permutes(count * 7, count % 3, count);
    }
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        assert_permutes(42, i, large[i]);
    }
}

static void test_permute_of_huge_counts(void **state)
{
    static const uint64_t counts[] = {(uint64_t)1 << 62, ((uint64_t)1 << 62) - 1,
                                      ((uint64_t)1 << 53) + 1, 1000000007};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint64_t last = mhp_random_permute(3, 4, counts[i] - 1, counts[i]);

        assert_true(last < counts[i]);
        for (uint64_t index = 0; index < 200; index++) {
            uint64_t place = mhp_random_permute(3, 4, index, counts[i]);

            assert_true(place < counts[i] && place != last);
        }
    }
}

/* Every order of three comes up, each about as often. */
static void test_orders_are_even(void **state)
{
    enum { COUNT = 12000 };
    int orders[9] = {0};

    (void)state;
    for (uint64_t seed = 0; seed < COUNT; seed++) {
        orders[3 * mhp_random_permute(seed, 0, 0, 3) + mhp_random_permute(seed, 0, 1, 3)]++;
    }
    for (int first = 0; first < 3; first++) {
        for (int second = 0; second < 3; second++) {
            int expected = first == second ? 0 : COUNT / 6;

            assert_true(abs(orders[3 * first + second] - expected) <= expected / 8);
        }
    }
}

static void test_permute_moves(void **state)
{
    int fixed = 0, kept = 0;

    (void)state;
    for (uint64_t i = 0; i < 10000; i++) {
        fixed += mhp_random_permute(1, 1, i, 10000) == i;
        kept += mhp_random_permute(1, 1, i, 10000) == mhp_random_permute(2, 1, i, 10000);
    }
    assert_in_range(fixed, 0, 10); /* one is expected */
    assert_in_range(kept, 0, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_pure),
        cmocka_unit_test(test_every_argument_counts),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_independence),
        cmocka_unit_test(test_permute_is_a_bijection),
        cmocka_unit_test(test_permute_of_huge_counts),
        cmocka_unit_test(test_orders_are_even),
        cmocka_unit_test(test_permute_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
