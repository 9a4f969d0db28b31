/* What benchmarks of the trainer share: made-up tokens, a trainer's parameters, medians, the world. */
#ifndef MHP_TESTS_BENCH_SUPPORT_H
#define MHP_TESTS_BENCH_SUPPORT_H

#include <stdio.h>
#include <stdlib.h>

#include "comm/comm.h"
#include "core/random.h"
#include "launch/config.h"
#include "runtime/trainer.h"

static inline mhp_status bench_fill(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    const mhp_config *config = context;

    for (int64_t t = 0; t < config->train.sequence_length; t++) {
        uint64_t random = mhp_random_u64(1, sample, (uint64_t)t);

        token[t] = (int32_t)(random % (uint64_t)config->model.vocab_size);
        target[t] = (int32_t)((random >> 32) % (uint64_t)config->model.vocab_size);
        document_start[t] = 0;
    }
    return MHP_OK;
}

static inline mhp_trainer_params bench_trainer_params(mhp_comm *comm, mhp_config *config)
{
    return (mhp_trainer_params){
        .comm = comm,
        .model = &config->model,
        .parallel = &config->parallel,
        .schedule = &config->schedule,
        .optimizer = &config->optimizer,
        .train = &config->train,
        .samples = {bench_fill, config},
        .held_out = {bench_fill, config},
    };
}

static inline int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts them. */
static inline double bench_median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, bench_compare);
    return values[count / 2];
}

/* Loads the configuration, joins the world, runs `body` and leaves; the program's exit status. */
static inline int bench_run(const char *name, const char *path, char **settings, int setting_count,
                            mhp_status (*body)(mhp_comm *comm, mhp_config *config, void *context), void *context)
{
    mhp_config config = {0};
    mhp_device_params params = {.kind = MHP_DEVICE_CPU};
    mhp_device *device = NULL;
    mhp_comm *comm = NULL;
    mhp_status status = mhp_config_load(&config, path, settings, (size_t)setting_count);

    params.threads = (int)config.parallel.threads;
    if (status == MHP_OK) {
        status = mhp_device_open(&params, &device);
    }
    if (status == MHP_OK) {
        status = mhp_comm_open(device, &comm);
    }
    if (status == MHP_OK) {
        status = body(comm, &config, context);
    }
    if (status != MHP_OK) {
        fprintf(stderr, "%s: %s\n", name, mhp_error_text());
        if (comm) {
            mhp_comm_abort(comm);
        }
        return 1;
    }
    mhp_comm_close(comm);
    mhp_device_close(device);
    mhp_config_release(&config);
    return 0;
}

#endif
