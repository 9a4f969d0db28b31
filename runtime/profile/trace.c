#include "runtime/profile/trace.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/hash.h"
#include "core/memory.h"
#include "scheduler/plan.h"

#define FILE_START "rank-"
#define FILE_END   ".trace"

enum { TRACE_VERSION = 1, BYTE_ORDER_MARK = 0x01020304, MARKS_MAX = 1 << 30 };

static const char magic[8] = {'m', 'h', 'p', 't', 'r', 'a', 'c', 'e'};

/* The spans follow it. In the machine's own byte order, which is told by a mark. */
typedef struct trace_header {
    char magic[8];
    uint32_t version, byte_order, header_bytes, span_bytes;
    int32_t rank, world_size, pipeline_ranks, streams, device, step_count;
    int64_t first_step;
    mhp_clock_reading before, after;
    double mark_ns;
    int64_t mark_count, resolve_ns;
    uint64_t span_count;
    mhp_hash hash; /* of this with zeros here, and of the spans */
} trace_header;

/* ---- words ---- */

const char *mhp_trace_cause_text(mhp_trace_cause cause)
{
    static const char *const words[MHP_CAUSE_COUNT] = {"state",     "gradient", "reduction",
                                                       "gathering", "norm",     "statistics"};

    return words[cause];
}

const char *mhp_trace_phase_text(mhp_trace_phase phase)
{
    static const char *const words[MHP_TRACE_PHASE_COUNT] = {"prepare", "norm", "update", "report"};

    return words[phase];
}

const char *mhp_pass_letter(mhp_pass pass)
{
    static const char *const letters[MHP_PASS_COUNT] = {"F", "R", "I", "W"};

    return letters[pass];
}

const char *mhp_pass_text(mhp_pass pass)
{
    static const char *const words[MHP_PASS_COUNT] = {"forward", "rebuild", "input gradient", "weight gradient"};

    return words[pass];
}

const char *mhp_part_text(mhp_step_part part)
{
    static const char *const words[MHP_PART_COUNT] = {"embedding", "connection", "attention", "feed-forward", "head"};

    return words[part];
}

/* ---- writing ---- */

static mhp_hash hash_of(const trace_header *header, const mhp_trace_span *spans)
{
    trace_header blank = *header;
    mhp_hash parts[2];

    memset(&blank.hash, 0, sizeof blank.hash);
    parts[0] = mhp_hash_bytes(&blank, sizeof blank);
    parts[1] = mhp_hash_bytes(spans, header->span_count * sizeof *spans);
    return mhp_hash_bytes(parts, sizeof parts);
}

mhp_status mhp_trace_write(const mhp_trace *trace, const char *path)
{
    mhp_status status = MHP_OK;
    mhp_file *file = NULL;
    trace_header header;

    memset(&header, 0, sizeof header);
    memcpy(header.magic, magic, sizeof magic);
    header.version = TRACE_VERSION;
    header.byte_order = BYTE_ORDER_MARK;
    header.header_bytes = sizeof header;
    header.span_bytes = sizeof *trace->spans;
    header.rank = trace->rank;
    header.world_size = trace->world_size;
    header.pipeline_ranks = trace->pipeline_ranks;
    header.streams = trace->streams;
    header.device = trace->device;
    header.step_count = trace->step_count;
    header.first_step = trace->first_step;
    header.before = trace->before;
    header.after = trace->after;
    header.mark_ns = trace->mark_ns;
    header.mark_count = trace->mark_count;
    header.resolve_ns = trace->resolve_ns;
    header.span_count = trace->span_count;
    header.hash = hash_of(&header, trace->spans);
    MHP_TRY(out, mhp_file_create(path, &file));
    MHP_TRY(out, mhp_file_write(file, &header, sizeof header));
    MHP_TRY(out, mhp_file_write(file, trace->spans, trace->span_count * sizeof *trace->spans));
    status = mhp_file_finish(file);
    file = NULL;
out:
    mhp_file_abandon(file);
    return status;
}

/* ---- reading ---- */

