/* The CUDA backend: one card, its memory and its errors. Compute streams are CUDA streams (cuda_stream.c); comm streams, and whatever
 * waits on the host, are as on the CPU (host.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device/cuda_internal.h"
#include "core/device/cuda_stamp.h"
#include "core/environment.h"
#include "core/memory.h"

/* A block of attention's gradient takes up to 139 KiB of shared memory. Cards let a block have 99, 163 or more. */
enum { HOST_CALLS = 256, CAPABILITY_MAJOR_MIN = 8, SHARED_BYTES_MIN = 163 << 10 };

static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* ---- errors ---- */

mhp_status mhp_cuda_check(cuda_device *device, cudaError_t code, const char *call)
{
    mhp_status status;

    if (code == cudaSuccess) {
        return MHP_OK;
    }
    status = mhp_error_set(MHP_ERR_DEVICE, "%s: %s: %s (%s)", device->name, call, cudaGetErrorString(code), cudaGetErrorName(code));
    mhp_host_poison(&device->host.base, status);
    return status;
}

mhp_status mhp_cuda_use(cuda_device *device)
{
    return mhp_cuda_check(device, cudaSetDevice(device->index), "cudaSetDevice");
}

/* Kernels fail after they were enqueued: the streams tell. */
static void check_card(host_device *base)
{
    cuda_device *device = cuda_of(&base->base);

    for (host_stream *stream = base->streams; stream && base->poison == MHP_OK; stream = stream->next) {
        cudaError_t code = stream->kind != MHP_STREAM_COMM ? cudaStreamQuery(cuda_stream_of(&stream->base)->native) : cudaSuccess;

        if (code == cudaErrorNotReady) {
            (void)cudaGetLastError();
        } else {
            (void)mhp_cuda_check(device, code, "a kernel or copy");
        }
    }
}

/* ---- finding the card ---- */

static int cuda_count(void)
{
    int count = 0;

    mhp_environment_set();
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

static void cuda_address(int index, char address[MHP_DEVICE_ADDRESS_MAX])
{
    mhp_environment_set();
    if (cudaDeviceGetPCIBusId(address, MHP_DEVICE_ADDRESS_MAX, index) != cudaSuccess) {
        (void)cudaGetLastError();
        address[0] = '\0';
    }
}

static mhp_status find_driver(int *count_out)
{
    int driver = 0, runtime = 0;
    cudaError_t code = cudaGetDeviceCount(count_out);

    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        return mhp_error_set(MHP_ERR_DEVICE, "no NVIDIA driver is loaded: install one that supports CUDA %d.%d, or compute on the cpu device",
                             runtime / 1000, runtime % 1000 / 10);
    }
    if (code == cudaErrorInsufficientDriver) {
        return mhp_error_set(MHP_ERR_DEVICE, "the NVIDIA driver supports CUDA up to %d.%d and this build needs %d.%d: install a newer "
                             "driver, or build with an older toolkit", driver / 1000, driver % 1000 / 10, runtime / 1000,
                             runtime % 1000 / 10);
    }
    if (code == cudaErrorNoDevice || (code == cudaSuccess && *count_out == 0)) {
        const char *visible = getenv("CUDA_VISIBLE_DEVICES");

        return mhp_error_set(MHP_ERR_DEVICE, "no NVIDIA card is visible%s%s%s: compute on the cpu device", visible ?
                             " (CUDA_VISIBLE_DEVICES is \"" : "", visible ? visible : "", visible ? "\")" : "");
    }
    if (code != cudaSuccess) {
        return mhp_error_set(MHP_ERR_DEVICE, "cudaGetDeviceCount: %s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
    }
    return MHP_OK;
}

static mhp_status check_capability(cuda_device *device)
{
    int major = 0, minor = 0, shared = 0;

    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device->index),
                                       "cudaDeviceGetAttribute"));
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device->index),
                                       "cudaDeviceGetAttribute"));
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device->index),
                                       "cudaDeviceGetAttribute"));
    if (major < CAPABILITY_MAJOR_MIN) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s has compute capability %d.%d: bf16 needs %d.0 or higher (A100, H100 and newer)",
                             device->name, major, minor, CAPABILITY_MAJOR_MIN);
    }
    if (shared < SHARED_BYTES_MIN) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s lets a block of threads have %d bytes of shared memory: expected at least %d, as "
                             "A100, H100 and B200 have", device->name, shared, SHARED_BYTES_MIN);
    }
    if (mhp_cuda_has_code() != cudaSuccess) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "this build has no code for %s, compute capability %d.%d: build it with "
                             "-DCMAKE_CUDA_ARCHITECTURES=%d%d", device->name, major, minor, major, minor);
    }
    return MHP_OK;
}

