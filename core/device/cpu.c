/* The CPU backend: queues served by one compute thread and one comm thread under one lock, and the test backend, which is the same
 * with another order: it picks among the streams that may run at random instead of by priority, and holds items back. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/device/host.h"
#include "core/memory.h"

enum { MEMORY_ALIGNMENT = 64 };

typedef struct memory_header {
    size_t bytes;
} memory_header;

static void cpu_close(mhp_device *base)
{
    mhp_host_device_deinit(host_of(base));
    mhp_free(base);
}

static int cpu_count(void)
{
    return 1;
}

static mhp_status cpu_open(const mhp_device_params *params, mhp_device **device_out)
{
    mhp_status status = MHP_OK;
    host_device *device = NULL;

    assert(params->threads > 0);
    MHP_RETURN_IF_ERROR(mhp_calloc(&device, 1, sizeof *device));
    MHP_TRY(out, mhp_host_device_init(device, params, &mhp_device_cpu_ops));
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
    host_device *device = host_of(base);
    size_t whole = (bytes + 2 * MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
    char *memory;

    if (base->kind == MHP_DEVICE_TEST) {
        MHP_RETURN_IF_ERROR(mhp_test_alloc(base, bytes, pointer_out));
        fill_with_nans(*pointer_out, bytes);
        mhp_host_add_bytes(device, bytes);
        return MHP_OK;
    }
    memory = bytes <= SIZE_MAX - 2 * MEMORY_ALIGNMENT ? aligned_alloc(MEMORY_ALIGNMENT, whole) : NULL;
    if (!memory) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu bytes of device memory; %zu are in use", bytes, device->bytes);
    }
    ((memory_header *)(void *)memory)->bytes = bytes;
    *pointer_out = memory + MEMORY_ALIGNMENT;
    mhp_host_add_bytes(device, bytes);
    return MHP_OK;
}

static void cpu_free(mhp_device *base, void *pointer)
{
    char *memory = (char *)pointer - MEMORY_ALIGNMENT;

    if (base->kind == MHP_DEVICE_TEST) {
        mhp_host_remove_bytes(host_of(base), mhp_test_free(pointer));
        return;
    }
    mhp_host_remove_bytes(host_of(base), ((memory_header *)(void *)memory)->bytes);
    free(memory);
}

static mhp_status cpu_alloc_host(mhp_device *base, size_t bytes, void **pointer_out)
{
    (void)base;
    return bytes < MHP_PAGE_BYTES ? mhp_calloc(pointer_out, bytes, 1) : mhp_calloc_pages(pointer_out, bytes);
}

static void cpu_free_host(mhp_device *base, void *pointer)
{
    (void)base;
    mhp_free(pointer);
}

/* The machine's memory is shared with others: nothing is promised. */
static mhp_status cpu_memory(mhp_device *base, size_t *free_out, size_t *total_out)
{
    (void)base;
    *free_out = SIZE_MAX;
    *total_out = SIZE_MAX;
    return MHP_OK;
}

static void cpu_bus_id(const mhp_device *base, char text[MHP_BUS_ID_MAX])
{
    (void)base;
    text[0] = '\0';
}

const mhp_device_ops mhp_device_cpu_ops = {
    .count = cpu_count,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .alloc_host = cpu_alloc_host,
    .free_host = cpu_free_host,
    .bytes = mhp_host_bytes,
    .memory = cpu_memory,
    .bus_id = cpu_bus_id,
    .stream_create = mhp_host_stream_create,
    .stream_destroy = mhp_host_stream_destroy,
    .submit = mhp_host_submit,
    .host_call = mhp_host_submit,
    .call_always = mhp_host_call_always,
    .copy = mhp_host_copy,
    .zero = mhp_host_zero,
    .wait = mhp_host_stream_wait,
    .synchronize = mhp_host_synchronize,
    .check = mhp_host_check,
    .busy_ns = mhp_host_busy_ns,
    .event_create = mhp_host_event_create,
    .event_destroy = mhp_host_event_destroy,
    .event_record = mhp_host_event_record,
    .event_mark = mhp_host_event_record,
    .event_arm = mhp_host_event_arm,
    .event_signal = mhp_host_event_signal,
    .event_query = mhp_host_event_query,
    .event_synchronize = mhp_host_event_synchronize,
    .event_time_ns = mhp_host_event_time_ns,
    .event_count = mhp_host_event_count,
    .set_progress = mhp_host_set_progress,
    .wake_comm = mhp_host_wake_comm,
    .poison = mhp_host_poison,
    .sharing = &mhp_test_sharing,       /* of the test backend alone */
};
