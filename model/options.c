#include "model/options.h"

#define FIELD(name) offsetof(mhp_model_params, name)
#define CONNECTION_FIELD(name) offsetof(mhp_connection_params, name)

static const mhp_option_choice connection_kinds[] = {
    {"residual", MHP_CONNECTION_RESIDUAL}, {"hc", MHP_CONNECTION_HC}, {"mhc", MHP_CONNECTION_MHC}, {NULL, 0}};
static const mhp_option_choice readout_kinds[] = {{"head", MHP_READOUT_HEAD}, {"sum", MHP_READOUT_SUM}, {NULL, 0}};
static const mhp_option_choice pre_inits[] = {{"uniform", MHP_PRE_INIT_UNIFORM}, {"rotate", MHP_PRE_INIT_ROTATE}, {NULL, 0}};
static const mhp_option_choice dtypes[] = {{"f32", MHP_DTYPE_F32}, {"f64", MHP_DTYPE_F64}, {"bf16", MHP_DTYPE_BF16}, {NULL, 0}};

static const mhp_option connection_options[] = {
    {.key = "kind", .type = MHP_OPTION_ENUM, .offset = CONNECTION_FIELD(kind), .default_text = "mhc", .choices = connection_kinds,
     .help = "what joins the sublayers: one residual stream, hyper-connections, or manifold-constrained ones"},
    {.key = "streams", .type = MHP_OPTION_INT, .offset = CONNECTION_FIELD(streams), .default_text = "4", .minimum = 1,
     .maximum = MHP_STREAMS_MAX, .help = "residual streams n; residual connections ignore it"},
    {.key = "sinkhorn_iterations", .type = MHP_OPTION_INT, .offset = CONNECTION_FIELD(sinkhorn_iterations), .default_text = "20",
     .minimum = 1, .maximum = 100, .help = "iterations that make the mixing matrix doubly stochastic (mhc)"},
    {.key = "eps", .type = MHP_OPTION_FLOAT, .offset = CONNECTION_FIELD(eps), .default_text = "1e-6", .minimum = 0, .maximum = 0.1,
     .help = "added to coefficients and to Sinkhorn's sums"},
    {.key = "readout", .type = MHP_OPTION_ENUM, .offset = CONNECTION_FIELD(readout), .default_text = "head", .choices = readout_kinds,
     .help = "how the streams become one before the final norm: learned weights, or their sum"},
    {.key = "init_scale", .type = MHP_OPTION_FLOAT, .offset = CONNECTION_FIELD(init_scale), .default_text = "0.01", .minimum = -10,
     .maximum = 10, .help = "start value of the scales of the coefficients' input-dependent part"},
    {.key = "init_pre", .type = MHP_OPTION_ENUM, .offset = CONNECTION_FIELD(init_pre), .default_text = "uniform", .choices = pre_inits,
     .help = "which streams a sublayer reads at the start: all alike, or mostly stream (sublayer mod n)"},
    {.key = "init_pre_gain", .type = MHP_OPTION_FLOAT, .offset = CONNECTION_FIELD(init_pre_gain), .default_text = "1",
     .minimum = 0.01, .maximum = 7.9, .help = "start value of the sum of the pre coefficients over the streams"},
    {.key = "init_comb_diagonal", .type = MHP_OPTION_FLOAT, .offset = CONNECTION_FIELD(init_comb_diagonal), .default_text = "4",
     .minimum = 0, .maximum = 50, .help = "start logit of a stream's way into itself over its way into another; 0 mixes fully"},
    {.key = NULL},
};

