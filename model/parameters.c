#include "model/parameters.h"

#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"

enum { DRAWN_ALONE_MAX = 1 << 16, DRAWING_THREADS_MAX = 32 };
enum { PARAMETER_ALIGNMENT = 16, PARAMETERS_PER_SUBLAYER = 8, PARAMETERS_OUTSIDE = 6 };

int64_t mhp_coefficient_count(const mhp_model_params *model)
{
    return model->connections.streams * (model->connections.streams + 2);
}

/* Appends a parameter; `packed` puts it right behind the one before, so that one matrix product serves both. */
static int64_t append(mhp_parameter_layout *layout, const mhp_model_params *model, mhp_parameter parameter, bool packed)
{
    mhp_parameter *item = &layout->items[layout->count++];

    *item = parameter;
    item->info.dtype = mhp_dtype_full((mhp_dtype)model->dtype);
    item->elements = mhp_tensor_elements(&item->info);
    if (!packed) {
        layout->elements = (layout->elements + PARAMETER_ALIGNMENT - 1) / PARAMETER_ALIGNMENT * PARAMETER_ALIGNMENT;
    }
    item->offset = layout->elements;
    layout->elements += item->elements;
    return item->offset;
}

static mhp_parameter vector_of(int64_t size, mhp_parameter_init init)
{
    return (mhp_parameter){.info = {.rank = 1, .shape = {size}}, .init = init, .sublayer = -1};
}

static mhp_parameter matrix_of(int64_t rows, int64_t columns, bool decay)
{
    return (mhp_parameter){.info = {.rank = 2, .shape = {rows, columns}}, .init = MHP_INIT_NORMAL, .decay = decay, .sublayer = -1};
}

static mhp_parameter named(mhp_parameter parameter, const char *format, ...) __attribute__((format(printf, 2, 3)));
static mhp_parameter named(mhp_parameter parameter, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(parameter.info.name, sizeof parameter.info.name, format, arguments);
    va_end(arguments);
    return parameter;
}

static void append_connection(mhp_parameter_layout *layout, const mhp_model_params *model, int sublayer, mhp_sublayer_offsets *offsets)
{
    const char *part = mhp_sublayer_is_attention(sublayer) ? "attn" : "ffn";
    int layer = sublayer / 2;
    int64_t n = model->connections.streams;
    int64_t coefficients = mhp_coefficient_count(model);
    bool mhc = model->connections.kind == MHP_CONNECTION_MHC;
    mhp_parameter fn = matrix_of(mhc ? coefficients : n + 2, mhc ? n * model->hidden_size : model->hidden_size, false);
    mhp_parameter base = vector_of(coefficients, MHP_INIT_CONNECTION_BASE);
    mhp_parameter scale = vector_of(3, MHP_INIT_CONNECTION_SCALE);

    if (model->connections.kind == MHP_CONNECTION_RESIDUAL) {
        return;
    }
    fn.sublayer = base.sublayer = scale.sublayer = sublayer;
    offsets->fn = append(layout, model, named(fn, "model.layers.%d.hc_%s_fn", layer, part), false);
    offsets->base = append(layout, model, named(base, "model.layers.%d.hc_%s_base", layer, part), false);
    offsets->scale = append(layout, model, named(scale, "model.layers.%d.hc_%s_scale", layer, part), false);
}

static void append_attention(mhp_parameter_layout *layout, const mhp_model_params *model, int layer, mhp_sublayer_offsets *offsets)
{
    int64_t c = model->hidden_size;
    int64_t q = model->num_attention_heads * model->head_dim;
    int64_t kv = model->num_key_value_heads * model->head_dim;
    const char *prefix = "model.layers.";

    offsets->norm = append(layout, model, named(vector_of(c, MHP_INIT_ONES), "%s%d.input_layernorm.weight", prefix, layer), false);
    offsets->in = append(layout, model, named(matrix_of(q, c, true), "%s%d.self_attn.q_proj.weight", prefix, layer), false);
    append(layout, model, named(matrix_of(kv, c, true), "%s%d.self_attn.k_proj.weight", prefix, layer), true);
    append(layout, model, named(matrix_of(kv, c, true), "%s%d.self_attn.v_proj.weight", prefix, layer), true);
    offsets->out = append(layout, model, named(matrix_of(c, q, true), "%s%d.self_attn.o_proj.weight", prefix, layer), false);
}

