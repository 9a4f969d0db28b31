/* mhcpipe top: a running job in a terminal, from the files that its ranks write. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "launch/command.h"
#include "launch/top_hidden.h"
#include "launch/top_view.h"

enum { INTERVAL_KEY = 'i', ONCE_KEY = '1', STALE_KEY = 'a', WIDTH_DEFAULT = 132 };

typedef struct arguments {
    const char *directory;
    bool once;
    double interval_s, stale_s;
} arguments;

static double parse_seconds(struct argp_state *state, const char *option, const char *text)
{
    char *end;
    double seconds;

    errno = 0;
    seconds = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !(seconds >= 0.1 && seconds <= 86400)) {
        argp_error(state, "%s %s: expected seconds from 0.1 to 86400", option, text);
    }
    return seconds;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case INTERVAL_KEY:
        given->interval_s = parse_seconds(state, "--interval", text);
        return 0;
    case STALE_KEY:
        given->stale_s = parse_seconds(state, "--stale", text);
        return 0;
    case ONCE_KEY:
        given->once = true;
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
    {"once", ONCE_KEY, NULL, 0, "Print once, plainly, all ranks, and end: with 0 if the run goes on, is finished or was stopped on request, else with 1", 0},
    {"interval", INTERVAL_KEY, "S", 0, "Seconds between two looks (1)", 0},
    {"stale", STALE_KEY, "S", 0, "Seconds without a sign of life after which a rank is marked (5)", 0},
    {0},
};

static const struct argp parser = {
    options, parse_option, "RUN_DIR",
    "Shows a running job: what every rank does, how long its last step took and how much of it the rank stood still, memory and power. "
    "Ends when the run does. RUN_DIR is the run's log.dir.",
    NULL, NULL, NULL};

/* A terminal's size; rows 0 where there is none, and COLUMNS wide if that is set. */
static void find_size(int *width, int *rows)
{
    struct winsize size = {0};
    const char *columns = getenv("COLUMNS");
    int wanted = columns ? atoi(columns) : 0;

    *rows = 0;
    *width = wanted > 0 ? wanted : WIDTH_DEFAULT;
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        *width = size.ws_col;
        *rows = size.ws_row;
    }
}

/* Over what stands there already: every line clears the rest of its own, the last one the rest of the screen. */
static void print_over(const char *text, size_t length)
{
    fputs("\033[H", stdout);
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n') {
            fputs("\033[K", stdout);
        }
        putchar(text[i]);
    }
    fputs("\033[J", stdout);
}

static mhp_status show(const arguments *given, bool over, mhp_top_hidden *hidden, mhp_live_verdict *verdict_out)
{
    mhp_status status = MHP_OK;
    mhp_live_run run = {0};
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    int width, rows;

    if (!stream) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot build a text: out of memory");
    }
    find_size(&width, &rows);
    MHP_TRY(out, mhp_live_run_read(given->directory, given->stale_s, &run));
    mhp_top_hidden_fill(hidden, given->directory, &run);
    mhp_top_print(given->directory, &run, width, over && rows > 1 ? rows - 1 : 0, stream);
    *verdict_out = run.verdict;
out:
    fclose(stream);
    if (status == MHP_OK && over) {
        print_over(text, length);
    } else if (status == MHP_OK) {
        fwrite(text, 1, length, stdout);
    }
    fflush(stdout);
    free(text);
    mhp_live_run_release(&run);
    return status;
}

static bool is_over(mhp_live_verdict verdict)
{
    return verdict == MHP_LIVE_RUN_FINISHED || verdict == MHP_LIVE_RUN_STOPPED || verdict == MHP_LIVE_RUN_DEAD ||
           verdict == MHP_LIVE_RUN_FAILED;
}

static bool is_well(mhp_live_verdict verdict)
{
    return verdict == MHP_LIVE_RUN_RUNNING || verdict == MHP_LIVE_RUN_FINISHED || verdict == MHP_LIVE_RUN_STOPPED;
}

int mhp_command_top(int argc, char **argv)
{
    arguments given = {.interval_s = 1, .stale_s = 5};
    mhp_live_verdict verdict = MHP_LIVE_RUN_RUNNING;
    mhp_top_hidden hidden = {0};
    mhp_status status;
    bool on_terminal;

    mhp_parse_arguments(&parser, "top", argc, argv, &given);
    on_terminal = !given.once && isatty(STDOUT_FILENO);
    if (on_terminal) {
        fputs("\033[2J", stdout);
    }
    for (;;) {
        struct timespec pause = {(time_t)given.interval_s, (long)(fmod(given.interval_s, 1) * 1e9)};

        status = show(&given, on_terminal, &hidden, &verdict);
        if (status != MHP_OK || given.once || is_over(verdict) || ferror(stdout)) {
            break;
        }
        nanosleep(&pause, NULL);
    }
    mhp_top_hidden_release(&hidden);
    if (status != MHP_OK) {
        return mhp_print_error();
    }
    return is_well(verdict) ? 0 : MHP_EXIT_ERROR;
}
