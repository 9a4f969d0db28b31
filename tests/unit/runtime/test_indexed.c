/* Token files: what the writer writes, files made by hand, files wrong in one place. */
#include <sys/stat.h>

#include "runtime/data/indexed.h"
#include "tests/unit/runtime/folder.h"

enum { HEADER = 34, SEQUENCES = 3, ENTRIES = 3, TOKENS = 6, LLMC_HEADER = 1024 };
enum { SIZES_AT = HEADER, POINTERS_AT = SIZES_AT + 4 * SEQUENCES };
enum { DOCUMENTS_AT = POINTERS_AT + 8 * SEQUENCES, INDEX_BYTES = DOCUMENTS_AT + 8 * ENTRIES };

/* Sequences of 3, 0 and 3 tokens; the first document has two of them. */
static void make_index(uint8_t *index, int code, int token_bytes)
{
    const int32_t sizes[SEQUENCES] = {3, 0, 3};
    const int64_t documents[ENTRIES] = {0, 2, 3};
    const uint64_t numbers[] = {SEQUENCES, ENTRIES}, version = 1;
    int64_t pointers[SEQUENCES] = {0, 3 * token_bytes, 3 * token_bytes};

    memcpy(index, "MMIDIDX\0", 9);
    memcpy(index + 9, &version, 8);
    index[17] = (uint8_t)code;
    memcpy(index + 18, numbers, 16);
    memcpy(index + SIZES_AT, sizes, sizeof sizes);
    memcpy(index + POINTERS_AT, pointers, sizeof pointers);
    memcpy(index + DOCUMENTS_AT, documents, sizeof documents);
}

/* Small numbers in two's complement and little-endian, whatever their width. */
static void make_tokens(uint8_t *data, const int64_t *values, int count, int token_bytes)
{
    for (int i = 0; i < count; i++) {
        memcpy(data + i * token_bytes, &values[i], (size_t)token_bytes);
    }
}

static void every_type_is_read(void **state)
{
    static const struct {
        mhp_token_type type;
        int bytes;
        const char *text;
        int64_t last;
    } cases[] = {
        {MHP_TOKEN_U8, 1, "u8", 255},          {MHP_TOKEN_I8, 1, "i8", -128},
        {MHP_TOKEN_I16, 2, "i16", -32768},     {MHP_TOKEN_U16, 2, "u16", 65535},
        {MHP_TOKEN_I32, 4, "i32", -100000},    {MHP_TOKEN_I64, 8, "i64", INT64_C(1) << 40},
    };

    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int64_t values[TOKENS] = {1, 2, 3, 4, 5, cases[c].last};
        uint8_t index[INDEX_BYTES], data[TOKENS * 8];
        mhp_indexed *file = NULL;
        mhp_indexed_info info;

        make_index(index, (int)cases[c].type, cases[c].bytes);
        make_tokens(data, values, TOKENS, cases[c].bytes);
        test_write("a.idx", index, sizeof index);
        test_write("a.bin", data, (size_t)(TOKENS * cases[c].bytes));
        assert_ok(mhp_indexed_open(test_path("a"), &file));
        info = mhp_indexed_describe(file);
        assert_int_equal(info.type, cases[c].type);
        assert_string_equal(mhp_token_type_text(info.type), cases[c].text);
        assert_int_equal(mhp_token_type_bytes(info.type), cases[c].bytes);
        assert_int_equal(info.documents, 2);
        assert_int_equal(info.sequences, SEQUENCES);
        assert_int_equal(info.tokens, TOKENS);
        for (uint64_t i = 0; i < TOKENS; i++) {
            assert_true(mhp_indexed_token(file, i) == values[i]);
        }
        mhp_indexed_close(file);
    }
}

static void assert_document(const mhp_indexed *file, uint64_t document, uint64_t first,
                            uint64_t count)
{
    uint64_t got_first, got_count;

    mhp_indexed_document(file, document, &got_first, &got_count);
    assert_int_equal(got_first, first);
    assert_int_equal(got_count, count);
}

