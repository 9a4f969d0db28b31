/* mhcpipe diagnose: which rank waits for what from whom, from the flight recorders of a run. */
#include <stdio.h>
#include <time.h>

#include "launch/command.h"
#include "runtime/flight_report.h"

typedef struct arguments {
    const char *run;
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *given = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "RUN_DIR", text, &given->run);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a RUN_DIR expected");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    NULL, parse_option, "RUN_DIR",
    "Reads the dumps of all ranks in RUN_DIR/flight, which a run writes when it fails and on SIGUSR1, and "
    "says what failed, or which rank waits for what from whom; then where each rank was.",
    NULL, NULL, NULL};

static void print_rank(const mhp_flight_report *report, int rank)
{
    const mhp_rank_view *view = &report->ranks[rank];
    const mhp_dump *dump = &report->dumps[rank];
    bool in_mark = view->place.mark.kind != MHP_MARK_NONE;
    char place[MHP_PLACE_TEXT_MAX];

    if (!dump->found) {
        printf("  %s: no dump\n", view->name);
        return;
    }
    mhp_place_format(&view->place, place);
    printf("  %s: %s for %.1f s", view->name, place, in_mark ? view->place.mark_s : view->place.section_s);
    if (dump->under_way > 0) {
        printf("; %d messages under way, for longest, %.1f s: %s", dump->under_way, dump->oldest_s, dump->oldest);
    }
    if (view->state == MHP_RANK_SILENT) {
        printf("; its dump is %.0f s older than the newest", view->silent_s);
    }
    printf("\n");
}

/* What failed is known better by the rank that it failed at than by the ranks that wait for it. */
static void print_cause(const mhp_flight_report *report)
{
    const char *why = mhp_flight_report_why(report);
    char sentence[MHP_DIAGNOSIS_TEXT_MAX];

    if (mhp_flight_is_failure(why)) {
        printf("%s.\n\n", why);
        return;
    }
    (void)mhp_diagnose(report->ranks, report->size, sentence);
    printf("%s.\n\nwhy there are dumps: %s\n", sentence, why);
}

static void print_report(const mhp_flight_report *report)
{
    char moment[64];
    time_t seconds = (time_t)report->time;
    struct tm parts;

    print_cause(report);
    strftime(moment, sizeof moment, "%F %T", localtime_r(&seconds, &parts));
    printf("%d of %d ranks wrote a dump, at %s:\n", report->found_count, report->size, moment);
    for (int rank = 0; rank < report->size; rank++) {
        print_rank(report, rank);
    }
}

int mhp_command_diagnose(int argc, char **argv)
{
    arguments given = {0};
    mhp_flight_report report = {0};
    mhp_status status;

    mhp_parse_arguments(&parser, "diagnose", argc, argv, &given);
    status = mhp_flight_report_read(given.run, &report);
    if (status == MHP_OK) {
        print_report(&report);
    }
    mhp_flight_report_release(&report);
    return status == MHP_OK ? 0 : mhp_print_error();
}
