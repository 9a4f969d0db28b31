/* Green contexts share the card's primary context: memory, events and kernels are those of all other streams. */
#include "core/device/cuda_partition.h"

#include <stdlib.h>
#include <string.h>

#include "core/device/cuda_internal.h"
#include "core/memory.h"

/* Parts that streams of a device asked for, until it is closed. */
struct cuda_partition {
    struct cuda_partition *next;
    int spared;                         /* as in mhp_device_ops.stream_create */
    void *context;                      /* CUgreenCtx */
};

/* Older headers do not say in which steps a card can be parted. */
#if CUDA_VERSION >= 13000

enum { GREEN_CONTEXTS = 12050 };

/* Entry points of the driver: none is linked. */
static bool find(const char *name, void *function_out, size_t bytes)
{
    enum cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    void *found = NULL;
    cudaError_t code = cudaGetDriverEntryPointByVersion(name, &found, GREEN_CONTEXTS, cudaEnableDefault, &result);

    if (code != cudaSuccess) {
        (void)cudaGetLastError();
    }
    memcpy(function_out, &found, bytes);
    return code == cudaSuccess && result == cudaDriverEntryPointSuccess && found;
}

static mhp_status refuse(const cuda_device *device, const char *call, int code)
{
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s cannot be parted: %s gives error %d of the driver; expected no "
                         "schedule.overlap.spare and no schedule.overlap.pair parts here", device->name, call, code);
}

/* The largest part that spares so many, in the steps in which the card can be parted; or what that leaves. */
static mhp_status find_part(const cuda_device *device, int spared, CUdevResource *part)
{
    PFN_cuDeviceGetDevResource_v12040 get_resource;
    PFN_cuDevSmResourceSplitByCount_v12040 split;
    CUdevResource whole, most, rest;
    unsigned groups = 1, wanted, step;
    int given = abs(spared);
    CUresult code;

    if (!find("cuDeviceGetDevResource", &get_resource, sizeof get_resource) || !find("cuDevSmResourceSplitByCount", &split, sizeof split)) {
        return refuse(device, "cuDevSmResourceSplitByCount", 0);
    }
    code = get_resource(device->index, &whole, CU_DEV_RESOURCE_TYPE_SM);
    if (code != CUDA_SUCCESS) {
        return refuse(device, "cuDeviceGetDevResource", (int)code);
    }
    step = whole.sm.smCoscheduledAlignment > 0 ? whole.sm.smCoscheduledAlignment : 1;
    wanted = (unsigned)given < whole.sm.smCount ? (whole.sm.smCount - (unsigned)given) / step * step : 0;
    if (wanted == 0 || wanted < whole.sm.minSmPartitionSize) {
        return mhp_error_set(MHP_ERR_INVALID, "%d multiprocessors to spare: %s has %u, and a part of them at least %u; expected less in "
                             "schedule.overlap", given, device->name, whole.sm.smCount, whole.sm.minSmPartitionSize);
    }
    code = split(&most, &groups, &whole, &rest, 0, wanted);
    if (code != CUDA_SUCCESS || groups != 1 || most.sm.smCount > wanted || (spared < 0 && rest.type != CU_DEV_RESOURCE_TYPE_SM)) {
        return refuse(device, "cuDevSmResourceSplitByCount", (int)code);
    }
    *part = spared > 0 ? most : rest;
    return MHP_OK;
}

