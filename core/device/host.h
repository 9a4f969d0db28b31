/* Queues, events and threads on the host: all of the CPU backend, and of the CUDA backend the comm streams, the events and whatever
 * fails or is waited for. Private to core/device/. */
#ifndef MHP_CORE_DEVICE_HOST_H
#define MHP_CORE_DEVICE_HOST_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/device/backend.h"

enum { NAME_MAX_BYTES = 64, QUEUE_ITEMS_DEFAULT = 1024 };

typedef enum item_kind { ITEM_TASK, ITEM_CALL, ITEM_WAIT, ITEM_RECORD } item_kind;

typedef struct queue_item {
    item_kind kind;
    mhp_task_fn task;                   /* of a task */
    mhp_call_fn call;                   /* of a call, which is made on a failed stream too */
    mhp_event *event;                   /* NULL in a wait for a word alone */
    uint64_t generation;                /* of the event: what is waited for, or what is completed */
    mhp_word *word;                     /* waited for instead of the event if not NULL */
    uint32_t value;
    _Alignas(16) char argument[MHP_TASK_ARGUMENT_MAX];
} queue_item;

typedef struct host_device host_device;

typedef struct host_stream {
    mhp_stream base;
    host_device *device;
    struct host_stream *next;           /* of the device's list */
    mhp_stream_kind kind;
    int priority;
    char name[NAME_MAX_BYTES];
    queue_item *items;                  /* NULL: no thread of the host serves it */
    size_t capacity, head, count;
    bool running;                       /* the head is being run, unlocked */
    mhp_status status;                  /* sticky */
    uint64_t busy_ns;
    uint64_t mood;                      /* test backend; 0: not drawn yet */
} host_stream;

/* `flag` is the low half of the last completed generation. The threads of the host write it, and streams that run on a card write and
 * await it by themselves: then it lies in memory that both see, and `source` says which stream completes the last generation. An event
 * may also follow a word: then the last generation is complete when the word has reached `followed_value`. */
typedef struct host_event {
    mhp_event base;
    host_device *device;
    struct host_event *next, **link;    /* of the device's list */
    uint64_t issued;                    /* generations */
    _Atomic uint32_t own_flag;
    _Atomic uint32_t *flag;
    const host_stream *source;          /* NULL: a thread of the host or the followed word completes it */
    mhp_word *followed;
    uint32_t followed_value;
    mhp_status status;                  /* of the completed generation, unless it is source's */
    uint64_t time_ns;                   /* likewise */
} host_event;

struct host_device {
    mhp_device base;
    pthread_mutex_t lock;
    pthread_cond_t compute_wake, comm_wake, host_wake;
    pthread_t threads[2];
    int thread_count;
    bool stopping;
    bool comm_pending;                  /* something for the comm thread happened since it looked */
    host_stream *streams;
    host_event *events;
    size_t queue_items;
    int product_threads;
    mhp_progress_fn progress;
    void *progress_context;
    mhp_status poison;
    mhp_status error;                   /* the first one, and its text */
    char error_text[MHP_ERROR_TEXT_MAX];
    size_t bytes, bytes_peak;
    uint64_t random;                    /* test backend */
    /* Where streams run on a card: finds out whether that failed. Called now and then by a host thread that waits, without the lock.
     * The comm thread calls nothing of the card's, since such a call may wait for a submission that waits for the comm thread. */
    void (*check)(host_device *device);
};

static inline host_device *host_of(const mhp_device *device)
{
    return (host_device *)(uintptr_t)device;
}

static inline host_stream *host_stream_of(const mhp_stream *stream)
{
    return (host_stream *)(uintptr_t)stream;
}

static inline host_event *host_event_of(const mhp_event *event)
{
    return (host_event *)(uintptr_t)event;
}

/* Of these the caller holds the lock.
 * Keeps the first error with its text; gives a stored error back to the calling thread; makes an error stick to a stream. */
void mhp_host_keep_error(host_device *device, mhp_status status, const char *text);
mhp_status mhp_host_surface(host_device *device, mhp_status status);
void mhp_host_fail_stream(host_stream *stream, mhp_status status, const char *text);
void mhp_host_wake_all(host_device *device);
/* Sleeps until something happens, at most until `until_ns` (0: no limit); *pause_ns starts at 0 and is the callee's. `on_card`: what
 * is waited for happens there and wakes nobody. */
