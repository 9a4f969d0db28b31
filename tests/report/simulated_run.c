/* simulated_run RUN_DIR KIND RANKS MICROBATCHES: the traces that a run of a plan would leave that takes exactly as long
 * as simulated. */
#include <stdio.h>
#include <stdlib.h>

#include "core/file.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "tests/unit/runtime/profile_sample.h"

enum { LAST_US = 1000000 };

static const char cost_text[] = "stages: [{forward_us: 100, input_gradient_us: 115, weight_gradient_us: 85}]\n"
                                "links: [{default: true, bandwidth_gb_s: 40, latency_us: 6}]\nmessage_bytes: 1000000\n";

static mhp_status write_traces(const char *folder, const mhp_plan *plan, const mhp_costs *costs,
                               const mhp_simulation *simulation)
{
    for (int r = 0; r < plan->rank_count; r++) {
        sample_rank rank = sample_begin(r, plan->rank_count, 1, LAST_US, (sample_clock){r > 0 ? 300 * r : 0, r * 1e-7});
        char *path = NULL;

        sample_simulated(&rank, plan, costs, simulation, 0);
        MHP_RETURN_IF_ERROR(mhp_trace_path(folder, r, &path));
        MHP_RETURN_IF_ERROR(mhp_trace_write(&rank.trace, path));
        mhp_free(path);
        mhp_trace_release(&rank.trace);
    }
    return MHP_OK;
}

int main(int argc, char **argv)
{
    mhp_status status = MHP_OK;
    mhp_schedule_shape shape = {
        .ranks = argc == 5 ? atoi(argv[3]) : 0, .microbatches = argc == 5 ? atoi(argv[4]) : 0, .chunks = 2};
    mhp_plan *plan = NULL;
    mhp_costs costs = {0};
    mhp_simulate_params params = {.costs = &costs, .early_gradient = true};
    mhp_simulation simulation = {0};
    char folder[512];

    if (argc != 5) {
        fprintf(stderr, "usage: simulated_run RUN_DIR KIND RANKS MICROBATCHES\n");
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/profile", argv[1]);
    MHP_TRY(out, mhp_mkdirs(folder));
    MHP_TRY(out, mhp_costs_parse("costs", cost_text, sizeof cost_text - 1, &costs));
    MHP_TRY(out, mhp_schedule_generate(argv[2], &shape, &plan));
    MHP_TRY(out, mhp_plan_lower(plan, NULL));
    MHP_TRY(out, mhp_simulate(plan, &params, &simulation));
    MHP_TRY(out, write_traces(folder, plan, &costs, &simulation));
    printf("%.6f\n", simulation.makespan_us);
out:
    if (status < 0) {
        fprintf(stderr, "simulated_run: %s\n", mhp_error_text());
    }
    mhp_simulation_release(&simulation);
    mhp_plan_destroy(plan);
    mhp_costs_release(&costs);
    return status < 0;
}
