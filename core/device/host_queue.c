/* Queues that threads of the host serve: submitting, waiting, draining. */
#include <assert.h>
#include <string.h>

#include "core/device/host.h"
#include "core/memory.h"

void mhp_host_stream_init(host_stream *stream, host_device *device, mhp_stream_kind kind, int priority, const char *name)
{
    stream->base.device = &device->base;
    stream->device = device;
    stream->kind = kind;
    stream->priority = priority;
    strncpy(stream->name, name, sizeof stream->name - 1);
    pthread_mutex_lock(&device->lock);
    stream->next = device->streams;
    device->streams = stream;
    pthread_mutex_unlock(&device->lock);
}

void mhp_host_stream_unlink(host_stream *stream)
{
    host_device *device = stream->device;

    pthread_mutex_lock(&device->lock);
    for (host_stream **link = &device->streams; *link; link = &(*link)->next) {
        if (*link == stream) {
            *link = stream->next;
            break;
        }
    }
    pthread_mutex_unlock(&device->lock);
}

mhp_status mhp_host_stream_create(mhp_device *base, mhp_stream_kind kind, int priority, int spared, const char *name,
                                  mhp_stream **stream_out)
{
    mhp_status status = MHP_OK;
    host_device *device = host_of(base);
    host_stream *stream = NULL;

    (void)spared;               /* a CPU has no multiprocessors */
    MHP_TRY(out, mhp_calloc(&stream, 1, sizeof *stream));
    stream->capacity = device->queue_items;
    MHP_TRY(out, mhp_calloc(&stream->items, stream->capacity, sizeof *stream->items));
    mhp_host_stream_init(stream, device, kind == MHP_STREAM_COMM ? kind : MHP_STREAM_COMPUTE, priority, name);
    *stream_out = &stream->base;
    stream = NULL;
out:
    mhp_free(stream);
    return status;
}

/* Waits until the queue is empty or nothing will ever empty it; the lock is held. */
static void drain(host_stream *stream)
{
    uint64_t pause_ns = 0;

    while (stream->count > 0 && !stream->device->stopping) {
        mhp_host_wait(stream->device, 0, false, &pause_ns);
    }
}

void mhp_host_stream_destroy(mhp_stream *base)
{
    host_stream *stream = host_stream_of(base);

    pthread_mutex_lock(&stream->device->lock);
    drain(stream);
    pthread_mutex_unlock(&stream->device->lock);
    mhp_host_stream_unlink(stream);
    mhp_free(stream->items);
    mhp_free(stream);
}

/* Appends an item, waiting for room; `issue` asks for the event's next generation. */
static mhp_status append(host_stream *stream, const queue_item *head, const void *argument, size_t bytes, bool issue)
{
    host_device *device = stream->device;
    uint64_t pause_ns = 0;
    queue_item *item;
    mhp_status status;

    pthread_mutex_lock(&device->lock);
    while (stream->count == stream->capacity && !device->stopping) {
        mhp_host_wait(device, 0, false, &pause_ns);
    }
    status = mhp_host_surface(device, stream->status);
    item = &stream->items[(stream->head + stream->count) % stream->capacity];
    item->kind = head->kind;
    item->task = head->task;
    item->call = head->call;
    item->event = head->event;
    item->word = head->word;
    item->value = head->value;
    if (head->event) {
        host_event *event = host_event_of(head->event);

        item->generation = issue ? mhp_host_issue(event) : event->issued;
        if (!issue && event->followed) {
            item->word = event->followed;
            item->value = event->followed_value;
        }
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

/* Fills in all but the argument, which is large. */
static void head_of(queue_item *item, item_kind kind, mhp_event *event)
{
    item->kind = kind;
    item->task = NULL;
    item->call = NULL;
    item->event = event;
    item->word = NULL;
    item->value = 0;
}

mhp_status mhp_host_submit(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes)
{
    queue_item item;

    head_of(&item, ITEM_TASK, NULL);
    item.task = task;
    return append(host_stream_of(stream), &item, argument, bytes, false);
}

mhp_status mhp_host_call_always(mhp_stream *base, mhp_call_fn call, const void *argument, size_t bytes)
{
    host_stream *stream = host_stream_of(base);
    queue_item item;

    assert(stream->kind == MHP_STREAM_COMM);
    head_of(&item, ITEM_CALL, NULL);
    item.call = call;
    return append(stream, &item, argument, bytes, false);
}

typedef struct word_arguments {
    mhp_word *word;
    uint32_t value;
} word_arguments;

static mhp_status run_write_word(void *native, const void *argument)
{
    const word_arguments *write = argument;

    (void)native;
    atomic_store_explicit(write->word, write->value, memory_order_release);
    return MHP_OK;
}

mhp_status mhp_host_write_word(mhp_stream *stream, mhp_word *word, uint32_t value)
{
    word_arguments write = {word, value};

    return mhp_host_submit(stream, run_write_word, &write, sizeof write);
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

mhp_status mhp_host_copy(mhp_stream *stream, void *target, const void *source, size_t bytes)
{
    copy_arguments copy = {target, source, bytes};

    return mhp_host_submit(stream, run_copy, &copy, sizeof copy);
}

mhp_status mhp_host_zero(mhp_stream *stream, void *target, size_t bytes)
{
    copy_arguments zero = {target, NULL, bytes};

    return mhp_host_submit(stream, run_zero, &zero, sizeof zero);
}

mhp_status mhp_host_stream_wait(mhp_stream *stream, mhp_event *event)
{
    queue_item item;

    head_of(&item, ITEM_WAIT, event);
    return append(host_stream_of(stream), &item, NULL, 0, false);
}

mhp_status mhp_host_await_word(mhp_stream *stream, mhp_word *word, uint32_t value)
{
    queue_item item;

    head_of(&item, ITEM_WAIT, NULL);
    item.word = word;
    item.value = value;
    return append(host_stream_of(stream), &item, NULL, 0, false);
}

mhp_status mhp_host_event_record(mhp_event *event, mhp_stream *stream)
{
    queue_item item;

    head_of(&item, ITEM_RECORD, event);
    return append(host_stream_of(stream), &item, NULL, 0, true);
}

mhp_status mhp_host_synchronize(mhp_stream *base)
{
    host_stream *stream = host_stream_of(base);
    mhp_status status;

    pthread_mutex_lock(&stream->device->lock);
    drain(stream);
    status = mhp_host_surface(stream->device, stream->status);
    pthread_mutex_unlock(&stream->device->lock);
    return status;
}

mhp_status mhp_host_check(mhp_stream *base)
{
    host_stream *stream = host_stream_of(base);
    mhp_status status;

    pthread_mutex_lock(&stream->device->lock);
    status = mhp_host_surface(stream->device, stream->device->poison < 0 ? stream->device->poison : stream->status);
    pthread_mutex_unlock(&stream->device->lock);
    return status;
}

uint64_t mhp_host_busy_ns(const mhp_stream *base)
{
    host_stream *stream = host_stream_of(base);
    uint64_t busy_ns;

    pthread_mutex_lock(&stream->device->lock);
    busy_ns = stream->busy_ns;
    pthread_mutex_unlock(&stream->device->lock);
    return busy_ns;
}
