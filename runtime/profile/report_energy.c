#include "runtime/profile/report_energy.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { SUMMARY_BYTES_MAX = 1 << 20 };

static const char *kind_key(int kind)
{
    return kind == MHP_ENERGY_GPU ? "gpu" : "cpu";
}

static double number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* ---- the meters of a step ---- */

/* Reads one entry of energy_meters; MHP_ERR_FORMAT if it is none. */
static mhp_status read_meter(const json_t *entry, int rank_count, mhp_meter_figures *meter)
{
    const char *kind = json_string_value(json_object_get(entry, "kind"));
    const json_t *ranks = json_object_get(entry, "ranks");

    *meter = (mhp_meter_figures){.rank_count = (int)json_array_size(ranks)};
    if (!kind || (strcmp(kind, "gpu") != 0 && strcmp(kind, "cpu") != 0) || meter->rank_count == 0 || meter->rank_count > rank_count) {
        return mhp_error_set(MHP_ERR_FORMAT, "expected objects with kind gpu or cpu, the ranks that share the meter, and j");
    }
    meter->kind = strcmp(kind, "gpu") == 0 ? MHP_ENERGY_GPU : MHP_ENERGY_CPU;
    MHP_RETURN_IF_ERROR(mhp_calloc(&meter->ranks, (size_t)meter->rank_count, sizeof *meter->ranks));
    for (int i = 0; i < meter->rank_count; i++) {
        const json_t *rank = json_array_get(ranks, (size_t)i);

        if (!json_is_integer(rank) || json_integer_value(rank) < 0 || json_integer_value(rank) >= rank_count) {
            return mhp_error_set(MHP_ERR_FORMAT, "expected ranks from 0 to %d", rank_count - 1);
        }
        meter->ranks[i] = (int)json_integer_value(rank);
    }
    return MHP_OK;
}

/* The meters are those of the first recorded step. MHP_ERR_FORMAT if its line has none, or something else in their place. */
static mhp_status read_meters(const json_t *line, int rank_count, mhp_report_energy *energy)
{
    const json_t *list = json_object_get(line, "energy_meters");

    if (json_array_size(list) == 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "expected a list of what each meter read");
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&energy->meters, json_array_size(list), sizeof *energy->meters));
    for (size_t i = 0; i < json_array_size(list); i++) {
        MHP_RETURN_IF_ERROR(read_meter(json_array_get(list, i), rank_count, &energy->meters[energy->meter_count++]));
    }
    return MHP_OK;
}

/* What a meter's ranks stood still, in parts of their windows: the mean over them, for nobody knows whose share of the power was whose. */
static double mean_share(const mhp_meter_figures *meter, const mhp_step_analysis *step, mhp_idle_kind kind)
{
    double sum = 0;

    for (int i = 0; i < meter->rank_count; i++) {
        const mhp_rank_figures *figures = &step->ranks[meter->ranks[i]];
        double idle_us = kind == MHP_IDLE_BUBBLE ? figures->bubble_us : figures->exposed_us;

        sum += figures->step_us > 0 ? idle_us / figures->step_us : 0;
    }
    return sum / meter->rank_count;
}

/* Adds one recorded step; a step whose line lacks the meter makes the sums unknown. */
static void add_meters(mhp_report_energy *energy, const mhp_step_analysis *step, const json_t *line, double factor)
{
    const json_t *list = json_object_get(line, "energy_meters");

    for (int i = 0; i < energy->meter_count; i++) {
        mhp_meter_figures *meter = &energy->meters[i];
        double joules = factor * number_at(json_array_get(list, (size_t)i), "j");

        meter->of.step_j += joules;
        meter->of.bubble_j += joules * mean_share(meter, step, MHP_IDLE_BUBBLE);
        meter->of.exposed_j += joules * mean_share(meter, step, MHP_IDLE_EXPOSED);
    }
}

/* ---- reasons ---- */

/* The first recorded step whose line lacks a key, or has no number there, from 1; 0: none. */
static int64_t find_missing(const mhp_run_metrics *metrics, const char *key)
{
    for (int i = 0; i < metrics->recorded_count; i++) {
        if (isnan(number_at(metrics->recorded[i], key))) {
            return metrics->first_recorded + i;
        }
    }
    return 0;
}

