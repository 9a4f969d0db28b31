/* Cost files: what is read, what is refused with which words, what is written. */
#include "tests/unit/core/support.h"

#include "core/memory.h"
#include "scheduler/costs.h"

#define STAGE "{forward_us: 1, input_gradient_us: 2, weight_gradient_us: 3}"

static mhp_status read_wrong(const char *text)
{
    mhp_costs costs;
    mhp_status status = mhp_costs_parse("c.yaml", text, strlen(text), &costs);

    mhp_costs_release(&costs);
    return status;
}

static void read_good(const char *text, mhp_costs *costs)
{
    assert_ok(mhp_costs_parse("c.yaml", text, strlen(text), costs));
}

static void test_a_whole_file(void **state)
{
    static const char text[] =
        "stages:\n"
        "  - {forward_us: 100, input_gradient_us: 110.5, weight_gradient_us: 90, rebuild_us: 80, pair_us: 250,\n"
        "     bytes: {weights: 1000, activation: 200, rebuild_keeps: 20, held_weight_gradient: 50, slot: 7}}\n"
        "  - {forward_us: 1, input_gradient_us: 2, weight_gradient_us: 3}\n"
        "links:\n"
        "  - {from: 0, to: 1, bandwidth_gb_s: 10, latency_us: 4}\n"
        "  - {default: true, bandwidth_gb_s: 5}\n"
        "message_bytes: 1000000\n"
        "all_reduce_us: 6\n"
        "optimizer_us: 8\n";
    mhp_costs costs;
    mhp_link_time *times = NULL;

    (void)state;
    read_good(text, &costs);
    assert_ok(mhp_costs_check(&costs, 2, 2));
    assert_true(mhp_costs_stage(&costs, 0)->input_gradient_us == 110.5);
    assert_true(mhp_stage_rebuild_us(mhp_costs_stage(&costs, 0)) == 80);
    assert_true(mhp_stage_rebuild_us(mhp_costs_stage(&costs, 1)) == 1);
    assert_true(mhp_stage_work_us(mhp_costs_stage(&costs, 0)) == 300.5);
    assert_int_equal(mhp_costs_slot_bytes(&costs, 0), 7);
    assert_int_equal(mhp_costs_slot_bytes(&costs, 1), 1000000);
    assert_ok(mhp_costs_link_times(&costs, 2, &times));
    assert_true(times[1].busy_us == 100 && times[1].latency_us == 4);
    assert_true(times[2].busy_us == 200 && times[2].latency_us == 0);
    assert_true(costs.all_reduce_us == 6 && costs.optimizer_us == 8);
    mhp_free(times);
    mhp_costs_release(&costs);
}

/* A pair of two stages is shortened by the mean of what pairing does to each. */
static void test_pairs(void **state)
{
    mhp_stage_costs plain = {.forward_us = 1, .input_gradient_us = 2, .weight_gradient_us = 5};
    mhp_stage_costs half = {.forward_us = 2, .input_gradient_us = 2, .weight_gradient_us = 4, .pair_us = 4};

    (void)state;
    assert_true(mhp_pair_us(&plain, &plain) == 8);
    assert_true(mhp_pair_us(&half, &half) == 4);
    assert_true(mhp_pair_us(&plain, &half) == 7 * 0.75);
    assert_true(mhp_pair_us(&half, &plain) == 9 * 0.75);
}

static void test_one_entry_serves_all_stages(void **state)
{
    mhp_costs costs;

    (void)state;
    read_good("stages: [" STAGE "]\n", &costs);
    assert_ok(mhp_costs_check(&costs, 16, 32));
    assert_true(mhp_costs_stage(&costs, 31)->weight_gradient_us == 3);
    mhp_costs_release(&costs);
}

static void test_values_that_are_refused(void **state)
{
    (void)state;
    assert_failed(read_wrong("stages: [{forward_us: -1, input_gradient_us: 2, weight_gradient_us: 3}]"), MHP_ERR_CONFIG,
                  "c.yaml:1:23: stages[0].forward_us is \"-1\": expected a number, 0 to 1e+09 us", NULL);
    assert_failed(read_wrong("stages: [{forward_us: .nan, input_gradient_us: 2, weight_gradient_us: 3}]"),
                  MHP_ERR_CONFIG, "c.yaml:1:23: stages[0].forward_us is \".nan\": expected a number", NULL);
    assert_failed(read_wrong("stages: [{forward_us: .inf, input_gradient_us: 2, weight_gradient_us: 3}]"),
                  MHP_ERR_CONFIG, ".inf", NULL);
    assert_failed(read_wrong("stages: [{forward_us: 1, input_gradient_us: 2}]"), MHP_ERR_CONFIG,
                  "c.yaml:1:10: stages[0].weight_gradient_us is missing", NULL);
    assert_failed(read_wrong("stages: [" STAGE ", {forward_us: 1, input_us: 2}]"), MHP_ERR_CONFIG,
                  "unknown key \"stages[1].input_us\"", NULL);
    assert_failed(read_wrong("stages: [" STAGE ", {forward_us: 1, input_gradient_us: 2, weight_gradient_us: 3, ends: {weight_gradient_us: 4}}]"),
                  MHP_ERR_CONFIG, "c.yaml:1:9: stages[1].ends.weight_gradient_us is 4: expected at most the stage's, 3", NULL);
    assert_failed(read_wrong("stages: []"), MHP_ERR_CONFIG, "c.yaml:1:9: stages is empty", NULL);
    assert_failed(read_wrong("message_bytes: 1"), MHP_ERR_CONFIG, "stages is missing", NULL);
    assert_failed(read_wrong("stages: [" STAGE "]\nmessage_bytes: -5\n"), MHP_ERR_CONFIG,
                  "c.yaml:2:16: message_bytes is \"-5\"", NULL);
    assert_failed(read_wrong("stages: [" STAGE "]\nmessage_bytes: 1.5\n"), MHP_ERR_CONFIG, "expected an integer", NULL);
    assert_failed(read_wrong("stage: [" STAGE "]\n"), MHP_ERR_CONFIG, "unknown key \"stage\"", "the nearest is stages",
                  NULL);
}

