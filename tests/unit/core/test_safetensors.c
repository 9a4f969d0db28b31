/* Safetensors: what is written reads back, and no header, however wrong, is believed. */
#include "tests/unit/core/support.h"

#include <math.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/safetensors.h"

enum { BYTES_MAX = 3 * MHP_FILE_BLOCK };

static const mhp_tensor_info matrix = {"matrix", MHP_DTYPE_F32, 2, {2, 3}};
static const float matrix_data[6] = {1, -2, 3.5f, 0, 1e-20f, 1e20f};
static const mhp_tensor_info scalar = {"a.scalar", MHP_DTYPE_F64, 0, {0}};
static const double scalar_data[1] = {1.0 / 3};
static const mhp_tensor_info none = {"none", MHP_DTYPE_I64, 2, {0, 7}};

/* Bytes of a file made by hand. */
typedef struct bytes {
    size_t size;
    unsigned char data[BYTES_MAX];
} bytes;

static bytes make_bytes(const char *header, size_t data_bytes)
{
    bytes made = {0};
    uint64_t length = strlen(header);

    assert_true(8 + length + data_bytes <= BYTES_MAX);
    memcpy(made.data, &length, 8);
    memcpy(made.data + 8, header, length);
    made.size = 8 + length + data_bytes;
    return made;
}

/* Opens a copy of exactly that size, so that a sanitizer sees what is read beyond it. */
static mhp_status open_exact(const unsigned char *data, size_t size)
{
    unsigned char *copy = malloc(size ? size : 1);
    mhp_safetensors *file = NULL;
    mhp_status status;

    assert_non_null(copy);
    memcpy(copy, data, size);
    status = mhp_safetensors_open_bytes("model.st", copy, size, &file);
    assert_true((status == MHP_OK) == (file != NULL));
    if (file) {
        unsigned int sum = 0;

        for (size_t i = 0; i < mhp_safetensors_count(file); i++) {
            const mhp_tensor_info *info = mhp_safetensors_info(file, i);
            const unsigned char *tensor = mhp_safetensors_data(file, i);
            size_t tensor_bytes = (size_t)mhp_tensor_elements(info) * mhp_dtype_bytes(info->dtype);

            assert_int_equal(mhp_safetensors_find(file, info->name), i);
            for (size_t at = 0; at < tensor_bytes; at++) {
                sum += tensor[at];
            }
        }
        assert_true(sum <= 255 * size);
    }
    mhp_safetensors_close(file);
    free(copy);
    return status;
}

static mhp_status open_header(const char *header, size_t data_bytes)
{
    bytes made = make_bytes(header, data_bytes);

    return open_exact(made.data, made.size);
}

static void write_sample(const char *path)
{
    const mhp_tensor_info infos[] = {matrix, none, scalar};
    const char *const metadata[] = {"format", "pt", "note", "gr\xc3\xbc\xc3\x9f \"x\"", NULL};
    mhp_safetensors_writer *writer = NULL;

    assert_ok(mhp_safetensors_create(path, infos, 3, metadata, &writer));
    assert_ok(mhp_safetensors_write(writer, matrix_data, 5));
    assert_ok(mhp_safetensors_write(writer, (const char *)matrix_data + 5, 19));
    assert_ok(mhp_safetensors_write(writer, NULL, 0));
    assert_ok(mhp_safetensors_write(writer, scalar_data, 8));
    assert_ok(mhp_safetensors_finish(writer));
}

/* ---- what is right ---- */

