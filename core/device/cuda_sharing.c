/* What a card's processes share: memory by CUDA's IPC handles, and words in pinned host memory. */
#include <string.h>

#include "core/device/cuda_internal.h"
#include "core/memory.h"

_Static_assert(sizeof(cudaIpcMemHandle_t) <= MHP_SHARED_NAME_BYTES, "a name has room for CUDA's handle");

static void cuda_card_id(mhp_device *base, unsigned char id_out[MHP_CARD_ID_BYTES])
{
    struct cudaDeviceProp properties;

    if (cudaGetDeviceProperties(&properties, cuda_of(base)->index) == cudaSuccess) {
        memcpy(id_out, &properties.uuid, MHP_CARD_ID_BYTES);
    }
}

/* Refusals of IPC stick to nothing: another transport may still work. */
static mhp_status refuse(cuda_device *device, cudaError_t code, const char *call)
{
    (void)cudaGetLastError();
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s: %s: %s (%s)", device->name, call, cudaGetErrorString(code), cudaGetErrorName(code));
}

static const allocation *find_allocation(const cuda_device *device, const void *pointer)
{
    const allocation *kept = device->allocations;

    while (kept && (kept->on_host || (const char *)pointer < (const char *)kept->pointer ||
                    (const char *)pointer >= (const char *)kept->pointer + kept->bytes)) {
        kept = kept->next;
    }
    return kept;
}

static bool cuda_owns(const mhp_device *base, const void *pointer)
{
    return find_allocation(cuda_of(base), pointer) != NULL;
}

static mhp_status cuda_share(mhp_device *base, const void *pointer, mhp_shared_name *name_out, size_t *offset_out)
{
    cuda_device *device = cuda_of(base);
    const allocation *kept = find_allocation(device, pointer);
    cudaIpcMemHandle_t handle;
    cudaError_t code;

    if (!kept) {
        return mhp_error_set(MHP_ERR_INVALID, "%s: %p is not device memory", device->name, pointer);
    }
    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    code = cudaIpcGetMemHandle(&handle, kept->pointer);
    if (code != cudaSuccess) {
        return refuse(device, code, "cudaIpcGetMemHandle");
    }
    memset(name_out, 0, sizeof *name_out);
    memcpy(name_out->bytes, &handle, sizeof handle);
    *offset_out = (size_t)((const char *)pointer - (const char *)kept->pointer);
    return MHP_OK;
}

static mhp_status open_handle(cuda_device *device, const mhp_shared_name *name, void **pointer_out)
{
    cudaIpcMemHandle_t handle;
    cudaError_t code;

    memcpy(&handle, name->bytes, sizeof handle);
    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    code = cudaIpcOpenMemHandle(pointer_out, handle, cudaIpcMemLazyEnablePeerAccess);
    return code == cudaSuccess ? MHP_OK : refuse(device, code, "cudaIpcOpenMemHandle");
}

static mhp_status cuda_attach(mhp_device *base, const mhp_shared_name *name, void **pointer_out)
{
    mhp_status status = MHP_OK;
    cuda_device *device = cuda_of(base);
    attachment *kept = device->attachments;

    while (kept && memcmp(&kept->name, name, sizeof *name) != 0) {
        kept = kept->next;
    }
    if (!kept) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&kept, 1, sizeof *kept));
        MHP_TRY(out, open_handle(device, name, &kept->pointer));
        kept->name = *name;
        kept->next = device->attachments;
        device->attachments = kept;
    }
    kept->count++;
    *pointer_out = kept->pointer;
    return MHP_OK;
out:
    mhp_free(kept);
    return status;
}

static void cuda_detach(mhp_device *base, void *pointer)
{
    cuda_device *device = cuda_of(base);

    for (attachment **link = &device->attachments; *link; link = &(*link)->next) {
        attachment *kept = *link;

        if (kept->pointer == pointer) {
            if (--kept->count == 0) {
                *link = kept->next;
                (void)cudaSetDevice(device->index);
                (void)cudaIpcCloseMemHandle(kept->pointer);
                mhp_free(kept);
            }
            return;
        }
    }
}

void mhp_cuda_detach_all(cuda_device *device)
{
    while (device->attachments) {
        device->attachments->count = 1;
        cuda_detach(&device->host.base, device->attachments->pointer);
    }
}

/* Streams take the host's own addresses, as they do for memory that CUDA allocated. */
static mhp_status cuda_pin(mhp_device *base, void *memory, size_t bytes)
{
    cuda_device *device = cuda_of(base);
    void *on_card = NULL;
    cudaError_t code;

    MHP_RETURN_IF_ERROR(mhp_cuda_use(device));
    code = cudaHostRegister(memory, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped);
    if (code != cudaSuccess) {
        return refuse(device, code, "cudaHostRegister");
    }
    code = cudaHostGetDevicePointer(&on_card, memory, 0);
    if (code != cudaSuccess || on_card != memory) {
        (void)cudaHostUnregister(memory);
        (void)cudaGetLastError();
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s: registered host memory has another address on the card", device->name);
    }
    return MHP_OK;
}

static void cuda_unpin(mhp_device *base, void *memory)
{
    (void)cudaSetDevice(cuda_of(base)->index);
    (void)cudaHostUnregister(memory);
}

const mhp_sharing_ops mhp_cuda_sharing = {
    .card_id = cuda_card_id,
    .owns = cuda_owns,
    .share = cuda_share,
    .attach = cuda_attach,
    .detach = cuda_detach,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .write_word = mhp_cuda_write_word,
    .await_word = mhp_cuda_await_word,
    .follow = mhp_host_follow,
};
