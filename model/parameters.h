/* The parameters of a stage: names, shapes, and where each lies in the stage's flat buffer. Gradients and optimizer moments use the
 * same offsets in buffers of their own. Names and shapes are Llama's in Hugging Face's style plus hc_* for the connections. */
#ifndef MHP_MODEL_PARAMETERS_H
#define MHP_MODEL_PARAMETERS_H

#include "model/options.h"

typedef enum mhp_parameter_init {
    MHP_INIT_NORMAL,            /* normal with initializer_range */
    MHP_INIT_ONES,
    MHP_INIT_CONNECTION_BASE,
    MHP_INIT_CONNECTION_SCALE,
    MHP_INIT_READOUT_BASE,
} mhp_parameter_init;

typedef struct mhp_parameter {
    mhp_tensor_info info;       /* global name ("model.layers.3.mlp.up_proj.weight"), dtype, shape */
    int64_t offset, elements;   /* in elements of the flat buffer */
    bool decay;                 /* weight decay applies: embedding, lm_head, matrices of F */
    mhp_parameter_init init;
    int sublayer;               /* global number of the sublayer, -1 outside */
} mhp_parameter;

/* What a stage holds of the model: some of its sublayers, numbered from the model's first on. */
typedef struct mhp_stage_extent {
    int first_sublayer, sublayer_count;
    bool first, last;           /* has the embedding; has readout, final norm and lm_head */
} mhp_stage_extent;

/* By the model's number of the sublayer. */
static inline bool mhp_sublayer_is_attention(int sublayer)
{
    return sublayer % 2 == 0;
}

static inline mhp_stage_extent mhp_stage_whole(const mhp_model_params *model)
{
    return (mhp_stage_extent){.sublayer_count = 2 * (int)model->num_hidden_layers, .first = true, .last = true};
}

static inline double mhp_stage_layers(const mhp_stage_extent *extent)
{
    return extent->sublayer_count / 2.0;
}

/* Offsets of a sublayer's parameters; those that a sublayer lacks are -1. */
typedef struct mhp_sublayer_offsets {
    int64_t norm, fn, base, scale;
    int64_t in, out;            /* attention: q|k|v rows and o; feed-forward: gate|up rows and down */
} mhp_sublayer_offsets;

typedef struct mhp_parameter_layout {
    mhp_parameter *items;
    int count;
    int64_t elements;           /* of the flat buffer */
    mhp_sublayer_offsets *sublayers;    /* [sublayer_count] */
    int64_t embedding, readout_fn, readout_base, readout_scale, norm, lm_head;      /* -1 if absent */
} mhp_parameter_layout;

/* Elements of a sublayer's coefficients (n*n + 2n) and the shape of fn: mhc [n*n+2n, n*C], hc [n+2, C]. */
int64_t mhp_coefficient_count(const mhp_model_params *model);

mhp_status mhp_parameter_layout_create(const mhp_model_params *model, const mhp_stage_extent *extent, mhp_parameter_layout *layout_out);
void mhp_parameter_layout_destroy(mhp_parameter_layout *layout);

/* Parameters of the whole model, without what pads the buffers. */
mhp_status mhp_parameter_count(const mhp_model_params *model, int64_t *count_out);

/* Start values of one parameter as double: a pure function of seed, name and element, so that they do not depend on the number of
 * ranks. `values` holds parameter->elements. */
void mhp_parameter_initialize(const mhp_model_params *model, const mhp_parameter *parameter, uint64_t seed, double *values);

#endif
