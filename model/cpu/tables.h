/* The CPU tables by element type and instruction set. MHP_CPU_X86 is defined where the wider ones exist. */
#ifndef MHP_MODEL_CPU_TABLES_H
#define MHP_MODEL_CPU_TABLES_H

#include "model/kernels.h"

extern const mhp_kernels mhp_cpu_f32_baseline, mhp_cpu_f64_baseline;
#if MHP_CPU_X86
extern const mhp_kernels mhp_cpu_f32_v3, mhp_cpu_f64_v3;
extern const mhp_kernels mhp_cpu_f32_v4, mhp_cpu_f64_v4;
#endif

/* The tables of `dtype` that this machine can run, the best first; NULL from the first index beyond them on. For tests and
 * benchmarks: others take what mhp_kernels_find gives. */
const mhp_kernels *mhp_cpu_kernels(mhp_dtype dtype, int index);

#endif
