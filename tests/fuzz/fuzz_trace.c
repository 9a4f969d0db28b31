/* Traces of two ranks: whatever is in them, with a right checksum, they are refused or a report is made of them, whose JSON reads.
 *
 * An input is a byte that picks the plan, the two files one behind the other, and edits of four bytes. The files' checksums and counts
 * are made right here. The corpus: a letter, and the files of runs of two ranks with two layers and --profile 1, for example
 *     mpirun -n 2 mhcpipe train CONFIG --set schedule.kind=1f1b --set schedule.microbatches=2 --set log.dir=RUN --profile 1
 *     (printf d; cat RUN/profile/rank-000?.trace) >corpus/trace/1f1b
 * and of tests/report/simulated_run for cards. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "runtime/profile/report.h"
#include "runtime/profile/trace_file.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "tests/fuzz/fuzz.h"

enum { RANKS = 2, EDIT_BYTES = 4 };

static void demand(mhp_status status, const char *what)
{
    if (status != MHP_OK) {
        fprintf(stderr, "%s: %s\n", what, mhp_error_text());
        abort();
    }
}

/* ---- plans ---- */

static mhp_plan *make_plan(uint8_t which)
{
    static const struct {
        const char *kind;
        int ranks, microbatches;
        bool rebuild;
    } plans[] = {{"1f1b", 2, 2, false}, {"zb-v", 2, 2, false}, {"dualpipe", 2, 4, false}, {"1f1b", 2, 2, true}, {"gpipe", 1, 2, false}};
    size_t at = which % (sizeof plans / sizeof *plans);
    mhp_schedule_shape shape = {.ranks = plans[at].ranks, .microbatches = plans[at].microbatches, .chunks = 2};
    mhp_lower_params lower = {.rebuild = plans[at].rebuild};
    mhp_plan *plan = NULL;

    demand(mhp_schedule_generate(plans[at].kind, &shape, &plan), "plan");
    demand(mhp_plan_lower(plan, &lower), "plan");
    return plan;
}

static mhp_costs make_sizes(const mhp_plan *plan)
{
    mhp_costs costs;
    mhp_stage_costs *stages;

    demand(mhp_costs_default(&costs), "costs");
    demand(mhp_costs_create_stages(&costs, (size_t)plan->stage_count, &stages), "costs");
    for (int s = 0; s < plan->stage_count; s++) {
        stages[s] = (mhp_stage_costs){.forward_us = 1, .bytes = {.weights = 100, .activation = 10, .held_weight_gradient = 5, .slot = 3}};
    }
    costs.message_bytes = 64;
    return costs;
}

/* ---- the files ---- */

typedef struct file {
    uint8_t *bytes;
    size_t size;
    mhp_trace_header header;
} file;

static uint64_t fit(uint64_t count, size_t one, size_t *left)
{
    uint64_t most = *left / one;

    count = count < most ? count : most;
    *left -= count * one;
    return count;
}

/* The bytes that the file took; its counts are cut to what is there. */
static size_t take_file(const uint8_t *data, size_t size, file *out)
{
    size_t left = size - sizeof out->header;

    if (size < sizeof out->header) {
        return size;
    }
    memcpy(&out->header, data, sizeof out->header);
    out->header.span_count = fit(out->header.span_count, sizeof(mhp_trace_span), &left);
    out->header.record_count = fit(out->header.record_count, sizeof(mhp_record), &left);
    out->header.names_bytes = fit(out->header.names_bytes, 1, &left);
    out->size = size - left;
    out->bytes = malloc(out->size);
    if (!out->bytes) {
        abort();
    }
    memcpy(out->bytes, data, out->size);
    return out->size;
}

static void seal(file *f)
{
    mhp_trace_parts parts;

    parts.spans = f->bytes + sizeof f->header;
    parts.records = f->bytes + sizeof f->header + f->header.span_count * sizeof(mhp_trace_span);
    parts.names = (const uint8_t *)parts.records + f->header.record_count * sizeof(mhp_record);
    f->header.hash = mhp_trace_hash(&f->header, &parts);
    memcpy(f->bytes, &f->header, sizeof f->header);
}

/* ---- edits ---- */

static int8_t small(uint8_t value)
{
    return (int8_t)(value % 16 - 1);
}

static int64_t flip(int64_t number, uint8_t bit)
{
    return (int64_t)((uint64_t)number ^ (uint64_t)1 << bit % 63);
}

static int64_t add(int64_t number, int64_t other)
{
    return (int64_t)((uint64_t)number + (uint64_t)other);
}

/* The end of a span, which is the begin of the next one of its lane. */
static void move_end(mhp_trace_span *spans, size_t count, size_t at, int64_t by_ns)
{
    int64_t end_ns = spans[at].end_ns;

    spans[at].end_ns = add(end_ns, by_ns);
    for (size_t i = at + 1; i < count; i++) {
        if (spans[i].lane == spans[at].lane && spans[i].start_ns == end_ns) {
            spans[i].start_ns = spans[at].end_ns;
            return;
        }
    }
}

static void edit_header(mhp_trace_header *header, uint8_t field, uint8_t value)
{
    switch (field % 8) {
    case 0:
        header->step_count = value < 250 ? small(value) : INT32_MAX - small(value);
        break;
    case 1:
        header->first_step = value < 250 ? value : INT64_MAX - value;
        break;
    case 2:
        header->after.reference_ns = add(header->before.reference_ns, (int64_t)1 << value % 63);
        break;
    case 3:
        header->after.local_ns = add(header->before.local_ns, (int64_t)1 << value % 63);
        break;
    case 4:
        header->before.reference_ns = flip(header->before.reference_ns, value);
        break;
    case 5:
        header->kernels = small(value);
        break;
    case 6:
        header->streams = small(value);
        break;
    default:
        header->resolve_ns = flip(header->resolve_ns, value);
        break;
    }
}