static void test_round_trip(void **state)
{
    const char *path = scratch_path("model.safetensors");
    mhp_safetensors *file = NULL;
    double numbers[6], single;

    (void)state;
    write_sample(path);
    assert_ok(mhp_safetensors_open(path, &file));
    assert_int_equal(mhp_safetensors_count(file), 3);
    assert_string_equal(mhp_safetensors_metadata(file, "format"), "pt");
    assert_string_equal(mhp_safetensors_metadata(file, "note"), "gr\xc3\xbc\xc3\x9f \"x\"");
    assert_null(mhp_safetensors_metadata(file, "other"));
    assert_int_equal(mhp_safetensors_find(file, "matrix"), 0);
    assert_int_equal(mhp_safetensors_find(file, "none"), 1);
    assert_int_equal(mhp_safetensors_find(file, "a.scalar"), 2);
    assert_int_equal(mhp_safetensors_find(file, "matri"), -1);
    assert_int_equal(mhp_safetensors_find(file, ""), -1);
    assert_memory_equal(mhp_safetensors_data(file, 0), matrix_data, sizeof matrix_data);
    assert_int_equal(mhp_safetensors_info(file, 0)->rank, 2);
    assert_int_equal(mhp_safetensors_info(file, 0)->shape[1], 3);
    assert_int_equal(mhp_safetensors_info(file, 1)->dtype, MHP_DTYPE_I64);
    assert_ok(mhp_safetensors_read(file, &(mhp_tensor_info){"matrix", MHP_DTYPE_F64, 2, {2, 3}},
                                   numbers));
    for (int i = 0; i < 6; i++) {
        assert_true(numbers[i] == (double)matrix_data[i]);
    }
    assert_ok(mhp_safetensors_read(file, &scalar, &single));
    assert_true(single == scalar_data[0]);
    mhp_safetensors_close(file);
    mhp_safetensors_close(NULL);
}

static void test_data_is_aligned(void **state)
{
    const char *path = scratch_path("aligned.safetensors");
    char *text = NULL;
    size_t size = 0;
    uint64_t length;

    (void)state;
    write_sample(path);
    assert_ok(mhp_file_read_all(path, BYTES_MAX, &text, &size));
    memcpy(&length, text, 8);
    assert_int_equal((8 + length) % MHP_FILE_BLOCK, 0);
    assert_int_equal(size, 8 + length + 32);
    mhp_free(text);
}

static void test_conversions(void **state)
{
    static const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x8400, 0x7bff, 0x7c00, 0x8000};
    static const float half_values[] = {1, -2, 0x1p-24f, -0x1p-14f, 65504, INFINITY, -0.0f};
    static const uint16_t briefs[] = {0x3f80, 0xc000, 0x7f80, 0x0001};
    static const float brief_values[] = {1, -2, INFINITY, 0x1p-133f};
    bytes made = make_bytes("{\"h\":{\"dtype\":\"F16\",\"shape\":[7],\"data_offsets\":[0,14]},"
                            "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[14,22]}}",
                            22);
    const mhp_tensor_info h = {"h", MHP_DTYPE_F32, 1, {7}}, b = {"b", MHP_DTYPE_F32, 1, {4}};
    mhp_safetensors *file = NULL;
    float found[7];

    (void)state;
    memcpy(made.data + made.size - 22, halves, 14);
    memcpy(made.data + made.size - 8, briefs, 8);
    assert_ok(mhp_safetensors_open_bytes("x", made.data, made.size, &file));
    assert_ok(mhp_safetensors_read(file, &h, found));
    assert_memory_equal(found, half_values, sizeof half_values);
    assert_ok(mhp_safetensors_read(file, &b, found));
    assert_memory_equal(found, brief_values, sizeof brief_values);
    mhp_safetensors_close(file);
}

static void test_read_of_what_is_not_there(void **state)
{
    const char *path = scratch_path("read.safetensors");
    mhp_safetensors *file = NULL;
    double target[16];

    (void)state;
    write_sample(path);
    assert_ok(mhp_safetensors_open(path, &file));
    assert_failed(
        mhp_safetensors_read(file, &(mhp_tensor_info){"missing", MHP_DTYPE_F64, 1, {4}}, target),
        MHP_ERR_NOT_FOUND, path, "\"missing\"", "[4]", NULL);
    assert_failed(
        mhp_safetensors_read(file, &(mhp_tensor_info){"matrix", MHP_DTYPE_F64, 2, {3, 2}}, target),
        MHP_ERR_FORMAT, path, "\"matrix\"", "[2, 3]", "[3, 2]", NULL);
    assert_failed(
        mhp_safetensors_read(file, &(mhp_tensor_info){"matrix", MHP_DTYPE_F64, 1, {6}}, target),
        MHP_ERR_FORMAT, "[6]", NULL);
    assert_failed(
        mhp_safetensors_read(file, &(mhp_tensor_info){"none", MHP_DTYPE_F64, 2, {0, 7}}, target),
        MHP_ERR_FORMAT, path, "I64", NULL);
    mhp_safetensors_close(file);
}

/* ---- the writer ---- */

