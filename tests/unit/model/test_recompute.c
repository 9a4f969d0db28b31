/* Recompute: the best block, and a block made again in one walk against one made sublayer by sublayer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/random.h"
#include "model/kernels.h"
#include "model/recompute.h"

static double cost(int sublayers, int in_flight, int block, double n)
{
    return in_flight * n * ((sublayers + block - 1) / block) + (n + 1) * block;
}

static void the_block_is_the_optimum(void **state)
{
    mhp_model_params model = {.hidden_size = 64, .num_attention_heads = 4, .num_key_value_heads = 2, .head_dim = 16,
                              .intermediate_size = 128, .connections = {.kind = MHP_CONNECTION_MHC, .streams = 4}};

    (void)state;
    assert_int_equal(mhp_recompute_block(&model, MHP_RECOMPUTE_CONNECTIONS, 8, 9), 8);
    assert_true(cost(8, 9, 8, 4) == 76);
    for (int sublayers = 1; sublayers < 30; sublayers++) {
        for (int in_flight = 1; in_flight < 12; in_flight++) {
            int block = mhp_recompute_block(&model, MHP_RECOMPUTE_CONNECTIONS, sublayers, in_flight);

            assert_in_range(block, 1, sublayers);
            for (int other = 1; other <= sublayers; other++) {
                assert_true(cost(sublayers, in_flight, block, 4) <= cost(sublayers, in_flight, other, 4));
            }
        }
    }
    assert_true(mhp_recompute_block(&model, MHP_RECOMPUTE_FULL, 16, 4) <= mhp_recompute_block(&model, MHP_RECOMPUTE_CONNECTIONS, 16, 4));
    model.connections = (mhp_connection_params){.kind = MHP_CONNECTION_RESIDUAL, .streams = 1};
    assert_int_equal(mhp_recompute_block(&model, MHP_RECOMPUTE_CONNECTIONS, 16, 3), 16);
}

enum { T = 75, C = 24, N = 4, M = N * N + 2 * N, COUNT = 5, STATE = T * N * C, ROW = T * C };

/* What the forward pass keeps of one sublayer for a rebuild. */
typedef struct made {
    float pre[T * N], post[T * N], comb[T * N * N], projection[T * M], rrms[T * N], norm_rrms[T];
} made;

typedef struct block {
    float x[STATE], y[COUNT][ROW], fn[COUNT][M * N * C], base[COUNT][M], scale[COUNT][3], weight[COUNT][C];
    float state[COUNT][STATE], normed[COUNT][ROW];       /* state[i]: of sublayer i + 1 */
    made made[COUNT];
} block;

static void fill(float *values, size_t count, uint64_t stream)
{
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)mhp_random_normal(9, stream, i);
    }
}

static void fill_block(block *b)
{
    memset(b, 0, sizeof *b);
    fill(b->x, STATE, 0);
    fill(b->y[0], (size_t)COUNT * ROW, 1);
    fill(b->fn[0], (size_t)COUNT * M * N * C, 2);
    fill(b->base[0], (size_t)COUNT * M, 3);
    fill(b->scale[0], (size_t)COUNT * 3, 4);
    fill(b->weight[0], (size_t)COUNT * C, 5);
}

static mhp_merge_mix_args joined(block *b, mhp_connection_kind kind, int i)
{
    made *m = &b->made[i % COUNT];
    mhp_merge_mix_args args = {
        .mix = {.connection = {.kind = kind, .tokens = T, .hidden = C, .streams = N, .sinkhorn_iterations = 7, .norm_epsilon = 1e-6,
                               .hc_epsilon = 1e-6, .x = i == 0 ? b->x : b->state[i - 1], .fn = b->fn[i % COUNT],
                               .base = b->base[i % COUNT], .scale = b->scale[i % COUNT], .pre = m->pre, .post = m->post, .comb = m->comb, .projection = m->projection,
                               .rrms = m->rrms},
                .weight = b->weight[i % COUNT], .normed = b->normed[i % COUNT], .norm_rrms = m->norm_rrms},
    };

    if (i > 0) {
        args.merge = (mhp_merge_args){.kind = kind, .tokens = T, .hidden = C, .streams = N, .x = i == 1 ? b->x : b->state[i - 2],
                                      .y = b->y[i - 1], .post = b->made[i - 1].post, .comb = b->made[i - 1].comb,
                                      .x_next = b->state[i - 1]};
    }
    return args;
}

static void a_block_has_the_bits_of_its_sublayers(void **state)
{
    const mhp_kernels *kernels = mhp_kernels_find(MHP_DEVICE_CPU, MHP_DTYPE_F32);
    block *one = malloc(sizeof *one), *whole = malloc(sizeof *whole);

    mhp_merge_mix_args last;

    (void)state;
    assert_true(one && whole);
    for (mhp_connection_kind kind = MHP_CONNECTION_HC; kind <= MHP_CONNECTION_MHC; kind++) {
        const void *weight[COUNT];
        made *m = whole->made;
        mhp_rebuild_args args = {
            .tokens = T, .hidden = C, .streams = N, .count = COUNT, .weight = weight, .x = whole->x, .y = whole->y[0], .pre = m->pre,
            .post = m->post, .comb = m->comb, .norm_rrms = m->norm_rrms, .state = whole->state[0], .last = whole->state[COUNT - 1],
            .normed = whole->normed[0], .y_stride = sizeof whole->y[0], .kept_stride = sizeof *m,
            .state_stride = sizeof whole->state[0], .normed_stride = sizeof whole->normed[0]};

        fill_block(one);
        for (int i = 0; i < COUNT; i++) {
            mhp_merge_mix_args join = joined(one, kind, i);

            weight[i] = whole->weight[i];
            assert_int_equal(i == 0 ? kernels->mix(NULL, &join.mix) : kernels->merge_mix(NULL, &join), MHP_OK);
        }
        last = joined(one, kind, COUNT);
        assert_int_equal(kernels->merge(NULL, &last.merge), MHP_OK);
        fill_block(whole);
        memcpy(whole->made, one->made, sizeof one->made);
        assert_int_equal(kernels->rebuild(NULL, &args), MHP_OK);
        assert_memory_equal(one, whole, sizeof *one);
        assert_true(whole->normed[COUNT - 1][ROW - 1] != 0 && whole->state[COUNT - 1][STATE - 1] != 0);
        args.last = NULL;
        memset(whole->state[COUNT - 1], 0, sizeof whole->state[0]);
        assert_int_equal(kernels->rebuild(NULL, &args), MHP_OK);
        assert_true(whole->state[COUNT - 1][0] == 0);
    }
    free(one);
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_block_is_the_optimum),
        cmocka_unit_test(a_block_has_the_bits_of_its_sublayers),
    };

    return cmocka_run_group_tests_name("recompute", tests, NULL, NULL);
}
