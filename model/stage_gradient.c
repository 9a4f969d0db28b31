/* The two gradient passes of a stage, one step at a time: of its input (with the gradients of norms and connections), and of the
 * matrices. Walks the sublayers backwards; the gradient of the state stays in one buffer that every sublayer rewrites. */
#include "model/stage_internal.h"

#define SUBMIT(kernel, args) mhp_stream_submit(stream, stage->params.kernels->kernel, &(args), sizeof(args))

/* The gradient of the state while the pass walks down the stage. */
static void *state_gradient(const mhp_stage *stage, const mhp_microbatch *microbatch)
{
    return stage->params.extent.last ? stage_at(microbatch, stage->gradient_at.state_gradient) : microbatch->gradient_input;
}

static mhp_status head_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    return stage_linear_input_gradient(stage, stream, stage->layout.lm_head, (int)stage->model.vocab_size,
                                       (int)stage->model.hidden_size, stage_at(microbatch, stage->backward.head.logits),
                                       stage_at(microbatch, stage->gradient_at.dnormed));
}

static mhp_status norm_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream, int64_t weight, const void *x,
                                const void *rrms, const void *residual, void *dx)
{
    mhp_rms_norm_gradient_args args = {
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .x = x,
        .weight = stage_parameter(stage, weight),
        .rrms = rrms,
        .dy = stage_at(microbatch, stage->gradient_at.dnormed),
        .residual = residual,
        .dx = dx,
        .dweight = stage_gradient(stage, weight),
    };

    return SUBMIT(rms_norm_gradient, args);
}

static mhp_status spread_to_streams(mhp_stage *stage, const mhp_microbatch *microbatch, const void *dz, mhp_stream *stream)
{
    const mhp_model_params *model = &stage->model;
    const head_memory *head = &stage->backward.head;
    mhp_stream_repeat_args repeat = {
        .tokens = stage_tokens(stage),
        .hidden = (int)model->hidden_size,
        .streams = (int)model->connections.streams,
        .grad = dz,
        .state = state_gradient(stage, microbatch),
    };
    mhp_readout_gradient_args readout = {
        .tokens = stage_tokens(stage),
        .hidden = (int)model->hidden_size,
        .streams = (int)model->connections.streams,
        .norm_epsilon = model->rms_norm_eps,
        .hc_epsilon = model->connections.eps,
        .x = stage_at(microbatch, head->state),
        .dz = dz,
        .pre = stage_at(microbatch, head->pre),
        .projection = stage_at(microbatch, head->projection),
        .rrms = stage_at(microbatch, head->rrms),
        .workspace = stage_at(microbatch, stage->gradient_at.connection),
        .dx = state_gradient(stage, microbatch),
    };

    if (model->connections.readout == MHP_READOUT_SUM) {
        return SUBMIT(stream_repeat, repeat);
    }
    readout.fn = stage_parameter(stage, stage->layout.readout_fn);
    readout.base = stage_parameter(stage, stage->layout.readout_base);
    readout.scale = stage_parameter(stage, stage->layout.readout_scale);
    readout.dfn = stage_gradient(stage, stage->layout.readout_fn);
    readout.dbase = stage_gradient(stage, stage->layout.readout_base);
    readout.dscale = stage_gradient(stage, stage->layout.readout_scale);
    return SUBMIT(readout_gradient, readout);
}

static mhp_status read_out_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    const head_memory *head = &stage->backward.head;
    bool streams = stage_has_streams(stage);
    void *dz = streams ? stage_at(microbatch, stage->gradient_at.dmix) : state_gradient(stage, microbatch);

    MHP_RETURN_IF_ERROR(norm_gradient(stage, microbatch, stream, stage->layout.norm,
                                      stage_at(microbatch, streams ? head->mix : head->state),
                                      stage_at(microbatch, head->norm_rrms), NULL, dz));
    return streams ? spread_to_streams(stage, microbatch, dz, stream) : MHP_OK;
}

/* Gradient of the sublayer's function output, kept for the weight gradient. */
static mhp_merge_gradient_args merge_gradient_args(const mhp_stage *stage, const mhp_microbatch *microbatch, int s)
{
    const sublayer_memory *memory = &stage->backward.sublayers[s];
    mhp_merge_gradient_args args = {
        .kind = (mhp_connection_kind)stage->model.connections.kind,
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .streams = (int)stage->model.connections.streams,
        .g = state_gradient(stage, microbatch),
        .x = stage_state(stage, &stage->backward, microbatch, s),
        .y = stage_at(microbatch, memory->branch),
        .dy = stage_at(microbatch, memory->branch_gradient),
    };

    if (stage_has_streams(stage)) {
        args.post = stage_at(microbatch, memory->post);
        args.comb = stage_at(microbatch, memory->comb);
        args.dpost = stage_at(microbatch, stage->gradient_at.dpost);
        args.dcomb = stage_at(microbatch, stage->gradient_at.dcomb);
    }
    return args;
}

