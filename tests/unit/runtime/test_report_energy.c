/* Energy in the report: known counts and idle times give exactly these joules; what is not known is null and has a reason. */
#include "tests/unit/runtime/folder.h"

#include <jansson.h>
#include <math.h>

#include "runtime/profile/report_energy.h"

enum { RANKS = 3, STEPS = 2, FIRST = 5 };

/* Ranks 0 and 2 share a card; all share the packages. Shares of idle time: [step][rank]. */
static const double bubble[STEPS][RANKS] = {{0.5, 0.25, 0}, {0.25, 0.5, 0.75}};
static const double exposed[STEPS][RANKS] = {{0.125, 0, 0.375}, {0, 0.25, 0.25}};
static const double window_us[RANKS] = {1000, 2000, 4000};

static const char metrics_text[] =
    "{\"step\":4,\"tokens\":100,\"energy_gpu_j\":9999,\"energy_cpu_j\":9999}\n"
    "{\"step\":5,\"tokens\":100,\"energy_gpu_j\":24,\"energy_cpu_j\":30,\"energy_meters\":[{\"kind\":\"cpu\",\"ranks\":[0,1,2],\"j\":30},"
    "{\"kind\":\"gpu\",\"ranks\":[0,2],\"j\":16},{\"kind\":\"gpu\",\"ranks\":[1],\"j\":8}]}\n"
    "{\"step\":6,\"tokens\":100,\"energy_gpu_j\":40,\"energy_cpu_j\":60,\"energy_meters\":[{\"kind\":\"cpu\",\"ranks\":[0,1,2],\"j\":60},"
    "{\"kind\":\"gpu\",\"ranks\":[0,2],\"j\":32},{\"kind\":\"gpu\",\"ranks\":[1],\"j\":8}]}\n";
static const char summary_text[] = "{\"steps\":10,\"first_step\":0,\"energy\":{\"gpu_j\":360,\"cpu_j\":400,\"j_per_step\":72.5,"
                                   "\"j_per_token\":0.75,\"kwh\":2e-4,\"co2e_g\":0.0875,\"grams_per_kwh\":350,\"pue\":1.25}}";

static mhp_step_analysis steps[STEPS];
static mhp_rank_figures figures[STEPS][RANKS];

static mhp_analysis sample(void)
{
    for (int s = 0; s < STEPS; s++) {
        for (int r = 0; r < RANKS; r++) {
            figures[s][r] = (mhp_rank_figures){.step_us = window_us[r], .bubble_us = bubble[s][r] * window_us[r],
                                               .exposed_us = exposed[s][r] * window_us[r]};
        }
        steps[s].ranks = figures[s];
    }
    return (mhp_analysis){.rank_count = RANKS, .step_count = STEPS, .steps = steps};
}

static void create(const char *metrics_of, const char *summary_of, mhp_report_energy *energy)
{
    mhp_analysis analysis = sample();
    mhp_run_metrics metrics;

    if (metrics_of) {
        test_write("metrics.jsonl", metrics_of, strlen(metrics_of));
    }
    if (summary_of) {
        test_write("summary.json", summary_of, strlen(summary_of));
    }
    assert_ok(mhp_run_metrics_read(test_folder, FIRST, STEPS, &metrics));
    assert_ok(mhp_report_energy_create(&analysis, &metrics, test_folder, energy));
    mhp_run_metrics_release(&metrics);
}

/* Of a report's JSON, "gpu/bubble_j"; NaN: null. */
static void assert_figure(const json_t *root, const char *path, double expected)
{
    char copy[64], *rest = NULL;
    const json_t *at = root;

    snprintf(copy, sizeof copy, "%s", path);
    for (char *key = strtok_r(copy, "/", &rest); key; key = strtok_r(NULL, "/", &rest)) {
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    }
    if (isnan(expected) ? !json_is_null(at) : !(fabs(json_number_value(at) - expected) < 1e-9)) {
        fail_msg("%s is %g%s: expected %g", path, json_number_value(at), json_is_null(at) ? " (null)" : "", expected);
    }
}

static void assert_reason(const json_t *root, const char *path, const char *part)
{
    char object[32], key[32];
    const char *text;

    assert_int_equal(sscanf(path, "%31[^/]/%31s", object, key), 2);
    text = json_string_value(json_object_get(json_object_get(root, object), key));
    if (part ? !text || !strstr(text, part) : text != NULL) {
        fail_msg("%s is %s: expected %s", path, text ? text : "null", part ? part : "null");
    }
}

