/* The table for a terminal: each compute action once, in its rank's row, and the bubble's share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/csv.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/table.h"

enum { TEXT_MAX = 64 };

static mhp_plan *generated(const char *name, int ranks, int microbatches)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches, .chunks = 1};
    mhp_plan *plan = NULL;

    assert_int_equal(mhp_schedule_generate(name, &shape, &plan), MHP_OK);
    return plan;
}

/* The plan's table, released with free. */
static void table_of(const mhp_plan *plan, char **text_out)
{
    size_t size = 0;
    FILE *stream = open_memstream(text_out, &size);

    assert_non_null(stream);
    assert_int_equal(mhp_plan_write_table(plan, stream), MHP_OK);
    assert_int_equal(fclose(stream), 0);
}

static bool takes_time(const mhp_action *action)
{
    return action->kind <= MHP_ACTION_WEIGHT_GRADIENT || action->kind == MHP_ACTION_OVERLAP_F_B;
}

/* What the table may call the action: a pair names its halves. */
static void expected_text(const mhp_action *action, char text[TEXT_MAX])
{
    if (action->kind == MHP_ACTION_OVERLAP_F_B) {
        snprintf(text, TEXT_MAX, "%dF%d+%dB%d", action->stage, action->microbatch,
                 action->backward_stage, action->backward_microbatch);
    } else {
        mhp_action_format(action, text, TEXT_MAX);
    }
}

/* The row "rank R ..." without its words, and the end of it; the search starts at *text. */
static char *find_row(char *text, int rank, char **end_out)
{
    char begin[TEXT_MAX];
    char *row;

    snprintf(begin, sizeof begin, "\nrank %-3d ", rank);
    row = strstr(text, begin);
    assert_non_null(row);
    row += strlen(begin);
    *end_out = strchr(row, '\n');
    assert_non_null(*end_out);
    return row;
}

static void assert_row(char *text, int rank, const mhp_action_list *list)
{
    char *end;
    char *row = find_row(text, rank, &end);
    char *rest = NULL;
    char *word;
    size_t next = 0;

    *end = '\0';
    for (word = strtok_r(row, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char expected[TEXT_MAX];

        if (strcmp(word, ".") == 0) {
            continue;
        }
        while (next < list->count && !takes_time(&list->items[next])) {
            next++;
        }
        assert_true(next < list->count);
        expected_text(&list->items[next++], expected);
        assert_string_equal(word, expected);
    }
    while (next < list->count) {
        assert_false(takes_time(&list->items[next++]));
    }
}

static void assert_rows(const mhp_plan *plan)
{
    for (int r = 0; r < plan->rank_count; r++) {
        char *text = NULL;

        table_of(plan, &text);
        assert_row(text, r, &plan->ranks[r].actions);
        free(text);
    }
}

static void every_compute_action_is_printed_once(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        for (int p = 2; p <= 12; p += 2) {
            mhp_plan *plan = generated(mhp_generator_at(g)->name, p, 2 * p + 4);
            mhp_plan *forward = NULL;

            assert_rows(plan);
            assert_int_equal(mhp_plan_lower(plan, NULL), MHP_OK);
            assert_rows(plan);
            assert_int_equal(mhp_schedule_forward_only(plan, 2 * p + 4, &forward), MHP_OK);
            assert_rows(forward);
            mhp_plan_destroy(forward);
            mhp_plan_destroy(plan);
        }
    }
}

/* Drawn by hand: 1F1B on two ranks with two micro-batches, a backward two units long. */
static void a_small_table_is_as_drawn(void **state)
{
    mhp_plan *plan = generated("1f1b", 2, 2);
    char *text = NULL;

    (void)state;
    table_of(plan, &text);
    assert_non_null(strstr(text, "1f1b: 2 ranks, 2 stages, 2 micro-batches"));
    assert_non_null(strstr(text, "\nrank 0   0F0 0F1 .   .   0B0     .   0B1     \n"));
    assert_non_null(strstr(text, "\nrank 1   .   1F0 1B0     1F1 1B1     \n"));
    free(text);
    mhp_plan_destroy(plan);
}

