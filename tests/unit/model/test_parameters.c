/* Parameters: names, places, counts, and start values that do not know how the model is split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/parameters.h"

enum { LAYERS = 5, SUBLAYERS = 2 * LAYERS, C = 12, WIDE = 20, VOCABULARY = 30, Q = 16, KV = 8, STREAMS = 3 };

static mhp_model_params model_of(int kind)
{
    return (mhp_model_params){
        .hidden_size = C, .num_hidden_layers = LAYERS, .num_attention_heads = 4,
        .num_key_value_heads = 2, .head_dim = 4, .intermediate_size = WIDE,
        .vocab_size = VOCABULARY, .initializer_range = 0.5, .dtype = MHP_DTYPE_F32,
        .connections = {.kind = kind, .streams = kind == MHP_CONNECTION_RESIDUAL ? 1 : STREAMS,
                        .readout = MHP_READOUT_HEAD, .init_scale = 0.01, .init_pre_gain = 1,
                        .init_pre = MHP_PRE_INIT_ROTATE, .init_comb_diagonal = 4}};
}

static mhp_parameter_layout layout_of(const mhp_model_params *model, int first, int count)
{
    mhp_stage_extent extent = {first, count, first == 0, first + count == SUBLAYERS};
    mhp_parameter_layout layout;

    assert_int_equal(mhp_parameter_layout_create(model, &extent, &layout), MHP_OK);
    return layout;
}

static int64_t expected_count(int kind)
{
    const int64_t n = STREAMS, m = n * n + 2 * n;
    int64_t layer = 2 * C + 2 * Q * C + 2 * KV * C + 3 * WIDE * C;
    int64_t head = VOCABULARY * C + C;

    if (kind != MHP_CONNECTION_RESIDUAL) {
        layer += 2 * (m + 3 + (kind == MHP_CONNECTION_MHC ? m * n * C : (n + 2) * C));
        head += n * n * C + n + 1;
    }
    return VOCABULARY * C + LAYERS * layer + head;
}

static void counts_follow_the_shapes(void **state)
{
    (void)state;
    for (int kind = MHP_CONNECTION_RESIDUAL; kind <= MHP_CONNECTION_MHC; kind++) {
        mhp_model_params model = model_of(kind);
        int64_t count;

        assert_int_equal(mhp_parameter_count(&model, &count), MHP_OK);
        assert_int_equal(count, expected_count(kind));
    }
}

static void names_are_unique_and_places_apart(void **state)
{
    (void)state;
    for (int kind = MHP_CONNECTION_RESIDUAL; kind <= MHP_CONNECTION_MHC; kind++) {
        mhp_model_params model = model_of(kind);
        mhp_parameter_layout layout = layout_of(&model, 0, SUBLAYERS);
        int64_t end = 0;

        for (int i = 0; i < layout.count; i++) {
            assert_true(layout.items[i].offset >= end);
            end = layout.items[i].offset + layout.items[i].elements;
            for (int j = 0; j < i; j++) {
                assert_string_not_equal(layout.items[i].info.name, layout.items[j].info.name);
            }
        }
        assert_int_equal(layout.elements, end);
        assert_int_equal(layout.embedding, 0);
        assert_int_equal(layout.readout_fn < 0, kind == MHP_CONNECTION_RESIDUAL);
        assert_int_equal(layout.sublayers[0].fn < 0, kind == MHP_CONNECTION_RESIDUAL);
        mhp_parameter_layout_destroy(&layout);
        assert_null(layout.items);
    }
}

static const mhp_parameter *find(const mhp_parameter_layout *layout, const char *name)
{
    for (int i = 0; i < layout->count; i++) {
        if (strcmp(layout->items[i].info.name, name) == 0) {
            return &layout->items[i];
        }
    }
    return NULL;
}

static double *values_of(const mhp_model_params *model, const mhp_parameter *parameter,
                         uint64_t seed)
{
    double *values = calloc((size_t)parameter->elements, sizeof *values);

    assert_non_null(values);
    mhp_parameter_initialize(model, parameter, seed, values);
    return values;
}

/* Every parameter of a stage starts as its namesake in the whole model; returns how many. */
static int compare_stage(const mhp_model_params *model, const mhp_parameter_layout *whole,
                         int first, int count)
{
    mhp_parameter_layout stage = layout_of(model, first, count);
    int compared = stage.count;

    for (int i = 0; i < stage.count; i++) {
        const mhp_parameter *same = find(whole, stage.items[i].info.name);
        double *a, *b;

        assert_non_null(same);
        assert_int_equal(same->elements, stage.items[i].elements);
        a = values_of(model, same, 7);
        b = values_of(model, &stage.items[i], 7);
        assert_memory_equal(a, b, (size_t)same->elements * sizeof *a);
        free(a);
        free(b);
    }
    mhp_parameter_layout_destroy(&stage);
    return compared;
}

static void start_values_do_not_know_the_split(void **state)
{
    (void)state;
    for (int kind = MHP_CONNECTION_RESIDUAL; kind <= MHP_CONNECTION_MHC; kind++) {
        mhp_model_params model = model_of(kind);
        mhp_parameter_layout whole = layout_of(&model, 0, SUBLAYERS);
        int single = 0;

        for (int s = 0; s < SUBLAYERS; s++) {
            single += compare_stage(&model, &whole, s, 1);
        }
        assert_int_equal(single, whole.count);
        assert_int_equal(compare_stage(&model, &whole, 0, 3) + compare_stage(&model, &whole, 3, SUBLAYERS - 3),
                         whole.count);
        mhp_parameter_layout_destroy(&whole);
    }
}

static void start_values_depend_on_seed_and_name(void **state)
{
    mhp_model_params model = model_of(MHP_CONNECTION_MHC);
    mhp_parameter_layout whole = layout_of(&model, 0, SUBLAYERS);
    const mhp_parameter *gate = find(&whole, "model.layers.1.mlp.gate_proj.weight");
    const mhp_parameter *up = find(&whole, "model.layers.1.mlp.up_proj.weight");
    const mhp_parameter *norm = find(&whole, "model.norm.weight");
    double *a, *b, *c, *ones;

    (void)state;
    assert_true(gate && up && norm);
    assert_true(gate->decay && !norm->decay);
    a = values_of(&model, gate, 1);
    b = values_of(&model, gate, 2);
    c = values_of(&model, up, 1);
    ones = values_of(&model, norm, 1);
    for (int64_t i = 0; i < gate->elements; i++) {
        assert_true(a[i] != b[i] && a[i] != c[i]);
    }
    for (int64_t i = 0; i < norm->elements; i++) {
        assert_true(ones[i] == 1);
    }
    free(a);
    free(b);
    free(c);
    free(ones);
    mhp_parameter_layout_destroy(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_follow_the_shapes),
        cmocka_unit_test(names_are_unique_and_places_apart),
        cmocka_unit_test(start_values_do_not_know_the_split),
        cmocka_unit_test(start_values_depend_on_seed_and_name),
    };

    return cmocka_run_group_tests_name("parameters", tests, NULL, NULL);
}