static void writer_round_trip(void **state)
{
    enum { LONG = 70000 };      /* more than the writer buffers */
    static uint16_t tokens[LONG];
    mhp_indexed_writer *writer = NULL;
    mhp_indexed *file = NULL;

    (void)state;
    for (int i = 0; i < LONG; i++) {
        tokens[i] = (uint16_t)(i * 7);
    }
    assert_ok(mhp_indexed_create(test_path("out"), &writer));
    assert_ok(mhp_indexed_append(writer, tokens, 3));
    assert_ok(mhp_indexed_append(writer, tokens + 3, 2));
    assert_ok(mhp_indexed_end_document(writer));
    assert_ok(mhp_indexed_end_document(writer));
    assert_ok(mhp_indexed_append(writer, tokens, LONG));
    assert_int_not_equal(access(test_path("out.idx"), F_OK), 0);
    assert_ok(mhp_indexed_finish(writer));
    assert_ok(mhp_indexed_open(test_path("out.bin"), &file));
    assert_int_equal(mhp_indexed_describe(file).documents, 3);
    assert_document(file, 0, 0, 5);
    assert_document(file, 1, 5, 0);
    assert_document(file, 2, 5, LONG);
    for (uint64_t i = 0; i < LONG; i++) {
        assert_int_equal(mhp_indexed_token(file, 5 + i), tokens[i]);
    }
    mhp_indexed_close(file);
    assert_ok(mhp_indexed_open(test_path("out.idx"), &file));
    assert_string_equal(mhp_indexed_describe(file).path, test_path("out.bin"));
    mhp_indexed_close(file);
}

static void abandoned_writer_leaves_nothing(void **state)
{
    mhp_indexed_writer *writer = NULL;
    uint16_t token = 1;

    (void)state;
    assert_ok(mhp_indexed_create(test_path("out"), &writer));
    assert_ok(mhp_indexed_append(writer, &token, 1));
    mhp_indexed_abandon(writer);
    assert_int_equal(rmdir(test_folder), 0);
    assert_int_equal(mkdir(test_folder, 0700), 0);
    assert_error(mhp_indexed_create(test_path("missing/out"), &writer), MHP_ERR_IO, "missing/out");
}

static void make_llmc(uint8_t *bytes, int32_t magic, int32_t version, int32_t tokens)
{
    const int32_t header[] = {magic, version, tokens};

    memset(bytes, 0, LLMC_HEADER);
    memcpy(bytes, header, sizeof header);
}

static void both_versions_of_llmc_are_read(void **state)
{
    static const struct {
        int32_t magic, version, bytes;
        mhp_token_type type;
        int64_t end;
    } cases[] = {
        {20240520, 1, 2, MHP_TOKEN_U16, 50256}, {20240801, 7, 4, MHP_TOKEN_U32, 128000}};

    (void)state;
    for (size_t c = 0; c < 2; c++) {
        int64_t values[] = {cases[c].end, 1, 2, cases[c].end, 3};
        uint8_t bytes[LLMC_HEADER + 5 * 4];
        mhp_indexed *file = NULL;

        make_llmc(bytes, cases[c].magic, cases[c].version, 5);
        make_tokens(bytes + LLMC_HEADER, values, 5, cases[c].bytes);
        test_write("l.bin", bytes, LLMC_HEADER + 5 * (size_t)cases[c].bytes);
        assert_ok(mhp_indexed_open(test_path("l.bin"), &file));
        assert_int_equal(mhp_indexed_describe(file).type, cases[c].type);
        assert_int_equal(mhp_indexed_describe(file).documents, 2);
        assert_document(file, 0, 0, 3);
        assert_document(file, 1, 3, 2);
        for (uint64_t i = 0; i < 5; i++) {
            assert_int_equal(mhp_indexed_token(file, i), values[i]);
        }
        mhp_indexed_close(file);
    }
}

