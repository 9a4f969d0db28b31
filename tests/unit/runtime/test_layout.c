/* Plans and layers that a configuration lays out. */
#include "runtime/layout.h"
#include "tests/unit/runtime/folder.h"

enum { LAYERS = 6, RANKS = 2 };

static const mhp_model_params model = {
    .hidden_size = 16, .num_hidden_layers = LAYERS, .num_attention_heads = 2,
    .num_key_value_heads = 1, .head_dim = 8, .intermediate_size = 24, .vocab_size = 40,
    .rms_norm_eps = 1e-6, .rope_theta = 1e4, .initializer_range = 0.02, .dtype = MHP_DTYPE_F32,
    .connections = {.kind = MHP_CONNECTION_MHC, .streams = 2, .sinkhorn_iterations = 4,
                    .eps = 1e-6, .init_scale = 0.01, .init_pre_gain = 1},
};
static const mhp_parallel_params parallel = {
    .pipeline = RANKS, .data = 1, .device = MHP_DEVICE_CPU, .threads = 1};

static mhp_status create(char *kind, const mhp_parallel_params *ranks, mhp_layout *layout)
{
    char no_file[] = "";
    mhp_schedule_params schedule = {
        .kind = kind, .microbatches = 4, .chunks = 2, .file = no_file};

    return mhp_layout_create(&model, ranks, &schedule, layout);
}

static void layers_are_parted(void **state)
{
    mhp_layout layout;
    double layers = 0;

    (void)state;
    assert_ok(create("dualpipe", &parallel, &layout));
    assert_int_equal(layout.plan->stage_count, RANKS);
    for (int s = 0; s < RANKS; s++) {
        assert_int_equal(mhp_layout_holders(&layout, s), 2);
        layers += mhp_stage_layers(&layout.extents[s]);
    }
    assert_true(layers == LAYERS);
    mhp_layout_release(&layout);
    assert_null(layout.plan);
    assert_ok(create("1f1b", &parallel, &layout));
    assert_int_equal(mhp_layout_holders(&layout, 1), 1);
    mhp_layout_release(&layout);
}

static void what_cannot_be_laid_out_is_refused(void **state)
{
    mhp_parallel_params many = parallel;
    mhp_layout layout;

    (void)state;
    many.pipeline = LAYERS + 1;
    assert_error(create("gpipe", &many, &layout), MHP_ERR_CONFIG, "7 stages");
    mhp_layout_release(&layout);
    assert_error(create("none", &parallel, &layout), MHP_ERR_NOT_FOUND, "none");
    mhp_layout_release(&layout);
    assert_null(layout.extents);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_are_parted),
        cmocka_unit_test(what_cannot_be_laid_out_is_refused),
    };

    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
