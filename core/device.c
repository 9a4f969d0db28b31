#include "core/device.h"

#include <assert.h>
#include <time.h>

#include "core/device/backend.h"

/* NULL if this build has none. */
static const mhp_device_ops *backend_of(mhp_device_kind kind)
{
    return kind == MHP_DEVICE_CUDA ? mhp_device_cuda_backend() : &mhp_device_cpu_ops;
}

int mhp_device_count(mhp_device_kind kind)
{
    const mhp_device_ops *ops = backend_of(kind);

    return ops ? ops->count() : 0;
}

void mhp_device_address(mhp_device_kind kind, int index, char address[MHP_DEVICE_ADDRESS_MAX])
{
    const mhp_device_ops *ops = backend_of(kind);

    address[0] = '\0';
    if (ops && ops->address) {
        ops->address(index, address);
    }
}

mhp_status mhp_device_open(const mhp_device_params *params, mhp_device **device_out)
{
    const mhp_device_ops *ops = backend_of(params->kind);

    if (!ops) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "this build has no CUDA backend: build it with CUDA's toolkit and -DMHP_CUDA=on, or "
                                                  "compute on the cpu device");
    }
    return ops->open(params, device_out);
}

void mhp_device_close(mhp_device *device)
{
    if (device) {
        device->ops->close(device);
    }
}

mhp_device_kind mhp_device_get_kind(const mhp_device *device)
{
    return device->kind;
}

bool mhp_device_is_host_memory(const mhp_device *device)
{
    return device->kind != MHP_DEVICE_CUDA;
}

mhp_status mhp_device_alloc(mhp_device *device, size_t bytes, void **pointer_out)
{
    device->allocation_count++;
    return device->ops->alloc(device, bytes, pointer_out);
}

void mhp_device_free(mhp_device *device, void *pointer)
{
    if (pointer) {
        device->ops->free(device, pointer);
    }
}

mhp_status mhp_device_alloc_host(mhp_device *device, size_t bytes, void **pointer_out)
{
    device->allocation_count++;
    return device->ops->alloc_host(device, bytes, pointer_out);
}

void mhp_device_free_host(mhp_device *device, void *pointer)
{
    if (pointer) {
        device->ops->free_host(device, pointer);
    }
}

uint64_t mhp_device_allocation_count(const mhp_device *device)
{
    return device->allocation_count;
}

size_t mhp_device_bytes(const mhp_device *device)
{
    return device->ops->bytes(device, false);
}

size_t mhp_device_bytes_peak(const mhp_device *device)
{
    return device->ops->bytes(device, true);
}

mhp_status mhp_device_memory(mhp_device *device, size_t *free_out, size_t *total_out)
{
    return device->ops->memory(device, free_out, total_out);
}

int mhp_device_processors(const mhp_device *device)
{
    return device->ops->processors ? device->ops->processors(device) : 0;
}

void mhp_device_bus_id(const mhp_device *device, char text[MHP_BUS_ID_MAX])
{
    device->ops->bus_id(device, text);
}

mhp_status mhp_stream_create(mhp_device *device, mhp_stream_kind kind, int priority, const char *name, mhp_stream **stream_out)
{
    return device->ops->stream_create(device, kind, priority, 0, name, stream_out);
}

mhp_status mhp_stream_create_sparing(mhp_device *device, int spared, const char *name, mhp_stream **stream_out)
{
    return device->ops->stream_create(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, spared, name, stream_out);
}

mhp_status mhp_stream_create_spared(mhp_device *device, int spared, const char *name, mhp_stream **stream_out)
{
    return device->ops->stream_create(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, -spared, name, stream_out);
}

void mhp_stream_destroy(mhp_stream *stream)
{
    if (stream) {
        stream->device->ops->stream_destroy(stream);
    }
}

mhp_status mhp_stream_submit(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes)
{
    assert(bytes <= MHP_TASK_ARGUMENT_MAX);
    return stream->device->ops->submit(stream, task, argument, bytes);
}

mhp_status mhp_stream_host_call(mhp_stream *stream, mhp_task_fn call, const void *argument, size_t bytes)
{
    assert(bytes <= MHP_TASK_ARGUMENT_MAX);
    return stream->device->ops->host_call(stream, call, argument, bytes);
}

mhp_status mhp_stream_call_always(mhp_stream *stream, mhp_call_fn call, const void *argument, size_t bytes)
{
    assert(bytes <= MHP_TASK_ARGUMENT_MAX);
    return stream->device->ops->call_always(stream, call, argument, bytes);
}

mhp_status mhp_stream_copy(mhp_stream *stream, void *target, const void *source, size_t bytes)
{
    return stream->device->ops->copy(stream, target, source, bytes);
}

mhp_status mhp_stream_zero(mhp_stream *stream, void *target, size_t bytes)
{
    return stream->device->ops->zero(stream, target, bytes);
}

mhp_status mhp_stream_wait(mhp_stream *stream, mhp_event *event)
{
    return stream->device->ops->wait(stream, event);
}

mhp_status mhp_stream_synchronize(mhp_stream *stream)
{
    return stream->device->ops->synchronize(stream);
}

mhp_status mhp_stream_check(mhp_stream *stream)
{
    return stream->device->ops->check(stream);
}

uint64_t mhp_stream_busy_ns(const mhp_stream *stream)
{
    return stream->device->ops->busy_ns(stream);
}

mhp_status mhp_event_create(mhp_device *device, mhp_event **event_out)
{
    return device->ops->event_create(device, event_out);
}

void mhp_event_destroy(mhp_event *event)
{
    if (event) {
        event->device->ops->event_destroy(event);
    }
}

mhp_status mhp_event_record(mhp_event *event, mhp_stream *stream)
{
    return event->device->ops->event_record(event, stream);
}

mhp_status mhp_event_mark(mhp_event *event, mhp_stream *stream)
{
    return event->device->ops->event_mark(event, stream);
}

mhp_status mhp_event_arm(mhp_event *event)
{
    return event->device->ops->event_arm(event);
}

void mhp_event_signal(mhp_event *event, mhp_status status)
{
    event->device->ops->event_signal(event, status);
}

mhp_status mhp_event_query(mhp_event *event)
{
    return event->device->ops->event_query(event);
}

mhp_status mhp_event_synchronize(mhp_event *event, uint64_t timeout_ns)
{
    return event->device->ops->event_synchronize(event, timeout_ns);
}

uint64_t mhp_event_time_ns(const mhp_event *event)
{
    return event->device->ops->event_time_ns(event);
}

uint64_t mhp_event_count(const mhp_event *event)
{
    return event->device->ops->event_count(event);
}

mhp_status mhp_device_set_progress(mhp_device *device, mhp_progress_fn progress, void *context)
{
    return device->ops->set_progress(device, progress, context);
}

void mhp_device_wake_comm(mhp_device *device)
{
    device->ops->wake_comm(device);
}

void mhp_device_poison(mhp_device *device, mhp_status status)
{
    device->ops->poison(device, status);
}

uint64_t mhp_time_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
