/* The forward pass of a stage, one step at a time. */
#include "model/stage_internal.h"

#define SUBMIT(kernel, args) mhp_stream_submit(stream, stage->params.kernels->kernel, &(args), sizeof(args))

static mhp_status embed(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    mhp_embedding_args args = {
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .streams = (int)stage->model.connections.streams,
        .token = microbatch->token,
        .table = stage_weight(stage, stage->layout.embedding),
        .state = stage_state(stage, microbatch, 0),
    };

    return SUBMIT(embedding, args);
}

/* Extends the product of the mixing matrices by sublayer `s`; the last one of the stage writes it behind the leaving state. */
static mhp_status extend_gain(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    void *held = stage_at(stage->workspace, stage->workspace_at.product);
    bool leaves = s == stage->sublayer_count - 1 && !stage->params.extent.last;
    void *entering = stage->params.extent.first ? NULL : stage_message_product(stage, microbatch->input);
    mhp_gain_args args = {
        .tokens = stage_tokens(stage),
        .streams = (int)stage->model.connections.streams,
        .comb = stage_at(microbatch->activation, stage->sublayers[s].comb),
        .product_in = s == 0 ? entering : held,
        .product_out = leaves ? stage_message_product(stage, microbatch->output) : held,
        .worst = microbatch->worst_gain,
    };

    return SUBMIT(gain, args);
}

static mhp_mix_args mix_args(const mhp_stage *stage, const mhp_microbatch *microbatch, int s)
{
    const mhp_model_params *model = &stage->model;
    const sublayer_memory *memory = &stage->sublayers[s];
    const mhp_sublayer_offsets *offsets = &stage->layout.sublayers[s];
    void *activation = microbatch->activation;
    mhp_mix_args args = {
        .connection.kind = (mhp_connection_kind)model->connections.kind,
        .connection.tokens = stage_tokens(stage),
        .connection.hidden = (int)model->hidden_size,
        .connection.streams = (int)model->connections.streams,
        .connection.sinkhorn_iterations = (int)model->connections.sinkhorn_iterations,
        .connection.norm_epsilon = model->rms_norm_eps,
        .connection.hc_epsilon = model->connections.eps,
        .connection.x = stage_state(stage, microbatch, s),
        .weight = stage_parameter(stage, offsets->norm),
        .normed = stage_at(microbatch->product_input, memory->normed),
        .norm_rrms = stage_at(activation, memory->norm_rrms),
    };

    if (stage_has_streams(stage)) {
        args.connection.fn = stage_parameter(stage, offsets->fn);
        args.connection.base = stage_parameter(stage, offsets->base);
        args.connection.scale = stage_parameter(stage, offsets->scale);
        args.connection.pre = stage_at(activation, memory->pre);
        args.connection.post = stage_at(activation, memory->post);
        args.connection.comb = stage_at(activation, memory->comb);
        args.connection.projection = stage_at(activation, memory->projection);
        args.connection.rrms = stage_at(activation, memory->rrms);
        args.connection.z = stage_at(activation, memory->mix);
    }
    return args;
}

static mhp_merge_args merge_args(const mhp_stage *stage, const mhp_microbatch *microbatch, int s)
{
    const sublayer_memory *memory = &stage->sublayers[s];
    mhp_merge_args args = {
        .kind = (mhp_connection_kind)stage->model.connections.kind,
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .streams = (int)stage->model.connections.streams,
        .x = stage_state(stage, microbatch, s),
        .y = stage_at(microbatch->activation, memory->branch),
        .x_next = stage_state(stage, microbatch, s + 1),
    };

    if (stage_has_streams(stage)) {
        args.post = stage_at(microbatch->activation, memory->post);
        args.comb = stage_at(microbatch->activation, memory->comb);
    }
    return args;
}

/* The merge of sublayer s - 1 and what comes before F of sublayer s, where either exists. */
static mhp_status join(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    mhp_merge_mix_args both;

    if (s == stage->sublayer_count) {
        both.merge = merge_args(stage, microbatch, s - 1);
        return SUBMIT(merge, both.merge);
    }
    both.mix = mix_args(stage, microbatch, s);
    if (s == 0) {
        MHP_RETURN_IF_ERROR(SUBMIT(mix, both.mix));
    } else {
        both.merge = merge_args(stage, microbatch, s - 1);
        MHP_RETURN_IF_ERROR(SUBMIT(merge_mix, both));
    }
    return microbatch->gain ? extend_gain(stage, microbatch, s, stream) : MHP_OK;
}

static mhp_status attend(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    const mhp_model_params *model = &stage->model;
    const sublayer_memory *memory = &stage->sublayers[s];
    void *qkv = stage_at(microbatch->activation, memory->wide);
    mhp_rotary_args rotary = {
        .tokens = stage_tokens(stage),
        .heads = (int)model->num_attention_heads,
        .kv_heads = (int)model->num_key_value_heads,
        .head_size = (int)model->head_dim,
        .theta = model->rope_theta,
        .position = microbatch->position,
        .qkv = qkv,
    };
    mhp_attention_args attention = {
        .sequences = stage->params.sequences,
        .length = stage->params.length,
        .heads = (int)model->num_attention_heads,
        .kv_heads = (int)model->num_key_value_heads,
        .head_size = (int)model->head_dim,
        .one_document = microbatch->one_document,
        .document_start = microbatch->document_start,
        .qkv = qkv,
        .out = stage_at(microbatch->product_input, memory->middle),
        .log_sum = stage_at(microbatch->activation, memory->log_sum),
        .workspace = stage_at(stage->workspace, stage->workspace_at.forward_attention),
    };

    MHP_RETURN_IF_ERROR(SUBMIT(rotary, rotary));
    return SUBMIT(attention, attention);
}

