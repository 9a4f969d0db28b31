/* Devices: order in a stream, priorities, waits, errors that stick, the test backend's freedom. `test_device cuda` runs the cases that
 * hold for every backend on a card, and exits with 77 if there is none. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/device.h"

enum { LOG_ITEMS = 512, SECOND_NS = 1000000000, CLOCK_ERROR_NS = 20000, EXIT_SKIPPED = 77 };

static mhp_device_kind kind_under_test = MHP_DEVICE_CPU;


typedef struct task_log {
    atomic_int count;
    int items[LOG_ITEMS];
} task_log;

typedef struct log_argument {
    task_log *log;
    int number;
} log_argument;

static mhp_status write_log(void *native, const void *argument)
{
    const log_argument *entry = argument;

    (void)native;
    entry->log->items[atomic_fetch_add(&entry->log->count, 1)] = entry->number;
    return MHP_OK;
}

static mhp_status fail_task(void *native, const void *argument)
{
    (void)native;
    return mhp_error_set(MHP_ERR_NOT_FINITE, "task %d failed", *(const int *)argument);
}

static mhp_device *open_device(mhp_device_kind kind, uint64_t seed, size_t queue_items)
{
    mhp_device_params params = {.kind = kind, .threads = 1, .seed = seed, .queue_items = queue_items};
    mhp_device *device = NULL;

    assert_int_equal(mhp_device_open(&params, &device), MHP_OK);
    return device;
}

static mhp_stream *make_stream(mhp_device *device, mhp_stream_kind kind, int priority)
{
    mhp_stream *stream = NULL;

    assert_int_equal(mhp_stream_create(device, kind, priority, "test", &stream), MHP_OK);
    return stream;
}

static mhp_event *make_event(mhp_device *device)
{
    mhp_event *event = NULL;

    assert_int_equal(mhp_event_create(device, &event), MHP_OK);
    return event;
}

static void submit_log(mhp_stream *stream, task_log *log, int number)
{
    log_argument argument = {log, number};

    assert_int_equal(mhp_stream_host_call(stream, write_log, &argument, sizeof argument), MHP_OK);
}

static void items_of_a_stream_run_in_order(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 8); /* so short that submitting waits for room */
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    task_log log = {0};

    (void)state;
    for (int i = 0; i < LOG_ITEMS; i++) {
        submit_log(stream, &log, i);
    }
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    assert_int_equal(log.count, LOG_ITEMS);
    for (int i = 0; i < LOG_ITEMS; i++) {
        assert_int_equal(log.items[i], i);
    }
    mhp_device_close(device);
}

/* Both queues are held by one event until everything is submitted. */
static void the_higher_priority_runs_first(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *normal = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    mhp_stream *high = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_HIGH);
    mhp_event *gate = make_event(device);
    task_log log = {0};

    (void)state;
    assert_int_equal(mhp_event_arm(gate), MHP_OK);
    assert_int_equal(mhp_stream_wait(normal, gate), MHP_OK);
    assert_int_equal(mhp_stream_wait(high, gate), MHP_OK);
    for (int i = 0; i < 10; i++) {
        submit_log(normal, &log, i);
        submit_log(high, &log, 100 + i);
    }
    assert_int_equal(mhp_event_query(gate), MHP_IN_PROGRESS);
    mhp_event_signal(gate, MHP_OK);
    assert_int_equal(mhp_stream_synchronize(normal), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(high), MHP_OK);
    assert_int_equal(log.count, 20);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(log.items[i], 100 + i);
        assert_int_equal(log.items[10 + i], i);
    }
    mhp_event_destroy(gate);
    mhp_device_close(device);
}

/* A wait stands for what the event stood for when it was submitted, not for later records. */
static void a_wait_is_for_the_record_before_it(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *first = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    mhp_stream *second = make_stream(device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL);
    mhp_event *event = make_event(device), *gate = make_event(device);
    task_log log = {0};

    (void)state;
    assert_int_equal(mhp_event_query(event), MHP_OK); /* never recorded */
    submit_log(first, &log, 1);
    assert_int_equal(mhp_event_record(event, first), MHP_OK);
    assert_int_equal(mhp_stream_wait(second, event), MHP_OK);
    submit_log(second, &log, 2);
    assert_int_equal(mhp_event_arm(gate), MHP_OK);
    assert_int_equal(mhp_stream_wait(first, gate), MHP_OK);
    assert_int_equal(mhp_event_record(event, first), MHP_OK); /* not done until the gate opens */
    assert_int_equal(mhp_stream_synchronize(second), MHP_OK);
    assert_int_equal(log.count, 2);
    assert_int_equal(log.items[0], 1);
    assert_int_equal(log.items[1], 2);
    assert_int_equal(mhp_event_query(event), MHP_IN_PROGRESS);
    mhp_event_signal(gate, MHP_OK);
    assert_int_equal(mhp_event_synchronize(event, 10ull * SECOND_NS), MHP_OK);
    assert_true(mhp_event_time_ns(event) + CLOCK_ERROR_NS >= mhp_event_time_ns(gate));
    mhp_event_destroy(event);
    mhp_event_destroy(gate);
    mhp_device_close(device);
}