/* Why a kind's energy is not known: the meter's own reason, if the run came to its end and wrote it down. */
static void explain_kind(const mhp_run_metrics *metrics, const json_t *summary, int kind, int64_t missing, char *text)
{
    char key[16];
    const char *reason;

    snprintf(key, sizeof key, "%s_reason", kind_key(kind));
    reason = json_string_value(json_object_get(json_object_get(summary, "energy"), key));
    if (metrics->reason[0] != '\0') {
        snprintf(text, MHP_REPORT_REASON_MAX, "%s", metrics->reason);
    } else if (!metrics->recorded[missing - metrics->first_recorded]) {
        snprintf(text, MHP_REPORT_REASON_MAX, "metrics.jsonl has no line of step %lld", (long long)missing);
    } else if (reason) {
        snprintf(text, MHP_REPORT_REASON_MAX, "%s", reason);
    } else {
        snprintf(text, MHP_REPORT_REASON_MAX, "not read in step %lld; summary.json, written at the run's end, has the reason",
                 (long long)missing);
    }
}

/* ---- the recorded steps ---- */

static void sum_kind(const mhp_analysis *analysis, const mhp_run_metrics *metrics, const json_t *summary, int kind,
                     mhp_report_energy *energy)
{
    mhp_step_joules *of = &energy->of[kind];
    char key[16];
    int64_t missing;
    int meters = 0;

    snprintf(key, sizeof key, "energy_%s_j", kind_key(kind));
    missing = find_missing(metrics, key);
    *of = (mhp_step_joules){missing ? NAN : 0, 0, 0};
    for (int i = 0; !missing && i < metrics->recorded_count; i++) {
        of->step_j += number_at(metrics->recorded[i], key) / analysis->step_count;
    }
    for (int i = 0; i < energy->meter_count; i++) {
        if ((int)energy->meters[i].kind == kind) {
            of->bubble_j += energy->meters[i].of.bubble_j;
            of->exposed_j += energy->meters[i].of.exposed_j;
            meters++;
        }
    }
    if (missing) {
        explain_kind(metrics, summary, kind, missing, energy->reason[kind]);
    } else if (meters == 0) {
        snprintf(energy->reason[kind], MHP_REPORT_REASON_MAX, "%s",
                 energy->meter_reason[0] != '\0' ? energy->meter_reason : "energy while idle: energy_meters in metrics.jsonl has none of it");
    } else if (isnan(of->bubble_j)) {
        snprintf(energy->reason[kind], MHP_REPORT_REASON_MAX, "energy while idle: a meter of it has no number in energy_meters");
    }
    if (missing || meters == 0) {
        of->bubble_j = of->exposed_j = NAN;
    }
}

static double add_known(double sum, double value)
{
    return isnan(value) ? sum : isnan(sum) ? value : sum + value;
}

static void sum_kinds(const mhp_run_metrics *metrics, mhp_report_energy *energy)
{
    double tokens = 0;

    energy->sum = (mhp_step_joules){NAN, NAN, NAN};
    for (int kind = 0; kind < MHP_ENERGY_KINDS; kind++) {
        energy->sum.step_j = add_known(energy->sum.step_j, energy->of[kind].step_j);
        energy->sum.bubble_j = add_known(energy->sum.bubble_j, energy->of[kind].bubble_j);
        energy->sum.exposed_j = add_known(energy->sum.exposed_j, energy->of[kind].exposed_j);
    }
    for (int i = 0; i < metrics->recorded_count; i++) {
        tokens += number_at(metrics->recorded[i], "tokens") / metrics->recorded_count;
    }
    energy->j_per_token = tokens > 0 ? energy->sum.step_j / tokens : NAN;
}

/* Whether a step's line has the meters that the first one has. */
static bool has_same_meters(const mhp_run_metrics *metrics, int step)
{
    const json_t *first = json_object_get(metrics->recorded[0], "energy_meters"),
                 *list = json_object_get(metrics->recorded[step], "energy_meters");
    bool same = json_array_size(list) == json_array_size(first);

    for (size_t i = 0; same && i < json_array_size(first); i++) {
        const json_t *a = json_array_get(first, i), *b = json_array_get(list, i);

        same = json_equal(json_object_get(a, "kind"), json_object_get(b, "kind")) &&
               json_equal(json_object_get(a, "ranks"), json_object_get(b, "ranks"));
    }
    return same;
}

static void drop_meters(mhp_report_energy *energy)
{
    for (int i = 0; i < energy->meter_count; i++) {
        mhp_free(energy->meters[i].ranks);
    }
    mhp_free(energy->meters);
    energy->meters = NULL;
    energy->meter_count = 0;
}

