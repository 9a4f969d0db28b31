#include "runtime/profile/recorder.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/range.h"
#include "runtime/profile/identity.h"

/* A card runs streams side by side over CUDA_DEVICE_MAX_CONNECTIONS = 32 connections, and streams that share one may
 * block each other: watches beyond these wait on the comm thread instead, which sees an event up to 0.2 ms late. */
enum { CARD_STREAMS_MAX = 12, TRIAL_MARKS = 256 };

/* Room for a card's records. A mark ends one step of a cursor, of which the longest run about twenty kernels, or a phase of
 * some hundreds: what is around the plan has room of its own. What is too much is counted. */
enum { RECORDS_A_MARK = 32, RECORDS_A_TRANSFER = 8, RECORDS_A_STEP = 16384 };

/* A moment on a stream. */
typedef struct stamp {
    uint64_t time_ns; /* where the host reads the clock in stream order */
    mhp_event *event; /* where a card does */
} stamp;

typedef struct mark {
    mhp_trace_span what;
    stamp end;
} mark;

typedef struct watched_stream {
    mhp_stream *stream;
    bool on_card;
} watched_stream;

typedef struct transfer {
    mhp_trace_span what;
    mhp_event *after, *done;
    uint64_t submitted_ns;
    bool asked;             /* on a CPU: the compute stream will read its events */
    const mhp_watch *watch; /* on a card */
    stamp start, end;
} transfer;

struct mhp_watch {
    watched_stream start, end;
    mhp_watch *next;
};

struct mhp_recorder {
    mhp_recorder_params params;
    mhp_device *device;
    bool on_card;
    char *directory, *folder; /* the run's, and the traces' in it */
    mhp_watch *watches;
    int card_streams;
    mark *marks; /* of a step */
    transfer *transfers;
    size_t mark_count, mark_capacity, transfer_count, transfer_capacity;
    size_t first_pending;   /* no transfer before it waits to be read */
    mhp_event *gate;        /* holds the compute stream back */
    stamp base;        /* where the first mark's span begins */
    uint64_t start_ns; /* of the step */
    int32_t action;
    bool active, paused, begun, finished;
    int64_t first_step; /* recorded; known once begun, as is the trace's step_count */
    int steps_done;
    mhp_records *records; /* of the card's kernels; NULL: none */
    mhp_trace trace;
};

static mhp_stream *compute_of(const mhp_recorder *recorder)
{
    return recorder->params.lanes->stream[MHP_LANE_COMPUTE];
}

/* ---- stamps ---- */

static mhp_status read_clock(void *native, const void *argument)
{
    stamp *const *at = argument;

    (void)native;
    (*at)->time_ns = mhp_time_ns();
    return MHP_OK;
}

static mhp_status submit_stamp(mhp_stream *stream, bool on_card, stamp *at)
{
    return on_card ? mhp_event_mark(at->event, stream) : mhp_stream_host_call(stream, read_clock, &at, sizeof at);
}

/* When `event`, as it stands now, is complete, seen by a stream beside. A card's events may not be asked on the comm
 * thread: there the clock must do. */
static mhp_status submit_watch(const watched_stream *watched, stamp *at, mhp_event *event)
{
    MHP_RETURN_IF_ERROR(mhp_stream_wait(watched->stream, event));
    return submit_stamp(watched->stream, watched->on_card, at);
}

static int64_t stamp_ns(const stamp *at, bool on_card)
{
    return (int64_t)(on_card ? mhp_event_time_ns(at->event) : at->time_ns);
}

static mhp_status create_stamp(const mhp_recorder *recorder, stamp *at)
{
    return recorder->on_card ? mhp_event_create(recorder->device, &at->event) : MHP_OK;
}

/* ---- before the first step ---- */

mhp_status mhp_recorder_create(const mhp_recorder_params *params, mhp_recorder **recorder_out)
{
    mhp_status status = MHP_OK;
    mhp_recorder *recorder = NULL;

    MHP_TRY(out, mhp_calloc(&recorder, 1, sizeof *recorder));
    recorder->params = *params;
    recorder->device = mhp_comm_device(params->comm);
    recorder->on_card = mhp_device_get_kind(recorder->device) == MHP_DEVICE_CUDA;
    recorder->action = -1;
    MHP_TRY(out, mhp_strdup(&recorder->directory, params->directory));
    MHP_TRY(out, mhp_asprintf(&recorder->folder, "%s/profile", params->directory));
    recorder->trace.rank = mhp_comm_rank(params->comm);
    recorder->trace.world_size = mhp_comm_size(params->comm);
    recorder->trace.pipeline_ranks = params->pipeline_ranks;
    recorder->trace.streams = params->streams;
    recorder->trace.identity = params->identity;
    recorder->trace.device = (int)mhp_device_get_kind(recorder->device);
    *recorder_out = recorder;
    recorder = NULL;
out:
    mhp_recorder_destroy(recorder);
    return status;
}