static mhp_status create_context(const cuda_device *device, int spared, void **context_out)
{
    PFN_cuDevResourceGenerateDesc_v12040 describe;
    PFN_cuGreenCtxCreate_v12040 create;
    CUdevResource part;
    CUdevResourceDesc description;
    CUgreenCtx context;
    CUresult code;

    if (!find("cuDevResourceGenerateDesc", &describe, sizeof describe) || !find("cuGreenCtxCreate", &create, sizeof create)) {
        return refuse(device, "cuGreenCtxCreate", 0);
    }
    MHP_RETURN_IF_ERROR(find_part(device, spared, &part));
    code = describe(&description, &part, 1);
    if (code != CUDA_SUCCESS) {
        return refuse(device, "cuDevResourceGenerateDesc", (int)code);
    }
    code = create(&context, description, device->index, CU_GREEN_CTX_DEFAULT_STREAM);
    if (code != CUDA_SUCCESS) {
        return refuse(device, "cuGreenCtxCreate", (int)code);
    }
    *context_out = context;
    return MHP_OK;
}

static mhp_status create_stream(const cuda_device *device, void *context, int priority, cudaStream_t *native_out)
{
    PFN_cuGreenCtxStreamCreate_v12050 create_in;
    CUresult code;

    if (!find("cuGreenCtxStreamCreate", &create_in, sizeof create_in)) {
        return refuse(device, "cuGreenCtxStreamCreate", 0);
    }
    code = create_in(native_out, context, CU_STREAM_NON_BLOCKING, priority);
    return code == CUDA_SUCCESS ? MHP_OK : refuse(device, "cuGreenCtxStreamCreate", (int)code);
}

static void destroy_context(void *context)
{
    PFN_cuGreenCtxDestroy_v12040 destroy;

    if (find("cuGreenCtxDestroy", &destroy, sizeof destroy)) {
        (void)destroy(context);
    }
}

/* Asked for every product: what is found once is kept. */
static PFN_cuStreamGetGreenCtx_v12040 context_of;
static PFN_cuGreenCtxGetDevResource_v12040 resource_of;
static pthread_once_t questions = PTHREAD_ONCE_INIT;

static void find_questions(void)
{
    if (!find("cuStreamGetGreenCtx", &context_of, sizeof context_of) ||
        !find("cuGreenCtxGetDevResource", &resource_of, sizeof resource_of)) {
        context_of = NULL;
    }
}

int mhp_cuda_stream_processors(void *native)
{
    CUgreenCtx context = NULL;
    CUdevResource part;

    (void)pthread_once(&questions, find_questions);
    if (!native || !context_of || context_of(native, &context) != CUDA_SUCCESS || !context ||
        resource_of(context, &part, CU_DEV_RESOURCE_TYPE_SM) != CUDA_SUCCESS) {
        return 0;
    }
    return (int)part.sm.smCount;
}

#else

static mhp_status create_context(const cuda_device *device, int spared, void **context_out)
{
    (void)spared;
    *context_out = NULL;
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s cannot be parted: this build's toolkit is older than CUDA 13.0; expected no "
                         "schedule.overlap.spare and no schedule.overlap.pair parts", device->name);
}

static mhp_status create_stream(const cuda_device *device, void *context, int priority, cudaStream_t *native_out)
{
    (void)context, (void)priority, (void)native_out;
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s cannot be parted", device->name);
}

static void destroy_context(void *context)
{
    (void)context;
}

int mhp_cuda_stream_processors(void *native)
{
    (void)native;
    return 0;
}

#endif

mhp_status mhp_cuda_create_sparing(cuda_device *device, int spared, int priority, cudaStream_t *native_out)
{
    mhp_status status = MHP_OK;
    cuda_partition *partition = device->partitions;

    while (partition && partition->spared != spared) {
        partition = partition->next;
    }
    if (!partition) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&partition, 1, sizeof *partition));
        status = create_context(device, spared, &partition->context);
        if (status < 0) {
            mhp_free(partition);
            return status;
        }
        partition->spared = spared;
        partition->next = device->partitions;
        device->partitions = partition;
    }
    return create_stream(device, partition->context, priority, native_out);
}

void mhp_cuda_destroy_partitions(cuda_device *device)
{
    while (device->partitions) {
        cuda_partition *partition = device->partitions;

        device->partitions = partition->next;
        destroy_context(partition->context);
        mhp_free(partition);
    }
}
