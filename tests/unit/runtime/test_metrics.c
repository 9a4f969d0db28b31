/* metrics.jsonl: what a line holds, what a resumed run keeps, and a disk that is full. */
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/metrics.h"
#include "tests/unit/runtime/folder.h"

static mhp_step_report report_of(int64_t step)
{
    return (mhp_step_report){.step = step, .loss = 2.5, .targets = 30, .tokens = 32, .step_s = 0.5};
}

static void write_steps(int64_t first, int64_t end)
{
    mhp_metrics *metrics = NULL;

    assert_ok(mhp_metrics_open(test_folder, first, &metrics));
    for (int64_t step = first; step < end; step++) {
        mhp_step_report report = report_of(step);

        assert_ok(mhp_metrics_write(metrics, &report, NAN));
    }
    mhp_metrics_close(metrics);
}

/* The steps that the file's lines name, in their order. */
static int read_steps(int64_t *steps, int room)
{
    FILE *file = fopen(test_path("metrics.jsonl"), "r");
    char line[4096];
    int count = 0;

    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        json_t *root = json_loads(line, 0, NULL);

        assert_true(json_is_object(root));
        assert_true(count < room);
        steps[count++] = json_integer_value(json_object_get(root, "step"));
        json_decref(root);
    }
    fclose(file);
    return count;
}

static void assert_steps_are_1_to(int64_t last)
{
    int64_t steps[16];

    assert_int_equal(read_steps(steps, 16), last);
    for (int64_t i = 0; i < last; i++) {
        assert_int_equal(steps[i], i + 1);
    }
}

static json_t *read_line(void)
{
    char *text = NULL;
    size_t size;
    json_t *root;

    assert_ok(mhp_file_read_all(test_path("metrics.jsonl"), 4096, &text, &size));
    assert_int_equal(text[size - 1], '\n');
    root = json_loadb(text, size, 0, NULL);
    mhp_free(text);
    assert_true(json_is_object(root));
    return root;
}

static void a_line_holds_the_report(void **state)
{
    mhp_metrics *metrics = NULL;
    mhp_step_report report = report_of(0);
    json_t *root;

    (void)state;
    assert_ok(mhp_metrics_open(test_folder, 0, &metrics));
    assert_ok(mhp_metrics_write(metrics, &report, 3.25));
    mhp_metrics_close(metrics);
    root = read_line();
    assert_int_equal(json_integer_value(json_object_get(root, "step")), 1);
    assert_true(json_real_value(json_object_get(root, "loss")) == 2.5);
    assert_true(json_real_value(json_object_get(root, "held_out_loss")) == 3.25);
    assert_true(json_real_value(json_object_get(root, "tokens_per_s")) == 64);
    assert_true(json_real_value(json_object_get(root, "ms_per_step")) == 500);
    json_decref(root);
}

static void held_out_loss_is_left_out(void **state)
{
    json_t *root;

    (void)state;
    write_steps(0, 1);
    root = read_line();
    assert_null(json_object_get(root, "held_out_loss"));
    json_decref(root);
}

/* A diverging run must not lose the line that shows it. */
static void infinite_gain_is_null(void **state)
{
    mhp_metrics *metrics = NULL;
    mhp_step_report report = report_of(0);
    json_t *root;

    (void)state;
    report.worst_forward = INFINITY;
    assert_ok(mhp_metrics_open(test_folder, 0, &metrics));
    assert_ok(mhp_metrics_write(metrics, &report, NAN));
    mhp_metrics_close(metrics);
    root = read_line();
    assert_true(json_is_null(json_object_get(root, "worst_gain_forward")));
    assert_true(json_real_value(json_object_get(root, "loss")) == 2.5);
    json_decref(root);
}

/* A kind without a counter is null, and the sum is that of the other. */
static void energy_that_is_not_readable_is_null(void **state)
{
    mhp_metrics *metrics = NULL;
    mhp_step_report report = report_of(0);
    json_t *root;

    (void)state;
    report.energy = (mhp_joules){{NAN, 64}};
    assert_ok(mhp_metrics_open(test_folder, 0, &metrics));
    assert_ok(mhp_metrics_write(metrics, &report, NAN));
    mhp_metrics_close(metrics);
    root = read_line();
    assert_true(json_is_null(json_object_get(root, "energy_cpu_j")));
    assert_true(json_real_value(json_object_get(root, "energy_gpu_j")) == 64);
    assert_true(json_real_value(json_object_get(root, "energy_j")) == 64);
    assert_true(json_real_value(json_object_get(root, "j_per_token")) == 2);
    json_decref(root);
}