static mhp_status measure_meters(const mhp_analysis *analysis, const mhp_run_metrics *metrics, mhp_report_energy *energy)
{
    mhp_status status = read_meters(metrics->recorded[0], analysis->rank_count, energy);
    int i = 0;

    for (; status == MHP_OK && i < metrics->recorded_count; i++) {
        add_meters(energy, &analysis->steps[i], metrics->recorded[i], 1.0 / analysis->step_count);
        if (!has_same_meters(metrics, i)) {
            status = mhp_error_set(MHP_ERR_FORMAT, "expected the meters of step %lld", (long long)metrics->first_recorded);
        }
    }
    if (status != MHP_ERR_FORMAT) {
        return status;
    }
    snprintf(energy->meter_reason, sizeof energy->meter_reason, "energy while idle: energy_meters of step %lld in metrics.jsonl: %s",
             (long long)metrics->first_recorded + (i > 0 ? i - 1 : 0), mhp_error_text());
    drop_meters(energy);
    return MHP_OK;
}

/* ---- the run ---- */

/* NULL, and the reason, unless there is a summary of the start of the run that recorded the steps. */
static mhp_status read_summary(const char *directory, const mhp_run_metrics *metrics, json_t **summary_out, char *reason)
{
    mhp_status status = MHP_OK;
    char *path = NULL, *text = NULL;
    size_t size = 0;
    json_t *root = NULL;

    *summary_out = NULL;
    MHP_TRY(out, mhp_asprintf(&path, "%s/summary.json", directory));
    if (!mhp_file_exists(path)) {
        snprintf(reason, MHP_REPORT_REASON_MAX, "there is no %s: it is written at the run's end", path);
        goto out;
    }
    if (mhp_file_read_all(path, SUMMARY_BYTES_MAX, &text, &size) < 0) {
        snprintf(reason, MHP_REPORT_REASON_MAX, "%s", mhp_error_text());
        goto out;
    }
    root = json_loadb(text, size, 0, NULL);
    if (!json_is_object(json_object_get(root, "energy"))) {
        snprintf(reason, MHP_REPORT_REASON_MAX, "%s has no energy", path);
    } else if (!(number_at(root, "first_step") < (double)metrics->first_recorded) ||
               !(number_at(root, "steps") >= (double)(metrics->first_recorded + metrics->recorded_count - 1))) {
        snprintf(reason, MHP_REPORT_REASON_MAX, "%s is not of the start of the run that recorded these steps", path);
    } else {
        *summary_out = json_incref(root);
    }
out:
    json_decref(root);
    mhp_free(path);
    mhp_free(text);
    return status;
}

/* Why the run's energy is not known though there is a summary: what its kinds say. */
static void explain_run(const json_t *of, char *reason)
{
    const char *gpu = json_string_value(json_object_get(of, "gpu_reason")), *cpu = json_string_value(json_object_get(of, "cpu_reason"));

    snprintf(reason, MHP_REPORT_REASON_MAX, "GPU: %s; CPU: %s", gpu ? gpu : "not readable", cpu ? cpu : "not readable");
}

static void take_run(const json_t *summary, mhp_report_energy *energy)
{
    const json_t *of = json_object_get(summary, "energy");

    energy->run_j_per_step = number_at(of, "j_per_step");
    energy->run_j_per_token = number_at(of, "j_per_token");
    energy->kwh = number_at(of, "kwh");
    energy->co2e_g = number_at(of, "co2e_g");
    energy->grams_per_kwh = number_at(of, "grams_per_kwh");
    energy->pue = number_at(of, "pue");
    if (isnan(energy->kwh) && summary) {
        explain_run(of, energy->run_reason);
    }
    if (isnan(energy->kwh)) {
        snprintf(energy->co2e_reason, sizeof energy->co2e_reason, "the run's energy is not known");
    } else if (isnan(energy->co2e_g)) {
        snprintf(energy->co2e_reason, sizeof energy->co2e_reason, "report.emissions.grams_per_kwh is not given");
    }
}

mhp_status mhp_report_energy_create(const mhp_analysis *analysis, const mhp_run_metrics *metrics, const char *directory,
                                    mhp_report_energy *energy_out)
{
    mhp_status status = MHP_OK;
    json_t *summary = NULL;

    *energy_out = (mhp_report_energy){0};
    MHP_TRY(out, read_summary(directory, metrics, &summary, energy_out->run_reason));
    MHP_TRY(out, measure_meters(analysis, metrics, energy_out));
    for (int kind = 0; kind < MHP_ENERGY_KINDS; kind++) {
        sum_kind(analysis, metrics, summary, kind, energy_out);
    }
    sum_kinds(metrics, energy_out);
    take_run(summary, energy_out);
out:
    json_decref(summary);
    return status;
}

