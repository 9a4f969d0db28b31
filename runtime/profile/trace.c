#include "runtime/profile/trace_file.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "scheduler/plan.h"

#define FILE_START "rank-"
#define FILE_END   ".trace"

enum { TRACE_VERSION = 3, BYTE_ORDER_MARK = 0x01020304, MARKS_MAX = 1 << 30, LOST_MAX = 1 << 30 };

static const int64_t bytes_most = (int64_t)1 << 40; /* of a message, a collective, a record */

static const char magic[8] = {'m', 'h', 'p', 't', 'r', 'a', 'c', 'e'};

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

void mhp_group_format(mhp_pass pass, mhp_step_part part, char text[MHP_GROUP_TEXT_MAX])
{
    snprintf(text, MHP_GROUP_TEXT_MAX, "%s %s", mhp_pass_text(pass), mhp_part_text(part));
}

/* ---- writing ---- */

mhp_hash mhp_trace_hash(const mhp_trace_header *header, const mhp_trace_parts *contents)
{
    mhp_trace_header blank = *header;
    mhp_hash parts[4];

    memset(&blank.hash, 0, sizeof blank.hash);
    parts[0] = mhp_hash_bytes(&blank, sizeof blank);
    parts[1] = mhp_hash_bytes(contents->spans, header->span_count * sizeof(mhp_trace_span));
    parts[2] = mhp_hash_bytes(contents->records, header->record_count * sizeof(mhp_record));
    parts[3] = mhp_hash_bytes(contents->names, header->names_bytes);
    return mhp_hash_bytes(parts, sizeof parts);
}

static mhp_trace_header header_of(const mhp_trace *trace)
{
    mhp_trace_header header;

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
    header.kernels = trace->kernels;
    header.record_bytes = sizeof *trace->records.items;
    memcpy(header.no_kernels, trace->no_kernels, sizeof header.no_kernels);
    header.record_count = trace->records.count;
    header.names_bytes = trace->records.names_bytes;
    header.records_lost = trace->records.lost;
    header.records_error_ns = trace->records.clock_error_ns;
    header.identity = trace->identity;
    return header;
}

mhp_status mhp_trace_write(const mhp_trace *trace, const char *path)
{
    mhp_status status = MHP_OK;
    mhp_file *file = NULL;
    mhp_trace_header header = header_of(trace);
    mhp_trace_parts parts = {trace->spans, trace->records.items, trace->records.names};

    header.hash = mhp_trace_hash(&header, &parts);
    MHP_TRY(out, mhp_file_create(path, &file));
    MHP_TRY(out, mhp_file_write(file, &header, sizeof header));
    MHP_TRY(out, mhp_file_write(file, parts.spans, header.span_count * sizeof *trace->spans));
    MHP_TRY(out, mhp_file_write(file, parts.records, header.record_count * sizeof *trace->records.items));
    MHP_TRY(out, mhp_file_write(file, parts.names, header.names_bytes));
    status = mhp_file_finish(file);
    file = NULL;
out:
    mhp_file_abandon(file);
    return status;
}

/* ---- reading ---- */

static size_t size_of(const mhp_trace_header *header)
{
    return sizeof *header + header->span_count * sizeof(mhp_trace_span) + header->record_count * sizeof(mhp_record) +
           header->names_bytes;
}

static mhp_status check_header(const char *path, const mhp_trace_header *header, size_t size)
{
    if (size < sizeof *header || memcmp(header->magic, magic, sizeof magic) != 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is no trace of a profiled run", path);
    }
    if (header->byte_order != BYTE_ORDER_MARK) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s was written on a machine of the other byte order", path);
    }
    if (header->version != TRACE_VERSION || header->header_bytes != sizeof *header ||
        header->span_bytes != sizeof(mhp_trace_span) || header->record_bytes != sizeof(mhp_record)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s is a trace of version %u: expected %d", path, header->version,
                             TRACE_VERSION);
    }
    if (header->span_count > MHP_TRACE_SPANS_MAX || header->record_count > MHP_TRACE_SPANS_MAX ||
        header->names_bytes > MHP_TRACE_NAMES_BYTES_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s has %llu spans and %llu records: expected at most %d", path,
                             (unsigned long long)header->span_count, (unsigned long long)header->record_count,
                             MHP_TRACE_SPANS_MAX);
    }
    if (size != size_of(header)) {
        return mhp_error_set(
            MHP_ERR_FORMAT, "%s has %zu bytes: expected %zu for its %llu spans; it is cut off or was changed", path,
            size, size_of(header), (unsigned long long)header->span_count);
    }
    return MHP_OK;
}

