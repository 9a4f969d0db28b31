/* UTF-8: every character decodes, and nothing else does. */
#include "tests/unit/core/support.h"

#include "core/utf8.h"

/* As RFC 3629 has it, section 3. */
static size_t encode(uint32_t code, char bytes[4])
{
    if (code < 0x80) {
        bytes[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        bytes[0] = (char)(0xc0 | code >> 6);
        bytes[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        bytes[0] = (char)(0xe0 | code >> 12);
        bytes[1] = (char)(0x80 | (code >> 6 & 0x3f));
        bytes[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    bytes[0] = (char)(0xf0 | code >> 18);
    bytes[1] = (char)(0x80 | (code >> 12 & 0x3f));
    bytes[2] = (char)(0x80 | (code >> 6 & 0x3f));
    bytes[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

static void test_every_code(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x120000; code++) {
        bool is_character = code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
        char bytes[4];
        size_t count = encode(code, bytes);
        uint32_t found = 0xffffffff;

        assert_true(mhp_utf8_decode(bytes, count, &found) == (is_character ? count : 0));
        assert_true(found == (is_character ? code : 0xffffffff));
        assert_true(mhp_utf8_decode(bytes, count - 1, &found) == 0);
    }
}

/* All sequences of two bytes: an ASCII character is one byte, and 1920 characters have two. */
static void test_every_pair(void **state)
{
    int counts[3] = {0};

    (void)state;
    for (int first = 0; first < 256; first++) {
        for (int second = 0; second < 256; second++) {
            const char bytes[2] = {(char)first, (char)second};
            uint32_t code;
            size_t count = mhp_utf8_decode(bytes, 2, &code);

            assert_in_range(count, 0, 2);
            counts[count]++;
        }
    }
    assert_int_equal(counts[1], 128 * 256);
    assert_int_equal(counts[2], 1920);
}

static void test_wrong_bytes(void **state)
{
    static const char *const wrong[] = {"\x80",
                                        "\xbf",
                                        "\xc0\x80",
                                        "\xc1\xbf",
                                        "\xc2",
                                        "\xc2\x7f",
                                        "\xc2\xc2",
                                        "\xe0\x80\x80",
                                        "\xe0\x9f\xbf",
                                        "\xe4\xb8",
                                        "\xe4\xb8\x2d",
                                        "\xed\xa0\x80",
                                        "\xed\xbf\xbf",
                                        "\xf0\x80\x80\x80",
                                        "\xf0\x8f\xbf\xbf",
                                        "\xf0\x9f\x99",
                                        "\xf4\x90\x80\x80",
                                        "\xf5\x80\x80\x80",
                                        "\xf8\x88\x80\x80\x80",
                                        "\xfe",
                                        "\xff"};
    uint32_t code = 77;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(mhp_utf8_decode(wrong[i], strlen(wrong[i]), &code), 0);
    }
    assert_int_equal(mhp_utf8_decode("", 0, &code), 0);
    assert_int_equal(code, 77);
}

static void test_only_the_first_character(void **state)
{
    uint32_t code = 0;

    (void)state;
    assert_int_equal(mhp_utf8_decode("a\xff", 2, &code), 1);
    assert_int_equal(code, 'a');
    assert_int_equal(mhp_utf8_decode("\xc3\xa4xyz", 5, &code), 2);
    assert_int_equal(code, 0xe4);
    assert_int_equal(mhp_utf8_decode("\0a", 2, &code), 1);
    assert_int_equal(code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code),
        cmocka_unit_test(test_every_pair),
        cmocka_unit_test(test_wrong_bytes),
        cmocka_unit_test(test_only_the_first_character),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
