/* Boxes of a tensor to shared memory, by the card's copy engine for tensors: tensor_map.h tells what a box is. One lane asks, others wait
 * at a barrier in shared memory for the bytes; nobody's registers or load units are in the way. From compute capability 9.0 on: kernels
 * compiled for less must not be launched. */
#ifndef MHP_MODEL_CUDA_BOXES_CUH
#define MHP_MODEL_CUDA_BOXES_CUH

#include "model/cuda/common.cuh"
#include "model/cuda/tensor_map.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define MHP_BOX_ASM(...) __trap()
#else
#define MHP_BOX_ASM(...) asm volatile(__VA_ARGS__)
#endif

/* A barrier of so many arrivals each turn, made by one thread, which calls barriers_made before others use any. */
__device__ __forceinline__ void make_barrier(uint64_t *barrier, int arrivals)
{
    MHP_BOX_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void barriers_made(void)
{
    MHP_BOX_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Waits for the end of the barrier's turn `turn`, counted from 0; only the last two are told apart. */
__device__ __forceinline__ void await_turn(uint64_t *barrier, int turn)
{
    MHP_BOX_ASM("{\n"
                ".reg .pred done;\n"
                "again:\n"
                "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                "@!done bra again;\n"
                "}" ::"r"(shared_address(barrier)),
                "r"(turn % 2)
                : "memory");
}

/* Arrival of the asker, before it asks: the turn ends when so many bytes have come too, those outside of the array included. */
__device__ __forceinline__ void expect_bytes(uint64_t *barrier, int bytes)
{
    MHP_BOX_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void load_box(const CUtensorMap *map, int column, int token, void *to, uint64_t *barrier)
{
    MHP_BOX_ASM("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(
                    shared_address(to)),
                "l"(map), "r"(column), "r"(token), "r"(0), "r"(shared_address(barrier))
                : "memory");
}

#undef MHP_BOX_ASM

#endif
