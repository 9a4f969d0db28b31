/* config.json of a model folder: what is written reads back, and errors name file and key. */
#include <jansson.h>

#include "runtime/model_file.h"
#include "tests/unit/runtime/folder.h"

static mhp_model_params params_of(int kind)
{
    mhp_model_params params = {
        .hidden_size = 48,
        .num_hidden_layers = 3,
        .num_attention_heads = 4,
        .num_key_value_heads = 2,
        .head_dim = 10,
        .intermediate_size = 72,
        .vocab_size = 257,
        .rms_norm_eps = 1.1e-6,
        .rope_theta = 12345.678901234567,
        .initializer_range = 0.1,
        .dtype = kind == MHP_CONNECTION_HC ? MHP_DTYPE_F64 : MHP_DTYPE_F32,
        .connections = {.kind = kind,
                        .streams = kind == MHP_CONNECTION_RESIDUAL ? 1 : 3,
                        .sinkhorn_iterations = 7,
                        .eps = 3.3e-7,
                        .readout = kind == MHP_CONNECTION_HC ? MHP_READOUT_SUM : MHP_READOUT_HEAD},
    };

    return params;
}

static void assert_same(const mhp_model_params *a, const mhp_model_params *b)
{
    assert_int_equal(a->hidden_size, b->hidden_size);
    assert_int_equal(a->num_hidden_layers, b->num_hidden_layers);
    assert_int_equal(a->num_attention_heads, b->num_attention_heads);
    assert_int_equal(a->num_key_value_heads, b->num_key_value_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->intermediate_size, b->intermediate_size);
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_true(a->rms_norm_eps == b->rms_norm_eps);
    assert_true(a->rope_theta == b->rope_theta);
    assert_true(a->initializer_range == b->initializer_range);
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->connections.kind, b->connections.kind);
    assert_int_equal(a->connections.streams, b->connections.streams);
    assert_int_equal(a->connections.sinkhorn_iterations, b->connections.sinkhorn_iterations);
    assert_true(a->connections.eps == b->connections.eps);
    assert_int_equal(a->connections.readout, b->connections.readout);
}

static void every_kind_reads_back(void **state)
{
    (void)state;
    for (int kind = MHP_CONNECTION_RESIDUAL; kind <= MHP_CONNECTION_MHC; kind++) {
        mhp_model_params written = params_of(kind);
        mhp_model_params read;

        assert_ok(mhp_model_config_write(test_path("a/model"), &written));
        assert_ok(mhp_model_config_read(test_path("a/model"), &read));
        assert_same(&written, &read);
    }
}

static void a_single_stream_reads_back(void **state)
{
    mhp_model_params written = params_of(MHP_CONNECTION_MHC);
    mhp_model_params read;

    (void)state;
    written.connections.streams = 1;
    written.connections.init_pre_gain = 0.5;
    assert_ok(mhp_model_params_resolve(&written));
    assert_ok(mhp_model_config_write(test_folder, &written));
    assert_ok(mhp_model_config_read(test_folder, &read));
    assert_same(&written, &read);
}

static json_t *load(void)
{
    json_t *root = json_load_file(test_path("config.json"), 0, NULL);

    assert_non_null(root);
    return root;
}

static void a_llama_is_a_residual_model(void **state)
{
    mhp_model_params written = params_of(MHP_CONNECTION_RESIDUAL);
    mhp_model_params read;
    json_t *root;

    (void)state;
    assert_ok(mhp_model_config_write(test_folder, &written));
    root = load();
    assert_string_equal(json_string_value(json_object_get(root, "model_type")), "llama");
    assert_int_equal(json_object_del(root, "connections"), 0);
    assert_int_equal(json_dump_file(root, test_path("config.json"), 0), 0);
    json_decref(root);
    assert_ok(mhp_model_config_read(test_folder, &read));
    assert_int_equal(read.connections.kind, MHP_CONNECTION_RESIDUAL);
    assert_int_equal(read.connections.streams, 1);
    assert_int_equal(read.hidden_size, written.hidden_size);
}

