/* Causal attention by matrix products on blocks of queries against the range of keys that they may see. */
#include "model/cpu/vmath.h"

enum { QUERY_BLOCK = 64 };

static int64_t attention_workspace(int sequences, int length, int heads, int kv_heads, int head_size, int threads)
{
    (void)sequences;
    (void)heads;
    (void)kv_heads;
    (void)head_size;
    return (int64_t)threads * 2 * QUERY_BLOCK * length;
}

/* First key that any query of [begin, end) sees. */
static int first_key(const int32_t *document_start, int begin, int end)
{
    int first = document_start[begin];

    for (int t = begin + 1; t < end; t++) {
        first = min_int(first, document_start[t]);
    }
    return first;
}

/* Softmax of row[first, end) in place, zeros in the rest of [0, span). Returns the logarithm of the denominator. */
static real softmax_range(real *row, int first, int end, int span)
{
    real largest = row_maximum(row + first, end - first);
    real sum = row_exponentials(row + first, largest, row + first, end - first);
    real factor = 1 / sum;

    memset(row, 0, (size_t)first * sizeof(real));
    for (int i = first; i < end; i++) {
        row[i] *= factor;
    }
    memset(row + end, 0, (size_t)(span - end) * sizeof(real));
    return largest + real_log(sum);
}

/* One head of one sequence. */
static void attention_item(const void *argument, int item, int thread)
{
    const mhp_attention_args *args = argument;
    int size = args->head_size;
    int row = (args->heads + 2 * args->kv_heads) * size;
    int head = item % args->heads;
    int kv_head = head / (args->heads / args->kv_heads);
    size_t token = (size_t)(item / args->heads) * (size_t)args->length;
    const int32_t *start = args->document_start + token;
    const real *query = (const real *)args->qkv + token * (size_t)row + head * size;
    const real *key = (const real *)args->qkv + token * (size_t)row + (args->heads + kv_head) * size;
    const real *value = key + args->kv_heads * size;
    real *out = (real *)args->out + token * (size_t)(args->heads * size) + head * size;
    real *log_sum = (real *)args->log_sum + token * (size_t)args->heads + head;
    real *scores = (real *)args->workspace + (size_t)thread * 2 * QUERY_BLOCK * (size_t)args->length;
    real scale = 1 / real_sqrt((real)size);

    for (int q = 0; q < args->length; q += QUERY_BLOCK) {
        int rows = min_int(QUERY_BLOCK, args->length - q);
        int first = first_key(start, q, q + rows);
        int span = q + rows - first;

        product(AS_IS, TRANSPOSED, rows, span, size, scale, query + (size_t)q * (size_t)row, row,
                key + (size_t)first * (size_t)row, row, 0, scores, span);
        for (int i = 0; i < rows; i++) {
            log_sum[(size_t)(q + i) * (size_t)args->heads] =
                softmax_range(scores + (size_t)i * (size_t)span, start[q + i] - first, q + i + 1 - first, span);
        }
        product(AS_IS, AS_IS, rows, size, span, 1, scores, span, value + (size_t)first * (size_t)row, row, 0,
                out + (size_t)q * (size_t)(args->heads * size), args->heads * size);
    }
}

static mhp_status attention(void *native, const void *argument)
{
    const mhp_attention_args *args = argument;

    (void)native;
    for_items(attention_item, args, args->sequences * args->heads);
    return MHP_OK;
}

/* One head of one sequence in the gradient. */
typedef struct head_gradient {
    const mhp_attention_gradient_args *args;
    int row, out_row;           /* strides of qkv and out */
    real scale;
    const int32_t *start;
    const real *query, *key, *value, *out, *dout, *log_sum;
    real *dquery, *dkey, *dvalue;
} head_gradient;

ALWAYS_INLINE void score_gradient_step(real *score, real *dscore, real log_sum, real delta, real scale, int count)
{
    vreal p = v_exp(v_load(score, count) - log_sum);

    v_store(score, p, count);
    v_store(dscore, p * (v_load(dscore, count) - delta) * scale, count);
}

/* scores become probabilities, dscores (dout v^T) become the gradient of q k^T; zeros outside [first, end). */
static void score_gradient_row(real *score, real *dscore, int first, int end, int span, real log_sum, real delta, real scale)
{
    int i = first;

    memset(score, 0, (size_t)first * sizeof(real));
    memset(dscore, 0, (size_t)first * sizeof(real));
    for (; i + LANES <= end; i += LANES) {
        score_gradient_step(score + i, dscore + i, log_sum, delta, scale, LANES);
    }
    if (i < end) {
        score_gradient_step(score + i, dscore + i, log_sum, delta, scale, end - i);
    }
    memset(score + end, 0, (size_t)(span - end) * sizeof(real));
    memset(dscore + end, 0, (size_t)(span - end) * sizeof(real));
}

