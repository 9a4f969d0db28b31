/* Products, the embedding, sums over streams, rotary positions and SwiGLU. */
#include "model/cpu/vmath.h"

static mhp_status gemm(void *native, const void *argument)
{
    const mhp_gemm_args *args = argument;

    (void)native;
    product(args->transpose_a ? TRANSPOSED : AS_IS, args->transpose_b ? TRANSPOSED : AS_IS, args->m, args->n, args->k,
            (real)args->alpha, args->a, args->lda, args->b, args->ldb, (real)args->beta, args->c, args->ldc);
    return MHP_OK;
}

static void embedding_block(const void *argument, int begin, int end)
{
    const mhp_embedding_args *args = argument;
    size_t width = (size_t)args->hidden;
    size_t streams = (size_t)args->streams;

    for (int t = begin; t < end; t++) {
        const real *row = (const real *)args->table + (size_t)args->token[t] * width;
        real *state = (real *)args->state + (size_t)t * streams * width;

        for (size_t j = 0; j < streams; j++) {
            memcpy(state + j * width, row, width * sizeof(real));
        }
    }
}

static mhp_status embedding(void *native, const void *argument)
{
    (void)native;
    for_blocks(embedding_block, argument, ((const mhp_embedding_args *)argument)->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

/* Threads share out columns, so that a row takes its tokens in order whatever their number. */
static void embedding_gradient_columns(const void *argument, int begin, int end)
{
    const mhp_embedding_gradient_args *args = argument;

    for (int t = 0; t < args->tokens; t++) {
        const real *grad = (const real *)args->grad + (size_t)t * (size_t)args->hidden;
        real *row = (real *)args->dtable + (size_t)args->token[t] * (size_t)args->hidden;

        for (int c = begin; c < end; c++) {
            row[c] += grad[c];
        }
    }
}

static mhp_status embedding_gradient(void *native, const void *argument)
{
    (void)native;
    for_blocks(embedding_gradient_columns, argument, ((const mhp_embedding_gradient_args *)argument)->hidden, 64);
    return MHP_OK;
}

static void stream_sum_block(const void *argument, int begin, int end)
{
    const mhp_stream_sum_args *args = argument;
    size_t width = (size_t)args->hidden;

    for (int t = begin; t < end; t++) {
        const real *state = (const real *)args->state + (size_t)t * (size_t)args->streams * width;
        real *sum = (real *)args->sum + (size_t)t * width;

        memcpy(sum, state, width * sizeof(real));
        for (int j = 1; j < args->streams; j++) {
            const real *restrict stream = state + (size_t)j * width;

            for (size_t c = 0; c < width; c++) {
                sum[c] += stream[c];
            }
        }
    }
}

static mhp_status stream_sum(void *native, const void *argument)
{
    (void)native;
    for_blocks(stream_sum_block, argument, ((const mhp_stream_sum_args *)argument)->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

static void stream_repeat_block(const void *argument, int begin, int end)
{
    const mhp_stream_repeat_args *args = argument;
    size_t width = (size_t)args->hidden;
    size_t streams = (size_t)args->streams;

    for (int t = begin; t < end; t++) {
        for (size_t j = 0; j < streams; j++) {
            memcpy((real *)args->state + ((size_t)t * streams + j) * width, (const real *)args->grad + (size_t)t * width,
                   width * sizeof(real));
        }
    }
}

static mhp_status stream_repeat(void *native, const void *argument)
{
    (void)native;
    for_blocks(stream_repeat_block, argument, ((const mhp_stream_repeat_args *)argument)->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

enum { ROTARY_PAIRS_MAX = 512, ROTARY_BLOCK = 64 };

/* Cosines and sines of one token's angles. They move on by addition theorems from token to token, in double, and start afresh at
 * every jump and at every block: libm's functions would cost more than all else here. */
typedef struct rotation {
    int pairs;
    double step_cos[ROTARY_PAIRS_MAX], step_sin[ROTARY_PAIRS_MAX];
    double cos[ROTARY_PAIRS_MAX], sin[ROTARY_PAIRS_MAX];
    real real_cos[ROTARY_PAIRS_MAX], real_sin[ROTARY_PAIRS_MAX];
} rotation;

static void rotation_set(rotation *turn, const mhp_rotary_args *args, int position, bool continues)
{
    double sign = args->inverse ? -1 : 1;

    for (int i = 0; i < turn->pairs; i++) {
        if (continues) {
            double old = turn->cos[i];

            turn->cos[i] = old * turn->step_cos[i] - turn->sin[i] * turn->step_sin[i];
            turn->sin[i] = turn->sin[i] * turn->step_cos[i] + old * turn->step_sin[i];
        } else {
            double angle = pow(args->theta, -2.0 * i / args->head_size);

            turn->step_cos[i] = cos(angle);
            turn->step_sin[i] = sin(angle);
            turn->cos[i] = cos(angle * position);
            turn->sin[i] = sin(angle * position);
        }
        turn->real_cos[i] = (real)turn->cos[i];
        turn->real_sin[i] = (real)(sign * turn->sin[i]);
    }
}

static void rotary_block(const void *argument, int begin, int end)
{
    const mhp_rotary_args *args = argument;
    int size = args->head_size;
    size_t row = (size_t)(args->heads + 2 * args->kv_heads) * (size_t)size;
    rotation turn;

    turn.pairs = size / 2;
    for (int t = begin; t < end; t++) {
        real *token = (real *)args->qkv + (size_t)t * row;

        rotation_set(&turn, args, args->position[t], t > begin && args->position[t] == args->position[t - 1] + 1);
        for (int h = 0; h < args->heads + args->kv_heads; h++) {
            real *restrict low = token + (size_t)h * (size_t)size;
            real *restrict high = low + turn.pairs;

            for (int i = 0; i < turn.pairs; i++) {
                real a = low[i];
                real b = high[i];

                low[i] = a * turn.real_cos[i] - b * turn.real_sin[i];
                high[i] = b * turn.real_cos[i] + a * turn.real_sin[i];
            }
        }
    }
}

static mhp_status rotary(void *native, const void *argument)
{
    const mhp_rotary_args *args = argument;

    (void)native;
    if (args->head_size > 2 * ROTARY_PAIRS_MAX || args->head_size % 2 != 0) {
        return mhp_error_set(MHP_ERR_LIMIT, "rotary positions: head size %d is odd or exceeds %d", args->head_size,
                             2 * ROTARY_PAIRS_MAX);
    }
    for_blocks(rotary_block, args, args->tokens, ROTARY_BLOCK);
    return MHP_OK;
}

ALWAYS_INLINE void swiglu_step(const real *gate, const real *up, real *act, int count)
{
    vreal g = v_load(gate, count);

    v_store(act, g * v_sigmoid(g) * v_load(up, count), count);
}

static void swiglu_block(const void *argument, int begin, int end)
{
    const mhp_swiglu_args *args = argument;
    int width = args->intermediate;

    for (int t = begin; t < end; t++) {
        const real *gate = (const real *)args->gate_up + (size_t)t * 2 * (size_t)width;
        real *act = (real *)args->act + (size_t)t * (size_t)width;
        int i = 0;

        for (; i + LANES <= width; i += LANES) {
            swiglu_step(gate + i, gate + width + i, act + i, LANES);
        }
        if (i < width) {
            swiglu_step(gate + i, gate + width + i, act + i, width - i);
        }
    }
}

static mhp_status swiglu(void *native, const void *argument)
{
    (void)native;
    for_blocks(swiglu_block, argument, ((const mhp_swiglu_args *)argument)->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

ALWAYS_INLINE void swiglu_gradient_step(const real *gate, const real *up, const real *dact, real *dgate, real *dup, int count)
{
    vreal g = v_load(gate, count);
    vreal d = v_load(dact, count);
    vreal s = v_sigmoid(g);
    vreal u = v_load(up, count);

    v_store(dup, d * g * s, count);
    v_store(dgate, d * u * s * ((real)1 + g * ((real)1 - s)), count);
}

static void swiglu_gradient_block(const void *argument, int begin, int end)
{
    const mhp_swiglu_gradient_args *args = argument;
    int width = args->intermediate;

    for (int t = begin; t < end; t++) {
        const real *gate = (const real *)args->gate_up + (size_t)t * 2 * (size_t)width;
        const real *dact = (const real *)args->dact + (size_t)t * (size_t)width;
        real *dgate = (real *)args->dgate_up + (size_t)t * 2 * (size_t)width;
        int i = 0;

        for (; i + LANES <= width; i += LANES) {
            swiglu_gradient_step(gate + i, gate + width + i, dact + i, dgate + i, dgate + width + i, LANES);
        }
        if (i < width) {
            swiglu_gradient_step(gate + i, gate + width + i, dact + i, dgate + i, dgate + width + i, width - i);
        }
    }
}

static mhp_status swiglu_gradient(void *native, const void *argument)
{
    (void)native;
    for_blocks(swiglu_gradient_block, argument, ((const mhp_swiglu_gradient_args *)argument)->tokens, TOKEN_BLOCK);
    return MHP_OK;
}
