/* Reading of configurations: values of every type, and what is refused with which words. */
#include "tests/unit/core/support.h"

#include <locale.h>

#include "core/memory.h"
#include "tests/unit/core/option_sample.h"

static mhp_status read_bytes(sample *parameters, const char *text, size_t length)
{
    return mhp_options_read_text(sample_table, parameters, "run.yaml", text, length);
}

static mhp_status read_text(sample *parameters, const char *text)
{
    return read_bytes(parameters, text, strlen(text));
}

/* Reads what is wrong and releases; the error text stays. */
static mhp_status read_wrong_bytes(const char *text, size_t length)
{
    sample parameters = {0};
    mhp_status status = read_bytes(&parameters, text, length);

    mhp_options_release(sample_table, &parameters);
    return status;
}

static mhp_status read_wrong(const char *text)
{
    return read_wrong_bytes(text, strlen(text));
}

/* A key of the least configuration with one line more before it. */
static mhp_status read_line(sample *parameters, const char *line)
{
    char text[1024];

    snprintf(text, sizeof text, "%s\n%s", line, SAMPLE_LEAST);
    return read_text(parameters, text);
}

static mhp_status read_wrong_line(const char *line)
{
    sample parameters = {0};
    mhp_status status = read_line(&parameters, line);

    mhp_options_release(sample_table, &parameters);
    return status;
}

/* ---- values ---- */

static void assert_defaults(const sample *parameters)
{
    assert_string_equal(parameters->name, "run 1");
    assert_int_equal(parameters->hidden_size, 64);
    assert_int_equal(parameters->any_integer, -3);
    assert_true(parameters->any_number == 0);
    assert_int_equal(parameters->sizes.count, 0);
    assert_int_equal(parameters->files.count, 2);
    assert_string_equal(parameters->files.items[0], "a.txt");
    assert_string_equal(parameters->files.items[1], "b c");
    assert_true(parameters->train.resume);
    assert_int_equal(parameters->train.optimizer.kind, SAMPLE_ADAMW);
    assert_true(parameters->train.optimizer.learning_rate == 3e-4);
    assert_int_equal(parameters->train.optimizer.betas.count, 2);
    assert_true(parameters->train.optimizer.betas.items[0] == 0.9);
    assert_true(parameters->train.optimizer.betas.items[1] == 0.95);
}

static void test_defaults(void **state)
{
    sample parameters = {0};
    const sample zero = {0};

    (void)state;
    assert_ok(mhp_options_default(sample_table, &parameters));
    assert_defaults(&parameters);
    assert_int_equal(parameters.train.steps, 0);
    parameters.train.steps = 9;
    assert_ok(mhp_options_default(sample_table, &parameters)); /* over what was there */
    assert_defaults(&parameters);
    assert_int_equal(parameters.train.steps, 0);
    mhp_options_release(sample_table, &parameters);
    assert_memory_equal(&parameters, &zero, sizeof zero);
    mhp_options_release(sample_table, &parameters); /* nothing left to release */
}

static void test_required_string_defaults_to_empty(void **state)
{
    const mhp_option table[] = {{.key = "path", .type = MHP_OPTION_STRING, .help = "a path"}, {0}};
    char *path = NULL;

    (void)state;
    assert_ok(mhp_options_default(table, &path));
    assert_string_equal(path, "");
    mhp_options_release(table, &path);
    assert_null(path);
}

static void test_wrong_default_is_internal(void **state)
{
    const mhp_option table[] = {{.key = "size",
                                 .type = MHP_OPTION_INT,
                                 .default_text = "0",
                                 .minimum = 1,
                                 .maximum = 2,
                                 .help = "a size"},
                                {0}};
    int64_t size = 0;

    (void)state;
    assert_failed(mhp_options_default(table, &size), MHP_ERR_INTERNAL, "\"0\"", "size", NULL);
}

static void test_integers_with_names(void **state)
{
    static const mhp_option_choice names[] = {{"auto", 0}, {NULL, 0}};
    const mhp_option table[] = {{.key = "block", .type = MHP_OPTION_INT, .default_text = "auto", .minimum = 1, .maximum = 9,
                                 .choices = names, .help = "a block"}, {0}};
    int64_t block = 5;

    (void)state;
    assert_ok(mhp_options_default(table, &block));
    assert_int_equal(block, 0);
    assert_ok(mhp_options_check(table, &block, ""));
    assert_ok(mhp_options_set(table, &block, "block=4"));
    assert_int_equal(block, 4);
    assert_ok(mhp_options_set(table, &block, "block=auto"));
    assert_int_equal(block, 0);
    assert_failed(mhp_options_set(table, &block, "block=0"), MHP_ERR_CONFIG, "auto or 1 to 9", NULL);
    assert_failed(mhp_options_set(table, &block, "block=autos"), MHP_ERR_CONFIG, "auto or 1 to 9", NULL);
}

