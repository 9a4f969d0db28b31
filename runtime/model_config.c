/* config.json of a model folder: Hugging Face's keys, so that a residual model loads there as a Llama, and "connections" for the rest. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/model_file.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

typedef struct integer_key {
    const char *name;
    size_t offset;
} integer_key;

#define KEY(name) {#name, offsetof(mhp_model_params, name)}
static const integer_key integer_keys[] = {
    KEY(hidden_size), KEY(num_hidden_layers), KEY(num_attention_heads), KEY(num_key_value_heads),
    KEY(head_dim), KEY(intermediate_size), KEY(vocab_size),
};
static const integer_key real_keys[] = {KEY(rms_norm_eps), KEY(rope_theta), KEY(initializer_range)};
#undef KEY

static const char *const kind_names[] = {"residual", "hc", "mhc"};
static const char *const readout_names[] = {"head", "sum"};

static int set_connections(json_t *root, const mhp_connection_params *connections)
{
    json_t *section = json_pack("{s:s, s:I, s:I, s:f, s:s}", "kind", kind_names[connections->kind], "streams",
                                (json_int_t)connections->streams, "sinkhorn_iterations",
                                (json_int_t)connections->sinkhorn_iterations, "eps", connections->eps, "readout",
                                readout_names[connections->readout]);

    return section ? json_object_set_new(root, "connections", section) : -1;
}

static json_t *config_to_json(const mhp_model_params *params)
{
    bool residual = params->connections.kind == MHP_CONNECTION_RESIDUAL;
    json_t *root = json_pack("{s:[s], s:s, s:s, s:b, s:b, s:b, s:s}", "architectures", residual ? "LlamaForCausalLM" : "MhcpipeForCausalLM",
                             "model_type", residual ? "llama" : "mhcpipe", "hidden_act", "silu", "attention_bias", 0, "mlp_bias", 0,
                             "tie_word_embeddings", 0, "torch_dtype", params->dtype == MHP_DTYPE_F64 ? "float64" : "float32");
    int failed = root == NULL;

    for (size_t i = 0; !failed && i < sizeof integer_keys / sizeof *integer_keys; i++) {
        int64_t value = *(const int64_t *)((const char *)params + integer_keys[i].offset);

        failed = json_object_set_new(root, integer_keys[i].name, json_integer(value));
    }
    for (size_t i = 0; !failed && i < sizeof real_keys / sizeof *real_keys; i++) {
        double value = *(const double *)((const char *)params + real_keys[i].offset);

        failed = json_object_set_new(root, real_keys[i].name, json_real(value));
    }
    failed = failed || set_connections(root, &params->connections);
    if (failed) {
        json_decref(root);
        return NULL;
    }
    return root;
}

mhp_status mhp_model_config_write(const char *directory, const mhp_model_params *params)
{
    mhp_status status = MHP_OK;
    json_t *root = config_to_json(params);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    char *path = NULL;

    if (!text) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "cannot build config.json for %s", directory);
    }
    MHP_TRY(out, mhp_mkdirs(directory));
    MHP_TRY(out, mhp_asprintf(&path, "%s/config.json", directory));
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
out:
    json_decref(root);
    free(text);
    mhp_free(path);
    return status;
}

static mhp_status read_integer(const char *path, const json_t *root, const char *key, int64_t *value_out)
{
    const json_t *value = json_object_get(root, key);

    if (!json_is_integer(value) || json_integer_value(value) < 1) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"%s\" is %s: expected a positive integer", path, key,
                             value ? "something else" : "missing");
    }
    *value_out = json_integer_value(value);
    return MHP_OK;
}

static mhp_status read_real(const char *path, const json_t *root, const char *key, double *value_out)
{
    const json_t *value = json_object_get(root, key);

    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"%s\" is %s: expected a number", path, key, value ? "something else" : "missing");
    }
    *value_out = json_number_value(value);
    return MHP_OK;
}

static mhp_status read_name(const char *path, const json_t *root, const char *key, const char *const *names, int count, int *value_out)
{
    const char *name = json_string_value(json_object_get(root, key));

    for (int i = 0; name && i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            *value_out = i;
            return MHP_OK;
        }
    }
    return mhp_error_set(MHP_ERR_FORMAT, "%s: key \"%s\" is %s: expected one of %s, %s%s%s", path, key, name ? name : "missing", names[0],
                         names[1], count > 2 ? ", " : "", count > 2 ? names[2] : "");
}

static mhp_status read_connections(const char *path, const json_t *root, mhp_connection_params *connections)
{
    const json_t *section = json_object_get(root, "connections");

    connections->init_pre_gain = 0.5; /* start values are not read, but one stream refuses 1 */
    if (!section) {             /* a Llama */
        connections->kind = MHP_CONNECTION_RESIDUAL;
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(read_name(path, section, "kind", kind_names, 3, &connections->kind));
    MHP_RETURN_IF_ERROR(read_name(path, section, "readout", readout_names, 2, &connections->readout));
    MHP_RETURN_IF_ERROR(read_integer(path, section, "streams", &connections->streams));
    MHP_RETURN_IF_ERROR(read_integer(path, section, "sinkhorn_iterations", &connections->sinkhorn_iterations));
    if (connections->streams > MHP_STREAMS_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s: key \"streams\" is %lld: expected at most %d", path, (long long)connections->streams,
                             MHP_STREAMS_MAX);
    }
    return read_real(path, section, "eps", &connections->eps);
}