/* The largest share of idle units in the list behind the rows. */
static double worst_bubble(const char *text, int rank_count)
{
    const char *list = strstr(text, "bubble");
    double worst = -1.0;

    assert_non_null(list);
    for (int r = 0; r < rank_count; r++) {
        int rank = -1;
        double share = -1.0;

        list = strchr(list, '\n');
        assert_non_null(list);
        assert_int_equal(sscanf(++list, "%d %lf %%", &rank, &share), 2);
        assert_int_equal(rank, r);
        assert_true(share >= 0.0 && share <= 100.0);
        worst = share > worst ? share : worst;
    }
    return worst;
}

static void assert_bubble(const char *name, int ranks, int microbatches, double expected)
{
    mhp_plan *plan = generated(name, ranks, microbatches);
    char *text = NULL;
    double worst;

    table_of(plan, &text);
    worst = worst_bubble(text, ranks);
    if (worst < expected - 0.051 || worst > expected + 0.051) {
        fail_msg("%s, %d ranks, %d micro-batches: %.1f %%, expected %.1f %%", name, ranks,
                 microbatches, worst, expected);
    }
    free(text);
    mhp_plan_destroy(plan);
}

/* (P - 1)(F + B) for 1F1B, (P/2 - 1)(F&B + B - 3W) for the crossing ones, of the whole step. */
static void bubbles_equal_the_formulas(void **state)
{
    (void)state;
    for (int p = 2; p <= 10; p += 2) {
        for (int m = 2 * p; m <= 6 * p; m += p) {
            double turns = 3.0 * (p - 1);
            double cross = 2.0 * (p / 2 - 1);

            assert_bubble("gpipe", p, m, 100.0 * turns / (turns + 3 * m));
            assert_bubble("1f1b", p, m, 100.0 * turns / (turns + 3 * m));
            assert_bubble("dualpipe", p, m, 100.0 * cross / (cross + 3 * m));
            assert_bubble("dualpipev", p / 2, m, 100.0 * cross / (cross + 6 * m));
        }
    }
    assert_bubble("dualpipe", 8, 16, 11.1);
    assert_bubble("dualpipe", 8, 64, 3.0);
    assert_bubble("1f1b", 8, 16, 30.4);
    assert_bubble("1f1b", 8, 64, 9.9);
}

static void messages_and_slots_are_listed_for_lowered_plans(void **state)
{
    mhp_plan *plan = generated("gpipe", 2, 5);
    char *text = NULL;

    (void)state;
    table_of(plan, &text);
    assert_null(strstr(text, "sends"));
    free(text);
    assert_int_equal(mhp_plan_lower(plan, NULL), MHP_OK);
    table_of(plan, &text);
    assert_non_null(strstr(text, "sends"));
    for (int r = 0; r < 2; r++) {
        const mhp_stage_slots *slots = mhp_plan_stage_slots(plan, r, r);
        const char *line = strchr(strstr(text, "sends"), '\n');
        int values[5];
        double bubble;

        line = r == 0 ? line : strchr(line + 1, '\n');
        assert_int_equal(sscanf(line, "%d %lf %% %d %d %d %d", &values[0], &bubble, &values[1],
                                &values[2], &values[3], &values[4]),
                         6);
        assert_int_equal(values[0], r);
        assert_int_equal(values[1], 5);
        assert_int_equal(values[2], 5);
        assert_int_equal(values[3], slots->count[MHP_SLOT_INPUT]);
        assert_int_equal(values[4], slots->count[MHP_SLOT_GRADIENT_INPUT]);
    }
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
    assert_int_equal(mhp_plan_parse_csv("some.csv", text, strlen(text), &plan), MHP_OK);
    assert_int_equal(mhp_plan_write_table(plan, stream), MHP_ERR_PLAN);
    assert_non_null(strstr(mhp_error_text(), "rank 0"));
    assert_non_null(strstr(mhp_error_text(), "position 0"));
    assert_int_equal(ftell(stream), 0);
    fclose(stream);
    mhp_plan_destroy(plan);
}

static void a_full_disk_is_an_error(void **state)
{
    mhp_plan *plan = generated("dualpipe", 4, 16);
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
        cmocka_unit_test(every_compute_action_is_printed_once),
        cmocka_unit_test(a_small_table_is_as_drawn),
        cmocka_unit_test(bubbles_equal_the_formulas),
        cmocka_unit_test(messages_and_slots_are_listed_for_lowered_plans),
        cmocka_unit_test(an_order_that_cannot_run_is_an_error),
        cmocka_unit_test(a_full_disk_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