static mhp_status open_card(cuda_device *device, int index)
{
    struct cudaDeviceProp properties;
    int count = 0;

    mhp_environment_set();
    MHP_RETURN_IF_ERROR(find_driver(&count));
    if (index < 0 || index >= count) {
        return mhp_error_set(MHP_ERR_DEVICE, "card %d is not there: the cards that are visible have the numbers 0 to %d", index, count - 1);
    }
    device->index = index;
    snprintf(device->name, sizeof device->name, "cuda:%d", index);
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties"));
    snprintf(device->name, sizeof device->name, "cuda:%d (%.64s)", index, properties.name);
    /* Blocking: a thread that waits for the card sleeps. */
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaInitDevice(index, cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid),
                                       "cudaInitDevice"));
    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    return check_capability(device);
}

/* ---- memory ---- */

static mhp_status keep_allocation(cuda_device *device, void *pointer, size_t bytes, bool on_host)
{
    allocation *kept;

    MHP_RETURN_IF_ERROR(mhp_calloc(&kept, 1, sizeof *kept));
    *kept = (allocation){device->allocations, pointer, bytes, on_host};
    device->allocations = kept;
    return MHP_OK;
}

static void release(const allocation *kept)
{
    if (kept->on_host) {
        (void)cudaFreeHost(kept->pointer);
    } else {
        (void)cudaFree(kept->pointer);
    }
}

/* Forgets and frees it; returns its size. */
static size_t drop_allocation(cuda_device *device, void *pointer)
{
    size_t bytes = 0;

    (void)cudaSetDevice(device->index);
    for (allocation **link = &device->allocations; *link; link = &(*link)->next) {
        allocation *kept = *link;

        if (kept->pointer == pointer) {
            *link = kept->next;
            bytes = kept->bytes;
            release(kept);
            mhp_free(kept);
            break;
        }
    }
    return bytes;
}

static mhp_status refuse_memory(cuda_device *device, size_t bytes)
{
    size_t left = 0, total = 0;

    (void)cudaGetLastError();           /* the refusal sticks to nothing */
    (void)cudaMemGetInfo(&left, &total);
    return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %.3f GiB on %s: %.3f of its %.3f GiB are free, %.3f are in use here",
                         (double)bytes / GIB, device->name, (double)left / GIB, (double)total / GIB, (double)device->host.bytes / GIB);
}

static mhp_status cuda_alloc(mhp_device *base, size_t bytes, void **pointer_out)
{
    mhp_status status;
    cuda_device *device = cuda_of(base);
    cudaError_t code;

    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    code = cudaMalloc(pointer_out, bytes > 0 ? bytes : 1);
    if (code == cudaErrorMemoryAllocation || code == cudaErrorInvalidValue) {
        return refuse_memory(device, bytes);
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, code, "cudaMalloc"));
    status = keep_allocation(device, *pointer_out, bytes, false);
    if (status < 0) {
        (void)cudaFree(*pointer_out);
        return status;
    }
    mhp_host_add_bytes(&device->host, bytes);
    return MHP_OK;
}

static void cuda_free(mhp_device *base, void *pointer)
{
    mhp_host_remove_bytes(host_of(base), drop_allocation(cuda_of(base), pointer));
}

mhp_status mhp_cuda_alloc_pinned(cuda_device *device, size_t bytes, void **pointer_out)
{
    mhp_status status;
    cudaError_t code;

    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    code = cudaHostAlloc(pointer_out, bytes > 0 ? bytes : 1, cudaHostAllocPortable | cudaHostAllocMapped);
    if (code == cudaErrorMemoryAllocation || code == cudaErrorInvalidValue) {
        (void)cudaGetLastError();
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot allocate %zu bytes of pinned host memory", bytes);
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, code, "cudaHostAlloc"));
    memset(*pointer_out, 0, bytes);
    status = keep_allocation(device, *pointer_out, bytes, true);
    if (status < 0) {
        (void)cudaFreeHost(*pointer_out);
    }
    return status;
}

static mhp_status cuda_alloc_host(mhp_device *base, size_t bytes, void **pointer_out)
{
    return mhp_cuda_alloc_pinned(cuda_of(base), bytes, pointer_out);
}

static void cuda_free_host(mhp_device *base, void *pointer)
{
    (void)drop_allocation(cuda_of(base), pointer);
}

static mhp_status cuda_memory(mhp_device *base, size_t *free_out, size_t *total_out)
{
    MHP_RETURN_IF_ERROR(mhp_cuda_use(cuda_of(base)));
    return mhp_cuda_check(cuda_of(base), cudaMemGetInfo(free_out, total_out), "cudaMemGetInfo");
}

static void cuda_bus_id(const mhp_device *base, char text[MHP_BUS_ID_MAX])
{
    if (cudaDeviceGetPCIBusId(text, MHP_BUS_ID_MAX, cuda_of(base)->index) != cudaSuccess) {
        (void)cudaGetLastError();
        text[0] = '\0';
    }
}

static int cuda_processors(const mhp_device *base)
{
    int count = 0;

    (void)cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, cuda_of(base)->index);
    return count;
}

/* ---- opening and closing ---- */

