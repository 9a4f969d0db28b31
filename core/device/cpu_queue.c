/* Queues and events of the CPU backend. */
#include <errno.h>
#include <string.h>

#include "core/device/cpu_internal.h"
#include "core/memory.h"

void mhp_cpu_free_stream(cpu_stream *stream)
{
    mhp_free(stream->items);
    mhp_free(stream);
}

mhp_status mhp_cpu_stream_create(mhp_device *base, mhp_stream_kind kind, int priority, const char *name, mhp_stream **stream_out)
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
        mhp_cpu_free_stream(stream);
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

void mhp_cpu_stream_destroy(mhp_stream *base)
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
    mhp_cpu_free_stream(stream);
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
    status = mhp_cpu_surface(device, stream->status);
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

mhp_status mhp_cpu_submit(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes)
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

mhp_status mhp_cpu_copy(mhp_stream *stream, void *target, const void *source, size_t bytes)
{
    copy_arguments copy = {target, source, bytes};

    return mhp_cpu_submit(stream, run_copy, &copy, sizeof copy);
}

mhp_status mhp_cpu_zero(mhp_stream *stream, void *target, size_t bytes)
{
    copy_arguments zero = {target, NULL, bytes};

    return mhp_cpu_submit(stream, run_zero, &zero, sizeof zero);
}

mhp_status mhp_cpu_wait(mhp_stream *stream, mhp_event *event)
{
    queue_item item;

    item.kind = ITEM_WAIT;
    item.task = NULL;
    item.event = event;
    return append(cpu_stream_of(stream), &item, NULL, 0, false);
}

mhp_status mhp_cpu_synchronize(mhp_stream *base)
{
    cpu_stream *stream = cpu_stream_of(base);
    mhp_status status;

    pthread_mutex_lock(&stream->device->lock);
    drain(stream);
    status = mhp_cpu_surface(stream->device, stream->status);
    pthread_mutex_unlock(&stream->device->lock);
    return status;
}

mhp_status mhp_cpu_check(mhp_stream *base)
{
    cpu_stream *stream = cpu_stream_of(base);
    mhp_status status;

    pthread_mutex_lock(&stream->device->lock);
    status = mhp_cpu_surface(stream->device, stream->device->poison < 0 ? stream->device->poison : stream->status);
    pthread_mutex_unlock(&stream->device->lock);
    return status;
}

uint64_t mhp_cpu_busy_ns(const mhp_stream *base)
{
    cpu_stream *stream = cpu_stream_of(base);
    uint64_t busy_ns;

    pthread_mutex_lock(&stream->device->lock);
    busy_ns = stream->busy_ns;
    pthread_mutex_unlock(&stream->device->lock);
    return busy_ns;
}

mhp_status mhp_cpu_event_create(mhp_device *base, mhp_event **event_out)
{
    cpu_event *event;

    MHP_RETURN_IF_ERROR(mhp_calloc(&event, 1, sizeof *event));
    event->base.device = base;
    event->device = cpu(base);
    *event_out = &event->base;
    return MHP_OK;
}

void mhp_cpu_event_destroy(mhp_event *event)
{
    mhp_free(event);
}

mhp_status mhp_cpu_event_record(mhp_event *event, mhp_stream *stream)
{
    queue_item item;

    item.kind = ITEM_RECORD;
    item.task = NULL;
    item.event = event;
    return append(cpu_stream_of(stream), &item, NULL, 0, true);
}

mhp_status mhp_cpu_event_arm(mhp_event *base)
{
    cpu_event *event = cpu_event_of(base);

    pthread_mutex_lock(&event->device->lock);
    event->issued++;
    pthread_mutex_unlock(&event->device->lock);
    return MHP_OK;
}

void mhp_cpu_event_signal(mhp_event *base, mhp_status status)
{
    cpu_event *event = cpu_event_of(base);

    pthread_mutex_lock(&event->device->lock);
    if (status < 0) {
        mhp_cpu_keep_error(event->device, mhp_error_text());
    }
    mhp_cpu_complete_event(event, event->completed + 1, status);        /* slots are reused in order, so arms complete in order */
    pthread_mutex_unlock(&event->device->lock);
}

/* The lock is held. */
static mhp_status event_status(cpu_event *event)
{
    if (event->completed >= event->issued) {
        return mhp_cpu_surface(event->device, event->status < 0 ? event->status : MHP_OK);
    }
    return event->device->poison < 0 ? mhp_cpu_surface(event->device, event->device->poison) : MHP_IN_PROGRESS;
}

mhp_status mhp_cpu_event_query(mhp_event *base)
{
    cpu_event *event = cpu_event_of(base);
    mhp_status status;

    pthread_mutex_lock(&event->device->lock);
    status = event_status(event);
    pthread_mutex_unlock(&event->device->lock);
    return status;
}

mhp_status mhp_cpu_event_synchronize(mhp_event *base, uint64_t timeout_ns)
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

uint64_t mhp_cpu_event_time_ns(const mhp_event *base)
{
    cpu_event *event = cpu_event_of(base);
    uint64_t time_ns;

    pthread_mutex_lock(&event->device->lock);
    time_ns = event->time_ns;
    pthread_mutex_unlock(&event->device->lock);
    return time_ns;
}

