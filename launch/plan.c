/* mhcpipe plan: a schedule proved, simulated, and printed in many forms. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "launch/command.h"
#include "launch/memory_table.h"
#include "launch/planning.h"
#include "scheduler/compute_order.h"
#include "scheduler/csv.h"
#include "scheduler/draw.h"
#include "scheduler/lower.h"
#include "scheduler/table.h"
#include "scheduler/yaml.h"

enum {
    KIND_KEY = 'k',
    RANKS_KEY = 'r',
    MICROBATCHES_KEY = 'm',
    CHUNKS_KEY = 'c',
    FORMAT_KEY = 'f',
    OUTPUT_KEY = 'o',
    COSTS_KEY = 't',
    ARROWS_KEY = 'a',
    COMPUTE_ONLY_KEY = 0x100,
    COMPARE_KEY,
    DIALECT_KEY,
    GRADIENTS_KEY,
    MEMORY_TABLE_KEY,
};

typedef enum plan_format {
    FORMAT_TABLE,
    FORMAT_ASCII,
    FORMAT_CSV,
    FORMAT_YAML,
    FORMAT_JSON,
    FORMAT_SVG,
    FORMAT_HTML,
    FORMAT_COUNT
} plan_format;

static const char *const format_names[FORMAT_COUNT] = {"table", "ascii", "csv", "yaml",
                                                       "json",  "svg",   "html"};

enum { COMPARED_MAX = 32 };

typedef struct arguments {
    mhp_planning_request request;
    plan_format format;
    bool format_given, chunks_given, compute_only, arrows, torch, memory_table, memory_limit;
    int gradient;
    const char *output;
    char *compared[COMPARED_MAX];
    int compared_count;
} arguments;

/* ---- the command line ---- */

