/* The memory that a configuration takes: its parts add up, and stages hold what they should. */
#include "runtime/batch.h"
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
static const mhp_train_params train = {.sequence_length = 8, .micro_batch_size = 2};
static const mhp_parallel_params parallel = {
    .pipeline = RANKS, .data = 1, .device = MHP_DEVICE_CPU, .threads = 1};

static mhp_status create(char *kind, const mhp_parallel_params *ranks, mhp_layout *layout)
{
    char no_file[] = "";
    mhp_schedule_params schedule = {
        .kind = kind, .microbatches = 4, .chunks = 2, .file = no_file};

    return mhp_layout_create(&model, ranks, &schedule, layout);
}

static int64_t stage_elements(const mhp_stage_extent *extent)
{
    mhp_parameter_layout parameters;
    int64_t elements;

    assert_ok(mhp_parameter_layout_create(&model, extent, &parameters));
    elements = parameters.elements;
    mhp_parameter_layout_destroy(&parameters);
    return elements;
}

static void memory_adds_up(void **state)
{
    const mhp_batch_shape shape = {.microbatches = 4, .sequences = 2, .length = 8};
    mhp_layout layout;
    int layers = 0;

    (void)state;
    assert_ok(create("1f1b", &parallel, &layout));
    assert_int_equal(layout.plan->stage_count, RANKS);
    for (int rank = 0; rank < RANKS; rank++) {
        mhp_rank_memory m;

        assert_ok(mhp_layout_memory(&layout, &model, &parallel, &train, rank, &m));
        assert_int_equal(m.total, m.weights + m.gradients + m.optimizer + m.slots + m.workspace +
                                      m.batches);
        assert_int_equal(m.elements, stage_elements(&layout.extents[rank]));
        assert_int_equal(m.weights, m.elements * 4);
        assert_int_equal(m.gradients, m.weights);
        assert_int_equal(m.optimizer, 2 * m.weights);
        assert_int_equal(m.batches, MHP_TRAINER_BATCHES * mhp_batch_bytes(&shape));
        assert_true(m.slots > 0 && m.workspace > 0);
        layers += m.layers;
    }
    assert_int_equal(layers, LAYERS);
    mhp_layout_release(&layout);
    assert_null(layout.plan);
}

static void replicas_share_the_optimizer(void **state)
{
    mhp_parallel_params two = parallel;
    mhp_rank_memory one_replica, two_replicas;
    mhp_layout layout;

    (void)state;
    two.data = 2;
    assert_ok(create("gpipe", &parallel, &layout));
    assert_ok(mhp_layout_memory(&layout, &model, &parallel, &train, 0, &one_replica));
    assert_ok(mhp_layout_memory(&layout, &model, &two, &train, 0, &two_replicas));
    assert_int_equal(two_replicas.optimizer, (one_replica.elements + 1) / 2 * 2 * 4);
    assert_int_equal(two_replicas.elements, one_replica.elements);
    assert_int_equal(two_replicas.slots, one_replica.slots);
    mhp_layout_release(&layout);
}

static void dualpipe_holds_each_stage_twice(void **state)
{
    mhp_layout layout;
    int layers = 0;

    (void)state;
    assert_ok(create("dualpipe", &parallel, &layout));
    for (int rank = 0; rank < RANKS; rank++) {
        mhp_rank_memory m;

        assert_ok(mhp_layout_memory(&layout, &model, &parallel, &train, rank, &m));
        assert_true(m.optimizer < 2 * m.weights);
        layers += m.layers;
    }
    assert_int_equal(layers, 2 * LAYERS);
    mhp_layout_release(&layout);
}

static void a_table_has_a_line_for_each_rank(void **state)
{
    mhp_layout layout;
    FILE *file = tmpfile();
    char line[256];
    int lines = 0;

    (void)state;
    assert_non_null(file);
    assert_ok(create("1f1b", &parallel, &layout));
    assert_ok(mhp_layout_print_memory(&layout, &model, &parallel, &train, file));
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        assert_true(lines < 2 || atoi(line) == lines - 2);
        lines++;
    }
    assert_int_equal(lines, 2 + RANKS);
    fclose(file);
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
        cmocka_unit_test(memory_adds_up),
        cmocka_unit_test(replicas_share_the_optimizer),
        cmocka_unit_test(dualpipe_holds_each_stage_twice),
        cmocka_unit_test(a_table_has_a_line_for_each_rank),
        cmocka_unit_test(what_cannot_be_laid_out_is_refused),
    };

    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
