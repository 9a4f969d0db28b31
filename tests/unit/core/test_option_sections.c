/* Lists of mappings: reading, what is refused with which words, printing that reads back. */
#include "tests/unit/core/support.h"

#include "core/memory.h"
#include "core/option.h"

typedef struct weight {
    double kilograms;
    char *label;
} weight;

typedef struct box {
    int64_t width;
    mhp_int_list sides;
    weight load;
    mhp_section_list inner;
} box;

typedef struct shelf {
    mhp_section_list boxes;
    bool full;
} shelf;

static const mhp_option weight_table[] = {
    {.key = "kilograms",
     .type = MHP_OPTION_FLOAT,
     .offset = offsetof(weight, kilograms),
     .default_text = "1.5",
     .help = "mass"},
    {.key = "label",
     .type = MHP_OPTION_STRING,
     .offset = offsetof(weight, label),
     .default_text = "none",
     .help = "words"},
    {0},
};

static const mhp_option box_table[] = {
    {.key = "width",
     .type = MHP_OPTION_INT,
     .offset = offsetof(box, width),
     .minimum = 1,
     .maximum = 9,
     .help = "in cells"},
    {.key = "sides",
     .type = MHP_OPTION_INT_LIST,
     .offset = offsetof(box, sides),
     .default_text = "[4]",
     .help = "of the box"},
    {.key = "load",
     .type = MHP_OPTION_SECTION,
     .offset = offsetof(box, load),
     .section = weight_table,
     .help = "what is in it"},
    {.key = "inner",
     .type = MHP_OPTION_SECTION_LIST,
     .offset = offsetof(box, inner),
     .default_text = "[]",
     .section = weight_table,
     .section_bytes = sizeof(weight),
     .help = "what else"},
    {0},
};

static const mhp_option shelf_table[] = {
    {.key = "boxes",
     .type = MHP_OPTION_SECTION_LIST,
     .offset = offsetof(shelf, boxes),
     .section = box_table,
     .section_bytes = sizeof(box),
     .help = "on the shelf"},
    {.key = "full",
     .type = MHP_OPTION_BOOL,
     .offset = offsetof(shelf, full),
     .default_text = "false",
     .help = "whether"},
    {0},
};

static mhp_status read_text(shelf *found, const char *text)
{
    return mhp_options_read_text(shelf_table, found, "shelf.yaml", text, strlen(text));
}

static mhp_status read_wrong(const char *text)
{
    shelf found = {0};
    mhp_status status = read_text(&found, text);

    mhp_options_release(shelf_table, &found);
    return status;
}

static const box *box_at(const shelf *found, size_t i)
{
    assert_true(i < found->boxes.count);
    return (const box *)found->boxes.items + i;
}

static void test_items_are_read_over_defaults(void **state)
{
    shelf found = {0};

    (void)state;
    assert_ok(read_text(&found,
                        "full: true\nboxes:\n  - width: 3\n    load: {label: nails}\n  - {width: 4, sides: [1, 2]}\n"
                        "  - width: 5\n    inner: [{kilograms: 2}, {}]\n"));
    assert_int_equal(found.boxes.count, 3);
    assert_int_equal(found.boxes.line, 3);
    assert_int_equal(found.boxes.column, 3);
    assert_int_equal(box_at(&found, 0)->width, 3);
    assert_string_equal(box_at(&found, 0)->load.label, "nails");
    assert_true(box_at(&found, 0)->load.kilograms == 1.5);
    assert_int_equal(box_at(&found, 0)->sides.items[0], 4);
    assert_int_equal(box_at(&found, 1)->sides.count, 2);
    assert_int_equal(box_at(&found, 2)->inner.count, 2);
    assert_true(((const weight *)box_at(&found, 2)->inner.items)[0].kilograms == 2);
    mhp_options_release(shelf_table, &found);
    assert_null(found.boxes.items);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    assert_failed(read_wrong("full: true\n"), MHP_ERR_CONFIG, "boxes is missing", "a list of mappings", NULL);
    assert_failed(read_wrong("boxes: 3\n"), MHP_ERR_CONFIG, "shelf.yaml:1:8: boxes is \"3\"", "a list of mappings",
                  NULL);
    assert_failed(read_wrong("boxes: {width: 3}\n"), MHP_ERR_CONFIG, "shelf.yaml:1:8: boxes is a mapping", NULL);
    assert_failed(read_wrong("boxes:\n  - {width: 1}\n  - 7\n"), MHP_ERR_CONFIG, "shelf.yaml:3:5: boxes[1] is \"7\"",
                  "a mapping of keys", NULL);
    assert_failed(read_wrong("boxes:\n  - [1]\n"), MHP_ERR_CONFIG, "shelf.yaml:2:5: boxes[0] is a list", NULL);
    assert_failed(read_wrong("boxes:\n  - {width: 1}\n  - {width: 10}\n"), MHP_ERR_CONFIG,
                  "shelf.yaml:3:13: boxes[1].width is \"10\": expected an integer, 1 to 9", NULL);
    assert_failed(read_wrong("boxes:\n  - {width: 1}\n  - {sides: [1]}\n"), MHP_ERR_CONFIG,
                  "shelf.yaml:3:5: boxes[1].width is missing", NULL);
    assert_failed(read_wrong("boxes:\n  - {width: 1}\n  - {width: 2, widht: 2}\n"), MHP_ERR_CONFIG,
                  "shelf.yaml:3:16: unknown key \"boxes[1].widht\"", "boxes.width", NULL);
    assert_failed(read_wrong("boxes:\n  - {width: 1}\n  - {width: 2, width: 2}\n"), MHP_ERR_CONFIG,
                  "shelf.yaml:3:16: duplicate key boxes[1].width", "line 3", NULL);
    assert_failed(read_wrong("boxes: []\nboxes: []\n"), MHP_ERR_CONFIG, "duplicate key boxes", NULL);
}

