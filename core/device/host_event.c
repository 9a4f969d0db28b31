/* Events. */
#include "core/device/host.h"
#include "core/memory.h"

static uint64_t completed_generation(const host_event *event)
{
    return event->issued - (uint32_t)((uint32_t)event->issued - atomic_load_explicit(event->flag, memory_order_acquire));
}

bool mhp_host_is_complete(const host_event *event, uint64_t generation)
{
    if (event->followed && generation == event->issued) {
        return mhp_word_has_reached(event->followed, event->followed_value);
    }
    return completed_generation(event) >= generation;
}

/* A followed generation counts as complete from here on: who still waits for it waits for the word. */
uint64_t mhp_host_issue(host_event *event)
{
    if (event->followed) {
        atomic_store_explicit(event->flag, (uint32_t)event->issued, memory_order_release);
        event->followed = NULL;
    }
    event->source = NULL;
    return ++event->issued;
}

bool mhp_host_is_silent(const host_event *event)
{
    return event->source || event->followed;
}

mhp_status mhp_host_event_error(const host_event *event)
{
    mhp_status status = event->source ? event->source->status : event->status;

    return status < 0 ? status : MHP_OK;
}

void mhp_host_complete_event(host_event *event, uint64_t generation, mhp_status status)
{
    if (generation > completed_generation(event) && generation <= event->issued) {
        event->status = status;
        event->time_ns = mhp_time_ns();
        atomic_store_explicit(event->flag, (uint32_t)generation, memory_order_release);
    }
    mhp_host_wake_all(event->device);
}

void mhp_host_event_init(host_event *event, host_device *device, _Atomic uint32_t *flag)
{
    event->base.device = &device->base;
    event->device = device;
    event->flag = flag ? flag : &event->own_flag;
    atomic_store(event->flag, 0);
    pthread_mutex_lock(&device->lock);
    event->next = device->events;
    event->link = &device->events;
    if (event->next) {
        event->next->link = &event->next;
    }
    device->events = event;
    pthread_mutex_unlock(&device->lock);
}

void mhp_host_event_deinit(host_event *event)
{
    pthread_mutex_lock(&event->device->lock);
    *event->link = event->next;
    if (event->next) {
        event->next->link = event->link;
    }
    pthread_mutex_unlock(&event->device->lock);
}

mhp_status mhp_host_event_create(mhp_device *base, mhp_event **event_out)
{
    host_event *event;

    MHP_RETURN_IF_ERROR(mhp_calloc(&event, 1, sizeof *event));
    mhp_host_event_init(event, host_of(base), NULL);
    *event_out = &event->base;
    return MHP_OK;
}

void mhp_host_event_destroy(mhp_event *base)
{
    mhp_host_event_deinit(host_event_of(base));
    mhp_free(base);
}

mhp_status mhp_host_event_arm(mhp_event *base)
{
    host_event *event = host_event_of(base);

    pthread_mutex_lock(&event->device->lock);
    mhp_host_issue(event);
    pthread_mutex_unlock(&event->device->lock);
    return MHP_OK;
}

mhp_status mhp_host_follow(mhp_event *base, mhp_word *word, uint32_t value)
{
    host_event *event = host_event_of(base);
    mhp_status status;

    pthread_mutex_lock(&event->device->lock);
    mhp_host_issue(event);
    event->status = event->device->poison;
    status = mhp_host_surface(event->device, event->device->poison);
    if (status == MHP_OK) {
        event->followed = word;
        event->followed_value = value;
    } else {
        mhp_host_complete_event(event, event->issued, status);
    }
    pthread_mutex_unlock(&event->device->lock);
    return status;
}

void mhp_host_event_signal(mhp_event *base, mhp_status status)
{
    host_event *event = host_event_of(base);

    pthread_mutex_lock(&event->device->lock);
    if (status < 0) {
        mhp_host_keep_error(event->device, status, mhp_error_text());
    }
    mhp_host_complete_event(event, completed_generation(event) + 1, status);    /* slots are reused in order, so arms complete in order */
    pthread_mutex_unlock(&event->device->lock);
}

/* The lock is held. */
static mhp_status event_status(const host_event *event)
{
    if (mhp_host_is_complete(event, event->issued)) {
        return mhp_host_surface(event->device, mhp_host_event_error(event));
    }
    return event->device->poison < 0 ? mhp_host_surface(event->device, event->device->poison) : MHP_IN_PROGRESS;
}

mhp_status mhp_host_event_query(mhp_event *base)
{
    host_event *event = host_event_of(base);
    mhp_status status;

    pthread_mutex_lock(&event->device->lock);
    status = event_status(event);
    pthread_mutex_unlock(&event->device->lock);
    return status;
}

mhp_status mhp_host_event_synchronize(mhp_event *base, uint64_t timeout_ns)
{
    host_event *event = host_event_of(base);
    uint64_t until_ns = timeout_ns > 0 ? mhp_time_ns() + timeout_ns : 0;
    uint64_t pause_ns = 0;
    mhp_status status;

    pthread_mutex_lock(&event->device->lock);
    while ((status = event_status(event)) == MHP_IN_PROGRESS) {
        if (until_ns > 0 && mhp_time_ns() >= until_ns) {
            status = mhp_error_set(MHP_ERR_TIMEOUT, "an event did not complete within %.3f s", (double)timeout_ns * 1e-9);
            break;
        }
        mhp_host_wait(event->device, until_ns, mhp_host_is_silent(event), &pause_ns);
    }
    pthread_mutex_unlock(&event->device->lock);
    return status;
}

uint64_t mhp_host_event_time_ns(const mhp_event *base)
{
    host_event *event = host_event_of(base);
    uint64_t time_ns;

    pthread_mutex_lock(&event->device->lock);
    time_ns = event->followed ? mhp_time_ns() : event->time_ns;        /* nobody was there when the word was written */
    pthread_mutex_unlock(&event->device->lock);
    return time_ns;
}

uint64_t mhp_host_event_count(const mhp_event *base)
{
    host_event *event = host_event_of(base);
    uint64_t count;

    pthread_mutex_lock(&event->device->lock);
    count = completed_generation(event);
    pthread_mutex_unlock(&event->device->lock);
    return count;
}