static void marks_keep_the_time_in_order(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    mhp_event *first = make_event(device), *second = make_event(device), *gate = make_event(device);

    (void)state;
    assert_int_equal(mhp_event_mark(first, stream), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    assert_int_equal(mhp_event_arm(gate), MHP_OK);
    assert_int_equal(mhp_stream_wait(stream, gate), MHP_OK);
    assert_int_equal(mhp_event_mark(second, stream), MHP_OK);
    mhp_event_signal(gate, MHP_OK);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    assert_true(mhp_event_time_ns(first) <= mhp_event_time_ns(gate) + CLOCK_ERROR_NS);
    assert_true(mhp_event_time_ns(second) + CLOCK_ERROR_NS >= mhp_event_time_ns(gate));
    mhp_event_destroy(first);
    mhp_event_destroy(second);
    mhp_event_destroy(gate);
    mhp_device_close(device);
}

static void an_error_sticks_and_travels_with_events(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *bad = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    mhp_stream *waiting = make_stream(device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL);
    mhp_event *event = make_event(device);
    task_log log = {0};
    int number = 7;

    (void)state;
    submit_log(bad, &log, 0);
    (void)mhp_stream_submit(bad, fail_task, &number, sizeof number);        /* CUDA: already says that it failed */
    (void)mhp_event_record(event, bad); /* may already say that the stream has failed */
    (void)mhp_stream_wait(waiting, event);
    assert_int_equal(mhp_stream_synchronize(bad), MHP_ERR_NOT_FINITE);
    assert_string_equal(mhp_error_text(), "task 7 failed");
    assert_int_equal(mhp_stream_check(bad), MHP_ERR_NOT_FINITE);
    assert_int_equal(mhp_event_query(event), MHP_ERR_NOT_FINITE);
    assert_int_equal(mhp_stream_synchronize(waiting), MHP_ERR_NOT_FINITE);
    (void)mhp_stream_host_call(bad, write_log, &(log_argument){&log, 1}, sizeof(log_argument));
    assert_int_equal(mhp_stream_synchronize(bad), MHP_ERR_NOT_FINITE);
    assert_in_range(log.count, kind_under_test == MHP_DEVICE_CUDA ? 0 : 1, 1);  /* CUDA: the error came before the call had run */
    mhp_event_destroy(event);
    mhp_device_close(device);
}

/* It comes up when earlier items are long under way. */
static void an_error_of_a_host_call_sticks(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    mhp_event *gate = make_event(device), *event = make_event(device);
    task_log log = {0};
    int number = 4;

    (void)state;
    assert_int_equal(mhp_event_arm(gate), MHP_OK);
    assert_int_equal(mhp_stream_wait(stream, gate), MHP_OK);
    assert_int_equal(mhp_stream_host_call(stream, fail_task, &number, sizeof number), MHP_OK);
    submit_log(stream, &log, 1);
    assert_int_equal(mhp_event_record(event, stream), MHP_OK);
    assert_int_equal(mhp_stream_check(stream), MHP_OK);
    mhp_event_signal(gate, MHP_OK);
    assert_int_equal(mhp_event_synchronize(event, 10ull * SECOND_NS), MHP_ERR_NOT_FINITE);
    assert_string_equal(mhp_error_text(), "task 4 failed");
    assert_int_equal(mhp_stream_check(stream), MHP_ERR_NOT_FINITE);
    assert_int_equal(log.count, 0);
    mhp_event_destroy(event);
    mhp_event_destroy(gate);
    mhp_device_close(device);
}

/* A compute stream waits for a comm stream, that for another compute stream, and so on round. */
static void streams_of_both_kinds_wait_for_each_other(void **state)
{
    enum { ROUNDS = 100 };
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *streams[] = {
        make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL),
        make_stream(device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL),
        make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_HIGH),
        make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL),
    };
    mhp_event *events[] = {make_event(device), make_event(device), make_event(device), make_event(device)};
    task_log log = {0};

    (void)state;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        assert_int_equal(mhp_stream_wait(streams[i % 4], events[(i + 3) % 4]), MHP_OK);
        submit_log(streams[i % 4], &log, i);
        assert_int_equal(mhp_event_record(events[i % 4], streams[i % 4]), MHP_OK);
    }
    assert_int_equal(mhp_event_synchronize(events[3], 30ull * SECOND_NS), MHP_OK);
    assert_int_equal(log.count, 4 * ROUNDS);
    for (int i = 0; i < 4 * ROUNDS; i++) {
        assert_int_equal(log.items[i], i);
    }
    for (int i = 0; i < 4; i++) {
        mhp_event_destroy(events[i]);
    }
    mhp_device_close(device);
}

