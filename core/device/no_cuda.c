/* In place of cuda*.c in a build without CUDA. */
#include "core/device/backend.h"

const mhp_device_ops *mhp_device_cuda_backend(void)
{
    return NULL;
}
