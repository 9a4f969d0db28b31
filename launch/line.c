#include "launch/line.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/channel.h"

/* A speed is the best of a few messages, or the first if that took long. */
enum { SMALL_BYTES = 64, LARGE_BYTES = 8 << 20, ROUND_TRIPS = 40, LARGE_MESSAGES = 4, ANSWER_SECONDS = 60 };

static const double long_s = 0.5;

typedef enum order { ORDER_ANSWER, ORDER_TAKE, ORDER_GIVE, ORDER_END } order;

typedef struct note {
    int64_t order;
    int64_t clock_ns;               /* the wall clock's of who answers */
} note;

/* One kind of message, both ways. */
typedef struct pair {
    mhp_channel *out, *in;
    void *sent, *received;          /* device memory */
    mhp_event *done_out, *done_in;
} pair;

typedef struct line {
    mhp_device *device;
    mhp_stream *stream;             /* copies notes where memory is a card's */
    int own, other;
    pair small, large;
} line;

static int64_t wall_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- set-up ---- */

static mhp_status open_pair(mhp_comm *comm, const line *x, size_t bytes, int first_id, pair *pair_out)
{
    char name[64];
    mhp_channel_params out = {.name = name, .id = first_id + (x->own > x->other), .source = x->own, .target = x->other,
                              .slot_bytes = bytes, .slot_count = 1, .slot_stride = bytes};
    mhp_channel_params in = out;

    MHP_RETURN_IF_ERROR(mhp_device_alloc(x->device, bytes, &pair_out->sent));
    MHP_RETURN_IF_ERROR(mhp_device_alloc(x->device, bytes, &pair_out->received));
    MHP_RETURN_IF_ERROR(mhp_event_create(x->device, &pair_out->done_out));
    MHP_RETURN_IF_ERROR(mhp_event_create(x->device, &pair_out->done_in));
    snprintf(name, sizeof name, "check of the line, rank %d to %d", x->own, x->other);
    MHP_RETURN_IF_ERROR(mhp_channel_open(comm, &out, &pair_out->out));
    snprintf(name, sizeof name, "check of the line, rank %d to %d", x->other, x->own);
    in.id = first_id + (x->own < x->other);
    in.source = x->other;
    in.target = x->own;
    in.slots = pair_out->received;
    return mhp_channel_open(comm, &in, &pair_out->in);
}

static void close_pair(const line *x, pair *ends)
{
    mhp_channel_close(ends->in);
    mhp_channel_close(ends->out);
    mhp_event_destroy(ends->done_in);
    mhp_event_destroy(ends->done_out);
    mhp_device_free(x->device, ends->received);
    mhp_device_free(x->device, ends->sent);
}

/* ---- messages ---- */

static mhp_status await(const line *x, mhp_event *event)
{
    mhp_status status = mhp_event_synchronize(event, (uint64_t)ANSWER_SECONDS * 1000000000u);

    if (status == MHP_ERR_TIMEOUT) {
        mhp_error_set(status, "rank %d had no answer from rank %d within %d s", x->own, x->other, ANSWER_SECONDS);
        mhp_device_poison(x->device, status);       /* what was posted would hold up the end */
    }
    return status;
}

static mhp_status copy(const line *x, void *target, const void *source, size_t bytes)
{
    if (mhp_device_is_host_memory(x->device)) {
        memcpy(target, source, bytes);
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_stream_copy(x->stream, target, source, bytes));
    return mhp_stream_synchronize(x->stream);
}

static mhp_status send_note(const line *x, order what)
{
    note sent = {what, wall_clock_ns()};

    MHP_RETURN_IF_ERROR(await(x, x->small.done_out));       /* the one before has left */
    MHP_RETURN_IF_ERROR(copy(x, x->small.sent, &sent, sizeof sent));
    return mhp_channel_send(x->small.out, x->small.sent, 0, NULL, x->small.done_out);
}

static mhp_status receive_note(const line *x, note *note_out)
{
    MHP_RETURN_IF_ERROR(mhp_channel_receive(x->small.in, 0, NULL, x->small.done_in));
    MHP_RETURN_IF_ERROR(await(x, x->small.done_in));
    return copy(x, note_out, x->small.received, sizeof *note_out);
}

static mhp_status send_large(const line *x)
{
    MHP_RETURN_IF_ERROR(mhp_channel_send(x->large.out, x->large.sent, 0, NULL, x->large.done_out));
    return await(x, x->large.done_out);
}