/* An error given to a signal reaches the stream that waited, and what it records. */
static void an_error_of_a_signal_travels(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    mhp_event *message = make_event(device);

    (void)state;
    assert_int_equal(mhp_event_arm(message), MHP_OK);
    assert_int_equal(mhp_stream_wait(stream, message), MHP_OK);
    mhp_error_set(MHP_ERR_COMM, "channel a: cut");
    mhp_event_signal(message, MHP_ERR_COMM);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_ERR_COMM);
    assert_string_equal(mhp_error_text(), "channel a: cut");
    mhp_event_destroy(message);
    mhp_device_close(device);
}

typedef struct completion {
    mhp_event *event;
    int *calls;
} completion;

static mhp_status complete_event(mhp_status status, const void *argument)
{
    const completion *call = argument;

    (*call->calls)++;
    mhp_event_signal(call->event, status);
    return status;
}

/* On a stream that is well and on one that waits for what fails. */
static void a_call_that_completes_an_event_is_made_always(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL);
    mhp_event *gate = make_event(device), *done = make_event(device);
    int calls = 0;
    completion call = {done, &calls};

    (void)state;
    assert_int_equal(mhp_event_arm(done), MHP_OK);
    assert_int_equal(mhp_stream_call_always(stream, complete_event, &call, sizeof call), MHP_OK);
    assert_int_equal(mhp_event_synchronize(done, 10ull * SECOND_NS), MHP_OK);
    assert_int_equal(mhp_event_arm(gate), MHP_OK);
    assert_int_equal(mhp_stream_wait(stream, gate), MHP_OK);
    assert_int_equal(mhp_event_arm(done), MHP_OK);
    assert_int_equal(mhp_stream_call_always(stream, complete_event, &call, sizeof call), MHP_OK);
    mhp_error_set(MHP_ERR_COMM, "channel a: cut");
    mhp_event_signal(gate, MHP_ERR_COMM);
    assert_int_equal(mhp_event_synchronize(done, 10ull * SECOND_NS), MHP_ERR_COMM);
    assert_string_equal(mhp_error_text(), "channel a: cut");
    assert_int_equal(mhp_stream_synchronize(stream), MHP_ERR_COMM);
    assert_int_equal(calls, 2);
    mhp_event_destroy(done);
    mhp_event_destroy(gate);
    mhp_device_close(device);
}

static void poison_wakes_who_waits(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    mhp_event *never = make_event(device);

    (void)state;
    assert_int_equal(mhp_event_arm(never), MHP_OK);
    assert_int_equal(mhp_stream_wait(stream, never), MHP_OK);
    assert_int_equal(mhp_event_synchronize(never, 1000000), MHP_ERR_TIMEOUT);
    mhp_error_set(MHP_ERR_PEER, "rank 3: gone");
    mhp_device_poison(device, MHP_ERR_PEER);
    assert_int_equal(mhp_event_synchronize(never, 0), MHP_ERR_PEER);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_ERR_PEER);
    assert_string_equal(mhp_error_text(), "rank 3: gone");
    mhp_event_destroy(never);
    mhp_device_close(device);
}

/* Streams without an event between them may run in any order on the test backend: over many seeds both orders come up. */
static void the_test_backend_reorders_streams(void **state)
{
    int first_won = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 32; seed++) {
        mhp_device *device = open_device(MHP_DEVICE_TEST, seed, 0);
        mhp_stream *a = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_HIGH);
        mhp_stream *b = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
        mhp_event *gate = make_event(device);
        task_log log = {0};

        mhp_event_arm(gate);
        mhp_stream_wait(a, gate);
        mhp_stream_wait(b, gate);
        submit_log(a, &log, 1);
        submit_log(b, &log, 2);
        mhp_event_signal(gate, MHP_OK);
        assert_int_equal(mhp_stream_synchronize(a), MHP_OK);
        assert_int_equal(mhp_stream_synchronize(b), MHP_OK);
        first_won += log.items[0] == 1;
        mhp_event_destroy(gate);
        mhp_device_close(device);
    }
    assert_in_range(first_won, 1, 31);
}

