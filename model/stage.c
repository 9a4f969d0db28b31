#include "model/stage.h"

#include <assert.h>
#include <string.h>

#include "core/memory.h"
#include "model/stage_internal.h"

int stage_wide(const mhp_stage *stage, int s)
{
    const mhp_model_params *model = &stage->model;
    int64_t qkv = (model->num_attention_heads + 2 * model->num_key_value_heads) * model->head_dim;

    return (int)(stage_is_attention(stage, s) ? qkv : 2 * model->intermediate_size);
}

int stage_middle(const mhp_stage *stage, int s)
{
    const mhp_model_params *model = &stage->model;

    return (int)(stage_is_attention(stage, s) ? model->num_attention_heads * model->head_dim : model->intermediate_size);
}

mhp_status mhp_stage_create(const mhp_stage_params *params, mhp_stage **stage_out)
{
    mhp_status status = MHP_OK;
    mhp_stage *stage = NULL;

    assert(params->kernels->dtype == (mhp_dtype)params->model->dtype);
    assert(params->extent.sublayer_count > 0);
    MHP_TRY(out, mhp_calloc(&stage, 1, sizeof *stage));
    stage->params = *params;
    stage->model = *params->model;
    stage->params.model = &stage->model;
    stage->sublayer_count = params->extent.sublayer_count;
    stage->block = stage->sublayer_count;
    if (params->recompute != MHP_RECOMPUTE_NONE) {
        assert(params->block > 0);
        stage->block = params->block < stage->sublayer_count ? params->block : stage->sublayer_count;
    }
    MHP_TRY(out, mhp_parameter_layout_create(&stage->model, &params->extent, &stage->layout));
    MHP_TRY(out, mhp_calloc(&stage->norm_weights, (size_t)stage->sublayer_count, sizeof *stage->norm_weights));
    MHP_TRY(out, stage_plan_memory(stage));
    MHP_TRY(out, stage_plan_steps(stage));
    *stage_out = stage;
    stage = NULL;
out:
    mhp_stage_destroy(stage);
    return status;
}

void mhp_stage_destroy(mhp_stage *stage)
{
    if (!stage) {
        return;
    }
    mhp_parameter_layout_destroy(&stage->layout);
    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        mhp_free(stage->steps[pass].items);
    }
    mhp_free(stage->norm_weights);
    mhp_free(stage->forward.sublayers);
    mhp_free(stage->backward.sublayers);
    mhp_free(stage);
}

const mhp_stage_sizes *mhp_stage_get_sizes(const mhp_stage *stage)
{
    return &stage->sizes;
}

const mhp_parameter_layout *mhp_stage_layout(const mhp_stage *stage)
{
    return &stage->layout;
}

double mhp_stage_flops(const mhp_stage *stage, mhp_pass pass)
{
    const mhp_model_params *model = &stage->model;
    double t = stage_tokens(stage);
    double c = (double)model->hidden_size;
    double weights = 0;
    double coefficients = 0;
    double attention = 0;

    for (int s = 0; s < stage->sublayer_count; s++) {
        weights += c * (stage_wide(stage, s) + stage_middle(stage, s));
        attention += stage_is_attention(stage, s) ? (double)stage_middle(stage, s) * stage->params.length : 0;
    }
    if (model->connections.kind == MHP_CONNECTION_MHC) {
        coefficients = stage->sublayer_count * (double)(mhp_coefficient_count(model) * model->connections.streams) * c;
    } else if (model->connections.kind == MHP_CONNECTION_HC) {
        coefficients = stage->sublayer_count * (double)(mhp_coefficient_count(model)) * c;
    }
    weights += stage->params.extent.last ? c * (double)model->vocab_size : 0;
    switch (pass) {
    case MHP_PASS_FORWARD:
        return 2 * t * (weights + coefficients + attention);
    case MHP_PASS_INPUT_GRADIENT:
        return 2 * t * (weights + 2 * coefficients + 2 * attention);
    case MHP_PASS_WEIGHT_GRADIENT:
        return 2 * t * weights;
    default:
        return 0;
    }
}

void mhp_stage_bind(mhp_stage *stage, void *parameters, void *weights, void *gradients)
{
    stage->parameters = parameters;
    stage->weights = weights;
    stage->gradients = gradients;
    for (int s = 0; s < stage->sublayer_count; s++) {
        stage->norm_weights[s] = stage_parameter(stage, stage->layout.sublayers[s].norm);
    }
}

void *stage_state(const mhp_stage *stage, const stage_view *view, const mhp_microbatch *microbatch, int s)
{
    if (s == 0 && !stage->params.extent.first) {
        return microbatch->input;
    }
    if (s == stage->sublayer_count) {
        return stage->params.extent.last ? stage_at(microbatch, view->head.state) : microbatch->output;
    }
    return stage_at(microbatch, view->sublayers[s].state);
}

void *stage_message_product(const mhp_stage *stage, void *message)
{
    return (char *)message + stage->message_product;
}

