/* The recorded steps in Chrome's trace event format: a process a rank, a thread a stream. Complete events ("X") of one
 * thread nest or stand apart; flows ("s", "f") join the two ends of a message; counters ("C") show filled slots and
 * planned memory. The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "runtime/profile/report.h"
#include "scheduler/draw.h"

enum { STEP_THREAD = 0, COMPUTE_THREAD = 1, FIRST_TRACK = COMPUTE_THREAD + MHP_LANE_COUNT };     /* a thread for each lane */

/* CUDA streams by the card's records, behind all tracks: a thread each. */
enum { FIRST_CARD_STREAM = 1 << 20, CARD_STREAMS_MAX = 256 };

/* The messages of one channel end, or the collectives of one kind and stage. */
typedef struct track {
    mhp_trace_cause cause;
    int stage, peer;
    bool sends;
} track;

typedef struct writer {
    const mhp_profile_report *report;
    FILE *stream;
    const mhp_step_analysis *step;
    int64_t shift_ns; /* of the step's time 0 */
    track *tracks;    /* of the rank at hand */
    int track_count;
    size_t track_capacity;
    int64_t next_flow;
    bool begun;
} writer;

/* 31 years at most: clocks that were read wrong may say anything. */
static int64_t whole_ns(double us)
{
    static const double most_ns = 1e18;

    return llround(fmax(-most_ns, fmin(1e3 * us, most_ns)));
}

static int64_t time_ns(const writer *w, double us)
{
    return w->shift_ns + whole_ns(us);
}

/* Microseconds with three digits: a nanosecond is never lost, so neighbours never overlap. */
static void write_us(const writer *w, const char *name, int64_t ns)
{
    uint64_t amount = ns < 0 ? -(uint64_t)ns : (uint64_t)ns; /* a card's first mark may stand before the step */

    fprintf(w->stream, ",\"%s\":%s%" PRIu64 ".%03" PRIu64, name, ns < 0 ? "-" : "", amount / 1000, amount % 1000);
}

static void begin_event(writer *w, const char *phase, int rank, int thread)
{
    fprintf(w->stream, "%s{\"ph\":\"%s\",\"pid\":%d,\"tid\":%d", w->begun ? ",\n" : "", phase, rank, thread);
    w->begun = true;
}

static void write_name(writer *w, const char *what, int rank, int thread, const char *name)
{
    begin_event(w, "M", rank, thread);
    fprintf(w->stream, ",\"name\":\"%s\",\"args\":{\"name\":\"%s\"}}", what, name);
}

/* An event from start to end; the caller adds arguments and the two closing braces. */
static void begin_complete(writer *w, int rank, int thread, const char *category, const char *name, double start_us,
                           double end_us)
{
    begin_event(w, "X", rank, thread);
    fprintf(w->stream, ",\"cat\":\"%s\",\"name\":\"%s\"", category, name);
    write_us(w, "ts", time_ns(w, start_us));
    write_us(w, "dur", time_ns(w, end_us) - time_ns(w, start_us));
    fprintf(w->stream, ",\"args\":{\"step\":%lld", (long long)w->step->step + 1);
}

/* ---- the lanes ---- */

/* Then these are the kernels, and groups a name for some of them. */
static bool has_records(const writer *w, int rank)
{
    return w->report->analysis->set->ranks[rank].kernels == MHP_TRACE_KERNELS_ON;
}

static void write_group(writer *w, int rank, const mhp_timed_span *timed)
{
    const mhp_trace_span *span = timed->span;
    char name[MHP_GROUP_TEXT_MAX];

    mhp_group_format((mhp_pass)span->pass, (mhp_step_part)span->part, name);
    begin_complete(w, rank, COMPUTE_THREAD + span->lane, has_records(w, rank) ? "gpu_user_annotation" : "kernel", name,
                   timed->start_us, timed->end_us);
    fprintf(w->stream, ",\"stage\":%d,\"microbatch\":%d,\"n\":%d,\"stream\":%d,\"device\":%d}}", span->stage,
            span->microbatch, w->report->analysis->set->ranks[rank].streams, COMPUTE_THREAD + span->lane, rank);
}