static void test_least_document_keeps_defaults(void **state)
{
    sample parameters = {0};

    (void)state;
    assert_ok(read_text(&parameters, SAMPLE_LEAST));
    assert_defaults(&parameters);
    assert_int_equal(parameters.train.steps, 5);
    mhp_options_release(sample_table, &parameters);
}

static void test_every_type(void **state)
{
    static const char text[] = "name: alpha beta  # a comment\n"
                               "hidden_size: 4096\n"
                               "any_integer: -0x10\n"
                               "any_number: -1.5e3\n"
                               "sizes: [-5, 0x10, 1000000000000]\n"
                               "files:\n  - one\n  - \"2\"\n  - 'it''s'\n"
                               "train:\n"
                               "  steps: 7\n"
                               "  resume: false\n"
                               "  optimizer: {kind: lion, learning_rate: 1, betas: [1, -0.5]}\n";
    sample parameters = {0};

    (void)state;
    assert_ok(read_text(&parameters, text));
    assert_string_equal(parameters.name, "alpha beta");
    assert_int_equal(parameters.hidden_size, 4096);
    assert_int_equal(parameters.any_integer, -16);
    assert_true(parameters.any_number == -1500);
    assert_int_equal(parameters.sizes.count, 3);
    assert_int_equal(parameters.sizes.items[0], -5);
    assert_int_equal(parameters.sizes.items[1], 16);
    assert_int_equal(parameters.sizes.items[2], 1000000000000);
    assert_int_equal(parameters.files.count, 3);
    assert_string_equal(parameters.files.items[1], "2");
    assert_string_equal(parameters.files.items[2], "it's");
    assert_int_equal(parameters.train.steps, 7);
    assert_false(parameters.train.resume);
    assert_int_equal(parameters.train.optimizer.kind, SAMPLE_LION);
    assert_true(parameters.train.optimizer.learning_rate == 1);
    assert_true(parameters.train.optimizer.betas.items[1] == -0.5);
    assert_ok(read_text(&parameters, SAMPLE_LEAST)); /* a second reading starts from the defaults */
    assert_defaults(&parameters);
    mhp_options_release(sample_table, &parameters);
}

static void test_numbers_that_are_taken(void **state)
{
    static const struct {
        const char *line;
        double value;
    } cases[] = {{"any_number: 3", 3},           {"any_number: +2.5", 2.5},
                 {"any_number: .5", 0.5},        {"any_number: 5.", 5},
                 {"any_number: 1e-5", 1e-5},     {"any_number: 1E+3", 1000},
                 {"any_number: -0.0", 0},        {"any_number: 1e308", 1e308},
                 {"any_number: 5e-324", 5e-324}, {"any_number: 1.0e-05", 1e-5}};
    sample parameters = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(read_line(&parameters, cases[i].line));
        assert_true(parameters.any_number == cases[i].value);
    }
    assert_ok(read_line(&parameters, "any_integer: 9223372036854775807"));
    assert_true(parameters.any_integer == INT64_MAX);
    assert_ok(read_line(&parameters, "any_integer: -9223372036854775808"));
    assert_true(parameters.any_integer == INT64_MIN);
    assert_ok(read_line(&parameters, "hidden_size: 8"));
    assert_ok(read_line(&parameters, "hidden_size: 65536"));
    assert_int_equal(parameters.hidden_size, 65536);
    mhp_options_release(sample_table, &parameters);
}