/* What Hugging Face's Llama can be and this model cannot. */
static mhp_status refuse_unlike_llama(const char *path, const json_t *root)
{
    static const char *const flags[] = {"tie_word_embeddings", "attention_bias", "mlp_bias"};
    const char *activation = json_string_value(json_object_get(root, "hidden_act"));
    const json_t *scaling = json_object_get(root, "rope_scaling");

    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (json_is_true(json_object_get(root, flags[i]))) {
            return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s: key \"%s\" is true: expected false", path, flags[i]);
        }
    }
    if (scaling && !json_is_null(scaling)) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s: key \"rope_scaling\" is set: expected null", path);
    }
    if (activation && strcmp(activation, "silu") != 0) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "%s: key \"hidden_act\" is %s: expected silu", path, activation);
    }
    return MHP_OK;
}

static mhp_status config_from_json(const char *path, const json_t *root, mhp_model_params *params)
{
    const char *dtype = json_string_value(json_object_get(root, "torch_dtype"));

    for (size_t i = 0; i < sizeof integer_keys / sizeof *integer_keys; i++) {
        MHP_RETURN_IF_ERROR(read_integer(path, root, integer_keys[i].name, (int64_t *)((char *)params + integer_keys[i].offset)));
    }
    for (size_t i = 0; i < sizeof real_keys / sizeof *real_keys; i++) {
        MHP_RETURN_IF_ERROR(read_real(path, root, real_keys[i].name, (double *)((char *)params + real_keys[i].offset)));
    }
    params->dtype = dtype && strcmp(dtype, "float64") == 0 ? MHP_DTYPE_F64 : MHP_DTYPE_F32;
    MHP_RETURN_IF_ERROR(read_connections(path, root, &params->connections));
    MHP_RETURN_IF_ERROR(refuse_unlike_llama(path, root));
    MHP_RETURN_IF_ERROR(mhp_error_prefix(mhp_options_check(mhp_model_options, params, "model"), "%s: ", path));
    return mhp_error_prefix(mhp_model_params_resolve(params), "%s: ", path);
}

mhp_status mhp_model_config_read(const char *directory, mhp_model_params *params_out)
{
    mhp_status status = MHP_OK;
    json_error_t error;
    json_t *root = NULL;
    char *path = NULL;
    char *text = NULL;
    size_t size;

    MHP_TRY(out, mhp_options_default(mhp_model_options, params_out));      /* of start values, which the file has not */
    MHP_TRY(out, mhp_asprintf(&path, "%s/config.json", directory));
    MHP_TRY(out, mhp_file_read_all(path, CONFIG_BYTES_MAX, &text, &size));
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        MHP_RAISE(out, MHP_ERR_FORMAT, "%s:%d:%d: %s: expected a JSON object", path, error.line, error.column, error.text);
    }
    MHP_TRY(out, config_from_json(path, root, params_out));
out:
    json_decref(root);
    mhp_free(text);
    mhp_free(path);
    return status;
}