static void resume_drops_later_lines(void **state)
{
    (void)state;
    write_steps(0, 6);
    assert_steps_are_1_to(6);
    write_steps(3, 5);
    assert_steps_are_1_to(5);
    write_steps(5, 5);
    assert_steps_are_1_to(5);
    write_steps(0, 2);
    assert_steps_are_1_to(2);
}

static void resume_drops_a_torn_line(void **state)
{
    FILE *file;

    (void)state;
    write_steps(0, 2);
    file = fopen(test_path("metrics.jsonl"), "a");
    assert_non_null(file);
    assert_true(fputs("{\"step\":3,\"lo", file) >= 0);
    fclose(file);
    write_steps(3, 3);
    assert_steps_are_1_to(2);
}

static void events_stay(void **state)
{
    mhp_metrics *metrics = NULL;
    mhp_step_report report = report_of(4);
    int64_t steps[16];

    (void)state;
    write_steps(0, 5);
    report.fault = MHP_STEP_LOSS;
    assert_ok(mhp_metrics_open(test_folder, 5, &metrics));
    assert_ok(mhp_metrics_write_event(metrics, "rollback", &report, 2));
    mhp_metrics_close(metrics);
    write_steps(2, 4);
    assert_int_equal(read_steps(steps, 16), 5);
    assert_int_equal(steps[1], 2);
    assert_int_equal(steps[2], 5);
    assert_int_equal(steps[3], 3);
    assert_int_equal(steps[4], 4);
}

static void an_event_says_what_was_wrong(void **state)
{
    mhp_metrics *metrics = NULL;
    mhp_step_report report = report_of(4);
    json_t *root;

    (void)state;
    report.fault = MHP_STEP_GRADIENT_NORM;
    report.gradient_norm = INFINITY;
    report.first_sample = 40;
    snprintf(report.fault_text, sizeof report.fault_text, "step 5: why");
    assert_ok(mhp_metrics_open(test_folder, 0, &metrics));
    assert_ok(mhp_metrics_write_event(metrics, "rollback", &report, 2));
    mhp_metrics_close(metrics);
    root = read_line();
    assert_string_equal(json_string_value(json_object_get(root, "event")), "rollback");
    assert_string_equal(json_string_value(json_object_get(root, "fault")), "gradient_norm");
    assert_string_equal(json_string_value(json_object_get(root, "text")), "step 5: why");
    assert_int_equal(json_integer_value(json_object_get(root, "step")), 5);
    assert_int_equal(json_integer_value(json_object_get(root, "first_sample")), 40);
    assert_int_equal(json_integer_value(json_object_get(root, "to_step")), 2);
    assert_true(json_is_null(json_object_get(root, "grad_norm")));
    json_decref(root);
}

static void missing_folder_is_an_error(void **state)
{
    mhp_metrics *metrics = NULL;

    (void)state;
    assert_error(mhp_metrics_open(test_path("missing"), 0, &metrics), MHP_ERR_IO,
                 "missing/metrics.jsonl");
    assert_null(metrics);
}

/* A limit on file sizes stands for the full disk. */
static void full_disk_is_an_error(void **state)
{
    mhp_metrics *metrics = NULL;
    mhp_step_report report = report_of(0);
    struct rlimit limit, small;
    mhp_status status = MHP_OK;

    (void)state;
    assert_ok(mhp_metrics_open(test_folder, 0, &metrics));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = (struct rlimit){.rlim_cur = 1000, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 100 && status == MHP_OK; i++) {
        status = mhp_metrics_write(metrics, &report, NAN);
    }
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_DFL);
    mhp_metrics_close(metrics);
    assert_error(status, MHP_ERR_IO, test_path("metrics.jsonl"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(a_line_holds_the_report),   TEST_IN_FOLDER(held_out_loss_is_left_out),
        TEST_IN_FOLDER(infinite_gain_is_null),     TEST_IN_FOLDER(resume_drops_later_lines),
        TEST_IN_FOLDER(resume_drops_a_torn_line),  TEST_IN_FOLDER(missing_folder_is_an_error),
        TEST_IN_FOLDER(full_disk_is_an_error),     TEST_IN_FOLDER(energy_that_is_not_readable_is_null),
        TEST_IN_FOLDER(events_stay),
        TEST_IN_FOLDER(an_event_says_what_was_wrong),
    };

    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