static void test_many_items_are_read_in_linear_time(void **state)
{
    char *text = NULL;
    size_t size = 0;
    shelf found = {0};
    FILE *stream = open_memstream(&text, &size);

    (void)state;
    assert_non_null(stream);
    fputs("boxes:\n", stream);
    for (int i = 0; i < 40000; i++) {
        fprintf(stream, "- {width: %d}\n", i % 9 + 1);
    }
    assert_int_equal(fclose(stream), 0);
    assert_ok(read_text(&found, text));
    assert_int_equal(found.boxes.count, 40000);
    assert_int_equal(box_at(&found, 39999)->width, 39999 % 9 + 1);
    mhp_options_release(shelf_table, &found);
    free(text);
}

static void print(const shelf *found, char **text_out)
{
    size_t size = 0;
    FILE *stream = open_memstream(text_out, &size);

    assert_non_null(stream);
    assert_ok(mhp_options_print(shelf_table, found, stream));
    assert_int_equal(fclose(stream), 0);
}

static void test_printed_it_reads_back(void **state)
{
    static const char *const texts[] = {
        "boxes: []\n", "boxes: [{width: 1}, {width: 2, inner: [{kilograms: 0.1}, {label: \"a: b\"}]}]\n"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        shelf found = {0}, again = {0};
        char *text = NULL, *text_again = NULL;

        assert_ok(read_text(&found, texts[i]));
        print(&found, &text);
        assert_ok(read_text(&again, text));
        print(&again, &text_again);
        assert_string_equal(text, text_again);
        assert_int_equal(again.boxes.count, 2 * i);
        mhp_options_release(shelf_table, &found);
        mhp_options_release(shelf_table, &again);
        free(text);
        free(text_again);
    }
}

static void test_an_override_replaces_the_list(void **state)
{
    char *good[] = {(char[]){"boxes=[{width: 8}]"}};
    shelf found = {0};

    (void)state;
    assert_ok(mhp_options_load(shelf_table, &found, NULL, good, 1));
    assert_int_equal(box_at(&found, 0)->width, 8);
    assert_failed(mhp_options_set(shelf_table, &found, "boxes=[{}]"), MHP_ERR_CONFIG,
                  "--set boxes=[{}]: boxes[0].width is missing", NULL);
    mhp_options_release(shelf_table, &found);
}

static void test_keys_of_items_are_documented(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    (void)state;
    assert_non_null(stream);
    assert_ok(mhp_options_list(shelf_table, stream));
    assert_int_equal(fclose(stream), 0);
    assert_contains(text, "boxes  list of mappings, required\n");
    assert_contains(text, "\nboxes[].width  integer, required; 1 to 9\n");
    assert_contains(text, "\nboxes[].load.label  string, default none\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_are_read_over_defaults),       cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_many_items_are_read_in_linear_time), cmocka_unit_test(test_printed_it_reads_back),
        cmocka_unit_test(test_an_override_replaces_the_list),      cmocka_unit_test(test_keys_of_items_are_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
