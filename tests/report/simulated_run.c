/* simulated_run RUN_DIR KIND RANKS MICROBATCHES [copies|nccl|slow]: the traces that the run of RUN_DIR/config.resolved.yaml, of that
 * plan, would leave if it takes exactly as long as simulated; with a mover of messages, the records of its cards as well; slow: three
 * steps, of which the last one takes five times as long as the others, so that the mean costs are above those of the step of median
 * length. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "launch/config.h"
#include "runtime/layout.h"
#include "runtime/profile/identity.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "tests/unit/runtime/profile_sample.h"

enum { LAST_US = 1000000, STEP_US = 100000 };

static const char cost_text[] = "stages: [{forward_us: 100, input_gradient_us: 115, weight_gradient_us: 85}]\n"
                                "links: [{default: true, bandwidth_gb_s: 40, latency_us: 6}]\nmessage_bytes: 1000000\n";

static const char slow_text[] = "stages: [{forward_us: 500, input_gradient_us: 575, weight_gradient_us: 425}]\n"
                                "links: [{default: true, bandwidth_gb_s: 8, latency_us: 30}]\nmessage_bytes: 1000000\n";

static const char names[] = "\0mix\0attention\0ncclDevKernel_SendRecv";
enum { MIX = 1, ATTENTION = 5, SEND_RECEIVE = 15 };
enum { COMPUTE_STREAM = 7, COPY_STREAM = 9, GAP_NS = 2000, OVERLAP_NS = 100, COPY_NS = 25000 };

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

static void add_record(mhp_record_list *list, mhp_record record, int lane, uint32_t stream)
{
    record.lane = (int8_t)lane;
    record.stream = stream;
    list->items[list->count++] = record;
}

/* Three kernels, of which one begins a little before the one before it ends, as dependent launches do, and one a launch
 * behind it. */
static void add_group(mhp_record_list *list, const mhp_trace_span *span)
{
    int64_t start_ns = span->start_ns, end_ns = span->end_ns, third_ns = (end_ns - start_ns) / 3;

    if (third_ns > GAP_NS) {
        list->items[list->count++] = record_of(MHP_RECORD_KERNEL, MIX, start_ns, start_ns + third_ns + OVERLAP_NS);
        list->items[list->count++] = record_of(MHP_RECORD_KERNEL, ATTENTION, start_ns + third_ns, end_ns - third_ns);
        list->items[list->count++] = record_of(MHP_RECORD_KERNEL, MIX, end_ns - third_ns + GAP_NS, end_ns);
    } else {
        list->items[list->count++] = record_of(MHP_RECORD_KERNEL, MIX, start_ns, end_ns);
    }
}

/* When the stream's last record ended; INT64_MIN without any. */
static int64_t last_end_ns(const mhp_record_list *list, uint32_t stream)
{
    int64_t last_ns = INT64_MIN;

    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].stream == stream && list->items[i].end_ns > last_ns) {
            last_ns = list->items[i].end_ns;
        }
    }
    return last_ns;
}

/* A message goes at 40 GB/s: a copy; or a kernel at either end, of which the receiver's begins when the receive is posted and
 * the message before it is there. */
static void add_message(sample_rank *ranks, int target, const mhp_trace_span *span, bool nccl)
{
    mhp_record_list *list = &ranks[target].trace.records, *sender = &ranks[span->peer].trace.records;
    double end_us = 1e-3 * (double)span->end_ns;
    uint32_t stream = COPY_STREAM + 4 * (uint32_t)span->stage + 2 * (uint32_t)span->cause;
    mhp_record record = record_of(MHP_RECORD_COPY_CARD, 0, span->end_ns - COPY_NS, span->end_ns);
    int64_t posted_ns;

    if (!nccl) {
        record.bytes = span->bytes;
        add_record(list, record, -1, COPY_STREAM);
        return;
    }
    end_us = (end_us - 1e-3 * (double)sample_ns(&ranks[target], 0)) / (1 + ranks[target].clock.drift);
    posted_ns = last_end_ns(list, stream) > span->start_ns ? last_end_ns(list, stream) : span->start_ns;
    add_record(list, record_of(MHP_RECORD_KERNEL, SEND_RECEIVE, posted_ns, span->end_ns), -1, stream);
    add_record(sender,
               record_of(MHP_RECORD_KERNEL, SEND_RECEIVE, sample_ns(&ranks[span->peer], end_us - 1e-3 * COPY_NS),
                         sample_ns(&ranks[span->peer], end_us)),
               -1, stream + 1);
}

static mhp_status begin_records(mhp_trace *trace, size_t capacity)
{
    mhp_record_list *list = &trace->records;

    trace->kernels = MHP_TRACE_KERNELS_ON;
    list->names_bytes = sizeof names;
    list->clock_error_ns = 500;
    MHP_RETURN_IF_ERROR(mhp_calloc(&list->names, sizeof names, 1));
    memcpy(list->names, names, sizeof names);
    return mhp_calloc(&list->items, capacity, sizeof *list->items);
}