static void test_strings_that_are_taken(void **state)
{
    static const char *const cases[][2] = {
        {"name: \"true\"", "true"},
        {"name: '12'", "12"},
        {"name: \"\"", ""},
        {"name: 'null'", "null"},
        {"name: 1.2.3", "1.2.3"},
        {"name: 08:15", "08:15"},
        {"name: yes", "yes"},
        {"name: \"a\\nb\\u00e4\"", "a\nb\xc3\xa4"},
        {"name: |\n  x\n  y", "x\ny\n"},
        {"name: \xe4\xb8\xad", "\xe4\xb8\xad"},
        {"name: 0x", "0x"},
        {"name: >-\n  one\n  two", "one two"},
    };
    sample parameters = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(read_line(&parameters, cases[i][0]));
        assert_string_equal(parameters.name, cases[i][1]);
    }
    assert_ok(read_line(&parameters, "files: only.txt"));
    assert_int_equal(parameters.files.count, 1);
    assert_string_equal(parameters.files.items[0], "only.txt");
    assert_ok(read_line(&parameters, "files: []"));
    assert_int_equal(parameters.files.count, 0);
    mhp_options_release(sample_table, &parameters);
}

/* ---- what is refused ---- */

static void test_unknown_keys(void **state)
{
    (void)state;
    assert_failed(read_wrong_line("hiden_size: 8"), MHP_ERR_CONFIG,
                  "run.yaml:1:1: ", "unknown key \"hiden_size\"", "the nearest is hidden_size",
                  NULL);
    assert_failed(read_wrong("name: a\ntrain:\n  steps: 5\n  resmue: true\n"), MHP_ERR_CONFIG,
                  "run.yaml:4:3: ", "\"train.resmue\"", "nearest is train.resume", NULL);
    assert_failed(read_wrong("train: {steps: 5, learning_rat: 1}\n"), MHP_ERR_CONFIG,
                  "run.yaml:1:19: ", "nearest is train.optimizer.learning_rate", NULL);
    assert_failed(read_wrong_line("completely_different: 8"), MHP_ERR_CONFIG,
                  "\"completely_different\"", "such as name", NULL);
    assert_failed(read_wrong_line("[a]: 8"), MHP_ERR_CONFIG, "run.yaml:1:1: ", "no word", NULL);
    assert_failed(read_wrong_line("~: 8"), MHP_ERR_CONFIG, "run.yaml:1:1: ", "unknown key", NULL);
    assert_failed(read_wrong_line("\"name\\0\": 8"), MHP_ERR_CONFIG, "unknown key", NULL);
}

static void test_duplicate_keys(void **state)
{
    (void)state;
    assert_failed(read_wrong("name: a\nhidden_size: 9\n\nname: b\n" SAMPLE_LEAST), MHP_ERR_CONFIG,
                  "run.yaml:4:1: ", "duplicate key name", "line 1", NULL);
    assert_failed(read_wrong("train:\n  steps: 5\n  optimizer: {kind: sgd, kind: sgd}\n"),
                  MHP_ERR_CONFIG, "run.yaml:3:", "train.optimizer.kind", "line 3", NULL);
    assert_failed(read_wrong(SAMPLE_LEAST SAMPLE_LEAST), MHP_ERR_CONFIG,
                  "run.yaml:3:1: ", "duplicate key train", NULL);
}

static void test_missing_keys(void **state)
{
    (void)state;
    assert_failed(read_wrong("name: a\n"), MHP_ERR_CONFIG, "run.yaml: ", "train.steps is missing",
                  "an integer, 1 to 1e+09 steps", NULL);
    assert_failed(read_wrong("train: {}\n"), MHP_ERR_CONFIG, "train.steps is missing", NULL);
    assert_failed(read_wrong("{}"), MHP_ERR_CONFIG, "train.steps is missing", NULL);
}

typedef struct refused_line {
    const char *line;
    const char *parts[3];
} refused_line;

static void assert_refused(const refused_line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mhp_status status = read_wrong_line(lines[i].line);

        if (status != MHP_ERR_CONFIG) {
            fail_msg("\"%s\" gave %d", lines[i].line, status);
        }
        assert_contains(mhp_error_text(), "run.yaml:1:");
        for (size_t part = 0; part < 3 && lines[i].parts[part]; part++) {
            assert_contains(mhp_error_text(), lines[i].parts[part]);
        }
    }
}

