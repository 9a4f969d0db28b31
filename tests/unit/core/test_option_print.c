/* Overrides, printing that reads back, the documentation of keys, and locales. */
#include "tests/unit/core/support.h"

#include <float.h>
#include <locale.h>
#include <math.h>

#include "core/memory.h"
#include "core/random.h"
#include "tests/unit/core/option_sample.h"

static mhp_status load(sample *parameters, size_t count, char *const *overrides)
{
    const char *path = scratch_path("load.yaml");

    scratch_write(path, SAMPLE_LEAST, strlen(SAMPLE_LEAST));
    return mhp_options_load(sample_table, parameters, path, overrides, count);
}

/* One override that is wrong. */
static mhp_status load_wrong(const char *override)
{
    sample parameters = {0};
    char *copy = strdup(override);
    mhp_status status;

    assert_non_null(copy);
    status = load(&parameters, 1, &copy);
    mhp_options_release(sample_table, &parameters);
    free(copy);
    return status;
}

/* What was printed, released by the caller. */
static char *print(const mhp_option *table, const void *parameters)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    assert_non_null(stream);
    assert_ok(mhp_options_print(table, parameters, stream));
    assert_int_equal(fclose(stream), 0);
    return text;
}

static mhp_status print_wrong(const sample *parameters)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    mhp_status status;

    assert_non_null(stream);
    status = mhp_options_print(sample_table, parameters, stream);
    fclose(stream);
    free(text);
    return status;
}

/* ---- overrides ---- */

static void test_overrides(void **state)
{
    char *overrides[] = {
        (char[]){"name=a=b"},
        (char[]){"hidden_size=128"},
        (char[]){"train.steps=9"},
        (char[]){"train.optimizer.kind=sgd"},
        (char[]){"train.optimizer.betas=[0.25]"},
        (char[]){"files=x.txt"},
        (char[]){"sizes=[1, 2, 3]"},
        (char[]){"train.optimizer.betas=[0.5, 0.75]"},
        (char[]){"hidden_size=256"},
        (char[]){"sizes=[]"},
        (char[]){"any_number= -0.5"},
    };
    sample parameters = {0};

    (void)state;
    assert_ok(load(&parameters, sizeof overrides / sizeof overrides[0], overrides));
    assert_string_equal(parameters.name, "a=b");
    assert_int_equal(parameters.hidden_size, 256);
    assert_int_equal(parameters.train.steps, 9);
    assert_int_equal(parameters.train.optimizer.kind, SAMPLE_SGD);
    assert_int_equal(parameters.train.optimizer.betas.count, 2);
    assert_true(parameters.train.optimizer.betas.items[0] == 0.5);
    assert_int_equal(parameters.files.count, 1);
    assert_string_equal(parameters.files.items[0], "x.txt");
    assert_int_equal(parameters.sizes.count, 0);
    assert_true(parameters.any_number == -0.5);
    mhp_options_release(sample_table, &parameters);
}

static void test_override_of_a_section(void **state)
{
    char *overrides[] = {
        (char[]){"train.resume=false"},
        (char[]){"train={steps: 3, optimizer: {kind: lion}}"},
        (char[]){"train.optimizer={}"},
        (char[]){"train.optimizer.learning_rate=2"},
    };
    sample parameters = {0};

    (void)state;
    assert_ok(mhp_options_load(sample_table, &parameters, NULL, overrides, 4));
    assert_int_equal(parameters.train.steps, 3);
    assert_false(parameters.train.resume); /* a mapping changes the keys in it, no others */
    assert_int_equal(parameters.train.optimizer.kind, SAMPLE_LION);
    assert_true(parameters.train.optimizer.learning_rate == 2);
    mhp_options_release(sample_table, &parameters);
}

static void test_overrides_count_before_required_keys(void **state)
{
    char *steps[] = {(char[]){"train.steps=3"}};
    sample parameters = {0};

    (void)state;
    assert_failed(mhp_options_load(sample_table, &parameters, NULL, NULL, 0), MHP_ERR_CONFIG,
                  "train.steps is missing", NULL);
    assert_ok(mhp_options_load(sample_table, &parameters, NULL, steps, 1));
    assert_int_equal(parameters.train.steps, 3);
    mhp_options_release(sample_table, &parameters);
}