void mhp_report_energy_release(mhp_report_energy *energy)
{
    drop_meters(energy);
    *energy = (mhp_report_energy){0};
}

/* ---- what is said ---- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void set_reason(json_t *object, const char *key, const char *reason)
{
    json_object_set_new(object, key, reason[0] != '\0' ? json_string(reason) : json_null());
}

static json_t *joules_json(const mhp_step_joules *of)
{
    return json_pack("{s:o, s:o, s:o}", "j_per_step", number(of->step_j), "bubble_j", number(of->bubble_j), "exposed_j",
                     number(of->exposed_j));
}

static json_t *meters_json(const mhp_report_energy *energy)
{
    json_t *list = json_array();

    for (int i = 0; i < energy->meter_count; i++) {
        const mhp_meter_figures *meter = &energy->meters[i];
        json_t *object = joules_json(&meter->of), *ranks = json_array();

        for (int r = 0; r < meter->rank_count; r++) {
            json_array_append_new(ranks, json_integer(meter->ranks[r]));
        }
        json_object_set_new(object, "kind", json_string(kind_key(meter->kind)));
        json_object_set_new(object, "ranks", ranks);
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *run_json(const mhp_report_energy *energy)
{
    json_t *run = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "j_per_step", number(energy->run_j_per_step), "j_per_token",
                            number(energy->run_j_per_token), "kwh", number(energy->kwh), "co2e_g", number(energy->co2e_g), "grams_per_kwh",
                            number(energy->grams_per_kwh), "pue", number(energy->pue));

    set_reason(run, "reason", energy->run_reason);
    set_reason(run, "co2e_reason", energy->co2e_reason);
    return run;
}

json_t *mhp_report_energy_json(const mhp_report_energy *energy)
{
    json_t *root;

    if (!energy) {
        return json_null();
    }
    root = joules_json(&energy->sum);
    json_object_set_new(root, "j_per_token", number(energy->j_per_token));
    for (int kind = 0; kind < MHP_ENERGY_KINDS; kind++) {
        json_t *of = joules_json(&energy->of[kind]);

        set_reason(of, "reason", energy->reason[kind]);
        json_object_set_new(root, kind_key(kind), of);
    }
    json_object_set_new(root, "meters", meters_json(energy));
    json_object_set_new(root, "run", run_json(energy));
    return root;
}

/* "12.3 J", or "- J" where it is not known. */
static void put(FILE *stream, const char *before, double value, const char *behind)
{
    if (isnan(value)) {
        fprintf(stream, "%s-%s", before, behind);
    } else {
        fprintf(stream, "%s%.5g%s", before, value, behind);
    }
}

static void put_joules(FILE *stream, const char *name, const mhp_step_joules *of)
{
    fprintf(stream, "%-15s", name);
    put(stream, " ", of->step_j, " J a step");
    put(stream, ", idle in bubbles ", of->bubble_j, " J");
    put(stream, ", exposed ", of->exposed_j, " J");
}

static void end_line(FILE *stream, const char *what, const char *reason)
{
    if (reason[0] != '\0') {
        fprintf(stream, " (%s%s)", what, reason);
    }
    fputc('\n', stream);
}

void mhp_report_energy_table(const mhp_report_energy *energy, FILE *stream)
{
    if (!energy) {
        return;
    }
    fputc('\n', stream);
    put_joules(stream, "energy", &energy->sum);
    put(stream, ", ", energy->j_per_token, " J a token");
    fputc('\n', stream);
    for (int kind = MHP_ENERGY_KINDS - 1; kind >= 0; kind--) {
        char name[16];

        snprintf(name, sizeof name, "  %s", mhp_energy_kind_text(kind));
        put_joules(stream, name, &energy->of[kind]);
        end_line(stream, "", energy->reason[kind]);
    }
    put(stream, "  whole run     ", energy->run_j_per_step, " J a step");
    put(stream, ", ", energy->run_j_per_token, " J a token");
    put(stream, ", ", energy->kwh, " kWh");
    put(stream, ", ", energy->co2e_g, " g CO2e");
    if (energy->run_reason[0] != '\0') {
        end_line(stream, "", energy->run_reason);
    } else {
        end_line(stream, "CO2e: ", energy->co2e_reason);
    }
}