static void test_wrong_types(void **state)
{
    static const refused_line lines[] = {
        {"hidden_size: many", {":14: ", "\"many\"", "an integer, 8 to 65536 elements"}},
        {"hidden_size: 64.0", {"hidden_size is \"64.0\""}},
        {"hidden_size: \"64\"", {"hidden_size is \"64\""}},
        {"hidden_size: 064", {"hidden_size is \"064\""}},
        {"hidden_size: 0xZ", {"hidden_size is \"0xZ\""}},
        {"hidden_size: 1_000", {"hidden_size is \"1_000\""}},
        {"hidden_size: [64]", {"hidden_size is a list", "an integer"}},
        {"hidden_size: {a: 1}", {"hidden_size is a mapping", "an integer"}},
        {"any_number: 0,5", {"\"0,5\"", "a number"}},
        {"any_number: 0x10", {"\"0x10\"", "a number"}},
        {"any_number: .inf", {"\".inf\"", "a number"}},
        {"any_number: .nan", {"\".nan\"", "a number"}},
        {"any_number: 1e", {"\"1e\"", "a number"}},
        {"any_number: .", {"\".\"", "a number"}},
        {"any_number: \"0.5\"", {"\"0.5\"", "a number"}},
        {"name: true", {"name is true", "a string", "in quotes"}},
        {"name: 12", {"name is 12", "\"12\" in quotes"}},
        {"name: 1e3", {"\"1e3\" in quotes"}},
        {"name: False", {"\"False\" in quotes"}},
        {"name: -.inf", {"\"-.inf\" in quotes"}},
        {"name: [a]", {"name is a list"}},
        {"name: \"a\\0b\"", {"name is"}},
        {"sizes: 3", {"\"3\"", "a list of integers, -5 to 1e+12 bytes"}},
        {"sizes: [1, x]", {":12: ", "\"x\""}},
        {"sizes: [[1]]", {"sizes is a list"}},
        {"sizes: {a: 1}", {"sizes is a mapping"}},
        {"files: [a, 1]", {":12: ", "a string or a list of strings"}},
        {"files: {a: 1}", {"files is a mapping"}},
        {"train: 3", {"train is \"3\"", "a mapping"}},
        {"train: [steps]", {"train is a list", "a mapping"}},
        {"train: {steps: 1, resume: yes}", {"train.resume is \"yes\"", "true or false"}},
        {"train: {steps: 1, resume: True}", {"train.resume is \"True\"", "true or false"}},
        {"train: {steps: 1, resume: \"true\"}", {"train.resume", "true or false"}},
        {"train: {steps: 1, optimizer: {kind: adam}}",
         {"kind is \"adam\"", "adamw, sgd or lion", "the nearest is adamw"}},
        {"train: {steps: 1, optimizer: {kind: conjugate}}", {"\"conjugate\""}},
        {"train: {steps: 1, optimizer: {kind: 3}}", {"\"3\"", "adamw, sgd or lion"}},
        {"train: {steps: 1, optimizer: {betas: [0.5, x]}}", {"\"x\"", "a list of numbers"}},
    };

    (void)state;
    assert_refused(lines, sizeof lines / sizeof lines[0]);
}

static void test_out_of_range(void **state)
{
    static const refused_line lines[] = {
        {"hidden_size: 7", {"\"7\"", "8 to 65536 elements"}},
        {"hidden_size: 65537", {"\"65537\"", "8 to 65536 elements"}},
        {"hidden_size: -64", {"\"-64\""}},
        {"any_integer: 9223372036854775808", {"an integer"}},
        {"any_integer: -9223372036854775809", {"an integer"}},
        {"any_integer: 0x8000000000000000", {"an integer"}},
        {"any_number: 1e309", {"\"1e309\"", "a number"}},
        {"any_number: -1e999", {"a number"}},
        {"sizes: [0, -6]", {":12: ", "\"-6\"", "-5 to 1e+12"}},
        {"sizes: [1000000000001]", {"-5 to 1e+12"}},
        {"train: {steps: 0}", {"train.steps is \"0\"", "1 to 1e+09 steps"}},
        {"train: {steps: 1, optimizer: {learning_rate: 0}}", {"1e-09 to 10"}},
        {"train: {steps: 1, optimizer: {learning_rate: 10.01}}", {"\"10.01\""}},
        {"train: {steps: 1, optimizer: {betas: [1.5]}}", {"\"1.5\"", "-1 to 1"}},
    };

    (void)state;
    assert_refused(lines, sizeof lines / sizeof lines[0]);
}

static void test_null(void **state)
{
    static const refused_line lines[] = {
        {"name:", {"name is null", "a string"}},
        {"name: ~", {"name is null"}},
        {"name: null", {"name is null"}},
        {"hidden_size:", {"hidden_size is null"}},
        {"sizes:", {"sizes is null"}},
        {"files:", {"files is null"}},
        {"files: [a, ~]", {"files is null"}},
        {"train: {steps: }", {"train.steps is null"}},
        {"train: {steps: 1, optimizer: }", {"optimizer is null", "a mapping"}},
        {"train: {steps: 1, optimizer: {kind: NULL}}", {"kind is null"}},
    };

    (void)state;
    assert_refused(lines, sizeof lines / sizeof lines[0]);
}