static void test_writer_counts_bytes(void **state)
{
    const char *path = scratch_path("counted.safetensors");
    mhp_safetensors_writer *writer = NULL;

    (void)state;
    assert_ok(mhp_safetensors_create(path, &matrix, 1, NULL, &writer));
    assert_failed(mhp_safetensors_write(writer, scalar_data, 25), MHP_ERR_INVALID, path, "25 bytes",
                  "24", NULL);
    assert_ok(mhp_safetensors_write(writer, matrix_data, 23));
    assert_failed(mhp_safetensors_finish(writer), MHP_ERR_INVALID, path, "23 bytes", NULL);
    assert_false(mhp_file_exists(path));
    assert_ok(mhp_safetensors_create(path, &matrix, 1, NULL, &writer));
    mhp_safetensors_abandon(writer);
    mhp_safetensors_abandon(NULL);
    assert_false(mhp_file_exists(path));
    assert_false(mhp_file_exists(scratch_path("counted.safetensors.tmp")));
}

/* A header that could not be read back is not written either. */
static void test_writer_refuses_long_headers(void **state)
{
    enum { COUNT = 90000 };
    const char *path = scratch_path("long.safetensors");
    mhp_safetensors_writer *writer = NULL;
    mhp_tensor_info *infos = NULL;

    (void)state;
    assert_ok(mhp_calloc(&infos, COUNT, sizeof *infos));
    for (int i = 0; i < COUNT; i++) {
        snprintf(infos[i].name, sizeof infos[i].name, "%0150d", i);
    }
    assert_failed(mhp_safetensors_create(path, infos, COUNT, NULL, &writer), MHP_ERR_LIMIT, path,
                  "16777216", NULL);
    assert_null(writer);
    assert_false(mhp_file_exists(path));
    mhp_free(infos);
}

static void test_writer_refuses(void **state)
{
    const char *path = scratch_path("refused.safetensors");
    const mhp_tensor_info twice[] = {matrix, matrix};
    const char *const bad[] = {"key", "\xff", NULL};
    mhp_safetensors_writer *writer = NULL;

    (void)state;
    assert_failed(mhp_safetensors_create(path, twice, 2, NULL, &writer), MHP_ERR_INVALID, path,
                  "\"matrix\"", NULL);
    assert_failed(mhp_safetensors_create(path, &(mhp_tensor_info){"__metadata__", 0, 0, {0}}, 1,
                                         NULL, &writer),
                  MHP_ERR_INVALID, path, NULL);
    assert_failed(
        mhp_safetensors_create(path, &(mhp_tensor_info){"\xff", 0, 0, {0}}, 1, NULL, &writer),
        MHP_ERR_INVALID, path, "UTF-8", NULL);
    assert_failed(mhp_safetensors_create(path, &(mhp_tensor_info){"x", 0, 2, {INT64_MAX, 2}}, 1,
                                         NULL, &writer),
                  MHP_ERR_LIMIT, path, "\"x\"", NULL);
    assert_failed(
        mhp_safetensors_create(path, &(mhp_tensor_info){"x", 0, 1, {-1}}, 1, NULL, &writer),
        MHP_ERR_LIMIT, path, NULL);
    assert_failed(mhp_safetensors_create(path, &matrix, 1, bad, &writer), MHP_ERR_INVALID, path,
                  "\"key\"", NULL);
    assert_failed(mhp_safetensors_create("/dev/full", &matrix, 1, NULL, &writer), MHP_ERR_IO,
                  "/dev/full", NULL);
    assert_null(writer);
    assert_false(mhp_file_exists(path));
}

/* ---- headers that are wrong ---- */

static void test_lengths(void **state)
{
    bytes made = make_bytes("{}", 0);
    uint64_t length = 3;

    (void)state;
    assert_ok(open_exact(made.data, made.size));
    for (size_t size = 0; size < made.size; size++) {
        assert_failed(open_exact(made.data, size), MHP_ERR_FORMAT, "model.st", NULL);
    }
    memcpy(made.data, &length, 8);
    assert_failed(open_exact(made.data, made.size), MHP_ERR_FORMAT, "model.st", "truncated", NULL);
    length = 16777216;
    memcpy(made.data, &length, 8);
    assert_failed(open_exact(made.data, made.size), MHP_ERR_FORMAT, "model.st", "truncated", NULL);
    length++; /* beyond the limit, whatever the file's size */
    memcpy(made.data, &length, 8);
    assert_failed(open_exact(made.data, made.size), MHP_ERR_LIMIT, "model.st", "16777216", NULL);
    length = UINT64_MAX;
    memcpy(made.data, &length, 8);
    assert_failed(open_exact(made.data, made.size), MHP_ERR_LIMIT, "model.st", NULL);
}