static bool is_compute_group(const mhp_timed_span *timed)
{
    return timed->span->kind == MHP_TRACE_GROUP && timed->span->lane == MHP_LANE_COMPUTE;
}

/* The groups of an action lie in it. */
static size_t write_action(writer *w, int rank, size_t first)
{
    const mhp_timed_rank *timed = &w->step->timeline.ranks[rank];
    int action = timed->spans[first].span->action;
    size_t last = first, end;
    char name[64];

    for (end = first; end < timed->span_count && timed->spans[end].span->action == action; end++) {
        last = is_compute_group(&timed->spans[end]) ? end : last;
    }
    mhp_action_format(&w->report->plan->ranks[rank % w->report->plan->rank_count].actions.items[action], name,
                      sizeof name);
    begin_complete(w, rank, COMPUTE_THREAD, "action", name, timed->spans[first].start_us, timed->spans[last].end_us);
    fprintf(w->stream, ",\"position\":%d}}", action);
    for (size_t i = first; i <= last; i++) {
        if (is_compute_group(&timed->spans[i])) {
            write_group(w, rank, &timed->spans[i]);
        }
    }
    return last + 1;
}

static void write_phase(writer *w, int rank, const mhp_timed_span *timed)
{
    begin_complete(w, rank, COMPUTE_THREAD, "phase", mhp_trace_phase_text((mhp_trace_phase)timed->span->part),
                   timed->start_us, timed->end_us);
    fprintf(w->stream, ",\"stage\":%d}}", timed->span->stage);
}

static void write_compute(writer *w, int rank)
{
    static const char *const words[MHP_IDLE_KIND_COUNT] = {"exposed", "bubble", "other"};
    const mhp_timed_rank *timed = &w->step->timeline.ranks[rank];

    begin_complete(w, rank, STEP_THREAD, "step", "step", timed->begin_us, timed->end_us);
    fprintf(w->stream, "}}");
    for (size_t i = 0; i < timed->span_count;) {
        if (is_compute_group(&timed->spans[i])) {
            i = write_action(w, rank, i);
            continue;
        }
        if (timed->spans[i].span->kind == MHP_TRACE_PHASE) {
            write_phase(w, rank, &timed->spans[i]);
        }
        i++;
    }
    for (size_t i = 0; i < timed->beside_count; i++) {
        write_group(w, rank, &timed->beside[i]);
    }
    for (size_t i = 0; i < w->step->idle_count[rank]; i++) {
        const mhp_idle *idle = &w->step->idle[rank][i];

        begin_complete(w, rank, COMPUTE_THREAD, "wait", words[idle->kind], idle->start_us, idle->end_us);
        fprintf(w->stream, ",\"for\":\"%s\"}}",
                idle->transfer >= 0 ? mhp_trace_cause_text(w->step->timeline.transfers[idle->transfer].cause)
                                    : "nothing");
    }
}

/* ---- messages ---- */

static bool is_message(const mhp_transfer *transfer)
{
    return transfer->cause == MHP_CAUSE_STATE || transfer->cause == MHP_CAUSE_GRADIENT;
}

static mhp_status name_track(writer *w, int rank, const track *one)
{
    char name[96];

    if (one->stage < 0) {
        snprintf(name, sizeof name, "%s", mhp_trace_cause_text(one->cause));
    } else if (one->peer < 0) {
        snprintf(name, sizeof name, "%s of stage %d", mhp_trace_cause_text(one->cause), one->stage);
    } else {
        snprintf(name, sizeof name, "%s %s of stage %d %s rank %d", one->sends ? "send" : "receive",
                 mhp_trace_cause_text(one->cause), one->stage, one->sends ? "to" : "from", one->peer);
    }
    write_name(w, "thread_name", rank, FIRST_TRACK + w->track_count, name);
    if ((size_t)w->track_count == w->track_capacity) {
        w->track_capacity = w->track_capacity ? 2 * w->track_capacity : 32;
        MHP_RETURN_IF_ERROR(mhp_realloc(&w->tracks, w->track_capacity, sizeof *w->tracks));
    }
    w->tracks[w->track_count++] = *one;
    return MHP_OK;
}

