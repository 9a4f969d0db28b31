#include "launch/command.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void mhp_overrides_add(mhp_overrides *overrides, char *text, struct argp_state *state)
{
    if (overrides->count == MHP_OVERRIDES_MAX) {
        argp_error(state, "more than %d --set options", MHP_OVERRIDES_MAX);
        return;
    }
    overrides->items[overrides->count++] = text;
}

void mhp_parse_arguments(const struct argp *parser, const char *name, int argc, char **argv,
                         void *arguments)
{
    bool silent = mhp_launched_rank() > 0;
    char full_name[64];

    snprintf(full_name, sizeof full_name, "mhcpipe %s", name);
    argv[0] = full_name;
    argp_err_exit_status = MHP_EXIT_USAGE;
    if (argp_parse(parser, argc, argv, silent ? ARGP_SILENT : 0, NULL, arguments) != 0) {
        exit(MHP_EXIT_USAGE);
    }
}

void mhp_take_argument(struct argp_state *state, const char *what, char *text, const char **value)
{
    if (*value) {
        argp_error(state, "one %s expected, not also \"%s\"", what, text);
    }
    *value = text;
}

int64_t mhp_parse_bytes(struct argp_state *state, const char *option, const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    double value, factor = 1;
    const char *unit;

    errno = 0;
    value = strtod(text, &end);
    unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        for (const char *u = units; u <= unit; u++) {
            factor *= 1024;
        }
        end++;
        end += strcmp(end, "iB") == 0 ? 2 : strcmp(end, "B") == 0;
    }
    if (end == text || *end || errno || !(value > 0) || value * factor > 1e18) {
        argp_error(state, "%s %s: expected bytes, as 80GiB or 8589934592", option,
                   text);
        return 0;
    }
    return (int64_t)(value * factor);
}

int mhp_parse_integer(struct argp_state *state, const char *option, const char *text, int minimum,
                      int maximum)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < minimum || value > maximum) {
        argp_error(state, "%s %s: expected a whole number from %d to %d", option, text, minimum,
                   maximum);
        return minimum;
    }
    return (int)value;
}

static bool has_control(const char *text)
{
    while ((unsigned char)*text >= ' ') {
        text++;
    }
    return *text != '\0';
}

/* A line break and its like are written as $'...' has them, so that a command stays on one line. */
void mhp_write_shell_word(const char *text, FILE *stream)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";

    if (text[0] != '\0' && text[strspn(text, plain)] == '\0') {
        fputs(text, stream);
        return;
    }
    fputs(has_control(text) ? "$'" : "'", stream);
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < ' ') {
            fprintf(stream, "\\x%02x", (unsigned)*c);
        } else if (has_control(text) && (*c == '\'' || *c == '\\')) {
            fprintf(stream, "\\%c", *c);
        } else {
            fputs(*c == '\'' ? "'\\''" : (char[]){*c, '\0'}, stream);
        }
    }
    fputc('\'', stream);
}

int mhp_print_error(void)
{
    fprintf(stderr, "mhcpipe: error: %s\n", mhp_error_text());
    return MHP_EXIT_ERROR;
}

/* The number in the first of these variables that is set, else 0. */
static int number_from_environment(const char *const *names)
{
    for (; *names; names++) {
        const char *text = getenv(*names);

        if (text) {
            return atoi(text);
        }
    }
    return 0;
}

int mhp_launched_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID", NULL};

    return number_from_environment(names);
}

int mhp_launched_local_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                                        "SLURM_LOCALID", NULL};

    return number_from_environment(names);
}

int mhp_slurm_tasks_of_node(const char *list, int node)
{
    while (*list) {
        char *end;
        long tasks = strtol(list, &end, 10), nodes = 1;

        if (end == list || tasks <= 0 || tasks > INT_MAX) {
            return 0;
        }
        if (strncmp(end, "(x", 2) == 0) {
            nodes = strtol(end + 2, &end, 10);
            end += *end == ')';
        }
        if (node < nodes) {
            return (int)tasks;
        }
        node -= (int)nodes;
        list = *end == ',' ? end + 1 : end + strlen(end);
    }
    return 0;
}

int mhp_launched_local_size(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", NULL};
    static const char *const nodes[] = {"SLURM_NODEID", NULL};
    const char *tasks = getenv("SLURM_STEP_TASKS_PER_NODE");
    int size = number_from_environment(names);

    return size > 0 || !tasks ? size : mhp_slurm_tasks_of_node(tasks, number_from_environment(nodes));
}

/* Open MPI gives every rank a terminal of its own for stdout, wherever mpirun's own goes. */
bool mhp_stdout_is_terminal(void)
{
    char link[64], target[256];
    ssize_t length;

    if (!isatty(STDOUT_FILENO) || !getenv("OMPI_COMM_WORLD_RANK")) {
        return isatty(STDOUT_FILENO);
    }
    snprintf(link, sizeof link, "/proc/%ld/fd/1", (long)getppid());
    length = readlink(link, target, sizeof target - 1);
    if (length < 0) {
        return false;
    }
    target[length] = '\0';
    return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}
