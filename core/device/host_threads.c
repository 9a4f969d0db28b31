/* The threads that serve the queues of the host: one for compute, one for communication. */
#include <cblas.h>
#include <omp.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "core/device/host.h"

enum {
    COMM_SLEEP_MIN_NS = 20000,
    COMM_SLEEP_MAX_NS = 200000,
    COMM_IDLE_NS = 20000000,
    COMM_BUSY_NS = 500000,      /* for which polls follow each other after one that found something */
    WORD_SLEEP_NS = 50000,
    COMM_TIMER_SLACK_NS = 2000,
    TEST_DELAY_MAX_NS = 100000,
    TEST_MOOD_ITEMS = 64,       /* for about which many a mood lasts */
};

static uint64_t next_random(host_device *device)
{
    device->random = device->random * 6364136223846793005u + 1442695040888963407u;
    return device->random >> 33;
}

/* Whether the head of the queue may be taken now. */
static bool is_runnable(const host_stream *stream)
{
    const queue_item *item = &stream->items[stream->head];

    if (stream->count == 0 || stream->running) {
        return false;
    }
    if (item->kind != ITEM_WAIT || stream->status < 0 || stream->device->poison < 0) {
        return true;
    }
    return item->word ? mhp_word_has_reached(item->word, item->value)
                      : mhp_host_is_complete(host_event_of(item->event), item->generation);
}

/* The stream to serve next: of highest priority. The test backend lets its moods decide: a stream keeps its own for a while, so that one
 * runs as far ahead of the others as events allow, and another far behind. */
static host_stream *pick_stream(host_device *device, mhp_stream_kind kind)
{
    host_stream *best = NULL;
    bool moody = device->base.kind == MHP_DEVICE_TEST;

    for (host_stream *stream = device->streams; stream; stream = stream->next) {
        if (stream->kind != kind || !is_runnable(stream)) {
            continue;
        }
        if (moody && (stream->mood == 0 || next_random(device) % TEST_MOOD_ITEMS == 0)) {
            stream->mood = 1 + next_random(device);
        }
        if (!best || (moody ? stream->mood > best->mood : stream->priority > best->priority)) {
            best = stream;
        }
    }
    return best;
}

/* Whoever waits for room or for the end is woken; waking up for every item would cost the stream more than most items do. */
static void pop(host_stream *stream)
{
    bool full = stream->count == stream->capacity;

    stream->head = (stream->head + 1) % stream->capacity;
    stream->count--;
    if (full || stream->count == 0) {
        pthread_cond_broadcast(&stream->device->host_wake);
    }
}

/* The test backend holds an item back, so that code which relies on an early run fails. */
static void hold_back(host_device *device)
{
    struct timespec delay = {0, (long)(next_random(device) % TEST_DELAY_MAX_NS)};

    if (next_random(device) % 4 == 0) {
        pthread_mutex_unlock(&device->lock);
        nanosleep(&delay, NULL);
        pthread_mutex_lock(&device->lock);
    }
}

/* Runs the head, a task or a call, with the lock released. */
static void run_head(host_stream *stream, queue_item *item)
{
    host_device *device = stream->device;
    uint64_t start_ns;
    mhp_status status = stream->status;

    stream->running = true;
    if (device->base.kind == MHP_DEVICE_TEST) {
        hold_back(device);
    }
    pthread_mutex_unlock(&device->lock);
    start_ns = mhp_time_ns();
    status = item->kind == ITEM_CALL ? item->call(status, item->argument) : item->task(NULL, item->argument);
    start_ns = mhp_time_ns() - start_ns;
    pthread_mutex_lock(&device->lock);
    stream->busy_ns += start_ns;
    stream->running = false;
    if (status < 0) {
        mhp_host_fail_stream(stream, status, mhp_error_text());
    }
}

/* Takes one item of the stream; the lock is held. */
static void serve(host_stream *stream)
{
    queue_item *item = &stream->items[stream->head];
    host_device *device = stream->device;

    if (device->poison < 0 && stream->status == MHP_OK) {
        stream->status = device->poison;
    }
    switch (item->kind) {
    case ITEM_TASK:
        if (stream->status == MHP_OK) {
            run_head(stream, item);
        }
        break;
    case ITEM_CALL:
        run_head(stream, item);
        break;
    case ITEM_WAIT:
        if (stream->status == MHP_OK && item->event) {
            stream->status = mhp_host_event_error(host_event_of(item->event));
        }
        break;
    case ITEM_RECORD:
        mhp_host_complete_event(host_event_of(item->event), item->generation, stream->status);
        break;
    }
    pop(stream);
}

/* Whether a stream waits for what a card or a word completes, which wakes nobody. */
static bool waits_in_silence(const host_device *device, mhp_stream_kind kind)
{
    for (const host_stream *stream = device->streams; stream; stream = stream->next) {
        const queue_item *item = stream->items + stream->head;

        if (stream->kind == kind && stream->count > 0 && !stream->running && item->kind == ITEM_WAIT &&
            (item->word || mhp_host_is_silent(host_event_of(item->event)))) {
            return true;
        }
    }
    return false;
}