static void memory_is_aligned_and_counted(void **state)
{
    mhp_device *device = open_device(kind_under_test, 1, 0);
    size_t left, total;
    char *pinned;
    void *memory, *more;

    (void)state;
    assert_int_equal(mhp_device_alloc(device, 1000, &memory), MHP_OK);
    assert_int_equal(mhp_device_alloc(device, 24, &more), MHP_OK);
    assert_int_equal((uintptr_t)memory % (kind_under_test == MHP_DEVICE_CUDA ? 256 : 64), 0);
    assert_int_equal(mhp_device_alloc_host(device, 100, (void **)&pinned), MHP_OK);
    assert_int_equal(pinned[0] | pinned[99], 0);
    assert_int_equal(mhp_device_bytes(device), 1024);
    mhp_device_free_host(device, pinned);
    mhp_device_free(device, memory);
    assert_int_equal(mhp_device_bytes(device), 24);
    assert_int_equal(mhp_device_bytes_peak(device), 1024);
    mhp_device_free(device, more);
    assert_int_equal(mhp_device_alloc(device, SIZE_MAX - 16, &more), MHP_ERR_NO_MEMORY);
    assert_int_equal(mhp_device_memory(device, &left, &total), MHP_OK);
    assert_true(left <= total);
    assert_int_equal(mhp_device_alloc(device, 16, &more), MHP_OK);      /* a refusal sticks to nothing */
    mhp_device_free(device, more);
    mhp_device_close(device);
}

static void the_test_backend_poisons_memory(void **state)
{
    mhp_device *device = open_device(MHP_DEVICE_TEST, 1, 0);
    float *values;

    (void)state;
    assert_int_equal(mhp_device_alloc(device, 1000, (void **)&values), MHP_OK);
    for (int i = 0; i < 250; i++) {
        assert_true(values[i] != values[i]);
    }
    mhp_device_free(device, values);
    mhp_device_close(device);
}

