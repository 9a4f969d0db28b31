#include "scheduler/table.h"

#include <errno.h>
#include <string.h>

#include "scheduler/draw.h"

static mhp_status draw(const mhp_plan_report *report, FILE *stream)
{
    mhp_draw_params params = {.plan = report->plan,
                              .costs = report->costs,
                              .simulation = &report->simulation,
                              .time_unit = report->time_unit};
    mhp_drawing drawing;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_draw(&params, &drawing));
    if (mhp_draw_ascii_columns(&drawing) <= MHP_TABLE_COLUMNS_MAX) {
        MHP_TRY(out, mhp_draw_ascii(&drawing, stream));
    } else {
        fprintf(stream, "%s\n%s\na picture of it would be %zu columns wide\n", drawing.title, drawing.subtitle,
                mhp_draw_ascii_columns(&drawing));
    }
    fputc('\n', stream);
out:
    mhp_drawing_release(&drawing);
    return status;
}

mhp_status mhp_report_write(const mhp_plan_report *report, FILE *stream)
{
    size_t actions = 0;

    for (int r = 0; r < report->plan->rank_count; r++) {
        actions += report->plan->ranks[r].actions.count;
    }
    if (actions <= MHP_DRAW_BOXES_MAX) {
        MHP_RETURN_IF_ERROR(draw(report, stream));
    } else {
        fprintf(stream, "%s: %d ranks, %d stages, %d micro-batches\n\n", report->plan->name, report->plan->rank_count,
                report->plan->stage_count, report->plan->microbatch_count);
    }
    return mhp_report_write_table(report, stream);
}

mhp_status mhp_plan_write_table(const mhp_plan *plan, FILE *stream)
{
    mhp_costs costs = {0};
    mhp_plan_report report = {0};
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_costs_default(&costs));
    MHP_TRY(out, mhp_plan_report_create(plan, &(mhp_simulate_params){.costs = &costs}, "", &report));
    MHP_TRY(out, mhp_report_write(&report, stream));
out:
    mhp_plan_report_release(&report);
    mhp_costs_release(&costs);
    return status;
}