static void sleep_at_most(host_device *device, pthread_cond_t *wake, long sleep_ns)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += sleep_ns;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(wake, &device->lock, &until);
}

static void *compute_main(void *context)
{
    host_device *device = context;

    omp_set_num_threads(device->product_threads);
    openblas_set_num_threads(device->product_threads);
    pthread_mutex_lock(&device->lock);
    while (!device->stopping) {
        host_stream *stream = pick_stream(device, MHP_STREAM_COMPUTE);

        if (stream) {
            serve(stream);
        } else if (waits_in_silence(device, MHP_STREAM_COMPUTE)) {
            sleep_at_most(device, &device->compute_wake, WORD_SLEEP_NS);
        } else {
            pthread_cond_wait(&device->compute_wake, &device->lock);
        }
    }
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

static void yield(host_device *device)
{
    pthread_mutex_unlock(&device->lock);
    sched_yield();
    pthread_mutex_lock(&device->lock);
}

static void sleep_comm(host_device *device, int outstanding, long *sleep_ns)
{
    long now_ns = *sleep_ns;

    if (outstanding <= 0 && !waits_in_silence(device, MHP_STREAM_COMM)) {
        if (device->progress) {         /* nothing is under way, but another rank may tell that it failed */
            sleep_at_most(device, &device->comm_wake, COMM_IDLE_NS);
        } else {
            pthread_cond_wait(&device->comm_wake, &device->lock);
        }
        return;
    }
    *sleep_ns = now_ns * 2 < COMM_SLEEP_MAX_NS ? now_ns * 2 : COMM_SLEEP_MAX_NS;
    sleep_at_most(device, &device->comm_wake, now_ns);
}

static void fail_comm_streams(host_device *device, mhp_status status, const char *text)
{
    for (host_stream *stream = device->streams; stream; stream = stream->next) {
        if (stream->kind == MHP_STREAM_COMM) {
            mhp_host_fail_stream(stream, status, text);
        }
    }
}

/* Polls once with the lock released; an error sticks to every comm stream. */
static int poll_progress(host_device *device, bool *moved_out)
{
    mhp_progress_fn progress = device->progress;
    void *context = device->progress_context;
    int outstanding;

    if (!progress) {
        return 0;
    }
    pthread_mutex_unlock(&device->lock);
    outstanding = progress(context, moved_out);
    pthread_mutex_lock(&device->lock);
    if (outstanding < 0) {
        fail_comm_streams(device, (mhp_status)outstanding, mhp_error_text());
    }
    return outstanding;
}

static void *comm_main(void *context)
{
    host_device *device = context;
    long sleep_ns = COMM_SLEEP_MIN_NS;
    uint64_t moved_ns = 0;

    prctl(PR_SET_TIMERSLACK, COMM_TIMER_SLACK_NS);
    pthread_mutex_lock(&device->lock);
    while (!device->stopping) {
        host_stream *stream;
        int outstanding;
        bool moved = false;

        device->comm_pending = false;
        stream = pick_stream(device, MHP_STREAM_COMM);
        if (stream) {
            serve(stream);
            sleep_ns = COMM_SLEEP_MIN_NS;
        }
        outstanding = poll_progress(device, &moved);
        moved_ns = moved ? mhp_time_ns() : moved_ns;
        if (moved || device->comm_pending) {
            sleep_ns = COMM_SLEEP_MIN_NS;
        }
        if (stream || device->comm_pending || device->stopping) {
            continue;
        }
        if (outstanding > 0 && mhp_time_ns() - moved_ns < COMM_BUSY_NS) {
            yield(device);
        } else {
            sleep_comm(device, outstanding, &sleep_ns);
        }
    }
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

static mhp_status start_thread(host_device *device, void *(*body)(void *), const char *name)
{
    int code = pthread_create(&device->threads[device->thread_count], NULL, body, device);

    if (code != 0) {
        return mhp_error_set(MHP_ERR_DEVICE, "cannot start the %s thread: %s", name, strerror(code));
    }
    device->thread_count++;
    return MHP_OK;
}

mhp_status mhp_host_start_threads(host_device *device, bool compute)
{
    if (compute) {
        MHP_RETURN_IF_ERROR(start_thread(device, compute_main, "compute"));
    }
    return start_thread(device, comm_main, "comm");
}

void mhp_host_stop_threads(host_device *device)
{
    pthread_mutex_lock(&device->lock);
    device->stopping = true;
    mhp_host_wake_all(device);
    pthread_mutex_unlock(&device->lock);
    while (device->thread_count > 0) {
        pthread_join(device->threads[--device->thread_count], NULL);
    }
}