/* The thread on which a transfer stands at one of its ends. */
static mhp_status find_track(writer *w, int rank, const mhp_transfer *transfer, bool sends, int *thread_out)
{
    track wanted = {transfer->cause, transfer->stage,
                    is_message(transfer) ? (sends ? transfer->target : transfer->source) : -1, sends};

    for (int i = 0; i < w->track_count; i++) {
        const track *one = &w->tracks[i];

        if (one->cause == wanted.cause && one->stage == wanted.stage && one->peer == wanted.peer &&
            one->sends == wanted.sends) {
            *thread_out = FIRST_TRACK + i;
            return MHP_OK;
        }
    }
    *thread_out = FIRST_TRACK + w->track_count;
    return name_track(w, rank, &wanted);
}

static void write_flow(writer *w, const char *phase, int rank, int thread, int64_t id, double us)
{
    begin_event(w, phase, rank, thread);
    fprintf(w->stream, ",\"cat\":\"message\",\"name\":\"message\",\"id\":%" PRId64, id);
    write_us(w, "ts", time_ns(w, us));
    fprintf(w->stream, "%s}", phase[0] == 'f' ? ",\"bp\":\"e\"" : "");
}

static mhp_status write_end(writer *w, int rank, size_t index, bool sends)
{
    const mhp_transfer *transfer = &w->step->timeline.transfers[index];
    int thread;

    MHP_RETURN_IF_ERROR(find_track(w, rank, transfer, sends, &thread));
    begin_complete(w, rank, thread, "transfer", mhp_trace_cause_text(transfer->cause), transfer->start_us,
                   transfer->arrived_us);
    fprintf(w->stream, ",\"stage\":%d,\"microbatch\":%d,\"bytes\":%lld,\"n\":%d,\"stream\":%d,\"device\":%d}}",
            transfer->stage, transfer->microbatch, (long long)transfer->bytes,
            w->report->analysis->set->ranks[rank].streams, thread, rank);
    if (is_message(transfer)) {
        write_flow(w, sends ? "s" : "f", rank, thread, w->next_flow + (int64_t)index,
                   sends ? transfer->start_us : transfer->arrived_us);
    }
    return MHP_OK;
}

static mhp_status write_transfers(writer *w, int rank)
{
    for (size_t i = 0; i < w->step->timeline.transfer_count; i++) {
        const mhp_transfer *transfer = &w->step->timeline.transfers[i];

        if (is_message(transfer) && transfer->source == rank) {
            MHP_RETURN_IF_ERROR(write_end(w, rank, i, true));
        }
        if (transfer->target == rank) {
            MHP_RETURN_IF_ERROR(write_end(w, rank, i, false));
        }
    }
    return MHP_OK;
}

/* ---- counters ---- */

typedef struct change {
    double time_us;
    int by;
} change;

static int compare_changes(const void *left, const void *right)
{
    const change *a = left, *b = right;

    return a->time_us != b->time_us ? (a->time_us > b->time_us) - (a->time_us < b->time_us) : a->by - b->by;
}

static void write_counter(writer *w, int rank, const char *name, const char *unit, double time_us, double value)
{
    begin_event(w, "C", rank, 0);
    fprintf(w->stream, ",\"name\":\"%s\"", name);
    write_us(w, "ts", time_ns(w, time_us));
    fprintf(w->stream, ",\"args\":{\"%s\":%.0f}}", unit, value);
}

static size_t released_at(const mhp_plan *plan, int stage, int microbatch)
{
    return (size_t)stage * (size_t)plan->microbatch_count + (size_t)microbatch;
}

/* A message's slot is free when the last group of the pass that reads it last has ended, on whatever lane. */
static void note_released(const mhp_plan *plan, const mhp_timed_span *timed, size_t count, double *released_us)
{
    for (size_t i = 0; i < count; i++) {
        const mhp_trace_span *span = timed[i].span;

        if (span->kind == MHP_TRACE_GROUP && (span->pass == MHP_PASS_INPUT_GRADIENT || plan->forward_only)) {
            double *at = &released_us[released_at(plan, span->stage, span->microbatch)];

            *at = fmax(*at, timed[i].end_us);
        }
    }
}

