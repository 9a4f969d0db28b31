/* The CPU backend: queues served by one compute thread and one comm thread under one lock, and the test backend, which is the same
 * with another order: it picks among the streams that may run at random instead of by priority, and holds items back. */
#include <assert.h>
#include <cblas.h>
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "core/device/backend.h"
#include "core/memory.h"

enum {
    QUEUE_ITEMS_DEFAULT = 1024,
    MEMORY_ALIGNMENT = 64,
    NAME_MAX_BYTES = 64,
    COMM_SLEEP_MIN_NS = 20000,
    COMM_SLEEP_MAX_NS = 200000,
    COMM_TIMER_SLACK_NS = 2000,
    TEST_DELAY_MAX_NS = 100000,
};

typedef enum item_kind { ITEM_TASK, ITEM_WAIT, ITEM_RECORD } item_kind;

typedef struct queue_item {
    item_kind kind;
    mhp_task_fn task;
    mhp_event *event;
    uint64_t generation;                /* of the event: what is waited for, or what is completed */
    _Alignas(16) char argument[MHP_TASK_ARGUMENT_MAX];
} queue_item;

typedef struct cpu_device cpu_device;

typedef struct cpu_stream {
    mhp_stream base;
    cpu_device *device;
    struct cpu_stream *next;            /* of the device's list */
    mhp_stream_kind kind;
    int priority;
    char name[NAME_MAX_BYTES];
    queue_item *items;
    size_t capacity, head, count;
    bool running;                       /* the head is being run, unlocked */
    mhp_status status;                  /* sticky */
    uint64_t busy_ns;
} cpu_stream;

typedef struct cpu_event {
    mhp_event base;
    cpu_device *device;
    uint64_t issued, completed;         /* generations */
    mhp_status status;                  /* of the completed generation */
    uint64_t time_ns;
} cpu_event;

struct cpu_device {
    mhp_device base;
    pthread_mutex_t lock;
    pthread_cond_t compute_wake, comm_wake, host_wake;
    pthread_t compute_thread, comm_thread;
    int started_threads;
    bool stopping;
    bool comm_pending;                  /* something for the comm thread happened since it looked */
    cpu_stream *streams;
    size_t queue_items;
    int threads;
    mhp_progress_fn progress;
    void *progress_context;
    mhp_status poison;
    char error_text[MHP_ERROR_TEXT_MAX];        /* of the first error */
    bool has_error;
    size_t bytes, bytes_peak;
    uint64_t random;                    /* test backend */
};

typedef struct memory_header {
    size_t bytes;
} memory_header;

static cpu_device *cpu(const mhp_device *device)
{
    return (cpu_device *)(uintptr_t)device;
}

static cpu_stream *cpu_stream_of(const mhp_stream *stream)
{
    return (cpu_stream *)(uintptr_t)stream;
}

static cpu_event *cpu_event_of(const mhp_event *event)
{
    return (cpu_event *)(uintptr_t)event;
}

/* Keeps the first error's text; the lock is held. */
static void keep_error(cpu_device *device, const char *text)
{
    if (!device->has_error) {
        device->has_error = true;
        strncpy(device->error_text, text, sizeof device->error_text - 1);
    }
}

/* Gives a stored error back to the calling thread; the lock is held. */
static mhp_status surface(cpu_device *device, mhp_status status)
{
    return status < 0 ? mhp_error_set(status, "%s", device->error_text) : status;
}

static void wake_all(cpu_device *device)
{
    device->comm_pending = true;
    pthread_cond_broadcast(&device->compute_wake);
    pthread_cond_broadcast(&device->comm_wake);
    pthread_cond_broadcast(&device->host_wake);
}