static void test_links_that_are_refused(void **state)
{
    (void)state;
    assert_failed(read_wrong("stages: [" STAGE "]\nlinks:\n  - {from: 1, to: 1}\n"), MHP_ERR_CONFIG,
                  "c.yaml:3:3: links[0] goes from rank 1 to itself", NULL);
    assert_failed(read_wrong("stages: [" STAGE "]\nlinks:\n  - {from: 1}\n"), MHP_ERR_CONFIG,
                  "expected two ranks, or default: true", NULL);
    assert_failed(read_wrong("stages: [" STAGE "]\nlinks:\n  - {from: 1, to: 0, default: true}\n"), MHP_ERR_CONFIG,
                  "is the default", NULL);
    assert_failed(read_wrong("stages: [" STAGE "]\nlinks: [{default: true}, {from: 0, to: 1}, {default: true}]\n"),
                  MHP_ERR_CONFIG, "links[2] is a second default", NULL);
    assert_failed(read_wrong("stages: [" STAGE "]\nlinks: [{from: 0, to: 1}, {from: 1, to: 0}, {from: 0, to: 1}]\n"),
                  MHP_ERR_CONFIG, "links[2] is a second entry from 0 to 1", NULL);
}

static void test_costs_that_do_not_suit_a_plan(void **state)
{
    mhp_costs costs;

    (void)state;
    read_good("stages:\n  [" STAGE ", " STAGE "]\nlinks: [{from: 0, to: 5}]\n", &costs);
    assert_failed(mhp_costs_check(&costs, 6, 3), MHP_ERR_CONFIG,
                  "c.yaml:2:3: stages has 2 entries: expected one, or one for each of the plan's 3 stages", NULL);
    assert_failed(mhp_costs_check(&costs, 4, 2), MHP_ERR_CONFIG,
                  "c.yaml:3:8: links[0] goes from 0 to 5: expected ranks of the plan, 0 to 3", NULL);
    assert_ok(mhp_costs_check(&costs, 6, 2));
    mhp_costs_release(&costs);
}

static void write_text(const mhp_costs *costs, char **text_out)
{
    size_t size = 0;
    FILE *stream = open_memstream(text_out, &size);

    assert_non_null(stream);
    assert_ok(mhp_costs_write(costs, stream));
    assert_int_equal(fclose(stream), 0);
}

static void test_written_it_reads_back(void **state)
{
    mhp_costs costs, again;
    mhp_stage_costs *stages = NULL;
    mhp_link_costs *links = NULL;
    char *text = NULL, *text_again = NULL;

    (void)state;
    assert_ok(mhp_costs_default(&costs));
    assert_ok(mhp_costs_create_stages(&costs, 3, &stages));
    assert_ok(mhp_costs_create_links(&costs, 2, &links));
    for (int i = 0; i < 3; i++) {
        stages[i] =
            (mhp_stage_costs){.forward_us = 0.1 * i, .input_gradient_us = 1e-7, .weight_gradient_us = 12345.678};
        stages[i].bytes.activation = 1000000007 * (int64_t)i;
    }
    links[0] = (mhp_link_costs){.is_default = true, .from = -1, .to = -1, .bandwidth_gb_s = 1.0 / 3};
    links[1] = (mhp_link_costs){.from = 2, .to = 0, .latency_us = 2.5};
    write_text(&costs, &text);
    read_good(text, &again);
    write_text(&again, &text_again);
    assert_string_equal(text, text_again);
    assert_memory_equal(again.stages.items, costs.stages.items, 3 * sizeof *stages);
    assert_memory_equal(again.links.items, costs.links.items, 2 * sizeof *links);
    free(text);
    free(text_again);
    mhp_costs_release(&costs);
    mhp_costs_release(&again);
}

static void test_files(void **state)
{
    const char *path = scratch_path("costs.yaml");
    mhp_costs costs;

    (void)state;
    scratch_write(path, "stages: [" STAGE "]\n", strlen("stages: [" STAGE "]\n"));
    assert_ok(mhp_costs_read(path, &costs));
    assert_true(mhp_costs_stage(&costs, 0)->forward_us == 1);
    mhp_costs_release(&costs);
    assert_failed(mhp_costs_read(scratch_path("none.yaml"), &costs), MHP_ERR_NOT_FOUND, "none.yaml", NULL);
    mhp_costs_release(&costs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_file),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_one_entry_serves_all_stages),
        cmocka_unit_test(test_values_that_are_refused),
        cmocka_unit_test(test_links_that_are_refused),
        cmocka_unit_test(test_costs_that_do_not_suit_a_plan),
        cmocka_unit_test(test_written_it_reads_back),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, scratch_open, scratch_remove);
}
