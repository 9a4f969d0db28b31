#include "runtime/replay.h"

#include <assert.h>
#include <string.h>

#include "core/memory.h"

enum { RUNS = 2 };

struct mhp_replay {
    mhp_store *store;
    const double *statistics;
    size_t count, loss_count;
    double *sums[RUNS];             /* [count]; this and the next on the host */
    char **gradients[RUNS];         /* [held stages]: [chunk] of full each */
};

static size_t part_bytes(const mhp_replay *replay, const mhp_held_stage *held)
{
    return (size_t)held->chunk * mhp_dtype_bytes(replay->store->kernels->full_dtype);
}

static mhp_status create_run(mhp_replay *replay, int run)
{
    mhp_store *store = replay->store;

    MHP_RETURN_IF_ERROR(mhp_device_alloc_host(store->device, replay->count * sizeof(double), (void **)&replay->sums[run]));
    MHP_RETURN_IF_ERROR(mhp_calloc(&replay->gradients[run], (size_t)store->held_count, sizeof *replay->gradients[run]));
    for (int i = 0; i < store->held_count; i++) {
        MHP_RETURN_IF_ERROR(
            mhp_device_alloc_host(store->device, part_bytes(replay, &store->held[i]), (void **)&replay->gradients[run][i]));
    }
    return MHP_OK;
}

mhp_status mhp_replay_create(mhp_store *store, const double *statistics, size_t count, size_t loss_count, mhp_replay **replay_out)
{
    mhp_status status = MHP_OK;
    mhp_replay *replay = NULL;

    assert(loss_count <= count);
    MHP_TRY(out, mhp_calloc(&replay, 1, sizeof *replay));
    replay->store = store;
    replay->statistics = statistics;
    replay->count = count;
    replay->loss_count = loss_count;
    for (int run = 0; run < RUNS; run++) {
        MHP_TRY(out, create_run(replay, run));
    }
    *replay_out = replay;
    replay = NULL;
out:
    mhp_replay_destroy(replay);
    return status;
}

void mhp_replay_destroy(mhp_replay *replay)
{
    if (!replay) {
        return;
    }
    for (int run = 0; run < RUNS; run++) {
        for (int i = 0; replay->gradients[run] && i < replay->store->held_count; i++) {
            mhp_device_free_host(replay->store->device, replay->gradients[run][i]);
        }
        mhp_free(replay->gradients[run]);
        mhp_device_free_host(replay->store->device, replay->sums[run]);
    }
    mhp_free(replay);
}

mhp_status mhp_replay_submit(mhp_replay *replay, int run, mhp_stream *compute)
{
    MHP_RETURN_IF_ERROR(mhp_stream_copy(compute, replay->sums[run], replay->statistics, replay->count * sizeof(double)));
    for (int i = 0; i < replay->store->held_count; i++) {
        const mhp_held_stage *held = &replay->store->held[i];
        size_t bytes = part_bytes(replay, held);

        MHP_RETURN_IF_ERROR(mhp_stream_copy(compute, replay->gradients[run][i],
                                            (char *)held->gradients + bytes * (size_t)mhp_group_index(held->group), bytes));
    }
    return MHP_OK;
}

static double value_at(mhp_dtype dtype, const char *image, int64_t index)
{
    return dtype == MHP_DTYPE_F64 ? ((const double *)image)[index] : (double)((const float *)image)[index];
}

/* The first of `count` elements that differs, or -1. */
static int64_t find_difference(const char *a, const char *b, int64_t count, size_t element_bytes)
{
    if (memcmp(a, b, (size_t)count * element_bytes) == 0) {
        return -1;
    }
    for (int64_t i = 0;; i++) {
        if (memcmp(a + (size_t)i * element_bytes, b + (size_t)i * element_bytes, element_bytes) != 0) {
            return i;
        }
    }
}

static mhp_status compare_sums(const mhp_replay *replay)
{
    int64_t i = find_difference((const char *)replay->sums[0], (const char *)replay->sums[1], (int64_t)replay->count, sizeof(double));
    bool loss = i < (int64_t)replay->loss_count;

    if (i < 0) {
        return MHP_OK;
    }
    return mhp_error_set(MHP_ERR_DEVICE, "run twice, %s %lld came to %.17g and to %.17g: expected the same bits",
                         loss ? "the loss of micro-batch" : "gain", (long long)(loss ? i : i - (int64_t)replay->loss_count),
                         replay->sums[0][i], replay->sums[1][i]);
}

/* What lies between tensors is nobody's. */
static mhp_status compare_tensor(const mhp_replay *replay, int stage, const mhp_parameter *parameter)
{
    const mhp_held_stage *held = &replay->store->held[stage];
    mhp_dtype dtype = replay->store->kernels->full_dtype;
    int64_t begin = held->chunk * mhp_group_index(held->group), end = begin + held->chunk;
    int64_t first = parameter->offset > begin ? parameter->offset : begin;
    int64_t last = parameter->offset + parameter->elements < end ? parameter->offset + parameter->elements : end;
    size_t at = (size_t)(first - begin) * mhp_dtype_bytes(dtype);
    const char *images[RUNS] = {replay->gradients[0][stage] + at, replay->gradients[1][stage] + at};
    int64_t i = first < last ? find_difference(images[0], images[1], last - first, mhp_dtype_bytes(dtype)) : -1;

    if (i < 0) {
        return MHP_OK;
    }
    return mhp_error_set(MHP_ERR_DEVICE, "run twice, the gradient of %s came to %.9g and to %.9g at element %lld: expected the same bits",
                         parameter->info.name, value_at(dtype, images[0], i), value_at(dtype, images[1], i),
                         (long long)(first - parameter->offset + i));
}

mhp_status mhp_replay_compare(const mhp_replay *replay)
{
    MHP_RETURN_IF_ERROR(compare_sums(replay));
    for (int s = 0; s < replay->store->held_count; s++) {
        const mhp_parameter_layout *layout = mhp_stage_layout(replay->store->held[s].stage);

        for (int p = 0; p < layout->count; p++) {
            MHP_RETURN_IF_ERROR(compare_tensor(replay, s, &layout->items[p]));
        }
    }
    return MHP_OK;
}