static void complete_event(cpu_event *event, uint64_t generation, mhp_status status)
{
    if (generation > event->completed) {
        event->completed = generation;
        event->status = status;
        event->time_ns = mhp_time_ns();
    }
    wake_all(event->device);
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
    keep_error(stream->device, text);
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
        complete_event(cpu_event_of(item->event), item->generation, stream->status);
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

static void cpu_close(mhp_device *base);

static mhp_status start_threads(cpu_device *device)
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

static mhp_status cpu_open(const mhp_device_params *params, mhp_device **device_out)
{
    mhp_status status = MHP_OK;
    cpu_device *device = NULL;

    assert(params->threads > 0);
    MHP_TRY(out, mhp_calloc(&device, 1, sizeof *device));
    device->base.ops = &mhp_device_cpu_ops;
    device->base.kind = params->kind;
    device->queue_items = params->queue_items > 0 ? params->queue_items : QUEUE_ITEMS_DEFAULT;
    device->threads = params->threads;
    device->random = params->seed * 2 + 1;
    MHP_TRY(out, start_threads(device));
    *device_out = &device->base;
    device = NULL;
out:
    if (device) {
        cpu_close(&device->base);
    }
    return status;
}

static void free_stream(cpu_stream *stream)
{
    mhp_free(stream->items);
    mhp_free(stream);
}

static void cpu_close(mhp_device *base)
{
    cpu_device *device = cpu(base);

    pthread_mutex_lock(&device->lock);
    device->stopping = true;
    wake_all(device);
    pthread_mutex_unlock(&device->lock);
    if (device->started_threads > 0) {
        pthread_join(device->compute_thread, NULL);
    }
    if (device->started_threads > 1) {
        pthread_join(device->comm_thread, NULL);
    }
    while (device->streams) {
        cpu_stream *stream = device->streams;

        device->streams = stream->next;
        free_stream(stream);
    }
    pthread_cond_destroy(&device->compute_wake);
    pthread_cond_destroy(&device->comm_wake);
    pthread_cond_destroy(&device->host_wake);
    pthread_mutex_destroy(&device->lock);
    mhp_free(device);
}

/* The test backend's memory begins as signalling NaNs, as float and as double. */
static void fill_with_nans(void *pointer, size_t bytes)
{
    static const uint32_t pattern = 0x7fa00000u;

    for (size_t i = 0; i + sizeof pattern <= bytes; i += sizeof pattern) {
        memcpy((char *)pointer + i, &pattern, sizeof pattern);
    }
}

static mhp_status cpu_alloc(mhp_device *base, size_t bytes, void **pointer_out)
{
    cpu_device *device = cpu(base);
    size_t whole = (bytes + 2 * MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
    char *memory = bytes <= SIZE_MAX - 2 * MEMORY_ALIGNMENT ? aligned_alloc(MEMORY_ALIGNMENT, whole) : NULL;

    if (!memory) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu bytes of device memory; %zu are in use", bytes, device->bytes);
    }
    ((memory_header *)(void *)memory)->bytes = bytes;
    *pointer_out = memory + MEMORY_ALIGNMENT;
    if (base->kind == MHP_DEVICE_TEST) {
        fill_with_nans(*pointer_out, bytes);
    }
    pthread_mutex_lock(&device->lock);
    device->bytes += bytes;
    device->bytes_peak = device->bytes > device->bytes_peak ? device->bytes : device->bytes_peak;
    pthread_mutex_unlock(&device->lock);
    return MHP_OK;
}

static void cpu_free(mhp_device *base, void *pointer)
{
    cpu_device *device = cpu(base);
    char *memory = (char *)pointer - MEMORY_ALIGNMENT;

    pthread_mutex_lock(&device->lock);
    device->bytes -= ((memory_header *)(void *)memory)->bytes;
    pthread_mutex_unlock(&device->lock);
    free(memory);
}

static mhp_status cpu_alloc_host(mhp_device *base, size_t bytes, void **pointer_out)
{
    (void)base;
    return mhp_calloc(pointer_out, bytes, 1);
}

static void cpu_free_host(mhp_device *base, void *pointer)
{
    (void)base;
    mhp_free(pointer);
}

static size_t cpu_bytes(const mhp_device *base, bool peak)
{
    cpu_device *device = cpu(base);
    size_t bytes;

    pthread_mutex_lock(&device->lock);
    bytes = peak ? device->bytes_peak : device->bytes;
    pthread_mutex_unlock(&device->lock);
    return bytes;
}

static mhp_status cpu_stream_create(mhp_device *base, mhp_stream_kind kind, int priority, const char *name, mhp_stream **stream_out)
{
    mhp_status status = MHP_OK;
    cpu_device *device = cpu(base);
    cpu_stream *stream = NULL;

    MHP_TRY(out, mhp_calloc(&stream, 1, sizeof *stream));
    stream->base.device = base;
    stream->device = device;
    stream->kind = kind;
    stream->priority = priority;
    strncpy(stream->name, name, sizeof stream->name - 1);
    stream->capacity = device->queue_items;
    MHP_TRY(out, mhp_calloc(&stream->items, stream->capacity, sizeof *stream->items));
    pthread_mutex_lock(&device->lock);
    stream->next = device->streams;
    device->streams = stream;
    pthread_mutex_unlock(&device->lock);
    *stream_out = &stream->base;
    stream = NULL;
out:
    if (stream) {
        free_stream(stream);
    }
    return status;
}

/* Waits until the queue is empty or nothing will ever empty it; the lock is held. */
static void drain(cpu_stream *stream)
{
    while (stream->count > 0 && !stream->device->stopping) {
        pthread_cond_wait(&stream->device->host_wake, &stream->device->lock);
    }
}

static void cpu_stream_destroy(mhp_stream *base)
{
    cpu_stream *stream = cpu_stream_of(base);
    cpu_device *device = stream->device;

    pthread_mutex_lock(&device->lock);
    drain(stream);
    for (cpu_stream **link = &device->streams; *link; link = &(*link)->next) {
        if (*link == stream) {
            *link = stream->next;
            break;
        }
    }
    pthread_mutex_unlock(&device->lock);
    free_stream(stream);
}

/* Appends an item, waiting for room; `issue` asks for the event's next generation. */
static mhp_status append(cpu_stream *stream, const queue_item *head, const void *argument, size_t bytes, bool issue)
{
    cpu_device *device = stream->device;
    queue_item *item;
    mhp_status status;

    pthread_mutex_lock(&device->lock);
    while (stream->count == stream->capacity && !device->stopping) {
        pthread_cond_wait(&device->host_wake, &device->lock);
    }
    status = surface(device, stream->status);
    item = &stream->items[(stream->head + stream->count) % stream->capacity];
    item->kind = head->kind;
    item->task = head->task;
    item->event = head->event;
    if (head->event) {
        cpu_event *event = cpu_event_of(head->event);

        item->generation = issue ? ++event->issued : event->issued;
    }
    if (bytes > 0) {
        memcpy(item->argument, argument, bytes);
    }
    stream->count++;
    if (stream->kind == MHP_STREAM_COMPUTE) {
        pthread_cond_signal(&device->compute_wake);
    } else {
        device->comm_pending = true;
        pthread_cond_signal(&device->comm_wake);
    }
    pthread_mutex_unlock(&device->lock);
    return status;
}

static mhp_status cpu_submit(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes)
{
    queue_item item;

    item.kind = ITEM_TASK;
    item.task = task;
    item.event = NULL;
    return append(cpu_stream_of(stream), &item, argument, bytes, false);
}

typedef struct copy_arguments {
    void *target;
    const void *source;
    size_t bytes;
} copy_arguments;

static mhp_status run_copy(void *native, const void *argument)
{
    const copy_arguments *copy = argument;

    (void)native;
    memcpy(copy->target, copy->source, copy->bytes);
    return MHP_OK;
}

static mhp_status run_zero(void *native, const void *argument)
{
    const copy_arguments *zero = argument;

    (void)native;
    memset(zero->target, 0, zero->bytes);
    return MHP_OK;
}

static mhp_status cpu_copy(mhp_stream *stream, void *target, const void *source, size_t bytes)
{
    copy_arguments copy = {target, source, bytes};

    return cpu_submit(stream, run_copy, &copy, sizeof copy);
}

static mhp_status cpu_zero(mhp_stream *stream, void *target, size_t bytes)
{
    copy_arguments zero = {target, NULL, bytes};

    return cpu_submit(stream, run_zero, &zero, sizeof zero);
}

static mhp_status cpu_wait(mhp_stream *stream, mhp_event *event)
{
    queue_item item;

    item.kind = ITEM_WAIT;
    item.task = NULL;
    item.event = event;
    return append(cpu_stream_of(stream), &item, NULL, 0, false);
}

static mhp_status cpu_synchronize(mhp_stream *base)
{
    cpu_stream *stream = cpu_stream_of(base);
    mhp_status status;

    pthread_mutex_lock(&stream->device->lock);
    drain(stream);
    status = surface(stream->device, stream->status);
    pthread_mutex_unlock(&stream->device->lock);
    return status;
}

static mhp_status cpu_check(mhp_stream *base)
{
    cpu_stream *stream = cpu_stream_of(base);
    mhp_status status;

    pthread_mutex_lock(&stream->device->lock);
    status = surface(stream->device, stream->device->poison < 0 ? stream->device->poison : stream->status);
    pthread_mutex_unlock(&stream->device->lock);
    return status;
}

static uint64_t cpu_busy_ns(const mhp_stream *base)
{
    cpu_stream *stream = cpu_stream_of(base);
    uint64_t busy_ns;

    pthread_mutex_lock(&stream->device->lock);
    busy_ns = stream->busy_ns;
    pthread_mutex_unlock(&stream->device->lock);
    return busy_ns;
}

static mhp_status cpu_event_create(mhp_device *base, mhp_event **event_out)
{
    cpu_event *event;

    MHP_RETURN_IF_ERROR(mhp_calloc(&event, 1, sizeof *event));
    event->base.device = base;
    event->device = cpu(base);
    *event_out = &event->base;
    return MHP_OK;
}

static void cpu_event_destroy(mhp_event *event)
{
    mhp_free(event);
}

static mhp_status cpu_event_record(mhp_event *event, mhp_stream *stream)
{
    queue_item item;

    item.kind = ITEM_RECORD;
    item.task = NULL;
    item.event = event;
    return append(cpu_stream_of(stream), &item, NULL, 0, true);
}

static mhp_status cpu_event_arm(mhp_event *base)
{
    cpu_event *event = cpu_event_of(base);

    pthread_mutex_lock(&event->device->lock);
    event->issued++;
    pthread_mutex_unlock(&event->device->lock);
    return MHP_OK;
}

static void cpu_event_signal(mhp_event *base, mhp_status status)
{
    cpu_event *event = cpu_event_of(base);

    pthread_mutex_lock(&event->device->lock);
    if (status < 0) {
        keep_error(event->device, mhp_error_text());
    }
    complete_event(event, event->completed + 1, status);        /* slots are reused in order, so arms complete in order */
    pthread_mutex_unlock(&event->device->lock);
}

/* The lock is held. */
static mhp_status event_status(cpu_event *event)
{
    if (event->completed >= event->issued) {
        return surface(event->device, event->status < 0 ? event->status : MHP_OK);
    }
    return event->device->poison < 0 ? surface(event->device, event->device->poison) : MHP_IN_PROGRESS;
}

static mhp_status cpu_event_query(mhp_event *base)
{
    cpu_event *event = cpu_event_of(base);
    mhp_status status;

    pthread_mutex_lock(&event->device->lock);
    status = event_status(event);
    pthread_mutex_unlock(&event->device->lock);
    return status;
}

static mhp_status cpu_event_synchronize(mhp_event *base, uint64_t timeout_ns)
{
    cpu_event *event = cpu_event_of(base);
    cpu_device *device = event->device;
    uint64_t until_ns = mhp_time_ns() + timeout_ns;
    struct timespec until = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};
    mhp_status status;

    pthread_mutex_lock(&device->lock);
    while ((status = event_status(event)) == MHP_IN_PROGRESS) {
        if (timeout_ns == 0) {
            pthread_cond_wait(&device->host_wake, &device->lock);
        } else if (pthread_cond_timedwait(&device->host_wake, &device->lock, &until) == ETIMEDOUT &&
                   event_status(event) == MHP_IN_PROGRESS) {
            status = mhp_error_set(MHP_ERR_TIMEOUT, "an event did not complete within %.3f s", (double)timeout_ns * 1e-9);
            break;
        }
    }
    pthread_mutex_unlock(&device->lock);
    return status;
}

