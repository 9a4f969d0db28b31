/* mhcpipe plan: a schedule as CSV or as a table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "launch/memory_table.h"
#include "scheduler/csv.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/table.h"
#include "scheduler/yaml.h"

enum {
    KIND_KEY = 'k',
    RANKS_KEY = 'r',
    MICROBATCHES_KEY = 'm',
    CHUNKS_KEY = 'c',
    FORMAT_KEY = 'f',
    COMPUTE_ONLY_KEY = 'o',
    MEMORY_TABLE_KEY = 'M',
};

typedef struct arguments {
    const char *kind, *file;
    mhp_schedule_shape shape;
    bool csv, compute_only, memory_table;
    mhp_overrides overrides; /* of the configuration, with memory_table */
} arguments;

static void set_format(arguments *given, const char *text, struct argp_state *state)
{
    if (strcmp(text, "csv") != 0 && strcmp(text, "table") != 0) {
        argp_error(state, "--format %s: expected csv or table", text);
    }
    given->csv = strcmp(text, "csv") == 0;
}

static void check_given(const arguments *given, struct argp_state *state)
{
    if (given->memory_table && (given->kind || !given->file)) {
        argp_error(state, "--memory-table needs a configuration as FILE, and no --kind");
    }
    if (given->overrides.count > 0 && !given->memory_table) {
        argp_error(state, "--set and --memory-limit need --memory-table");
    }
    if (given->kind && given->file) {
        argp_error(state, "--kind or a FILE expected, not both");
    }
    if (!given->kind && !given->file) {
        argp_error(state, "--kind or a FILE expected");
    }
    if (given->kind && (given->shape.ranks == 0 || given->shape.microbatches == 0)) {
        argp_error(state, "--kind needs --ranks and --microbatches");
    }
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case KIND_KEY:
        given->kind = text;
        return 0;
    case RANKS_KEY:
        given->shape.ranks = mhp_parse_integer(state, "--ranks", text, 1, MHP_RANKS_MAX);
        return 0;
    case MICROBATCHES_KEY:
        given->shape.microbatches =
            mhp_parse_integer(state, "--microbatches", text, 1, MHP_MICROBATCHES_MAX);
        return 0;
    case CHUNKS_KEY:
        given->shape.chunks = mhp_parse_integer(state, "--chunks", text, 1, 64);
        return 0;
    case FORMAT_KEY:
        set_format(given, text, state);
        return 0;
    case COMPUTE_ONLY_KEY:
        given->compute_only = true;
        return 0;
    case MEMORY_TABLE_KEY:
        given->memory_table = true;
        return 0;
    case MHP_MEMORY_LIMIT_KEY:
        mhp_overrides_add_memory_limit(&given->overrides, text, state);
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&given->overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        if (given->file) {
            argp_error(state, "one FILE expected, not also \"%s\"", text);
        }
        given->file = text;
        return 0;
    case ARGP_KEY_END:
        check_given(given, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"kind", KIND_KEY, "NAME", 0, "Schedule to generate", 0},
    {"ranks", RANKS_KEY, "P", 0, "Pipeline ranks", 0},
    {"microbatches", MICROBATCHES_KEY, "M", 0, "Micro-batches of a step", 0},
    {"chunks", CHUNKS_KEY, "V", 0, "Stages a rank, for interleaved schedules (2)", 0},
    {"format", FORMAT_KEY, "csv|table", 0, "What is printed (table)", 0},
    {"compute-only", COMPUTE_ONLY_KEY, NULL, 0,
     "The order of computation alone, without sends and receives", 0},
    {"memory-table", MEMORY_TABLE_KEY, NULL, 0,
     "The memory that every rank of a configuration (FILE) would take", 0},
    MHP_MEMORY_LIMIT_OPTION,
    MHP_SET_OPTION,
    {0},
};

/* The kinds, for the end of the help. */
static char *filter_help(int key, const char *text, void *input)
{
    char *list = NULL;

    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC) {
        return (char *)text;
    }
    if (asprintf(&list, "Schedules:") < 0) {
        return NULL;
    }
    for (size_t i = 0; mhp_generator_at(i); i++) {
        const mhp_generator *generator = mhp_generator_at(i);
        char *longer = NULL;

        if (asprintf(&longer, "%s\n  %-10s %s", list, generator->name, generator->help) < 0) {
            break;
        }
        free(list);
        list = longer;
    }
    return list;
}

static const struct argp parser = {options,
                                   parse_option,
                                   "[FILE]",
                                   "Generates or reads a schedule, proves it, and prints it.\v",
                                   NULL,
                                   filter_help,
                                   NULL};

static mhp_status make_plan(const arguments *given, mhp_plan **plan_out)
{
    if (given->file) {
        MHP_RETURN_IF_ERROR(mhp_plan_read(given->file, plan_out));
    } else {
        MHP_RETURN_IF_ERROR(mhp_schedule_generate(given->kind, &given->shape, plan_out));
    }
    if ((*plan_out)->lowered || given->compute_only) {
        return mhp_plan_validate(*plan_out);
    }
    return mhp_plan_lower(*plan_out, NULL);
}

int mhp_command_plan(int argc, char **argv)
{
    arguments given = {.shape = {.chunks = 2}};
    mhp_plan *plan = NULL;
    mhp_status status;

    mhp_parse_arguments(&parser, "plan", argc, argv, &given);
    if (given.memory_table) {
        return mhp_memory_table_command(given.file, &given.overrides);
    }
    status = make_plan(&given, &plan);
    if (status == MHP_OK) {
        status = given.csv ? mhp_plan_write_csv(plan, stdout) : mhp_plan_write_table(plan, stdout);
    }
    mhp_plan_destroy(plan);
    if (status == MHP_OK && fflush(stdout) != 0) {
        status = mhp_error_set(MHP_ERR_IO, "cannot write to stdout");
    }
    return status == MHP_OK ? 0 : mhp_print_error();
}
