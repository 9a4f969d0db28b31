/* The text file for Prometheus, judged line by line by the rules of its exposition format 0.0.4, and replaced as a whole. */
#include <math.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/prometheus.h"
#include "tests/unit/runtime/folder.h"

enum { SAMPLES_MAX = 64, NAME_MAX_BYTES = 128, LABEL_MAX = 256 };

typedef struct sample {
    char name[NAME_MAX_BYTES], run[LABEL_MAX];
    double value;
} sample;

/* ---- the format ---- */

static bool is_name_char(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' || (!first && c >= '0' && c <= '9');
}

static const char *take_name(const char *at, char name[NAME_MAX_BYTES])
{
    size_t length = 0;

    while (is_name_char(at[length], length == 0)) {
        assert_true(length + 1 < NAME_MAX_BYTES);
        name[length] = at[length];
        length++;
    }
    assert_true(length > 0);
    name[length] = '\0';
    return at + length;
}

static const char *take(const char *at, const char *text)
{
    if (strncmp(at, text, strlen(text)) != 0) {
        fail_msg("\"%.40s\": expected \"%s\"", at, text);
    }
    return at + strlen(text);
}

/* Within quotes: only \\, \" and \n are escapes, and a newline cannot stand there. */
static const char *take_label_value(const char *at, char text[LABEL_MAX])
{
    size_t length = 0;

    for (; *at != '"'; at++) {
        assert_true(*at != '\0' && *at != '\n' && length + 1 < LABEL_MAX);
        if (*at == '\\') {
            at++;
            assert_true(*at == '\\' || *at == '"' || *at == 'n');
            text[length++] = *at == 'n' ? '\n' : *at;
        } else {
            text[length++] = *at;
        }
    }
    text[length] = '\0';
    return at + 1;
}

/* HELP, TYPE, sample: in this order, each metric once. */
static int parse_text(const char *at, sample samples[SAMPLES_MAX])
{
    int count = 0;

    while (*at) {
        sample *to = &samples[count];
        char name[NAME_MAX_BYTES], *end;

        assert_true(count < SAMPLES_MAX);
        at = take_name(take(at, "# HELP "), to->name);
        at = take(at, " ");
        assert_true(*at != '\n');
        for (; *at != '\n'; at++) {
            assert_true(*at != '\0' && *at != '\\');
        }
        at = take_name(take(at, "\n# TYPE "), name);
        assert_string_equal(name, to->name);
        at = take_name(take(at, " gauge\n"), name);
        assert_string_equal(name, to->name);
        at = take_label_value(take(at, "{run=\""), to->run);
        at = take(at, "} ");
        to->value = strtod(at, &end);
        assert_true(end > at);
        at = take(end, "\n");
        for (int i = 0; i < count; i++) {
            assert_string_not_equal(samples[i].name, to->name);
        }
        count++;
    }
    return count;
}

static int parse_file(const char *path, sample samples[SAMPLES_MAX])
{
    char *text = NULL;
    size_t size;
    int count;

    assert_ok(mhp_file_read_all(path, 1 << 20, &text, &size));
    assert_int_equal(strlen(text), size);
    count = parse_text(text, samples);
    mhp_free(text);
    return count;
}

static double value_of(const sample *samples, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(samples[i].name, name) == 0) {
            return samples[i].value;
        }
    }
    fail_msg("no sample %s", name);
    return 0;
}

