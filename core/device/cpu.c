/* The CPU backend: queues served by one compute thread and one comm thread under one lock, and the test backend, which is the same
 * with another order: it picks among the streams that may run at random instead of by priority, and holds items back. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/device/cpu_internal.h"
#include "core/memory.h"

enum { QUEUE_ITEMS_DEFAULT = 1024, MEMORY_ALIGNMENT = 64 };

typedef struct memory_header {
    size_t bytes;
} memory_header;

static void cpu_close(mhp_device *base)
{
    cpu_device *device = cpu(base);

    mhp_cpu_stop_threads(device);
    while (device->streams) {
        cpu_stream *stream = device->streams;

        device->streams = stream->next;
        mhp_cpu_free_stream(stream);
    }
    pthread_cond_destroy(&device->compute_wake);
    pthread_cond_destroy(&device->comm_wake);
    pthread_cond_destroy(&device->host_wake);
    pthread_mutex_destroy(&device->lock);
    mhp_free(device);
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
    MHP_TRY(out, mhp_cpu_start_threads(device));
    *device_out = &device->base;
    device = NULL;
out:
    if (device) {
        cpu_close(&device->base);
    }
    return status;
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

static mhp_status cpu_set_progress(mhp_device *base, mhp_progress_fn progress, void *context)
{
    cpu_device *device = cpu(base);

    pthread_mutex_lock(&device->lock);
    device->progress = progress;
    device->progress_context = context;
    mhp_cpu_wake_all(device);
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
    mhp_cpu_keep_error(device, mhp_error_text());
    if (device->poison == MHP_OK) {
        device->poison = status;
    }
    mhp_cpu_wake_all(device);
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
    .stream_create = mhp_cpu_stream_create,
    .stream_destroy = mhp_cpu_stream_destroy,
    .submit = mhp_cpu_submit,
    .host_call = mhp_cpu_submit,
    .copy = mhp_cpu_copy,
    .zero = mhp_cpu_zero,
    .wait = mhp_cpu_wait,
    .synchronize = mhp_cpu_synchronize,
    .check = mhp_cpu_check,
    .busy_ns = mhp_cpu_busy_ns,
    .event_create = mhp_cpu_event_create,
    .event_destroy = mhp_cpu_event_destroy,
    .event_record = mhp_cpu_event_record,
    .event_arm = mhp_cpu_event_arm,
    .event_signal = mhp_cpu_event_signal,
    .event_query = mhp_cpu_event_query,
    .event_synchronize = mhp_cpu_event_synchronize,
    .event_time_ns = mhp_cpu_event_time_ns,
    .set_progress = cpu_set_progress,
    .wake_comm = cpu_wake_comm,
    .poison = cpu_poison,
};
