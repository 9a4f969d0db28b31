/* What benches share: parameters and samples that look like a run's and are there at once, a card's rate, the median. */
#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/random.h"
#include "launch/bench.h"

enum { PERIOD = 1 << 18, RANDOM_SEED = 1 };

/* Dense bf16 rate of H100 and H200 (SXM). */
static const double cuda_bf16_peak = 989e12;

double mhp_bench_peak_flops(mhp_device *device, mhp_dtype dtype)
{
    return mhp_device_get_kind(device) == MHP_DEVICE_CUDA && dtype == MHP_DTYPE_BF16 ? cuda_bf16_peak : NAN;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

double mhp_bench_median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

mhp_status mhp_bench_sample(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    const mhp_config *config = context;

    for (int64_t t = 0; t < config->train.sequence_length; t++) {
        uint64_t random = mhp_random_u64(RANDOM_SEED, sample, (uint64_t)t);

        token[t] = (int32_t)(random % (uint64_t)config->model.vocab_size);
        target[t] = (int32_t)((random >> 32) % (uint64_t)config->model.vocab_size);
        document_start[t] = 0;
    }
    return MHP_OK;
}

/* The first `count` elements, made on the host. */
static mhp_status draw(const mhp_store *store, const mhp_parameter *parameter, int64_t count, void **image_out)
{
    mhp_status status = MHP_OK;
    mhp_dtype dtype = store->kernels->full_dtype;
    mhp_parameter part = *parameter;
    double *values = NULL;

    part.elements = count;
    MHP_TRY(out, mhp_calloc(&values, (size_t)count, sizeof *values));
    MHP_TRY(out, mhp_calloc(image_out, (size_t)count, mhp_dtype_bytes(dtype)));
    mhp_parameter_initialize(store->params.model, &part, RANDOM_SEED, values);
    for (int64_t i = 0; i < count; i++) {
        mhp_dtype_store(dtype, *image_out, i, values[i]);
    }
out:
    mhp_free(values);
    return status;
}

/* The device copies what is there behind itself until the parameter is full. */
static mhp_status fill_parameter(const mhp_store *store, const mhp_parameter *parameter, char *target, mhp_stream *stream)
{
    mhp_status status = MHP_OK;
    size_t size = mhp_dtype_bytes(store->kernels->full_dtype);
    int64_t done = parameter->elements < PERIOD ? parameter->elements : PERIOD;
    void *image = NULL;

    MHP_TRY(out, draw(store, parameter, done, &image));
    MHP_TRY(out, mhp_stream_copy(stream, target, image, (size_t)done * size));
    while (done < parameter->elements) {
        int64_t count = parameter->elements - done < done ? parameter->elements - done : done;

        MHP_TRY(out, mhp_stream_copy(stream, target + (size_t)done * size, target, (size_t)count * size));
        done += count;
    }
    MHP_TRY(out, mhp_stream_synchronize(stream));
out:
    mhp_free(image);
    return status;
}

static mhp_status fill_stage(const mhp_store *store, const mhp_held_stage *held, mhp_stream *stream)
{
    const mhp_parameter_layout *layout = mhp_stage_layout(held->stage);
    size_t size = mhp_dtype_bytes(store->kernels->full_dtype);

    MHP_RETURN_IF_ERROR(mhp_stream_zero(stream, held->parameters, (size_t)(held->chunk * mhp_group_size(held->group)) * size));
    for (int p = 0; p < layout->count; p++) {
        MHP_RETURN_IF_ERROR(
            fill_parameter(store, &layout->items[p], (char *)held->parameters + (size_t)layout->items[p].offset * size, stream));
    }
    MHP_RETURN_IF_ERROR(mhp_store_cast_weights(store, held, stream));
    return mhp_stream_synchronize(stream);
}

mhp_status mhp_bench_fill(mhp_store *store)
{
    mhp_status status = MHP_OK;
    mhp_stream *stream = NULL;

    MHP_TRY(out, mhp_stream_create(store->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "fill", &stream));
    for (int i = 0; i < store->held_count; i++) {
        MHP_TRY(out, fill_stage(store, &store->held[i], stream));
    }
out:
    mhp_stream_destroy(stream);
    return status;
}
