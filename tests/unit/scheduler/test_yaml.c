/* Plans as YAML: what is read, what the file says of itself, round trips, errors with their place; and files of either format by
 * name or by content. */
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "scheduler/yaml.h"
#include "tests/unit/scheduler/support.h"

static mhp_plan *parse_yaml(const char *text)
{
    mhp_plan *plan = NULL;

    if (mhp_plan_parse_yaml("dir/some.yaml", text, strlen(text), &plan) != MHP_OK) {
        fail_msg("%s", mhp_error_text());
    }
    return plan;
}

static void assert_same_plan(const mhp_plan *a, const mhp_plan *b)
{
    size_t cells = (size_t)a->stage_count * (size_t)a->microbatch_count;

    assert_int_equal(a->rank_count, b->rank_count);
    assert_int_equal(a->stage_count, b->stage_count);
    assert_int_equal(a->microbatch_count, b->microbatch_count);
    assert_int_equal(a->forward_only, b->forward_only);
    assert_memory_equal(a->owner, b->owner, cells * sizeof *a->owner);
    for (int r = 0; r < a->rank_count; r++) {
        size_t count = a->ranks[r].actions.count;

        assert_int_equal(count, b->ranks[r].actions.count);
        if (count > 0) {
            assert_memory_equal(a->ranks[r].actions.items, b->ranks[r].actions.items,
                                count * sizeof(mhp_action));
        }
    }
}

static void assert_reads(const char *yaml, const char *csv)
{
    mhp_plan *plan = parse_yaml(yaml);
    mhp_plan *expected = parse_csv(csv);

    assert_same_plan(plan, expected);
    mhp_plan_destroy(plan);
    mhp_plan_destroy(expected);
}

static void ranks_are_lists_or_texts(void **state)
{
    static const char csv[] = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n";

    (void)state;
    assert_reads("actions: [[0F0, 0F1, 0B0, 0B1], [1F0, 1B0, 1F1, 1B1]]\n", csv);
    assert_reads("actions:\n  - 0F0 0F1 0B0 0B1\n  - 1F0 1B0\n    1F1 1B1\n", csv);
    assert_reads("actions:\n- >-\n  0F0   0F1\n  0B0 0B1\n- - 1F0 1B0\n  - \"1F1\"\n  - '1B1'\n", csv);
    assert_reads("actions:\n  # a comment\n  - [0F0, (0F1;0B0)OVERLAP_F_B, 0B1]\n", "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n");
    assert_reads("actions: [[0F0, 0B0], [], [1F0, 1B0]]\n", "0F0,0B0\n,\n1F0,1B0\n");
    assert_reads("actions:\n- 0F0 0B0\n-\n- 1F0 1B0\n", "0F0,0B0\n,\n1F0,1B0\n");
    assert_reads("actions: [[0F0, 0SEND_F0], [1RECV_F0, 1F0]]\n", "0F0,0SEND_F0\n1RECV_F0,1F0\n");
}

static void what_the_file_says_of_itself_is_checked(void **state)
{
    mhp_plan *plan = parse_yaml("name: mine\nmicrobatches: 2\nplacement: [[0, 1], [1, 0]]\n"
                                "actions: [0F0 1F1 0B0 1B1, 1F0 0F1 1B0 0B1]\n");

    (void)state;
    assert_string_equal(plan->name, "mine");
    assert_int_equal(mhp_plan_owner(plan, 0, 1), 1);
    assert_false(plan->lowered || plan->forward_only);
    mhp_plan_destroy(plan);
    plan = parse_yaml("actions: [0F0]\n");
    assert_string_equal(plan->name, "some.yaml");
    assert_true(plan->forward_only);
    mhp_plan_destroy(plan);
}

static void plans_of_all_schedules_survive_a_round_trip(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        for (int lowered = 0; lowered < 2; lowered++) {
            mhp_lower_params params = {.rebuild = true};
            mhp_plan *plan = generate(mhp_generator_at(g)->name, 4, 10);
            mhp_plan *again;
            char *text = NULL;
            size_t size = 0;
            FILE *stream = open_memstream(&text, &size);

            if (lowered) {
                lower_plan(plan, &params);
            }
            assert_int_equal(mhp_plan_write_yaml(plan, stream), MHP_OK);
            assert_int_equal(fclose(stream), 0);
            again = parse_yaml(text);
            assert_string_equal(again->name, mhp_generator_at(g)->name);
            assert_same_plan(plan, again);
            lower_plan(again, NULL);
            mhp_plan_destroy(again);
            mhp_plan_destroy(plan);
            free(text);
        }
    }
}

static void names_are_written_as_text(void **state)
{
    mhp_plan *plan = parse_yaml("actions: [0F0]\n"), *again;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    (void)state;
    snprintf(plan->name, sizeof plan->name, "a: \"b\" \\ \n\xff # {\x7f\u00e9\U0001f600");
    assert_int_equal(mhp_plan_write_yaml(plan, stream), MHP_OK);
    assert_int_equal(fclose(stream), 0);
    again = parse_yaml(text);
    assert_string_equal(again->name, "a: \"b\" \\ \n? # {\x7f\u00e9\U0001f600");
    assert_non_null(strstr(text, "\\u000A? # {\\u007F\u00e9\U0001f600\""));
    mhp_plan_destroy(plan);
    mhp_plan_destroy(again);
    free(text);
}

