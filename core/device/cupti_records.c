/* Records of kernels and copies by CUPTI's Activity API. CUPTI asks for buffers and gives them back filled, on threads of its own; what
 * is in them is copied into room that was made at the start. */
#include <assert.h>
#include <cupti.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/device/cuda_internal.h"
#include "core/library.h"
#include "core/memory.h"
#include "core/records.h"

enum {
    BUFFER_BYTES = 4 << 20,
    BUFFER_COUNT = 16,
    NAMES_BYTES = 1 << 18,
    NAME_SLOTS = 1 << 12,           /* kernels with names of their own, at most half as many */
};

/* What is read of these records stands in the same place in those of CUPTI 12 and 13, whose later versions of the structs have more behind
 * it; either library serves. */
typedef CUpti_ActivityKernel9 kernel_record;
typedef CUpti_ActivityMemcpy5 copy_record;
typedef CUpti_ActivityMemcpyPtoP4 peer_copy_record;
typedef CUpti_ActivityMemset4 set_record;

typedef struct cupti_api {
    CUptiResult (*subscribe)(CUpti_SubscriberHandle *subscriber, CUpti_CallbackFunc callback, void *context);
    CUptiResult (*unsubscribe)(CUpti_SubscriberHandle subscriber);
    CUptiResult (*error_text)(CUptiResult result, const char **text);
    CUptiResult (*timestamp)(uint64_t *time);
    CUptiResult (*stream_number)(CUcontext context, CUstream stream, uint8_t per_thread, uint32_t *number);
    CUptiResult (*callbacks)(CUpti_BuffersCallbackRequestFunc requested, CUpti_BuffersCallbackCompleteFunc completed);
    CUptiResult (*set_attribute)(CUpti_ActivityAttribute attribute, size_t *bytes, void *value);
    CUptiResult (*enable)(CUpti_ActivityKind kind);
    CUptiResult (*disable)(CUpti_ActivityKind kind);
    CUptiResult (*flush)(uint32_t flag);
    CUptiResult (*next)(uint8_t *buffer, size_t bytes, CUpti_Activity **record);
    CUptiResult (*dropped)(CUcontext context, uint32_t stream, size_t *count);
} cupti_api;

typedef struct name_slot {
    const char *key;                /* CUPTI's text of a kernel, the same for all its records; NULL: free */
    uint32_t name;
} name_slot;

struct mhp_records {
    cuda_device *device;
    cupti_api api;
    CUpti_SubscriberHandle subscriber;
    bool subscribed;
    int enabled;                    /* of the kinds */
    /* Under the lock: */
    uint8_t *buffers[BUFFER_COUNT]; /* that CUPTI has not */
    int buffer_count;
    bool keeps;
    mhp_record_list list;           /* times are the card's until the end */
    size_t capacity;
    name_slot names[NAME_SLOTS];
    int name_count;
    mhp_card_clock before;
};

/* CUPTI's callbacks carry no context. The lock is nobody's: one that comes late finds it, and nobody to write to. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mhp_records *current;

static const CUpti_ActivityKind kinds[] = {
    CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,      /* the other kind of a kernel's record runs kernels one by one */
    CUPTI_ACTIVITY_KIND_MEMCPY,
    CUPTI_ACTIVITY_KIND_MEMCPY2,
    CUPTI_ACTIVITY_KIND_MEMSET,
};
enum { KIND_COUNT = sizeof kinds / sizeof *kinds };

/* ---- the library ---- */

static const char *bind(void *library, cupti_api *api)
{
    const mhp_library_symbol functions[] = {
        {"cuptiSubscribe", &api->subscribe},
        {"cuptiUnsubscribe", &api->unsubscribe},
        {"cuptiGetResultString", &api->error_text},
        {"cuptiGetTimestamp", &api->timestamp},
        {"cuptiGetStreamIdEx", &api->stream_number},
        {"cuptiActivityRegisterCallbacks", &api->callbacks},
        {"cuptiActivitySetAttribute", &api->set_attribute},
        {"cuptiActivityEnable", &api->enable},
        {"cuptiActivityDisable", &api->disable},
        {"cuptiActivityFlushAll", &api->flush},
        {"cuptiActivityGetNextRecord", &api->next},
        {"cuptiActivityGetNumDroppedRecords", &api->dropped},
    };

    return mhp_library_bind(library, functions, sizeof functions / sizeof *functions);
}

static mhp_status explain(const mhp_records *records, CUptiResult code, const char *call)
{
    const char *text = NULL;

    if (code == CUPTI_SUCCESS) {
        return MHP_OK;
    }
    if (code == CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "another profiler holds CUPTI");
    }
    if (records->api.error_text(code, &text) != CUPTI_SUCCESS || !text) {
        text = "an unknown error";
    }
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s: %s", call, text);
}

