/* Checksums: known values, and text that reads back. */
#include "tests/unit/core/support.h"

#include "core/hash.h"

/* XXH3 of 128 bits of the empty input: the published test vector (xxHash, tests/sanity_test_vectors.h). */
static void test_known_value(void **state)
{
    char text[MHP_HASH_TEXT_MAX];

    (void)state;
    mhp_hash_print(mhp_hash_bytes(NULL, 0), text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
}

static void test_every_bit_counts(void **state)
{
    unsigned char data[300];
    mhp_hash whole;

    (void)state;
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (unsigned char)(i * 7);
    }
    whole = mhp_hash_bytes(data, sizeof data);
    assert_true(mhp_hash_equal(whole, mhp_hash_bytes(data, sizeof data)));
    assert_false(mhp_hash_equal(whole, mhp_hash_bytes(data, sizeof data - 1)));
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_false(mhp_hash_equal(whole, mhp_hash_bytes(data, sizeof data)));
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static void test_text_reads_back(void **state)
{
    mhp_hash hash = mhp_hash_bytes("abc", 3), back;
    char text[MHP_HASH_TEXT_MAX];

    (void)state;
    mhp_hash_print(hash, text);
    assert_true(mhp_hash_parse(text, &back));
    assert_true(mhp_hash_equal(hash, back));
    text[31] = 'g';
    assert_false(mhp_hash_parse(text, &back));
    text[31] = 'A';
    assert_false(mhp_hash_parse(text, &back));
    assert_false(mhp_hash_parse("", &back));
    assert_false(mhp_hash_parse("0123", &back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_value),
        cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_text_reads_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