/* A step that was not ended failed: messages may never come that watches wait for. */
static void destroy_watches(mhp_recorder *recorder)
{
    if ((recorder->active || recorder->paused) && recorder->watches) {
        mhp_device_poison(recorder->device, MHP_ERR_DEVICE);
    }
    while (recorder->watches) {
        mhp_watch *watch = recorder->watches;

        recorder->watches = watch->next;
        mhp_stream_destroy(watch->end.stream);
        mhp_stream_destroy(watch->start.stream);
        mhp_free(watch);
    }
}

void mhp_recorder_destroy(mhp_recorder *recorder)
{
    if (!recorder) {
        return;
    }
    destroy_watches(recorder);
    mhp_records_close(recorder->records);
    for (size_t i = 0; recorder->on_card && recorder->marks && i < recorder->mark_capacity; i++) {
        mhp_event_destroy(recorder->marks[i].end.event);
    }
    for (size_t i = 0; recorder->on_card && recorder->transfers && i < recorder->transfer_capacity; i++) {
        mhp_event_destroy(recorder->transfers[i].start.event);
        mhp_event_destroy(recorder->transfers[i].end.event);
    }
    mhp_event_destroy(recorder->base.event);
    mhp_event_destroy(recorder->gate);
    recorder->trace.records = (mhp_record_list){0}; /* the closed records' */
    mhp_trace_release(&recorder->trace);
    mhp_free(recorder->marks);
    mhp_free(recorder->transfers);
    mhp_free(recorder->folder);
    mhp_free(recorder->directory);
    mhp_free(recorder);
}

void mhp_recorder_reserve(mhp_recorder *recorder, size_t spans, size_t transfers)
{
    if (recorder) {
        recorder->mark_capacity += spans;
        recorder->transfer_capacity += transfers;
    }
}

static mhp_status create_watched(mhp_recorder *recorder, const char *name, watched_stream *watched)
{
    watched->on_card = recorder->on_card && recorder->card_streams < CARD_STREAMS_MAX;
    recorder->card_streams += watched->on_card;
    return mhp_stream_create(recorder->device, watched->on_card ? MHP_STREAM_COPY : MHP_STREAM_COMM, MHP_PRIORITY_HIGH,
                             name, &watched->stream);
}

mhp_status mhp_recorder_add_watch(mhp_recorder *recorder, const char *name, mhp_watch **watch_out)
{
    mhp_watch *watch = NULL;

    *watch_out = NULL;
    if (!recorder || !recorder->on_card) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&watch, 1, sizeof *watch));
    watch->next = recorder->watches;
    recorder->watches = watch;
    *watch_out = watch;
    MHP_RETURN_IF_ERROR(create_watched(recorder, name, &watch->start));
    return create_watched(recorder, name, &watch->end);
}