/* ---- names ---- */

char *__cxa_demangle(const char *mangled, char *output, size_t *length, int *code);     /* the C++ runtime's */

static void add_name(mhp_records *records, name_slot *slot, const char *key)
{
    char *plain = __cxa_demangle(key, NULL, NULL, NULL);
    char text[MHP_RECORD_NAME_MAX];
    size_t bytes;

    mhp_record_shorten(plain ? plain : key, text);
    free(plain);
    bytes = strlen(text) + 1;
    if (records->name_count == NAME_SLOTS / 2 || records->list.names_bytes + bytes > NAMES_BYTES) {
        return;
    }
    memcpy(records->list.names + records->list.names_bytes, text, bytes);
    *slot = (name_slot){key, (uint32_t)records->list.names_bytes};
    records->list.names_bytes += bytes;
    records->name_count++;
}

/* The name's place; 0, the empty name, if there is no room for more. */
static uint32_t find_name(mhp_records *records, const char *key)
{
    size_t at = (size_t)((uintptr_t)key * UINT64_C(0x9e3779b97f4a7c15) >> 32) % NAME_SLOTS;

    while (records->names[at].key && records->names[at].key != key) {
        at = (at + 1) % NAME_SLOTS;
    }
    if (!records->names[at].key && key) {
        add_name(records, &records->names[at], key);
    }
    return records->names[at].name;
}

/* ---- CUPTI's threads ---- */

static bool touches_host(uint8_t copy_kind)
{
    return copy_kind != CUPTI_ACTIVITY_MEMCPY_KIND_DTOD && copy_kind != CUPTI_ACTIVITY_MEMCPY_KIND_PTOP;
}

static bool read_record(mhp_records *records, const CUpti_Activity *found, mhp_record *out)
{
    *out = (mhp_record){.lane = -1};
    if (found->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL || found->kind == CUPTI_ACTIVITY_KIND_KERNEL) {
        const kernel_record *kernel = (const void *)found;

        out->start_ns = (int64_t)kernel->start;
        out->end_ns = (int64_t)kernel->end;
        out->stream = kernel->streamId;
        out->name = find_name(records, kernel->name);
        out->kind = strstr(records->list.names + out->name, "write_clock") ? MHP_RECORD_STAMP : MHP_RECORD_KERNEL;  /* cuda_stamp.cu */
    } else if (found->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
        const copy_record *copy = (const void *)found;

        *out = (mhp_record){(int64_t)copy->start, (int64_t)copy->end, (int64_t)copy->bytes, copy->streamId, 0,
                            touches_host(copy->copyKind) ? MHP_RECORD_COPY_HOST : MHP_RECORD_COPY_CARD, -1, {0}};
    } else if (found->kind == CUPTI_ACTIVITY_KIND_MEMCPY2) {
        const peer_copy_record *copy = (const void *)found;

        *out = (mhp_record){(int64_t)copy->start, (int64_t)copy->end, (int64_t)copy->bytes, copy->streamId, 0, MHP_RECORD_COPY_CARD, -1, {0}};
    } else if (found->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
        const set_record *set = (const void *)found;

        *out = (mhp_record){(int64_t)set->start, (int64_t)set->end, (int64_t)set->bytes, set->streamId, 0, MHP_RECORD_SET, -1, {0}};
    } else {
        return false;
    }
    return out->start_ns > 0 && out->end_ns >= out->start_ns;       /* zeros: CUPTI does not know */
}

static void read_buffer(mhp_records *records, uint8_t *buffer, size_t bytes)
{
    CUpti_Activity *found = NULL;
    mhp_record record;

    while (bytes > 0 && records->api.next(buffer, bytes, &found) == CUPTI_SUCCESS) {
        if (!read_record(records, found, &record) || !records->keeps || record.start_ns < records->before.card_ns) {
            continue;
        }
        if (records->list.count < records->capacity) {
            records->list.items[records->list.count++] = record;
        } else {
            records->list.lost++;
        }
    }
}

/* Without a buffer CUPTI drops records, and counts them. */
static void CUPTIAPI give_buffer(uint8_t **buffer, size_t *bytes, size_t *record_count)
{
    *buffer = NULL;
    *bytes = *record_count = 0;         /* as many as fit */
    pthread_mutex_lock(&lock);
    if (current && current->buffer_count > 0) {
        *buffer = current->buffers[--current->buffer_count];
        *bytes = BUFFER_BYTES;
    }
    pthread_mutex_unlock(&lock);
}

