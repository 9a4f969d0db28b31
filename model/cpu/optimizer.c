/* AdamW, the square sum of gradients and the factor that clips them. Real and full are one type here: nothing is kept twice. */
#include "model/cpu/cpu.h"

static mhp_status adamw(void *native, const void *argument)
{
    const mhp_adamw_args *args = argument;
    const real *restrict grad = args->grad;
    real *restrict parameter = args->parameter;
    real *restrict moment1 = args->moment1;
    real *restrict moment2 = args->moment2;
    real scale = (real)args->gradient_scale[0];
    real beta1 = (real)args->beta1;
    real beta2 = (real)args->beta2;
    real fresh1 = (real)(1 - args->beta1);
    real fresh2 = (real)(1 - args->beta2);
    real correction1 = (real)(1 / (1 - pow(args->beta1, (double)args->step)));
    real correction2 = (real)(1 / (1 - pow(args->beta2, (double)args->step)));
    real keep = (real)(1 - args->rate * args->decay);
    real rate = (real)args->rate;
    real epsilon = (real)args->epsilon;

    (void)native;
    if (args->gradient_scale[0] < 0) {
        return MHP_OK;
    }
#pragma omp parallel for simd schedule(static) if (omp_get_max_threads() > 1)
    for (int64_t i = 0; i < args->count; i++) {
        real g = grad[i] * scale;
        real m = beta1 * moment1[i] + fresh1 * g;
        real v = beta2 * moment2[i] + fresh2 * g * g;

        moment1[i] = m;
        moment2[i] = v;
        parameter[i] = parameter[i] * keep - rate * (m * correction1) / (real_sqrt(v * correction2) + epsilon);
    }
    return MHP_OK;
}

static mhp_status cast(void *native, const void *argument)
{
    const mhp_cast_args *args = argument;

    (void)native;
    memcpy(args->target, args->source, (size_t)args->count * sizeof(real));
    return MHP_OK;
}

enum { SQUARE_SEGMENTS = 64, SQUARE_RUN = 4096 };

static double square_run(const real *x, int64_t count)
{
    double sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

/* Segments and runs depend on the count alone, so the sum does not depend on the number of threads. */
static mhp_status square_sum(void *native, const void *argument)
{
    const mhp_square_sum_args *args = argument;
    int64_t length = (args->count + SQUARE_SEGMENTS - 1) / SQUARE_SEGMENTS;
    double partial[SQUARE_SEGMENTS] = {0};

    (void)native;
#pragma omp parallel for schedule(static) if (omp_get_max_threads() > 1)
    for (int s = 0; s < SQUARE_SEGMENTS; s++) {
        int64_t end = (s + 1) * length < args->count ? (s + 1) * length : args->count;

        for (int64_t i = s * length; i < end; i += SQUARE_RUN) {
            partial[s] += square_run((const real *)args->x + i, end - i < SQUARE_RUN ? end - i : SQUARE_RUN);
        }
    }
    for (int s = 0; s < SQUARE_SEGMENTS; s++) {
        args->sum[0] += partial[s];
    }
    return MHP_OK;
}

static bool is_within(const mhp_sum_limit *watch)
{
    double sum = 0;

    for (int64_t i = 0; i < watch->count; i++) {
        sum += watch->x[i * watch->stride];
    }
    return sum <= watch->limit;
}

static mhp_status clip(void *native, const void *argument)
{
    const mhp_clip_args *args = argument;
    double norm = sqrt(args->square_sum[0]);
    double factor = args->clip / (norm + 1e-6);

    (void)native;
    args->norm[0] = norm;
    args->scale[0] = args->clip == 0 || factor >= 1 ? 1 : factor;
    for (int w = args->watch_count - 1; w >= 0; w--) {
        args->scale[0] = is_within(&args->watches[w]) ? args->scale[0] : -1 - w;
    }
    return MHP_OK;
}
