/* The forward pass of a stage, one step at a time; parts of it serve the rebuild in its view. */
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
        .state = stage_state(stage, &stage->forward, microbatch, 0),
    };

    return SUBMIT(embedding, args);
}

/* Extends the product of the mixing matrices by sublayer `s`. */
static mhp_status extend_gain(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    void *held = stage_at(microbatch, stage->product);
    void *entering = stage->params.extent.first ? NULL : stage_message_product(stage, microbatch->input);
    mhp_gain_args args = {
        .tokens = stage_tokens(stage),
        .streams = (int)stage->model.connections.streams,
        .comb = stage_at(microbatch, stage->forward.sublayers[s].comb),
        .product_in = s == 0 ? entering : held,
        .product_out = held,
        .worst = microbatch->worst_gain,
    };

    return SUBMIT(gain, args);
}

static mhp_mix_args mix_args(const mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s)
{
    const mhp_model_params *model = &stage->model;
    const sublayer_memory *memory = &view->sublayers[s];
    const mhp_sublayer_offsets *offsets = &stage->layout.sublayers[s];
    mhp_mix_args args = {
        .connection.kind = (mhp_connection_kind)model->connections.kind,
        .connection.tokens = stage_tokens(stage),
        .connection.hidden = (int)model->hidden_size,
        .connection.streams = (int)model->connections.streams,
        .connection.sinkhorn_iterations = (int)model->connections.sinkhorn_iterations,
        .connection.norm_epsilon = model->rms_norm_eps,
        .connection.hc_epsilon = model->connections.eps,
        .connection.x = stage_state(stage, view, microbatch, s),
        .weight = stage_parameter(stage, offsets->norm),
        .normed = stage_at(microbatch, memory->normed),
        .norm_rrms = stage_at(microbatch, memory->norm_rrms),
    };

    if (stage_has_streams(stage)) {
        args.connection.fn = stage_parameter(stage, offsets->fn);
        args.connection.base = stage_parameter(stage, offsets->base);
        args.connection.scale = stage_parameter(stage, offsets->scale);
        args.connection.pre = stage_at(microbatch, memory->pre);
        args.connection.post = stage_at(microbatch, memory->post);
        args.connection.comb = stage_at(microbatch, memory->comb);
        args.connection.projection = stage_at(microbatch, memory->projection);
        args.connection.rrms = stage_at(microbatch, memory->rrms);
    }
    return args;
}

static mhp_merge_args merge_args(const mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s)
{
    const sublayer_memory *memory = &view->sublayers[s];
    mhp_merge_args args = {
        .kind = (mhp_connection_kind)stage->model.connections.kind,
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .streams = (int)stage->model.connections.streams,
        .x = stage_state(stage, view, microbatch, s),
        .y = stage_at(microbatch, memory->branch),
        .x_next = stage_state(stage, view, microbatch, s + 1),
    };

    if (stage_has_streams(stage)) {
        args.post = stage_at(microbatch, memory->post);
        args.comb = stage_at(microbatch, memory->comb);
    }
    return args;
}

mhp_status stage_mix(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    mhp_mix_args args = mix_args(stage, view, microbatch, s);

    return SUBMIT(mix, args);
}

mhp_status stage_join(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    mhp_merge_mix_args both;

    if (s == 0) {
        return stage_mix(stage, view, microbatch, s, stream);
    }
    both.merge = merge_args(stage, view, microbatch, s - 1);
    if (s == stage->sublayer_count) {
        return SUBMIT(merge, both.merge);
    }
    both.mix = mix_args(stage, view, microbatch, s);
    return SUBMIT(merge_mix, both);
}

/* The product leaves behind the state. */
static mhp_status send_gain(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    return mhp_stream_copy(stream, stage_message_product(stage, microbatch->output), stage_at(microbatch, stage->product),
                           stage->sizes.state_bytes - stage->message_product);
}

static mhp_status join(mhp_stage *stage, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    MHP_RETURN_IF_ERROR(stage_join(stage, &stage->forward, microbatch, s, stream));
    if (!microbatch->gain) {
        return MHP_OK;
    }
    if (s < stage->sublayer_count) {
        return extend_gain(stage, microbatch, s, stream);
    }
    return stage->params.extent.last ? MHP_OK : send_gain(stage, microbatch, stream);
}

