#include "launch/top_view.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "launch/progress.h"

enum { CELL_MAX = 96, LINE_MAX_BYTES = 1024, HEAD_LINES = 4 };

/* Puts a rank's cell into `text`; an unknown number leaves a dash. */
typedef void (*cell_fn)(const mhp_live_rank *rank, char text[CELL_MAX]);

static void print_number(char text[CELL_MAX], int decimals, double value, const char *unit)
{
    if (isnan(value)) {
        snprintf(text, CELL_MAX, "-");
    } else {
        snprintf(text, CELL_MAX, "%.*f%s", decimals, value, unit);
    }
}

/* ---- cells ---- */

static void print_rank(const mhp_live_rank *rank, char text[CELL_MAX])
{
    snprintf(text, CELL_MAX, "%d", rank->state.rank);
}

static void print_health(const mhp_live_rank *rank, char text[CELL_MAX])
{
    static const char *const texts[] = {[MHP_LIVE_ALIVE] = "alive", [MHP_LIVE_SILENT] = "stale", [MHP_LIVE_DEAD] = "dead"};
    static const char *const ends[] = {
        [MHP_LIVE_FINISHED] = "finished", [MHP_LIVE_FAILED] = "failed", [MHP_LIVE_STOPPED] = "stopped"};

    if (rank->health == MHP_LIVE_ENDED) {
        snprintf(text, CELL_MAX, "%s", ends[rank->state.phase]);
    } else if (rank->health == MHP_LIVE_SILENT) {
        snprintf(text, CELL_MAX, "stale %.0fs", rank->silent_s);
    } else {
        snprintf(text, CELL_MAX, "%s", texts[rank->health]);
    }
}

static void print_place(const mhp_live_rank *rank, char text[CELL_MAX])
{
    const mhp_live_state *state = &rank->state;
    char action[CELL_MAX / 2] = "";
    mhp_action found;

    if (mhp_live_unpack(state->action, &found)) {
        mhp_action_format(&found, action, sizeof action);
    }
    if (rank->health == MHP_LIVE_ENDED) {
        snprintf(text, CELL_MAX, "-");
    } else if (state->place == MHP_LIVE_STEP) {
        snprintf(text, CELL_MAX, "%s", action[0] != '\0' ? action : "begins a step");
    } else if (state->place == MHP_LIVE_EVALUATION) {
        snprintf(text, CELL_MAX, "evaluates %s", action);
    } else {
        snprintf(text, CELL_MAX, "%s", state->place == MHP_LIVE_STARTING ? "starts" : "between steps");
    }
}

static void print_step(const mhp_live_rank *rank, char text[CELL_MAX])
{
    const mhp_live_state *state = &rank->state;

    snprintf(text, CELL_MAX, "%lld", (long long)state->done + (rank->health != MHP_LIVE_ENDED && state->place == MHP_LIVE_STEP));
}

static void print_time(const mhp_live_rank *rank, char text[CELL_MAX])
{
    print_number(text, 1, rank->state.step_s * 1e3, "");
}

static void print_bubble(const mhp_live_rank *rank, char text[CELL_MAX])
{
    print_number(text, 0, rank->state.bubble * 100, " %");
}

static void print_hidden(const mhp_live_rank *rank, char text[CELL_MAX])
{
    print_number(text, 0, rank->hidden * 100, " %");
}

static void print_memory(const mhp_live_rank *rank, char text[CELL_MAX])
{
    print_number(text, 1, rank->state.arena_bytes / (1024.0 * 1024.0), " MiB");
}

static void print_power(const mhp_live_rank *rank, char text[CELL_MAX])
{
    print_number(text, 0, rank->state.power_w, " W");
}

static void print_process(const mhp_live_rank *rank, char text[CELL_MAX])
{
    snprintf(text, CELL_MAX, "%.40s:%d", rank->state.host, rank->state.process);
}

/* In the order that they stand in; the highest `drop` goes first, and 0 never. */
static const struct {
    const char *title;
    int width, drop;
    bool is_left;
    cell_fn print;
} columns[] = {
    {"rank", 4, 0, false, print_rank},       {"state", 10, 0, true, print_health},   {"does", 20, 0, true, print_place},
    {"step", 8, 3, false, print_step},       {"ms/step", 9, 1, false, print_time},   {"bubble", 6, 2, false, print_bubble},
    {"hidden", 6, 5, false, print_hidden},   {"memory", 12, 6, false, print_memory}, {"power", 7, 4, false, print_power},
    {"process", 20, 7, true, print_process},
};

enum { COLUMN_COUNT = sizeof columns / sizeof *columns };

/* ---- lines ---- */

static void end_line(const char *line, int width, FILE *stream)
{
    int length = (int)strlen(line);

    while (length > 0 && line[length - 1] == ' ') {
        length--;
    }
    fprintf(stream, "%.*s\n", length < width ? length : width, line);
}

