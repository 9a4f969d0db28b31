/* What the files of the CPU backend share. Private to core/device/cpu*.c. */
#ifndef MHP_CORE_DEVICE_CPU_INTERNAL_H
#define MHP_CORE_DEVICE_CPU_INTERNAL_H

#include <pthread.h>

#include "core/device/backend.h"

enum { NAME_MAX_BYTES = 64 };

typedef enum item_kind { ITEM_TASK, ITEM_WAIT, ITEM_RECORD } item_kind;

typedef struct queue_item {
    item_kind kind;
    mhp_task_fn task;
    mhp_event *event;
    uint64_t generation;                /* of the event: what is waited for, or what is completed */
    _Alignas(16) char argument[MHP_TASK_ARGUMENT_MAX];
} queue_item;

typedef struct cpu_device cpu_device;

typedef struct cpu_stream {
    mhp_stream base;
    cpu_device *device;
    struct cpu_stream *next;            /* of the device's list */
    mhp_stream_kind kind;
    int priority;
    char name[NAME_MAX_BYTES];
    queue_item *items;
    size_t capacity, head, count;
    bool running;                       /* the head is being run, unlocked */
    mhp_status status;                  /* sticky */
    uint64_t busy_ns;
} cpu_stream;

typedef struct cpu_event {
    mhp_event base;
    cpu_device *device;
    uint64_t issued, completed;         /* generations */
    mhp_status status;                  /* of the completed generation */
    uint64_t time_ns;
} cpu_event;

struct cpu_device {
    mhp_device base;
    pthread_mutex_t lock;
    pthread_cond_t compute_wake, comm_wake, host_wake;
    pthread_t compute_thread, comm_thread;
    int started_threads;
    bool stopping;
    bool comm_pending;                  /* something for the comm thread happened since it looked */
    cpu_stream *streams;
    size_t queue_items;
    int threads;
    mhp_progress_fn progress;
    void *progress_context;
    mhp_status poison;
    char error_text[MHP_ERROR_TEXT_MAX];        /* of the first error */
    bool has_error;
    size_t bytes, bytes_peak;
    uint64_t random;                    /* test backend */
};

static inline cpu_device *cpu(const mhp_device *device)
{
    return (cpu_device *)(uintptr_t)device;
}

static inline cpu_stream *cpu_stream_of(const mhp_stream *stream)
{
    return (cpu_stream *)(uintptr_t)stream;
}

static inline cpu_event *cpu_event_of(const mhp_event *event)
{
    return (cpu_event *)(uintptr_t)event;
}

/* Of these four the caller holds the lock. Keeps the first error's text; gives a stored error back to the calling thread; wakes every
 * thread that waits; completes an event up to `generation`. */
void mhp_cpu_keep_error(cpu_device *device, const char *text);
mhp_status mhp_cpu_surface(cpu_device *device, mhp_status status);
void mhp_cpu_wake_all(cpu_device *device);
void mhp_cpu_complete_event(cpu_event *event, uint64_t generation, mhp_status status);

/* The compute thread and the comm thread. Stop works also after half a start. */
mhp_status mhp_cpu_start_threads(cpu_device *device);
void mhp_cpu_stop_threads(cpu_device *device);

/* Entries of the backend's table: core/device/backend.h. */
mhp_status mhp_cpu_stream_create(mhp_device *base, mhp_stream_kind kind, int priority, const char *name, mhp_stream **stream_out);
void mhp_cpu_stream_destroy(mhp_stream *base);
void mhp_cpu_free_stream(cpu_stream *stream);
mhp_status mhp_cpu_submit(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes);
mhp_status mhp_cpu_copy(mhp_stream *stream, void *target, const void *source, size_t bytes);
mhp_status mhp_cpu_zero(mhp_stream *stream, void *target, size_t bytes);
mhp_status mhp_cpu_wait(mhp_stream *stream, mhp_event *event);
mhp_status mhp_cpu_synchronize(mhp_stream *base);
mhp_status mhp_cpu_check(mhp_stream *base);
uint64_t mhp_cpu_busy_ns(const mhp_stream *base);
mhp_status mhp_cpu_event_create(mhp_device *base, mhp_event **event_out);
void mhp_cpu_event_destroy(mhp_event *event);
mhp_status mhp_cpu_event_record(mhp_event *event, mhp_stream *stream);
mhp_status mhp_cpu_event_arm(mhp_event *base);
void mhp_cpu_event_signal(mhp_event *base, mhp_status status);
mhp_status mhp_cpu_event_query(mhp_event *base);
mhp_status mhp_cpu_event_synchronize(mhp_event *base, uint64_t timeout_ns);
uint64_t mhp_cpu_event_time_ns(const mhp_event *base);

#endif