static mhp_status add_records(sample_rank *ranks, int count, bool nccl)
{
    size_t spans = 0;

    for (int r = 0; r < count; r++) {
        spans += ranks[r].trace.span_count;
    }
    for (int r = 0; r < count; r++) {
        MHP_RETURN_IF_ERROR(begin_records(&ranks[r].trace, 3 * spans));
    }
    for (int r = 0; r < count; r++) {
        for (size_t i = 0; i < ranks[r].trace.span_count; i++) {
            const mhp_trace_span *span = &ranks[r].trace.spans[i];

            if (span->kind == MHP_TRACE_GROUP) {
                add_group(&ranks[r].trace.records, span);
            } else if (span->kind == MHP_TRACE_MESSAGE) {
                add_message(ranks, r, span, nccl);
            }
        }
    }
    for (int r = 0; r < count; r++) {
        mhp_record_list *list = &ranks[r].trace.records;

        qsort(list->items, list->count, sizeof *list->items, compare_starts);
    }
    return MHP_OK;
}

static mhp_status write_trace(const char *folder, const mhp_trace *trace)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_trace_path(folder, trace->rank, &path));
    MHP_TRY(out, mhp_trace_write(trace, path));
out:
    mhp_free(path);
    return status;
}

static mhp_status find_identity(const char *directory, mhp_hash *identity_out)
{
    mhp_status status = MHP_OK;
    mhp_config config = {0};
    mhp_layout layout = {0};
    mhp_memory_params params = {&layout, &config.model, &config.parallel, &config.schedule, &config.train};

    MHP_TRY(out, mhp_config_load_saved(&config, directory));
    MHP_TRY(out, mhp_layout_create(&config.model, &config.parallel, &config.schedule, &layout));
    MHP_TRY(out, mhp_profile_identity(&params, identity_out));
out:
    mhp_layout_release(&layout);
    mhp_config_release(&config);
    return status;
}

/* Two more steps of all ranks, as the first one and slower. */
static mhp_status add_steps(sample_rank *ranks, const mhp_plan *plan, const mhp_costs *costs, const mhp_simulation *simulation)
{
    mhp_status status = MHP_OK;
    mhp_costs slow = {0};
    mhp_simulate_params params = {.costs = &slow, .early_gradient = true};
    mhp_simulation slow_step = {0};

    MHP_TRY(out, mhp_costs_parse("costs", slow_text, sizeof slow_text - 1, &slow));
    MHP_TRY(out, mhp_simulate(plan, &params, &slow_step));
    for (int r = 0; r < plan->rank_count; r++) {
        sample_simulated(&ranks[r], plan, costs, simulation, STEP_US);
        sample_simulated(&ranks[r], plan, &slow, &slow_step, 2 * STEP_US);
    }
out:
    mhp_simulation_release(&slow_step);
    mhp_costs_release(&slow);
    return status;
}

static mhp_status write_traces(const char *folder, const mhp_plan *plan, const mhp_costs *costs,
                               const mhp_simulation *simulation, mhp_hash identity, const char *mover)
{
    mhp_status status = MHP_OK;
    sample_rank *ranks = NULL;
    bool slow = mover && strcmp(mover, "slow") == 0;

    MHP_RETURN_IF_ERROR(mhp_calloc(&ranks, (size_t)plan->rank_count, sizeof *ranks));
    for (int r = 0; r < plan->rank_count; r++) {
        ranks[r] = sample_begin(r, plan->rank_count, slow ? 3 : 1, LAST_US, (sample_clock){r > 0 ? 300 * r : 0, r * 1e-7});
        ranks[r].trace.identity = identity;
        sample_simulated(&ranks[r], plan, costs, simulation, 0);
    }
    if (slow) {
        MHP_TRY(out, add_steps(ranks, plan, costs, simulation));
    } else if (mover) {
        MHP_TRY(out, add_records(ranks, plan->rank_count, strcmp(mover, "nccl") == 0));
    }
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, write_trace(folder, &ranks[r].trace));
    }
out:
    for (int r = 0; r < plan->rank_count; r++) {
        mhp_trace_release(&ranks[r].trace);
    }
    mhp_free(ranks);
    return status;
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
    mhp_hash identity;
    char folder[512];

    if (argc != 5 && !(argc == 6 && (strcmp(argv[5], "copies") == 0 || strcmp(argv[5], "nccl") == 0 || strcmp(argv[5], "slow") == 0))) {
        fprintf(stderr, "usage: simulated_run RUN_DIR KIND RANKS MICROBATCHES [copies|nccl|slow]\n");
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/profile", argv[1]);
    MHP_TRY(out, mhp_mkdirs(folder));
    MHP_TRY(out, find_identity(argv[1], &identity));
    MHP_TRY(out, mhp_costs_parse("costs", cost_text, sizeof cost_text - 1, &costs));
    MHP_TRY(out, mhp_schedule_generate(argv[2], &shape, &plan));
    MHP_TRY(out, mhp_plan_lower(plan, NULL));
    MHP_TRY(out, mhp_simulate(plan, &params, &simulation));
    MHP_TRY(out, write_traces(folder, plan, &costs, &simulation, identity, argv[5])); /* NULL behind the last */
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
