#include "model/stage.h"

#include <assert.h>
#include <string.h>

#include "core/memory.h"
#include "model/stage_internal.h"

enum { SLOT_ALIGNMENT = 64 };

/* Takes `elements` of a type from a slot under construction; returns their byte offset. */
static size_t take(mhp_dtype dtype, size_t *slot_bytes, int64_t elements)
{
    size_t offset = (*slot_bytes + SLOT_ALIGNMENT - 1) / SLOT_ALIGNMENT * SLOT_ALIGNMENT;

    *slot_bytes = offset + (size_t)elements * mhp_dtype_bytes(dtype);
    return offset;
}

static size_t take_real(const mhp_stage *stage, size_t *slot_bytes, int64_t elements)
{
    return take(stage->params.kernels->dtype, slot_bytes, elements);
}

static size_t take_full(const mhp_stage *stage, size_t *slot_bytes, int64_t elements)
{
    return take(stage->params.kernels->full_dtype, slot_bytes, elements);
}

int stage_wide(const mhp_stage *stage, int s)
{
    const mhp_model_params *model = &stage->model;
    int64_t qkv = (model->num_attention_heads + 2 * model->num_key_value_heads) * model->head_dim;

    return (int)(sublayer_is_attention(s) ? qkv : 2 * model->intermediate_size);
}

int stage_middle(const mhp_stage *stage, int s)
{
    const mhp_model_params *model = &stage->model;

    return (int)(sublayer_is_attention(s) ? model->num_attention_heads * model->head_dim : model->intermediate_size);
}

static void plan_connection(mhp_stage *stage, sublayer_memory *memory)
{
    size_t *activation = &stage->sizes.activation_bytes;
    int64_t t = stage_tokens(stage);
    int64_t n = stage->model.connections.streams;
    bool mhc = stage->model.connections.kind == MHP_CONNECTION_MHC;

    memory->pre = take_full(stage, activation, t * n);
    memory->post = take_full(stage, activation, t * n);
    memory->comb = take_full(stage, activation, t * n * n);
    memory->projection = take_full(stage, activation, t * mhp_coefficient_count(&stage->model));
    memory->rrms = take_full(stage, activation, mhc ? t : t * n);
    memory->mix = take_real(stage, activation, t * stage->model.hidden_size);
}

static void plan_sublayer(mhp_stage *stage, int s)
{
    sublayer_memory *memory = &stage->sublayers[s];
    size_t *activation = &stage->sizes.activation_bytes;
    int64_t t = stage_tokens(stage);
    int64_t c = stage->model.hidden_size;

    if (s > 0 || stage->params.extent.first) {
        memory->state = take_real(stage, activation, t * stage->model.connections.streams * c);
    }
    if (stage_has_streams(stage)) {
        plan_connection(stage, memory);
    }
    memory->norm_rrms = take_full(stage, activation, t);
    memory->branch = take_real(stage, activation, t * c);
    memory->wide = take_real(stage, activation, t * stage_wide(stage, s));
    if (sublayer_is_attention(s)) {
        memory->log_sum = take_full(stage, activation, t * stage->model.num_attention_heads);
    }
    memory->normed = take_real(stage, &stage->sizes.product_input_bytes, t * c);
    memory->middle = take_real(stage, &stage->sizes.product_input_bytes, t * stage_middle(stage, s));
    memory->wide_gradient = take_real(stage, &stage->sizes.product_gradient_bytes, t * stage_wide(stage, s));
    memory->branch_gradient = take_real(stage, &stage->sizes.product_gradient_bytes, t * c);
}

static void plan_ends(mhp_stage *stage)
{
    head_memory *head = &stage->head;
    size_t *activation = &stage->sizes.activation_bytes;
    int64_t t = stage_tokens(stage);
    int64_t n = stage->model.connections.streams;
    int64_t c = stage->model.hidden_size;

    if (stage->params.extent.first) {
        stage->embedding_gradient = take_real(stage, &stage->sizes.product_gradient_bytes, t * c);
    }
    if (!stage->params.extent.last) {
        return;
    }
    head->state = take_real(stage, activation, t * n * c);
    head->pre = take_full(stage, activation, t * n);
    head->projection = take_full(stage, activation, t * n);
    head->rrms = take_full(stage, activation, t);
    head->mix = take_real(stage, activation, t * c);
    head->norm_rrms = take_full(stage, activation, t);
    head->normed = take_real(stage, &stage->sizes.product_input_bytes, t * c);
    head->logits = take_real(stage, &stage->sizes.product_input_bytes, t * stage->model.vocab_size);
}