static void append_feed_forward(mhp_parameter_layout *layout, const mhp_model_params *model, int layer, mhp_sublayer_offsets *offsets)
{
    int64_t c = model->hidden_size;
    int64_t wide = model->intermediate_size;
    const char *prefix = "model.layers.";

    offsets->norm =
        append(layout, model, named(vector_of(c, MHP_INIT_ONES), "%s%d.post_attention_layernorm.weight", prefix, layer), false);
    offsets->in = append(layout, model, named(matrix_of(wide, c, true), "%s%d.mlp.gate_proj.weight", prefix, layer), false);
    append(layout, model, named(matrix_of(wide, c, true), "%s%d.mlp.up_proj.weight", prefix, layer), true);
    offsets->out = append(layout, model, named(matrix_of(c, wide, true), "%s%d.mlp.down_proj.weight", prefix, layer), false);
}

static void append_sublayer(mhp_parameter_layout *layout, const mhp_model_params *model, int sublayer, mhp_sublayer_offsets *offsets)
{
    *offsets = (mhp_sublayer_offsets){-1, -1, -1, -1, -1, -1};
    if (mhp_sublayer_is_attention(sublayer)) {
        append_attention(layout, model, sublayer / 2, offsets);
    } else {
        append_feed_forward(layout, model, sublayer / 2, offsets);
    }
    append_connection(layout, model, sublayer, offsets);
}

static void append_head(mhp_parameter_layout *layout, const mhp_model_params *model)
{
    int64_t n = model->connections.streams;
    int64_t c = model->hidden_size;

    if (model->connections.kind != MHP_CONNECTION_RESIDUAL && model->connections.readout == MHP_READOUT_HEAD) {
        layout->readout_fn = append(layout, model, named(matrix_of(n, n * c, false), "model.hc_head_fn"), false);
        layout->readout_base = append(layout, model, named(vector_of(n, MHP_INIT_READOUT_BASE), "model.hc_head_base"), false);
        layout->readout_scale = append(layout, model, named(vector_of(1, MHP_INIT_CONNECTION_SCALE), "model.hc_head_scale"), false);
    }
    layout->norm = append(layout, model, named(vector_of(c, MHP_INIT_ONES), "model.norm.weight"), false);
    layout->lm_head = append(layout, model, named(matrix_of(model->vocab_size, c, true), "lm_head.weight"), false);
}

mhp_status mhp_parameter_layout_create(const mhp_model_params *model, const mhp_stage_extent *extent, mhp_parameter_layout *layout_out)
{
    mhp_status status = MHP_OK;
    mhp_parameter_layout layout = {.embedding = -1, .readout_fn = -1, .readout_base = -1, .readout_scale = -1, .norm = -1, .lm_head = -1};

    MHP_TRY(out, mhp_calloc(&layout.items, (size_t)extent->sublayer_count * PARAMETERS_PER_SUBLAYER + PARAMETERS_OUTSIDE,
                            sizeof *layout.items));
    MHP_TRY(out, mhp_calloc(&layout.sublayers, (size_t)extent->sublayer_count, sizeof *layout.sublayers));
    if (extent->first) {
        layout.embedding = append(&layout, model, named(matrix_of(model->vocab_size, model->hidden_size, true), "model.embed_tokens.weight"),
                                  false);
    }
    for (int s = 0; s < extent->sublayer_count; s++) {
        append_sublayer(&layout, model, extent->first_sublayer + s, &layout.sublayers[s]);
    }
    if (extent->last) {
        append_head(&layout, model);
    }
    *layout_out = layout;
    memset(&layout, 0, sizeof layout);
out:
    mhp_parameter_layout_destroy(&layout);
    return status;
}

