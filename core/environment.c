#include "core/environment.h"

#include <stdlib.h>

static const mhp_variable variables[] = {
    {"CUDA_DEVICE_MAX_CONNECTIONS", "32", "streams of a card wait for each other", 8},
    {"CUDA_DEVICE_MAX_COPY_CONNECTIONS", "32", "copies of a card wait for each other", 8},
    {"CUDA_MODULE_LOADING", "EAGER", "a kernel that is loaded at its first launch may wait for streams that wait for its rank", 0},
    {"NCCL_NVLS_ENABLE", "0", "sums may depend on the network's switches, and multicast takes memory", 0},
};

const mhp_variable *mhp_environment_variables(size_t *count_out)
{
    *count_out = sizeof variables / sizeof *variables;
    return variables;
}

bool mhp_environment_too_little(const mhp_variable *variable, const char *text)
{
    return variable->minimum > 0 && atoi(text) < variable->minimum;
}

void mhp_environment_set(void)
{
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *text = getenv(variables[i].name);

        setenv(variables[i].name, variables[i].value, text && mhp_environment_too_little(&variables[i], text));
    }
}