static void plan_workspace(mhp_stage *stage)
{
    const mhp_model_params *model = &stage->model;
    const mhp_kernels *kernels = stage->params.kernels;
    workspace_memory *at = &stage->workspace_at;
    size_t *bytes = &stage->sizes.workspace_bytes;
    int64_t t = stage_tokens(stage);
    int64_t n = model->connections.streams;
    int64_t c = model->hidden_size;
    int middle = stage_middle(stage, 0) > stage_middle(stage, 1) ? stage_middle(stage, 0) : stage_middle(stage, 1);
    int64_t attention = kernels->attention_workspace(stage->params.sequences, stage->params.length, (int)model->num_attention_heads,
                                                     (int)model->num_key_value_heads, (int)model->head_dim, stage->params.threads);

    at->forward_attention = take_full(stage, bytes, attention);
    at->gradient_attention = take_full(stage, bytes, attention);
    at->dmix = take_real(stage, bytes, t * c);
    at->dnormed = take_real(stage, bytes, t * c);
    at->dmiddle = take_real(stage, bytes, t * middle);
    if (stage_has_streams(stage)) {
        at->product = take_full(stage, bytes, t * n * n);
        at->dpost = take_full(stage, bytes, t * n);
        at->dcomb = take_full(stage, bytes, t * n * n);
        at->connection = take_full(stage, bytes, kernels->connection_workspace((mhp_connection_kind)model->connections.kind, (int)t,
                                                                          (int)c, (int)n, stage->params.threads));
    }
    if (stage->params.extent.last) {
        at->state_gradient = take_real(stage, bytes, t * n * c);
    }
}

static void plan_messages(mhp_stage *stage)
{
    int64_t t = stage_tokens(stage);
    int64_t n = stage->model.connections.streams;

    take_real(stage, &stage->sizes.gradient_bytes, t * n * stage->model.hidden_size);
    take_real(stage, &stage->sizes.state_bytes, t * n * stage->model.hidden_size);
    if (stage_has_streams(stage)) {
        stage->message_product = take_full(stage, &stage->sizes.state_bytes, t * n * n);
    }
}

mhp_status mhp_stage_create(const mhp_stage_params *params, mhp_stage **stage_out)
{
    mhp_status status = MHP_OK;
    mhp_stage *stage = NULL;

    assert(params->kernels->dtype == (mhp_dtype)params->model->dtype);
    assert(params->extent.layer_count > 0);
    MHP_TRY(out, mhp_calloc(&stage, 1, sizeof *stage));
    stage->params = *params;
    stage->model = *params->model;
    stage->params.model = &stage->model;
    stage->sublayer_count = 2 * params->extent.layer_count;
    MHP_TRY(out, mhp_parameter_layout_create(&stage->model, &params->extent, &stage->layout));
    MHP_TRY(out, mhp_calloc(&stage->sublayers, (size_t)stage->sublayer_count, sizeof *stage->sublayers));
    for (int s = 0; s < stage->sublayer_count; s++) {
        plan_sublayer(stage, s);
    }
    plan_ends(stage);
    plan_workspace(stage);
    plan_messages(stage);
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
    mhp_free(stage->sublayers);
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
        attention += sublayer_is_attention(s) ? (double)stage_middle(stage, s) * stage->params.length : 0;
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
    default:
        return 2 * t * weights;
    }
}

void mhp_stage_bind(mhp_stage *stage, void *parameters, void *weights, void *gradients, void *workspace)
{
    stage->parameters = parameters;
    stage->weights = weights;
    stage->gradients = gradients;
    stage->workspace = workspace;
}