static mhp_status receive_large(const line *x)
{
    MHP_RETURN_IF_ERROR(mhp_channel_receive(x->large.in, 0, NULL, x->large.done_in));
    return await(x, x->large.done_in);
}

/* The peer does as it is told until the end. */
static mhp_status serve(const line *x)
{
    note told;

    for (;;) {
        MHP_RETURN_IF_ERROR(receive_note(x, &told));
        if (told.order == ORDER_END) {
            return MHP_OK;
        }
        if (told.order == ORDER_TAKE) {
            MHP_RETURN_IF_ERROR(receive_large(x));
        }
        if (told.order == ORDER_GIVE) {
            MHP_RETURN_IF_ERROR(send_large(x));
        } else {
            MHP_RETURN_IF_ERROR(send_note(x, ORDER_ANSWER));
        }
    }
}

/* ---- measuring ---- */

static mhp_status measure_round_trips(const line *x, mhp_line_report *report)
{
    uint64_t shortest_ns = UINT64_MAX;

    for (int i = 0; i < ROUND_TRIPS; i++) {
        uint64_t start_ns = mhp_time_ns(), trip_ns;
        int64_t clock_ns = wall_clock_ns();
        note answer;

        MHP_RETURN_IF_ERROR(send_note(x, ORDER_ANSWER));
        MHP_RETURN_IF_ERROR(receive_note(x, &answer));
        trip_ns = mhp_time_ns() - start_ns;
        if (trip_ns < shortest_ns) {
            shortest_ns = trip_ns;
            report->clock_s = (double)(answer.clock_ns - clock_ns - (int64_t)trip_ns / 2) * 1e-9;
        }
    }
    report->latency_s = report->clock_error_s = (double)shortest_ns / 2 * 1e-9;
    return MHP_OK;
}

static mhp_status time_large(const line *x, order what, double *seconds_out)
{
    uint64_t start_ns = mhp_time_ns();
    note answer;

    MHP_RETURN_IF_ERROR(send_note(x, what));
    if (what == ORDER_TAKE) {
        MHP_RETURN_IF_ERROR(send_large(x));
        MHP_RETURN_IF_ERROR(receive_note(x, &answer));
    } else {
        MHP_RETURN_IF_ERROR(receive_large(x));
    }
    *seconds_out = (double)(mhp_time_ns() - start_ns) * 1e-9;
    return MHP_OK;
}

static mhp_status measure_speed(const line *x, order what, double *bytes_per_s_out)
{
    double best_s = 0;

    for (int i = 0; i < LARGE_MESSAGES && best_s < long_s; i++) {
        double seconds;

        MHP_RETURN_IF_ERROR(time_large(x, what, &seconds));
        best_s = i == 0 || seconds < best_s ? seconds : best_s;
    }
    *bytes_per_s_out = LARGE_BYTES / best_s;
    return MHP_OK;
}

static mhp_status measure(const line *x, mhp_line_what what, mhp_line_report *report)
{
    MHP_RETURN_IF_ERROR(measure_round_trips(x, report));
    if (what == MHP_LINE_SPEED) {
        MHP_RETURN_IF_ERROR(measure_speed(x, ORDER_TAKE, &report->there));
        MHP_RETURN_IF_ERROR(measure_speed(x, ORDER_GIVE, &report->back));
    }
    MHP_RETURN_IF_ERROR(send_note(x, ORDER_END));
    return await(x, x->small.done_out);
}

mhp_status mhp_line_measure(mhp_comm *comm, int measuring, int peer, mhp_line_what what, mhp_line_report *report_out)
{
    mhp_status status = MHP_OK;
    bool measures = mhp_comm_rank(comm) == measuring;
    line x = {.device = mhp_comm_device(comm), .own = measures ? measuring : peer, .other = measures ? peer : measuring};

    *report_out = (mhp_line_report){0};
    MHP_TRY(out, mhp_stream_create(x.device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "notes", &x.stream));
    MHP_TRY(out, open_pair(comm, &x, SMALL_BYTES, 0, &x.small));
    MHP_TRY(out, open_pair(comm, &x, LARGE_BYTES, 2, &x.large));
    MHP_TRY(out, measures ? measure(&x, what, report_out) : serve(&x));
out:
    if (mhp_comm_may_release(comm, status)) {
        close_pair(&x, &x.large);
        close_pair(&x, &x.small);
        mhp_stream_destroy(x.stream);
    }
    return status;
}