/* Nothing is farther from the first clock reading: 52 days. Sums and differences of such times fit 64 bits, and doubles hold them. */
static const int64_t window_ns = (int64_t)1 << 52;

static bool is_near(int64_t time_ns, int64_t other_ns)
{
    return time_ns >= 0 && other_ns >= 0 && llabs(time_ns - other_ns) <= window_ns;
}

static bool is_clock_right(const mhp_clock_reading *reading)
{
    return reading->local_ns >= 0 && is_near(reading->reference_ns, reading->session_ns) && is_near(reading->error_ns, 0);
}

static bool are_clocks_right(const mhp_clock_reading *before, const mhp_clock_reading *after)
{
    return is_clock_right(before) && is_clock_right(after) && after->local_ns > before->local_ns &&
           after->reference_ns > before->reference_ns && is_near(after->local_ns, before->local_ns) &&
           is_near(after->reference_ns, before->reference_ns);
}

static bool are_steps_right(const mhp_trace_header *header)
{
    return header->first_step >= 0 && header->first_step <= MHP_TRACE_FIRST_STEP_MAX && header->step_count >= 1 &&
           header->step_count <= MHP_TRACE_STEPS_MAX && (uint64_t)header->step_count <= header->span_count;
}

static bool are_numbers_right(const mhp_trace_header *header)
{
    return header->world_size >= 1 && header->world_size <= MHP_RANKS_MAX * MHP_RANKS_MAX && header->rank >= 0 &&
           header->rank < header->world_size && header->pipeline_ranks >= 1 &&
           header->pipeline_ranks <= MHP_RANKS_MAX && header->world_size % header->pipeline_ranks == 0 &&
           header->streams >= 1 && are_steps_right(header) && header->mark_ns >= 0 && header->mark_ns < 1e9 &&
           header->mark_count >= 0 && header->mark_count <= MARKS_MAX && is_near(header->resolve_ns, 0) &&
           are_clocks_right(&header->before, &header->after);
}

static bool is_in_range(const mhp_trace_header *header, const mhp_trace_span *span)
{
    return span->kind < MHP_TRACE_KIND_COUNT && span->pass < MHP_PASS_COUNT && span->cause < MHP_CAUSE_COUNT && span->step >= 0 &&
           span->step < header->step_count && span->action >= -1 && span->stage >= -1 && span->stage < MHP_STAGES_MAX &&
           span->microbatch >= -1 && span->microbatch < MHP_MICROBATCHES_MAX && span->lane >= 0 && span->lane < MHP_LANE_COUNT &&
           span->slot >= -1 && span->peer >= -1 && span->peer < header->world_size && span->bytes >= 0 &&
           span->bytes <= bytes_most && is_near(span->start_ns, header->before.local_ns) &&
           is_near(span->end_ns, header->before.local_ns) && span->end_ns >= span->start_ns;
}

static bool is_of_message(const mhp_trace_span *span)
{
    return span->cause == MHP_CAUSE_STATE || span->cause == MHP_CAUSE_GRADIENT;
}