static void test_set_alone(void **state)
{
    sample parameters = {0};

    (void)state;
    assert_ok(mhp_options_default(sample_table, &parameters));
    assert_ok(mhp_options_set(sample_table, &parameters, "train.steps=11"));
    assert_ok(mhp_options_set(sample_table, &parameters, "name=\"\""));
    assert_int_equal(parameters.train.steps, 11);
    assert_string_equal(parameters.name, "");
    assert_int_equal(parameters.hidden_size, 64);
    assert_failed(mhp_options_set(sample_table, &parameters, "train.steps=0"), MHP_ERR_CONFIG,
                  "--set train.steps=0: ", "1 to 1e+09 steps", NULL);
    mhp_options_release(sample_table, &parameters);
}

static void test_wrong_overrides(void **state)
{
    static const char *const cases[][3] = {
        {"hidden_size", "expected section.key=value"},
        {"=3", "expected section.key=value"},
        {"hidden_size=", "no value", "an integer"},
        {"name=", "no value", "a string"},
        {"hidden_size=x", "\"x\"", "8 to 65536 elements"},
        {"hidden_size=4", "\"4\"", "8 to 65536 elements"},
        {"hidden_size=~", "is null"},
        {"hiden_size=64", "unknown key \"hiden_size\"", "the nearest is hidden_size"},
        {"train.step=64", "unknown key \"step\"", "the nearest is train.steps"},
        {"tarin.steps=64", "unknown key \"tarin\"", "the nearest is train"},
        {"train..steps=64", "unknown key \"\""},
        {".steps=64", "unknown key"},
        {"train.=64", "unknown key"},
        {"train.steps.x=64", "steps is no section"},
        {"train=3", "a mapping of keys"},
        {"train={stepz: 3}", "\"train.stepz\"", "the nearest is train.steps"},
        {"train={steps: 3, steps: 4}", "duplicate key train.steps"},
        {"train.optimizer.kind=sdg", "the nearest is sgd"},
        {"sizes=[1, 2", "not YAML"},
        {"name=*x", "alias *x"},
        {"name=&x y", "anchor &x"},
        {"name=!x y", "tag !x"},
        {"name=a\n---\nb", "second document"},
        {"name=\xff", "UTF-8"},
        {"sizes=[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "nested 17 deep"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char start[256];

        snprintf(start, sizeof start, "--set %s: ", cases[i][0]);
        assert_failed(load_wrong(cases[i][0]), MHP_ERR_CONFIG, start, cases[i][1], cases[i][2],
                      NULL);
        assert_ptr_equal(strstr(mhp_error_text(), "--set"), mhp_error_text());
    }
}

static void test_long_overrides(void **state)
{
    char *text = malloc(MHP_OPTION_TEXT_MAX + 64);

    (void)state;
    assert_non_null(text);
    memset(text, 'a', MHP_OPTION_TEXT_MAX + 63);
    text[MHP_OPTION_TEXT_MAX + 63] = '\0';
    assert_failed(load_wrong(text), MHP_ERR_CONFIG, "--set aaa", NULL);
    text[MHP_OPTION_PATH_MAX] = '=';
    assert_failed(load_wrong(text), MHP_ERR_CONFIG, "--set aaa", "fewer than 256 bytes", NULL);
    memcpy(text, "name=", 5);
    assert_failed(load_wrong(text), MHP_ERR_LIMIT, "--set name=aaa", "1048576", NULL);
    free(text);
}

/* ---- printing ---- */

static void assert_same(const sample *a, const sample *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->hidden_size, b->hidden_size);
    assert_true(a->any_integer == b->any_integer);
    assert_memory_equal(&a->any_number, &b->any_number, sizeof a->any_number);
    assert_int_equal(a->sizes.count, b->sizes.count);
    for (size_t i = 0; i < a->sizes.count; i++) {
        assert_true(a->sizes.items[i] == b->sizes.items[i]);
    }
    assert_int_equal(a->files.count, b->files.count);
    for (size_t i = 0; i < a->files.count; i++) {
        assert_string_equal(a->files.items[i], b->files.items[i]);
    }
    assert_int_equal(a->train.steps, b->train.steps);
    assert_int_equal(a->train.resume, b->train.resume);
    assert_int_equal(a->train.optimizer.kind, b->train.optimizer.kind);
    assert_true(a->train.optimizer.learning_rate == b->train.optimizer.learning_rate);
    assert_int_equal(a->train.optimizer.betas.count, b->train.optimizer.betas.count);
    for (size_t i = 0; i < a->train.optimizer.betas.count; i++) {
        assert_true(a->train.optimizer.betas.items[i] == b->train.optimizer.betas.items[i]);
    }
}