void *stage_state(const mhp_stage *stage, const mhp_microbatch *microbatch, int s)
{
    if (s == 0 && !stage->params.extent.first) {
        return microbatch->input;
    }
    if (s == stage->sublayer_count) {
        return stage->params.extent.last ? stage_at(microbatch->activation, stage->head.state) : microbatch->output;
    }
    return stage_at(microbatch->activation, stage->sublayers[s].state);
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

static int sublayer_steps(const mhp_stage *stage, mhp_pass pass)
{
    switch (pass) {
    case MHP_PASS_FORWARD:
        return stage->sublayer_count * FORWARD_STEPS + 1;
    case MHP_PASS_INPUT_GRADIENT:
        return stage->sublayer_count * GRADIENT_STEPS;
    default:
        return stage->sublayer_count;
    }
}

static int count_steps(const mhp_stage *stage, mhp_pass pass)
{
    const mhp_stage_extent *extent = &stage->params.extent;
    int head_steps = pass == MHP_PASS_WEIGHT_GRADIENT ? 1 : HEAD_STEPS;

    return sublayer_steps(stage, pass) + (extent->first ? 1 : 0) + (extent->last ? head_steps : 0);
}

void mhp_cursor_begin(mhp_cursor *cursor, mhp_stage *stage, mhp_pass pass, const mhp_microbatch *microbatch)
{
    *cursor = (mhp_cursor){.stage = stage, .pass = pass, .microbatch = *microbatch, .step_count = count_steps(stage, pass)};
}

bool mhp_cursor_done(const mhp_cursor *cursor)
{
    return cursor->step == cursor->step_count;
}

/* Steps before the first sublayer of the pass. */
static int leading_steps(const mhp_stage *stage, mhp_pass pass)
{
    if (pass == MHP_PASS_FORWARD) {
        return stage->params.extent.first ? 1 : 0;
    }
    return stage->params.extent.last ? (pass == MHP_PASS_INPUT_GRADIENT ? HEAD_STEPS : 1) : 0;
}

/* The sublayer whose function is the next step, or -1 if the step is another; a weight gradient is all function. */
static int function_of(const mhp_cursor *cursor)
{
    const mhp_stage *stage = cursor->stage;
    int step = cursor->step - leading_steps(stage, cursor->pass);

    if (step < 0 || step >= sublayer_steps(stage, cursor->pass)) {
        return -1;
    }
    switch (cursor->pass) {
    case MHP_PASS_FORWARD:
        return step % FORWARD_STEPS == 1 ? step / FORWARD_STEPS : -1;
    case MHP_PASS_INPUT_GRADIENT:
        return step % GRADIENT_STEPS == 1 ? stage->sublayer_count - 1 - step / GRADIENT_STEPS : -1;
    default:
        return stage->sublayer_count - 1 - step;
    }
}

mhp_step_part mhp_cursor_next_part(const mhp_cursor *cursor)
{
    const mhp_stage *stage = cursor->stage;
    int leading = leading_steps(stage, cursor->pass);
    int s = function_of(cursor);

    assert(!mhp_cursor_done(cursor));
    if (s >= 0) {
        return sublayer_is_attention(s) ? MHP_PART_ATTENTION : MHP_PART_FEED_FORWARD;
    }
    if (cursor->step < leading) {
        return cursor->pass == MHP_PASS_FORWARD ? MHP_PART_EMBEDDING : MHP_PART_HEAD;
    }
    if (cursor->step - leading < sublayer_steps(stage, cursor->pass)) {
        return MHP_PART_CONNECTION;
    }
    return cursor->pass == MHP_PASS_FORWARD ? MHP_PART_HEAD : MHP_PART_EMBEDDING;
}

mhp_step_kind mhp_cursor_next_kind(const mhp_cursor *cursor)
{
    mhp_step_part part = mhp_cursor_next_part(cursor);
    bool product;

    if (part == MHP_PART_HEAD) {        /* its product is its second step forward and its first back */
        product = cursor->step == (cursor->pass == MHP_PASS_FORWARD ? cursor->step_count - 1 : 0);
    } else {
        product = part == MHP_PART_ATTENTION || part == MHP_PART_FEED_FORWARD || cursor->pass == MHP_PASS_WEIGHT_GRADIENT;
    }
    return product ? MHP_STEP_MATH : MHP_STEP_MEMORY;
}

mhp_status mhp_cursor_step(mhp_cursor *cursor, mhp_stream *stream)
{
    assert(!mhp_cursor_done(cursor));
    int step = cursor->step++;

    switch (cursor->pass) {
    case MHP_PASS_FORWARD:
        return stage_forward_step(cursor->stage, &cursor->microbatch, step, stream);
    case MHP_PASS_INPUT_GRADIENT:
        return stage_input_gradient_step(cursor->stage, &cursor->microbatch, step, stream);
    default:
        return stage_weight_gradient_step(cursor->stage, &cursor->microbatch, step, stream);
    }
}

const void *mhp_stage_logits(const mhp_stage *stage, const mhp_microbatch *microbatch)
{
    return stage_at(microbatch->product_input, stage->head.logits);
}
