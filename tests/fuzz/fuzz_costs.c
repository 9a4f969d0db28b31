/* Cost files: what is accepted must be written and read back to the same text, and a plan that it suits must simulate
 * to finite times that are no shorter than their bound. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/bound.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/simulate.h"
#include "tests/fuzz/fuzz.h"

enum { RANKS = 2, MICROBATCHES = 4 };

static void stop(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, mhp_error_text());
    abort();
}

static char *write_costs(const mhp_costs *costs, size_t *length)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, length);

    if (!stream || mhp_costs_write(costs, stream) != MHP_OK || fclose(stream) != 0) {
        stop("write");
    }
    return text;
}

static void read_again(const mhp_costs *costs)
{
    mhp_costs again = {0};
    size_t length = 0, length_again = 0;
    char *text = write_costs(costs, &length), *text_again;

    if (mhp_costs_parse("written", text, length, &again) != MHP_OK) {
        stop("read again");
    }
    text_again = write_costs(&again, &length_again);
    if (length != length_again || memcmp(text, text_again, length) != 0) {
        stop("another text");
    }
    free(text);
    free(text_again);
    mhp_costs_release(&again);
}

static void simulate(const mhp_costs *costs, const char *kind)
{
    mhp_schedule_shape shape = {.ranks = RANKS, .microbatches = MICROBATCHES, .chunks = 2};
    mhp_plan *plan = NULL;
    mhp_simulation simulation = {0};
    double bound_us = 0;

    if (mhp_schedule_generate(kind, &shape, &plan) != MHP_OK || mhp_plan_lower(plan, NULL) != MHP_OK) {
        stop("plan");
    }
    if (mhp_costs_check(costs, plan->rank_count, plan->stage_count) == MHP_OK) {
        if (mhp_simulate(plan, &(mhp_simulate_params){.costs = costs, .early_gradient = true}, &simulation) != MHP_OK ||
            mhp_lower_bound(plan, costs, &bound_us) != MHP_OK) {
            stop("simulate");
        }
        if (!isfinite(simulation.makespan_us) || bound_us > simulation.makespan_us * (1 + 1e-9)) {
            stop("makespan");
        }
    }
    mhp_simulation_release(&simulation);
    mhp_plan_destroy(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mhp_costs costs;

    if (mhp_costs_parse("fuzz", (const char *)data, size, &costs) == MHP_OK) {
        read_again(&costs);
        simulate(&costs, "dualpipe");
        simulate(&costs, "zb-v");
    }
    mhp_costs_release(&costs);
    return 0;
}
