/* Devices: memory, streams and events behind one table of operations for every backend.
 *
 * A stream is a queue whose items run in order. Two kinds of threads serve queues on a CPU: the compute thread serves the streams
 * made with MHP_STREAM_COMPUTE, highest priority first whenever the head of a queue may run; the comm thread serves those made with
 * MHP_STREAM_COMM and calls the progress function (MPI polling) between items. On CUDA a compute stream is a CUDA stream, and the comm
 * thread is the same. The host thread only submits; nothing here but the functions named "synchronize" waits for work. If a queue is
 * full, submitting waits for space: what is submitted may not need the submitting thread to go on. (A card's queue takes about 1000
 * items, but no more than some 50 host calls between others.)
 *
 * An error of a task sticks to its stream: later items of that stream are skipped (events they record still complete, carrying the
 * error to whoever waits for them), and the error with its text surfaces at the next check or synchronize. On CUDA work may be on the
 * card already when something that it waits for fails: then it runs, and every compute stream of the device surfaces the error. */
#ifndef MHP_CORE_DEVICE_H
#define MHP_CORE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mhp_device mhp_device;
typedef struct mhp_stream mhp_stream;
typedef struct mhp_event mhp_event;

typedef enum mhp_device_kind {
    MHP_DEVICE_CPU,
    MHP_DEVICE_TEST,            /* the CPU backend that runs every task at the worst moment that the rules allow */
    MHP_DEVICE_CUDA,
} mhp_device_kind;

/* A copy stream moves messages on a card, beside the compute streams; without a card the compute thread serves it. */
typedef enum mhp_stream_kind { MHP_STREAM_COMPUTE, MHP_STREAM_COMM, MHP_STREAM_COPY } mhp_stream_kind;

enum { MHP_PRIORITY_NORMAL = 0, MHP_PRIORITY_HIGH = 1 };
enum { MHP_TASK_ARGUMENT_MAX = 448 };   /* bytes of a task's argument */

/* One task. `native` is the backend's stream (CUDA: cudaStream_t; CPU, comm streams and host calls: NULL); `argument` is the queue's
 * own copy. Touches device memory only; runs now or later, exactly once unless the stream holds an error. */
typedef mhp_status (*mhp_task_fn)(void *native, const void *argument);

typedef struct mhp_device_params {
    mhp_device_kind kind;
    int index;                  /* which card, from 0; 0 for backends without cards */
    int threads;                /* CPU: threads of matrix products and OpenMP regions on the compute thread; > 0 */
    uint64_t seed;              /* test backend: its choices */
    size_t queue_items;         /* per stream; 0 for the default */
} mhp_device_params;

/* Devices of a kind that this process can open; 0 if there is none, or no backend. */
int mhp_device_count(mhp_device_kind kind);
/* Where a card is: its address on the PCI bus, "0000:3b:00.0", from cudaDeviceGetPCIBusId; "" if there is no such card, or no cards. */
enum { MHP_DEVICE_ADDRESS_MAX = 32 };
void mhp_device_address(mhp_device_kind kind, int index, char address[MHP_DEVICE_ADDRESS_MAX]);
/* Opens a device and starts its threads. Any process may hold several. Close releases the streams and events that were made from it and
 * are still there, and on CUDA its memory; NULL is allowed. MHP_ERR_UNSUPPORTED and MHP_ERR_DEVICE say what is missing and what would
 * work: the backend, a driver, its version, a card, a card's abilities. */
mhp_status mhp_device_open(const mhp_device_params *params, mhp_device **device_out);
void mhp_device_close(mhp_device *device);
mhp_device_kind mhp_device_get_kind(const mhp_device *device);
/* Whether the host may read and write device memory, between tasks. */
bool mhp_device_is_host_memory(const mhp_device *device);

/* Device memory, 64-byte aligned (CUDA: 256), contents undefined (the test backend fills it with signalling NaNs). */
mhp_status mhp_device_alloc(mhp_device *device, size_t bytes, void **pointer_out);
void mhp_device_free(mhp_device *device, void *pointer);
/* Host memory that the device copies from and to at full speed, and without blocking the host; zeroed. From
 * MHP_PAGE_BYTES up it begins at a multiple of that. */
mhp_status mhp_device_alloc_host(mhp_device *device, size_t bytes, void **pointer_out);
void mhp_device_free_host(mhp_device *device, void *pointer);
/* How often either kind of memory was allocated so far. */
uint64_t mhp_device_allocation_count(const mhp_device *device);
/* Bytes that mhp_device_alloc handed out and that are not freed; and the most there ever were. */
size_t mhp_device_bytes(const mhp_device *device);
size_t mhp_device_bytes_peak(const mhp_device *device);
/* Bytes of the card that are free now, and in all; both SIZE_MAX where memory is the machine's own. */
mhp_status mhp_device_memory(mhp_device *device, size_t *free_out, size_t *total_out);

/* Multiprocessors of the card; 0 where there is none. */
int mhp_device_processors(const mhp_device *device);

enum { MHP_BUS_ID_MAX = 32 };
/* The card's PCI bus id, "0000:0a:00.0"; "" where there is no card. */
void mhp_device_bus_id(const mhp_device *device, char text[MHP_BUS_ID_MAX]);

/* `name` shows in traces and errors; it is copied. Destroying waits for the stream's items; NULL is allowed. */
mhp_status mhp_stream_create(mhp_device *device, mhp_stream_kind kind, int priority, const char *name, mhp_stream **stream_out);
/* The same for a compute stream of normal priority that leaves `spared` multiprocessors of a card, or some more, to other streams: a card
 * can be parted in steps alone (of 8 on an H100). 0 spares none; a CPU has none. MHP_ERR_INVALID if too few are left, MHP_ERR_UNSUPPORTED
 * where the driver or the toolkit cannot part a card. */