static mhp_status open_index(const uint8_t *index, size_t index_bytes, size_t data_bytes)
{
    static const uint8_t data[TOKENS * 2 + 8];
    mhp_indexed *file = NULL;
    mhp_status status =
        mhp_indexed_open_bytes("wrong", index, index_bytes, data, data_bytes, &file);

    mhp_indexed_close(file);
    return status;
}

static void every_field_of_an_index_is_checked(void **state)
{
    static const struct {
        int at, bytes;
        int64_t value;
        mhp_status status;
        const char *part;
    } cases[] = {
        {0, 1, 'X', MHP_ERR_FORMAT, "wrong.idx, offset 0"},
        {8, 1, 'X', MHP_ERR_FORMAT, "wrong.idx, offset 0"},
        {9, 8, 2, MHP_ERR_FORMAT, "wrong.idx, offset 9: version 2"},
        {17, 1, 0, MHP_ERR_FORMAT, "wrong.idx, offset 17"},
        {17, 1, 9, MHP_ERR_FORMAT, "wrong.idx, offset 17"},
        {17, 1, 100, MHP_ERR_FORMAT, "wrong.idx, offset 17"},
        {17, 1, 6, MHP_ERR_UNSUPPORTED, "wrong.idx, offset 17"},
        {17, 1, 7, MHP_ERR_UNSUPPORTED, "wrong.idx, offset 17"},
        {17, 1, MHP_TOKEN_I32, MHP_ERR_FORMAT, "wrong.idx, offset"},
        {18, 8, 4, MHP_ERR_FORMAT, "wrong.idx ends"},
        {18, 8, -1, MHP_ERR_FORMAT, "wrong.idx ends"},
        {18, 8, INT64_MAX / 6, MHP_ERR_FORMAT, "wrong.idx ends"},
        {18, 8, 2, MHP_ERR_FORMAT, "wrong.idx has"},
        {26, 8, 0, MHP_ERR_FORMAT, "wrong.idx, offset 26"},
        {26, 8, 2, MHP_ERR_FORMAT, "wrong.idx has"},
        {26, 8, 4, MHP_ERR_FORMAT, "wrong.idx ends"},
        {26, 8, INT64_C(1) << 61, MHP_ERR_FORMAT, "wrong.idx ends"},
        {SIZES_AT, 4, -1, MHP_ERR_FORMAT, "wrong.idx, offset 34"},
        {SIZES_AT, 4, 2, MHP_ERR_FORMAT, "wrong.idx, offset"},
        {SIZES_AT + 8, 4, 2, MHP_ERR_FORMAT, "wrong.bin has 12 bytes"},
        {SIZES_AT + 8, 4, INT32_MAX, MHP_ERR_FORMAT, "wrong.bin has 12 bytes"},
        {POINTERS_AT, 8, 2, MHP_ERR_FORMAT, "wrong.idx, offset 46"},
        {POINTERS_AT + 8, 8, -6, MHP_ERR_FORMAT, "wrong.idx, offset 54"},
        {POINTERS_AT + 16, 8, 7, MHP_ERR_FORMAT, "wrong.idx, offset 62"},
        {DOCUMENTS_AT, 8, 1, MHP_ERR_FORMAT, "wrong.idx, offset 70"},
        {DOCUMENTS_AT, 8, -1, MHP_ERR_FORMAT, "wrong.idx, offset 70"},
        {DOCUMENTS_AT + 8, 8, 4, MHP_ERR_FORMAT, "wrong.idx, offset 78"},
        {DOCUMENTS_AT + 8, 8, -1, MHP_ERR_FORMAT, "wrong.idx, offset 78"},
        {DOCUMENTS_AT + 16, 8, 1, MHP_ERR_FORMAT, "wrong.idx, offset 86"},
        {DOCUMENTS_AT + 16, 8, 2, MHP_ERR_FORMAT, "wrong.idx, offset 86"},
    };

    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t index[INDEX_BYTES];

        make_index(index, MHP_TOKEN_U16, 2);
        assert_ok(open_index(index, sizeof index, TOKENS * 2));
        memcpy(index + cases[c].at, &cases[c].value, (size_t)cases[c].bytes);
        assert_error(open_index(index, sizeof index, TOKENS * 2), cases[c].status, cases[c].part);
    }
}