/* Slots are filled from a message's arrival to the end of the micro-batch's input gradient. */
static mhp_status write_slots(writer *w, int rank)
{
    const mhp_timed_rank *timed = &w->step->timeline.ranks[rank];
    const mhp_plan *plan = w->report->plan;
    size_t most = w->step->timeline.transfer_count, count = 0;
    double *released_us = NULL; /* [stage][microbatch] */
    change *changes = NULL;
    mhp_status status = MHP_OK;
    int filled = 0;

    MHP_TRY(out, mhp_calloc(&released_us, released_at(plan, plan->stage_count, 0), sizeof *released_us));
    MHP_TRY(out, mhp_calloc(&changes, 2 * most, sizeof *changes));
    note_released(plan, timed->spans, timed->span_count, released_us);
    note_released(plan, timed->beside, timed->beside_count, released_us);
    for (size_t i = 0; i < most; i++) {
        const mhp_transfer *transfer = &w->step->timeline.transfers[i];

        if (is_message(transfer) && transfer->target == rank) {
            changes[count++] = (change){transfer->arrived_us, 1};
            changes[count++] = (change){released_us[released_at(plan, transfer->stage, transfer->microbatch)], -1};
        }
    }
    qsort(changes, count, sizeof *changes, compare_changes);
    for (size_t i = 0; i < count; i++) {
        filled += changes[i].by;
        write_counter(w, rank, "filled message slots", "slots", changes[i].time_us, filled);
    }
out:
    mhp_free(released_us);
    mhp_free(changes);
    return status;
}

static mhp_status write_memory(writer *w)
{
    mhp_status status = MHP_OK;
    mhp_simulation measured = {0};
    mhp_drawing drawing = {0};
    mhp_draw_params params = {
        .plan = w->report->plan, .costs = &w->report->measured.costs, .simulation = &measured, .time_unit = "us"};
    double begin_us = mhp_measured_begin_us(w->step);

    MHP_TRY(out, mhp_profile_report_step(w->report, w->step, &measured));
    MHP_TRY(out, mhp_draw(&params, &drawing));
    for (int rank = 0; rank < drawing.rank_count; rank++) {
        for (size_t i = 0; i < drawing.curves[rank].count; i++) {
            const mhp_draw_point *point = &drawing.curves[rank].points[i];

            write_counter(w, rank, drawing.curve_is_bytes ? "planned memory" : "activations",
                          drawing.curve_is_bytes ? "bytes" : "count", begin_us + point->time_us, point->value);
        }
    }
out:
    mhp_drawing_release(&drawing);
    mhp_simulation_release(&measured);
    return status;
}

/* ---- the card's own records ---- */

typedef struct card_stream {
    uint32_t number;
    int64_t end_ns; /* of what was written last: the next one of the stream may begin a little before, and must not here */
} card_stream;

typedef struct card_streams {
    card_stream items[CARD_STREAMS_MAX];
    int count;
} card_streams;

/* The stream's index, CARD_STREAMS_MAX if there are too many. */
static int find_card_stream(writer *w, int rank, const mhp_record *record, card_streams *streams)
{
    char name[64];

    for (int i = 0; i < streams->count; i++) {
        if (streams->items[i].number == record->stream) {
            return i;
        }
    }
    if (streams->count < CARD_STREAMS_MAX) {
        snprintf(name, sizeof name, "CUDA stream %u%s%s", record->stream, record->lane >= 0 ? ": " : "",
                 record->lane >= 0 ? mhp_lane_text((mhp_lane)record->lane) : "");
        write_name(w, "thread_name", rank, FIRST_CARD_STREAM + streams->count, name);
        streams->items[streams->count] = (card_stream){record->stream, INT64_MIN};
        return streams->count++;
    }
    return CARD_STREAMS_MAX;
}

static void write_record(writer *w, int rank, int stream, const mhp_record *record, int64_t start_ns, int64_t end_ns)
{
    static const char *const words[MHP_RECORD_KIND_COUNT] = {NULL, "clock", "memset", "copy to or from the host", "copy"};
    const char *name = w->report->analysis->set->ranks[rank].records.names + record->name;

    begin_event(w, "X", rank, FIRST_CARD_STREAM + stream);
    fprintf(w->stream, ",\"cat\":\"%s\",\"name\":\"%s\"", record->kind == MHP_RECORD_KERNEL ? "kernel" : "gpu_memcpy",
            words[record->kind] ? words[record->kind] : name[0] ? name : "kernel");
    write_us(w, "ts", start_ns);
    write_us(w, "dur", end_ns - start_ns);
    fprintf(w->stream, ",\"args\":{\"step\":%lld,\"stream\":%u,\"device\":%d,\"bytes\":%lld}}",
            (long long)w->step->step + 1, record->stream, rank, (long long)record->bytes);
}

