/* What the report takes from metrics.jsonl: each step once, without bad steps' events and what rollbacks undid; long runs thinned without
 * losing their extremes; odd files left out with the reason. */
#include "tests/unit/runtime/folder.h"

#include <jansson.h>
#include <math.h>

#include "runtime/profile/run_metrics.h"

enum { LONG_STEPS = 150000, SPIKE_STEP = 77777, DIP_STEP = 123456 };

static void read_text(const char *text, mhp_run_metrics *metrics)
{
    test_write("metrics.jsonl", text, strlen(text));
    assert_ok(mhp_run_metrics_read(test_folder, 3, 2, metrics));
}

static json_t *json_of(const mhp_run_metrics *metrics)
{
    json_t *root = NULL;

    assert_ok(mhp_run_metrics_json(metrics, &root));
    return root;
}

/* "1 0.5 2 0.25": a curve of the page. */
static void assert_curve(const mhp_run_metrics *metrics, const char *key, const char *expected)
{
    json_t *root = json_of(metrics), *value;
    char text[512] = "";
    size_t i, length = 0;

    json_array_foreach(json_object_get(root, key), i, value)
    {
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%g", i > 0 ? " " : "", json_number_value(value));
    }
    assert_string_equal(text, expected);
    json_decref(root);
}

static void curves_are_of_steps_alone(void **state)
{
    mhp_run_metrics metrics;
    json_t *root;

    (void)state;
    read_text("{\"step\":1,\"loss\":4}\n"
              "{\"step\":2,\"loss\":3.5,\"gain_forward\":1.5}\n"
              "{\"event\":\"skip\",\"step\":3,\"fault\":\"loss\",\"loss\":9000,\"gain_forward\":7000}\n"
              "{\"step\":3,\"loss\":null,\"held_out_loss\":3.75}\n"
              "{\"step\":4,\"loss\":3",
              &metrics);
    assert_string_equal(metrics.reason, "");
    assert_curve(&metrics, "loss", "1 4 2 3.5");
    assert_curve(&metrics, "gain_forward", "2 1.5");
    assert_curve(&metrics, "held_out_loss", "3 3.75");
    assert_non_null(metrics.recorded[0]); /* step 3 */
    assert_null(metrics.recorded[1]);     /* step 4 was cut off */
    root = json_of(&metrics);
    assert_int_equal(json_array_size(json_object_get(root, "events")), 1);
    assert_int_equal(json_integer_value(json_array_get(json_array_get(json_object_get(root, "events"), 0), 0)), 3);
    assert_true(json_is_null(json_object_get(root, "reason")));
    json_decref(root);
    mhp_run_metrics_release(&metrics);
}

static void what_a_rollback_undid_is_gone(void **state)
{
    mhp_run_metrics metrics;

    (void)state;
    read_text("{\"step\":1,\"loss\":4}\n{\"step\":2,\"loss\":3}\n{\"step\":3,\"loss\":50}\n{\"step\":4,\"loss\":60}\n"
              "{\"event\":\"rollback\",\"step\":5,\"loss\":900,\"to_step\":2}\n",
              &metrics);
    assert_curve(&metrics, "loss", "1 4 2 3");
    assert_null(metrics.recorded[0]);
    mhp_run_metrics_release(&metrics);
    read_text("{\"step\":1,\"loss\":4}\n{\"step\":2,\"loss\":3}\n{\"step\":3,\"loss\":50}\n{\"step\":4,\"loss\":60}\n"
              "{\"step\":3,\"loss\":2}\n",
              &metrics);
    assert_curve(&metrics, "loss", "1 4 2 3 3 2");
    assert_true(json_number_value(json_object_get(metrics.recorded[0], "loss")) == 2);
    assert_null(metrics.recorded[1]);
    mhp_run_metrics_release(&metrics);
}