static mhp_status check_header(const char *path, const trace_header *header, size_t size)
{
    if (size < sizeof *header || memcmp(header->magic, magic, sizeof magic) != 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is no trace of a profiled run", path);
    }
    if (header->byte_order != BYTE_ORDER_MARK) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s was written on a machine of the other byte order", path);
    }
    if (header->version != TRACE_VERSION || header->header_bytes != sizeof *header ||
        header->span_bytes != sizeof(mhp_trace_span)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is a trace of version %u: expected %d", path, header->version,
                             TRACE_VERSION);
    }
    if (header->span_count > MHP_TRACE_SPANS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s has %llu spans: expected at most %d", path,
                             (unsigned long long)header->span_count, MHP_TRACE_SPANS_MAX);
    }
    if (size != sizeof *header + header->span_count * sizeof(mhp_trace_span)) {
        return mhp_error_set(
            MHP_ERR_FORMAT, "%s has %zu bytes: expected %zu for its %llu spans; it is cut off or was changed", path,
            size, sizeof *header + header->span_count * sizeof(mhp_trace_span), (unsigned long long)header->span_count);
    }
    return MHP_OK;
}

static bool is_clock_right(const mhp_clock_reading *reading)
{
    return reading->local_ns >= 0 && reading->reference_ns >= 0 && reading->error_ns >= 0;
}

static bool are_numbers_right(const trace_header *header)
{
    return header->world_size >= 1 && header->world_size <= MHP_RANKS_MAX * MHP_RANKS_MAX && header->rank >= 0 &&
           header->rank < header->world_size && header->pipeline_ranks >= 1 &&
           header->pipeline_ranks <= MHP_RANKS_MAX && header->world_size % header->pipeline_ranks == 0 &&
           header->streams >= 1 && header->step_count >= 1 && header->first_step >= 0 && header->mark_ns >= 0 &&
           header->mark_ns < 1e9 && header->mark_count >= 0 && header->mark_count <= MARKS_MAX &&
           header->resolve_ns >= 0 && is_clock_right(&header->before) && is_clock_right(&header->after) &&
           header->after.local_ns > header->before.local_ns && header->after.reference_ns > header->before.reference_ns;
}

static bool is_span_right(const trace_header *header, const mhp_trace_span *span)
{
    bool part = span->kind == MHP_TRACE_PHASE ? span->part < MHP_TRACE_PHASE_COUNT : span->part < MHP_PART_COUNT;

    return span->kind < MHP_TRACE_KIND_COUNT && span->pass < MHP_PASS_COUNT && part && span->cause < MHP_CAUSE_COUNT &&
           span->step >= 0 && span->step < header->step_count && span->action >= -1 && span->stage >= -1 &&
           span->stage < MHP_STAGES_MAX && span->microbatch >= -1 && span->microbatch < MHP_MICROBATCHES_MAX &&
           span->lane >= 0 && span->lane < MHP_LANE_COUNT && span->slot >= -1 && span->peer >= -1 && span->peer < header->world_size && span->bytes >= 0 &&
           span->start_ns >= 0 && span->end_ns >= span->start_ns;
}

static mhp_status check_contents(const char *path, const trace_header *header, const mhp_trace_span *spans)
{
    if (!mhp_hash_equal(hash_of(header, spans), header->hash)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s was changed: its checksum is another", path);
    }
    if (!are_numbers_right(header)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s has a value out of range in its head", path);
    }
    for (uint64_t i = 0; i < header->span_count; i++) {
        if (!is_span_right(header, &spans[i]) || (i > 0 && spans[i].step < spans[i - 1].step)) {
            return mhp_error_set(MHP_ERR_FORMAT, "%s: span %llu has a value out of range", path, (unsigned long long)i);
        }
    }
    return MHP_OK;
}

