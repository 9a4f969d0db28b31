/* What a backend provides. core/device.c forwards to these; one const table a backend. Contracts: core/device.h. */
#ifndef MHP_CORE_DEVICE_BACKEND_H
#define MHP_CORE_DEVICE_BACKEND_H

#include "core/device.h"
#include "core/sharing.h"

/* Contracts: core/sharing.h. */
typedef struct mhp_sharing_ops {
    void (*card_id)(mhp_device *device, unsigned char id_out[MHP_CARD_ID_BYTES]);   /* NULL: no card */
    bool (*owns)(const mhp_device *device, const void *pointer);
    mhp_status (*share)(mhp_device *device, const void *pointer, mhp_shared_name *name_out, size_t *offset_out);
    mhp_status (*attach)(mhp_device *device, const mhp_shared_name *name, void **pointer_out);
    void (*detach)(mhp_device *device, void *pointer);
    mhp_status (*pin)(mhp_device *device, void *memory, size_t bytes);
    void (*unpin)(mhp_device *device, void *memory);
    mhp_status (*write_word)(mhp_stream *stream, mhp_word *word, uint32_t value);
    mhp_status (*await_word)(mhp_stream *stream, mhp_word *word, uint32_t value);
    mhp_status (*follow)(mhp_event *event, mhp_word *word, uint32_t value);
} mhp_sharing_ops;

typedef struct mhp_device_ops {
    int (*count)(void);
    void (*address)(int index, char address[MHP_DEVICE_ADDRESS_MAX]);   /* NULL for backends without cards */
    mhp_status (*open)(const mhp_device_params *params, mhp_device **device_out);
    void (*close)(mhp_device *device);
    mhp_status (*alloc)(mhp_device *device, size_t bytes, void **pointer_out);
    void (*free)(mhp_device *device, void *pointer);
    mhp_status (*alloc_host)(mhp_device *device, size_t bytes, void **pointer_out);
    void (*free_host)(mhp_device *device, void *pointer);
    size_t (*bytes)(const mhp_device *device, bool peak);
    mhp_status (*memory)(mhp_device *device, size_t *free_out, size_t *total_out);
    void (*bus_id)(const mhp_device *device, char text[MHP_BUS_ID_MAX]);
    int (*processors)(const mhp_device *device);        /* NULL for backends without cards */
    /* `spared` > 0: keeps off so many multiprocessors; < 0: keeps to those which these others leave. */
    mhp_status (*stream_create)(mhp_device *device, mhp_stream_kind kind, int priority, int spared, const char *name,
                                mhp_stream **stream_out);
    void (*stream_destroy)(mhp_stream *stream);
    mhp_status (*submit)(mhp_stream *stream, mhp_task_fn task, const void *argument, size_t bytes);
    mhp_status (*host_call)(mhp_stream *stream, mhp_task_fn call, const void *argument, size_t bytes);
    mhp_status (*call_always)(mhp_stream *stream, mhp_call_fn call, const void *argument, size_t bytes);
    mhp_status (*copy)(mhp_stream *stream, void *target, const void *source, size_t bytes);
    mhp_status (*zero)(mhp_stream *stream, void *target, size_t bytes);
    mhp_status (*wait)(mhp_stream *stream, mhp_event *event);
    mhp_status (*synchronize)(mhp_stream *stream);
    mhp_status (*check)(mhp_stream *stream);
    uint64_t (*busy_ns)(const mhp_stream *stream);
    mhp_status (*event_create)(mhp_device *device, mhp_event **event_out);
    void (*event_destroy)(mhp_event *event);
    mhp_status (*event_record)(mhp_event *event, mhp_stream *stream);
    mhp_status (*event_mark)(mhp_event *event, mhp_stream *stream);
    mhp_status (*event_arm)(mhp_event *event);
    void (*event_signal)(mhp_event *event, mhp_status status);
    mhp_status (*event_query)(mhp_event *event);
    mhp_status (*event_synchronize)(mhp_event *event, uint64_t timeout_ns);
    uint64_t (*event_time_ns)(const mhp_event *event);
    uint64_t (*event_count)(const mhp_event *event);
    mhp_status (*set_progress)(mhp_device *device, mhp_progress_fn progress, void *context);
    void (*wake_comm)(mhp_device *device);
    void (*poison)(mhp_device *device, mhp_status status);
    const mhp_sharing_ops *sharing;     /* NULL: nothing can be shared */
} mhp_device_ops;

/* Every backend's device, stream and event begin with these. */
struct mhp_device {
    const mhp_device_ops *ops;
    mhp_device_kind kind;
    uint64_t allocation_count;      /* host thread */
};

struct mhp_stream {
    mhp_device *device;
};

struct mhp_event {
    mhp_device *device;
};

extern const mhp_device_ops mhp_device_cpu_ops;         /* serves MHP_DEVICE_CPU and MHP_DEVICE_TEST */
const mhp_device_ops *mhp_device_cuda_backend(void);    /* NULL in a build without CUDA */

#endif