static void wrong_lengths_are_refused(void **state)
{
    uint8_t index[INDEX_BYTES + SEQUENCES] = {0};

    (void)state;
    make_index(index, MHP_TOKEN_U16, 2);
    for (size_t bytes = 0; bytes < INDEX_BYTES; bytes++) {
        assert_error(open_index(index, bytes, TOKENS * 2), MHP_ERR_FORMAT, "wrong.idx");
    }
    assert_error(open_index(index, INDEX_BYTES + 1, 12), MHP_ERR_FORMAT, "wrong.idx");
    assert_error(open_index(index, INDEX_BYTES + SEQUENCES, 12), MHP_ERR_UNSUPPORTED, "wrong.idx");
    for (size_t bytes = 0; bytes < TOKENS * 2 + 8; bytes++) {
        if (bytes != TOKENS * 2) {
            assert_error(open_index(index, INDEX_BYTES, bytes), MHP_ERR_FORMAT, "wrong.bin");
        }
    }
}

static void wrong_llmc_files_are_refused(void **state)
{
    static const struct {
        int32_t magic, version, tokens;
        size_t bytes;
        const char *part;
    } cases[] = {
        {20240521, 1, 4, LLMC_HEADER + 8, "wrong.bin, offset 0"},
        {20240520, 7, 4, LLMC_HEADER + 8, "wrong.bin, offset 4"},
        {20240801, 1, 2, LLMC_HEADER + 8, "wrong.bin, offset 4"},
        {20240520, 1, -1, LLMC_HEADER + 8, "wrong.bin, offset 8"},
        {20240520, 1, 3, LLMC_HEADER + 8, "wrong.bin has 1032 bytes"},
        {20240520, 1, INT32_MAX, LLMC_HEADER + 8, "wrong.bin has 1032 bytes"},
        {20240801, 7, 4, LLMC_HEADER + 8, "wrong.bin has 1032 bytes"},
        {20240520, 1, 4, LLMC_HEADER + 7, "wrong.bin has 1031 bytes"},
        {20240520, 1, 4, LLMC_HEADER - 1, "wrong.bin ends at byte 1023"},
        {20240520, 1, 4, 0, "wrong.bin ends at byte 0"},
    };

    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t bytes[LLMC_HEADER + 8] = {0};
        mhp_indexed *file = NULL;

        make_llmc(bytes, cases[c].magic, cases[c].version, cases[c].tokens);
        assert_error(mhp_indexed_open_bytes("wrong", NULL, 0, bytes, cases[c].bytes, &file),
                     MHP_ERR_FORMAT, cases[c].part);
        assert_null(file);
    }
}

static void missing_and_empty_files_are_refused(void **state)
{
    uint8_t index[INDEX_BYTES];
    mhp_indexed *file = NULL;

    (void)state;
    make_index(index, MHP_TOKEN_U16, 2);
    assert_error(mhp_indexed_open(test_path("none"), &file), MHP_ERR_NOT_FOUND, "none");
    test_write("a.idx", index, sizeof index);
    assert_error(mhp_indexed_open(test_path("a"), &file), MHP_ERR_NOT_FOUND, test_path("a.bin"));
    test_write("a.bin", "", 0);
    assert_error(mhp_indexed_open(test_path("a"), &file), MHP_ERR_FORMAT, test_path("a.bin"));
    test_write("a.idx", "", 0);
    assert_error(mhp_indexed_open(test_path("a"), &file), MHP_ERR_FORMAT, test_path("a.idx"));
    test_write("l.bin", "", 0);
    assert_error(mhp_indexed_open(test_path("l.bin"), &file), MHP_ERR_FORMAT, test_path("l.bin"));
    assert_error(mhp_indexed_open(test_folder, &file), MHP_ERR_IO, test_folder);
    assert_null(file);
}

