/* Where everything of a micro-batch lies: what each mode keeps, and what it makes again. docs/memory.md has the list. */
#include "core/memory.h"
#include "model/stage_internal.h"

enum { ALIGNMENT = 64 };

/* Takes `elements` of a type from a lifetime's memory. */
static place take(mhp_stage *stage, mhp_lifetime lifetime, mhp_dtype dtype, int64_t elements)
{
    size_t *bytes = &stage->sizes.bytes[lifetime];
    size_t offset = (*bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

    *bytes = offset + (size_t)elements * mhp_dtype_bytes(dtype);
    return (place){lifetime, offset};
}

static place take_real(mhp_stage *stage, mhp_lifetime lifetime, int64_t elements)
{
    return take(stage, lifetime, stage->params.kernels->dtype, elements);
}

static place take_full(mhp_stage *stage, mhp_lifetime lifetime, int64_t elements)
{
    return take(stage, lifetime, stage->params.kernels->full_dtype, elements);
}

static int64_t state_elements(const mhp_stage *stage)
{
    return (int64_t)stage_tokens(stage) * stage->model.connections.streams * stage->model.hidden_size;
}

static int64_t row_elements(const mhp_stage *stage)
{
    return (int64_t)stage_tokens(stage) * stage->model.hidden_size;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Whether sublayer s is the first of its block and has no slot of a message as its state. */
static bool keeps_state(const mhp_stage *stage, int s)
{
    if (s == 0 && !stage->params.extent.first) {
        return false;
    }
    return !stage_rebuilds_states(stage) || s % stage->block == 0;
}

/* The record of what connection and norm keep of one sublayer; all records are alike. */
static void take_coefficients(mhp_stage *stage, mhp_lifetime lifetime, sublayer_memory *memory)
{
    int64_t t = stage_tokens(stage);
    int64_t n = stage->model.connections.streams;
    bool mhc = stage->model.connections.kind == MHP_CONNECTION_MHC;

    if (stage_has_streams(stage)) {
        memory->pre = take_full(stage, lifetime, t * n);
        memory->post = take_full(stage, lifetime, t * n);
        memory->comb = take_full(stage, lifetime, t * n * n);
        memory->projection = take_full(stage, lifetime, t * mhp_coefficient_count(&stage->model));
        memory->rrms = take_full(stage, lifetime, mhc ? t : t * n);
    }
    memory->norm_rrms = take_full(stage, lifetime, t);
}

static void copy_coefficients(sublayer_memory *memory, const sublayer_memory *made)
{
    memory->pre = made->pre;
    memory->post = made->post;
    memory->comb = made->comb;
    memory->projection = made->projection;
    memory->rrms = made->rrms;
    memory->norm_rrms = made->norm_rrms;
}

/* What F makes of one sublayer of `wide` and `middle` columns. */
static void take_function(mhp_stage *stage, mhp_lifetime lifetime, mhp_lifetime middle_lifetime, int64_t wide, int64_t middle,
                          bool attention, sublayer_memory *memory)
{
    int64_t t = stage_tokens(stage);

    memory->wide = take_real(stage, lifetime, t * wide);
    if (attention) {
        memory->log_sum = take_full(stage, lifetime, t * stage->model.num_attention_heads);
    }
    memory->middle = take_real(stage, middle_lifetime, t * middle);
}

/* ---- states ---- */

static void plan_states(mhp_stage *stage)
{
    bool rebuilds = stage_rebuilds_states(stage);
    bool passing = rebuilds && (stage->block > 1 || stage->params.extent.last);
    place forward[2] = {{0}};
    place first = {MHP_LIFE_BLOCK, 0};

    for (int i = 0; passing && i < 2; i++) {            /* a merge may not write the state that it reads */
        forward[i] = take_real(stage, MHP_LIFE_FORWARD, state_elements(stage));
    }
    for (int i = 1; rebuilds && i < stage->block; i++) {
        place at = take_real(stage, MHP_LIFE_BLOCK, state_elements(stage));

        first = i == 1 ? at : first;
        stage->state_stride = i == 2 ? at.offset - first.offset : stage->state_stride;
    }
    for (int s = 0; s < stage->sublayer_count; s++) {
        int i = rebuilds ? s % stage->block : 0;

        if (keeps_state(stage, s)) {
            stage->forward.sublayers[s].state = take_real(stage, MHP_LIFE_ACTIVATION, state_elements(stage));
            stage->backward.sublayers[s].state = stage->forward.sublayers[s].state;
        } else if (i > 0) {
            stage->forward.sublayers[s].state = forward[s % 2];
            stage->backward.sublayers[s].state = (place){MHP_LIFE_BLOCK, first.offset + (size_t)(i - 1) * stage->state_stride};
        }
    }
    if (stage->params.extent.last) {
        stage->backward.head.state = take_real(stage, rebuilds ? MHP_LIFE_BLOCK : MHP_LIFE_ACTIVATION, state_elements(stage));
        stage->forward.head.state = rebuilds ? forward[stage->sublayer_count % 2] : stage->backward.head.state;
    }
}

/* ---- connections and norms ---- */

/* Kept by every sublayer, or made again in a block's records and on the way forward in two that take turns: a merge that is one with
 * the next mix reads the coefficients of one sublayer and writes those of the next. */
static mhp_status plan_coefficients(mhp_stage *stage)
{
    mhp_status status = MHP_OK;
    sublayer_memory forward[2] = {{.pre = {0}}};
    sublayer_memory *block = NULL;
    bool keeps = stage_keeps_coefficients(stage);

    MHP_TRY(out, mhp_calloc(&block, (size_t)stage->block, sizeof *block));
    for (int i = 0; !keeps && i < 2; i++) {
        take_coefficients(stage, MHP_LIFE_FORWARD, &forward[i]);
    }
    for (int i = 0; !keeps && i < stage->block; i++) {
        take_coefficients(stage, MHP_LIFE_BLOCK, &block[i]);
    }
    for (int s = 0; s < stage->sublayer_count; s++) {
        if (keeps) {
            take_coefficients(stage, MHP_LIFE_ACTIVATION, &stage->forward.sublayers[s]);
            copy_coefficients(&stage->backward.sublayers[s], &stage->forward.sublayers[s]);
        } else {
            copy_coefficients(&stage->forward.sublayers[s], &forward[s % 2]);
            copy_coefficients(&stage->backward.sublayers[s], &block[s % stage->block]);
        }
    }
    if (stage->sublayer_count > 1) {
        stage->kept_stride = stage->backward.sublayers[1].norm_rrms.offset - stage->backward.sublayers[0].norm_rrms.offset;
    }
out:
    mhp_free(block);
    return status;
}

static void plan_normed(mhp_stage *stage)
{
    bool rebuilds = stage->params.recompute != MHP_RECOMPUTE_NONE;
    place passing = rebuilds ? take_real(stage, MHP_LIFE_FORWARD, row_elements(stage)) : (place){0};

    for (int s = 0; s < stage->sublayer_count; s++) {
        place at = take_real(stage, rebuilds ? MHP_LIFE_REBUILT_INPUT : MHP_LIFE_PRODUCT_INPUT, row_elements(stage));

        stage->backward.sublayers[s].normed = at;
        stage->forward.sublayers[s].normed = rebuilds ? passing : at;
        stage->normed_stride = s == 1 ? at.offset - stage->backward.sublayers[0].normed.offset : stage->normed_stride;
    }
}

/* ---- F ---- */

/* The gradient of a residual merge does not read what was merged. */
static void plan_branches(mhp_stage *stage)
{
    bool full = stage->params.recompute == MHP_RECOMPUTE_FULL;
    bool passes = full || !stage_has_streams(stage);
    place passing = passes ? take_real(stage, MHP_LIFE_FORWARD, row_elements(stage)) : (place){0};
    place first = {0};

    for (int s = 0; s < stage->sublayer_count; s++) {
        sublayer_memory *forward = &stage->forward.sublayers[s];
        sublayer_memory *backward = &stage->backward.sublayers[s];

        if (!passes) {
            forward->branch = backward->branch = take_real(stage, MHP_LIFE_ACTIVATION, row_elements(stage));
            first = s == 0 ? forward->branch : first;
            stage->branch_stride = s == 1 ? forward->branch.offset - first.offset : stage->branch_stride;
            continue;
        }
        forward->branch = passing;
        if (full && s < stage->block) {
            backward->branch = take_real(stage, MHP_LIFE_BLOCK, row_elements(stage));
        } else if (full) {
            backward->branch = stage->backward.sublayers[s % stage->block].branch;
        }
    }
}

/* With F rebuilt: room for either kind where a place of the block serves both. */
static void plan_rebuilt_functions(mhp_stage *stage)
{
    int64_t wide = larger(stage_wide(stage, 0), stage_wide(stage, 1));
    int64_t middle = larger(stage_middle(stage, 0), stage_middle(stage, 1));
    int64_t t = stage_tokens(stage);
    sublayer_memory passing = {.pre = {0}};

    take_function(stage, MHP_LIFE_FORWARD, MHP_LIFE_FORWARD, wide, middle, true, &passing);
    for (int s = 0; s < stage->sublayer_count; s++) {
        sublayer_memory *backward = &stage->backward.sublayers[s];

        stage->forward.sublayers[s].wide = passing.wide;
        stage->forward.sublayers[s].log_sum = passing.log_sum;
        stage->forward.sublayers[s].middle = passing.middle;
        if (s < stage->block) {
            bool odd = stage->block % 2 != 0 && stage->block < stage->sublayer_count;      /* a place serves both kinds */

            backward->wide = take_real(stage, MHP_LIFE_BLOCK, t * (odd ? wide : stage_wide(stage, s)));
            backward->log_sum = take_full(stage, MHP_LIFE_BLOCK, odd || stage_is_attention(stage, s) ? t * stage->model.num_attention_heads : 0);
        } else {
            backward->wide = stage->backward.sublayers[s % stage->block].wide;
            backward->log_sum = stage->backward.sublayers[s % stage->block].log_sum;
        }
        backward->middle = take_real(stage, MHP_LIFE_REBUILT_INPUT, t * stage_middle(stage, s));
    }
}

static void plan_functions(mhp_stage *stage)
{
    int64_t t = stage_tokens(stage);

    if (stage->params.recompute == MHP_RECOMPUTE_FULL) {
        plan_rebuilt_functions(stage);
    }
    for (int s = 0; s < stage->sublayer_count; s++) {
        sublayer_memory *forward = &stage->forward.sublayers[s];
        sublayer_memory *backward = &stage->backward.sublayers[s];

        if (stage->params.recompute != MHP_RECOMPUTE_FULL) {
            take_function(stage, MHP_LIFE_ACTIVATION, MHP_LIFE_PRODUCT_INPUT, stage_wide(stage, s), stage_middle(stage, s),
                          stage_is_attention(stage, s), forward);
            backward->wide = forward->wide;
            backward->log_sum = forward->log_sum;
            backward->middle = forward->middle;
        }
        backward->wide_gradient = take_real(stage, MHP_LIFE_PRODUCT_GRADIENT, t * stage_wide(stage, s));
        backward->branch_gradient = take_real(stage, MHP_LIFE_PRODUCT_GRADIENT, row_elements(stage));
    }
}

/* ---- ends ---- */

static void take_readout(mhp_stage *stage, mhp_lifetime lifetime, mhp_lifetime normed_lifetime, head_memory *head)
{
    int64_t t = stage_tokens(stage);
    int64_t n = stage->model.connections.streams;

    if (stage_has_streams(stage)) {
        head->pre = take_full(stage, lifetime, t * n);
        head->projection = take_full(stage, lifetime, t * n);
        head->rrms = take_full(stage, lifetime, t);
        head->mix = take_real(stage, lifetime, row_elements(stage));
    }
    head->norm_rrms = take_full(stage, lifetime, t);
    head->normed = take_real(stage, normed_lifetime, row_elements(stage));
}

static void plan_ends(mhp_stage *stage)
{
    head_memory *forward = &stage->forward.head;
    head_memory *backward = &stage->backward.head;

    if (stage->params.extent.first) {
        stage->embedding_gradient = take_real(stage, MHP_LIFE_PRODUCT_GRADIENT, row_elements(stage));
    }
    if (!stage->params.extent.last) {
        return;
    }
    if (stage->params.recompute == MHP_RECOMPUTE_NONE) {
        take_readout(stage, MHP_LIFE_ACTIVATION, MHP_LIFE_PRODUCT_INPUT, forward);
        *backward = *forward;
    } else {
        take_readout(stage, MHP_LIFE_FORWARD, MHP_LIFE_FORWARD, forward);
        take_readout(stage, MHP_LIFE_BLOCK, MHP_LIFE_REBUILT_INPUT, backward);
    }
    forward->logits = backward->logits =
        take_real(stage, MHP_LIFE_PRODUCT_INPUT, stage_tokens(stage) * stage->model.vocab_size);
}

/* ---- workspaces and messages ---- */

static void plan_workspaces(mhp_stage *stage)
{
    const mhp_model_params *model = &stage->model;
    const mhp_kernels *kernels = stage->params.kernels;
    backward_memory *at = &stage->gradient_at;
    int64_t t = stage_tokens(stage);
    int64_t n = model->connections.streams;
    int64_t attention = kernels->attention_workspace(stage->params.sequences, stage->params.length, (int)model->num_attention_heads,
                                                     (int)model->num_key_value_heads, (int)model->head_dim, stage->params.threads);

    stage->forward.attention = take_full(stage, MHP_LIFE_FORWARD, attention);
    if (stage->params.recompute == MHP_RECOMPUTE_FULL) {
        stage->backward.attention = take_full(stage, MHP_LIFE_BLOCK, attention);
    }
    at->attention = take_full(stage, MHP_LIFE_BACKWARD, attention);
    at->dmix = take_real(stage, MHP_LIFE_BACKWARD, row_elements(stage));
    at->dnormed = take_real(stage, MHP_LIFE_BACKWARD, row_elements(stage));
    at->dmiddle = take_real(stage, MHP_LIFE_BACKWARD, t * larger(stage_middle(stage, 0), stage_middle(stage, 1)));
    at->connection = take_full(stage, MHP_LIFE_BACKWARD,
                               kernels->connection_workspace((mhp_connection_kind)model->connections.kind, (int)t,
                                                             (int)model->hidden_size, (int)n, stage->params.threads));
    if (stage_has_streams(stage)) {
        /* Where it leaves the stage, which it does at a time that the next passes do not wait for, it outlives the pass. */
        stage->product = take_full(stage, stage->params.extent.last ? MHP_LIFE_FORWARD : MHP_LIFE_ACTIVATION, t * n * n);
        at->dpost = take_full(stage, MHP_LIFE_BACKWARD, t * n);
        at->dcomb = take_full(stage, MHP_LIFE_BACKWARD, t * n * n);
    }
    if (stage->params.extent.last) {
        at->state_gradient = take_real(stage, MHP_LIFE_BACKWARD, state_elements(stage));
    }
}

static void plan_messages(mhp_stage *stage)
{
    mhp_dtype dtype = stage->params.kernels->dtype;
    mhp_dtype full = stage->params.kernels->full_dtype;
    size_t state = (size_t)state_elements(stage) * mhp_dtype_bytes(dtype);
    int64_t n = stage->model.connections.streams;

    stage->message_product = (state + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    stage->sizes.gradient_bytes = state;
    stage->sizes.state_bytes =
        stage_has_streams(stage) ? stage->message_product + (size_t)(stage_tokens(stage) * n * n) * mhp_dtype_bytes(full) : state;
}

/* As many as asked for, or as the size of the state suggests, as far as their beginnings suit the kernels. */
static void plan_slices(mhp_stage *stage)
{
    int tokens = stage_tokens(stage), grain = stage->params.kernels->token_grain;
    size_t state = stage->sizes.gradient_bytes;
    int64_t wanted = stage->params.slices > 0 ? stage->params.slices : (int64_t)(state / MHP_SLICE_BYTES);
    int slices = (int)larger(1, wanted < MHP_SLICES_MAX ? wanted : MHP_SLICES_MAX);
    int slice_tokens = (tokens + slices - 1) / slices;

    stage->slice_tokens = (slice_tokens + grain - 1) / grain * grain;
    stage->sizes.slices = (tokens + stage->slice_tokens - 1) / stage->slice_tokens;
    stage->sizes.slice_bytes = state / (size_t)tokens * (size_t)stage->slice_tokens;
}

mhp_status stage_plan_memory(mhp_stage *stage)
{
    size_t count = (size_t)stage->sublayer_count;

    MHP_RETURN_IF_ERROR(mhp_calloc(&stage->forward.sublayers, count, sizeof *stage->forward.sublayers));
    MHP_RETURN_IF_ERROR(mhp_calloc(&stage->backward.sublayers, count, sizeof *stage->backward.sublayers));
    plan_states(stage);
    MHP_RETURN_IF_ERROR(plan_coefficients(stage));
    plan_normed(stage);
    plan_branches(stage);
    plan_functions(stage);
    plan_ends(stage);
    plan_workspaces(stage);
    plan_messages(stage);
    plan_slices(stage);
    return MHP_OK;
}