static int compare_gaps(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

/* The time from one mark to the next where nothing is between them and all are there already: the mean of the middle half,
 * for threads that share a core with others are held up now and then. */
static mhp_status measure_mark(mhp_recorder *recorder)
{
    size_t count = recorder->mark_capacity < TRIAL_MARKS ? recorder->mark_capacity : TRIAL_MARKS;
    int64_t gaps_ns[TRIAL_MARKS], sum_ns = 0;
    size_t first = (count - 1) / 4, end = count - 1 - first;

    MHP_RETURN_IF_ERROR(mhp_event_arm(recorder->gate));
    MHP_RETURN_IF_ERROR(mhp_stream_wait(compute_of(recorder), recorder->gate));
    for (size_t i = 0; i < count; i++) {
        MHP_RETURN_IF_ERROR(submit_stamp(compute_of(recorder), recorder->on_card, &recorder->marks[i].end));
    }
    mhp_event_signal(recorder->gate, MHP_OK);
    MHP_RETURN_IF_ERROR(mhp_stream_synchronize(compute_of(recorder)));
    for (size_t i = 0; i + 1 < count; i++) {
        gaps_ns[i] = stamp_ns(&recorder->marks[i + 1].end, recorder->on_card) -
                     stamp_ns(&recorder->marks[i].end, recorder->on_card);
    }
    qsort(gaps_ns, count - 1, sizeof *gaps_ns, compare_gaps);
    for (size_t i = first; i < end; i++) {
        sum_ns += gaps_ns[i];
    }
    recorder->trace.mark_ns = (double)sum_ns / (double)(end - first);
    return MHP_OK;
}

/* A run goes on without them. */
static void leave_kernels(mhp_recorder *recorder)
{
    snprintf(recorder->trace.no_kernels, sizeof recorder->trace.no_kernels, "%s", mhp_error_text());
    mhp_records_close(recorder->records);
    recorder->records = NULL;
    recorder->trace.records = (mhp_record_list){0};
    recorder->trace.kernels = MHP_TRACE_KERNELS_OFF;
    mhp_log_warn("profile.kernels: rank %d records no kernels: %s", recorder->trace.rank, recorder->trace.no_kernels);
}

static void open_kernels(mhp_recorder *recorder)
{
    size_t capacity = (recorder->mark_capacity * RECORDS_A_MARK + recorder->transfer_capacity * RECORDS_A_TRANSFER +
                       RECORDS_A_STEP) * (size_t)recorder->params.profile->steps;

    if (!recorder->params.profile->kernels) {
        return;
    }
    capacity = capacity < MHP_TRACE_SPANS_MAX ? capacity : MHP_TRACE_SPANS_MAX;
    if (mhp_records_open(recorder->device, capacity, &recorder->records) < 0) {
        leave_kernels(recorder);
    }
}

mhp_status mhp_recorder_ready(mhp_recorder *recorder)
{
    size_t spans;

    if (!recorder) {
        return MHP_OK;
    }
    spans = (recorder->mark_capacity + recorder->transfer_capacity + 1) * (size_t)recorder->params.profile->steps;
    if (spans > MHP_TRACE_SPANS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT,
                             "profile.steps is %lld, of %zu spans each: expected at most %d spans in all",
                             (long long)recorder->params.profile->steps,
                             spans / (size_t)recorder->params.profile->steps, MHP_TRACE_SPANS_MAX);
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&recorder->trace.spans, spans, sizeof *recorder->trace.spans));
    MHP_RETURN_IF_ERROR(mhp_calloc(&recorder->marks, recorder->mark_capacity, sizeof *recorder->marks));
    MHP_RETURN_IF_ERROR(mhp_calloc(&recorder->transfers, recorder->transfer_capacity, sizeof *recorder->transfers));
    MHP_RETURN_IF_ERROR(create_stamp(recorder, &recorder->base));
    MHP_RETURN_IF_ERROR(mhp_event_create(recorder->device, &recorder->gate));
    for (size_t i = 0; i < recorder->mark_capacity; i++) {
        MHP_RETURN_IF_ERROR(create_stamp(recorder, &recorder->marks[i].end));
    }
    for (size_t i = 0; i < recorder->transfer_capacity; i++) {
        MHP_RETURN_IF_ERROR(create_stamp(recorder, &recorder->transfers[i].start));
        MHP_RETURN_IF_ERROR(create_stamp(recorder, &recorder->transfers[i].end));
    }
    open_kernels(recorder);
    return measure_mark(recorder);
}

/* ---- around a step ---- */

/* A short run is recorded as far as it goes. */
static void choose_steps(mhp_recorder *recorder, int64_t step)
{
    const mhp_profile_params *profile = recorder->params.profile;
    int64_t left = recorder->params.total_steps - step;
    int64_t count = profile->steps < left ? profile->steps : left;

    recorder->begun = true;
    recorder->first_step = step + (profile->start < left - count ? profile->start : left - count);
    recorder->trace.first_step = recorder->first_step;
    recorder->trace.step_count = (int)count;
}

mhp_status mhp_recorder_begin_step(mhp_recorder *recorder, int64_t step, uint64_t start_ns)
{
    if (!recorder || recorder->finished) {
        return MHP_OK;
    }
    if (!recorder->begun) {
        choose_steps(recorder, step);
    }
    if (step < recorder->first_step) {
        return MHP_OK;
    }
    recorder->start_ns = start_ns;
    if (step == recorder->first_step) {
        if (recorder->records && mhp_records_keep(recorder->records) < 0) {
            leave_kernels(recorder);
        }
        MHP_RETURN_IF_ERROR(mhp_comm_read_clock(recorder->params.comm, &recorder->trace.before));
        recorder->start_ns = mhp_time_ns();
    }
    recorder->mark_count = recorder->transfer_count = recorder->first_pending = 0;
    recorder->active = true;
    return submit_stamp(compute_of(recorder), recorder->on_card, &recorder->base);
}

static mhp_status await_watches(const mhp_recorder *recorder)
{
    for (mhp_watch *watch = recorder->watches; watch; watch = watch->next) {
        MHP_RETURN_IF_ERROR(mhp_stream_synchronize(watch->start.stream));
        MHP_RETURN_IF_ERROR(mhp_stream_synchronize(watch->end.stream));
    }
    return MHP_OK;
}