#define ENTRY(name, dtype, shape, begin, end)                                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
    "]}"

static void test_wrong_headers(void **state)
{
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *part;
    } cases[] = {
        {"", 0, "no header"},
        {"[]", 0, "no header"},
        {" {}", 0, "no header"},
        {"{\"a\":", 0, "JSON"},
        {"{} x", 0, "JSON"},
        {"{}", 1, "1 bytes of data"},
        {"{\"a\":1}", 0, "\"a\" is wrongly described"},
        {"{\"a\":{}}", 0, "wrongly described"},
        {"{\"\xff\":{}}", 0, "JSON"},
        {"{\"a\\u0000b\":{}}", 0, "JSON"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("a", "F32", "[1]", 4, 8) "}", 8, "unique"},
        {"{" ENTRY("a", "F31", "[1]", 0, 4) "}", 4, "dtype \"F31\""},
        {"{" ENTRY("a", "f32", "[1]", 0, 4) "}", 4, "dtype \"f32\""},
        {"{\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "\"dtype\""},
        {"{" ENTRY("a", "F32", "1", 0, 4) "}", 4, "\"shape\""},
        {"{" ENTRY("a", "F32", "[-1]", 0, 4) "}", 4, "wrong dimension 0"},
        {"{" ENTRY("a", "F32", "[1.0]", 0, 4) "}", 4, "wrong dimension 0"},
        {"{" ENTRY("a", "F32", "[1,\"1\"]", 0, 4) "}", 4, "wrong dimension 1"},
        {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "9 dimensions"},
        {"{" ENTRY("a", "F32", "[2]", 0, 4) "}", 4, "expected 8 for shape [2]"},
        {"{" ENTRY("a", "F32", "[9223372036854775807]", 0, 4) "}", 4, "2^63"},
        {"{" ENTRY("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, "2^63"},
        {"{" ENTRY("a", "F32", "[9223372036854775808]", 0, 4) "}", 4, "JSON"},
        {"{" ENTRY("a", "F32", "[1]", -4, 0) "}", 4, "0 <= begin"},
        {"{" ENTRY("a", "F32", "[1]", 4, 0) "}", 4, "begin <= end"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4.0) "}", 4, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "two integers"},
        {"{" ENTRY("a", "F32", "[2]", 0, 8) "}", 4, "ends at byte 8"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "}", 5, "5 bytes of data"},
        {"{" ENTRY("a", "F32", "[1]", 4, 8) "}", 8, "leaves a gap"},
        {"{" ENTRY("a", "F32", "[2]", 0, 8) "," ENTRY("b", "F32", "[2]", 4, 12) "}", 12, "overlap"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 8, 12) "}", 12, "gap"},
        {"{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 0, 4) "}", 4, "overlap"},
        {"{\"__metadata__\":3}", 0, "__metadata__"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "\"k\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_failed(open_header(cases[i].header, cases[i].data_bytes), MHP_ERR_FORMAT,
                      "model.st: ", cases[i].part, NULL);
    }
    assert_ok(
        open_header("{" ENTRY("a", "F32", "[1]", 4, 8) "," ENTRY("b", "U8", "[4]", 0, 4) "}", 8));
    assert_ok(open_header("{" ENTRY("a", "F32", "[0]", 0, 0) "}   ", 0));
}

static void test_names_that_are_too_long(void **state)
{
    char header[1024], name[MHP_TENSOR_NAME_MAX + 1];

    (void)state;
    memset(name, 'n', MHP_TENSOR_NAME_MAX);
    name[MHP_TENSOR_NAME_MAX] = '\0';
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", name);
    assert_failed(open_header(header, 1), MHP_ERR_FORMAT, "model.st", "256 bytes", NULL);
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", name + 1);
    assert_ok(open_header(header, 1));
}

static void test_files_that_are_none(void **state)
{
    const char *path = scratch_path("wrong.safetensors"), *missing = scratch_path("missing");
    mhp_safetensors *file = NULL;

    (void)state;
    scratch_write(path, "", 0);
    assert_failed(mhp_safetensors_open(path, &file), MHP_ERR_FORMAT, path, NULL);
    scratch_write(path, "\x10\0\0\0\0\0\0\0{}", 10);
    assert_failed(mhp_safetensors_open(path, &file), MHP_ERR_FORMAT, path, "truncated", NULL);
    assert_failed(mhp_safetensors_open(missing, &file), MHP_ERR_NOT_FOUND, missing, NULL);
    assert_failed(mhp_safetensors_open(scratch_folder, &file), MHP_ERR_IO, scratch_folder, NULL);
    assert_null(file);
}

