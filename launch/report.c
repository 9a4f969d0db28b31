/* mhcpipe report: what a profiled run's time went into. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "launch/command.h"
#include "launch/planning.h"
#include "launch/run_report.h"

enum { COSTS_KEY = 't', DIGITS = 12 };

typedef struct arguments {
    const char *directory, *costs;
} arguments;

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

/* ---- writing ---- */

static mhp_status write_json(void *context, FILE *stream)
{
    const mhp_run_report *run = context;
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
    const mhp_run_report *run = context;

    return mhp_profile_report_trace(&run->report, stream);
}

/* Files first: where one cannot be written, that is all there is to read. */
static mhp_status write_report(mhp_run_report *run, const char *costs)
{
    const char *directory = run->directory;

    if (costs) {
        MHP_RETURN_IF_ERROR(mhp_write_output(costs, mhp_run_report_write_costs, run));
    }
    MHP_RETURN_IF_ERROR(mhp_run_report_write(run, "report.json", write_json));
    MHP_RETURN_IF_ERROR(mhp_run_report_write(run, "profile/trace.json", write_trace));
    MHP_RETURN_IF_ERROR(mhp_run_report_write(run, "report.html", mhp_run_report_write_page));
    MHP_RETURN_IF_ERROR(mhp_profile_report_table(&run->report, stdout));
    printf("\n  report        %s/report.html\n  figures       %s/report.json\n"
           "  trace         %s/profile/trace.json (https://ui.perfetto.dev)\n",
           directory, directory, directory);
    if (costs) {
        printf("  costs         %s\n", costs);
    }
    return MHP_OK;
}

int mhp_command_report(int argc, char **argv)
{
    arguments given = {0};
    mhp_run_report run;
    mhp_status status;

    mhp_parse_arguments(&parser, "report", argc, argv, &given);
    status = mhp_run_report_read(given.directory, &run);
    if (status == MHP_OK) {
        status = write_report(&run, given.costs);
    }
    mhp_run_report_release(&run);
    return status == MHP_OK ? 0 : mhp_print_error();
}