static mhp_status merge_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    mhp_merge_gradient_args args = merge_gradient_args(stage, microbatch, s);

    return SUBMIT(merge_gradient, args);
}

static mhp_status attention_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    const mhp_model_params *model = &stage->model;
    const sublayer_memory *memory = &stage->backward.sublayers[s];
    void *dqkv = stage_at(microbatch, memory->wide_gradient);
    mhp_attention_gradient_args attention = {
        .sequences = stage->params.sequences,
        .length = stage->params.length,
        .heads = (int)model->num_attention_heads,
        .kv_heads = (int)model->num_key_value_heads,
        .head_size = (int)model->head_dim,
        .one_document = microbatch->one_document,
        .document_start = microbatch->document_start,
        .qkv = stage_at(microbatch, memory->wide),
        .out = stage_at(microbatch, memory->middle),
        .log_sum = stage_at(microbatch, memory->log_sum),
        .dout = stage_at(microbatch, stage->gradient_at.dmiddle),
        .dqkv = dqkv,
        .workspace = stage_at(microbatch, stage->gradient_at.attention),
    };
    mhp_rotary_args rotary = {
        .tokens = stage_tokens(stage),
        .heads = (int)model->num_attention_heads,
        .kv_heads = (int)model->num_key_value_heads,
        .head_size = (int)model->head_dim,
        .inverse = true,
        .theta = model->rope_theta,
        .position = microbatch->position,
        .qkv = dqkv,
    };

    MHP_RETURN_IF_ERROR(SUBMIT(attention_gradient, attention));
    return SUBMIT(rotary, rotary);
}

static mhp_status function_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    const sublayer_memory *memory = &stage->backward.sublayers[s];
    const mhp_sublayer_offsets *offsets = &stage->layout.sublayers[s];
    int c = (int)stage->model.hidden_size;
    void *dmiddle = stage_at(microbatch, stage->gradient_at.dmiddle);
    void *dwide = stage_at(microbatch, memory->wide_gradient);
    mhp_swiglu_gradient_args swiglu = {
        .tokens = stage_tokens(stage),
        .intermediate = (int)stage->model.intermediate_size,
        .gate_up = stage_at(microbatch, memory->wide),
        .dact = dmiddle,
        .dgate_up = dwide,
    };

    MHP_RETURN_IF_ERROR(stage_linear_input_gradient(stage, stream, offsets->out, c, stage_middle(stage, s),
                                                    stage_at(microbatch, memory->branch_gradient), dmiddle));
    if (stage_is_attention(stage, s)) {
        MHP_RETURN_IF_ERROR(attention_gradient(stage, microbatch, s, stream));
    } else {
        MHP_RETURN_IF_ERROR(SUBMIT(swiglu_gradient, swiglu));
    }
    return stage_linear_input_gradient(stage, stream, offsets->in, stage_wide(stage, s), c, dwide,
                                       stage_at(microbatch, stage->gradient_at.dnormed));
}

/* What connections with streams add to the arguments of mix_gradient. */
static void fill_connection_gradient(const mhp_stage *stage, const mhp_microbatch *microbatch, int s,
                                     mhp_connection_gradient_args *args)
{
    const sublayer_memory *memory = &stage->backward.sublayers[s];
    const mhp_sublayer_offsets *offsets = &stage->layout.sublayers[s];

    args->dz = stage_at(microbatch, stage->gradient_at.dmix);
    args->dpost = stage_at(microbatch, stage->gradient_at.dpost);
    args->dcomb = stage_at(microbatch, stage->gradient_at.dcomb);
    args->pre = stage_at(microbatch, memory->pre);
    args->post = stage_at(microbatch, memory->post);
    args->comb = stage_at(microbatch, memory->comb);
    args->projection = stage_at(microbatch, memory->projection);
    args->rrms = stage_at(microbatch, memory->rrms);
    args->fn = stage_parameter(stage, offsets->fn);
    args->base = stage_parameter(stage, offsets->base);
    args->scale = stage_parameter(stage, offsets->scale);
    args->dfn = stage_gradient(stage, offsets->fn);
    args->dbase = stage_gradient(stage, offsets->base);
    args->dscale = stage_gradient(stage, offsets->scale);
}