mhp_status mhp_trace_read(const char *path, mhp_trace *trace_out)
{
    mhp_status status = MHP_OK;
    mhp_map file = {0};
    trace_header header;

    *trace_out = (mhp_trace){0};
    MHP_TRY(out, mhp_map_file(path, &file));
    memset(&header, 0, sizeof header);
    memcpy(&header, file.data, file.size < sizeof header ? file.size : sizeof header);
    MHP_TRY(out, check_header(path, &header, file.size));
    MHP_TRY(out, mhp_calloc(&trace_out->spans, header.span_count, sizeof *trace_out->spans));
    memcpy(trace_out->spans, (const char *)file.data + sizeof header, header.span_count * sizeof *trace_out->spans);
    MHP_TRY(out, check_contents(path, &header, trace_out->spans));
    trace_out->rank = header.rank;
    trace_out->world_size = header.world_size;
    trace_out->pipeline_ranks = header.pipeline_ranks;
    trace_out->streams = header.streams;
    trace_out->device = header.device;
    trace_out->step_count = header.step_count;
    trace_out->first_step = header.first_step;
    trace_out->before = header.before;
    trace_out->after = header.after;
    trace_out->mark_ns = header.mark_ns;
    trace_out->mark_count = header.mark_count;
    trace_out->resolve_ns = header.resolve_ns;
    trace_out->span_count = header.span_count;
out:
    mhp_unmap(&file);
    return status;
}

void mhp_trace_release(mhp_trace *trace)
{
    mhp_free(trace->spans);
    *trace = (mhp_trace){0};
}

/* The first span of a step or of one behind it. */
static size_t first_of_step(const mhp_trace *trace, int step)
{
    size_t low = 0, high = trace->span_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (trace->spans[middle].step < step) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const mhp_trace_span *mhp_trace_step(const mhp_trace *trace, int step, size_t *count_out)
{
    size_t first = first_of_step(trace, step);

    *count_out = first_of_step(trace, step + 1) - first;
    return trace->spans + first;
}

/* ---- all ranks ---- */

mhp_status mhp_trace_path(const char *folder, int rank, char **path_out)
{
    return mhp_asprintf(path_out, "%s/" FILE_START "%04d" FILE_END, folder, rank);
}

static bool are_of_one_run(const mhp_trace *a, const mhp_trace *b)
{
    return a->world_size == b->world_size && a->pipeline_ranks == b->pipeline_ranks && a->first_step == b->first_step &&
           a->step_count == b->step_count && a->streams == b->streams && a->before.session_ns == b->before.session_ns &&
           a->after.session_ns == b->after.session_ns;
}

static mhp_status read_rank(const char *folder, int rank, mhp_trace_set *set)
{
    mhp_status status = MHP_OK;
    mhp_trace *trace = &set->ranks[rank];
    char *path = NULL;

    MHP_TRY(out, mhp_trace_path(folder, rank, &path));
    MHP_TRY(out, mhp_trace_read(path, trace));
    set->count = rank + 1;
    if (trace->rank != rank || !are_of_one_run(trace, &set->ranks[0])) {
        MHP_RAISE(out, MHP_ERR_FORMAT,
                  "%s is of another run, or of another rank, than " FILE_START "0000" FILE_END " beside it", path);
    }
out:
    if (status < 0) {
        mhp_trace_release(trace);
    }
    mhp_free(path);
    return status;
}

mhp_status mhp_trace_set_read(const char *folder, mhp_trace_set *set_out)
{
    mhp_status status = MHP_OK;
    char *path = NULL;
    mhp_trace first = {0};

    *set_out = (mhp_trace_set){0};
    MHP_TRY(out, mhp_trace_path(folder, 0, &path));
    if (!mhp_file_exists(path)) {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND,
                  "there is no %s: expected a run that was started with --profile STEPS and got that far", path);
    }
    MHP_TRY(out, mhp_trace_read(path, &first));
    MHP_TRY(out, mhp_calloc(&set_out->ranks, (size_t)first.world_size, sizeof *set_out->ranks));
    for (int rank = 0; rank < first.world_size; rank++) {
        MHP_TRY(out, read_rank(folder, rank, set_out));
    }
out:
    mhp_trace_release(&first);
    mhp_free(path);
    return status;
}

void mhp_trace_set_release(mhp_trace_set *set)
{
    for (int rank = 0; rank < set->count; rank++) {
        mhp_trace_release(&set->ranks[rank]);
    }
    mhp_free(set->ranks);
    *set = (mhp_trace_set){0};
}
