/* mhcpipe bench: what a machine reaches. One file a kind. */
#ifndef MHP_LAUNCH_BENCH_H
#define MHP_LAUNCH_BENCH_H

#include <stdio.h>

#include "launch/session.h"
#include "model/kernels.h"
#include "runtime/store.h"

typedef struct mhp_bench_step_params {
    const mhp_config *config;
    mhp_comm *comm;             /* of one rank */
    bool layers_alone;          /* no embedding, no head: a stage from the middle of a pipeline */
    int repetitions;            /* timed steps, >= 1 */
} mhp_bench_step_params;

/* Times forward, input gradient and weight gradient of one micro-batch of the configured model, and prints milliseconds, tokens a
 * second, FLOP/s (and model FLOP utilisation where the card's peak is known), and the share of every part of the model. Values are
 * random; nothing is trained. */
mhp_status mhp_bench_step(const mhp_bench_step_params *params, FILE *stream);

typedef struct mhp_bench_kernels_params {
    mhp_device *device;
    const mhp_kernels *kernels;
    int threads;                /* of the device */
    int tokens, hidden, streams;
    int repetitions;            /* timed batches, >= 1 */
} mhp_bench_kernels_params;

/* Times every kernel of the connections, forward and backward, and prints milliseconds, the bytes that must move at least
 * (docs/model.md) and their rate over that of a large copy in device memory in the same run. Values are random; buffers take turns,
 * so that none is found in a cache. */
mhp_status mhp_bench_kernels(const mhp_bench_kernels_params *params, FILE *stream);

/* For mhp_sample_source: random tokens, one document a sample. The context is the mhp_config. */
mhp_status mhp_bench_sample(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start);
/* Parameters as mhp_store_initialize draws them, but of large ones the same 2^18 numbers again and again: for timing alone, and in a
 * moment where drawing billions takes many seconds. */
mhp_status mhp_bench_fill(mhp_store *store);

/* What utilisation is of: a card's rate for products of this type by the vendor's datasheet, in FLOP/s; NaN where it is not known. */
double mhp_bench_peak_flops(mhp_device *device, mhp_dtype dtype);
/* Sorts them. count >= 1. */
double mhp_bench_median(double *values, int count);

#endif