/* ---- slices ---- */

typedef struct token_range {
    int first, count, whole;
} token_range;

/* `elements` of a type a token further on. */
static void *at_token(const void *base, mhp_dtype dtype, int64_t elements, int first)
{
    return (char *)(uintptr_t)base + (size_t)first * (size_t)elements * mhp_dtype_bytes(dtype);
}

static mhp_status mix_slice(mhp_stage *stage, const mhp_microbatch *microbatch, token_range range, mhp_stream *stream)
{
    mhp_mix_args args = mix_args(stage, &stage->forward, microbatch, 0);
    mhp_connection_args *connection = &args.connection;
    mhp_dtype real = stage->params.kernels->dtype, full = stage->params.kernels->full_dtype;
    int64_t n = connection->streams, c = connection->hidden;
    bool mhc = connection->kind == MHP_CONNECTION_MHC;

    connection->tokens = range.count;
    connection->whole_tokens = range.whole;
    connection->x = at_token(connection->x, real, n * c, range.first);
    args.normed = at_token(args.normed, real, c, range.first);
    args.norm_rrms = at_token(args.norm_rrms, full, 1, range.first);
    if (stage_has_streams(stage)) {
        connection->pre = at_token(connection->pre, full, n, range.first);
        connection->post = at_token(connection->post, full, n, range.first);
        connection->comb = at_token(connection->comb, full, n * n, range.first);
        connection->projection = at_token(connection->projection, full, mhp_coefficient_count(&stage->model), range.first);
        connection->rrms = at_token(connection->rrms, full, mhc ? 1 : n, range.first);
    }
    return SUBMIT(mix, args);
}

static mhp_status merge_slice(mhp_stage *stage, const mhp_microbatch *microbatch, token_range range, mhp_stream *stream)
{
    mhp_merge_args args = merge_args(stage, &stage->forward, microbatch, stage->sublayer_count - 1);
    mhp_dtype real = stage->params.kernels->dtype, full = stage->params.kernels->full_dtype;
    int64_t n = args.streams, c = args.hidden;

    args.tokens = range.count;
    args.x = at_token(args.x, real, n * c, range.first);
    args.y = at_token(args.y, real, c, range.first);
    args.x_next = at_token(args.x_next, real, n * c, range.first);
    if (stage_has_streams(stage)) {
        args.post = at_token(args.post, full, n, range.first);
        args.comb = at_token(args.comb, full, n * n, range.first);
    }
    return SUBMIT(merge, args);
}

/* Gains are done with the last slice, for all tokens at once. */
mhp_status stage_join_slice(mhp_stage *stage, const mhp_microbatch *microbatch, int s, int slice, mhp_stream *stream)
{
    int tokens = stage_tokens(stage), first = slice * stage->slice_tokens;
    bool last = slice + 1 == stage->sizes.slices;
    token_range range = {first, last ? tokens - first : stage->slice_tokens, tokens};

    MHP_RETURN_IF_ERROR(s == 0 ? mix_slice(stage, microbatch, range, stream) : merge_slice(stage, microbatch, range, stream));
    if (!last || !microbatch->gain) {
        return MHP_OK;
    }
    return s == 0 ? extend_gain(stage, microbatch, s, stream) : send_gain(stage, microbatch, stream);
}

/* ---- F ---- */

static mhp_status attend(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    const mhp_model_params *model = &stage->model;
    const sublayer_memory *memory = &view->sublayers[s];
    void *qkv = stage_at(microbatch, memory->wide);
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
        .out = stage_at(microbatch, memory->middle),
        .log_sum = stage_at(microbatch, memory->log_sum),
        .workspace = stage_at(microbatch, view->attention),
    };

    MHP_RETURN_IF_ERROR(SUBMIT(rotary, rotary));
    return SUBMIT(attention, attention);
}