mhp_status stage_linear(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns, const void *in, void *out)
{
    mhp_gemm_args args = {
        .transpose_b = true, .m = stage_tokens(stage), .n = rows, .k = columns, .alpha = 1, .beta = 0,
        .a = in, .lda = columns, .b = stage_weight(stage, weight), .ldb = columns, .c = out, .ldc = rows,
    };

    return mhp_stream_submit(stream, stage->params.kernels->gemm, &args, sizeof args);
}

mhp_status stage_linear_input_gradient(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns,
                                       const void *dout, void *din)
{
    mhp_gemm_args args = {
        .m = stage_tokens(stage), .n = columns, .k = rows, .alpha = 1, .beta = 0,
        .a = dout, .lda = rows, .b = stage_weight(stage, weight), .ldb = columns, .c = din, .ldc = columns,
    };

    return mhp_stream_submit(stream, stage->params.kernels->gemm, &args, sizeof args);
}

mhp_status stage_linear_weight_gradient(const mhp_stage *stage, mhp_stream *stream, int64_t weight, int rows, int columns,
                                        const void *dout, const void *in)
{
    mhp_gemm_args args = {
        .transpose_a = true, .full_c = true, .m = rows, .n = columns, .k = stage_tokens(stage), .alpha = 1, .beta = 1,
        .a = dout, .lda = rows, .b = in, .ldb = columns, .c = stage_gradient(stage, weight), .ldc = columns,
    };

    return mhp_stream_submit(stream, stage->params.kernels->gemm, &args, sizeof args);
}

void mhp_cursor_begin(mhp_cursor *cursor, mhp_stage *stage, mhp_pass pass, const mhp_microbatch *microbatch)
{
    *cursor = (mhp_cursor){.stage = stage, .pass = pass, .microbatch = *microbatch, .step_count = stage->steps[pass].count};
}

bool mhp_cursor_done(const mhp_cursor *cursor)
{
    return cursor->step == cursor->step_count;
}

mhp_step_kind mhp_cursor_next_kind(const mhp_cursor *cursor)
{
    assert(!mhp_cursor_done(cursor));
    return stage_step_kind(&cursor->stage->steps[cursor->pass].items[cursor->step]);
}

mhp_step_part mhp_cursor_next_part(const mhp_cursor *cursor)
{
    assert(!mhp_cursor_done(cursor));
    return stage_step_part(cursor->stage, &cursor->stage->steps[cursor->pass].items[cursor->step]);
}

/* Joins at the stage's ends. */
int mhp_cursor_next_slices(const mhp_cursor *cursor)
{
    const mhp_stage *stage = cursor->stage;
    const stage_step *step = &stage->steps[cursor->pass].items[cursor->step];
    bool enters = step->sublayer == 0 && !stage->params.extent.first;
    bool leaves = step->sublayer == stage->sublayer_count && !stage->params.extent.last;

    assert(!mhp_cursor_done(cursor));
    return cursor->pass == MHP_PASS_FORWARD && step->operation == OPERATION_JOIN && (enters || leaves) ? stage->sizes.slices : 1;
}

mhp_status mhp_cursor_step_slice(mhp_cursor *cursor, mhp_stream *stream)
{
    const stage_step *step = &cursor->stage->steps[cursor->pass].items[cursor->step];
    int slice = cursor->slice;

    assert(mhp_cursor_next_slices(cursor) > 1);
    cursor->slice = (slice + 1) % cursor->stage->sizes.slices;
    cursor->step += cursor->slice == 0;
    return stage_join_slice(cursor->stage, &cursor->microbatch, step->sublayer, slice, stream);
}

mhp_status mhp_cursor_step(mhp_cursor *cursor, mhp_stream *stream)
{
    const stage_step *step = &cursor->stage->steps[cursor->pass].items[cursor->step];

    assert(!mhp_cursor_done(cursor));
    cursor->step++;
    switch (cursor->pass) {
    case MHP_PASS_FORWARD:
        return stage_forward_step(cursor->stage, &cursor->microbatch, step, stream);
    case MHP_PASS_REBUILD:
        return stage_rebuild_step(cursor->stage, &cursor->microbatch, step, stream);
    case MHP_PASS_INPUT_GRADIENT:
        return stage_input_gradient_step(cursor->stage, &cursor->microbatch, step, stream);
    default:
        return stage_weight_gradient_step(cursor->stage, &cursor->microbatch, step, stream);
    }
}

static unsigned bit_of(place at)
{
    return 1u << at.lifetime;
}

unsigned mhp_stage_filling_touches(const mhp_stage *stage, mhp_pass pass)
{
    const sublayer_memory *last = &stage->forward.sublayers[stage->sublayer_count - 1];
    bool streams = stage_has_streams(stage);

    if (pass == MHP_PASS_FORWARD) {     /* the last merge, and the product of gains */
        return bit_of(last->state) | bit_of(last->branch) | (streams ? bit_of(last->comb) | bit_of(stage->product) : 0);
    }
    return 1u << MHP_LIFE_ACTIVATION | 1u << MHP_LIFE_BLOCK | 1u << MHP_LIFE_BACKWARD;
}

const void *mhp_stage_logits(const mhp_stage *stage, const mhp_microbatch *microbatch)
{
    return stage_at(microbatch, stage->forward.head.logits);
}