static mhp_status apply_function(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    const sublayer_memory *memory = &stage->sublayers[s];
    const mhp_sublayer_offsets *offsets = &stage->layout.sublayers[s];
    int c = (int)stage->model.hidden_size;
    void *wide = stage_at(microbatch->activation, memory->wide);
    void *middle = stage_at(microbatch->product_input, memory->middle);
    mhp_swiglu_args swiglu = {
        .tokens = stage_tokens(stage), .intermediate = (int)stage->model.intermediate_size, .gate_up = wide, .act = middle};

    MHP_RETURN_IF_ERROR(stage_linear(stage, stream, offsets->in, stage_wide(stage, s), c,
                                     stage_at(microbatch->product_input, memory->normed), wide));
    if (sublayer_is_attention(s)) {
        MHP_RETURN_IF_ERROR(attend(stage, microbatch, s, stream));
    } else {
        MHP_RETURN_IF_ERROR(SUBMIT(swiglu, swiglu));
    }
    return stage_linear(stage, stream, offsets->out, c, stage_middle(stage, s), middle,
                        stage_at(microbatch->activation, memory->branch));
}

static mhp_status read_streams(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    const mhp_model_params *model = &stage->model;
    const head_memory *head = &stage->head;
    void *activation = microbatch->activation;
    mhp_stream_sum_args sum = {
        .tokens = stage_tokens(stage),
        .hidden = (int)model->hidden_size,
        .streams = (int)model->connections.streams,
        .state = stage_at(activation, head->state),
        .sum = stage_at(activation, head->mix),
    };
    mhp_readout_args readout = {
        .tokens = stage_tokens(stage),
        .hidden = (int)model->hidden_size,
        .streams = (int)model->connections.streams,
        .norm_epsilon = model->rms_norm_eps,
        .hc_epsilon = model->connections.eps,
        .x = stage_at(activation, head->state),
        .fn = stage_parameter(stage, stage->layout.readout_fn),
        .base = stage_parameter(stage, stage->layout.readout_base),
        .scale = stage_parameter(stage, stage->layout.readout_scale),
        .pre = stage_at(activation, head->pre),
        .projection = stage_at(activation, head->projection),
        .rrms = stage_at(activation, head->rrms),
        .z = stage_at(activation, head->mix),
    };
    mhp_gain_read_args gain = {
        .tokens = stage_tokens(stage),
        .streams = (int)model->connections.streams,
        .product = stage_at(stage->workspace, stage->workspace_at.product),
        .gain = microbatch->gain,
    };

    if (microbatch->gain) {
        MHP_RETURN_IF_ERROR(SUBMIT(gain_read, gain));
    }
    return model->connections.readout == MHP_READOUT_HEAD ? SUBMIT(readout, readout) : SUBMIT(stream_sum, sum);
}

/* Readout and final norm. */
static mhp_status read_out(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    const head_memory *head = &stage->head;
    bool streams = stage_has_streams(stage);
    mhp_rms_norm_args norm = {
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .epsilon = stage->model.rms_norm_eps,
        .x = stage_at(microbatch->activation, streams ? head->mix : head->state),
        .weight = stage_parameter(stage, stage->layout.norm),
        .y = stage_at(microbatch->product_input, head->normed),
        .rrms = stage_at(microbatch->activation, head->norm_rrms),
    };

    if (streams) {
        MHP_RETURN_IF_ERROR(read_streams(stage, microbatch, stream));
    }
    return SUBMIT(rms_norm, norm);
}

/* Logits and loss; a training pass replaces the logits by their gradient at once, so that nothing more is kept. */
static mhp_status predict(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    void *logits = stage_at(microbatch->product_input, stage->head.logits);
    mhp_cross_entropy_args loss = {
        .tokens = stage_tokens(stage),
        .vocabulary = (int)stage->model.vocab_size,
        .scale = microbatch->loss_scale,
        .target = microbatch->target,
        .logits = logits,
        .dlogits = microbatch->evaluate ? NULL : logits,
        .loss_sum = microbatch->loss_sum,
    };

    MHP_RETURN_IF_ERROR(stage_linear(stage, stream, stage->layout.lm_head, (int)stage->model.vocab_size, (int)stage->model.hidden_size,
                                     stage_at(microbatch->product_input, stage->head.normed), logits));
    return SUBMIT(cross_entropy, loss);
}

mhp_status stage_forward_step(mhp_stage *stage, const mhp_microbatch *microbatch, int step, mhp_stream *stream)
{
    int s;

    if (stage->params.extent.first && step-- == 0) {
        return embed(stage, microbatch, stream);
    }
    s = step / FORWARD_STEPS;
    if (step > stage->sublayer_count * FORWARD_STEPS) {
        return step == stage->sublayer_count * FORWARD_STEPS + 1 ? read_out(stage, microbatch, stream)
                                                                 : predict(stage, microbatch, stream);
    }
    return step % FORWARD_STEPS == 0 ? join(stage, microbatch, s, stream) : apply_function(stage, microbatch, s, stream);
}
