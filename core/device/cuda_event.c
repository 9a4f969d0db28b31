/* Events of the CUDA backend. A stream of the card that records one writes the event's flag after a CUDA event: the flag tells the host,
 * which then polls memory and calls nothing; the CUDA event orders other streams of the card and keeps the time. */
#include "core/device/cuda_internal.h"
#include "core/memory.h"

enum { FLAGS_PER_CHUNK = 1024, CLOCK_TRIES = 8, CLOCK_AGE_MAX_NS = 1000000000 };

static mhp_status take_flag(cuda_device *device, flag_line **line_out)
{
    if (!device->free_flags) {
        flag_line *lines;

        MHP_RETURN_IF_ERROR(mhp_cuda_alloc_pinned(device, FLAGS_PER_CHUNK * sizeof *lines, (void **)&lines));
        for (int i = 0; i < FLAGS_PER_CHUNK; i++) {
            lines[i].next = device->free_flags;
            device->free_flags = &lines[i];
        }
    }
    *line_out = device->free_flags;
    device->free_flags = (*line_out)->next;
    return MHP_OK;
}

mhp_status mhp_cuda_event_create(mhp_device *base, mhp_event **event_out)
{
    mhp_status status = MHP_OK;
    cuda_device *device = cuda_of(base);
    cuda_event *event = NULL;

    MHP_TRY(out, mhp_cuda_use(device));
    MHP_TRY(out, mhp_calloc(&event, 1, sizeof *event));
    MHP_TRY(out, mhp_cuda_check(device, cudaEventCreate(&event->native), "cudaEventCreate"));
    MHP_TRY(out, take_flag(device, &event->line));
    mhp_host_event_init(&event->host, &device->host, &event->line->flag);
    *event_out = &event->host.base;
    event = NULL;
out:
    if (event && event->native) {
        (void)cudaEventDestroy(event->native);
    }
    mhp_free(event);
    return status;
}

/* The flag of an event that the card may still complete is not used again. */
void mhp_cuda_event_destroy(mhp_event *base)
{
    cuda_event *event = cuda_event_of(base);
    cuda_device *device = cuda_of(base->device);

    (void)cudaSetDevice(device->index);
    mhp_host_event_deinit(&event->host);
    if (mhp_host_is_complete(&event->host, event->host.issued) && device->host.poison == MHP_OK) {
        event->line->next = device->free_flags;
        device->free_flags = event->line;
    }
    (void)cudaEventDestroy(event->native);
    mhp_free(event);
}

/* If the card takes nothing more, the poison that follows completes the event. */
mhp_status mhp_cuda_event_record(mhp_event *base, mhp_stream *base_stream)
{
    cuda_event *event = cuda_event_of(base);
    cuda_stream *stream = cuda_stream_of(base_stream);
    cuda_device *device = cuda_of(base->device);
    uint64_t generation;
    CUresult code;

    if (is_on_host(base_stream)) {
        return mhp_host_event_record(base, base_stream);
    }
    pthread_mutex_lock(&device->host.lock);
    generation = mhp_host_issue(&event->host);
    event->host.source = &stream->host;
    pthread_mutex_unlock(&device->host.lock);
    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaEventRecord(event->native, stream->native), "cudaEventRecord"));
    code = device->write_flag(stream->native, (CUdeviceptr)(uintptr_t)event->host.flag, (uint32_t)generation,
                              CU_STREAM_WRITE_VALUE_DEFAULT);
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, code == CUDA_SUCCESS ? cudaSuccess : cudaErrorUnknown, "cuStreamWriteValue32"));
    return mhp_cuda_stream_error(stream);
}

/* No generation is issued: as an event it stays complete. */
mhp_status mhp_cuda_event_mark(mhp_event *base, mhp_stream *base_stream)
{
    cuda_event *event = cuda_event_of(base);
    cuda_stream *stream = cuda_stream_of(base_stream);
    cuda_device *device = cuda_of(base->device);

    if (is_on_host(base_stream)) {
        return mhp_host_event_record(base, base_stream);
    }
    pthread_mutex_lock(&device->host.lock);
    event->host.source = &stream->host;
    pthread_mutex_unlock(&device->host.lock);
    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaEventRecord(event->native, stream->native), "cudaEventRecord"));
    return mhp_cuda_stream_error(stream);
}

/* ---- time ---- */

/* Records the spare event and spins until it is there, a few microseconds: the stream has nothing else. */
static mhp_status read_clocks(cuda_device *device, uint64_t *middle_ns, uint64_t *width_ns)
{
    uint64_t start_ns = mhp_time_ns();
    cudaError_t code;

    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaEventRecord(device->clock_spare, device->clock_stream), "cudaEventRecord"));
    while ((code = cudaEventQuery(device->clock_spare)) == cudaErrorNotReady) {
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, code, "cudaEventQuery"));
    *width_ns = mhp_time_ns() - start_ns;
    *middle_ns = start_ns + *width_ns / 2;
    (void)cudaGetLastError();           /* "not ready" counts as one */
    return MHP_OK;
}

mhp_status mhp_cuda_calibrate(cuda_device *device)
{
    uint64_t best_ns = UINT64_MAX;

    for (int i = 0; i < CLOCK_TRIES; i++) {
        uint64_t middle_ns, width_ns;

        MHP_RETURN_IF_ERROR(read_clocks(device, &middle_ns, &width_ns));
        if (width_ns < best_ns) {
            cudaEvent_t spare = device->clock_event;

            device->clock_event = device->clock_spare;
            device->clock_spare = spare;
            device->clock_ns = middle_ns;
            best_ns = width_ns;
        }
    }
    return MHP_OK;
}

/* CUDA gives the time between two events, in single precision and on a clock that drifts from the host's: the other event is never old.
 * 0 if the card failed. */
uint64_t mhp_cuda_event_time_ns(const mhp_event *base)
{
    cuda_event *event = cuda_event_of(base);
    cuda_device *device = cuda_of(base->device);
    float elapsed_ms;

    if (!event->host.source) {
        return mhp_host_event_time_ns(base);
    }
    if (mhp_cuda_use(device) < 0 || (mhp_time_ns() - device->clock_ns > CLOCK_AGE_MAX_NS && mhp_cuda_calibrate(device) < 0) ||
        cudaEventElapsedTime(&elapsed_ms, device->clock_event, event->native) != cudaSuccess) {
        (void)cudaGetLastError();       /* not for the next launch's check to find */
        return 0;
    }
    return device->clock_ns + (uint64_t)(int64_t)((double)elapsed_ms * 1e6);
}
