#include "launch/doctor_cards.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "core/library.h"

/* The part of nvml.h that is used here: its binary interface is fixed by the versions in the names. */
enum { NVML_NVLINKS_MAX = 18, NVML_P2P_NVLINK = 2 };
typedef struct nvml_device *nvml_handle;
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

typedef struct nvml_api {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_text)(int code);
    int (*driver_version)(char *text, unsigned length);
    int (*cuda_version)(int *version);
    int (*count)(unsigned *count);
    int (*handle)(unsigned index, nvml_handle *device);
    int (*name)(nvml_handle device, char *text, unsigned length);
    int (*memory)(nvml_handle device, nvml_memory *memory);
    int (*capability)(nvml_handle device, int *major, int *minor);
    int (*link_state)(nvml_handle device, unsigned link, unsigned *is_up);
    int (*peer_status)(nvml_handle device, nvml_handle other, unsigned ability, unsigned *status);
} nvml_api;

/* False if a function is not in the library. */
static bool load(void *library, nvml_api *api)
{
    const mhp_library_symbol functions[] = {
        {"nvmlInit_v2", &api->init},
        {"nvmlShutdown", &api->shutdown},
        {"nvmlErrorString", &api->error_text},
        {"nvmlSystemGetDriverVersion", &api->driver_version},
        {"nvmlSystemGetCudaDriverVersion_v2", &api->cuda_version},
        {"nvmlDeviceGetCount_v2", &api->count},
        {"nvmlDeviceGetHandleByIndex_v2", &api->handle},
        {"nvmlDeviceGetName", &api->name},
        {"nvmlDeviceGetMemoryInfo", &api->memory},
        {"nvmlDeviceGetCudaComputeCapability", &api->capability},
        {"nvmlDeviceGetNvLinkState", &api->link_state},
        {"nvmlDeviceGetP2PStatus", &api->peer_status},
    };

    return !mhp_library_bind(library, functions, sizeof functions / sizeof *functions);
}

static void describe(const nvml_api *api, nvml_handle handle, mhp_card *card)
{
    nvml_memory memory = {0};

    (void)api->name(handle, card->name, sizeof card->name);
    (void)api->memory(handle, &memory);
    (void)api->capability(handle, &card->major, &card->minor);
    card->bytes = memory.total;
    card->free_bytes = memory.free;
    for (unsigned link = 0; link < NVML_NVLINKS_MAX; link++) {
        unsigned is_up = 0;

        card->links += api->link_state(handle, link, &is_up) == 0 && is_up;
    }
}

static void find_peers(const nvml_api *api, const nvml_handle *handles, mhp_cards *cards)
{
    for (int i = 0; i < cards->count; i++) {
        for (int j = 0; j < cards->count; j++) {
            unsigned status = 1;

            cards->peers[i][j] =
                i != j && api->peer_status(handles[i], handles[j], NVML_P2P_NVLINK, &status) == 0 &&
                status == 0;
        }
    }
}

static void ask(const nvml_api *api, mhp_cards *cards)
{
    nvml_handle handles[MHP_CARDS_MAX] = {NULL};
    unsigned count = 0;

    (void)api->driver_version(cards->driver, sizeof cards->driver);
    (void)api->cuda_version(&cards->cuda);
    (void)api->count(&count);
    cards->count = count < MHP_CARDS_MAX ? (int)count : MHP_CARDS_MAX;
    for (int i = 0; i < cards->count; i++) {
        if (api->handle((unsigned)i, &handles[i]) == 0) {
            describe(api, handles[i], &cards->cards[i]);
        }
    }
    find_peers(api, handles, cards);
}

void mhp_cards_find(mhp_cards *cards)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    nvml_api api;
    int code;

    memset(cards, 0, sizeof *cards);
    if (!library) {
        snprintf(cards->failure, sizeof cards->failure, "no libnvidia-ml.so.1");
        return;
    }
    cards->loaded = true;
    if (!load(library, &api)) {
        snprintf(cards->failure, sizeof cards->failure, "libnvidia-ml.so.1 is older than 2018");
    } else if ((code = api.init()) != 0) {
        snprintf(cards->failure, sizeof cards->failure, "%s", api.error_text(code));
    } else {
        ask(&api, cards);
        (void)api.shutdown();
    }
    dlclose(library);
}