/* What a kind of span must name, as the recorder's callers do. */
static bool is_span_right(const mhp_trace_header *header, const mhp_trace_span *span)
{
    if (!is_in_range(header, span)) {
        return false;
    }
    switch ((mhp_trace_kind)span->kind) {
    case MHP_TRACE_GROUP:
        return span->part < MHP_PART_COUNT && span->action >= 0 && span->stage >= 0 && span->microbatch >= 0;
    case MHP_TRACE_WAIT: /* for a partner it names nothing */
        return span->slot < 0 || (is_of_message(span) && span->stage >= 0 && span->microbatch >= 0);
    case MHP_TRACE_PHASE:
        return span->part < MHP_TRACE_PHASE_COUNT && span->microbatch < 0;
    case MHP_TRACE_MESSAGE:
        return is_of_message(span) && span->stage >= 0 && span->microbatch >= 0 && span->peer >= 0;
    case MHP_TRACE_COLLECTIVE:
        return !is_of_message(span) && span->microbatch < 0 && span->peer < 0;
    default:
        return span->stage < 0 && span->microbatch < 0;
    }
}

static bool are_kernels_right(const mhp_trace_header *header, const char *names)
{
    bool on = header->kernels == MHP_TRACE_KERNELS_ON;

    return header->kernels >= 0 && header->kernels < MHP_TRACE_KERNELS_COUNT && header->records_lost >= 0 &&
           header->records_lost <= LOST_MAX && is_near(header->records_error_ns, 0) &&
           memchr(header->no_kernels, '\0', sizeof header->no_kernels) &&
           (on ? header->names_bytes > 0 && names[0] == '\0' && names[header->names_bytes - 1] == '\0'
               : header->record_count == 0 && header->names_bytes == 0);
}

/* They go into JSON as they are. */
static bool are_names_right(const char *names, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (names[i] != '\0' && (names[i] < 0x20 || names[i] == 0x7f || names[i] == '"' || names[i] == '\\')) {
            return false;
        }
    }
    return true;
}

static bool is_record_right(const mhp_trace_header *header, const mhp_record *record)
{
    return record->kind < MHP_RECORD_KIND_COUNT && record->lane >= -1 && record->lane < MHP_LANE_COUNT &&
           record->name < header->names_bytes && record->bytes >= 0 && record->bytes <= bytes_most &&
           is_near(record->start_ns, header->before.local_ns) && is_near(record->end_ns, header->before.local_ns) &&
           record->end_ns >= record->start_ns;
}

static mhp_status check_contents(const char *path, const mhp_trace_header *header, const mhp_trace_parts *parts)
{
    const mhp_trace_span *spans = parts->spans;
    const mhp_record *records = parts->records;

    if (!mhp_hash_equal(mhp_trace_hash(header, parts), header->hash)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s was changed: its checksum is another", path);
    }
    if (!are_numbers_right(header) || !are_kernels_right(header, parts->names)) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s has a value out of range in its head", path);
    }
    for (uint64_t i = 0; i < header->span_count; i++) {
        if (!is_span_right(header, &spans[i]) || (i > 0 && spans[i].step < spans[i - 1].step)) {
            return mhp_error_set(MHP_ERR_FORMAT, "%s: span %llu has a value out of range", path, (unsigned long long)i);
        }
    }
    for (uint64_t i = 0; i < header->record_count; i++) {
        if (!is_record_right(header, &records[i]) || (i > 0 && records[i].start_ns < records[i - 1].start_ns)) {
            return mhp_error_set(MHP_ERR_FORMAT, "%s: record %llu has a value out of range", path,
                                 (unsigned long long)i);
        }
    }
    return are_names_right(parts->names, header->names_bytes)
               ? MHP_OK
               : mhp_error_set(MHP_ERR_FORMAT, "%s has a kernel's name that is no text", path);
}

static void take_header(const mhp_trace_header *header, mhp_trace *trace)
{
    trace->rank = header->rank;
    trace->world_size = header->world_size;
    trace->pipeline_ranks = header->pipeline_ranks;
    trace->streams = header->streams;
    trace->device = header->device;
    trace->step_count = header->step_count;
    trace->first_step = header->first_step;
    trace->before = header->before;
    trace->after = header->after;
    trace->mark_ns = header->mark_ns;
    trace->mark_count = header->mark_count;
    trace->resolve_ns = header->resolve_ns;
    trace->span_count = header->span_count;
    trace->kernels = header->kernels;
    memcpy(trace->no_kernels, header->no_kernels, sizeof trace->no_kernels);
    trace->records.count = header->record_count;
    trace->records.names_bytes = header->names_bytes;
    trace->records.lost = header->records_lost;
    trace->records.clock_error_ns = header->records_error_ns;
    trace->identity = header->identity;
}

