/* mhcpipe check: a schedule's file on its own - read, completed, proved. */
#include <stdio.h>
#include <string.h>

#include "launch/command.h"
#include "launch/planning.h"

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    const char **path = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        mhp_take_argument(state, "FILE", text, path);
        return 0;
    case ARGP_KEY_END:
        if (!*path) {
            argp_error(state, "a FILE expected");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    NULL, parse_option, "FILE",
    "Reads a schedule as CSV or YAML, adds messages and slots if it has none, proves it, and says "
    "what it is. An error names rank, position, action and reason.",
    NULL, NULL, NULL};

static const char *stage_places(const mhp_plan *plan)
{
    bool one_owner = true;

    for (int s = 0; s < plan->stage_count; s++) {
        for (int m = 1; m < plan->microbatch_count; m++) {
            one_owner = one_owner && mhp_plan_owner(plan, s, m) == mhp_plan_owner(plan, s, 0);
        }
    }
    return one_owner ? "one rank a stage" : "stages on several ranks";
}

static mhp_status print_summary(const mhp_planning *planning)
{
    const mhp_plan *plan = planning->plan;
    mhp_plan_report report = {0};
    size_t actions = 0, messages = 0;
    mhp_status status;

    MHP_TRY(out, mhp_planning_report(planning, plan, &planning->costs, MHP_GRADIENT_DEFAULT,
                                     &report));
    for (int r = 0; r < plan->rank_count; r++) {
        actions += plan->ranks[r].actions.count;
        messages += report.simulation.ranks[r].message_count;
    }
    printf("%s is a valid schedule%s: %d ranks, %d stages, %d micro-batches, %s\n", plan->name,
           plan->forward_only ? " of forwards alone" : "", plan->rank_count, plan->stage_count,
           plan->microbatch_count, stage_places(plan));
    printf("%zu actions with its messages, %zu messages; every dependency, channel and slot holds, "
           "no deadlock\n",
           actions, messages);
    printf("with F = I = W: worst bubble %.1f %%, %.2f %% above the lower bound\n",
           100 * mhp_simulation_worst_bubble(&report.simulation),
           100 * mhp_report_distance(&report));
out:
    mhp_plan_report_release(&report);
    return status;
}

int mhp_command_check(int argc, char **argv)
{
    mhp_planning_request request = {0};
    mhp_planning planning = {0};
    mhp_status status;

    mhp_parse_arguments(&parser, "check", argc, argv, &request.file);
    status = mhp_planning_load(&request, &planning);
    if (status == MHP_OK) {
        status = print_summary(&planning);
    }
    mhp_planning_release(&planning);
    return status == MHP_OK ? 0 : mhp_print_error();
}