static char *table_of(const mhp_report_energy *energy)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);

    mhp_report_energy_table(energy, stream);
    fclose(stream);
    return text;
}

static void known_energies_give_exactly_their_figures(void **state)
{
    mhp_report_energy energy;
    json_t *root;
    char *table;
    /* By hand: mean over two steps of joules times the mean share of the ranks of each meter. */
    double cpu = (30 * (0.75 / 3) + 60 * (1.5 / 3)) / 2, shared = (16 * 0.25 + 32 * 0.5) / 2, own = (8 * 0.25 + 8 * 0.5) / 2;
    double cpu_exposed = (30 * (0.5 / 3) + 60 * (0.5 / 3)) / 2, shared_exposed = (16 * 0.25 + 32 * 0.125) / 2, own_exposed = 8 * 0.25 / 2;

    (void)state;
    create(metrics_text, summary_text, &energy);
    root = mhp_report_energy_json(&energy);
    assert_figure(root, "j_per_step", 77);
    assert_figure(root, "j_per_token", 0.77);
    assert_figure(root, "gpu/j_per_step", 32);
    assert_figure(root, "cpu/j_per_step", 45);
    assert_figure(root, "cpu/bubble_j", cpu);
    assert_figure(root, "cpu/exposed_j", cpu_exposed);
    assert_figure(root, "gpu/bubble_j", shared + own);
    assert_figure(root, "gpu/exposed_j", shared_exposed + own_exposed);
    assert_figure(root, "bubble_j", cpu + shared + own);
    assert_figure(root, "exposed_j", cpu_exposed + shared_exposed + own_exposed);
    assert_figure(root, "meters/1/j_per_step", 24);
    assert_figure(root, "meters/1/bubble_j", shared);
    assert_figure(root, "meters/1/ranks/1", 2);
    assert_figure(root, "meters/2/exposed_j", own_exposed);
    assert_figure(root, "run/j_per_step", 72.5);
    assert_figure(root, "run/j_per_token", 0.75);
    assert_figure(root, "run/kwh", 2e-4);
    assert_figure(root, "run/co2e_g", 0.0875);
    assert_reason(root, "gpu/reason", NULL);
    assert_reason(root, "cpu/reason", NULL);
    assert_reason(root, "run/reason", NULL);
    assert_reason(root, "run/co2e_reason", NULL);
    table = table_of(&energy);
    assert_non_null(strstr(table, "energy          77 J a step, idle in bubbles 31.75 J, exposed 12.5 J, 0.77 J a token\n"));
    assert_non_null(strstr(table, "  GPU           32 J a step, idle in bubbles 13 J, exposed 5 J\n"));
    assert_non_null(strstr(table, "  whole run     72.5 J a step, 0.75 J a token, 0.0002 kWh, 0.0875 g CO2e\n"));
    free(table);
    json_decref(root);
    mhp_report_energy_release(&energy);
}

static void no_energy_is_null_with_the_reason(void **state)
{
    mhp_report_energy energy;
    json_t *root;
    char *table;

    (void)state;
    create("{\"step\":5,\"tokens\":100,\"energy_gpu_j\":null,\"energy_cpu_j\":null}\n"
           "{\"step\":6,\"tokens\":100,\"energy_gpu_j\":null,\"energy_cpu_j\":null}\n",
           "{\"steps\":10,\"first_step\":0,\"energy\":{\"gpu_j\":null,\"gpu_reason\":\"no card computes\",\"cpu_j\":null,"
           "\"cpu_reason\":\"/sys is not there\",\"kwh\":null}}",
           &energy);
    root = mhp_report_energy_json(&energy);
    assert_figure(root, "j_per_step", NAN);
    assert_figure(root, "j_per_token", NAN);
    assert_figure(root, "bubble_j", NAN);
    assert_figure(root, "gpu/bubble_j", NAN);
    assert_figure(root, "cpu/exposed_j", NAN);
    assert_figure(root, "run/kwh", NAN);
    assert_figure(root, "run/co2e_g", NAN);
    assert_reason(root, "gpu/reason", "no card computes");
    assert_reason(root, "cpu/reason", "/sys is not there");
    assert_reason(root, "run/reason", "GPU: no card computes; CPU: /sys is not there");
    assert_reason(root, "run/co2e_reason", "the run's energy is not known");
    table = table_of(&energy);
    assert_non_null(strstr(table, "  GPU           - J a step, idle in bubbles - J, exposed - J (no card computes)\n"));
    free(table);
    json_decref(root);
    mhp_report_energy_release(&energy);
}