static int find_format(const char *name)
{
    for (int i = 0; i < FORMAT_COUNT; i++) {
        if (strcmp(name, format_names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static void set_format(arguments *given, const char *text, struct argp_state *state)
{
    int format = find_format(text);

    if (format < 0) {
        argp_error(state, "--format %s: expected table, ascii, csv, yaml, json, svg or html", text);
        return;
    }
    given->format = (plan_format)format;
    given->format_given = true;
}

/* Of two words, whether it is the second. */
static bool is_second(const char *option, const char *text, const char *first, const char *second,
                      struct argp_state *state)
{
    if (strcmp(text, first) != 0 && strcmp(text, second) != 0) {
        argp_error(state, "%s %s: expected %s or %s", option, text, first, second);
    }
    return strcmp(text, second) == 0;
}

static void set_compared(arguments *given, char *text, struct argp_state *state)
{
    char *rest = NULL;

    for (char *name = strtok_r(text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        if (!mhp_generator_find(name)) {
            argp_error(state, "--compare %s: no schedule of this name", name);
            return;
        }
        if (given->compared_count == COMPARED_MAX) {
            argp_error(state, "--compare: expected at most %d schedules", COMPARED_MAX);
            return;
        }
        given->compared[given->compared_count++] = name;
    }
}

/* p.svg asks for SVG. */
static void take_format_of_output(arguments *given)
{
    const char *point = given->output ? strrchr(given->output, '.') : NULL;
    int format = point ? find_format(point + 1) : -1;

    if (!given->format_given && format >= 0) {
        given->format = (plan_format)format;
    }
}

/* A configuration or a schedule's file has a shape of its own. Only --chunks serves what a schedule's file is compared with. */
static void check_shape(const arguments *given, struct argp_state *state)
{
    const mhp_planning_request *request = &given->request;
    const char *option = NULL, *setting = NULL;

    if (!request->file) {
        return;
    }
    if (request->shape.ranks > 0) {
        option = "--ranks";
        setting = "parallel.pipeline=P";
    } else if (request->shape.microbatches > 0) {
        option = "--microbatches";
        setting = "schedule.microbatches=M";
    } else if (given->chunks_given && (given->compared_count == 0 || mhp_is_configuration(request->file))) {
        option = "--chunks";
        setting = "schedule.chunks=V";
    }
    if (option) {
        argp_error(state, "%s is for --kind: expected none with %s; a configuration's is changed by --set %s", option, request->file, setting);
    }
}

static void check_given(arguments *given, struct argp_state *state)
{
    mhp_planning_request *request = &given->request;

    if (given->memory_table && (request->kind || !request->file)) {
        argp_error(state, "--memory-table needs a configuration as FILE, and no --kind");
    }
    if (given->memory_table &&
        (given->output || request->costs || given->compared_count > 0 || given->format_given)) {
        argp_error(state, "--memory-table is a table of its own: expected no -o, --costs, --compare or --format");
    }
    if (given->memory_limit && !given->memory_table) {
        argp_error(state, "--memory-limit: expected --memory-table with it");
    }
    if (request->kind && request->file) {
        argp_error(state, "--kind or a FILE expected, not both");
    }
    check_shape(given, state);
    if (!request->kind && !request->file && given->compared_count > 0) {
        request->kind = given->compared[0];
        given->compared_count--;
        memmove(given->compared, given->compared + 1, sizeof given->compared - sizeof(char *));
    } else if (!request->kind && !request->file) {
        argp_error(state, "--kind or a FILE expected");
    } else if (given->compared_count > 0 && given->format != FORMAT_TABLE) {
        argp_error(state, "--compare prints a table, not --format %s", format_names[given->format]);
    }
    if (request->kind && (request->shape.ranks == 0 || request->shape.microbatches == 0)) {
        argp_error(state, "--kind needs --ranks and --microbatches");
    }
    take_format_of_output(given);
    if (given->torch && given->format != FORMAT_CSV) {
        argp_error(state, "--dialect torch is one of --format csv, not of --format %s",
                   format_names[given->format]);
    }
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;
    mhp_planning_request *request = &given->request;

    switch (key) {
    case KIND_KEY:
        request->kind = text;
        return 0;
    case RANKS_KEY:
        request->shape.ranks = mhp_parse_integer(state, "--ranks", text, 1, MHP_RANKS_MAX);
        return 0;
    case MICROBATCHES_KEY:
        request->shape.microbatches =
            mhp_parse_integer(state, "--microbatches", text, 1, MHP_MICROBATCHES_MAX);
        return 0;
    case CHUNKS_KEY:
        given->chunks_given = true;
        request->shape.chunks = mhp_parse_integer(state, "--chunks", text, 1, 64);
        return 0;
    case FORMAT_KEY:
        set_format(given, text, state);
        return 0;
    case OUTPUT_KEY:
        given->output = text;
        return 0;
    case COSTS_KEY:
        request->costs = text;
        return 0;
    case ARROWS_KEY:
        given->arrows = true;
        return 0;
    case COMPUTE_ONLY_KEY:
        given->compute_only = true;
        return 0;
    case COMPARE_KEY:
        set_compared(given, text, state);
        return 0;
    case DIALECT_KEY:
        given->torch = is_second("--dialect", text, "mhcpipe", "torch", state);
        return 0;
    case GRADIENTS_KEY:
        given->gradient = is_second("--gradients", text, "early", "late", state)
                              ? MHP_GRADIENT_LATE
                              : MHP_GRADIENT_EARLY;
        return 0;
    case MEMORY_TABLE_KEY:
        given->memory_table = true;
        return 0;
    case MHP_MEMORY_LIMIT_KEY:
        given->memory_limit = true;
        mhp_overrides_add_memory_limit(&request->overrides, text, state);
        return 0;
    case MHP_COSTS_LAYERS_KEY:
        request->costs_layers = mhp_parse_integer(state, "--costs-layers", text, 1, MHP_COSTS_LAYERS_MAX);
        return 0;
    case MHP_SET_KEY:
        mhp_overrides_add(&request->overrides, text, state);
        return 0;
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "FILE", text, &request->file);
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
    {"format", FORMAT_KEY, "NAME", 0,
     "table (default), ascii, csv, yaml, json, svg or html; without it the end of -o FILE counts",
     0},
    {"output", OUTPUT_KEY, "FILE", 0, "Where to write; stdout if not given", 0},
    {"costs", COSTS_KEY, "FILE", 0, "Times and bytes (YAML); without it F = I = W = 1", 0},
    MHP_COSTS_LAYERS_OPTION,
    {"compute-only", COMPUTE_ONLY_KEY, NULL, 0,
     "The order of computation alone, without sends and receives", 0},
    {"compare", COMPARE_KEY, "NAME,NAME", 0, "A row for each of these schedules", 0},
    {"dialect", DIALECT_KEY, "mhcpipe|torch", 0, "Whose CSV (mhcpipe)", 0},
    {"gradients", GRADIENTS_KEY, "early|late", 0,
     "Whether a full backward sends its gradient when its I is done, as mhcpipe does (default with "
     "--costs), or at its end, as the published formulas count (default without)",
     0},
    {"arrows", ARROWS_KEY, NULL, 0, "Messages as arrows in svg and html", 0},
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

static const struct argp parser = {
    options,
    parse_option,
    "[CONFIG|FILE]",
    "Generates a schedule, or takes that of a configuration or a file, proves it, simulates it, "
    "and prints it.\v",
    NULL,
    filter_help,
    NULL};

/* ---- output ---- */

typedef struct output {
    const arguments *given;
    mhp_planning *planning;
} output;

static mhp_status draw(const output *out, const mhp_plan_report *report, FILE *stream)
{
    mhp_draw_params params = {.plan = report->plan,
                              .costs = report->costs,
                              .simulation = &report->simulation,
                              .time_unit = report->time_unit,
                              .arrows = out->given->arrows};
    mhp_drawing drawing = {0};
    mhp_status status = mhp_draw(&params, &drawing);

    if (status == MHP_OK && out->given->format == FORMAT_ASCII) {
        status = mhp_draw_ascii(&drawing, stream);
    } else if (status == MHP_OK && out->given->format == FORMAT_SVG) {
        status = mhp_draw_svg(&drawing, stream);
    } else if (status == MHP_OK) {
        status = mhp_draw_html(&drawing, stream);
    }
    mhp_drawing_release(&drawing);
    return status;
}

static mhp_status write_simulated(const output *out, FILE *stream)
{
    const mhp_planning *planning = out->planning;
    mhp_plan_report report = {0};
    mhp_status status;

    MHP_TRY(out_label, mhp_planning_report(planning, planning->plan, &planning->costs,
                                           out->given->gradient, &report));
    switch (out->given->format) {
    case FORMAT_TABLE:
        status = mhp_report_write(&report, stream);
        break;
    case FORMAT_JSON:
        status = mhp_report_write_json(&report, stream);
        break;
    default:
        status = draw(out, &report, stream);
        break;
    }
out_label:
    mhp_plan_report_release(&report);
    return status;
}

/* A row of another schedule, or why there is none. */
static mhp_status write_compared(const output *out, const char *kind, FILE *stream)
{
    const mhp_planning *planning = out->planning;
    mhp_schedule_shape shape = {.ranks = planning->plan->rank_count,
                                .microbatches = planning->plan->microbatch_count,
                                .chunks = planning->has_config
                                              ? (int)planning->config.schedule.chunks
                                              : out->given->request.shape.chunks};
    mhp_plan *plan = NULL;
    mhp_costs costs = {0};
    mhp_lower_params lower = {0};
    mhp_plan_report report = {0};
    mhp_status status = mhp_schedule_generate(kind, &shape, &plan);

    if (status == MHP_OK) {
        status = mhp_planning_cut(planning, plan->stage_count, &costs);
    }
    if (status == MHP_ERR_PLAN || status == MHP_ERR_CONFIG) {
        fprintf(stream, "%-20s %s\n", kind, mhp_error_text());
        status = MHP_OK;
        goto out_label;
    }
    MHP_TRY(out_label, status);
    if (planning->has_config) {
        lower.rebuild = planning->config.schedule.recompute.what != MHP_RECOMPUTE_NONE;
        lower.weight_gradients = (mhp_weight_placement)planning->config.schedule.weight_gradients;
    }
    MHP_TRY(out_label, mhp_plan_lower(plan, &lower));
    MHP_TRY(out_label, mhp_planning_report(planning, plan, &costs, out->given->gradient, &report));
    status = mhp_report_write_comparison_row(&report, stream);
out_label:
    mhp_plan_report_release(&report);
    mhp_costs_release(&costs);
    mhp_plan_destroy(plan);
    return status;
}

static mhp_status write_comparison(const output *out, FILE *stream)
{
    const mhp_planning *planning = out->planning;
    mhp_plan_report report = {0};
    mhp_status status;

    MHP_TRY(out_label, mhp_planning_report(planning, planning->plan, &planning->costs,
                                           out->given->gradient, &report));
    MHP_TRY(out_label, mhp_report_write_comparison_head(stream));
    MHP_TRY(out_label, mhp_report_write_comparison_row(&report, stream));
    for (int i = 0; i < out->given->compared_count; i++) {
        MHP_TRY(out_label, write_compared(out, out->given->compared[i], stream));
    }
out_label:
    mhp_plan_report_release(&report);
    return status;
}

static mhp_status write_plan(void *context, FILE *stream)
{
    const output *out = context;

    if (out->given->compared_count > 0) {
        return write_comparison(out, stream);
    }
    switch (out->given->format) {
    case FORMAT_CSV:
        return mhp_plan_write_csv_as(
            out->planning->plan, out->given->torch ? MHP_CSV_TORCH : MHP_CSV_MHCPIPE, stream);
    case FORMAT_YAML:
        return mhp_plan_write_yaml(out->planning->plan, stream);
    default:
        return write_simulated(out, stream);
    }
}

static mhp_status strip(mhp_planning *planning)
{
    mhp_plan *order = NULL;

    MHP_RETURN_IF_ERROR(mhp_plan_compute_order(planning->plan, &order));
    mhp_plan_destroy(planning->plan);
    planning->plan = order;
    return MHP_OK;
}

int mhp_command_plan(int argc, char **argv)
{
    arguments given = {.request = {.shape = {.chunks = 2}}};
    mhp_planning planning = {0};
    output out = {&given, &planning};
    mhp_status status;

    mhp_parse_arguments(&parser, "plan", argc, argv, &given);
    if (given.memory_table) {
        return mhp_memory_table_command(given.request.file, &given.request.overrides);
    }
    status = mhp_planning_load(&given.request, &planning);
    if (status == MHP_OK && given.compute_only) {
        status = strip(&planning);
    }
    if (status == MHP_OK) {
        status = mhp_write_output(given.output, write_plan, &out);
    }
    mhp_planning_release(&planning);
    return status == MHP_OK ? 0 : mhp_print_error();
}