/* ---- bytes changed at random ---- */

static bool is_expected(mhp_status status)
{
    return status == MHP_OK || status == MHP_ERR_FORMAT || status == MHP_ERR_LIMIT;
}

static void test_flipped_bytes_are_survived(void **state)
{
    const char *path = scratch_path("flipped.safetensors");
    char *text = NULL;
    size_t size = 0;
    size_t used = MHP_FILE_BLOCK;
    int refused_count = 0;

    (void)state;
    write_sample(path);
    assert_ok(mhp_file_read_all(path, BYTES_MAX, &text, &size));
    while (text[used - 1] == ' ') { /* what fills the header up */
        used--;
    }
    for (size_t at = 0; at < size; at++) { /* every place, every bit; then every cut */
        for (int bit = 0; bit < 8; bit++) {
            mhp_status status;

            text[at] = (char)(text[at] ^ 1 << bit);
            status = open_exact((unsigned char *)text, size);
            text[at] = (char)(text[at] ^ 1 << bit);
            assert_true(is_expected(status));
            refused_count += status != MHP_OK;
        }
        assert_failed(open_exact((unsigned char *)text, at), MHP_ERR_FORMAT, "model.st", NULL);
    }
    assert_true(refused_count > 500);
    for (uint64_t round = 0; round < 3000; round++) { /* several places at once */
        bytes copy = {.size = size};

        memcpy(copy.data, text, size);
        for (uint64_t i = 0; i < 1 + round % 4; i++) {
            uint64_t bits = mhp_random_u64(1, round, i);

            copy.data[(bits >> 8) % used] = "0129[]{},:\"-\xff "[bits % 14];
        }
        assert_true(is_expected(open_exact(copy.data, size)));
    }
    mhp_free(text);
}

/* Several files as one: tensors of all, and no name twice. */
static void test_sets(void **state)
{
    const char *const first = scratch_path("set-1.st"), *const second = scratch_path("set-2.st");
    const char *paths[] = {first, second}, *twice[] = {first, first};
    mhp_safetensors_writer *writer = NULL;
    mhp_safetensors *file = NULL;
    double values[6];
    mhp_tensor_info expected = scalar;

    (void)state;
    assert_ok(mhp_safetensors_create(first, &matrix, 1, NULL, &writer));
    assert_ok(mhp_safetensors_write(writer, matrix_data, sizeof matrix_data));
    assert_ok(mhp_safetensors_finish(writer));
    assert_ok(mhp_safetensors_create(second, &scalar, 1, NULL, &writer));
    assert_ok(mhp_safetensors_write(writer, scalar_data, sizeof scalar_data));
    assert_ok(mhp_safetensors_finish(writer));
    assert_ok(mhp_safetensors_open_set(paths, 2, &file));
    assert_int_equal(mhp_safetensors_count(file), 2);
    assert_int_equal(mhp_safetensors_find(file, "matrix"), 0);
    assert_int_equal(mhp_safetensors_find(file, "a.scalar"), 1);
    assert_int_equal(mhp_safetensors_find(file, "c"), -1);
    assert_string_equal(mhp_safetensors_path(file, 1), second);
    assert_ok(mhp_safetensors_read(file, &expected, values));
    assert_true(values[0] == scalar_data[0]);
    assert_false(mhp_hash_equal(mhp_safetensors_header_hash(file, 0), mhp_safetensors_header_hash(file, 1)));
    mhp_safetensors_close(file);
    file = NULL;
    assert_failed(mhp_safetensors_open_set(twice, 2, &file), MHP_ERR_FORMAT, "matrix", "as well", NULL);
    assert_null(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_data_is_aligned),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_read_of_what_is_not_there),
        cmocka_unit_test(test_writer_counts_bytes),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_writer_refuses_long_headers),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_wrong_headers),
        cmocka_unit_test(test_names_that_are_too_long),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_flipped_bytes_are_survived),
    };

    return cmocka_run_group_tests(tests, scratch_open, scratch_remove);
}