static mhp_status find_operation(cuda_device *device, const char *name, flag_operation *operation_out)
{
    enum cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    void *found = NULL;

#if CUDART_VERSION >= 12050
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaGetDriverEntryPointByVersion(name, &found, 11070, cudaEnableDefault, &result), name));
#else
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &result), name));
#endif
    if (result != cudaDriverEntryPointSuccess || !found) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s: the driver has no %s: install a newer driver", device->name, name);
    }
    memcpy(operation_out, &found, sizeof found);
    return MHP_OK;
}

static mhp_status create_clock(cuda_device *device)
{
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaStreamCreateWithFlags(&device->clock_stream, cudaStreamNonBlocking),
                                       "cudaStreamCreateWithFlags"));
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaEventCreate(&device->clock_event), "cudaEventCreate"));
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaEventCreate(&device->clock_spare), "cudaEventCreate"));
    return mhp_cuda_calibrate(device);
}

static mhp_status create_calls(cuda_device *device)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&device->calls, HOST_CALLS, sizeof *device->calls));
    for (int i = 0; i < HOST_CALLS; i++) {
        device->calls[i].next = device->free_calls;
        device->free_calls = &device->calls[i];
    }
    return MHP_OK;
}

/* Streams of the card that wait for what will not come now go on. */
static void release_waits(cuda_device *device)
{
    pthread_mutex_lock(&device->host.lock);
    for (host_event *event = device->host.events; event; event = event->next) {
        if (!event->source) {
            mhp_host_complete_event(event, event->issued, MHP_OK);
        }
    }
    pthread_mutex_unlock(&device->host.lock);
}

static void cuda_close(mhp_device *base)
{
    cuda_device *device = cuda_of(base);

    (void)cudaSetDevice(device->index);
    mhp_host_stop_threads(&device->host);
    release_waits(device);
    (void)cudaDeviceSynchronize();
    mhp_host_device_deinit(&device->host);
    if (device->clock_event) {
        (void)cudaEventDestroy(device->clock_event);
    }
    if (device->clock_spare) {
        (void)cudaEventDestroy(device->clock_spare);
    }
    if (device->clock_stream) {
        (void)cudaStreamDestroy(device->clock_stream);
    }
    mhp_cuda_destroy_partitions(device);
    mhp_cuda_detach_all(device);
    while (device->allocations) {
        (void)drop_allocation(device, device->allocations->pointer);
    }
    mhp_free(device->calls);
    mhp_free(device);
}

static mhp_status cuda_open(const mhp_device_params *params, mhp_device **device_out);

static const mhp_device_ops cuda_ops = {
    .count = cuda_count,
    .address = cuda_address,
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .alloc_host = cuda_alloc_host,
    .free_host = cuda_free_host,
    .bytes = mhp_host_bytes,
    .memory = cuda_memory,
    .bus_id = cuda_bus_id,
    .processors = cuda_processors,
    .stream_create = mhp_cuda_stream_create,
    .stream_destroy = mhp_cuda_stream_destroy,
    .submit = mhp_cuda_submit,
    .host_call = mhp_cuda_host_call,
    .copy = mhp_cuda_copy,
    .zero = mhp_cuda_zero,
    .wait = mhp_cuda_wait,
    .synchronize = mhp_cuda_synchronize,
    .check = mhp_cuda_stream_check,
    .busy_ns = mhp_cuda_busy_ns,
    .event_create = mhp_cuda_event_create,
    .event_destroy = mhp_cuda_event_destroy,
    .event_record = mhp_cuda_event_record,
    .event_mark = mhp_cuda_event_mark,
    .event_arm = mhp_host_event_arm,
    .event_signal = mhp_host_event_signal,
    .event_query = mhp_host_event_query,
    .event_synchronize = mhp_host_event_synchronize,
    .event_time_ns = mhp_cuda_event_time_ns,
    .event_count = mhp_host_event_count,
    .set_progress = mhp_host_set_progress,
    .wake_comm = mhp_host_wake_comm,
    .poison = mhp_host_poison,
    .sharing = &mhp_cuda_sharing,
};

static mhp_status cuda_open(const mhp_device_params *params, mhp_device **device_out)
{
    mhp_status status = MHP_OK;
    cuda_device *device = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&device, 1, sizeof *device));
    MHP_TRY(out, mhp_host_device_init(&device->host, params, &cuda_ops));
    MHP_TRY(out, open_card(device, params->index));
    device->host.check = check_card;
    MHP_TRY(out, find_operation(device, "cuStreamWriteValue32", &device->write_flag));
    MHP_TRY(out, find_operation(device, "cuStreamWaitValue32", &device->await_flag));
    MHP_TRY(out, create_calls(device));
    MHP_TRY(out, create_clock(device));
    *device_out = &device->host.base;
    device = NULL;
out:
    if (device) {
        cuda_close(&device->host.base);
    }
    return status;
}

const mhp_device_ops *mhp_device_cuda_backend(void)
{
    return &cuda_ops;
}