static void bad_files_are_refused_with_their_place(void **state)
{
    static const char *const texts[][2] = {
        {"", "dir/some.yaml:1:1: nothing in it"},
        {"# nothing\n", "dir/some.yaml:2:1: nothing in it"},
        {"[0F0]\n", "dir/some.yaml:1:1: the document"},
        {"0F0,0B0\n", "dir/some.yaml:1:1: the document"},
        {"name: x\n", "dir/some.yaml: no actions"},
        {"actions: []\n", "dir/some.yaml: no actions"},
        {"actions: [[], []]\n", "dir/some.yaml: no actions"},
        {"actions: 0F0\n", "dir/some.yaml:1:10: actions"},
        {"actions: {a: 0F0}\n", "dir/some.yaml:1:10: actions"},
        {"actions: [{a: 0F0}]\n", "dir/some.yaml:1:11: a rank's actions"},
        {"actions: [[[0F0]]]\n", "dir/some.yaml:1:12: an action"},
        {"actions:\n- [0F0, 0B0]\n- [1F0,\n   1X0]\n", "dir/some.yaml:4:4: rank 1, item 2: action \"1X0\""},
        {"actions:\n- 0F0 0B-1\n", "dir/some.yaml:2:3: rank 0, item 2: action \"0B-1\""},
        {"actions:\n- 0F0 0B99999999999\n", "dir/some.yaml:2:3: rank 0, item 2: action"},
        {"actions:\n- 4096F0\n", "dir/some.yaml:2:3: rank 0, item 1: action"},
        {"actions:\n- (0F0;0F1)OVERLAP_F_B\n", "dir/some.yaml:2:3: rank 0, item 1: action \"(0F0;0F1)"},
        {"actions:\n- ~\n", "dir/some.yaml:2:3: rank 0, item 1: action \"~\""},
        {"actions: [0F0]\nactions: [0F0]\n", "dir/some.yaml:2:1: duplicate key actions"},
        {"stages: 2\nactions: [0F0]\n", "dir/some.yaml:1:1: unknown key \"stages\""},
        {"? [a]\n: b\n", "dir/some.yaml:1:3: a key that is no word"},
        {"microbatches: 0\nactions: [0F0]\n", "dir/some.yaml:1:15: microbatches is 0"},
        {"microbatches: -1\nactions: [0F0]\n", "dir/some.yaml:1:15: microbatches is -1"},
        {"microbatches: 1e3\nactions: [0F0]\n", "dir/some.yaml:1:15: microbatches is 1e3"},
        {"microbatches: [1]\nactions: [0F0]\n", "dir/some.yaml:1:15: microbatches: "},
        {"microbatches: 2\nactions: [0F0]\n", "dir/some.yaml:1:15: microbatches is 2: expected 1"},
        {"placement: 3\nactions: [0F0]\n", "dir/some.yaml:1:12: placement: "},
        {"placement: [3]\nactions: [0F0]\n", "dir/some.yaml:1:13: placement: "},
        {"placement: [[a]]\nactions: [0F0]\n", "dir/some.yaml:1:14: a stage of placement is a"},
        {"placement: [[0], [1]]\nactions: [0F0]\n", "dir/some.yaml:1:12: placement has 2 ranks: expected 1"},
        {"placement: [[1]]\nactions: [0F0 1F0]\n", "dir/some.yaml:1:12: placement of rank 0 has 1 stages: expected the 2"},
        {"placement: [[0, 2]]\nactions: [0F0 1F0]\n", "dir/some.yaml:1:17: placement of rank 0 has stage 2: "},
        {"placement: [[0, 0]]\nactions: [0F0 1F0]\n", "dir/some.yaml:1:17: placement of rank 0 has stage 0 twice"},
        {"actions: [&a [0F0]]\n", "dir/some.yaml:1:11: anchor &a"},
        {"actions: [*a]\n", "dir/some.yaml:1:11: alias *a"},
        {"actions: [!!str 0F0]\n", "dir/some.yaml:1:11: tag "},
        {"actions: [0F0]\n---\nactions: [0F0]\n", "dir/some.yaml:2:1: a second document"},
        {"actions: [[[[[[[[[[[[[[[[[[[[0F0]]]]]]]]]]]]]]]]]]]]\n", "dir/some.yaml:1:12: an action"},
        {"actions: [0F0\n", "dir/some.yaml:2:1: not YAML"},
        {"actions: [\"\x01\"]\n", "dir/some.yaml:1:12: control characters"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        mhp_plan *plan = NULL;

        assert_int_equal(mhp_plan_parse_yaml("dir/some.yaml", texts[i][0], strlen(texts[i][0]), &plan), MHP_ERR_FORMAT);
        assert_null(plan);
        if (strncmp(mhp_error_text(), texts[i][1], strlen(texts[i][1])) != 0) {
            fail_msg("%s: expected \"%s ...\", found \"%s\"", texts[i][0], texts[i][1], mhp_error_text());
        }
        assert_true(strstr(mhp_error_text(), "expected") || strstr(mhp_error_text(), "not YAML"));
    }
}

static void more_ranks_than_there_may_be_are_refused(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    mhp_plan *plan = NULL;

    (void)state;
    fprintf(stream, "actions:\n");
    for (int i = 0; i <= MHP_RANKS_MAX; i++) {
        fprintf(stream, "- %dF0\n", i);
    }
    fclose(stream);
    assert_int_equal(mhp_plan_parse_yaml("some.yaml", text, size, &plan), MHP_ERR_LIMIT);
    assert_non_null(strstr(mhp_error_text(), "some.yaml:1026: more than 1024"));
    free(text);
}

/* The caller unlinks it. */
static void write_file(char path[96], const char *ending, const char *text)
{
    int descriptor;

    snprintf(path, 96, "/tmp/test_yaml_XXXXXX%s", ending);
    descriptor = mkstemps(path, (int)strlen(ending));
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, text, strlen(text)), strlen(text));
    close(descriptor);
}

