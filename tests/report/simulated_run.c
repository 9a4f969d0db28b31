/* simulated_run RUN_DIR KIND RANKS MICROBATCHES [RECORDS]: the traces that a run of a plan would leave that takes exactly
 * as long as simulated; with `records`, those of its cards as well. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "tests/unit/runtime/profile_sample.h"

enum { LAST_US = 1000000 };

static const char cost_text[] = "stages: [{forward_us: 100, input_gradient_us: 115, weight_gradient_us: 85}]\n"
                                "links: [{default: true, bandwidth_gb_s: 40, latency_us: 6}]\nmessage_bytes: 1000000\n";

static const char names[] = "\0mix\0attention";
enum { MIX = 1, ATTENTION = 5, COMPUTE_STREAM = 7, COPY_STREAM = 9, GAP_NS = 2000, OVERLAP_NS = 100, COPY_NS = 25000 };

static mhp_record record_of(mhp_record_kind kind, uint32_t name, int64_t start_ns, int64_t end_ns)
{
    return (mhp_record){.start_ns = start_ns,
                        .end_ns = end_ns,
                        .stream = COMPUTE_STREAM,
                        .name = name,
                        .kind = (uint8_t)kind};
}

static int compare_starts(const void *left, const void *right)
{
    const mhp_record *a = left, *b = right;

    return (a->start_ns > b->start_ns) - (a->start_ns < b->start_ns);
}

/* Every group is three kernels, of which one begins a little before the one before it ends, as dependent launches do, and
 * one a launch behind it; every message is a copy at 40 GB/s. */
static mhp_status add_records(mhp_trace *trace)
{
    mhp_record_list *list = &trace->records;

    trace->kernels = MHP_TRACE_KERNELS_ON;
    list->names_bytes = sizeof names;
    list->clock_error_ns = 500;
    MHP_RETURN_IF_ERROR(mhp_calloc(&list->names, sizeof names, 1));
    memcpy(list->names, names, sizeof names);
    MHP_RETURN_IF_ERROR(mhp_calloc(&list->items, 3 * trace->span_count, sizeof *list->items));
    for (size_t i = 0; i < trace->span_count; i++) {
        const mhp_trace_span *span = &trace->spans[i];
        int64_t start_ns = span->start_ns, end_ns = span->end_ns, third_ns = (end_ns - start_ns) / 3;

        if (span->kind == MHP_TRACE_GROUP && third_ns > GAP_NS) {
            list->items[list->count++] = record_of(MHP_RECORD_KERNEL, MIX, start_ns, start_ns + third_ns + OVERLAP_NS);
            list->items[list->count++] = record_of(MHP_RECORD_KERNEL, ATTENTION, start_ns + third_ns, end_ns - third_ns);
            list->items[list->count++] = record_of(MHP_RECORD_KERNEL, MIX, end_ns - third_ns + GAP_NS, end_ns);
        } else if (span->kind == MHP_TRACE_GROUP) {
            list->items[list->count++] = record_of(MHP_RECORD_KERNEL, MIX, start_ns, end_ns);
        } else if (span->kind == MHP_TRACE_MESSAGE) {
            list->items[list->count] = record_of(MHP_RECORD_COPY_CARD, 0, end_ns - COPY_NS, end_ns);
            list->items[list->count].lane = -1;
            list->items[list->count].stream = COPY_STREAM;
            list->items[list->count++].bytes = span->bytes;
        }
    }
    qsort(list->items, list->count, sizeof *list->items, compare_starts);
    return MHP_OK;
}

static mhp_status write_traces(const char *folder, const mhp_plan *plan, const mhp_costs *costs,
                               const mhp_simulation *simulation, bool records)
{
    for (int r = 0; r < plan->rank_count; r++) {
        sample_rank rank = sample_begin(r, plan->rank_count, 1, LAST_US, (sample_clock){r > 0 ? 300 * r : 0, r * 1e-7});
        char *path = NULL;

        sample_simulated(&rank, plan, costs, simulation, 0);
        if (records) {
            MHP_RETURN_IF_ERROR(add_records(&rank.trace));
        }
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
        .ranks = argc >= 5 ? atoi(argv[3]) : 0, .microbatches = argc >= 5 ? atoi(argv[4]) : 0, .chunks = 2};
    mhp_plan *plan = NULL;
    mhp_costs costs = {0};
    mhp_simulate_params params = {.costs = &costs, .early_gradient = true};
    mhp_simulation simulation = {0};
    char folder[512];

    if (argc != 5 && !(argc == 6 && strcmp(argv[5], "records") == 0)) {
        fprintf(stderr, "usage: simulated_run RUN_DIR KIND RANKS MICROBATCHES [records]\n");
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/profile", argv[1]);
    MHP_TRY(out, mhp_mkdirs(folder));
    MHP_TRY(out, mhp_costs_parse("costs", cost_text, sizeof cost_text - 1, &costs));
    MHP_TRY(out, mhp_schedule_generate(argv[2], &shape, &plan));
    MHP_TRY(out, mhp_plan_lower(plan, NULL));
    MHP_TRY(out, mhp_simulate(plan, &params, &simulation));
    MHP_TRY(out, write_traces(folder, plan, &costs, &simulation, argc == 6));
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
