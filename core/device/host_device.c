/* What a device holds on the host: its first error, its poison, its counts, and how a host thread waits. */
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "core/device/host.h"

enum { CARD_PAUSE_MIN_NS = 10000, CARD_PAUSE_MAX_NS = 50000, CHECK_PAUSE_NS = 1000000, CARD_TIMER_SLACK_NS = 2000, SECOND_NS = 1000000000 };

void mhp_host_keep_error(host_device *device, mhp_status status, const char *text)
{
    if (device->error == MHP_OK) {
        device->error = status;
        strncpy(device->error_text, text, sizeof device->error_text - 1);
    }
}

mhp_status mhp_host_surface(host_device *device, mhp_status status)
{
    return status < 0 ? mhp_error_set(status, "%s", device->error_text) : status;
}

void mhp_host_fail_stream(host_stream *stream, mhp_status status, const char *text)
{
    mhp_host_keep_error(stream->device, status, text);
    if (stream->status == MHP_OK) {
        stream->status = status;
    }
}

void mhp_host_wake_all(host_device *device)
{
    device->comm_pending = true;
    pthread_cond_broadcast(&device->compute_wake);
    pthread_cond_broadcast(&device->comm_wake);
    pthread_cond_broadcast(&device->host_wake);
}

static void wait_until(host_device *device, uint64_t until_ns)
{
    struct timespec until = {(time_t)(until_ns / SECOND_NS), (long)(until_ns % SECOND_NS)};

    pthread_cond_timedwait(&device->host_wake, &device->lock, &until);
}

void mhp_host_wait(host_device *device, uint64_t until_ns, bool on_card, uint64_t *pause_ns)
{
    uint64_t wake_ns;

    if (!device->check && !on_card) {
        if (until_ns == 0) {
            pthread_cond_wait(&device->host_wake, &device->lock);
        } else {
            wait_until(device, until_ns);
        }
        return;
    }
    if (!on_card) {
        *pause_ns = CHECK_PAUSE_NS;
    } else if (*pause_ns == 0) {
        prctl(PR_SET_TIMERSLACK, CARD_TIMER_SLACK_NS);
        *pause_ns = CARD_PAUSE_MIN_NS;
    } else {
        *pause_ns = *pause_ns * 2 < CARD_PAUSE_MAX_NS ? *pause_ns * 2 : CARD_PAUSE_MAX_NS;
    }
    wake_ns = mhp_time_ns() + *pause_ns;
    wait_until(device, until_ns > 0 && until_ns < wake_ns ? until_ns : wake_ns);
    if (device->check) {
        pthread_mutex_unlock(&device->lock);
        device->check(device);
        pthread_mutex_lock(&device->lock);
    }
}

mhp_status mhp_host_device_init(host_device *device, const mhp_device_params *params, const mhp_device_ops *ops)
{
    pthread_condattr_t attributes;

    device->base.ops = ops;
    device->base.kind = params->kind;
    device->queue_items = params->queue_items > 0 ? params->queue_items : QUEUE_ITEMS_DEFAULT;
    device->product_threads = params->threads;
    device->random = params->seed * 2 + 1;
    pthread_mutex_init(&device->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&device->compute_wake, &attributes);
    pthread_cond_init(&device->comm_wake, &attributes);
    pthread_cond_init(&device->host_wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return mhp_host_start_threads(device, params->kind != MHP_DEVICE_CUDA);
}

void mhp_host_device_deinit(host_device *device)
{
    mhp_host_stop_threads(device);
    while (device->streams) {
        device->base.ops->stream_destroy(&device->streams->base);
    }
    while (device->events) {
        device->base.ops->event_destroy(&device->events->base);
    }
    pthread_cond_destroy(&device->compute_wake);
    pthread_cond_destroy(&device->comm_wake);
    pthread_cond_destroy(&device->host_wake);
    pthread_mutex_destroy(&device->lock);
}

void mhp_host_add_bytes(host_device *device, size_t bytes)
{
    pthread_mutex_lock(&device->lock);
    device->bytes += bytes;
    device->bytes_peak = device->bytes > device->bytes_peak ? device->bytes : device->bytes_peak;
    pthread_mutex_unlock(&device->lock);
}

void mhp_host_remove_bytes(host_device *device, size_t bytes)
{
    pthread_mutex_lock(&device->lock);
    device->bytes -= bytes;
    pthread_mutex_unlock(&device->lock);
}

size_t mhp_host_bytes(const mhp_device *base, bool peak)
{
    host_device *device = host_of(base);
    size_t bytes;

    pthread_mutex_lock(&device->lock);
    bytes = peak ? device->bytes_peak : device->bytes;
    pthread_mutex_unlock(&device->lock);
    return bytes;
}

mhp_status mhp_host_set_progress(mhp_device *base, mhp_progress_fn progress, void *context)
{
    host_device *device = host_of(base);

    pthread_mutex_lock(&device->lock);
    device->progress = progress;
    device->progress_context = context;
    mhp_host_wake_all(device);
    pthread_mutex_unlock(&device->lock);
    return MHP_OK;
}

void mhp_host_wake_comm(mhp_device *base)
{
    host_device *device = host_of(base);

    pthread_mutex_lock(&device->lock);
    device->comm_pending = true;
    pthread_cond_signal(&device->comm_wake);
    pthread_mutex_unlock(&device->lock);
}

/* Events complete with the error, so that streams that wait for them on a card go on as well. */
void mhp_host_poison(mhp_device *base, mhp_status status)
{
    host_device *device = host_of(base);

    pthread_mutex_lock(&device->lock);
    mhp_host_keep_error(device, status, mhp_error_text());
    if (device->poison == MHP_OK) {
        device->poison = status;
    }
    for (host_event *event = device->events; event; event = event->next) {
        if (!mhp_host_is_complete(event, event->issued)) {
            event->source = NULL;
            event->followed = NULL;
            mhp_host_complete_event(event, event->issued, device->poison);
        }
    }
    mhp_host_wake_all(device);
    pthread_mutex_unlock(&device->lock);
}
