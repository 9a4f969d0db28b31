/* NVML: the driver's library, found at run time, so that nothing links to it. Its counter of a card's energy does not go round. */
#include <dlfcn.h>

#include "core/energy_internal.h"
#include "core/library.h"
#include "core/memory.h"

mhp_status mhp_nvml_load(mhp_nvml *nvml)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    const mhp_library_symbol functions[] = {
        {"nvmlInit_v2", &nvml->init},
        {"nvmlShutdown", &nvml->shutdown},
        {"nvmlErrorString", &nvml->error_text},
        {"nvmlDeviceGetHandleByPciBusId_v2", &nvml->find},
        {"nvmlDeviceGetTotalEnergyConsumption", &nvml->energy_mj},
    };
    const char *missing;

    if (!library) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "no libnvidia-ml.so.1: it comes with NVIDIA's driver");
    }
    missing = mhp_library_bind(library, functions, sizeof functions / sizeof *functions);
    if (missing) {
        dlclose(library);
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "libnvidia-ml.so.1 has no %s: install a newer driver", missing);
    }
    return MHP_OK;
}

static mhp_status sample(const mhp_energy_meter *meter, const energy_counter *counter, double *energy_j)
{
    unsigned long long energy_mj = 0;
    int code = meter->nvml->energy_mj(counter->card, &energy_mj);

    if (code != 0) {
        return mhp_error_set(MHP_ERR_DEVICE, "NVML's energy of %s: %s", counter->name, meter->nvml->error_text(code));
    }
    *energy_j = (double)energy_mj * 1e-3;
    return MHP_OK;
}

static void shut_down(mhp_energy_meter *meter)
{
    if (meter->nvml_is_up) {
        (void)meter->nvml->shutdown();
    }
}

static const energy_source nvml_source = {sample, shut_down};

static mhp_status add_card(mhp_energy_meter *meter, const char *bus_id)
{
    energy_counter *counter = &meter->counters[0];
    int code = meter->nvml->init();

    meter->nvml_is_up = code == 0;
    if (code != 0) {
        mhp_energy_fail(meter, "NVML does not start: %s", meter->nvml->error_text(code));
        return MHP_OK;
    }
    code = meter->nvml->find(bus_id, &counter->card);
    if (code != 0) {
        mhp_energy_fail(meter, "NVML does not find the card %s: %s", bus_id, meter->nvml->error_text(code));
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_asprintf(&counter->name, "card %s", bus_id));
    meter->count = 1;
    mhp_energy_start(meter);
    return MHP_OK;
}

mhp_status mhp_energy_open_card(const mhp_nvml *nvml, const char *bus_id, mhp_energy_meter **meter_out)
{
    mhp_status status = MHP_OK;
    mhp_energy_meter *meter = NULL;

    MHP_TRY(out, mhp_energy_create(&nvml_source, &meter));
    meter->nvml = nvml;
    MHP_TRY(out, add_card(meter, bus_id));
    *meter_out = meter;
    meter = NULL;
out:
    mhp_energy_close(meter);
    return status;
}