static void copies_and_fills_run_in_stream_order(void **state)
{
    mhp_device *device = open_device(kind_under_test == MHP_DEVICE_CPU ? MHP_DEVICE_TEST : kind_under_test, 5, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    char *memory;
    char host[16] = "before", back[16] = "";

    (void)state;
    assert_int_equal(mhp_device_alloc(device, sizeof host, (void **)&memory), MHP_OK);
    assert_int_equal(mhp_stream_copy(stream, memory, host, sizeof host), MHP_OK);
    assert_int_equal(mhp_stream_zero(stream, memory + 3, 13), MHP_OK);
    assert_int_equal(mhp_stream_copy(stream, back, memory, sizeof back), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    assert_string_equal(back, "bef");
    mhp_device_free(device, memory);
    mhp_device_close(device);
}

typedef struct polled {
    atomic_int left, calls;
} polled;

static int count_progress(void *context, bool *moved_out)
{
    polled *self = context;
    int left = atomic_load(&self->left);

    (void)moved_out;
    atomic_fetch_add(&self->calls, 1);
    if (left > 0) {
        atomic_store(&self->left, left - 1);
    }
    return left > 0 ? left - 1 : 0;
}

/* The comm thread polls while operations are under way, and looks now and then when there are none. */
static void progress_is_polled_until_nothing_is_left(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL);
    polled self = {.left = 50};
    struct timespec pause = {0, 1000000};
    uint64_t start_ns;
    int calls;

    (void)state;
    assert_int_equal(mhp_device_set_progress(device, count_progress, &self), MHP_OK);
    mhp_device_wake_comm(device);
    for (int i = 0; i < 5000 && atomic_load(&self.left) > 0; i++) {
        nanosleep(&pause, NULL);
    }
    assert_int_equal(atomic_load(&self.left), 0);
    calls = atomic_load(&self.calls);
    for (int i = 0; i < 5000 && atomic_load(&self.calls) == calls; i++) {       /* nobody wakes it */
        nanosleep(&pause, NULL);
    }
    assert_true(atomic_load(&self.calls) > calls);
    calls = atomic_load(&self.calls);
    start_ns = mhp_time_ns();
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    assert_true((uint64_t)(atomic_load(&self.calls) - calls) <= 2 + (mhp_time_ns() - start_ns) / 10000000);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    mhp_device_set_progress(device, NULL, NULL);
    mhp_device_close(device);
}

enum { FLOWING = 2000 };

typedef struct flow {
    atomic_int calls;
    long slept_before;
    atomic_long slept;              /* times that the comm thread slept while data flowed */
} flow;

static long count_sleeps(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/* Something comes forward in the first calls, then nothing, and it never ends. */
static int flow_for_a_while(void *context, bool *moved_out)
{
    flow *self = context;
    int call = atomic_fetch_add(&self->calls, 1);

    *moved_out = call < FLOWING;
    if (call == 0) {
        self->slept_before = count_sleeps();
    } else if (call == FLOWING) {
        atomic_store(&self->slept, count_sleeps() - self->slept_before);
    }
    return 1;
}

/* Polls follow each other while something comes forward, and leave the core alone when it stops. */
static void polls_follow_each_other_while_data_flows(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    struct timespec pause = {0, 20000000};
    flow self = {.slept = -1};
    uint64_t start_ns;
    int calls;

    (void)state;
    assert_int_equal(mhp_device_set_progress(device, flow_for_a_while, &self), MHP_OK);
    for (int i = 0; i < 500 && atomic_load(&self.slept) < 0; i++) {
        nanosleep(&pause, NULL);
    }
    assert_in_range(atomic_load(&self.slept), 0, FLOWING / 10);     /* a lock may be taken */
    nanosleep(&pause, NULL);
    calls = atomic_load(&self.calls);
    start_ns = mhp_time_ns();
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    assert_true((uint64_t)(atomic_load(&self.calls) - calls) <= 10 + (mhp_time_ns() - start_ns) / 20000);
    mhp_device_set_progress(device, NULL, NULL);
    mhp_device_close(device);
}

enum { ARMS = 100 };

typedef struct signaller {
    mhp_event *event;
    atomic_int armed;
} signaller;

static void *signal_many(void *context)
{
    signaller *self = context;
    struct timespec pause = {0, 10000};

    for (int i = 0; i < ARMS; i++) {
        while (atomic_load(&self->armed) <= i) {
            nanosleep(&pause, NULL);
        }
        mhp_event_signal(self->event, MHP_OK);
    }
    return NULL;
}

/* Events are signalled by any thread: each signal completes one arm. */
static void signals_of_another_thread_complete_arms(void **state)
{
    mhp_device *device = open_device(kind_under_test, 0, 0);
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL);
    signaller self = {.event = make_event(device)};
    task_log log = {0};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, signal_many, &self), 0);
    for (int i = 0; i < ARMS; i++) {
        assert_int_equal(mhp_event_arm(self.event), MHP_OK);
        atomic_fetch_add(&self.armed, 1);
        assert_int_equal(mhp_stream_wait(stream, self.event), MHP_OK);
        submit_log(stream, &log, i);
    }
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    assert_int_equal(log.count, ARMS);
    pthread_join(thread, NULL);
    mhp_event_destroy(self.event);
    mhp_device_close(device);
}

static bool has_card(void)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CUDA, .threads = 1};
    mhp_device *device = NULL;
    bool opened = mhp_device_open(&params, &device) == MHP_OK;

    if (!opened) {
        printf("skipped: %s\n", mhp_error_text());
    }
    mhp_device_close(device);
    return opened;
}

static int run_cpu_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_higher_priority_runs_first),
        cmocka_unit_test(the_test_backend_reorders_streams),
        cmocka_unit_test(the_test_backend_poisons_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_of_a_stream_run_in_order),
        cmocka_unit_test(a_wait_is_for_the_record_before_it),
        cmocka_unit_test(streams_of_both_kinds_wait_for_each_other),
        cmocka_unit_test(marks_keep_the_time_in_order),
        cmocka_unit_test(an_error_sticks_and_travels_with_events),
        cmocka_unit_test(an_error_of_a_host_call_sticks),
        cmocka_unit_test(an_error_of_a_signal_travels),
        cmocka_unit_test(a_call_that_completes_an_event_is_made_always),
        cmocka_unit_test(poison_wakes_who_waits),
        cmocka_unit_test(memory_is_aligned_and_counted),
        cmocka_unit_test(copies_and_fills_run_in_stream_order),
        cmocka_unit_test(progress_is_polled_until_nothing_is_left),
        cmocka_unit_test(polls_follow_each_other_while_data_flows),
        cmocka_unit_test(signals_of_another_thread_complete_arms),
    };
    int failed = 0;

    if (argc > 1 && strcmp(argv[1], "cuda") == 0) {
        kind_under_test = MHP_DEVICE_CUDA;
        if (!has_card()) {
            return EXIT_SKIPPED;
        }
    } else {
        failed = run_cpu_tests();
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + failed;
}
