/* plan_scale [KIND [P,M ...]]: what it costs to generate, lower, prove and simulate schedules, from small to large, on one core.
 * Lowering proves the compute order before and everything after; the column "prove" is one more proof of the lowered plan. Simulated are
 * messages of 0.1 F on links that they share, with the critical path. Time per compute action stays flat if nothing grows faster than
 * the plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/simulate.h"

typedef struct plan_size {
    int ranks, microbatches;
} plan_size;

static const plan_size sizes[] = {{8, 64}, {16, 128}, {32, 256}, {64, 512}, {128, 1024}, {256, 2048}, {512, 4096}};

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double peak_mib(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static size_t action_count(const mhp_plan *plan)
{
    size_t count = 0;

    for (int r = 0; r < plan->rank_count; r++) {
        count += plan->ranks[r].actions.count;
    }
    return count;
}

/* What is measured, in this order; a part more is an entry here, a heading, and a case in run_part. */
enum { GENERATE, LOWER, PROVE, SIMULATE, PART_COUNT };

static const char *const part_text[PART_COUNT] = {"generate", "lower", "prove", "simulate"};

static mhp_status simulate(const mhp_plan *plan)
{
    mhp_costs costs = {0};
    mhp_link_costs *link = NULL;
    mhp_simulation simulation = {0};
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_costs_default(&costs));
    MHP_TRY(out, mhp_costs_create_links(&costs, 1, &link));
    *link = (mhp_link_costs){.is_default = true, .from = -1, .to = -1, .bandwidth_gb_s = 1};
    costs.message_bytes = 100;
    MHP_TRY(out, mhp_simulate(plan, &(mhp_simulate_params){.costs = &costs}, &simulation));
out:
    mhp_simulation_release(&simulation);
    mhp_costs_release(&costs);
    return status;
}

static mhp_status run_part(int part, const char *kind, const mhp_schedule_shape *shape, mhp_plan **plan)
{
    switch (part) {
    case GENERATE:
        return mhp_schedule_generate(kind, shape, plan);
    case LOWER:
        return mhp_plan_lower(*plan, NULL);
    case PROVE:
        return mhp_plan_validate(*plan);
    default:
        return simulate(*plan);
    }
}

static mhp_status measure(const char *kind, plan_size size)
{
    mhp_schedule_shape shape = {.ranks = size.ranks, .microbatches = size.microbatches, .chunks = 2};
    mhp_status status = MHP_OK;
    mhp_plan *plan = NULL;
    double took[PART_COUNT], total = 0;
    size_t compute = 0;

    for (int part = 0; part < PART_COUNT; part++) {
        double begin = seconds();

        MHP_TRY(out, run_part(part, kind, &shape, &plan));
        took[part] = seconds() - begin;
        total += took[part];
        compute = part == GENERATE ? action_count(plan) : compute;
    }
    printf("%-12s %5d %6d %10zu %10zu", kind, size.ranks, size.microbatches, compute, action_count(plan));
    for (int part = 0; part < PART_COUNT; part++) {
        printf(" %9.3f", took[part]);
    }
    printf(" %9.3f %9.0f %9.0f\n", total, total / (double)compute * 1e9, peak_mib());
    fflush(stdout);
out:
    mhp_plan_destroy(plan);
    return status;
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "dualpipe";
    mhp_status status = MHP_OK;

    printf("%-12s %5s %6s %10s %10s", "schedule", "P", "M", "compute", "lowered");
    for (int part = 0; part < PART_COUNT; part++) {
        printf(" %9s", part_text[part]);
    }
    printf(" %9s %9s %9s\n", "total s", "ns/action", "peak MiB");
    for (int i = 2; i < argc && status == MHP_OK; i++) {
        plan_size size = {0, 0};

        if (sscanf(argv[i], "%d,%d", &size.ranks, &size.microbatches) != 2) {
            fprintf(stderr, "usage: %s [KIND [P,M ...]]\n", argv[0]);
            return 2;
        }
        status = measure(kind, size);
    }
    for (size_t i = 0; argc <= 2 && i < sizeof sizes / sizeof *sizes && status == MHP_OK; i++) {
        status = measure(kind, sizes[i]);
    }
    if (status < 0) {
        fprintf(stderr, "%s\n", mhp_error_text());
    }
    return status < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