/* Printed, read, compared, and printed again to the same text. */
static void assert_reads_back(const sample *parameters)
{
    char *text = print(sample_table, parameters), *again;
    sample copy = {0};

    assert_ok(mhp_options_read_text(sample_table, &copy, "printed", text, strlen(text)));
    assert_same(parameters, &copy);
    again = print(sample_table, &copy);
    assert_string_equal(text, again);
    mhp_options_release(sample_table, &copy);
    free(again);
    free(text);
}

static sample make_sample(void)
{
    sample parameters = {0};

    assert_ok(mhp_options_default(sample_table, &parameters));
    parameters.train.steps = 5;
    return parameters;
}

static void rename_sample(sample *parameters, const char *name)
{
    mhp_free(parameters->name);
    assert_ok(mhp_strdup(&parameters->name, name));
}

static void test_print_of_defaults(void **state)
{
    sample parameters = make_sample();
    char *text = print(sample_table, &parameters);

    (void)state;
    assert_string_equal(text, "name: \"run 1\"\n"
                              "hidden_size: 64\n"
                              "any_integer: -3\n"
                              "any_number: 0.0\n"
                              "sizes: []\n"
                              "files: [a.txt, \"b c\"]\n"
                              "train:\n"
                              "  steps: 5\n"
                              "  resume: true\n"
                              "  optimizer:\n"
                              "    kind: adamw\n"
                              "    learning_rate: 0.0003\n"
                              "    betas: [0.9, 0.95]\n");
    free(text);
    mhp_options_release(sample_table, &parameters);
}

static void test_strings_read_back(void **state)
{
    static const char *const strings[] = {
        "",
        " ",
        "~",
        "null",
        "NULL",
        "true",
        "False",
        "yes",
        "no",
        "on",
        "12",
        "-3",
        "+4",
        "0x1F",
        "0o7",
        "007",
        "1e5",
        "1.5",
        ".5",
        "5.",
        ".inf",
        "-.inf",
        ".NaN",
        "-",
        "--",
        "---",
        "...",
        "+",
        ".",
        "_",
        "/",
        "=",
        "<<",
        "1_000",
        "1:30",
        "2024-01-02",
        "a: b",
        "a:",
        ":a",
        "a #b",
        "#a",
        "- a",
        "? a",
        "[a]",
        "{a}",
        "a, b",
        "*a",
        "&a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a`",
        "'",
        "\"",
        "it's",
        "say \"hi\"",
        "\\",
        "\\n",
        "a\nb",
        "\n",
        "a\n\n b\n",
        "\t",
        "\r\n",
        " lead",
        "trail ",
        "a\x01z",
        "\x1b[0m",
        "\x7f",
        "\xc2\x80",
        "\xc2\x85",
        "\xc2\xa0",
        "gr\xc3\xbc\xc3\x9f",
        "\xe4\xb8\xad\xe6\x96\x87",
        "\xe2\x80\xa8",
        "\xe2\x80\xa9",
        ("\xef\xbb\xbf"
         "bom"),
        "\xef\xbf\xbe",
        "\xef\xbf\xbf",
        "\xee\x80\x80",
        "\xf0\x9f\x99\x82",
        "\xf4\x8f\xbf\xbf",
        "/data/run-1/x_y.bin",
        "../x",
        "C:\\x",
    };
    size_t count = sizeof strings / sizeof strings[0];
    sample parameters = make_sample();

    (void)state;
    for (size_t i = 0; i < count; i++) {
        rename_sample(&parameters, strings[i]);
        assert_reads_back(&parameters);
    }
    for (size_t i = 0; i < parameters.files.count; i++) {
        mhp_free(parameters.files.items[i]);
    }
    assert_ok(mhp_realloc(&parameters.files.items, count, sizeof parameters.files.items[0]));
    parameters.files.count = 0;
    for (size_t i = 0; i < count; i++) {
        assert_ok(mhp_strdup(&parameters.files.items[i], strings[i]));
        parameters.files.count++;
    }
    assert_reads_back(&parameters);
    mhp_options_release(sample_table, &parameters);
}

