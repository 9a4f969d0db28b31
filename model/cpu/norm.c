/* RMSNorm and its gradient. */
#include "model/cpu/vmath.h"

/* Sum of squares in two interleaved vectors. */
ALWAYS_INLINE real sum_of_squares(const real *x, int count)
{
    vreal even = {0};
    vreal odd = {0};
    int i = 0;

    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        vreal a = v_load(x + i, LANES);
        vreal b = v_load(x + i + LANES, LANES);

        even += a * a;
        odd += b * b;
    }
    for (; i < count; i += LANES) {
        vreal a = v_load(x + i, min_int(LANES, count - i));

        even += a * a;
    }
    return v_sum(even + odd);
}

/* y = x rrms weight. y may be x. */
ALWAYS_INLINE void norm_row(const real *x, int width, real rrms, const real *restrict weight, real *y)
{
    for (int c = 0; c < width; c++) {
        y[c] = x[c] * rrms * weight[c];
    }
}

static void rms_norm_block(const void *argument, int begin, int end)
{
    const mhp_rms_norm_args *args = argument;
    int width = args->hidden;

    for (int t = begin; t < end; t++) {
        const real *x = (const real *)args->x + (size_t)t * (size_t)width;
        real *y = (real *)args->y + (size_t)t * (size_t)width;
        real rrms = 1 / real_sqrt(sum_of_squares(x, width) / (real)width + (real)args->epsilon);

        ((real *)args->rrms)[t] = rrms;
        norm_row(x, width, rrms, args->weight, y);
    }
}

static mhp_status rms_norm(void *native, const void *argument)
{
    (void)native;
    for_blocks(rms_norm_block, argument, ((const mhp_rms_norm_args *)argument)->tokens, TOKEN_BLOCK);
    return MHP_OK;
}

ALWAYS_INLINE vreal weighted_dot_step(const real *x, const real *weight, const real *dy, int count)
{
    return v_load(x, count) * v_load(weight, count) * v_load(dy, count);
}

/* dx of one token, x^ = x rrms: dx = rrms (w dy - x^ mean(w dy x^)). */
static void rms_norm_gradient_token(const mhp_rms_norm_gradient_args *args, int t)
{
    int width = args->hidden;
    size_t row = (size_t)t * (size_t)width;
    const real *weight = args->weight;
    const real *x = (const real *)args->x + row;
    const real *dy = (const real *)args->dy + row;
    const real *residual = args->residual ? (const real *)args->residual + row : NULL;
    real *dx = (real *)args->dx + row;
    real rrms = ((const real *)args->rrms)[t];
    vreal dot = {0};
    real pull;
    int c = 0;

    for (; c + LANES <= width; c += LANES) {
        dot += weighted_dot_step(x + c, weight + c, dy + c, LANES);
    }
    if (c < width) {
        dot += weighted_dot_step(x + c, weight + c, dy + c, width - c);
    }
    pull = v_sum(dot) * rrms * rrms * rrms / (real)width;
    if (residual) {
        for (c = 0; c < width; c++) {
            dx[c] = dy[c] * weight[c] * rrms - x[c] * pull + residual[c];
        }
    } else {
        for (c = 0; c < width; c++) {
            dx[c] = dy[c] * weight[c] * rrms - x[c] * pull;
        }
    }
}

static void rms_norm_gradient_block(const void *argument, int begin, int end)
{
    for (int t = begin; t < end; t++) {
        rms_norm_gradient_token(argument, t);
    }
}

/* Threads share out columns, so that every element takes its tokens in order. */
static void rms_norm_weight_columns(const void *argument, int begin, int end)
{
    const mhp_rms_norm_gradient_args *args = argument;
    real *restrict dweight = args->dweight;

    for (int t = 0; t < args->tokens; t++) {
        const real *x = (const real *)args->x + (size_t)t * (size_t)args->hidden;
        const real *dy = (const real *)args->dy + (size_t)t * (size_t)args->hidden;
        real rrms = ((const real *)args->rrms)[t];

        for (int c = begin; c < end; c++) {
            dweight[c] += dy[c] * x[c] * rrms;
        }
    }
}

/* The weight first: dx may be dy, or x. */
static mhp_status rms_norm_gradient(void *native, const void *argument)
{
    const mhp_rms_norm_gradient_args *args = argument;

    (void)native;
    for_blocks(rms_norm_weight_columns, args, args->hidden, 64);
    for_blocks(rms_norm_gradient_block, args, args->tokens, TOKEN_BLOCK);
    return MHP_OK;
}