const mhp_option mhp_model_options[] = {
    {.key = "hidden_size", .type = MHP_OPTION_INT, .offset = FIELD(hidden_size), .minimum = 1, .maximum = 65536,
     .help = "width C of a stream"},
    {.key = "num_hidden_layers", .type = MHP_OPTION_INT, .offset = FIELD(num_hidden_layers), .minimum = 1, .maximum = 4096,
     .help = "layers, each an attention and a feed-forward sublayer"},
    {.key = "num_attention_heads", .type = MHP_OPTION_INT, .offset = FIELD(num_attention_heads), .minimum = 1, .maximum = 1024,
     .help = "query heads"},
    {.key = "num_key_value_heads", .type = MHP_OPTION_INT, .offset = FIELD(num_key_value_heads), .default_text = "0", .minimum = 0,
     .maximum = 1024, .help = "key and value heads; 0: as many as query heads"},
    {.key = "head_dim", .type = MHP_OPTION_INT, .offset = FIELD(head_dim), .default_text = "0", .minimum = 0, .maximum = 1024,
     .help = "size of a head, even; 0: hidden_size / num_attention_heads"},
    {.key = "intermediate_size", .type = MHP_OPTION_INT, .offset = FIELD(intermediate_size), .minimum = 1, .maximum = 1048576,
     .help = "width of the feed-forward sublayer"},
    {.key = "vocab_size", .type = MHP_OPTION_INT, .offset = FIELD(vocab_size), .minimum = 2, .maximum = 16777216,
     .help = "token ids run from 0 to vocab_size - 1"},
    {.key = "rms_norm_eps", .type = MHP_OPTION_FLOAT, .offset = FIELD(rms_norm_eps), .default_text = "1e-6", .minimum = 0,
     .maximum = 0.1, .help = "added to the mean square in every norm"},
    {.key = "rope_theta", .type = MHP_OPTION_FLOAT, .offset = FIELD(rope_theta), .default_text = "10000", .minimum = 1,
     .maximum = 1e12, .help = "base of the rotary angles"},
    {.key = "initializer_range", .type = MHP_OPTION_FLOAT, .offset = FIELD(initializer_range), .default_text = "0.02",
     .minimum = 0, .maximum = 10, .help = "standard deviation of the matrices at the start"},
    {.key = "dtype", .type = MHP_OPTION_ENUM, .offset = FIELD(dtype), .default_text = "f32", .choices = dtypes,
     .help = "element type of matrices, activations and messages; cpu computes in f32 and f64, cuda in bf16 and f32"},
    {.key = "connections", .type = MHP_OPTION_SECTION, .offset = FIELD(connections), .section = connection_options,
     .help = "how the sublayers are joined"},
    {.key = NULL},
};

mhp_status mhp_model_params_resolve(mhp_model_params *params)
{
    if (params->num_key_value_heads == 0) {
        params->num_key_value_heads = params->num_attention_heads;
    }
    if (params->num_attention_heads % params->num_key_value_heads != 0) {
        return mhp_error_set(MHP_ERR_CONFIG, "model.num_attention_heads is %lld: expected a multiple of num_key_value_heads, %lld",
                             (long long)params->num_attention_heads, (long long)params->num_key_value_heads);
    }
    if (params->head_dim == 0) {
        if (params->hidden_size % params->num_attention_heads != 0) {
            return mhp_error_set(MHP_ERR_CONFIG,
                                 "model.hidden_size is %lld: expected a multiple of num_attention_heads, %lld, or a head_dim",
                                 (long long)params->hidden_size, (long long)params->num_attention_heads);
        }
        params->head_dim = params->hidden_size / params->num_attention_heads;
    }
    if (params->head_dim % 2 != 0) {
        return mhp_error_set(MHP_ERR_CONFIG, "model.head_dim is %lld: expected an even number (rotary pairs)",
                             (long long)params->head_dim);
    }
    if (params->connections.kind == MHP_CONNECTION_RESIDUAL) {
        params->connections.streams = 1;
    } else if (params->connections.init_pre_gain > 0.99 * (double)params->connections.streams) {
        return mhp_error_set(MHP_ERR_CONFIG, "model.connections.init_pre_gain is %g: expected less than the number of streams, %lld",
                             params->connections.init_pre_gain, (long long)params->connections.streams);
    }
    return MHP_OK;
}