mhp_status mhp_stream_create_sparing(mhp_device *device, int spared, const char *name, mhp_stream **stream_out);
/* The same for one that keeps to what those of mhp_stream_create_sparing with the same number leave. */
mhp_status mhp_stream_create_spared(mhp_device *device, int spared, const char *name, mhp_stream **stream_out);
void mhp_stream_destroy(mhp_stream *stream);

/* Appends a task; `bytes` of `argument` are copied (at most MHP_TASK_ARGUMENT_MAX). */
mhp_status mhp_stream_submit(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes);
/* Appends a function that runs on the host in stream order (on a comm stream: on the comm thread). It calls nothing of this header but
 * mhp_event_signal, mhp_time_ns, mhp_stream_busy_ns and the byte counts, on a CPU also mhp_event_time_ns. */
mhp_status mhp_stream_host_call(mhp_stream *stream, mhp_task_fn call, const void *argument, size_t bytes);
/* A host call that is made in any case, exactly once: `status` is the stream's error, or MHP_OK. On a comm stream, for what has to
 * complete an event that was armed: nobody else would. */
typedef mhp_status (*mhp_call_fn)(mhp_status status, const void *argument);
mhp_status mhp_stream_call_always(mhp_stream *stream, mhp_call_fn call, const void *argument, size_t bytes);
/* Appends a copy between any two of host and device memory; on a comm stream of a CUDA device between host memory alone. Host memory
 * that mhp_device_alloc_host did not give may block the host meanwhile. */
mhp_status mhp_stream_copy(mhp_stream *stream, void *target, const void *source, size_t bytes);
/* Appends a fill with zero bytes. */
mhp_status mhp_stream_zero(mhp_stream *stream, void *target, size_t bytes);
/* Makes later items of the stream wait for what `event` stands for now (its last record or arm before this call); an event that
 * was never recorded is complete. */
mhp_status mhp_stream_wait(mhp_stream *stream, mhp_event *event);
/* Blocks the calling thread until all items ran; returns the stream's error, if any. */
mhp_status mhp_stream_synchronize(mhp_stream *stream);
/* The stream's sticky error, or MHP_OK; does not wait. */
mhp_status mhp_stream_check(mhp_stream *stream);
/* Nanoseconds that the stream worked since it was made. CPU: for which a thread ran its tasks. CUDA: the time that passed, less that
 * which the stream spent waiting for what the host or a copy stream completes (messages); time without anything submitted counts as
 * work. */
uint64_t mhp_stream_busy_ns(const mhp_stream *stream);

/* An event is destroyed when nothing that completes it or waits for it is under way. Its records and arms complete in the order in
 * which they were asked for: they are of one stream, or ordered by other events. */
mhp_status mhp_event_create(mhp_device *device, mhp_event **event_out);
void mhp_event_destroy(mhp_event *event);
/* Appends to `stream` a mark that completes the event when all earlier items ran; keeps the time. */
mhp_status mhp_event_record(mhp_event *event, mhp_stream *stream);
/* The same for an event of which only the time is of interest, once its stream was synchronized: nothing waits for it, nobody asks about
 * it. On a card that costs less, since the host need not learn of it. */
mhp_status mhp_event_mark(mhp_event *event, mhp_stream *stream);
/* For events that no stream records: makes the event incomplete until mhp_event_signal. Host thread, before anybody waits for it. */
mhp_status mhp_event_arm(mhp_event *event);
/* Completes the oldest arm that is not complete, with an error or MHP_OK (the calling thread's error text goes along). Any thread. */
void mhp_event_signal(mhp_event *event, mhp_status status);
/* MHP_OK if complete, MHP_IN_PROGRESS, or the error it completed with. */
mhp_status mhp_event_query(mhp_event *event);
/* Blocks the calling thread until complete, at most `timeout_ns` (0: for ever); MHP_ERR_TIMEOUT. Never spins. */
mhp_status mhp_event_synchronize(mhp_event *event, uint64_t timeout_ns);
/* Time of completion on mhp_time_ns's clock; the event must be complete. Host thread; on a CPU also host calls. Of an event that follows
 * a word, the time of this call, on a CPU. */
uint64_t mhp_event_time_ns(const mhp_event *event);
/* How many of its records and arms are complete so far: where a stream is that records it again and again. Any thread; does not wait. */
uint64_t mhp_event_count(const mhp_event *event);

/* Called on the comm thread, again and again while it returns a positive number of operations under way, once after every comm item, and
 * some fifty times a second when there is nothing else. A negative value is an error: it sticks to every comm stream. *moved_out, false
 * before, says that some of it came forward: then calls follow each other at once for a moment, which lets others have the core, else with
 * back-off. NULL to remove. */
typedef int (*mhp_progress_fn)(void *context, bool *moved_out);
mhp_status mhp_device_set_progress(mhp_device *device, mhp_progress_fn progress, void *context);
/* Wakes the comm thread so that the progress function runs again soon. Any thread. */
void mhp_device_wake_comm(mhp_device *device);

/* Fails every event and stream of the device with `status` and the calling thread's error text, so that whoever waits wakes up.
 * Any thread; for a lost peer or an expired deadline. */
void mhp_device_poison(mhp_device *device, mhp_status status);

/* A monotonic clock in nanoseconds. */
uint64_t mhp_time_ns(void);

#endif