/* What one kind or one figure lacks does not take the others away. */
static void a_part_may_be_known(void **state)
{
    mhp_report_energy energy;
    json_t *root;

    (void)state;
    create("{\"step\":5,\"tokens\":100,\"energy_gpu_j\":24,\"energy_cpu_j\":null}\n"
           "{\"step\":6,\"tokens\":100,\"energy_gpu_j\":40,\"energy_cpu_j\":60}\n",
           "{\"steps\":10,\"first_step\":6,\"energy\":{\"kwh\":1}}", &energy);
    root = mhp_report_energy_json(&energy);
    assert_figure(root, "j_per_step", 32);
    assert_figure(root, "gpu/j_per_step", 32);
    assert_figure(root, "gpu/bubble_j", NAN);
    assert_figure(root, "cpu/j_per_step", NAN);
    assert_figure(root, "run/kwh", NAN);
    assert_reason(root, "gpu/reason", "energy_meters of step 5 in metrics.jsonl: expected a list");
    assert_reason(root, "cpu/reason", "not read in step 5");
    assert_reason(root, "run/reason", "is not of the start of the run that recorded these steps");
    json_decref(root);
    mhp_report_energy_release(&energy);
    create(metrics_text, "{\"steps\":10,\"first_step\":0,\"energy\":{\"gpu_j\":1,\"kwh\":2,\"co2e_g\":null,\"pue\":1}}", &energy);
    root = mhp_report_energy_json(&energy);
    assert_figure(root, "run/kwh", 2);
    assert_figure(root, "run/co2e_g", NAN);
    assert_reason(root, "run/co2e_reason", "report.emissions.grams_per_kwh is not given");
    json_decref(root);
    mhp_report_energy_release(&energy);
}

static void refuse(const char *second_meters, const char *reason)
{
    char text[1024];
    mhp_report_energy energy;
    json_t *root;

    snprintf(text, sizeof text,
             "{\"step\":5,\"tokens\":1,\"energy_gpu_j\":2,\"energy_cpu_j\":null,\"energy_meters\":[{\"kind\":\"gpu\",\"ranks\":[0,2],\"j\":2}]}\n"
             "{\"step\":6,\"tokens\":1,\"energy_gpu_j\":2,\"energy_cpu_j\":null,\"energy_meters\":%s}\n",
             second_meters);
    create(text, NULL, &energy);
    root = mhp_report_energy_json(&energy);
    assert_figure(root, "gpu/j_per_step", 2);
    assert_figure(root, "gpu/bubble_j", NAN);
    assert_reason(root, "gpu/reason", reason);
    assert_reason(root, "run/reason", "it is written at the run's end");
    json_decref(root);
    mhp_report_energy_release(&energy);
}

static void odd_meters_are_refused(void **state)
{
    mhp_report_energy energy;

    (void)state;
    refuse("[{\"kind\":\"gpu\",\"ranks\":[0,1],\"j\":2}]", "step 6 in metrics.jsonl: expected the meters of step 5");
    refuse("7", "step 6 in metrics.jsonl: expected the meters of step 5");
    refuse("[{\"kind\":\"gpu\",\"ranks\":[0,2],\"j\":null}]", "a meter of it has no number");
    create("{\"step\":5,\"energy_gpu_j\":2,\"energy_meters\":[{\"kind\":\"gpu\",\"ranks\":[0,3],\"j\":2}]}\n{\"step\":6,\"energy_gpu_j\":2}\n", NULL,
           &energy);
    assert_non_null(strstr(energy.reason[MHP_ENERGY_GPU], "step 5 in metrics.jsonl: expected ranks from 0 to 2"));
    mhp_report_energy_release(&energy);
    create("{\"step\":5,\"energy_gpu_j\":2,\"energy_meters\":[{\"kind\":\"tpu\",\"ranks\":[0],\"j\":2}]}\n{\"step\":6,\"energy_gpu_j\":2}\n", NULL,
           &energy);
    assert_non_null(strstr(energy.reason[MHP_ENERGY_GPU], "expected objects with kind gpu or cpu"));
    mhp_report_energy_release(&energy);
    create("{\"step\":5,\"energy_gpu_j\":2}\n", NULL, &energy);
    assert_string_equal(energy.reason[MHP_ENERGY_GPU], "metrics.jsonl has no line of step 6");
    mhp_report_energy_release(&energy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(known_energies_give_exactly_their_figures),
        TEST_IN_FOLDER(no_energy_is_null_with_the_reason),
        TEST_IN_FOLDER(a_part_may_be_known),
        TEST_IN_FOLDER(odd_meters_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