static uint64_t cpu_event_time_ns(const mhp_event *base)
{
    cpu_event *event = cpu_event_of(base);
    uint64_t time_ns;

    pthread_mutex_lock(&event->device->lock);
    time_ns = event->time_ns;
    pthread_mutex_unlock(&event->device->lock);
    return time_ns;
}

static mhp_status cpu_set_progress(mhp_device *base, mhp_progress_fn progress, void *context)
{
    cpu_device *device = cpu(base);

    pthread_mutex_lock(&device->lock);
    device->progress = progress;
    device->progress_context = context;
    wake_all(device);
    pthread_mutex_unlock(&device->lock);
    return MHP_OK;
}

static void cpu_wake_comm(mhp_device *base)
{
    cpu_device *device = cpu(base);

    pthread_mutex_lock(&device->lock);
    device->comm_pending = true;
    pthread_cond_signal(&device->comm_wake);
    pthread_mutex_unlock(&device->lock);
}

static void cpu_poison(mhp_device *base, mhp_status status)
{
    cpu_device *device = cpu(base);

    pthread_mutex_lock(&device->lock);
    keep_error(device, mhp_error_text());
    if (device->poison == MHP_OK) {
        device->poison = status;
    }
    wake_all(device);
    pthread_mutex_unlock(&device->lock);
}

const mhp_device_ops mhp_device_cpu_ops = {
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .alloc_host = cpu_alloc_host,
    .free_host = cpu_free_host,
    .bytes = cpu_bytes,
    .stream_create = cpu_stream_create,
    .stream_destroy = cpu_stream_destroy,
    .submit = cpu_submit,
    .host_call = cpu_submit,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .wait = cpu_wait,
    .synchronize = cpu_synchronize,
    .check = cpu_check,
    .busy_ns = cpu_busy_ns,
    .event_create = cpu_event_create,
    .event_destroy = cpu_event_destroy,
    .event_record = cpu_event_record,
    .event_arm = cpu_event_arm,
    .event_signal = cpu_event_signal,
    .event_query = cpu_event_query,
    .event_synchronize = cpu_event_synchronize,
    .event_time_ns = cpu_event_time_ns,
    .set_progress = cpu_set_progress,
    .wake_comm = cpu_wake_comm,
    .poison = cpu_poison,
};