static void write_long(void)
{
    FILE *file = fopen(test_path("metrics.jsonl"), "w");

    assert_non_null(file);
    for (int step = 1; step <= LONG_STEPS; step++) {
        double loss = step == SPIKE_STEP ? 99 : step == DIP_STEP ? -7 : 5 - 1e-5 * step;

        fprintf(file, "{\"step\":%d,\"loss\":%.9g,\"lr\":1e-3,\"tokens\":512,\"gain_forward\":1.25}\n", step, loss);
        if (step % 100 == 0) {
            fprintf(file, "{\"event\":\"skip\",\"step\":%d,\"loss\":1e9}\n", step + 1);
        }
    }
    assert_int_equal(fclose(file), 0);
}

static void a_long_run_is_thinned_and_keeps_its_extremes(void **state)
{
    mhp_run_metrics metrics;
    json_t *root, *loss, *value;
    double least = INFINITY, most = -INFINITY, last_step = 0;
    size_t i;
    char *text;

    (void)state;
    write_long();
    assert_ok(mhp_run_metrics_read(test_folder, 3, 2, &metrics));
    assert_int_equal(metrics.step_count, LONG_STEPS);
    root = json_of(&metrics);
    loss = json_object_get(root, "loss");
    assert_in_range(json_array_size(loss), MHP_CURVE_POINTS_MAX, 2 * MHP_CURVE_POINTS_MAX); /* two numbers a point */
    json_array_foreach(loss, i, value)
    {
        if (i % 2 == 0) {
            assert_true(json_number_value(value) > last_step);
            last_step = json_number_value(value);
        } else {
            least = fmin(least, json_number_value(value));
            most = fmax(most, json_number_value(value));
        }
    }
    assert_true(least == -7 && most == 99);
    assert_true(json_number_value(json_array_get(loss, 0)) == 1 && last_step == LONG_STEPS);
    assert_in_range(json_array_size(json_object_get(root, "events")), 1, MHP_CURVE_EVENTS_MAX);
    text = json_dumps(root, JSON_COMPACT);
    assert_in_range(strlen(text), 1, 400000);
    free(text);
    json_decref(root);
    mhp_run_metrics_release(&metrics);
}

static void assert_left_out(const char *reason)
{
    mhp_run_metrics metrics;
    json_t *root;

    assert_ok(mhp_run_metrics_read(test_folder, 3, 2, &metrics));
    if (!strstr(metrics.reason, reason)) {
        fail_msg("\"%s\": expected \"%s\"", metrics.reason, reason);
    }
    assert_int_equal(metrics.step_count, 0);
    assert_null(metrics.recorded[0]);
    root = json_of(&metrics);
    assert_string_equal(json_string_value(json_object_get(root, "reason")), metrics.reason);
    assert_int_equal(json_array_size(json_object_get(root, "loss")), 0);
    json_decref(root);
    mhp_run_metrics_release(&metrics);
}

static void odd_files_are_left_out_with_the_reason(void **state)
{
    static const char step[] = "{\"step\":3,\"loss\":4}\n";
    static char line[2 << 20];

    (void)state;
    assert_left_out("there is no ");
    test_write("metrics.jsonl", "not\na\nstep\n", 11);
    assert_left_out("has no line of a step");
    memset(line, 'x', sizeof line);
    memcpy(line, step, sizeof step - 1);
    test_write("metrics.jsonl", line, sizeof line);
    assert_left_out("line 2 of ");
    test_write("metrics.jsonl", step, sizeof step - 1);
    assert_int_equal(truncate(test_path("metrics.jsonl"), ((off_t)1 << 30) + 1), 0);
    assert_left_out("has 1073741825 bytes, more than 1073741824");
    assert_int_equal(unlink(test_path("metrics.jsonl")), 0);
    assert_int_equal(symlink("/", test_path("metrics.jsonl")), 0);
    assert_left_out("is no regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(curves_are_of_steps_alone),
        TEST_IN_FOLDER(what_a_rollback_undid_is_gone),
        TEST_IN_FOLDER(a_long_run_is_thinned_and_keeps_its_extremes),
        TEST_IN_FOLDER(odd_files_are_left_out_with_the_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