static void read_filled(mhp_records *records, CUcontext context, uint32_t stream, uint8_t *buffer, size_t valid_bytes)
{
    size_t dropped = 0;

    read_buffer(records, buffer, valid_bytes);
    if (records->api.dropped(context, stream, &dropped) == CUPTI_SUCCESS && records->keeps) {
        records->list.lost += (int64_t)dropped;
    }
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t bytes, size_t valid_bytes)
{
    (void)bytes;
    pthread_mutex_lock(&lock);
    if (current) {
        read_filled(current, context, stream, buffer, valid_bytes);
    }
    if (current && current->buffer_count < BUFFER_COUNT) {
        current->buffers[current->buffer_count++] = buffer;
    } else {                            /* of a recording before this one */
        free(buffer);
    }
    pthread_mutex_unlock(&lock);
}

/* That there is a subscriber keeps others out; it listens to nothing. */
static void CUPTIAPI hear(void *context, CUpti_CallbackDomain domain, CUpti_CallbackId id, const void *data)
{
    (void)context;
    (void)domain;
    (void)id;
    (void)data;
}

/* ---- the whole ---- */

static mhp_status make_room(mhp_records *records)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&records->list.items, records->capacity, sizeof *records->list.items));
    MHP_RETURN_IF_ERROR(mhp_calloc(&records->list.names, NAMES_BYTES, 1));
    memset(records->list.items, 0, records->capacity * sizeof *records->list.items);       /* the pages are there before the first step */
    records->list.names_bytes = 1;
    for (; records->buffer_count < BUFFER_COUNT; records->buffer_count++) {
        uint8_t *buffer = aligned_alloc(4096, BUFFER_BYTES);        /* by free, also when CUPTI gives it back late */

        if (!buffer) {
            return mhp_error_set(MHP_ERR_NO_MEMORY, "out of memory for the records of a card");
        }
        memset(buffer, 0, BUFFER_BYTES);
        records->buffers[records->buffer_count] = buffer;
    }
    return MHP_OK;
}

static void stop(mhp_records *records)
{
    while (records->enabled > 0) {
        (void)records->api.disable(kinds[--records->enabled]);
    }
    if (records->subscribed) {
        (void)records->api.unsubscribe(records->subscriber);
        records->subscribed = false;
    }
}

/* All threads write to one buffer: NCCL launches each kernel from a thread of its own, and with a buffer for each, which is its default,
 * there soon is none left. A CUPTI that does not know the attribute has no others. */
static void share_buffers(const mhp_records *records)
{
#if CUDA_VERSION >= 12030           /* whose headers name it */
    uint8_t per_thread = 0;
    size_t bytes = sizeof per_thread;

    (void)records->api.set_attribute(CUPTI_ACTIVITY_ATTR_PER_THREAD_ACTIVITY_BUFFER, &bytes, &per_thread);
#else
    (void)records;
#endif
}

static CUptiResult start(mhp_records *records, const char **call_out)
{
    CUptiResult code;

    *call_out = "cuptiSubscribe";
    if ((code = records->api.subscribe(&records->subscriber, hear, NULL)) != CUPTI_SUCCESS) {
        return code;
    }
    records->subscribed = true;
    share_buffers(records);
    *call_out = "cuptiActivityRegisterCallbacks";
    if ((code = records->api.callbacks(give_buffer, take_buffer)) != CUPTI_SUCCESS) {
        return code;
    }
    *call_out = "cuptiActivityEnable";
    for (; records->enabled < KIND_COUNT; records->enabled++) {
        if ((code = records->api.enable(kinds[records->enabled])) != CUPTI_SUCCESS) {
            return code;
        }
    }
    return CUPTI_SUCCESS;
}

/* From now on CUPTI's threads come to the records. */
static bool claim(mhp_records *records)
{
    bool is_free;

    pthread_mutex_lock(&lock);
    is_free = !current;
    current = is_free ? records : current;
    pthread_mutex_unlock(&lock);
    return is_free;
}

/* Who holds the lock is through with them then, and nobody comes to them later. */
static void disclaim(const mhp_records *records)
{
    pthread_mutex_lock(&lock);
    current = current == records ? NULL : current;
    pthread_mutex_unlock(&lock);
}

/* With the first library that begins: one may be there and not suit the driver. One that refused stays loaded, for it may have threads.
 * Where another profiler is, no other library is tried beside it. */
static mhp_status start_any(mhp_records *records)
{
    static const char *const names[] = {"libcupti.so.13", "libcupti.so.12", MHP_CUPTI_LIBRARY};    /* the loader's, then the build's */
    mhp_status status = mhp_error_set(MHP_ERR_UNSUPPORTED, "no libcupti.so.13 nor .12: it comes with CUDA's toolkit (LD_LIBRARY_PATH)");
    CUptiResult code = CUPTI_SUCCESS;

    for (size_t i = 0; i < sizeof names / sizeof *names && code != CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        const char *missing = library ? bind(library, &records->api) : NULL, *call;

        if (!library) {
            continue;
        }
        if (missing) {
            status = mhp_error_set(MHP_ERR_UNSUPPORTED, "CUPTI has no %s: expected that of CUDA 12 or 13", missing);
            dlclose(library);
            continue;
        }
        if (!claim(records)) {
            return mhp_error_set(MHP_ERR_UNSUPPORTED, "this process records its card already");
        }
        code = start(records, &call);
        if (code == CUPTI_SUCCESS) {
            return MHP_OK;
        }
        status = explain(records, code, call);
        stop(records);
        disclaim(records);
    }
    return status;
}