static void test_long_strings_read_back(void **state)
{
    sample parameters = make_sample();
    char *name;

    (void)state;
    assert_ok(mhp_calloc(&name, 5001, 1));
    memset(name, 'x', 5000);
    rename_sample(&parameters, name);
    assert_reads_back(&parameters);
    for (size_t i = 0; i < 5000; i += 3) {
        name[i] = i % 2 ? ' ' : '\n';
    }
    rename_sample(&parameters, name);
    assert_reads_back(&parameters);
    mhp_free(name);
    mhp_options_release(sample_table, &parameters);
}

static void test_numbers_read_back(void **state)
{
    static const double numbers[] = {0,
                                     -0.0,
                                     1,
                                     0.1,
                                     1.0 / 3,
                                     -2.5,
                                     1e15,
                                     1e16,
                                     1e17,
                                     1e22,
                                     1e23,
                                     123456789012345680,
                                     DBL_MAX,
                                     DBL_MIN,
                                     5e-324,
                                     DBL_EPSILON,
                                     1e-5,
                                     -DBL_MAX,
                                     9007199254740993.0,
                                     1234567890123456.0,
                                     999999999999999.9};
    sample parameters = make_sample();

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        parameters.any_number = numbers[i];
        assert_reads_back(&parameters);
    }
    parameters.any_integer = INT64_MIN;
    assert_reads_back(&parameters);
    parameters.any_integer = INT64_MAX;
    assert_reads_back(&parameters);
    mhp_options_release(sample_table, &parameters);
}

/* Any YAML reader must see a float: a point, and a sign in the exponent. */
static void test_floats_have_a_point(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {3, "any_number: 3.0\n"},
        {0.1, "any_number: 0.1\n"},
        {1e-5, "any_number: 1.0e-05\n"},
        {1e300, "any_number: 1.0e+300\n"},
        {1.5e-7, "any_number: 1.5e-07\n"},
        {1234567890123456, "any_number: 1234567890123456.0\n"},
        {-12345678901234568, "any_number: -12345678901234568.0\n"},
    };
    sample parameters = make_sample();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text;

        parameters.any_number = cases[i].value;
        text = print(sample_table, &parameters);
        assert_contains(text, cases[i].text);
        free(text);
    }
    mhp_options_release(sample_table, &parameters);
}

/* ---- random parameters ---- */

/* The `index`-th draw of round `round`. */
static uint64_t draw(uint64_t round, uint64_t index)
{
    return mhp_random_u64(11, round, index);
}

static double draw_double(uint64_t round, uint64_t index)
{
    uint64_t bits = draw(round, index);
    double value;

    memcpy(&value, &bits, sizeof value);
    return isfinite(value) ? value : 0.5;
}

/* Up to 20 characters from several corners of Unicode, NUL left out. */
static char *draw_string(uint64_t round, uint64_t index)
{
    static const char *const characters[] = {"a",
                                             "B",
                                             "7",
                                             ".",
                                             "-",
                                             ":",
                                             " ",
                                             "#",
                                             "\"",
                                             "\\",
                                             "'",
                                             "\n",
                                             "\t",
                                             "\x02",
                                             "\xc3\xa4",
                                             "\xe2\x80\xa8",
                                             ",",
                                             "]",
                                             "\xf0\x9f\x99\x82",
                                             "\xc2\x85"};
    uint64_t length = draw(round, index) % 20;
    char text[128], *end = text;
    char *copy;

    *end = '\0';
    for (uint64_t i = 0; i < length; i++) {
        uint64_t kind = draw(round, index + 1 + i) % (sizeof characters / sizeof characters[0]);

        end = stpcpy(end, characters[kind]);
    }
    assert_ok(mhp_strdup(&copy, text));
    return copy;
}

