/* The threads that serve the queues of the CPU backend: one for compute, one for communication. */
#include <cblas.h>
#include <omp.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "core/device/cpu_internal.h"

enum {
    COMM_SLEEP_MIN_NS = 20000,
    COMM_SLEEP_MAX_NS = 200000,
    COMM_TIMER_SLACK_NS = 2000,
    TEST_DELAY_MAX_NS = 100000,
};

void mhp_cpu_keep_error(cpu_device *device, const char *text)
{
    if (!device->has_error) {
        device->has_error = true;
        strncpy(device->error_text, text, sizeof device->error_text - 1);
    }
}

mhp_status mhp_cpu_surface(cpu_device *device, mhp_status status)
{
    return status < 0 ? mhp_error_set(status, "%s", device->error_text) : status;
}

void mhp_cpu_wake_all(cpu_device *device)
{
    device->comm_pending = true;
    pthread_cond_broadcast(&device->compute_wake);
    pthread_cond_broadcast(&device->comm_wake);
    pthread_cond_broadcast(&device->host_wake);
}

void mhp_cpu_complete_event(cpu_event *event, uint64_t generation, mhp_status status)
{
    if (generation > event->completed) {
        event->completed = generation;
        event->status = status;
        event->time_ns = mhp_time_ns();
    }
    mhp_cpu_wake_all(event->device);
}

static uint64_t next_random(cpu_device *device)
{
    device->random = device->random * 6364136223846793005u + 1442695040888963407u;
    return device->random >> 33;
}

/* Whether the head of the queue may be taken now. */
static bool is_runnable(const cpu_stream *stream)
{
    const queue_item *item = &stream->items[stream->head];

    if (stream->count == 0 || stream->running) {
        return false;
    }
    return item->kind != ITEM_WAIT || cpu_event_of(item->event)->completed >= item->generation || stream->status < 0 ||
           stream->device->poison < 0;
}

/* The stream to serve next: highest priority, or any for the test backend. */
static cpu_stream *pick_stream(cpu_device *device, mhp_stream_kind kind)
{
    cpu_stream *best = NULL;
    uint64_t seen = 0;

    for (cpu_stream *stream = device->streams; stream; stream = stream->next) {
        if (stream->kind != kind || !is_runnable(stream)) {
            continue;
        }
        seen++;
        if (!best || (device->base.kind == MHP_DEVICE_TEST ? next_random(device) % seen == 0 : stream->priority > best->priority)) {
            best = stream;
        }
    }
    return best;
}

static void pop(cpu_stream *stream)
{
    stream->head = (stream->head + 1) % stream->capacity;
    stream->count--;
    pthread_cond_broadcast(&stream->device->host_wake);
}

static void fail_stream(cpu_stream *stream, mhp_status status, const char *text)
{
    mhp_cpu_keep_error(stream->device, text);
    if (stream->status == MHP_OK) {
        stream->status = status;
    }
}

/* The test backend holds an item back, so that code which relies on an early run fails. */
static void hold_back(cpu_device *device)
{
    struct timespec delay = {0, (long)(next_random(device) % TEST_DELAY_MAX_NS)};

    if (next_random(device) % 4 == 0) {
        pthread_mutex_unlock(&device->lock);
        nanosleep(&delay, NULL);
        pthread_mutex_lock(&device->lock);
    }
}

/* Runs the head task with the lock released. */
static void run_task(cpu_stream *stream, queue_item *item)
{
    cpu_device *device = stream->device;
    uint64_t start_ns;
    mhp_status status;

    stream->running = true;
    if (device->base.kind == MHP_DEVICE_TEST) {
        hold_back(device);
    }
    pthread_mutex_unlock(&device->lock);
    start_ns = mhp_time_ns();
    status = item->task(NULL, item->argument);
    start_ns = mhp_time_ns() - start_ns;
    pthread_mutex_lock(&device->lock);
    stream->busy_ns += start_ns;
    stream->running = false;
    if (status < 0) {
        fail_stream(stream, status, mhp_error_text());
    }
}