void mhp_parameter_layout_destroy(mhp_parameter_layout *layout)
{
    mhp_free(layout->items);
    mhp_free(layout->sublayers);
    memset(layout, 0, sizeof *layout);
}

mhp_status mhp_parameter_count(const mhp_model_params *model, int64_t *count_out)
{
    mhp_stage_extent whole = mhp_stage_whole(model);
    mhp_parameter_layout layout;

    *count_out = 0;
    MHP_RETURN_IF_ERROR(mhp_parameter_layout_create(model, &whole, &layout));
    for (int i = 0; i < layout.count; i++) {
        *count_out += layout.items[i].elements;
    }
    mhp_parameter_layout_destroy(&layout);
    return MHP_OK;
}

/* FNV-1a: the random stream of a parameter depends on its name alone. */
static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *name; name++) {
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return hash;
}

static double logit(double probability)
{
    return log(probability / (1.0 - probability));
}

/* The pre coefficient that stream j starts with in a sublayer. */
static double initial_pre(const mhp_connection_params *connections, int sublayer, int64_t j)
{
    double uniform = connections->init_pre_gain / (double)connections->streams;
    double most;

    if (connections->init_pre == MHP_PRE_INIT_UNIFORM || connections->streams == 1) {
        return uniform < 0.99 ? uniform : 0.99;
    }
    most = 0.9 * (connections->init_pre_gain < 1 ? connections->init_pre_gain : 1);
    return j == sublayer % connections->streams ? most : (connections->init_pre_gain - most) / (double)(connections->streams - 1);
}

/* mhc's base holds logits; hc's holds the coefficients themselves, so that both start as the same map (docs/model.md). */
static void initialize_base(const mhp_model_params *model, int sublayer, double *base)
{
    const mhp_connection_params *connections = &model->connections;
    int64_t n = connections->streams;
    bool mhc = connections->kind == MHP_CONNECTION_MHC;
    double off_diagonal = 1.0 / (exp(connections->init_comb_diagonal) + (double)n - 1.0);

    for (int64_t j = 0; j < n; j++) {
        double pre = initial_pre(connections, sublayer, j);

        base[j] = mhc ? logit(pre) : pre;
        base[n + j] = mhc ? 0.0 : 1.0;          /* post = 2 sigmoid(0) = 1 */
        for (int64_t k = 0; k < n; k++) {
            double mixed = j == k ? 1.0 - (double)(n - 1) * off_diagonal : off_diagonal;

            base[2 * n + j * n + k] = mhc ? (j == k ? connections->init_comb_diagonal : 0.0) : mixed;
        }
    }
}

/* A billion normal numbers take a core half a minute: as many threads as this process may use cores. Each number depends on its place
 * alone. */
static int drawing_threads(const mhp_parameter *parameter)
{
    cpu_set_t cores;

    if (parameter->elements < DRAWN_ALONE_MAX || sched_getaffinity(0, sizeof cores, &cores) != 0) {
        return 1;
    }
    return CPU_COUNT(&cores) < DRAWING_THREADS_MAX ? CPU_COUNT(&cores) : DRAWING_THREADS_MAX;
}

void mhp_parameter_initialize(const mhp_model_params *model, const mhp_parameter *parameter, uint64_t seed, double *values)
{
    uint64_t stream = hash_name(parameter->info.name);

    if (parameter->init == MHP_INIT_CONNECTION_BASE) {
        initialize_base(model, parameter->sublayer, values);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(drawing_threads(parameter))
    for (int64_t i = 0; i < parameter->elements; i++) {
        switch (parameter->init) {
        case MHP_INIT_NORMAL:
            values[i] = model->initializer_range * mhp_random_normal(seed, stream, (uint64_t)i);
            break;
        case MHP_INIT_ONES:
            values[i] = 1.0;
            break;
        case MHP_INIT_CONNECTION_SCALE:
            values[i] = model->connections.init_scale;
            break;
        case MHP_INIT_READOUT_BASE:
            values[i] = logit(1.0 / (double)(model->connections.streams > 1 ? model->connections.streams : 2));
            break;
        case MHP_INIT_CONNECTION_BASE:
            break;
        }
    }
}