static sample draw_sample(uint64_t round)
{
    static const int kinds[] = {SAMPLE_ADAMW, SAMPLE_SGD, SAMPLE_LION};
    sample p = {.name = draw_string(round, 0)};

    p.hidden_size = 8 + (int64_t)(draw(round, 30) % 65529);
    p.any_integer = (int64_t)draw(round, 31);
    p.any_number = draw_double(round, 32);
    p.sizes.count = draw(round, 33) % 9;
    assert_ok(mhp_calloc(&p.sizes.items, p.sizes.count, sizeof p.sizes.items[0]));
    for (size_t i = 0; i < p.sizes.count; i++) {
        p.sizes.items[i] = (int64_t)(draw(round, 40 + i) % 1000000000006) - 5;
    }
    p.files.count = draw(round, 34) % 5;
    assert_ok(mhp_calloc(&p.files.items, p.files.count, sizeof p.files.items[0]));
    for (size_t i = 0; i < p.files.count; i++) {
        p.files.items[i] = draw_string(round, 100 + 30 * i);
    }
    p.train.steps = 1 + (int64_t)(draw(round, 35) % 1000000000);
    p.train.resume = draw(round, 36) % 2;
    p.train.optimizer.kind = kinds[draw(round, 37) % 3];
    p.train.optimizer.learning_rate = 1e-9 + 9 * mhp_random_uniform(11, round, 38);
    p.train.optimizer.betas.count = draw(round, 39) % 4;
    assert_ok(
        mhp_calloc(&p.train.optimizer.betas.items, p.train.optimizer.betas.count, sizeof(double)));
    for (size_t i = 0; i < p.train.optimizer.betas.count; i++) {
        p.train.optimizer.betas.items[i] = 2 * mhp_random_uniform(11, round, 60 + i) - 1;
    }
    return p;
}

static void test_random_parameters_read_back(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 1000; round++) {
        sample parameters = draw_sample(round);

        assert_reads_back(&parameters);
        mhp_options_release(sample_table, &parameters);
    }
}

/* ---- what cannot be printed ---- */

static void test_values_that_cannot_be_printed(void **state)
{
    sample parameters = make_sample();

    (void)state;
    parameters.any_number = INFINITY;
    assert_failed(print_wrong(&parameters), MHP_ERR_INVALID, "any_number", "finite", NULL);
    parameters.any_number = NAN;
    assert_failed(print_wrong(&parameters), MHP_ERR_INVALID, "any_number", "finite", NULL);
    parameters.any_number = 0;
    parameters.train.optimizer.kind = 99;
    assert_failed(print_wrong(&parameters), MHP_ERR_INVALID, "kind", "99", NULL);
    parameters.train.optimizer.kind = SAMPLE_SGD;
    rename_sample(&parameters, "a\xff");
    assert_failed(print_wrong(&parameters), MHP_ERR_INVALID, "name", "UTF-8", NULL);
    mhp_options_release(sample_table, &parameters);
}

static void test_full_device(void **state)
{
    sample parameters = make_sample();
    FILE *stream = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(stream);
    assert_failed(mhp_options_print(sample_table, &parameters, stream), MHP_ERR_IO, "No space",
                  NULL);
    assert_failed(mhp_options_list(sample_table, stream), MHP_ERR_IO, NULL);
    fclose(stream);
    mhp_options_release(sample_table, &parameters);
}

static void test_empty_section_reads_back(void **state)
{
    const mhp_option none[] = {{0}};
    const mhp_option table[] = {
        {.key = "empty", .type = MHP_OPTION_SECTION, .help = "nothing", .section = none}, {0}};
    int nothing = 0;
    char *text = print(table, &nothing);

    (void)state;
    assert_string_equal(text, "empty: {}\n");
    assert_ok(mhp_options_read_text(table, &nothing, "printed", text, strlen(text)));
    assert_failed(mhp_options_read_text(table, &nothing, "x", "empty: {a: 1}", 13), MHP_ERR_CONFIG,
                  "unknown key \"empty.a\"", NULL);
    free(text);
}

/* ---- documentation ---- */

