/* What the files of the CUDA backend share. Private to core/device/cuda*. */
#ifndef MHP_CORE_DEVICE_CUDA_INTERNAL_H
#define MHP_CORE_DEVICE_CUDA_INTERNAL_H

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "core/device/host.h"

enum { STAMP_PAIRS = 1024, CARD_NAME_MAX_BYTES = 96 };

typedef struct cuda_stream cuda_stream;

/* A function on its way to CUDA's thread. */
typedef struct host_call {
    struct host_call *next;             /* of the free ones */
    cuda_stream *stream;
    mhp_task_fn call;
    _Alignas(16) char argument[MHP_TASK_ARGUMENT_MAX];
} host_call;

/* An event's flag, in pinned memory, a cache line each. */
typedef struct flag_line {
    _Alignas(64) _Atomic uint32_t flag;
    struct flag_line *next;             /* of the free ones */
} flag_line;

/* When a stream began and ended a wait, on the card's clock; 0: not yet. Pinned. */
typedef struct stamp_pair {
    volatile uint64_t before_ns, after_ns;
} stamp_pair;

typedef struct stamp_ring {
    stamp_pair pairs[STAMP_PAIRS];
    struct stamp_ring *next;            /* of the free ones */
} stamp_ring;

/* Memory that the device gave out or uses itself; freed at close at the latest. */
typedef struct allocation {
    struct allocation *next;
    void *pointer;
    size_t bytes;
    bool on_host;
} allocation;

/* The oldest stream operations of the driver that this code may meet are those of CUDA 11.7. */
typedef PFN_cuStreamWriteValue32_v11070 flag_operation;

/* Another process's memory, mapped once for all who attach it. */
typedef struct attachment {
    struct attachment *next;
    mhp_shared_name name;
    void *pointer;
    int count;
} attachment;

typedef struct cuda_partition cuda_partition;

typedef struct cuda_device {
    host_device host;
    int index;
    char name[CARD_NAME_MAX_BYTES];     /* "cuda:0 (NVIDIA H100 80GB HBM3)" */
    flag_operation write_flag, await_flag;
    allocation *allocations;
    attachment *attachments;
    cuda_partition *partitions;
    flag_line *free_flags;
    stamp_ring *free_rings;
    host_call *calls, *free_calls;
    /* The moment clock_ns of mhp_time_ns is that of clock_event; the spare one is for the next measurement. */
    cudaStream_t clock_stream;
    cudaEvent_t clock_event, clock_spare;
    uint64_t clock_ns;
} cuda_device;

struct cuda_stream {
    host_stream host;
    cudaStream_t native;
    stamp_ring *ring;
    unsigned stamp_head, stamp_tail;
    uint64_t created_ns, waited_ns;
};

typedef struct cuda_event {
    host_event host;
    flag_line *line;
    cudaEvent_t native;
} cuda_event;

static inline cuda_device *cuda_of(const mhp_device *device)
{
    return (cuda_device *)(uintptr_t)device;
}

static inline cuda_stream *cuda_stream_of(const mhp_stream *stream)
{
    return (cuda_stream *)(uintptr_t)stream;
}

static inline cuda_event *cuda_event_of(const mhp_event *event)
{
    return (cuda_event *)(uintptr_t)event;
}

static inline bool is_on_host(const mhp_stream *stream)
{
    return host_stream_of(stream)->kind == MHP_STREAM_COMM;
}

/* What CUDA says of a call that failed, with its name; poisons the device, for after such an error the card takes nothing more. */
mhp_status mhp_cuda_check(cuda_device *device, cudaError_t code, const char *call);
mhp_status mhp_cuda_use(cuda_device *device);           /* makes the card the calling thread's */
mhp_status mhp_cuda_alloc_pinned(cuda_device *device, size_t bytes, void **pointer_out);
void mhp_cuda_detach_all(cuda_device *device);
/* Reads the clocks of host and card at one moment. */
mhp_status mhp_cuda_calibrate(cuda_device *device);
/* A CUDA stream that keeps to a part of the card; `spared` as in mhp_device_ops.stream_create, not 0. */
mhp_status mhp_cuda_create_sparing(cuda_device *device, int spared, int priority, cudaStream_t *native_out);
void mhp_cuda_destroy_partitions(cuda_device *device);
/* The error that keeps a stream from taking more, or MHP_OK. */
mhp_status mhp_cuda_stream_error(cuda_stream *stream);

/* Entries of the backend's table: core/device/backend.h. */
mhp_status mhp_cuda_stream_create(mhp_device *base, mhp_stream_kind kind, int priority, int spared, const char *name,
                                  mhp_stream **stream_out);
void mhp_cuda_stream_destroy(mhp_stream *base);
mhp_status mhp_cuda_submit(mhp_stream *base, mhp_task_fn task, const void *argument, size_t bytes);
mhp_status mhp_cuda_host_call(mhp_stream *base, mhp_task_fn call, const void *argument, size_t bytes);
mhp_status mhp_cuda_copy(mhp_stream *base, void *target, const void *source, size_t bytes);
mhp_status mhp_cuda_zero(mhp_stream *base, void *target, size_t bytes);
mhp_status mhp_cuda_wait(mhp_stream *base, mhp_event *event);
mhp_status mhp_cuda_await_word(mhp_stream *base, mhp_word *word, uint32_t value);
mhp_status mhp_cuda_write_word(mhp_stream *base, mhp_word *word, uint32_t value);
mhp_status mhp_cuda_synchronize(mhp_stream *base);
mhp_status mhp_cuda_stream_check(mhp_stream *base);
uint64_t mhp_cuda_busy_ns(const mhp_stream *base);
mhp_status mhp_cuda_event_create(mhp_device *base, mhp_event **event_out);
void mhp_cuda_event_destroy(mhp_event *base);
mhp_status mhp_cuda_event_record(mhp_event *base, mhp_stream *stream);
mhp_status mhp_cuda_event_mark(mhp_event *base, mhp_stream *stream);
uint64_t mhp_cuda_event_time_ns(const mhp_event *base);
extern const mhp_sharing_ops mhp_cuda_sharing;

#endif
