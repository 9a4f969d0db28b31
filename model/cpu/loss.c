/* Cross-entropy and the gain of composed connections. */
#include "model/cpu/vmath.h"

ALWAYS_INLINE real row_maximum(const real *x, int count)
{
    vreal largest = v_set(x[0]);
    int i = 0;
    real result;

    for (; i + LANES <= count; i += LANES) {
        largest = v_max(largest, v_load(x + i, LANES));
    }
    result = v_largest(largest);
    for (; i < count; i++) {
        result = result < x[i] ? x[i] : result;
    }
    return result;
}

ALWAYS_INLINE vreal exponential_step(const real *x, real shift, real *out, int count)
{
    vreal value = v_exp(v_load(x, count) - shift);

    if (count < LANES) {        /* lanes beyond the row must not count */
        vreal zero = {0};

        for (int lane = count; lane < LANES; lane++) {
            value[lane] = zero[lane];
        }
    }
    if (out) {
        v_store(out, value, count);
    }
    return value;
}

/* out = exp(x - shift) (unless NULL), and its sum. */
ALWAYS_INLINE real row_exponentials(const real *x, real shift, real *out, int count)
{
    vreal sum = {0};
    int i = 0;

    for (; i + LANES <= count; i += LANES) {
        sum += exponential_step(x + i, shift, out ? out + i : NULL, LANES);
    }
    if (i < count) {
        sum += exponential_step(x + i, shift, out ? out + i : NULL, count - i);
    }
    return v_sum(sum);
}

static double cross_entropy_token(const mhp_cross_entropy_args *args, int t)
{
    int width = args->vocabulary;
    const real *logits = (const real *)args->logits + (size_t)t * (size_t)width;
    real *dlogits = args->dlogits ? (real *)args->dlogits + (size_t)t * (size_t)width : NULL;
    int target = args->target[t];
    real largest, sum, at_target, factor;

    if (target == -100) {
        if (dlogits) {
            memset(dlogits, 0, (size_t)width * sizeof(real));
        }
        return 0;
    }
    at_target = logits[target];
    largest = row_maximum(logits, width);
    sum = row_exponentials(logits, largest, dlogits, width);
    if (dlogits) {
        factor = (real)args->scale / sum;
        for (int i = 0; i < width; i++) {
            dlogits[i] *= factor;
        }
        dlogits[target] -= (real)args->scale;
    }
    return (double)(largest - at_target) + log((double)sum);
}

static mhp_status cross_entropy(void *native, const void *argument)
{
    const mhp_cross_entropy_args *args = argument;
    int threads = threads_for(args->tokens);
    double partial[THREADS_MAX] = {0};
    double total = 0;

    (void)native;
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (threads > 1)
    for (int part = 0; part < threads; part++) {
        int end = (int)((int64_t)args->tokens * (part + 1) / threads);

        for (int t = (int)((int64_t)args->tokens * part / threads); t < end; t++) {
            partial[part] += cross_entropy_token(args, t);
        }
    }
    for (int part = 0; part < threads; part++) {
        total += partial[part];
    }
    args->loss_sum[0] = total;
    return MHP_OK;
}

/* Adds the largest absolute row sum and column sum of comb^T (transposed) or of a product to sums[0] and sums[1]. */
static void add_largest_sums(const real *matrix, int n, bool transposed, double sums[2])
{
    double largest[2] = {0, 0};

    for (int i = 0; i < n; i++) {
        double row = 0;
        double column = 0;

        for (int k = 0; k < n; k++) {
            row += fabs((double)matrix[i * n + k]);
            column += fabs((double)matrix[k * n + i]);
        }
        largest[0] = fmax(largest[0], transposed ? column : row);
        largest[1] = fmax(largest[1], transposed ? row : column);
    }
    sums[0] += largest[0];
    sums[1] += largest[1];
}

/* out = comb^T in; out may be in. */
static void compose(const real *comb, const real *in, real *out, int n)
{
    real result[MHP_STREAMS_MAX * MHP_STREAMS_MAX];

    for (int k = 0; k < n; k++) {
        for (int i = 0; i < n; i++) {
            real sum = 0;

            for (int j = 0; j < n; j++) {
                sum += comb[j * n + k] * (in ? in[j * n + i] : (real)(i == j));
            }
            result[k * n + i] = sum;
        }
    }
    memcpy(out, result, (size_t)(n * n) * sizeof(real));
}

static mhp_status gain(void *native, const void *argument)
{
    const mhp_gain_args *args = argument;
    int n = args->streams;
    double sums[2] = {0, 0};

    (void)native;
    for (int t = 0; t < args->tokens; t++) {
        size_t at = (size_t)t * (size_t)(n * n);
        const real *comb = (const real *)args->comb + at;

        add_largest_sums(comb, n, true, sums);
        compose(comb, args->product_in ? (const real *)args->product_in + at : NULL, (real *)args->product_out + at, n);
    }
    args->worst[0] = fmax(args->worst[0], sums[0] / args->tokens);
    args->worst[1] = fmax(args->worst[1], sums[1] / args->tokens);
    return MHP_OK;
}

static mhp_status gain_read(void *native, const void *argument)
{
    const mhp_gain_read_args *args = argument;
    int n = args->streams;
    double sums[2] = {0, 0};

    (void)native;
    for (int t = 0; t < args->tokens; t++) {
        add_largest_sums((const real *)args->product + (size_t)t * (size_t)(n * n), n, false, sums);
    }
    args->gain[0] = sums[0] / args->tokens;
    args->gain[1] = sums[1] / args->tokens;
    return MHP_OK;
}