static void test_list(void **state)
{
    static const char *const parts[] = {
        "name  string, default run 1\n    what the run is called\n",
        "hidden_size  integer, default 0x40; 8 to 65536 elements\n    width of",
        "any_integer  integer, default -3\n",
        "any_number  number, default 0\n",
        "sizes  list of integers, default []; -5 to 1e+12 bytes\n",
        "files  list of strings, default [a.txt, \"b c\"]\n",
        "\ntrain: how to train\n",
        "train.steps  integer, required; 1 to 1e+09 steps\n    how many updates\n",
        "train.resume  boolean, default true; true or false\n",
        "\ntrain.optimizer: the optimizer\n",
        "train.optimizer.kind  choice, default adamw; adamw, sgd or lion\n",
        "train.optimizer.learning_rate  number, default 3e-4; 1e-09 to 10\n",
        "train.optimizer.betas  list of numbers, default [0.9, 0.95]; -1 to 1\n",
    };
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    (void)state;
    assert_non_null(stream);
    assert_ok(mhp_options_list(sample_table, stream));
    fclose(stream);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_contains(text, parts[i]);
    }
    free(text);
}

/* ---- locales ---- */

/* Switches to a locale whose numbers have a comma, if the system has one. */
static bool enter_comma_locale(void)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "de_DE",     "fr_FR.UTF-8",
                                        "fr_FR.utf8",  "ru_RU.utf8", "tr_TR.utf8"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (setlocale(LC_ALL, names[i]) && strcmp(localeconv()->decimal_point, ",") == 0) {
            return true;
        }
    }
    setlocale(LC_ALL, "C");
    return false;
}

static void test_decimal_comma(void **state)
{
    sample parameters = {0};
    char *text, number[32];

    (void)state;
    if (!enter_comma_locale()) {
        skip();
    }
    parameters = make_sample();
    assert_ok(mhp_options_set(sample_table, &parameters, "any_number=0.25"));
    assert_true(parameters.any_number == 0.25);
    assert_failed(mhp_options_set(sample_table, &parameters, "any_number=0,25"), MHP_ERR_CONFIG,
                  "0,25", NULL);
    parameters.any_number = 0.25;
    text = print(sample_table, &parameters);
    assert_contains(text, "any_number: 0.25\n");
    assert_contains(text, "betas: [0.9, 0.95]\n");
    assert_reads_back(&parameters);
    snprintf(number, sizeof number, "%.1f", 0.5);
    assert_string_equal(number, "0,5"); /* the program's locale is as it was */
    free(text);
    mhp_options_release(sample_table, &parameters);
    setlocale(LC_ALL, "C");
}

/* After success and after errors alike, the thread's locale is the one it had. */
static void test_locale_of_the_thread_stays(void **state)
{
    locale_t before = uselocale((locale_t)0);
    sample parameters = {0};
    char *text;

    (void)state;
    parameters = make_sample();
    assert_int_equal(load_wrong("train.steps=x"), MHP_ERR_CONFIG);
    assert_ptr_equal(uselocale((locale_t)0), before);
    text = print(sample_table, &parameters);
    assert_ptr_equal(uselocale((locale_t)0), before);
    parameters.any_number = NAN;
    assert_int_equal(print_wrong(&parameters), MHP_ERR_INVALID);
    assert_ptr_equal(uselocale((locale_t)0), before);
    assert_int_equal(mhp_options_set(sample_table, &parameters, "x"), MHP_ERR_CONFIG);
    assert_ptr_equal(uselocale((locale_t)0), before);
    free(text);
    mhp_options_release(sample_table, &parameters);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_override_of_a_section),
        cmocka_unit_test(test_overrides_count_before_required_keys),
        cmocka_unit_test(test_set_alone),
        cmocka_unit_test(test_wrong_overrides),
        cmocka_unit_test(test_long_overrides),
        cmocka_unit_test(test_print_of_defaults),
        cmocka_unit_test(test_strings_read_back),
        cmocka_unit_test(test_long_strings_read_back),
        cmocka_unit_test(test_numbers_read_back),
        cmocka_unit_test(test_floats_have_a_point),
        cmocka_unit_test(test_random_parameters_read_back),
        cmocka_unit_test(test_values_that_cannot_be_printed),
        cmocka_unit_test(test_full_device),
        cmocka_unit_test(test_empty_section_reads_back),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_decimal_comma),
        cmocka_unit_test(test_locale_of_the_thread_stays),
    };

    return cmocka_run_group_tests(tests, scratch_open, scratch_remove);
}