static mhp_status copy_part(const char **from, size_t bytes, void *to_out)
{
    void **to = to_out;

    MHP_RETURN_IF_ERROR(mhp_calloc(to, bytes > 0 ? bytes : 1, 1));
    memcpy(*to, *from, bytes);
    *from += bytes;
    return MHP_OK;
}

static mhp_status take_parts(const mhp_trace_header *header, const char *at, mhp_trace *trace)
{
    MHP_RETURN_IF_ERROR(copy_part(&at, header->span_count * sizeof *trace->spans, &trace->spans));
    MHP_RETURN_IF_ERROR(copy_part(&at, header->record_count * sizeof *trace->records.items, &trace->records.items));
    return copy_part(&at, header->names_bytes, &trace->records.names);
}

static mhp_status read_header(const char *path, const void *data, size_t size, mhp_trace_header *header)
{
    memset(header, 0, sizeof *header);
    memcpy(header, data, size < sizeof *header ? size : sizeof *header);
    return check_header(path, header, size);
}

mhp_status mhp_trace_parse(const char *path, const void *data, size_t size, mhp_trace *trace_out)
{
    mhp_trace_header header;
    mhp_trace_parts parts;

    *trace_out = (mhp_trace){0};
    MHP_RETURN_IF_ERROR(read_header(path, data, size, &header));
    MHP_RETURN_IF_ERROR(take_parts(&header, (const char *)data + sizeof header, trace_out));
    parts = (mhp_trace_parts){trace_out->spans, trace_out->records.items, trace_out->records.names};
    MHP_RETURN_IF_ERROR(check_contents(path, &header, &parts));
    take_header(&header, trace_out);
    return MHP_OK;
}

mhp_status mhp_trace_read(const char *path, mhp_trace *trace_out)
{
    mhp_map file = {0};
    mhp_status status;

    *trace_out = (mhp_trace){0};
    MHP_TRY(out, mhp_map_file(path, &file));
    MHP_TRY(out, mhp_trace_parse(path, file.data, file.size, trace_out));
out:
    mhp_unmap(&file);
    return status;
}

mhp_status mhp_trace_read_head(const char *path, mhp_trace *trace_out)
{
    mhp_map file = {0};
    mhp_trace_header header;
    mhp_status status;

    *trace_out = (mhp_trace){0};
    MHP_TRY(out, mhp_map_file(path, &file));
    MHP_TRY(out, read_header(path, file.data, file.size, &header));
    if (!are_numbers_right(&header)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s has a value out of range in its head", path);
    }
    take_header(&header, trace_out);
    trace_out->span_count = trace_out->records.count = trace_out->records.names_bytes = 0;
out:
    mhp_unmap(&file);
    return status;
}

void mhp_trace_release(mhp_trace *trace)
{
    mhp_free(trace->spans);
    mhp_free(trace->records.items);
    mhp_free(trace->records.names);
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
           a->after.session_ns == b->after.session_ns && mhp_hash_equal(a->identity, b->identity);
}

mhp_status mhp_trace_set_add(mhp_trace_set *set, const char *path, const mhp_trace *trace)
{
    if (trace->rank != set->count || !are_of_one_run(trace, set->count > 0 ? &set->ranks[0] : trace)) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s is of another run, or of another rank, than " FILE_START "0000" FILE_END " beside it", path);
    }
    set->ranks[set->count++] = *trace;
    return MHP_OK;
}

static mhp_status read_rank(const char *folder, int rank, mhp_trace_set *set)
{
    mhp_status status = MHP_OK;
    mhp_trace trace = {0};
    char *path = NULL;

    MHP_TRY(out, mhp_trace_path(folder, rank, &path));
    MHP_TRY(out, mhp_trace_read(path, &trace));
    MHP_TRY(out, mhp_trace_set_add(set, path, &trace));
    trace = (mhp_trace){0};
out:
    mhp_trace_release(&trace);
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