static void test_yaml_that_is_not_read(void **state)
{
    static const refused_line lines[] = {
        {"name: *other", {":7: ", "alias *other"}},
        {"name: &mark a", {":7: ", "anchor &mark"}},
        {"sizes: &mark [1]", {":8: ", "anchor &mark"}},
        {"train: &mark {steps: 1}", {":8: ", "anchor &mark"}},
        {"name: !!str 12", {":7: ", "tag "}},
        {"sizes: !!seq [1]", {":8: ", "tag "}},
        {"train: !thing {steps: 1}", {":8: ", "tag !thing"}},
        {"<<: *base", {"alias *base"}},
        {"&mark name: a", {"anchor &mark"}},
    };

    (void)state;
    assert_refused(lines, sizeof lines / sizeof lines[0]);
    assert_failed(read_wrong(SAMPLE_LEAST "---\nname: b\n"), MHP_ERR_CONFIG,
                  "run.yaml:3:1: ", "second document", NULL);
    assert_failed(read_wrong("name: [a\n" SAMPLE_LEAST), MHP_ERR_CONFIG, "run.yaml:", "not YAML",
                  NULL);
    assert_failed(read_wrong("name: \"a\n"), MHP_ERR_CONFIG, "run.yaml:", "not YAML", NULL);
    assert_failed(read_wrong("name: a\n\thidden_size: 8\n"), MHP_ERR_CONFIG, "run.yaml:2:", NULL);
}

static void test_empty_documents(void **state)
{
    (void)state;
    assert_failed(read_wrong(""), MHP_ERR_CONFIG, "run.yaml:1:1: ", "nothing in it", NULL);
    assert_failed(read_wrong(" \n# a comment\n"), MHP_ERR_CONFIG, "nothing in it", NULL);
    assert_failed(read_wrong("---\n"), MHP_ERR_CONFIG, "run.yaml:", "the document is null", NULL);
    assert_failed(read_wrong("a word"), MHP_ERR_CONFIG, "run.yaml:1:1: ", "a mapping", NULL);
    assert_failed(read_wrong("- a\n- b\n"), MHP_ERR_CONFIG, "is a list", "a mapping", NULL);
}

static void test_depth(void **state)
{
    static const char at_limit[] = "sizes: [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]\n";
    static const char beyond[] = "sizes: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n";

    (void)state;
    assert_failed(read_wrong(at_limit), MHP_ERR_CONFIG, "run.yaml:1:9: ", "sizes is a list", NULL);
    assert_failed(read_wrong(beyond), MHP_ERR_CONFIG, "run.yaml:1:23: ", "nested 17 deep",
                  "at most 16", NULL);
}