static void print_line(int width, FILE *stream, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void print_line(int width, FILE *stream, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    end_line(line, width, stream);
}

/* How high `drop` may be for all columns up to it to fit. */
static int choose_columns(int width)
{
    int drop;

    for (drop = COLUMN_COUNT; drop > 0; drop--) {
        int sum = -2;

        for (int c = 0; c < COLUMN_COUNT; c++) {
            sum += columns[c].drop <= drop ? columns[c].width + 2 : 0;
        }
        if (sum <= width) {
            break;
        }
    }
    return drop;
}

/* A line of the table: the titles where `rank` is NULL. */
static void print_row(const mhp_live_rank *rank, int drop, int width, FILE *stream)
{
    char line[LINE_MAX_BYTES] = "";
    size_t length = 0;

    for (int c = 0; c < COLUMN_COUNT; c++) {
        char cell[CELL_MAX];
        int room = columns[c].width;

        if (columns[c].drop > drop) {
            continue;
        }
        if (rank) {
            columns[c].print(rank, cell);
        } else {
            snprintf(cell, sizeof cell, "%s", columns[c].title);
        }
        length += (size_t)snprintf(line + length, sizeof line - length, columns[c].is_left ? "%s%-*s" : "%s%*s", length > 0 ? "  " : "",
                                   room, cell);
    }
    end_line(line, width, stream);
}

/* ---- the run ---- */

static const mhp_live_state *first_known(const mhp_live_run *run)
{
    for (int i = 0; i < run->count; i++) {
        if (run->ranks[i].is_known) {
            return &run->ranks[i].state;
        }
    }
    return NULL;
}

static double sum_power(const mhp_live_run *run)
{
    double sum = NAN;

    for (int i = 0; i < run->count; i++) {
        double power_w = run->ranks[i].is_known ? run->ranks[i].state.power_w : NAN;

        sum = isnan(sum) ? power_w : isnan(power_w) ? sum : sum + power_w;
    }
    return sum;
}

static void print_duration(double seconds, char text[CELL_MAX])
{
    long long whole = (long long)fmax(seconds, 0);

    snprintf(text, CELL_MAX, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
}

static void print_progress(const mhp_live_run *run, const mhp_live_state *state, int width, FILE *stream)
{
    char so_far[CELL_MAX], left[CELL_MAX], loss[CELL_MAX], power[CELL_MAX], tokens[MHP_SHORT_NUMBER_MAX] = "-";
    double seconds = (double)(state->beat_ns - state->start_ns) * 1e-9;
    int64_t here = state->done - state->first_step;

    print_duration(seconds, so_far);
    if (run->verdict == MHP_LIVE_RUN_RUNNING && here > 0) {
        print_duration(seconds / (double)here * (double)(state->total - state->done), left);
    } else {
        snprintf(left, sizeof left, "-");
    }
    if (!isnan(state->tokens_per_s)) {
        mhp_format_short(state->tokens_per_s, tokens);
    }
    print_number(loss, 4, state->loss, "");
    print_number(power, 0, sum_power(run), " W");
    print_line(width, stream, "step %lld of %lld  loss %s  %s tok/s  power %s  time %s, left %s", (long long)state->done,
               (long long)state->total, loss, tokens, power, so_far, left);
}

/* What is wrong, if anything is. */
static void print_verdict(const mhp_live_run *run, int width, FILE *stream)
{
    const mhp_live_rank *culprit = run->culprit;
    int number = (int)(culprit - run->ranks);

    switch (run->verdict) {
    case MHP_LIVE_RUN_INCOMPLETE:
        print_line(width, stream, "rank %d: %s", number, culprit->problem);
        break;
    case MHP_LIVE_RUN_SILENT:
        print_line(width, stream, "rank %d has given no sign of life for %.0f s", number, culprit->silent_s);
        break;
    case MHP_LIVE_RUN_DEAD:
        print_line(width, stream, "rank %d ended without a word: process %d is not there any more", number, culprit->state.process);
        break;
    case MHP_LIVE_RUN_FAILED:
        print_line(width, stream, "rank %d ended with an error, which the run's output tells", number);
        break;
    case MHP_LIVE_RUN_STOPPED:
        print_line(width, stream, "stopped on request, with a checkpoint: train --resume auto goes on");
        break;
    case MHP_LIVE_RUN_RUNNING:
    case MHP_LIVE_RUN_FINISHED:
        fprintf(stream, "\n");
        break;
    }
}

void mhp_top_print(const char *directory, const mhp_live_run *run, int width, int rows, FILE *stream)
{
    const mhp_live_state *state = first_known(run);
    int drop = choose_columns(width);
    int shown = run->count;

    if (rows > 0 && HEAD_LINES + run->count > rows) {
        shown = rows > HEAD_LINES + 1 ? rows - HEAD_LINES - 1 : 0;
    }
    print_line(width, stream, "%s: %s%s%s on %d ranks", directory, mhp_live_verdict_text(run->verdict), state ? ", " : "",
               state ? state->schedule : "", run->count);
    if (state) {
        print_progress(run, state, width, stream);
    }
    print_verdict(run, width, stream);
    print_row(NULL, drop, width, stream);
    for (int i = 0; i < shown; i++) {
        if (run->ranks[i].is_known) {
            print_row(&run->ranks[i], drop, width, stream);
        } else {
            print_line(width, stream, "%4d  unknown: %s", i, run->ranks[i].problem);
        }
    }
    if (shown < run->count) {
        print_line(width, stream, "and %d ranks more", run->count - shown);
    }
}