/* Takes one item of the stream; the lock is held. */
static void serve(cpu_stream *stream)
{
    queue_item *item = &stream->items[stream->head];
    cpu_device *device = stream->device;

    if (device->poison < 0 && stream->status == MHP_OK) {
        stream->status = device->poison;
    }
    switch (item->kind) {
    case ITEM_TASK:
        if (stream->status == MHP_OK) {
            run_task(stream, item);
        }
        break;
    case ITEM_WAIT:
        if (stream->status == MHP_OK && cpu_event_of(item->event)->status < 0) {
            stream->status = cpu_event_of(item->event)->status;
        }
        break;
    case ITEM_RECORD:
        mhp_cpu_complete_event(cpu_event_of(item->event), item->generation, stream->status);
        break;
    }
    pop(stream);
}

static void *compute_main(void *context)
{
    cpu_device *device = context;

    omp_set_num_threads(device->threads);
    openblas_set_num_threads(device->threads);
    pthread_mutex_lock(&device->lock);
    while (!device->stopping) {
        cpu_stream *stream = pick_stream(device, MHP_STREAM_COMPUTE);

        if (stream) {
            serve(stream);
        } else {
            pthread_cond_wait(&device->compute_wake, &device->lock);
        }
    }
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

static void sleep_comm(cpu_device *device, int outstanding, long *sleep_ns)
{
    struct timespec until;

    if (outstanding <= 0) {
        pthread_cond_wait(&device->comm_wake, &device->lock);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += *sleep_ns;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    *sleep_ns = *sleep_ns * 2 < COMM_SLEEP_MAX_NS ? *sleep_ns * 2 : COMM_SLEEP_MAX_NS;
    pthread_cond_timedwait(&device->comm_wake, &device->lock, &until);
}

static void fail_comm_streams(cpu_device *device, mhp_status status, const char *text)
{
    for (cpu_stream *stream = device->streams; stream; stream = stream->next) {
        if (stream->kind == MHP_STREAM_COMM) {
            fail_stream(stream, status, text);
        }
    }
}

/* Polls once with the lock released; an error sticks to every comm stream. */
static int poll_progress(cpu_device *device)
{
    mhp_progress_fn progress = device->progress;
    void *context = device->progress_context;
    int outstanding;

    if (!progress) {
        return 0;
    }
    pthread_mutex_unlock(&device->lock);
    outstanding = progress(context);
    pthread_mutex_lock(&device->lock);
    if (outstanding < 0) {
        fail_comm_streams(device, (mhp_status)outstanding, mhp_error_text());
    }
    return outstanding;
}

static void *comm_main(void *context)
{
    cpu_device *device = context;
    long sleep_ns = COMM_SLEEP_MIN_NS;

    prctl(PR_SET_TIMERSLACK, COMM_TIMER_SLACK_NS);
    pthread_mutex_lock(&device->lock);
    while (!device->stopping) {
        cpu_stream *stream;
        int outstanding;

        device->comm_pending = false;
        stream = pick_stream(device, MHP_STREAM_COMM);
        if (stream) {
            serve(stream);
            sleep_ns = COMM_SLEEP_MIN_NS;
        }
        outstanding = poll_progress(device);
        if (!stream && !device->comm_pending && !device->stopping) {
            sleep_comm(device, outstanding, &sleep_ns);
        } else if (device->comm_pending) {
            sleep_ns = COMM_SLEEP_MIN_NS;
        }
    }
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

mhp_status mhp_cpu_start_threads(cpu_device *device)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&device->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&device->compute_wake, &attributes);
    pthread_cond_init(&device->comm_wake, &attributes);
    pthread_cond_init(&device->host_wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&device->compute_thread, NULL, compute_main, device) != 0) {
        return mhp_error_set(MHP_ERR_DEVICE, "cannot start the compute thread");
    }
    device->started_threads++;
    if (pthread_create(&device->comm_thread, NULL, comm_main, device) != 0) {
        return mhp_error_set(MHP_ERR_DEVICE, "cannot start the comm thread");
    }
    device->started_threads++;
    return MHP_OK;
}

void mhp_cpu_stop_threads(cpu_device *device)
{
    pthread_mutex_lock(&device->lock);
    device->stopping = true;
    mhp_cpu_wake_all(device);
    pthread_mutex_unlock(&device->lock);
    if (device->started_threads > 0) {
        pthread_join(device->compute_thread, NULL);
    }
    if (device->started_threads > 1) {
        pthread_join(device->comm_thread, NULL);
    }
}