mhp_status mhp_records_open(mhp_device *device, size_t capacity, mhp_records **records_out)
{
    mhp_status status = MHP_OK;
    mhp_records *records = NULL;

    *records_out = NULL;
    if (mhp_device_get_kind(device) != MHP_DEVICE_CUDA) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "no card computes");
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_use(cuda_of(device)));
    MHP_RETURN_IF_ERROR(mhp_calloc(&records, 1, sizeof *records));
    records->device = cuda_of(device);
    records->capacity = capacity;
    MHP_TRY(out, make_room(records));
    MHP_TRY(out, start_any(records));
    *records_out = records;
    records = NULL;
out:
    mhp_records_close(records);
    return status;
}

static bool has_failed(mhp_records *records)
{
    host_device *host = &records->device->host;
    bool failed;

    pthread_mutex_lock(&host->lock);
    failed = host->poison < 0;
    pthread_mutex_unlock(&host->lock);
    return failed;
}

/* To end recording CUPTI may wait for the card. If that failed, it may wait for ever: all stays, and the process is about to end. */
void mhp_records_close(mhp_records *records)
{
    if (!records || (records->enabled > 0 && has_failed(records))) {
        return;
    }
    stop(records);
    disclaim(records);
    while (records->buffer_count > 0) {
        free(records->buffers[--records->buffer_count]);
    }
    mhp_free(records->list.items);
    mhp_free(records->list.names);
    mhp_free(records);
}

mhp_status mhp_records_stream(const mhp_records *records, mhp_stream *stream, uint32_t *number_out)
{
    MHP_RETURN_IF_ERROR(mhp_cuda_use(records->device));
    return explain(records, records->api.stream_number(NULL, cuda_stream_of(stream)->native, 0, number_out), "cuptiGetStreamIdEx");
}

static int64_t read_local(void *context)
{
    (void)context;
    return (int64_t)mhp_time_ns();
}

static int64_t read_card(void *context)
{
    const mhp_records *records = context;
    uint64_t time_ns = 0;

    return records->api.timestamp(&time_ns) == CUPTI_SUCCESS ? (int64_t)time_ns : 0;
}

static mhp_status read_clocks(mhp_records *records, mhp_card_clock *clock_out)
{
    *clock_out = mhp_card_clock_read(read_local, read_card, records);
    return clock_out->card_ns > 0 ? MHP_OK : mhp_error_set(MHP_ERR_UNSUPPORTED, "cuptiGetTimestamp gives no time");
}

mhp_status mhp_records_keep(mhp_records *records)
{
    mhp_card_clock now;

    MHP_RETURN_IF_ERROR(read_clocks(records, &now));
    pthread_mutex_lock(&lock);
    records->before = now;
    records->keeps = true;
    pthread_mutex_unlock(&lock);
    return MHP_OK;
}

static int compare_starts(const void *left, const void *right)
{
    const mhp_record *a = left, *b = right;

    return a->start_ns != b->start_ns ? (a->start_ns > b->start_ns) - (a->start_ns < b->start_ns)
                                      : (a->end_ns > b->end_ns) - (a->end_ns < b->end_ns);
}

mhp_status mhp_records_finish(mhp_records *records, mhp_record_list *list_out)
{
    mhp_card_clock after;
    mhp_record_list *list = &records->list;

    assert(records->keeps);
    MHP_RETURN_IF_ERROR(mhp_cuda_use(records->device));
    MHP_RETURN_IF_ERROR(read_clocks(records, &after));
    MHP_RETURN_IF_ERROR(explain(records, records->api.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "cuptiActivityFlushAll"));
    stop(records);
    pthread_mutex_lock(&lock);
    records->keeps = false;
    for (size_t i = 0; i < list->count; i++) {
        list->items[i].start_ns = mhp_card_clock_map(&records->before, &after, list->items[i].start_ns);
        list->items[i].end_ns = mhp_card_clock_map(&records->before, &after, list->items[i].end_ns);
    }
    qsort(list->items, list->count, sizeof *list->items, compare_starts);
    list->clock_error_ns = records->before.error_ns > after.error_ns ? records->before.error_ns : after.error_ns;
    *list_out = *list;
    pthread_mutex_unlock(&lock);
    return MHP_OK;
}
