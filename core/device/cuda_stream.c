/* Compute streams of the CUDA backend: CUDA streams. Nothing here calls CUDA while it holds the device's lock: such a call may wait for
 * the card, and the card for a thread that needs the lock. */
#include <assert.h>
#include <string.h>

#include "core/device/cuda_internal.h"
#include "core/device/cuda_stamp.h"
#include "core/memory.h"

static mhp_status take_ring(cuda_device *device, stamp_ring **ring_out)
{
    *ring_out = device->free_rings;
    if (device->free_rings) {
        device->free_rings = device->free_rings->next;
        memset(*ring_out, 0, sizeof **ring_out);
        return MHP_OK;
    }
    return mhp_cuda_alloc_pinned(device, sizeof **ring_out, (void **)ring_out);
}

static mhp_status create_native(cuda_device *device, int priority, int spared, cudaStream_t *native_out)
{
    int least, greatest;

    MHP_RETURN_IF_ERROR(mhp_cuda_check(device, cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange"));
    if (spared != 0) {
        return mhp_cuda_create_sparing(device, spared, least, native_out);
    }
    return mhp_cuda_check(device,
                          cudaStreamCreateWithPriority(native_out, cudaStreamNonBlocking, priority == MHP_PRIORITY_HIGH ? greatest : least),
                          "cudaStreamCreateWithPriority");
}

mhp_status mhp_cuda_stream_create(mhp_device *base, mhp_stream_kind kind, int priority, int spared, const char *name,
                                  mhp_stream **stream_out)
{
    mhp_status status = MHP_OK;
    cuda_device *device = cuda_of(base);
    cuda_stream *stream = NULL;

    if (kind == MHP_STREAM_COMM) {
        return mhp_host_stream_create(base, kind, priority, spared, name, stream_out);
    }
    MHP_TRY(out, mhp_cuda_use(device));
    MHP_TRY(out, mhp_calloc(&stream, 1, sizeof *stream));
    MHP_TRY(out, take_ring(device, &stream->ring));
    MHP_TRY(out, create_native(device, priority, spared, &stream->native));
    stream->created_ns = mhp_time_ns();
    mhp_host_stream_init(&stream->host, &device->host, kind, priority, name);
    *stream_out = &stream->host.base;
    stream = NULL;
out:
    if (stream && stream->ring) {
        stream->ring->next = device->free_rings;
        device->free_rings = stream->ring;
    }
    mhp_free(stream);
    return status;
}

/* Events that the stream completed keep its error. */
static void leave_events(cuda_stream *stream)
{
    host_device *device = stream->host.device;

    pthread_mutex_lock(&device->lock);
    for (host_event *event = device->events; event; event = event->next) {
        if (event->source == &stream->host) {
            event->status = stream->host.status;
            event->source = NULL;
            if (!mhp_host_is_complete(event, event->issued)) {      /* the card failed */
                mhp_host_complete_event(event, event->issued, device->poison);
            }
        }
    }
    pthread_mutex_unlock(&device->lock);
}

void mhp_cuda_stream_destroy(mhp_stream *base)
{
    cuda_stream *stream = cuda_stream_of(base);
    cuda_device *device = cuda_of(base->device);

    if (is_on_host(base)) {
        mhp_host_stream_destroy(base);
        return;
    }
    (void)cudaSetDevice(device->index);
    (void)cudaStreamSynchronize(stream->native);
    leave_events(stream);
    mhp_host_stream_unlink(&stream->host);
    (void)cudaStreamDestroy(stream->native);
    stream->ring->next = device->free_rings;
    device->free_rings = stream->ring;
    mhp_free(stream);
}

mhp_status mhp_cuda_stream_error(cuda_stream *stream)
{
    host_device *device = stream->host.device;
    mhp_status status;

    pthread_mutex_lock(&device->lock);
    status = device->poison < 0 ? device->poison : stream->host.status < 0 ? stream->host.status : device->error;
    status = mhp_host_surface(device, status);
    pthread_mutex_unlock(&device->lock);
    return status;
}

/* Keeps the calling thread's error. */
static mhp_status fail(cuda_stream *stream, mhp_status status)
{
    pthread_mutex_lock(&stream->host.device->lock);
    mhp_host_fail_stream(&stream->host, status, mhp_error_text());
    pthread_mutex_unlock(&stream->host.device->lock);
    return status;
}

static mhp_status enter(cuda_stream *stream)
{
    MHP_RETURN_IF_ERROR(mhp_cuda_stream_error(stream));
    return mhp_cuda_use(cuda_of(stream->host.base.device));
}

static mhp_status leave(cuda_stream *stream, cudaError_t code, const char *call)
{
    mhp_status status = mhp_cuda_check(cuda_of(stream->host.base.device), code, call);

    return status < 0 ? fail(stream, mhp_error_prefix(status, "stream \"%s\": ", stream->host.name)) : MHP_OK;
}

mhp_status mhp_cuda_submit(mhp_stream *base, mhp_task_fn task, const void *argument, size_t bytes)
{
    cuda_stream *stream = cuda_stream_of(base);
    mhp_status status;

    if (is_on_host(base)) {
        return mhp_host_submit(base, task, argument, bytes);
    }
    MHP_RETURN_IF_ERROR(enter(stream));
    status = task(stream->native, argument);
    return status < 0 ? fail(stream, status) : MHP_OK;
}

/* On CUDA's thread, in stream order. */
static void CUDART_CB run_host_call(void *context)
{
    host_call *call = context;
    cuda_stream *stream = call->stream;
    cuda_device *device = cuda_of(stream->host.base.device);
    mhp_status status = mhp_cuda_stream_error(stream);
    bool skipped = status < 0;

    if (!skipped) {
        status = call->call(NULL, call->argument);
    }
    pthread_mutex_lock(&device->host.lock);
    if (status < 0 && !skipped) {
        mhp_host_fail_stream(&stream->host, status, mhp_error_text());
    }
    call->next = device->free_calls;
    device->free_calls = call;
    pthread_cond_broadcast(&device->host.host_wake);
    pthread_mutex_unlock(&device->host.lock);
}

/* Waits for a free one; NULL once the device is poisoned. */
static host_call *take_call(cuda_device *device)
{
    uint64_t pause_ns = 0;
    host_call *call;

    pthread_mutex_lock(&device->host.lock);
    while (!device->free_calls && device->host.poison == MHP_OK) {
        mhp_host_wait(&device->host, 0, false, &pause_ns);
    }
    call = device->free_calls;
    if (call) {
        device->free_calls = call->next;
    }
    pthread_mutex_unlock(&device->host.lock);
    return call;
}

mhp_status mhp_cuda_host_call(mhp_stream *base, mhp_task_fn function, const void *argument, size_t bytes)
{
    cuda_stream *stream = cuda_stream_of(base);
    host_call *call;

    if (is_on_host(base)) {
        return mhp_host_submit(base, function, argument, bytes);
    }
    MHP_RETURN_IF_ERROR(enter(stream));
    call = take_call(cuda_of(base->device));
    if (!call) {
        return mhp_cuda_stream_error(stream);
    }
    call->stream = stream;
    call->call = function;
    if (bytes > 0) {
        memcpy(call->argument, argument, bytes);
    }
    return leave(stream, cudaLaunchHostFunc(stream->native, run_host_call, call), "cudaLaunchHostFunc");
}

mhp_status mhp_cuda_copy(mhp_stream *base, void *target, const void *source, size_t bytes)
{
    cuda_stream *stream = cuda_stream_of(base);

    if (is_on_host(base)) {
        return mhp_host_copy(base, target, source, bytes);
    }
    MHP_RETURN_IF_ERROR(enter(stream));
    return leave(stream, cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, stream->native), "cudaMemcpyAsync");
}

mhp_status mhp_cuda_zero(mhp_stream *base, void *target, size_t bytes)
{
    cuda_stream *stream = cuda_stream_of(base);

    if (is_on_host(base)) {
        return mhp_host_zero(base, target, bytes);
    }
    MHP_RETURN_IF_ERROR(enter(stream));
    return leave(stream, cudaMemsetAsync(target, 0, bytes, stream->native), "cudaMemsetAsync");
}

/* ---- waiting ---- */

/* Adds up the waits that are over; the lock is held. */
static void harvest_stamps(cuda_stream *stream)
{
    while (stream->stamp_tail != stream->stamp_head) {
        stamp_pair *pair = &stream->ring->pairs[stream->stamp_tail % STAMP_PAIRS];

        if (pair->after_ns == 0) {
            return;
        }
        stream->waited_ns += pair->after_ns - pair->before_ns;
        pair->before_ns = 0;
        pair->after_ns = 0;
        stream->stamp_tail++;
    }
}

/* NULL if more waits are under way than there is room for: then this one is not measured. */
static stamp_pair *take_stamps(cuda_stream *stream)
{
    stamp_pair *pair = NULL;

    pthread_mutex_lock(&stream->host.device->lock);
    harvest_stamps(stream);
    if (stream->stamp_head - stream->stamp_tail < STAMP_PAIRS) {
        pair = &stream->ring->pairs[stream->stamp_head % STAMP_PAIRS];
        stream->stamp_head++;
    }
    pthread_mutex_unlock(&stream->host.device->lock);
    return pair;
}

static mhp_status stamp(cuda_stream *stream, volatile uint64_t *slot)
{
    return leave(stream, mhp_cuda_stamp(stream->native, (uint64_t *)slot), "time stamp");
}

static mhp_status enqueue_await(cuda_stream *stream, _Atomic uint32_t *flag, uint32_t value)
{
    CUresult code = cuda_of(stream->host.base.device)->await_flag(stream->native, (CUdeviceptr)(uintptr_t)flag, value,
                                                                  CU_STREAM_WAIT_VALUE_GEQ);

    return leave(stream, code == CUDA_SUCCESS ? cudaSuccess : cudaErrorUnknown, "cuStreamWaitValue32");
}

/* What a wait is for, as it stood when it was asked for. */
typedef struct wait_target {
    const host_stream *source;
    _Atomic uint32_t *flag;             /* if there is no source */
    uint32_t value;
} wait_target;

/* An event that a stream of the card completes is awaited as CUDA does it; another by its flag or the word that it follows. */
static mhp_status enqueue_wait(cuda_stream *stream, cuda_event *event, const wait_target *target)
{
    if (target->source) {
        return leave(stream, cudaStreamWaitEvent(stream->native, event->native, 0), "cudaStreamWaitEvent");
    }
    return enqueue_await(stream, target->flag, target->value);
}

mhp_status mhp_cuda_wait(mhp_stream *base, mhp_event *base_event)
{
    cuda_stream *stream = cuda_stream_of(base);
    cuda_event *event = cuda_event_of(base_event);
    host_device *device = stream->host.device;
    wait_target target;
    stamp_pair *pair;
    bool complete;

    if (is_on_host(base)) {
        return mhp_host_stream_wait(base, base_event);
    }
    pthread_mutex_lock(&device->lock);
    target.source = event->host.source;
    target.flag = event->host.followed ? event->host.followed : event->host.flag;
    target.value = event->host.followed ? event->host.followed_value : (uint32_t)event->host.issued;
    complete = mhp_host_is_complete(&event->host, event->host.issued);
    if (stream->host.status == MHP_OK && (complete || target.source)) {
        stream->host.status = mhp_host_event_error(&event->host);
    }
    pthread_mutex_unlock(&device->lock);
    MHP_RETURN_IF_ERROR(enter(stream));
    if (complete || target.source == &stream->host) {
        return MHP_OK;
    }
    pair = stream->host.kind == MHP_STREAM_COMPUTE && (!target.source || target.source->kind == MHP_STREAM_COPY) ? take_stamps(stream)
                                                                                                                 : NULL;
    if (pair) {
        MHP_RETURN_IF_ERROR(stamp(stream, &pair->before_ns));
    }
    MHP_RETURN_IF_ERROR(enqueue_wait(stream, event, &target));
    return pair ? stamp(stream, &pair->after_ns) : MHP_OK;
}

mhp_status mhp_cuda_await_word(mhp_stream *base, mhp_word *word, uint32_t value)
{
    cuda_stream *stream = cuda_stream_of(base);

    assert(!is_on_host(base));
    MHP_RETURN_IF_ERROR(enter(stream));
    return enqueue_await(stream, word, value);
}

mhp_status mhp_cuda_write_word(mhp_stream *base, mhp_word *word, uint32_t value)
{
    cuda_stream *stream = cuda_stream_of(base);
    CUresult code;

    assert(!is_on_host(base));
    MHP_RETURN_IF_ERROR(enter(stream));
    code = cuda_of(base->device)->write_flag(stream->native, (CUdeviceptr)(uintptr_t)word, value, CU_STREAM_WRITE_VALUE_DEFAULT);
    return leave(stream, code == CUDA_SUCCESS ? cudaSuccess : cudaErrorUnknown, "cuStreamWriteValue32");
}

mhp_status mhp_cuda_synchronize(mhp_stream *base)
{
    cuda_stream *stream = cuda_stream_of(base);
    cuda_device *device = cuda_of(base->device);

    if (is_on_host(base)) {
        return mhp_host_synchronize(base);
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    MHP_RETURN_IF_ERROR(leave(stream, cudaStreamSynchronize(stream->native), "cudaStreamSynchronize"));
    return mhp_cuda_stream_error(stream);
}

mhp_status mhp_cuda_stream_check(mhp_stream *base)
{
    cuda_stream *stream = cuda_stream_of(base);
    cuda_device *device = cuda_of(base->device);

    if (is_on_host(base)) {
        return mhp_host_check(base);
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    device->host.check(&device->host);
    return mhp_cuda_stream_error(stream);
}

uint64_t mhp_cuda_busy_ns(const mhp_stream *base)
{
    cuda_stream *stream = cuda_stream_of(base);
    uint64_t passed_ns = mhp_time_ns() - stream->created_ns;
    uint64_t waited_ns;

    if (is_on_host(base)) {
        return mhp_host_busy_ns(base);
    }
    pthread_mutex_lock(&stream->host.device->lock);
    harvest_stamps(stream);
    waited_ns = stream->waited_ns;
    pthread_mutex_unlock(&stream->host.device->lock);
    return passed_ns > waited_ns ? passed_ns - waited_ns : 0;
}
