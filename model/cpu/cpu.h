/* What the CPU kernels share. The files of this folder are included into one source for each pair of element type and instruction
 * set (table.c says how), so everything in them is static and `real` is the element type.
 *
 * Hot loops are written with the compiler's vector types: one source then gives the same sums on every compiler, because the order
 * of additions is spelled out, and the compiler need not prove anything about overlap. */
#ifndef MHP_MODEL_CPU_CPU_H
#define MHP_MODEL_CPU_CPU_H

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "model/kernels.h"

#if MHP_CPU_DOUBLE
typedef double real;
typedef int64_t lane_int;
#define REAL_DTYPE MHP_DTYPE_F64
#define real_sqrt  sqrt
#define real_log   log
#define blas_gemm  cblas_dgemm
#else
typedef float real;
typedef int32_t lane_int;
#define REAL_DTYPE MHP_DTYPE_F32
#define real_sqrt  sqrtf
#define real_log   logf
#define blas_gemm  cblas_sgemm
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE __attribute__((noinline))

enum {
    LANES = MHP_CPU_VECTOR_BYTES / (int)sizeof(real),
    TOKEN_BLOCK = 32,           /* tokens of one work item: a multiple of LANES for every instruction set */
    THREADS_MAX = 256,          /* partial results kept on the stack */
    COEFFICIENTS_MAX = MHP_STREAMS_MAX * (MHP_STREAMS_MAX + 2),
};

typedef real vreal __attribute__((vector_size(MHP_CPU_VECTOR_BYTES)));
typedef real vreal_unaligned __attribute__((vector_size(MHP_CPU_VECTOR_BYTES), aligned(__alignof__(real)), may_alias));
typedef lane_int vint __attribute__((vector_size(MHP_CPU_VECTOR_BYTES)));

ALWAYS_INLINE vreal v_set(real value)
{
    return (vreal){0} + value;
}

/* The first `count` elements; the others are zero. With the constant LANES this is one load. */
ALWAYS_INLINE vreal v_load(const real *source, int count)
{
    vreal result = {0};

    if (count == LANES) {
        return *(const vreal_unaligned *)source;
    }
    memcpy(&result, source, (size_t)count * sizeof(real));
    return result;
}

ALWAYS_INLINE void v_store(real *target, vreal value, int count)
{
    if (count == LANES) {
        *(vreal_unaligned *)target = value;
    } else {
        memcpy(target, &value, (size_t)count * sizeof(real));
    }
}

ALWAYS_INLINE vreal v_select(vint mask, vreal yes, vreal no)
{
    return (vreal)((mask & (vint)yes) | (~mask & (vint)no));
}

/* NaN in `a` stays. */
ALWAYS_INLINE vreal v_max(vreal a, vreal b)
{
    return v_select(a < b, b, a);
}

/* Adds the upper half of the lanes to the lower half until one is left. */
ALWAYS_INLINE real v_sum(vreal value)
{
#if MHP_CPU_VECTOR_BYTES / (4 + 4 * MHP_CPU_DOUBLE) == 16
    value += __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    value += __builtin_shufflevector(value, value, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
#elif MHP_CPU_VECTOR_BYTES / (4 + 4 * MHP_CPU_DOUBLE) == 8
    value += __builtin_shufflevector(value, value, 4, 5, 6, 7, 0, 1, 2, 3);
#endif
#if MHP_CPU_VECTOR_BYTES / (4 + 4 * MHP_CPU_DOUBLE) == 2
    return value[0] + value[1];
#else
    return (value[0] + value[2]) + (value[1] + value[3]);
#endif
}

ALWAYS_INLINE real v_largest(vreal value)
{
    real largest = value[0];

    for (int lane = 1; lane < LANES; lane++) {
        largest = largest < value[lane] ? value[lane] : largest;
    }
    return largest;
}

ALWAYS_INLINE int min_int(int a, int b)
{
    return a < b ? a : b;
}

ALWAYS_INLINE int threads_for(int items)
{
    int threads = min_int(omp_get_max_threads(), THREADS_MAX);

    return items < threads ? (items > 0 ? items : 1) : threads;
}

/* Runs fn(args, begin, end) over [0, count) in blocks whose bounds do not depend on the number of threads. */
typedef void (*block_fn)(const void *args, int begin, int end);

static void for_blocks(block_fn fn, const void *args, int count, int block)
{
    int blocks = (int)(((int64_t)count + block - 1) / block);
    int threads = threads_for(blocks);

    if (threads == 1) {
        for (int begin = 0; begin < count; begin += min_int(block, count - begin)) {
            fn(args, begin, begin + min_int(block, count - begin));
        }
        return;
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int b = 0; b < blocks; b++) {
        fn(args, b * block, b * block + min_int(block, count - b * block));
    }
}

/* Runs fn(args, item, thread) for every item, with matrix products inside an item on one thread. */
typedef void (*item_fn)(const void *args, int item, int thread);

static void for_items(item_fn fn, const void *args, int count)
{
    int threads = threads_for(count);
    int blas_threads = openblas_get_num_threads();

    if (threads == 1) {
        for (int item = 0; item < count; item++) {
            fn(args, item, 0);
        }
        return;
    }
    openblas_set_num_threads(1);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int item = 0; item < count; item++) {
        fn(args, item, omp_get_thread_num());
    }
    openblas_set_num_threads(blas_threads);
}

/* Blocks of tokens with matrix products in them, each on one thread. */
typedef struct token_blocks {
    block_fn fn;
    const void *args;
    int tokens;
} token_blocks;

static void token_blocks_item(const void *argument, int item, int thread)
{
    const token_blocks *blocks = argument;

    (void)thread;
    blocks->fn(blocks->args, item * TOKEN_BLOCK, min_int((item + 1) * TOKEN_BLOCK, blocks->tokens));
}

static void for_token_blocks(block_fn fn, const void *args, int tokens)
{
    token_blocks blocks = {fn, args, tokens};

    for_items(token_blocks_item, &blocks, (int)(((int64_t)tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK));
}

typedef enum transposition { AS_IS, TRANSPOSED } transposition;

/* c [m,n] = alpha op(a) op(b) + beta c, row-major. */
ALWAYS_INLINE void product(transposition ta, transposition tb, int m, int n, int k, real alpha, const real *a, int lda,
                           const real *b, int ldb, real beta, real *c, int ldc)
{
    blas_gemm(CblasRowMajor, ta == TRANSPOSED ? CblasTrans : CblasNoTrans, tb == TRANSPOSED ? CblasTrans : CblasNoTrans, m, n, k,
              alpha, a, lda, b, ldb, beta, c, ldc);
}

#endif
