/* The table for a terminal: a picture if it fits, then every rank's numbers. */
#include "tests/unit/scheduler/plans.h"

#include "scheduler/csv.h"
#include "scheduler/table.h"

/* The plan's table, released with free. */
static void table_of(const mhp_plan *plan, char **text_out)
{
    size_t size = 0;
    FILE *stream = open_memstream(text_out, &size);

    assert_non_null(stream);
    assert_ok(mhp_plan_write_table(plan, stream));
    assert_int_equal(fclose(stream), 0);
}

/* Drawn by hand: 1F1B on two ranks with two micro-batches, a backward two units long. */
static void a_small_table_is_as_drawn(void **state)
{
    mhp_plan *plan = generate("1f1b", 2, 2);
    char *text = NULL;

    (void)state;
    table_of(plan, &text);
    assert_contains(text, "1f1b: 2 ranks, 2 stages, 2 micro-batches\n");
    assert_contains(text, "\nrank 0   0F0 0F1 .   .   0B0     .   0B1     \n");
    assert_contains(text, "\nrank 1   .   1F0 1B0     1F1 1B1     \n");
    assert_contains(text, "makespan        9 units, the work of 3.00 micro-batches\n");
    assert_contains(text, "lower bound     7 units; the makespan is 28.57 % above it\n");
    assert_contains(text, "bubble          worst 33.3 %, mean 33.3 %\n");
    assert_contains(text, "critical path   compute 100.0 %\n");
    assert_null(strstr(text, "sends"));
    assert_null(strstr(text, "MiB"));
    free(text);
    mhp_plan_destroy(plan);
}

static void messages_and_slots_are_listed_for_lowered_plans(void **state)
{
    mhp_plan *plan = lowered("gpipe", 2, 5);
    char *text = NULL;

    (void)state;
    table_of(plan, &text);
    for (int r = 0; r < 2; r++) {
        const mhp_stage_slots *slots = mhp_plan_stage_slots(plan, r, r);
        const char *line = strchr(strstr(text, "  sends"), '\n');
        int rank, activations, held, sends, states, gradients;
        double bubble, exposed, sent;

        line = r == 0 ? line : strchr(line + 1, '\n');
        assert_int_equal(sscanf(line, "%d %lf %% %lf %% %d %d %d %lf %d %d", &rank, &bubble, &exposed, &activations,
                                &held, &sends, &sent, &states, &gradients),
                         9);
        assert_int_equal(rank, r);
        assert_true(bubble > 16.6 && bubble < 16.8 && exposed == 0);
        assert_int_equal(activations, 5);
        assert_int_equal(held, 0);
        assert_int_equal(sends, 5);
        assert_int_equal(states, slots->count[MHP_SLOT_INPUT]);
        assert_int_equal(gradients, slots->count[MHP_SLOT_GRADIENT_INPUT]);
    }
    free(text);
    mhp_plan_destroy(plan);
}

static void costs_add_messages_and_memory(void **state)
{
    static const char yaml[] =
        "stages: [{forward_us: 10, input_gradient_us: 10, weight_gradient_us: 10, bytes: {activation: 1048576}}]\n"
        "links: [{default: true, latency_us: 5}]\nmessage_bytes: 2097152\nall_reduce_us: 30\noptimizer_us: 10\n";
    mhp_plan *plan = lowered("1f1b", 2, 2);
    mhp_costs costs;
    mhp_plan_report report;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    (void)state;
    assert_ok(mhp_costs_parse("c.yaml", yaml, strlen(yaml), &costs));
    assert_ok(mhp_plan_report_create(plan, &(mhp_simulate_params){.costs = &costs}, "us", &report));
    assert_true(report.simulation.makespan_us == 90 + 2 * 5 + 40 && report.free_messages_us == 90 + 40);
    assert_non_null(stream);
    assert_ok(mhp_report_write(&report, stream));
    assert_int_equal(fclose(stream), 0);
    assert_contains(text, "makespan        140 us, the work of 4.67 micro-batches\n");
    assert_contains(text, "free ones would save 7.1 %\n");
    assert_contains(text, "reduction       exposed 21.4 %\n");
    assert_contains(text, "reduction 21.4 %, optimizer 7.1 %\n");
    assert_contains(text, "peak MiB\n");
    free(text);
    mhp_plan_report_release(&report);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
}

/* A picture that no terminal shows is left out. */
static void a_wide_picture_is_left_out(void **state)
{
    mhp_plan *plan = generate("1f1b", 2, 300);
    char *text = NULL;

    (void)state;
    table_of(plan, &text);
    assert_contains(text, "a picture of it would be ");
    assert_null(strstr(text, "0F299"));
    assert_contains(text, "makespan        903 units");
    free(text);
    mhp_plan_destroy(plan);
}

static void an_order_that_cannot_run_is_an_error(void **state)
{
    static const char text[] = "1F0,0F1\n1F1,0F0\n";
    mhp_plan *plan = NULL;
    FILE *stream = tmpfile();

    (void)state;
    assert_non_null(stream);
    assert_ok(mhp_plan_parse_csv("some.csv", text, strlen(text), &plan));
    assert_failed(mhp_plan_write_table(plan, stream), MHP_ERR_PLAN, "rank 0", "position 0", NULL);
    assert_int_equal(ftell(stream), 0);
    fclose(stream);
    mhp_plan_destroy(plan);
}

static void a_full_disk_is_an_error(void **state)
{
    mhp_plan *plan = generate("dualpipe", 4, 16);
    FILE *stream = fopen("/dev/full", "w");

    (void)state;
    if (!stream) {
        mhp_plan_destroy(plan);
        skip();
    }
    setvbuf(stream, NULL, _IONBF, 0);
    assert_int_equal(mhp_plan_write_table(plan, stream), MHP_ERR_IO);
    fclose(stream);
    mhp_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_table_is_as_drawn),
        cmocka_unit_test(messages_and_slots_are_listed_for_lowered_plans),
        cmocka_unit_test(costs_add_messages_and_memory),
        cmocka_unit_test(a_wide_picture_is_left_out),
        cmocka_unit_test(an_order_that_cannot_run_is_an_error),
        cmocka_unit_test(a_full_disk_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