static void files_are_read_by_name_or_content(void **state)
{
    static const char *const files[][2] = {
        {".csv", "0F0,0B0\n"}, {".yaml", "actions: [0F0 0B0]\n"}, {".yml", "actions: [0F0 0B0]\n"},
        {".YAML", "actions: [0F0 0B0]\n"}, {"", "0F0,0B0\n"}, {"", ",\n,\"0F0\",0B0\n"}, {".txt", "  0F0,0B0\n"},
        {"", "# mine\nactions: [0F0 0B0]\n"}, {".txt", "{actions: [0F0 0B0]}\n"}, {"", "---\nactions: [0F0 0B0]\n"},
    };
    char path[96];
    mhp_plan *plan = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        write_file(path, files[i][0], files[i][1]);
        if (mhp_plan_read(path, &plan) != MHP_OK) {
            fail_msg("%s: %s", files[i][1], mhp_error_text());
        }
        assert_int_equal(mhp_plan_validate(plan), MHP_OK);
        mhp_plan_destroy(plan);
        unlink(path);
    }
    plan = NULL;
    assert_int_equal(mhp_plan_read(path, &plan), MHP_ERR_NOT_FOUND);
    write_file(path, ".yaml", "0F0,0B0\n");
    assert_int_equal(mhp_plan_read(path, &plan), MHP_ERR_FORMAT);
    assert_non_null(strstr(mhp_error_text(), path));
    assert_null(plan);
    unlink(path);
}

/* The text between a fence and the next one; NULL behind the last. Ends it with a NUL. */
static char *next_example(char **text)
{
    char *begin = strstr(*text, "```yaml\n");
    char *end = begin ? strstr(begin + 8, "```\n") : NULL;

    if (!end) {
        return NULL;
    }
    *end = '\0';
    *text = end + 4;
    return begin + 8;
}

/* Every schedule of docs/custom-schedules.md is what the page says: legal, and without waits where it says so. */
static void examples_of_the_manual_run(void **state)
{
    char *page = NULL, *rest;
    size_t size = 0;
    int found = 0, without_waits = 0;

    (void)state;
    assert_int_equal(mhp_file_read_all(MHP_SOURCE_DIR "/docs/custom-schedules.md", 1 << 20, &page, &size), MHP_OK);
    rest = page;
    for (char *example = next_example(&rest); example; example = next_example(&rest)) {
        mhp_plan *plan;

        if (!strstr(example, "actions:")) {
            continue;
        }
        plan = parse_yaml(example);
        if (strcmp(plan->name, "both ways") == 0) {
            assert_int_equal(worst_bubble(plan), 0);
            without_waits++;
        }
        lower_plan(plan, NULL);
        mhp_plan_destroy(plan);
        found++;
    }
    assert_int_equal(found, 5);
    assert_int_equal(without_waits, 1);
    mhp_free(page);
}

static void a_full_disk_is_an_error(void **state)
{
    mhp_plan *plan = generate("dualpipe", 8, 64);
    FILE *stream = fopen("/dev/full", "w");

    (void)state;
    if (!stream) {
        skip();
    }
    setvbuf(stream, NULL, _IONBF, 0);
    assert_int_equal(mhp_plan_write_yaml(plan, stream), MHP_ERR_IO);
    fclose(stream);
    mhp_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_lists_or_texts),
        cmocka_unit_test(what_the_file_says_of_itself_is_checked),
        cmocka_unit_test(plans_of_all_schedules_survive_a_round_trip),
        cmocka_unit_test(names_are_written_as_text),
        cmocka_unit_test(bad_files_are_refused_with_their_place),
        cmocka_unit_test(more_ranks_than_there_may_be_are_refused),
        cmocka_unit_test(files_are_read_by_name_or_content),
        cmocka_unit_test(examples_of_the_manual_run),
        cmocka_unit_test(a_full_disk_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