static void keep(mhp_recorder *recorder, mhp_trace_span what, int64_t start_ns, int64_t end_ns)
{
    what.step = recorder->steps_done;
    what.start_ns = start_ns < end_ns ? start_ns : end_ns;
    what.end_ns = end_ns;
    recorder->trace.spans[recorder->trace.span_count++] = what;
}

static void resolve(mhp_recorder *recorder, uint64_t end_ns)
{
    int64_t last_ns[MHP_LANE_COUNT];
    mhp_trace_span whole = {
        .kind = MHP_TRACE_STEP, .action = -1, .stage = -1, .microbatch = -1, .slot = -1, .peer = -1};

    keep(recorder, whole, (int64_t)recorder->start_ns, (int64_t)end_ns);
    for (int lane = 0; lane < MHP_LANE_COUNT; lane++) {
        last_ns[lane] = stamp_ns(&recorder->base, recorder->on_card);
    }
    recorder->trace.mark_count = recorder->mark_count > (size_t)recorder->trace.mark_count
                                     ? (int64_t)recorder->mark_count
                                     : recorder->trace.mark_count;
    for (size_t i = 0; i < recorder->mark_count; i++) {
        int64_t time_ns = stamp_ns(&recorder->marks[i].end, recorder->on_card);
        int64_t *last = &last_ns[recorder->marks[i].what.lane];

        time_ns = time_ns > *last ? time_ns : *last; /* times of events of a card are rounded */
        keep(recorder, recorder->marks[i].what, *last, time_ns);
        *last = time_ns;
    }
    for (size_t i = 0; i < recorder->transfer_count; i++) {
        const transfer *one = &recorder->transfers[i];

        assert(one->asked || one->watch);
        keep(recorder, one->what, stamp_ns(&one->start, one->watch && one->watch->start.on_card),
             stamp_ns(&one->end, one->watch && one->watch->end.on_card));
    }
}

static void name_lanes(const mhp_record_list *list, int lane, uint32_t stream)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].stream == stream) {
            list->items[i].lane = (int8_t)lane;
        }
    }
}

static mhp_status take_kernels(mhp_recorder *recorder)
{
    mhp_stream *const *lanes = recorder->params.lanes->stream;
    uint32_t numbers[MHP_LANE_COUNT];

    for (int lane = 0; lane < MHP_LANE_COUNT; lane++) {
        if (lanes[lane]) {
            MHP_RETURN_IF_ERROR(mhp_records_stream(recorder->records, lanes[lane], &numbers[lane]));
        }
    }
    MHP_RETURN_IF_ERROR(mhp_records_finish(recorder->records, &recorder->trace.records));
    for (int lane = 0; lane < MHP_LANE_COUNT; lane++) {
        if (lanes[lane]) {
            name_lanes(&recorder->trace.records, lane, numbers[lane]);
        }
    }
    recorder->trace.kernels = MHP_TRACE_KERNELS_ON;
    return MHP_OK;
}

static mhp_status write_trace(mhp_recorder *recorder)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_mkdirs(recorder->folder));
    MHP_TRY(out, mhp_trace_path(recorder->folder, recorder->trace.rank, &path));
    MHP_TRY(out, mhp_trace_write(&recorder->trace, path));
out:
    mhp_free(path);
    return status;
}

/* What an earlier start of the run recorded does not mix with this one. */
static mhp_status finish(mhp_recorder *recorder)
{
    mhp_comm *comm = recorder->params.comm;
    mhp_status status;

    recorder->finished = true;
    MHP_RETURN_IF_ERROR(mhp_comm_read_clock(comm, &recorder->trace.after));
    if (recorder->records && take_kernels(recorder) < 0) {
        leave_kernels(recorder);
    }
    status = recorder->trace.rank == 0 ? mhp_profile_remove(recorder->directory) : MHP_OK;
    MHP_RETURN_IF_ERROR(mhp_comm_agree(comm, status, NULL));
    return mhp_comm_agree(comm, write_trace(recorder), NULL);
}

mhp_status mhp_recorder_end_step(mhp_recorder *recorder)
{
    uint64_t end_ns = mhp_time_ns();

    if (!recorder || !recorder->active) {
        return MHP_OK;
    }
    recorder->active = false;
    MHP_RETURN_IF_ERROR(await_watches(recorder));
    resolve(recorder, end_ns);
    recorder->trace.resolve_ns += (int64_t)(mhp_time_ns() - end_ns);
    recorder->steps_done++;
    return recorder->steps_done == recorder->trace.step_count ? finish(recorder) : MHP_OK;
}