/* Back through norm, pre mix and coefficients; the stage's first sublayer writes the gradient that leaves. */
static mhp_mix_gradient_args mix_gradient_args(mhp_stage *stage, const mhp_microbatch *microbatch, int s)
{
    const mhp_model_params *model = &stage->model;
    const sublayer_memory *memory = &stage->backward.sublayers[s];
    int64_t weight = stage->layout.sublayers[s].norm;
    void *g = state_gradient(stage, microbatch);
    mhp_mix_gradient_args args = {
        .connection.kind = (mhp_connection_kind)model->connections.kind,
        .connection.tokens = stage_tokens(stage),
        .connection.hidden = (int)model->hidden_size,
        .connection.streams = (int)model->connections.streams,
        .connection.sinkhorn_iterations = (int)model->connections.sinkhorn_iterations,
        .connection.norm_epsilon = model->rms_norm_eps,
        .connection.hc_epsilon = model->connections.eps,
        .connection.g = g,
        .connection.x = stage_state(stage, &stage->backward, microbatch, s),
        .connection.workspace = stage_at(microbatch, stage->gradient_at.connection),
        .connection.dx = s == 0 && !stage->params.extent.first ? microbatch->gradient_output : g,
        .weight = stage_parameter(stage, weight),
        .norm_rrms = stage_at(microbatch, memory->norm_rrms),
        .dnormed = stage_at(microbatch, stage->gradient_at.dnormed),
        .dweight = stage_gradient(stage, weight),
    };

    if (stage_has_streams(stage)) {
        fill_connection_gradient(stage, microbatch, s, &args.connection);
    }
    return args;
}

static mhp_status mix_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    mhp_mix_gradient_args args = mix_gradient_args(stage, microbatch, s);

    return SUBMIT(mix_gradient, args);
}

/* The same, and what comes next: the gradient of the merge in front. */
static mhp_status mix_merge_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    mhp_mix_merge_gradient_args args = {
        .mix = mix_gradient_args(stage, microbatch, s),
        .merge = merge_gradient_args(stage, microbatch, s - 1),
    };

    return SUBMIT(mix_merge_gradient, args);
}

static mhp_status expand_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    mhp_stream_sum_args args = {
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .streams = (int)stage->model.connections.streams,
        .state = state_gradient(stage, microbatch),
        .sum = stage_at(microbatch, stage->embedding_gradient),
    };

    return SUBMIT(stream_sum, args);
}

mhp_status stage_input_gradient_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream)
{
    switch (step->operation) {
    case OPERATION_HEAD_GRADIENT:
        return head_gradient(stage, microbatch, stream);
    case OPERATION_READ_OUT_GRADIENT:
        return read_out_gradient(stage, microbatch, stream);
    case OPERATION_MERGE_GRADIENT:
        return merge_gradient(stage, microbatch, step->sublayer, stream);
    case OPERATION_FUNCTION_GRADIENT:
        return function_gradient(stage, microbatch, step->sublayer, stream);
    case OPERATION_MIX_GRADIENT:
        return mix_gradient(stage, microbatch, step->sublayer, stream);
    case OPERATION_MIX_MERGE_GRADIENT:
        return mix_merge_gradient(stage, microbatch, step->sublayer, stream);
    case OPERATION_EXPAND_GRADIENT:
        return expand_gradient(stage, microbatch, stream);
    default:
        return stage_rebuild_step(stage, microbatch, step, stream);
    }
}

static mhp_status embedding_weight_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    mhp_embedding_gradient_args args = {
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .token = microbatch->token,
        .grad = stage_at(microbatch, stage->embedding_gradient),
        .dtable = stage_gradient(stage, stage->layout.embedding),
    };

    return SUBMIT(embedding_gradient, args);
}

static mhp_status sublayer_weight_gradient(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    const sublayer_memory *memory = &stage->backward.sublayers[s];
    const mhp_sublayer_offsets *offsets = &stage->layout.sublayers[s];
    int c = (int)stage->model.hidden_size;

    MHP_RETURN_IF_ERROR(stage_linear_weight_gradient(stage, stream, offsets->out, c, stage_middle(stage, s),
                                                     stage_at(microbatch, memory->branch_gradient),
                                                     stage_at(microbatch, memory->middle)));
    return stage_linear_weight_gradient(stage, stream, offsets->in, stage_wide(stage, s), c,
                                        stage_at(microbatch, memory->wide_gradient),
                                        stage_at(microbatch, memory->normed));
}

mhp_status stage_weight_gradient_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream)
{
    switch (step->operation) {
    case OPERATION_HEAD_WEIGHT:
        return stage_linear_weight_gradient(stage, stream, stage->layout.lm_head, (int)stage->model.vocab_size,
                                            (int)stage->model.hidden_size, stage_at(microbatch, stage->backward.head.logits),
                                            stage_at(microbatch, stage->backward.head.normed));
    case OPERATION_SUBLAYER_WEIGHT:
        return sublayer_weight_gradient(stage, microbatch, step->sublayer, stream);
    default:
        return embedding_weight_gradient(stage, microbatch, stream);
    }
}