mhp_status stage_function(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s, mhp_stream *stream)
{
    const sublayer_memory *memory = &view->sublayers[s];
    const mhp_sublayer_offsets *offsets = &stage->layout.sublayers[s];
    int c = (int)stage->model.hidden_size;
    void *wide = stage_at(microbatch, memory->wide);
    void *middle = stage_at(microbatch, memory->middle);
    mhp_swiglu_args swiglu = {
        .tokens = stage_tokens(stage), .intermediate = (int)stage->model.intermediate_size, .gate_up = wide, .act = middle};

    MHP_RETURN_IF_ERROR(stage_linear(stage, stream, offsets->in, stage_wide(stage, s), c,
                                     stage_at(microbatch, memory->normed), wide));
    if (stage_is_attention(stage, s)) {
        MHP_RETURN_IF_ERROR(attend(stage, view, microbatch, s, stream));
    } else {
        MHP_RETURN_IF_ERROR(SUBMIT(swiglu, swiglu));
    }
    return stage_linear(stage, stream, offsets->out, c, stage_middle(stage, s), middle,
                        stage_at(microbatch, memory->branch));
}

static mhp_status read_streams(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    const mhp_model_params *model = &stage->model;
    const head_memory *head = &view->head;
    mhp_stream_sum_args sum = {
        .tokens = stage_tokens(stage),
        .hidden = (int)model->hidden_size,
        .streams = (int)model->connections.streams,
        .state = stage_at(microbatch, head->state),
        .sum = stage_at(microbatch, head->mix),
    };
    mhp_readout_args readout = {
        .tokens = stage_tokens(stage),
        .hidden = (int)model->hidden_size,
        .streams = (int)model->connections.streams,
        .norm_epsilon = model->rms_norm_eps,
        .hc_epsilon = model->connections.eps,
        .x = stage_at(microbatch, head->state),
        .fn = stage_parameter(stage, stage->layout.readout_fn),
        .base = stage_parameter(stage, stage->layout.readout_base),
        .scale = stage_parameter(stage, stage->layout.readout_scale),
        .pre = stage_at(microbatch, head->pre),
        .projection = stage_at(microbatch, head->projection),
        .rrms = stage_at(microbatch, head->rrms),
        .z = stage_at(microbatch, head->mix),
    };

    return model->connections.readout == MHP_READOUT_HEAD ? SUBMIT(readout, readout) : SUBMIT(stream_sum, sum);
}

mhp_status stage_read_out(mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    const head_memory *head = &view->head;
    bool streams = stage_has_streams(stage);
    mhp_rms_norm_args norm = {
        .tokens = stage_tokens(stage),
        .hidden = (int)stage->model.hidden_size,
        .epsilon = stage->model.rms_norm_eps,
        .x = stage_at(microbatch, streams ? head->mix : head->state),
        .weight = stage_parameter(stage, stage->layout.norm),
        .y = stage_at(microbatch, head->normed),
        .rrms = stage_at(microbatch, head->norm_rrms),
    };

    if (streams) {
        MHP_RETURN_IF_ERROR(read_streams(stage, view, microbatch, stream));
    }
    return SUBMIT(rms_norm, norm);
}

/* Readout and final norm, and the gains. */
static mhp_status read_out(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    mhp_gain_read_args gain = {
        .tokens = stage_tokens(stage),
        .streams = (int)stage->model.connections.streams,
        .product = stage_at(microbatch, stage->product),
        .gain = microbatch->gain,
    };

    if (microbatch->gain) {
        MHP_RETURN_IF_ERROR(SUBMIT(gain_read, gain));
    }
    return stage_read_out(stage, &stage->forward, microbatch, stream);
}

/* Logits and loss; a training pass replaces the logits by their gradient at once, so that nothing more is kept. */
static mhp_status predict(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    void *logits = stage_at(microbatch, stage->forward.head.logits);
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
                                     stage_at(microbatch, stage->forward.head.normed), logits));
    return SUBMIT(cross_entropy, loss);
}

mhp_status stage_forward_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream)
{
    switch (step->operation) {
    case OPERATION_EMBED:
        return embed(stage, microbatch, stream);
    case OPERATION_JOIN:
        return join(stage, microbatch, step->sublayer, stream);
    case OPERATION_FUNCTION:
        return stage_function(stage, &stage->forward, microbatch, step->sublayer, stream);
    case OPERATION_READ_OUT:
        return read_out(stage, microbatch, stream);
    default:
        return predict(stage, microbatch, stream);
    }
}
