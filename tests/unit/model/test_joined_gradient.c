/* A mix's gradient joined with that of the merge in front: the bits of both apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/random.h"
#include "model/kernels.h"

enum { T = 75, C = 24, N = 4, M = N * N + 2 * N, STATE = T * N * C, ROW = T * C, ROOMS_MAX = 32, THREADS = 64 };

/* Everything that one run reads and writes, in the order of `take`. */
typedef struct rooms {
    mhp_dtype dtype;
    void *data[ROOMS_MAX];
    size_t bytes[ROOMS_MAX];
    int count;
} rooms;

/* `count` normal numbers around `mean`; the same in every `rooms`. */
static void *take(rooms *r, size_t count, double mean)
{
    void *data = malloc(count * mhp_dtype_bytes(r->dtype));

    assert_non_null(data);
    assert_true(r->count < ROOMS_MAX);
    for (size_t i = 0; i < count; i++) {
        mhp_dtype_store(r->dtype, data, (int64_t)i, mean + .3 * mhp_random_normal(3, (uint64_t)r->count, i));
    }
    r->data[r->count] = data;
    r->bytes[r->count++] = count * mhp_dtype_bytes(r->dtype);
    return data;
}

static void free_rooms(rooms *r)
{
    while (r->count > 0) {
        free(r->data[--r->count]);
    }
}

/* As a stage has them: dx in g's place, one dpost and one dcomb. */
static mhp_mix_merge_gradient_args make(rooms *r, const mhp_kernels *kernels, mhp_connection_kind kind)
{
    int64_t workspace = kernels->connection_workspace(kind, T, C, N, THREADS);
    mhp_mix_merge_gradient_args args = {
        .mix.connection = {.kind = kind, .tokens = T, .hidden = C, .streams = N, .sinkhorn_iterations = 7, .norm_epsilon = 1e-6,
                           .hc_epsilon = 1e-6},
        .merge = {.kind = kind, .tokens = T, .hidden = C, .streams = N},
    };
    mhp_connection_gradient_args *c = &args.mix.connection;

    c->g = c->dx = take(r, STATE, 0);
    c->x = take(r, STATE, 0);
    c->dpost = args.merge.dpost = take(r, T * N, 0);
    c->dcomb = args.merge.dcomb = take(r, T * N * N, 0);
    c->dz = take(r, ROW, 0);
    c->pre = take(r, T * N, .5);
    c->post = take(r, T * N, 1);
    c->comb = take(r, T * N * N, .25);
    c->projection = take(r, T * M, 0);
    c->rrms = take(r, T * N, 1);
    c->fn = take(r, M * N * C, 0);
    c->base = take(r, M, 0);
    c->scale = take(r, 3, 1);
    c->dfn = take(r, M * N * C, 0);
    c->dbase = take(r, M, 0);
    c->dscale = take(r, 3, 0);
    args.mix.weight = take(r, C, 1);
    args.mix.norm_rrms = take(r, T, 1);
    args.mix.dnormed = take(r, ROW, 0);
    args.mix.dweight = take(r, C, 0);
    args.merge.g = c->dx;
    args.merge.x = take(r, STATE, 0);
    args.merge.y = take(r, ROW, 0);
    args.merge.post = take(r, T * N, 1);
    args.merge.comb = take(r, T * N * N, .25);
    args.merge.dy = take(r, ROW, 0);
    c->workspace = take(r, workspace > 0 ? (size_t)workspace : 1, 0);
    return args;
}

static void joined_has_the_bits_of_both(mhp_dtype dtype)
{
    const mhp_kernels *kernels = mhp_kernels_find(MHP_DEVICE_CPU, dtype);

    for (mhp_connection_kind kind = MHP_CONNECTION_RESIDUAL; kind <= MHP_CONNECTION_MHC; kind++) {
        rooms start = {.dtype = dtype}, one = {.dtype = dtype}, two = {.dtype = dtype};
        mhp_mix_merge_gradient_args joined = make(&one, kernels, kind), apart = make(&two, kernels, kind);
        int changed = 0;

        (void)make(&start, kernels, kind);
        assert_int_equal(kernels->mix_merge_gradient(NULL, &joined), MHP_OK);
        assert_int_equal(kernels->mix_gradient(NULL, &apart.mix), MHP_OK);
        assert_int_equal(kernels->merge_gradient(NULL, &apart.merge), MHP_OK);
        for (int i = 0; i < one.count; i++) {
            assert_memory_equal(one.data[i], two.data[i], one.bytes[i]);
            changed += memcmp(one.data[i], start.data[i], one.bytes[i]) != 0;
        }
        /* dx, dweight, dy; with streams also dpost, dcomb, dz, dfn, dbase, dscale and the workspace. */
        assert_int_equal(changed, kind == MHP_CONNECTION_RESIDUAL ? 3 : 10);
        free_rooms(&start);
        free_rooms(&one);
        free_rooms(&two);
    }
}

static void f32_joined_has_the_bits_of_both(void **state)
{
    (void)state;
    joined_has_the_bits_of_both(MHP_DTYPE_F32);
}

static void f64_joined_has_the_bits_of_both(void **state)
{
    (void)state;
    joined_has_the_bits_of_both(MHP_DTYPE_F64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_joined_has_the_bits_of_both),
        cmocka_unit_test(f64_joined_has_the_bits_of_both),
    };

    return cmocka_run_group_tests_name("joined gradient", tests, NULL, NULL);
}