bool mhp_recorder_has_step(const mhp_recorder *recorder, int64_t step)
{
    return recorder && recorder->begun && step >= recorder->first_step && step < recorder->first_step + recorder->trace.step_count;
}

/* ---- inside a step ---- */

void mhp_recorder_pause(mhp_recorder *recorder)
{
    if (recorder) {
        recorder->paused = recorder->active;
        recorder->active = false;
    }
}

void mhp_recorder_resume(mhp_recorder *recorder)
{
    if (recorder) {
        recorder->active = recorder->paused;
        recorder->paused = false;
    }
}

void mhp_recorder_begin_action(mhp_recorder *recorder, size_t position, const mhp_action *action)
{
    char name[64];

    if (!recorder || !recorder->active) {
        return;
    }
    recorder->action = (int32_t)position;
    if (mhp_range_available()) {
        mhp_action_format(action, name, sizeof name);
        mhp_range_push(name);
    }
}

void mhp_recorder_begin_range(mhp_recorder *recorder, const char *name)
{
    if (recorder && recorder->active) {
        mhp_range_push(name);
    }
}

mhp_status mhp_recorder_end_range(mhp_recorder *recorder, mhp_status status)
{
    if (recorder && recorder->active) {
        mhp_range_pop();
    }
    return status;
}

void mhp_recorder_end_action(mhp_recorder *recorder)
{
    if (recorder && recorder->active) {
        recorder->action = -1;
        mhp_range_pop();
    }
}

void mhp_recorder_begin_group(mhp_recorder *recorder, const mhp_cursor *cursor, mhp_step_part part)
{
    char name[MHP_GROUP_TEXT_MAX];

    if (recorder && recorder->active && mhp_range_available()) {
        mhp_group_format(cursor->pass, part, name);
        mhp_range_push(name);
    }
}

void mhp_recorder_end_group(mhp_recorder *recorder)
{
    if (recorder && recorder->active) {
        mhp_range_pop();
    }
}

mhp_status mhp_recorder_mark(mhp_recorder *recorder, mhp_trace_span what)
{
    mark *next;

    if (!recorder || !recorder->active) {
        return MHP_OK;
    }
    assert(recorder->mark_count < recorder->mark_capacity);
    next = &recorder->marks[recorder->mark_count++];
    next->what = what;
    next->what.action = recorder->action;
    return submit_stamp(recorder->params.lanes->stream[what.lane], recorder->on_card, &next->end);
}

mhp_status mhp_recorder_transfer(mhp_recorder *recorder, mhp_watch *watch, mhp_trace_span what, mhp_event *after,
                                 mhp_event *done)
{
    transfer *next;

    if (!recorder || !recorder->active) {
        return MHP_OK;
    }
    assert(recorder->transfer_count < recorder->transfer_capacity);
    next = &recorder->transfers[recorder->transfer_count++];
    next->what = what;
    next->what.action = recorder->action;
    next->after = after;
    next->done = done;
    next->submitted_ns = mhp_time_ns();
    next->asked = false;
    next->watch = watch;
    if (!recorder->on_card) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(submit_watch(&watch->start, &next->start, after));
    return submit_watch(&watch->end, &next->end, done);
}

/* Events keep the time of their last completion. Here `done` has it of this transfer, for it completes again only when its
 * slot is free again, behind what comes now; and so has `after`, 0 if nobody ever had to free the slot. */
static mhp_status read_events(void *native, const void *argument)
{
    transfer *const *arrived = argument;
    uint64_t free_ns = mhp_event_time_ns((*arrived)->after);

    (void)native;
    (*arrived)->start.time_ns = free_ns > (*arrived)->submitted_ns ? free_ns : (*arrived)->submitted_ns;
    (*arrived)->end.time_ns = mhp_event_time_ns((*arrived)->done);
    return MHP_OK;
}

mhp_status mhp_recorder_arrived(mhp_recorder *recorder, const mhp_event *done)
{
    if (!recorder || !recorder->active || recorder->on_card) {
        return MHP_OK;
    }
    while (recorder->first_pending < recorder->transfer_count && recorder->transfers[recorder->first_pending].asked) {
        recorder->first_pending++;
    }
    for (size_t i = recorder->first_pending; i < recorder->transfer_count; i++) {
        transfer *one = &recorder->transfers[i];

        if (one->done == done && !one->asked) {
            one->asked = true;
            return mhp_stream_host_call(compute_of(recorder), read_events, &one, sizeof one);
        }
    }
    return MHP_OK;
}