static void test_bytes_that_are_no_text(void **state)
{
    static const struct {
        const char *text;
        size_t length;
        const char *place;
    } cases[] = {
        {"name: a\nname: \xff\n", 15, "run.yaml:2:7: "}, {"name: \xc3", 7, "run.yaml:1:7: "},
        {"name: \xed\xa0\x80\n", 10, "run.yaml:1:7: "},  {"name: \xc0\x80\n", 9, "run.yaml:1:7: "},
        {"name: a\0b\n", 10, "run.yaml:1:8: "},          {"name: \x01\n", 8, "run.yaml:1:7: "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_failed(read_wrong_bytes(cases[i].text, cases[i].length), MHP_ERR_CONFIG,
                      cases[i].place, "UTF-8", NULL);
    }
    assert_failed(read_wrong_bytes("\xff\xfen\0a\0", 6), MHP_ERR_CONFIG, "run.yaml:1:1: ", NULL);
}

/* A list of so many zeros as text; released by the caller. */
static char *make_list(size_t count, size_t *length_out)
{
    static const char head[] = SAMPLE_LEAST "sizes: [";
    char *text = malloc(sizeof head + 2 * count + 4), *end = text;

    assert_non_null(text);
    end = stpcpy(end, head);
    for (size_t i = 0; i < count; i++) {
        end = stpcpy(end, "0,");
    }
    end = stpcpy(end, "]\n");
    *length_out = (size_t)(end - text);
    return text;
}

static void test_items_limit(void **state)
{
    sample parameters = {0};
    size_t length;
    char *text = make_list(MHP_OPTION_ITEMS_MAX, &length);

    (void)state;
    assert_ok(read_bytes(&parameters, text, length));
    assert_int_equal(parameters.sizes.count, MHP_OPTION_ITEMS_MAX);
    free(text);
    text = make_list(MHP_OPTION_ITEMS_MAX + 1, &length);
    assert_failed(read_bytes(&parameters, text, length), MHP_ERR_CONFIG, "run.yaml:3:", "sizes",
                  "at most 65536", NULL);
    free(text);
    mhp_options_release(sample_table, &parameters);
}

static void test_size_limit(void **state)
{
    char *text = malloc(MHP_OPTION_TEXT_MAX + 1);
    const char *path = scratch_path("large.yaml");
    sample parameters = {0};
    size_t least = strlen(SAMPLE_LEAST);

    (void)state;
    assert_non_null(text);
    memset(text, '#', MHP_OPTION_TEXT_MAX + 1);
    memcpy(text, SAMPLE_LEAST, least);
    assert_ok(read_bytes(&parameters, text, MHP_OPTION_TEXT_MAX));
    assert_failed(read_bytes(&parameters, text, MHP_OPTION_TEXT_MAX + 1), MHP_ERR_LIMIT, "run.yaml",
                  "1048576", NULL);
    scratch_write(path, text, MHP_OPTION_TEXT_MAX + 1);
    assert_failed(mhp_options_read_file(sample_table, &parameters, path), MHP_ERR_LIMIT, path,
                  NULL);
    mhp_options_release(sample_table, &parameters);
    free(text);
}

static void test_files(void **state)
{
    const char *path = scratch_path("run.yaml"), *missing = scratch_path("missing.yaml");
    sample parameters = {0};
    char place[SCRATCH_PATH_MAX];

    (void)state;
    scratch_write(path, SAMPLE_LEAST, strlen(SAMPLE_LEAST));
    assert_ok(mhp_options_read_file(sample_table, &parameters, path));
    assert_defaults(&parameters);
    assert_int_equal(parameters.train.steps, 5);
    scratch_write(path, "nam: x\n", 7);
    snprintf(place, sizeof place, "%s:1:1: ", path);
    assert_failed(mhp_options_read_file(sample_table, &parameters, path), MHP_ERR_CONFIG, place,
                  "nearest is name", NULL);
    assert_failed(mhp_options_read_file(sample_table, &parameters, missing), MHP_ERR_NOT_FOUND,
                  missing, NULL);
    mhp_options_release(sample_table, &parameters);
}

/* Cuts and changes of a valid document end in a status, and what was read can be released. */
static void test_mutations_are_survived(void **state)
{
    static const char text[] = "name: \"a\\u00e4\"\nsizes: [1, 2]\nfiles:\n - x\n - 'y'\n"
                               "train: {steps: 5, optimizer: {betas: [0.5], kind: sgd}}\n";
    static const char bytes[] = "\0\n\t :-[]{},#&*!|>'\"%@`~?\xc3\xff"
                                "0";
    char copy[sizeof text];
    int refused_count = 0;

    (void)state;
    for (size_t at = 0; at + 1 < sizeof text; at++) {
        for (size_t i = 0; i + 1 < sizeof bytes; i++) {
            mhp_status status;

            memcpy(copy, text, sizeof text);
            copy[at] = bytes[i];
            status = read_wrong_bytes(copy, sizeof text - 1);
            assert_true(status == MHP_OK || status == MHP_ERR_CONFIG);
            refused_count += status != MHP_OK;
        }
        assert_in_range(-read_wrong_bytes(text, at), 0, -MHP_ERR_CONFIG);
    }
    assert_true(refused_count > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_required_string_defaults_to_empty),
        cmocka_unit_test(test_wrong_default_is_internal),
        cmocka_unit_test(test_integers_with_names),
        cmocka_unit_test(test_least_document_keeps_defaults),
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_numbers_that_are_taken),
        cmocka_unit_test(test_strings_that_are_taken),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_duplicate_keys),
        cmocka_unit_test(test_missing_keys),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_yaml_that_is_not_read),
        cmocka_unit_test(test_empty_documents),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_bytes_that_are_no_text),
        cmocka_unit_test(test_items_limit),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_mutations_are_survived),
    };

    return cmocka_run_group_tests(tests, scratch_open, scratch_remove);
}