void mhp_host_wait(host_device *device, uint64_t until_ns, bool on_card, uint64_t *pause_ns);
/* Whether a generation is complete; the error that the event carries; completes it up to `generation`. */
bool mhp_host_is_complete(const host_event *event, uint64_t generation);
mhp_status mhp_host_event_error(const host_event *event);
void mhp_host_complete_event(host_event *event, uint64_t generation, mhp_status status);
/* The next generation of an event, which then follows no word. */
uint64_t mhp_host_issue(host_event *event);
/* Whether it completes without waking anybody: on a card, or by a word. */
bool mhp_host_is_silent(const host_event *event);

/* The parts of a device, a stream and an event; the memory is the backend's. */
mhp_status mhp_host_device_init(host_device *device, const mhp_device_params *params, const mhp_device_ops *ops);
void mhp_host_device_deinit(host_device *device);       /* stops the threads first; also after half an init */
void mhp_host_stream_init(host_stream *stream, host_device *device, mhp_stream_kind kind, int priority, const char *name);
void mhp_host_stream_unlink(host_stream *stream);
void mhp_host_event_init(host_event *event, host_device *device, _Atomic uint32_t *flag);
void mhp_host_event_deinit(host_event *event);

/* The threads: comm alone, or compute as well. Stop works also after half a start. */
mhp_status mhp_host_start_threads(host_device *device, bool compute);
void mhp_host_stop_threads(host_device *device);
/* Counts device memory. */
void mhp_host_add_bytes(host_device *device, size_t bytes);
void mhp_host_remove_bytes(host_device *device, size_t bytes);

/* Entries of a backend's table: core/device/backend.h. Streams are those that threads of the host serve. */
mhp_status mhp_host_stream_create(mhp_device *base, mhp_stream_kind kind, int priority, int spared, const char *name,
                                  mhp_stream **stream_out);
void mhp_host_stream_destroy(mhp_stream *base);
mhp_status mhp_host_submit(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes);
mhp_status mhp_host_call_always(mhp_stream *stream, mhp_call_fn call, const void *argument, size_t bytes);
mhp_status mhp_host_copy(mhp_stream *stream, void *target, const void *source, size_t bytes);
mhp_status mhp_host_zero(mhp_stream *stream, void *target, size_t bytes);
mhp_status mhp_host_stream_wait(mhp_stream *stream, mhp_event *event);
mhp_status mhp_host_synchronize(mhp_stream *base);
mhp_status mhp_host_check(mhp_stream *base);
uint64_t mhp_host_busy_ns(const mhp_stream *base);
mhp_status mhp_host_event_create(mhp_device *base, mhp_event **event_out);
void mhp_host_event_destroy(mhp_event *event);
mhp_status mhp_host_event_record(mhp_event *event, mhp_stream *stream);
mhp_status mhp_host_event_arm(mhp_event *base);
void mhp_host_event_signal(mhp_event *base, mhp_status status);
mhp_status mhp_host_event_query(mhp_event *base);
mhp_status mhp_host_event_synchronize(mhp_event *base, uint64_t timeout_ns);
uint64_t mhp_host_event_time_ns(const mhp_event *base);
uint64_t mhp_host_event_count(const mhp_event *base);
mhp_status mhp_host_write_word(mhp_stream *stream, mhp_word *word, uint32_t value);
mhp_status mhp_host_await_word(mhp_stream *stream, mhp_word *word, uint32_t value);
mhp_status mhp_host_follow(mhp_event *base, mhp_word *word, uint32_t value);
size_t mhp_host_bytes(const mhp_device *base, bool peak);
mhp_status mhp_host_set_progress(mhp_device *base, mhp_progress_fn progress, void *context);
void mhp_host_wake_comm(mhp_device *base);
void mhp_host_poison(mhp_device *base, mhp_status status);

/* Memory of the test backend: mappings that other processes can map as well. */
mhp_status mhp_test_alloc(mhp_device *base, size_t bytes, void **pointer_out);
size_t mhp_test_free(void *pointer);                    /* returns its size */
extern const mhp_sharing_ops mhp_test_sharing;

#endif
