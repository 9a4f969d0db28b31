/* mhcpipe report: what a profiled run's time went into. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "launch/command.h"
#include "launch/config.h"
#include "launch/planning.h"
#include "runtime/layout.h"
#include "runtime/memory_costs.h"
#include "runtime/profile/report.h"

enum { COSTS_KEY = 't', METRICS_BYTES_MAX = 1 << 28, DIGITS = 12 };

typedef struct arguments {
    const char *directory, *costs;
} arguments;

typedef struct run_report {
    const arguments *given;
    mhp_config config;
    mhp_layout layout;
    mhp_costs sizes;
    mhp_trace_set traces;
    mhp_analysis analysis;
    mhp_profile_report report;
    json_t *metrics;
} run_report;

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case COSTS_KEY:
        given->costs = text;
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "RUN_DIR", text, &given->directory);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a RUN_DIR expected");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"costs", COSTS_KEY, "FILE", 0,
     "Also write the measured times as a cost file for mhcpipe plan and tune", 0},
    {0},
};

static const struct argp parser = {
    options, parse_option, "RUN_DIR",
    "Reports on a run that was started with train --profile: prints a table and writes "
    "report.html, report.json and profile/trace.json (for Perfetto) into the run's folder.",
    NULL, NULL, NULL};

/* ---- reading ---- */

/* Lines that are no objects, as one that was cut off may be, are left out. */
static mhp_status read_metrics(run_report *run)
{
    mhp_status status = MHP_OK;
    char *path = NULL, *text = NULL, *rest = NULL;
    size_t size = 0;

    run->metrics = json_array();
    MHP_TRY(out, mhp_asprintf(&path, "%s/metrics.jsonl", run->given->directory));
    if (!mhp_file_exists(path)) {
        goto out;
    }
    MHP_TRY(out, mhp_file_read_all(path, METRICS_BYTES_MAX, &text, &size));
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL);

        if (json_is_object(object)) {
            json_array_append(run->metrics, object);
        }
        json_decref(object);
    }
out:
    mhp_free(path);
    mhp_free(text);
    return status;
}

static mhp_status read_config(run_report *run)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/config.resolved.yaml", run->given->directory));
    if (!mhp_file_exists(path)) {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND, "there is no %s: expected the folder of a run (log.dir)",
                  path);
    }
    MHP_TRY(out, mhp_config_load(&run->config, path, NULL, 0));
    MHP_TRY(out, mhp_layout_create(&run->config.model, &run->config.parallel,
                                   &run->config.schedule, &run->layout));
out:
    mhp_free(path);
    return status;
}

static mhp_status read_traces(run_report *run)
{
    mhp_status status = MHP_OK;
    char *folder = NULL;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/profile", run->given->directory));
    MHP_TRY(out, mhp_trace_set_read(folder, &run->traces));
    MHP_TRY(out, mhp_error_prefix(mhp_analyse(&run->traces, &run->analysis), "%s: ", folder));
out:
    mhp_free(folder);
    return status;
}

static mhp_status create_report(run_report *run)
{
    mhp_memory_params memory = {&run->layout, &run->config.model, &run->config.parallel,
                                &run->config.schedule, &run->config.train};

    MHP_RETURN_IF_ERROR(read_config(run));
    MHP_RETURN_IF_ERROR(read_traces(run));
    MHP_RETURN_IF_ERROR(mhp_memory_costs(&memory, false, &run->sizes));
    MHP_RETURN_IF_ERROR(read_metrics(run));
    return mhp_error_prefix(
        mhp_profile_report_create(&run->analysis, run->layout.plan, &run->sizes, &run->report),
        "%s: ", run->given->directory);
}

/* ---- writing ---- */

static mhp_status write_json(void *context, FILE *stream)
{
    const run_report *run = context;
    json_t *root = NULL;
    int failed;

    MHP_RETURN_IF_ERROR(mhp_profile_report_json(&run->report, &root));
    failed = json_dumpf(root, stream, JSON_INDENT(1) | JSON_REAL_PRECISION(DIGITS));
    json_decref(root);
    fputc('\n', stream);
    return failed ? mhp_error_set(MHP_ERR_IO, "cannot write the report: %s", strerror(errno))
                  : MHP_OK;
}

static mhp_status write_trace(void *context, FILE *stream)
{
    const run_report *run = context;

    return mhp_profile_report_trace(&run->report, stream);
}

static mhp_status write_page(void *context, FILE *stream)
{
    const run_report *run = context;

    return mhp_profile_report_page(&run->report, run->metrics, stream);
}

static mhp_status write_costs(void *context, FILE *stream)
{
    const run_report *run = context;

    return mhp_costs_write(&run->report.measured.costs, stream);
}

static mhp_status write_into_run(run_report *run, const char *name, mhp_write_fn write)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/%s", run->given->directory, name));
    MHP_TRY(out, mhp_write_output(path, write, run));
out:
    mhp_free(path);
    return status;
}

static mhp_status write_report(run_report *run)
{
    const char *directory = run->given->directory;

    MHP_RETURN_IF_ERROR(mhp_profile_report_table(&run->report, stdout));
    MHP_RETURN_IF_ERROR(write_into_run(run, "report.json", write_json));
    MHP_RETURN_IF_ERROR(write_into_run(run, "profile/trace.json", write_trace));
    MHP_RETURN_IF_ERROR(write_into_run(run, "report.html", write_page));
    printf("\n  report        %s/report.html\n  figures       %s/report.json\n"
           "  trace         %s/profile/trace.json (https://ui.perfetto.dev)\n",
           directory, directory, directory);
    if (run->given->costs) {
        MHP_RETURN_IF_ERROR(mhp_write_output(run->given->costs, write_costs, run));
        printf("  costs         %s\n", run->given->costs);
    }
    return MHP_OK;
}

int mhp_command_report(int argc, char **argv)
{
    arguments given = {0};
    run_report run = {.given = &given};
    mhp_status status;

    mhp_parse_arguments(&parser, "report", argc, argv, &given);
    status = create_report(&run);
    if (status == MHP_OK) {
        status = write_report(&run);
    }
    json_decref(run.metrics);
    mhp_profile_report_release(&run.report);
    mhp_analysis_release(&run.analysis);
    mhp_trace_set_release(&run.traces);
    mhp_costs_release(&run.sizes);
    mhp_layout_release(&run.layout);
    mhp_config_release(&run.config);
    return status == MHP_OK ? 0 : mhp_print_error();
}