static real dot_rows(const real *a, const real *b, int count)
{
    vreal sum = {0};
    int i = 0;

    for (; i + LANES <= count; i += LANES) {
        sum += v_load(a + i, LANES) * v_load(b + i, LANES);
    }
    if (i < count) {
        sum += v_load(a + i, count - i) * v_load(b + i, count - i);
    }
    return v_sum(sum);
}

static void attention_gradient_queries(const head_gradient *head, int q, real *scores, real *dscores)
{
    const mhp_attention_gradient_args *args = head->args;
    int size = args->head_size;
    int row = head->row;
    int rows = min_int(QUERY_BLOCK, args->length - q);
    int first = first_key(head->start, q, q + rows);
    int span = q + rows - first;
    size_t query = (size_t)q * (size_t)row;
    size_t keys = (size_t)first * (size_t)row;
    const real *out = head->out + (size_t)q * (size_t)head->out_row;
    const real *dout = head->dout + (size_t)q * (size_t)head->out_row;

    product(AS_IS, TRANSPOSED, rows, span, size, head->scale, head->query + query, row, head->key + keys, row, 0, scores, span);
    product(AS_IS, TRANSPOSED, rows, span, size, 1, dout, head->out_row, head->value + keys, row, 0, dscores, span);
    for (int i = 0; i < rows; i++) {
        size_t at = (size_t)i * (size_t)head->out_row;

        score_gradient_row(scores + (size_t)i * (size_t)span, dscores + (size_t)i * (size_t)span, head->start[q + i] - first,
                           q + i + 1 - first, span, head->log_sum[(size_t)(q + i) * (size_t)args->heads],
                           dot_rows(out + at, dout + at, size), head->scale);
    }
    product(AS_IS, AS_IS, rows, size, span, 1, dscores, span, head->key + keys, row, 0, head->dquery + query, row);
    product(TRANSPOSED, AS_IS, span, size, rows, 1, dscores, span, head->query + query, row, 1, head->dkey + keys, row);
    product(TRANSPOSED, AS_IS, span, size, rows, 1, scores, span, dout, head->out_row, 1, head->dvalue + keys, row);
}

/* One key-value head of one sequence: all its query heads add to the same keys and values. */
static void attention_gradient_item(const void *argument, int item, int thread)
{
    const mhp_attention_gradient_args *args = argument;
    int size = args->head_size;
    int group = args->heads / args->kv_heads;
    int kv_head = item % args->kv_heads;
    size_t token = (size_t)(item / args->kv_heads) * (size_t)args->length;
    size_t row = (size_t)((args->heads + 2 * args->kv_heads) * size);
    const real *qkv = (const real *)args->qkv + token * row;
    real *dqkv = (real *)args->dqkv + token * row;
    real *scores = (real *)args->workspace + (size_t)thread * 2 * QUERY_BLOCK * (size_t)args->length;
    int key = (args->heads + kv_head) * size;
    int value = key + args->kv_heads * size;

    for (int t = 0; t < args->length; t++) {
        memset(dqkv + (size_t)t * row + key, 0, (size_t)size * sizeof(real));
        memset(dqkv + (size_t)t * row + value, 0, (size_t)size * sizeof(real));
    }
    for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
        size_t out = token * (size_t)(args->heads * size) + (size_t)(h * size);
        head_gradient head = {
            .args = args,
            .row = (int)row,
            .out_row = args->heads * size,
            .scale = 1 / real_sqrt((real)size),
            .start = args->document_start + token,
            .query = qkv + h * size,
            .key = qkv + key,
            .value = qkv + value,
            .out = (const real *)args->out + out,
            .dout = (const real *)args->dout + out,
            .log_sum = (const real *)args->log_sum + token * (size_t)args->heads + h,
            .dquery = dqkv + h * size,
            .dkey = dqkv + key,
            .dvalue = dqkv + value,
        };

        for (int q = 0; q < args->length; q += QUERY_BLOCK) {
            attention_gradient_queries(&head, q, scores, scores + QUERY_BLOCK * (size_t)args->length);
        }
    }
}

static mhp_status attention_gradient(void *native, const void *argument)
{
    const mhp_attention_gradient_args *args = argument;

    (void)native;
    for_items(attention_gradient_item, args, args->sequences * args->kv_heads);
    return MHP_OK;
}