/* Those that begin in the step. */
static void write_records(writer *w, int rank, card_streams *streams)
{
    const mhp_analysis *analysis = w->report->analysis;
    const mhp_record_list *records = &analysis->set->ranks[rank].records;
    const mhp_timeline *timeline = &w->step->timeline;

    for (size_t i = 0; i < records->count; i++) {
        const mhp_record *record = &records->items[i];
        double start_us = mhp_timeline_us(analysis->set, &analysis->clocks, timeline, rank, record->start_ns);
        double end_us = mhp_timeline_us(analysis->set, &analysis->clocks, timeline, rank, record->end_ns);
        int64_t start_ns = time_ns(w, start_us), end_ns = time_ns(w, end_us);
        int stream;

        if (start_us < timeline->ranks[rank].begin_us || start_us >= timeline->ranks[rank].end_us) {
            continue;
        }
        stream = find_card_stream(w, rank, record, streams);
        if (stream < CARD_STREAMS_MAX) {
            start_ns = start_ns > streams->items[stream].end_ns ? start_ns : streams->items[stream].end_ns;
            end_ns = end_ns > start_ns ? end_ns : start_ns;
            streams->items[stream].end_ns = end_ns;
            write_record(w, rank, stream, record, start_ns, end_ns);
        }
    }
}

/* ---- the whole ---- */

static void choose_step(writer *w, int index)
{
    const mhp_step_analysis *steps = w->report->analysis->steps;

    w->step = &steps[index];
    w->shift_ns = whole_ns(steps[index].timeline.origin_us - steps[0].timeline.origin_us);
    w->next_flow += index > 0 ? (int64_t)steps[index - 1].timeline.transfer_count : 1;
}

/* Of those that anything ran on. */
static void write_lane_names(writer *w, int rank)
{
    const mhp_timed_rank *timed = &w->report->analysis->steps[0].timeline.ranks[rank];
    bool used[MHP_LANE_COUNT] = {true};

    for (size_t i = 0; i < timed->beside_count; i++) {
        used[timed->beside[i].span->lane] = true;
    }
    for (int lane = 0; lane < MHP_LANE_COUNT; lane++) {
        if (used[lane]) {
            write_name(w, "thread_name", rank, COMPUTE_THREAD + lane, mhp_lane_text((mhp_lane)lane));
        }
    }
}

static mhp_status write_rank(writer *w, int rank)
{
    card_streams streams = {.count = 0};
    char name[32];

    snprintf(name, sizeof name, "rank %d", rank);
    write_name(w, "process_name", rank, 0, name);
    write_name(w, "thread_name", rank, STEP_THREAD, "steps");
    write_lane_names(w, rank);
    w->track_count = 0;
    w->next_flow = 0;
    for (int i = 0; i < w->report->analysis->step_count; i++) {
        choose_step(w, i);
        write_compute(w, rank);
        MHP_RETURN_IF_ERROR(write_transfers(w, rank));
        MHP_RETURN_IF_ERROR(write_slots(w, rank));
        write_records(w, rank, &streams);
    }
    return MHP_OK;
}

mhp_status mhp_profile_report_trace(const mhp_profile_report *report, FILE *stream)
{
    mhp_status status = MHP_OK;
    writer w = {.report = report, .stream = stream};

    fprintf(stream, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    for (int rank = 0; rank < report->analysis->rank_count; rank++) {
        MHP_TRY(out, write_rank(&w, rank));
    }
    for (int i = 0; i < report->analysis->step_count; i++) {
        choose_step(&w, i);
        MHP_TRY(out, write_memory(&w));
    }
    fprintf(stream, "\n]}\n");
    if (ferror(stream)) {
        status = mhp_error_set(MHP_ERR_IO, "cannot write the trace: %s", strerror(errno));
    }
out:
    mhp_free(w.tracks);
    return status;
}