static bool has(const sample *samples, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(samples[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- the cases ---- */

static mhp_prometheus *open_file(const char *run)
{
    mhp_prometheus *prometheus = NULL;

    assert_ok(mhp_prometheus_open(test_path("run.prom"), run, 3, 10, &prometheus));
    return prometheus;
}

static void write_step(mhp_prometheus *prometheus, int64_t done, double held_out_loss)
{
    mhp_step_report report = {.step = done - 1, .loss = INFINITY, .gradient_norm = NAN, .tokens = 100, .step_s = 0.5, .bubble = 0.25,
                              .energy = {{NAN, 200}}};
    mhp_scalar scalars[MHP_SCALARS_MAX];

    assert_ok(mhp_prometheus_write(prometheus, done, scalars, mhp_scalars_of(&report, held_out_loss, scalars)));
}

static void a_step(void **state)
{
    mhp_prometheus *prometheus = open_file("runs/latest");
    sample samples[SAMPLES_MAX];
    int count = parse_file(test_path("run.prom"), samples);

    (void)state;
    assert_int_equal(count, 3);
    assert_true(value_of(samples, count, "mhcpipe_steps_done") == 3);
    write_step(prometheus, 4, NAN);
    count = parse_file(test_path("run.prom"), samples);
    assert_true(value_of(samples, count, "mhcpipe_steps_done") == 4);
    assert_true(value_of(samples, count, "mhcpipe_steps_planned") == 10);
    assert_true(fabs(value_of(samples, count, "mhcpipe_written_timestamp_seconds") - (double)time(NULL)) < 60);
    assert_true(value_of(samples, count, "mhcpipe_step_seconds") == 0.5);       /* base units */
    assert_true(value_of(samples, count, "mhcpipe_tokens_per_second") == 200);
    assert_true(value_of(samples, count, "mhcpipe_bubble_ratio") == 0.25);
    assert_true(value_of(samples, count, "mhcpipe_loss") == INFINITY);
    assert_true(isnan(value_of(samples, count, "mhcpipe_gradient_norm")));
    assert_true(value_of(samples, count, "mhcpipe_step_energy_gpu_joules") == 200);
    assert_true(value_of(samples, count, "mhcpipe_token_energy_joules") == 2);
    assert_false(has(samples, count, "mhcpipe_step_energy_cpu_joules"));
    assert_false(has(samples, count, "mhcpipe_held_out_loss"));
    assert_string_equal(samples[0].run, "runs/latest");
    mhp_prometheus_close(prometheus);
    assert_true(mhp_file_exists(test_path("run.prom")));
    assert_false(mhp_file_exists(test_path("run.prom.tmp")));
}

static void the_last_held_out_loss_stays(void **state)
{
    mhp_prometheus *prometheus = open_file("run");
    sample samples[SAMPLES_MAX];
    int count;

    (void)state;
    write_step(prometheus, 4, 2.75);
    write_step(prometheus, 5, NAN);
    count = parse_file(test_path("run.prom"), samples);
    assert_true(value_of(samples, count, "mhcpipe_held_out_loss") == 2.75);
    assert_true(value_of(samples, count, "mhcpipe_steps_done") == 5);
    mhp_prometheus_close(prometheus);
}

static void labels_are_escaped(void **state)
{
    static const char *const runs[] = {"", "a \"quoted\" run", "C:\\runs\\", "two\nlines", "\\\"\n\\n", "läufe/β", "{a=\"b\"} 1"};

    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        mhp_prometheus *prometheus = open_file(runs[i]);
        sample samples[SAMPLES_MAX];

        assert_int_equal(parse_file(test_path("run.prom"), samples), 3);
        for (int s = 0; s < 3; s++) {
            assert_string_equal(samples[s].run, runs[i]);
        }
        mhp_prometheus_close(prometheus);
    }
    (void)state;
}

/* A reader beside the writer: every time a whole file. */
static void replaced_as_a_whole(void **state)
{
    mhp_prometheus *prometheus = open_file("run");
    int status;
    pid_t reader;

    (void)state;
    write_step(prometheus, 1, 2);
    reader = fork();
    if (reader == 0) {
        sample samples[SAMPLES_MAX];

        for (int i = 0; i < 2000; i++) {
            if (parse_file(test_path("run.prom"), samples) < 15) {
                _exit(100);
            }
        }
        _exit(0);
    }
    for (int64_t i = 0; waitpid(reader, &status, WNOHANG) == 0; i++) {
        write_step(prometheus, i, 2);
    }
    assert_int_equal(status, 0);
    mhp_prometheus_close(prometheus);
}

static void a_path_that_cannot_be_written(void **state)
{
    mhp_prometheus *prometheus = NULL;

    (void)state;
    assert_error(mhp_prometheus_open(test_path("no/such/folder.prom"), "run", 0, 1, &prometheus), MHP_ERR_IO, "no/such/folder.prom");
    assert_null(prometheus);
    assert_int_equal(mkdir(test_path("taken.prom"), 0755), 0);
    assert_error(mhp_prometheus_open(test_path("taken.prom"), "run", 0, 1, &prometheus), MHP_ERR_IO, "taken.prom");
    assert_false(mhp_file_exists(test_path("taken.prom.tmp")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(a_step),
        TEST_IN_FOLDER(the_last_held_out_loss_stays),
        TEST_IN_FOLDER(labels_are_escaped),
        TEST_IN_FOLDER(replaced_as_a_whole),
        TEST_IN_FOLDER(a_path_that_cannot_be_written),
    };

    return cmocka_run_group_tests_name("prometheus", tests, NULL, NULL);
}