static void edit_span(mhp_trace_span *spans, size_t count, size_t at, uint8_t field, uint8_t value)
{
    mhp_trace_span *span = &spans[at];
    int32_t *numbers[] = {&span->step, &span->action, &span->stage, &span->microbatch, &span->slot, &span->peer, &span->lane};
    uint8_t *letters[] = {&span->kind, &span->pass, &span->part, &span->cause};

    field %= 16;
    if (field < 7) {
        *numbers[field] = value < 250 ? small(value) : INT32_MAX - small(value);
    } else if (field < 11) {
        *letters[field - 7] = value % 8;
    } else if (field == 11) {
        span->bytes = (int64_t)1 << value % 63;
    } else if (field == 12) {
        span->start_ns = flip(span->start_ns, value);
    } else if (field == 13) {
        *span = spans[value % count];
    } else if (field == 14) {
        move_end(spans, count, at, 1000 * ((int8_t)value));
    } else {
        span->end_ns = flip(span->end_ns, value);
    }
}

static void edit(file *files, const uint8_t *text)
{
    file *f = &files[text[0] % RANKS];
    size_t count = f->header.span_count;

    if (text[0] & 0x80) {
        edit_header(&f->header, text[2], text[3]);
    } else if (f->bytes && count > 0) {
        edit_span((mhp_trace_span *)(f->bytes + sizeof f->header), count, (text[1] + (text[0] >> 1 & 1u) * 256) % count, text[2],
                  text[3]);
    }
}

/* ---- what is made of them ---- */

static void check_json(const char *text, size_t length, const char *what)
{
    json_error_t error;
    json_t *root = json_loadb(text, length, 0, &error);

    if (!root) {
        fprintf(stderr, "%s: %s\n", what, error.text);
        abort();
    }
    json_decref(root);
}

static void write_report(const mhp_profile_report *report)
{
    static const mhp_run_metrics no_metrics;
    char *text = NULL;
    size_t length = 0;
    json_t *root = NULL;
    FILE *stream;

    for (int what = 0; what < 3; what++) {
        stream = open_memstream(&text, &length);
        if (!stream) {
            abort();
        }
        demand(what == 0   ? mhp_profile_report_table(report, stream)
               : what == 1 ? mhp_profile_report_page(report, &no_metrics, stream)
                           : mhp_profile_report_trace(report, stream),
               "report");
        fclose(stream);
        if (what == 2) {
            check_json(text, length, "trace");
        }
        free(text);
    }
    demand(mhp_profile_report_json(report, &root), "figures");
    json_decref(root);
}

static void analyse(const mhp_trace_set *set, const mhp_plan *plan)
{
    mhp_analysis analysis = {0};
    mhp_profile_report report = {0};
    mhp_costs sizes = make_sizes(plan);

    if (mhp_analyse(set, &analysis) == MHP_OK && mhp_profile_report_create(&analysis, plan, &sizes, &report) == MHP_OK) {
        write_report(&report);
    }
    mhp_profile_report_release(&report);
    mhp_analysis_release(&analysis);
    mhp_costs_release(&sizes);
}

/* Whether a rank's file was taken. */
static bool add_file(file *f, mhp_trace_set *set)
{
    mhp_trace trace = {0};
    bool good = false;

    if (f->bytes) {
        seal(f);
        good = mhp_trace_parse("fuzz", f->bytes, f->size, &trace) == MHP_OK && mhp_trace_set_add(set, "fuzz", &trace) == MHP_OK;
    }
    if (!good) {
        mhp_trace_release(&trace);
    }
    return good;
}

#ifdef MHP_LIBFUZZER
/* libFuzzer's: mostly an edit at the end, for bytes changed blindly rarely leave spans that fit together. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_most, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_most, unsigned seed)
{
    uint64_t random = seed * 0x9e3779b97f4a7c15u;

    if (seed % 4 == 0 || size + EDIT_BYTES > size_most) {
        return LLVMFuzzerMutate(data, size, size_most);
    }
    for (size_t i = 0; i < EDIT_BYTES; i++) {
        data[size + i] = (uint8_t)(random >> (24 + 8 * i));
    }
    return size + EDIT_BYTES;
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mhp_plan *plan = make_plan(size > 0 ? data[0] : 0);
    file files[RANKS] = {0};
    mhp_trace_set set = {0};
    size_t at = size > 0;
    bool good = true;

    demand(mhp_calloc(&set.ranks, RANKS, sizeof *set.ranks), "set");
    for (int rank = 0; rank < RANKS; rank++) {
        at += take_file(data + at, size - at, &files[rank]);
    }
    for (; at + EDIT_BYTES <= size; at += EDIT_BYTES) {
        edit(files, data + at);
    }
    for (int rank = 0; rank < RANKS && good; rank++) {
        good = add_file(&files[rank], &set) && set.ranks[rank].world_size == RANKS;
    }
    if (good) {
        analyse(&set, plan);
    }
    mhp_trace_set_release(&set);
    for (int rank = 0; rank < RANKS; rank++) {
        free(files[rank].bytes);
    }
    mhp_plan_destroy(plan);
    return 0;
}
