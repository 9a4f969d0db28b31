/* Interval colouring: what is alive together is apart, and equal sizes take no more than is ever alive. */
#include "runtime/colouring.h"
#include "core/random.h"
#include "tests/unit/runtime/folder.h"

enum { ITEMS = 120, MOMENTS = 60 };

static uint64_t pick(uint64_t round, uint64_t i, uint64_t what, uint64_t below)
{
    return mhp_random_u64(round, i, what) % below;
}

static bool together(const mhp_interval *a, const mhp_interval *b)
{
    for (const mhp_interval *x = a; x; x = x->next) {
        for (const mhp_interval *y = b; y; y = y->next) {
            if (x->begin <= y->end && y->begin <= x->end) {
                return true;
            }
        }
    }
    return false;
}

static void check_apart(const mhp_coloured *items, size_t bytes)
{
    for (int i = 0; i < ITEMS; i++) {
        assert_true(items[i].offset + items[i].bytes <= bytes);
        for (int j = i + 1; j < ITEMS; j++) {
            bool overlap = items[i].offset < items[j].offset + items[j].bytes && items[j].offset < items[i].offset + items[i].bytes;

            assert_false(overlap && together(items[i].alive, items[j].alive));
        }
    }
}

static size_t most_alive(const mhp_coloured *items)
{
    size_t most = 0;

    for (int moment = 0; moment <= 2 * MOMENTS; moment++) {
        const mhp_interval now = {moment, moment, NULL};
        size_t alive = 0;

        for (int i = 0; i < ITEMS; i++) {
            alive += together(items[i].alive, &now) ? items[i].bytes : 0;
        }
        most = alive > most ? alive : most;
    }
    return most;
}

static void items_alive_together_are_apart(void **state)
{
    (void)state;
    for (uint64_t round = 1; round < 40; round++) {
        mhp_interval intervals[ITEMS][2];
        mhp_coloured items[ITEMS];
        size_t bytes, sum = 0;

        for (uint64_t i = 0; i < ITEMS; i++) {
            int begin = (int)pick(round, i, 0, MOMENTS);
            int end = begin + (int)pick(round, i, 1, 8);
            bool again = pick(round, i, 2, 3) == 0;

            intervals[i][0] = (mhp_interval){begin, end, again ? &intervals[i][1] : NULL};
            intervals[i][1] = (mhp_interval){end + 2, end + 2 + (int)pick(round, i, 3, 5), NULL};
            items[i] = (mhp_coloured){.bytes = 64 * (1 + pick(round, i, 4, 9)), .alive = intervals[i]};
            sum += items[i].bytes;
        }
        assert_ok(mhp_colour(items, ITEMS, &bytes));
        check_apart(items, bytes);
        assert_true(bytes >= most_alive(items) && bytes <= sum);
    }
}

static void equal_sizes_take_what_is_alive(void **state)
{
    (void)state;
    for (uint64_t round = 1; round < 40; round++) {
        mhp_interval intervals[ITEMS];
        mhp_coloured items[ITEMS];
        size_t bytes;

        for (uint64_t i = 0; i < ITEMS; i++) {
            int begin = (int)pick(round, i, 0, MOMENTS);

            intervals[i] = (mhp_interval){begin, begin + (int)pick(round, i, 1, 20), NULL};
            items[i] = (mhp_coloured){.bytes = 256, .alive = &intervals[i]};
        }
        assert_ok(mhp_colour(items, ITEMS, &bytes));
        check_apart(items, bytes);
        assert_int_equal(bytes, most_alive(items));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_alive_together_are_apart),
        cmocka_unit_test(equal_sizes_take_what_is_alive),
    };

    return cmocka_run_group_tests_name("colouring", tests, NULL, NULL);
}
