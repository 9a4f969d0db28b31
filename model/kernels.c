/* Chooses a table of kernels. */
#include "model/kernels.h"

#include "model/cpu/tables.h"
#include "model/cuda/cuda.h"

#if MHP_CPU_X86
static bool has_v3(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_v4(void)
{
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw");
}
#endif

const mhp_kernels *mhp_cpu_kernels(mhp_dtype dtype, int index)
{
    const mhp_kernels *usable[3];
    bool wide = dtype == MHP_DTYPE_F64;
    int count = 0;

    if (dtype != MHP_DTYPE_F32 && dtype != MHP_DTYPE_F64) {
        return NULL;
    }
#if MHP_CPU_X86
    __builtin_cpu_init();
    if (has_v4()) {
        usable[count++] = wide ? &mhp_cpu_f64_v4 : &mhp_cpu_f32_v4;
    }
    if (has_v3()) {
        usable[count++] = wide ? &mhp_cpu_f64_v3 : &mhp_cpu_f32_v3;
    }
#endif
    usable[count++] = wide ? &mhp_cpu_f64_baseline : &mhp_cpu_f32_baseline;
    return index >= 0 && index < count ? usable[index] : NULL;
}

const mhp_kernels *mhp_kernels_find(mhp_device_kind kind, mhp_dtype dtype)
{
    return kind == MHP_DEVICE_CUDA ? mhp_cuda_kernels(dtype) : mhp_cpu_kernels(dtype, 0);
}