/* Reads all that the file says it has; the sum keeps the compiler from leaving that out. */
static uint64_t walk(const mhp_indexed *file)
{
    mhp_indexed_info info = mhp_indexed_describe(file);
    uint64_t sum = 0, covered = 0;

    for (uint64_t i = 0; i < info.documents; i++) {
        uint64_t first, count;

        mhp_indexed_document(file, i, &first, &count);
        assert_int_equal(first, covered);
        covered += count;
        for (uint64_t t = first; t < first + count; t++) {
            sum += (uint64_t)mhp_indexed_token(file, t);
        }
    }
    assert_int_equal(covered, info.tokens);
    return sum;
}

/* Copies of the exact size, so that a checker of memory sees a read behind the end. */
static void flip(const uint8_t *index, size_t index_bytes, const uint8_t *data, size_t data_bytes,
                 size_t at, uint8_t mask)
{
    uint8_t *copies[2] = {malloc(index_bytes + !index_bytes), malloc(data_bytes)};
    mhp_indexed *file = NULL;
    mhp_status status;

    assert_non_null(copies[0]);
    assert_non_null(copies[1]);
    memcpy(copies[0], index, index_bytes);
    memcpy(copies[1], data, data_bytes);
    *(at < index_bytes ? &copies[0][at] : &copies[1][at - index_bytes]) ^= mask;
    status = mhp_indexed_open_bytes("flipped", index_bytes ? copies[0] : NULL, index_bytes,
                                    copies[1], data_bytes, &file);
    if (status == MHP_OK) {
        assert_true(walk(file) < UINT64_MAX);
    } else {
        assert_true(status == MHP_ERR_FORMAT || status == MHP_ERR_UNSUPPORTED);
        assert_non_null(strstr(mhp_error_text(), "flipped."));
    }
    mhp_indexed_close(file);
    free(copies[0]);
    free(copies[1]);
}

static void flipped_bits_never_crash(void **state)
{
    static const int64_t values[TOKENS] = {50256, 2, 3, 50256, 5, 6};
    uint8_t index[INDEX_BYTES], data[TOKENS * 2], llmc[LLMC_HEADER + TOKENS * 2];

    (void)state;
    make_index(index, MHP_TOKEN_U16, 2);
    make_tokens(data, values, TOKENS, 2);
    make_llmc(llmc, 20240520, 1, TOKENS);
    make_tokens(llmc + LLMC_HEADER, values, TOKENS, 2);
    for (int bit = 0; bit < 9; bit++) {
        uint8_t mask = bit < 8 ? (uint8_t)(1 << bit) : 0xff;

        for (size_t at = 0; at < sizeof index + sizeof data; at++) {
            flip(index, sizeof index, data, sizeof data, at, mask);
        }
        for (size_t at = 0; at < sizeof llmc; at++) {
            flip((const uint8_t *)"", 0, llmc, sizeof llmc, at, mask);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(every_type_is_read),
        TEST_IN_FOLDER(writer_round_trip),
        TEST_IN_FOLDER(abandoned_writer_leaves_nothing),
        TEST_IN_FOLDER(both_versions_of_llmc_are_read),
        cmocka_unit_test(every_field_of_an_index_is_checked),
        cmocka_unit_test(wrong_lengths_are_refused),
        cmocka_unit_test(wrong_llmc_files_are_refused),
        TEST_IN_FOLDER(missing_and_empty_files_are_refused),
        cmocka_unit_test(flipped_bits_never_crash),
    };

    return cmocka_run_group_tests_name("indexed", tests, NULL, NULL);
}