/* Replaces a key by `value`, or removes it, and reads. */
static mhp_status read_with(const char *section, const char *key, json_t *value)
{
    mhp_model_params params = params_of(MHP_CONNECTION_MHC);
    json_t *root, *object;

    assert_ok(mhp_model_config_write(test_folder, &params));
    root = load();
    object = section ? json_object_get(root, section) : root;
    if (value) {
        assert_int_equal(json_object_set_new(object, key, value), 0);
    } else {
        assert_int_equal(json_object_del(object, key), 0);
    }
    assert_int_equal(json_dump_file(root, test_path("config.json"), 0), 0);
    json_decref(root);
    return mhp_model_config_read(test_folder, &params);
}

static void assert_names_file_and_key(mhp_status status, const char *key)
{
    assert_error(status, MHP_ERR_FORMAT, key);
    assert_error(status, MHP_ERR_FORMAT, test_path("config.json"));
}

static void every_key_is_checked(void **state)
{
    static const struct { const char *section, *key; int can_be_negative; } keys[] = {
        {NULL, "hidden_size", 0},         {NULL, "num_hidden_layers", 0},
        {NULL, "num_attention_heads", 0}, {NULL, "num_key_value_heads", 0},
        {NULL, "head_dim", 0},            {NULL, "intermediate_size", 0},
        {NULL, "vocab_size", 0},          {NULL, "rms_norm_eps", 1},
        {NULL, "rope_theta", 1},          {NULL, "initializer_range", 1},
        {"connections", "kind", 0},       {"connections", "readout", 0},
        {"connections", "streams", 0},    {"connections", "sinkhorn_iterations", 0},
        {"connections", "eps", 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *section = keys[i].section, *key = keys[i].key;

        assert_names_file_and_key(read_with(section, key, NULL), key);
        assert_names_file_and_key(read_with(section, key, json_string("many")), key);
        assert_names_file_and_key(read_with(section, key, json_null()), key);
        if (!keys[i].can_be_negative) {
            assert_names_file_and_key(read_with(section, key, json_integer(-1)), key);
        }
    }
}

static void limits_and_contradictions_name_the_file(void **state)
{
    const char *path = test_path("config.json");

    (void)state;
    assert_error(read_with("connections", "streams", json_integer(MHP_STREAMS_MAX + 1)),
                 MHP_ERR_LIMIT, "\"streams\" is 9");
    assert_error(read_with(NULL, "num_key_value_heads", json_integer(3)), MHP_ERR_CONFIG, path);
    assert_non_null(strstr(mhp_error_text(), "num_key_value_heads"));
    assert_error(read_with(NULL, "head_dim", json_integer(9)), MHP_ERR_CONFIG, path);
    assert_non_null(strstr(mhp_error_text(), "head_dim"));
}

static void what_is_no_object_is_refused(void **state)
{
    static const char *const texts[] = {
        "", "[1]", "{\"hidden_size\": ", "{} {}", "{\"a\":1,\"a\":2}"};
    mhp_model_params params;

    (void)state;
    assert_error(mhp_model_config_read(test_folder, &params), MHP_ERR_NOT_FOUND, "config.json");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        test_write("config.json", texts[i], strlen(texts[i]));
        assert_error(mhp_model_config_read(test_folder, &params), MHP_ERR_FORMAT,
                     test_path("config.json"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(every_kind_reads_back),
        TEST_IN_FOLDER(a_single_stream_reads_back),
        TEST_IN_FOLDER(a_llama_is_a_residual_model),
        TEST_IN_FOLDER(every_key_is_checked),
        TEST_IN_FOLDER(limits_and_contradictions_name_the_file),
        TEST_IN_FOLDER(what_is_no_object_is_refused),
    };

    return cmocka_run_group_tests_name("model_config", tests, NULL, NULL);
}
