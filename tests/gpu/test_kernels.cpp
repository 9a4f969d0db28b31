/* Every CUDA kernel but the connections against plain F64 formulas on fresh random inputs: odd sizes, outputs poisoned before, two
 * runs equal to the bit. Arguments: "clean" for the small cases alone, as for compute-sanitizer; a number for the seed, which is printed
 * (default: the time). Errors are |out - expected| / |expected| in the Euclidean norm; the bounds are written at each kernel. Exits
 * with 77 without a card. */
#include <ctime>
#include <functional>
#include <initializer_list>
#include <memory>
#include <thread>

#include "tests/gpu/gpu_tensor.hpp"

static random_numbers generator;
static int failures, checks;
static bool small_only;
static cudaStream_t stream;

typedef std::unique_ptr<gpu_tensor> tensor;
typedef std::vector<double> values;

/* One precision: its table and how exact its results are. */
struct precision {
    const mhp_kernels *table;
    double rounding;            /* of one result in real */
    const char *name;
};

static const precision PRECISIONS[] = {
    {mhp_cuda_kernels(MHP_DTYPE_F32), 4e-7, "f32"},
    {mhp_cuda_kernels(MHP_DTYPE_BF16), 4e-3, "bf16"},
};

static tensor normal(mhp_dtype dtype, size_t count, double deviation = 1, double mean = 0)
{
    tensor made = std::make_unique<gpu_tensor>(dtype, count);

    made->fill_normal(generator, deviation, mean);
    return made;
}

static tensor poisoned(mhp_dtype dtype, size_t count)
{
    tensor made = std::make_unique<gpu_tensor>(dtype, count);

    made->poison();
    return made;
}

static tensor integers(size_t count, const std::function<int(size_t)> &value)
{
    tensor made = std::make_unique<gpu_tensor>(MHP_DTYPE_I32, count);

    for (size_t i = 0; i < count; i++) {
        made->host[i] = value(i);
    }
    made->upload();
    return made;
}

static double distance(const values &out, const values &expected)
{
    double difference = 0, norm = 0;

    for (size_t i = 0; i < out.size(); i++) {
        difference += (out[i] - expected[i]) * (out[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

/* NaN fails. */
static void check(const std::string &what, const values &out, const values &expected, double bound)
{
    double error = distance(out, expected);

    checks++;
    if (!(error <= bound)) {
        failures++;
        std::printf("FAIL %s: error %.3e, bound %.1e\n", what.c_str(), error, bound);
        for (size_t i = 0, shown = 0; i < out.size() && shown < 3; i++) {
            if (!(std::fabs(out[i] - expected[i]) <= bound * (std::fabs(expected[i]) + 1))) {
                std::printf("     [%zu] %.9g, expected %.9g\n", i, out[i], expected[i]);
                shown++;
            }
        }
    }
}

struct output {
    gpu_tensor *tensor;
    bool accumulates;           /* begins from its host values, else poisoned */
};

/* Runs the kernel twice from the same start and wants the same bytes. */
template <typename arguments>
static void run(const std::string &what, mhp_task_fn kernel, const arguments &args, std::initializer_list<output> outputs)
{
    std::vector<std::vector<char>> first;

    for (int round = 0; round < 2; round++) {
        size_t i = 0;

        for (const output &out : outputs) {
            if (out.accumulates) {
                out.tensor->upload();
            } else {
                out.tensor->poison();
            }
        }
        if (kernel(stream, &args) < 0) {
            failures++;
            std::printf("FAIL %s: %s\n", what.c_str(), mhp_error_text());
            return;
        }
        GPU_CHECK(cudaStreamSynchronize(stream));
        for (const output &out : outputs) {
            if (round == 0) {
                first.push_back(out.tensor->raw());
            } else if (first[i++] != out.tensor->raw()) {
                failures++;
                std::printf("FAIL %s: two runs differ in output %zu\n", what.c_str(), i);
            }
        }
    }
    checks++;
}

static std::string label(const precision &p, const char *kernel, std::initializer_list<int> sizes)
{
    std::string text = std::string(kernel) + " " + p.name;

    for (int size : sizes) {
        text += " " + std::to_string(size);
    }
    return text;
}

static const int TOKENS[] = {1, 7, 4099};
static const int WIDTHS[] = {8, 20, 1280, 2560};

/* ---- Products ---- */

/* Some elements of a large product, all of a small one. */
static void test_gemm_shape(const precision &p, int m, int n, int k, int form, bool full_c, double beta)
{
    mhp_dtype real = p.table->dtype;
    mhp_gemm_args args = {};
    std::string what = label(p, "gemm", {m, n, k, form, full_c, (int)beta});
    tensor a = normal(real, (size_t)m * (size_t)k);
    tensor b = normal(real, (size_t)k * (size_t)n);
    tensor c = normal(full_c ? MHP_DTYPE_F32 : real, (size_t)m * (size_t)n);
    values out, expected, all;

    args.transpose_a = form & 1;
    args.transpose_b = form & 2;
    args.full_c = full_c;
    args.m = m;
    args.n = n;
    args.k = k;
    args.alpha = 0.5;
    args.beta = beta;
    args.a = a->device();
    args.lda = args.transpose_a ? m : k;
    args.b = b->device();
    args.ldb = args.transpose_b ? k : n;
    args.c = c->device();
    args.ldc = n;
    run(what, p.table->gemm, args, {{c.get(), beta != 0}});
    all = c->values();
    for (int sample = 0; sample < 4000; sample++) {
        int i = generator.below(m);
        int j = generator.below(n);
        double sum = 0;

        for (int l = 0; l < k; l++) {
            sum += a->host[(size_t)(args.transpose_a ? l * m + i : i * k + l)] * b->host[(size_t)(args.transpose_b ? j * k + l : l * n + j)];
        }
        out.push_back(all[(size_t)i * (size_t)n + (size_t)j]);
        expected.push_back(0.5 * sum + (beta != 0 ? beta * c->host[(size_t)i * (size_t)n + (size_t)j] : 0));
    }
    /* Sums in float (tensor cores truncate); TF32 would be near 3e-4. */
    check(what, out, expected, real == MHP_DTYPE_F32 ? 3e-6 : full_c ? 1e-5 : p.rounding);
}

static void test_gemm(const precision &p)
{
    for (int form = 0; form < 4; form++) {
        test_gemm_shape(p, 1, 8, 8, form, false, 0);
        test_gemm_shape(p, 7, 24, 40, form, false, 0);
        if (!small_only) {
            test_gemm_shape(p, 331, 1280, 512, form, false, form % 2);
            test_gemm_shape(p, 1280, 648, 4099, form, true, 1);         /* a weight's gradient: sums over tokens in F32 */
        }
    }
}

/* ---- Embedding and streams ---- */

static void test_embedding(const precision &p, int tokens, int hidden)
{
    mhp_dtype real = p.table->dtype;
    int vocabulary = 97, streams = 4;
    std::string what = label(p, "embedding", {tokens, hidden});
    tensor token = integers((size_t)tokens, [&](size_t) { return generator.below(vocabulary) * generator.below(2); });
    tensor table = normal(real, (size_t)vocabulary * (size_t)hidden);
    tensor state = poisoned(real, (size_t)tokens * (size_t)streams * (size_t)hidden);
    tensor grad = normal(real, (size_t)tokens * (size_t)hidden);
    tensor dtable = normal(MHP_DTYPE_F32, (size_t)vocabulary * (size_t)hidden);
    values rows(state->host.size()), sums = dtable->host;
    mhp_embedding_args args = {};
    mhp_embedding_gradient_args gradient = {};

    args.tokens = gradient.tokens = tokens;
    args.hidden = gradient.hidden = hidden;
    args.streams = streams;
    args.token = gradient.token = static_cast<int32_t *>(token->device());
    args.table = table->device();
    args.state = state->device();
    gradient.grad = grad->device();
    gradient.dtable = dtable->device();
    for (int t = 0; t < tokens; t++) {
        for (int c = 0; c < hidden; c++) {
            size_t at = (size_t)token->host[(size_t)t] * (size_t)hidden + (size_t)c;

            for (int j = 0; j < streams; j++) {
                rows[(size_t)((t * streams + j) * hidden + c)] = table->host[at];
            }
            sums[at] += grad->host[(size_t)(t * hidden + c)];
        }
    }
    run(what, p.table->embedding, args, {{state.get(), false}});
    check(what, state->values(), rows, 0);
    run(what + " gradient", p.table->embedding_gradient, gradient, {{dtable.get(), true}});
    check(what + " gradient", dtable->values(), sums, 1e-6);
}

static void test_streams(const precision &p, int tokens, int hidden, int streams)
{
    mhp_dtype real = p.table->dtype;
    std::string what = label(p, "streams", {tokens, hidden, streams});
    tensor state = normal(real, (size_t)tokens * (size_t)streams * (size_t)hidden);
    tensor sum = poisoned(real, (size_t)tokens * (size_t)hidden);
    tensor grad = normal(real, (size_t)tokens * (size_t)hidden);
    tensor repeated = poisoned(real, state->host.size());
    values sums(sum->host.size()), copies(state->host.size());
    mhp_stream_sum_args args = {};
    mhp_stream_repeat_args repeat = {};

    args.tokens = repeat.tokens = tokens;
    args.hidden = repeat.hidden = hidden;
    args.streams = repeat.streams = streams;
    args.state = state->device();
    args.sum = sum->device();
    repeat.grad = grad->device();
    repeat.state = repeated->device();
    for (int t = 0; t < tokens; t++) {
        for (int j = 0; j < streams; j++) {
            for (int c = 0; c < hidden; c++) {
                sums[(size_t)(t * hidden + c)] += state->host[(size_t)((t * streams + j) * hidden + c)];
                copies[(size_t)((t * streams + j) * hidden + c)] = grad->host[(size_t)(t * hidden + c)];
            }
        }
    }
    run(what, p.table->stream_sum, args, {{sum.get(), false}});
    check(what, sum->values(), sums, p.rounding);
    run(what, p.table->stream_repeat, repeat, {{repeated.get(), false}});
    check(what, repeated->values(), copies, 0);
}

/* ---- Norm ---- */

static void test_norm(const precision &p, int tokens, int hidden, bool with_residual)
{
    mhp_dtype real = p.table->dtype;
    size_t count = (size_t)tokens * (size_t)hidden;
    double epsilon = 1e-5;
    std::string what = label(p, "rms_norm", {tokens, hidden, with_residual});
    tensor x = normal(real, count, 2), dy = normal(real, count), residual = normal(real, count);
    tensor weight = normal(MHP_DTYPE_F32, (size_t)hidden, 0.3, 1), dweight = normal(MHP_DTYPE_F32, (size_t)hidden);
    tensor y = poisoned(real, count), dx = poisoned(real, count), rrms = poisoned(MHP_DTYPE_F32, (size_t)tokens);
    values expected_y(count), expected_dx(count), expected_rrms((size_t)tokens), expected_dweight = dweight->host;
    mhp_rms_norm_args args = {};
    mhp_rms_norm_gradient_args gradient = {};

    for (size_t t = 0; t < (size_t)tokens; t++) {
        const double *row = &x->host[t * (size_t)hidden], *d = &dy->host[t * (size_t)hidden];
        double square = 0, dot = 0, factor;

        for (int c = 0; c < hidden; c++) {
            square += row[c] * row[c];
            dot += row[c] * d[c] * weight->host[(size_t)c];
        }
        factor = 1 / std::sqrt(square / hidden + epsilon);
        expected_rrms[t] = factor;
        for (int c = 0; c < hidden; c++) {
            size_t at = t * (size_t)hidden + (size_t)c;
            double w = weight->host[(size_t)c];

            expected_y[at] = row[c] * factor * w;
            expected_dx[at] = d[c] * w * factor - row[c] * dot * factor * factor * factor / hidden +
                              (with_residual ? residual->host[at] : 0);
            expected_dweight[(size_t)c] += d[c] * row[c] * factor;
        }
    }
    args.tokens = gradient.tokens = tokens;
    args.hidden = gradient.hidden = hidden;
    args.epsilon = epsilon;
    args.x = gradient.x = x->device();
    args.weight = gradient.weight = weight->device();
    args.y = y->device();
    args.rrms = rrms->device();
    gradient.rrms = rrms->device();
    gradient.dy = dy->device();
    gradient.dx = dx->device();
    gradient.dweight = dweight->device();
    run(what, p.table->rms_norm, args, {{y.get(), false}, {rrms.get(), false}});
    check(what, y->values(), expected_y, p.rounding);
    check(what + " rrms", rrms->values(), expected_rrms, 1e-6);
    if (with_residual) {        /* in place, as the stage does it */
        gradient.residual = residual->device();
        gradient.dx = residual->device();
        run(what + " gradient", p.table->rms_norm_gradient, gradient, {{residual.get(), true}, {dweight.get(), true}});
        check(what + " dx", residual->values(), expected_dx, p.rounding);
    } else {
        run(what + " gradient", p.table->rms_norm_gradient, gradient, {{dx.get(), false}, {dweight.get(), true}});
        check(what + " dx", dx->values(), expected_dx, p.rounding);
    }
    check(what + " dweight", dweight->values(), expected_dweight, 3e-6);
}

/* ---- Rotary positions ---- */

static void test_rotary(const precision &p, int tokens, int heads, int kv_heads, int size, bool inverse)
{
    size_t row = (size_t)(heads + 2 * kv_heads) * (size_t)size;
    std::string what = label(p, "rotary", {tokens, heads, kv_heads, size, inverse});
    tensor qkv = normal(p.table->dtype, (size_t)tokens * row);
    tensor position = integers((size_t)tokens, [&](size_t i) { return i % 2 ? 100000 - (int)i : generator.below(131072); });
    values expected = qkv->host;
    mhp_rotary_args args = {};

    args.tokens = tokens;
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.head_size = size;
    args.inverse = inverse;
    args.theta = 10000;
    args.position = static_cast<int32_t *>(position->device());
    args.qkv = qkv->device();
    for (size_t t = 0; t < (size_t)tokens; t++) {
        for (int h = 0; h < heads + kv_heads; h++) {
            for (int i = 0; i < size / 2; i++) {
                double angle = position->host[t] * std::pow(args.theta, -2.0 * i / size);
                double c = std::cos(angle), s = inverse ? -std::sin(angle) : std::sin(angle);
                size_t low = t * row + (size_t)(h * size + i), high = low + (size_t)size / 2;

                expected[low] = qkv->host[low] * c - qkv->host[high] * s;
                expected[high] = qkv->host[high] * c + qkv->host[low] * s;
            }
        }
    }
    run(what, p.table->rotary, args, {{qkv.get(), true}});
    check(what, qkv->values(), expected, p.rounding);
}

/* ---- Attention ---- */

struct attention_case {
    int sequences, length, heads, kv_heads, size;
    int documents;              /* 0: one, else their average length */
};

static double dot(const double *a, const double *b, int size)
{
    double sum = 0;

    for (int c = 0; c < size; c++) {
        sum += a[c] * b[c];
    }
    return sum;
}

/* One head's results: probabilities row by row, as the formula has it. */
static void attention_reference(const attention_case &shape, int sequence, int head, const values &qkv, const values &start,
                                const values &dout, values &out, values &log_sum, values *dqkv)
{
    int size = shape.size, length = shape.length;
    size_t row = (size_t)(shape.heads + 2 * shape.kv_heads) * (size_t)size, out_row = (size_t)(shape.heads * size);
    size_t token = (size_t)sequence * (size_t)length;
    size_t key_at = (size_t)(shape.heads + head / (shape.heads / shape.kv_heads)) * (size_t)size;
    size_t value_at = key_at + (size_t)(shape.kv_heads * size);
    double scale = 1 / std::sqrt((double)size);
    values p((size_t)length);

    for (int t = 0; t < length; t++) {
        const double *query = &qkv[(token + (size_t)t) * row + (size_t)(head * size)];
        const double *d = &dout[(token + (size_t)t) * out_row + (size_t)(head * size)];
        double *o = &out[(token + (size_t)t) * out_row + (size_t)(head * size)];
        int first = (int)start[token + (size_t)t];
        double largest = -INFINITY, sum = 0, delta;

        for (int k = first; k <= t; k++) {
            p[(size_t)k] = scale * dot(query, &qkv[(token + (size_t)k) * row + key_at], size);
            largest = std::fmax(largest, p[(size_t)k]);
        }
        for (int k = first; k <= t; k++) {
            sum += p[(size_t)k] = std::exp(p[(size_t)k] - largest);
        }
        log_sum[((size_t)sequence * (size_t)shape.heads + (size_t)head) * (size_t)length + (size_t)t] = largest + std::log(sum);
        for (int k = first; k <= t; k++) {
            p[(size_t)k] /= sum;
            for (int c = 0; c < size; c++) {
                o[c] += p[(size_t)k] * qkv[(token + (size_t)k) * row + value_at + (size_t)c];
            }
        }
        delta = dot(o, d, size);
        for (int k = first; k <= t && dqkv; k++) {
            size_t at = (token + (size_t)k) * row;
            double ds = p[(size_t)k] * (dot(d, &qkv[at + value_at], size) - delta) * scale;

            for (int c = 0; c < size; c++) {
                (*dqkv)[(token + (size_t)t) * row + (size_t)(head * size + c)] += ds * qkv[at + key_at + (size_t)c];
                (*dqkv)[at + key_at + (size_t)c] += ds * query[c];
                (*dqkv)[at + value_at + (size_t)c] += p[(size_t)k] * d[c];
            }
        }
    }
}

static tensor document_starts(const attention_case &shape)
{
    int start = 0;

    return integers((size_t)shape.sequences * (size_t)shape.length, [&](size_t i) {
        int t = (int)(i % (size_t)shape.length);

        if (t == 0) {
            start = 0;
        } else if (shape.documents && generator.below(shape.documents) == 0) {
            start = t;
        }
        return start;
    });
}

/* one_document: also cuDNN's way, where there is one. */
static void test_attention(const precision &p, const attention_case &shape, bool one_document)
{
    mhp_dtype real = p.table->dtype;
    size_t tokens = (size_t)shape.sequences * (size_t)shape.length;
    size_t row = (size_t)(shape.heads + 2 * shape.kv_heads) * (size_t)shape.size, out_row = (size_t)(shape.heads * shape.size);
    std::string what = label(p, one_document ? "attention (one document)" : "attention",
                             {shape.sequences, shape.length, shape.heads, shape.kv_heads, shape.size, shape.documents});
    tensor qkv = normal(real, tokens * row, 1.5), dout = normal(real, tokens * out_row), start = document_starts(shape);
    tensor out = poisoned(real, tokens * out_row), dqkv = poisoned(real, tokens * row);
    tensor log_sum = poisoned(MHP_DTYPE_F32, tokens * (size_t)shape.heads);
    size_t room = (size_t)mhp_cuda_attention_workspace(shape.sequences, shape.length, shape.heads, shape.kv_heads, shape.size, 1);
    void *workspace;
    values expected_out(tokens * out_row), expected_log(log_sum->host.size()), expected_dqkv(tokens * row);
    mhp_attention_args args = {};
    mhp_attention_gradient_args gradient = {};

    GPU_CHECK(cudaMalloc(&workspace, room * sizeof(float)));
    GPU_CHECK(cudaMemset(workspace, 0xff, room * sizeof(float)));
    args.sequences = gradient.sequences = shape.sequences;
    args.length = gradient.length = shape.length;
    args.heads = gradient.heads = shape.heads;
    args.kv_heads = gradient.kv_heads = shape.kv_heads;
    args.head_size = gradient.head_size = shape.size;
    args.one_document = gradient.one_document = one_document;
    args.document_start = gradient.document_start = static_cast<int32_t *>(start->device());
    args.qkv = gradient.qkv = qkv->device();
    args.out = out->device();
    gradient.out = out->device();
    args.log_sum = log_sum->device();
    gradient.log_sum = log_sum->device();
    args.workspace = gradient.workspace = workspace;
    gradient.dout = dout->device();
    gradient.dqkv = dqkv->device();
    std::vector<std::thread> threads;   /* by key-value head, whose gradients are sums over its query heads */

    for (int item = 0; item < shape.sequences * shape.kv_heads; item++) {
        threads.emplace_back([&, item] {
            int group = shape.heads / shape.kv_heads;
            int first = item % shape.kv_heads * group;

            for (int head = first; head < first + group; head++) {
                attention_reference(shape, item / shape.kv_heads, head, qkv->host, start->host, dout->host, expected_out, expected_log,
                                    &expected_dqkv);
            }
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    run(what, p.table->attention, args, {{out.get(), false}, {log_sum.get(), false}});
    check(what, out->values(), expected_out, real == MHP_DTYPE_F32 ? 2e-6 : 6e-3);
    check(what + " log_sum", log_sum->values(), expected_log, 2e-6);
    run(what + " gradient", p.table->attention_gradient, gradient, {{dqkv.get(), false}});
    check(what + " gradient", dqkv->values(), expected_dqkv, real == MHP_DTYPE_F32 ? 5e-6 : 1e-2);
    GPU_CHECK(cudaFree(workspace));
}

static void test_attentions(const precision &p)
{
    static const attention_case CASES[] = {
        {1, 1, 1, 1, 8, 0},     {2, 7, 2, 1, 16, 3},     {1, 65, 3, 3, 34, 0},     {3, 130, 4, 2, 64, 0},
        {2, 333, 6, 2, 64, 40}, {2, 333, 4, 1, 80, 20},  {1, 700, 4, 4, 128, 150}, {2, 300, 2, 2, 128, 0},
        {1, 200, 4, 2, 256, 0}, {1, 259, 2, 1, 192, 30}, {1, 2051, 2, 1, 128, 0},  {1, 1536, 4, 4, 128, 300}, {2, 515, 3, 3, 128, 60},
    };

    for (const attention_case &shape : CASES) {
        if (small_only && shape.length > 300) {
            continue;
        }
        test_attention(p, shape, false);
        if (shape.documents == 0) {
            test_attention(p, shape, true);
        }
    }
}

/* ---- SwiGLU ---- */

static void test_swiglu(const precision &p, int tokens, int width)
{
    mhp_dtype real = p.table->dtype;
    size_t count = (size_t)tokens * (size_t)width;
    std::string what = label(p, "swiglu", {tokens, width});
    tensor gate_up = normal(real, 2 * count, 3), dact = normal(real, count);
    tensor act = poisoned(real, count), dgate_up = poisoned(real, 2 * count);
    values expected(count), gradient(2 * count);
    mhp_swiglu_args args = {};
    mhp_swiglu_gradient_args back = {};

    for (size_t t = 0; t < (size_t)tokens; t++) {
        for (size_t i = 0; i < (size_t)width; i++) {
            size_t gate = 2 * t * (size_t)width + i, up = gate + (size_t)width, at = t * (size_t)width + i;
            double g = gate_up->host[gate], u = gate_up->host[up], s = 1 / (1 + std::exp(-g));

            expected[at] = g * s * u;
            gradient[gate] = dact->host[at] * u * s * (1 + g * (1 - s));
            gradient[up] = dact->host[at] * g * s;
        }
    }
    args.tokens = back.tokens = tokens;
    args.intermediate = back.intermediate = width;
    args.gate_up = back.gate_up = gate_up->device();
    args.act = act->device();
    back.dact = dact->device();
    back.dgate_up = dgate_up->device();
    run(what, p.table->swiglu, args, {{act.get(), false}});
    check(what, act->values(), expected, p.rounding);
    run(what + " gradient", p.table->swiglu_gradient, back, {{dgate_up.get(), false}});
    check(what + " gradient", dgate_up->values(), gradient, p.rounding);
}

/* ---- Cross-entropy ---- */

static void test_cross_entropy(const precision &p, int tokens, int vocabulary, double deviation, bool with_gradient)
{
    size_t count = (size_t)tokens * (size_t)vocabulary;
    double scale = 1.0 / 513;
    std::string what = label(p, "cross_entropy", {tokens, vocabulary, (int)deviation, with_gradient});
    tensor logits = normal(p.table->dtype, count, deviation), loss = poisoned(MHP_DTYPE_F64, 1);
    tensor target = integers((size_t)tokens, [&](size_t i) { return i % 5 == 3 ? -100 : generator.below(vocabulary); });
    values expected(count);
    double total = 0;
    mhp_cross_entropy_args args = {};

    for (size_t t = 0; t < (size_t)tokens; t++) {
        const double *row = &logits->host[t * (size_t)vocabulary];
        int at = (int)target->host[t];
        double largest = row[0], sum = 0;

        for (int i = 0; i < vocabulary; i++) {
            largest = std::fmax(largest, row[i]);
        }
        for (int i = 0; i < vocabulary; i++) {
            sum += std::exp(row[i] - largest);
        }
        total += at == -100 ? 0 : largest - row[at] + std::log(sum);
        for (int i = 0; i < vocabulary; i++) {
            expected[t * (size_t)vocabulary + (size_t)i] = at == -100 ? 0 : scale * (std::exp(row[i] - largest) / sum - (i == at));
        }
    }
    args.tokens = tokens;
    args.vocabulary = vocabulary;
    args.scale = scale;
    args.target = static_cast<int32_t *>(target->device());
    args.logits = logits->device();
    args.dlogits = with_gradient ? logits->device() : nullptr;
    args.loss_sum = static_cast<double *>(loss->device());
    run(what, p.table->cross_entropy, args, {{logits.get(), true}, {loss.get(), false}});
    check(what + " loss", loss->values(), {total}, 2e-6);
    check(what, logits->values(), with_gradient ? expected : logits->host, with_gradient ? std::fmax(p.rounding, 1e-6) : 0);
}

/* ---- Gain ---- */

static void largest_sums(const double *matrix, int n, double *row_out, double *column_out)
{
    *row_out = *column_out = 0;
    for (int i = 0; i < n; i++) {
        double row = 0, column = 0;

        for (int k = 0; k < n; k++) {
            row += std::fabs(matrix[i * n + k]);
            column += std::fabs(matrix[k * n + i]);
        }
        *row_out = std::fmax(*row_out, row);
        *column_out = std::fmax(*column_out, column);
    }
}

static void test_gain(const precision &p, int tokens, int n)
{
    size_t count = (size_t)tokens * (size_t)(n * n);
    std::string what = label(p, "gain", {tokens, n});
    tensor comb = normal(MHP_DTYPE_F32, count), product = normal(MHP_DTYPE_F32, count), first = poisoned(MHP_DTYPE_F32, count);
    tensor worst = normal(MHP_DTYPE_F64, 2, 0, 0.5), gain = poisoned(MHP_DTYPE_F64, 2);
    values composed(count), transposed(count), expected_worst(2), expected_gain(2);
    mhp_gain_args args = {};
    mhp_gain_read_args read = {};

    for (size_t t = 0; t < (size_t)tokens; t++) {
        size_t at = t * (size_t)(n * n);
        double row, column;

        for (int k = 0; k < n; k++) {
            for (int i = 0; i < n; i++) {
                transposed[at + (size_t)(k * n + i)] = comb->host[at + (size_t)(i * n + k)];
                for (int j = 0; j < n; j++) {
                    composed[at + (size_t)(k * n + i)] += comb->host[at + (size_t)(j * n + k)] * product->host[at + (size_t)(j * n + i)];
                }
            }
        }
        largest_sums(&transposed[at], n, &row, &column);
        expected_worst[0] += row / tokens;
        expected_worst[1] += column / tokens;
        largest_sums(&product->host[at], n, &row, &column);
        expected_gain[0] += row / tokens;
        expected_gain[1] += column / tokens;
    }
    expected_worst = {std::fmax(0.5, expected_worst[0]), std::fmax(0.5, expected_worst[1])};
    args.tokens = read.tokens = tokens;
    args.streams = read.streams = n;
    args.comb = comb->device();
    args.product_out = first->device();
    args.worst = static_cast<double *>(worst->device());
    run(what + " of the first", p.table->gain, args, {{first.get(), false}, {worst.get(), true}});
    check(what + " of the first", first->values(), transposed, 0);
    check(what + " worst", worst->values(), expected_worst, 1e-9);
    read.product = product->device();
    read.gain = static_cast<double *>(gain->device());
    product->upload();
    run(what + " read", p.table->gain_read, read, {{gain.get(), false}});
    check(what + " read", gain->values(), expected_gain, 1e-9);
    args.product_in = args.product_out = product->device();
    run(what, p.table->gain, args, {{product.get(), true}, {worst.get(), true}});
    check(what, product->values(), composed, 1e-6);
}

/* ---- Optimizer ---- */

static void test_adamw(const precision &p, int count, bool with_weight)
{
    std::string what = label(p, "adamw", {count, with_weight});
    tensor grad = normal(MHP_DTYPE_F32, (size_t)count), parameter = normal(MHP_DTYPE_F32, (size_t)count);
    tensor moment1 = normal(MHP_DTYPE_F32, (size_t)count, 0.1), moment2 = normal(MHP_DTYPE_F32, (size_t)count, 0.01, 0.1);
    tensor weight = poisoned(p.table->dtype, (size_t)count), scale = normal(MHP_DTYPE_F64, 1, 0, 0.37);
    values expected((size_t)count), first((size_t)count), second((size_t)count);
    mhp_adamw_args args = {};

    args.count = count;
    args.rate = 0.01;
    args.beta1 = 0.9;
    args.beta2 = 0.95;
    args.epsilon = 1e-8;
    args.decay = 0.1;
    args.step = 3;
    args.gradient_scale = static_cast<double *>(scale->device());
    args.grad = grad->device();
    args.parameter = parameter->device();
    args.moment1 = moment1->device();
    args.moment2 = moment2->device();
    args.weight = with_weight ? weight->device() : nullptr;
    for (size_t i = 0; i < (size_t)count; i++) {
        double g = grad->host[i] * 0.37;

        first[i] = args.beta1 * moment1->host[i] + (1 - args.beta1) * g;
        second[i] = args.beta2 * moment2->host[i] + (1 - args.beta2) * g * g;
        expected[i] = parameter->host[i] * (1 - args.rate * args.decay) -
                      args.rate * (first[i] / (1 - std::pow(args.beta1, 3))) / (std::sqrt(second[i] / (1 - std::pow(args.beta2, 3))) + args.epsilon);
    }
    run(what, p.table->adamw, args, {{parameter.get(), true}, {moment1.get(), true}, {moment2.get(), true}, {weight.get(), false}});
    check(what, parameter->values(), expected, 2e-6);
    check(what + " moment1", moment1->values(), first, 2e-6);
    check(what + " moment2", moment2->values(), second, 2e-6);
    if (with_weight) {
        check(what + " weight", weight->values(), expected, p.rounding);
    }
}

static void test_optimizer(const precision &p, int count)
{
    std::string what = label(p, "square_sum", {count});
    tensor x = normal(MHP_DTYPE_F32, (size_t)count), sum = normal(MHP_DTYPE_F64, 1, 0, 2), target = poisoned(p.table->dtype, (size_t)count);
    tensor norm = poisoned(MHP_DTYPE_F64, 1), scale = poisoned(MHP_DTYPE_F64, 1);
    mhp_square_sum_args args = {count, x->device(), static_cast<double *>(sum->device())};
    mhp_cast_args cast = {count, x->device(), target->device()};
    values rounded((size_t)count);
    double expected = 2;

    for (size_t i = 0; i < (size_t)count; i++) {
        expected += x->host[i] * x->host[i];
        rounded[i] = p.table->dtype == MHP_DTYPE_BF16 ? bf16_value(bf16_bits(x->host[i])) : x->host[i];
    }
    run(what, p.table->square_sum, args, {{sum.get(), true}});
    check(what, sum->values(), {expected}, 1e-12);
    for (double limit : {0.0, 1.0, 1e9}) {
        mhp_clip_args clip = {};

        clip.clip = limit;
        clip.square_sum = static_cast<double *>(sum->device());
        clip.norm = static_cast<double *>(norm->device());
        clip.scale = static_cast<double *>(scale->device());
        run("clip", p.table->clip, clip, {{norm.get(), false}, {scale.get(), false}});
        check("clip norm", norm->values(), {std::sqrt(expected)}, 1e-12);
        check("clip scale", scale->values(), {limit == 1 ? std::fmin(1, 1 / (std::sqrt(expected) + 1e-6)) : 1}, 1e-12);
    }
    run(label(p, "cast", {count}), p.table->cast, cast, {{target.get(), false}});
    check(label(p, "cast", {count}), target->values(), rounded, 0);
}

/* The first watched sum above its limit is told by the factor, which then keeps the update from changing anything. */
static void test_watches(const precision &p)
{
    static const double limits[][3] = {{9, 2, 1}, {8.9, 1.9, -1}, {9, 1.9, -2}, {9, NAN, -2}, {-1e300, 2, -1}};
    tensor x = normal(MHP_DTYPE_F64, 5, 0, 3), sum = normal(MHP_DTYPE_F64, 1, 0, 4);
    tensor norm = poisoned(MHP_DTYPE_F64, 1), scale = poisoned(MHP_DTYPE_F64, 1);
    tensor grad = normal(MHP_DTYPE_F32, 7), state = normal(MHP_DTYPE_F32, 7, 0.1, 1);
    mhp_clip_args clip = {};
    mhp_adamw_args update = {};

    clip.square_sum = static_cast<double *>(sum->device());
    clip.norm = static_cast<double *>(norm->device());
    clip.scale = static_cast<double *>(scale->device());
    clip.watch_count = 2;
    for (const double *limit : limits) {
        clip.watches[0] = {static_cast<double *>(x->device()), 3, 2, limit[0]};
        clip.watches[1] = {clip.norm, 1, 1, limit[1]};
        run("watch", p.table->clip, clip, {{norm.get(), false}, {scale.get(), false}});
        check("watch norm", norm->values(), {2}, 0);
        check("watch scale", scale->values(), {limit[2]}, 0);
    }
    update.count = 7;
    update.step = 1;
    update.rate = 1;
    update.gradient_scale = clip.scale;
    update.grad = grad->device();
    update.parameter = update.moment1 = update.moment2 = state->device();
    run("update left out", p.table->adamw, update, {{state.get(), true}});
    check("update left out", state->values(), state->host, 0);
}

static void test_precision(const precision &p)
{
    test_gemm(p);
    for (int tokens : TOKENS) {
        if (small_only && tokens > 1000) {
            continue;
        }
        for (int width : WIDTHS) {
            if ((tokens > 1000 && width != 20 && width != 1280) || (small_only && width > 1280)) {
                continue;
            }
            test_embedding(p, tokens, width);
            test_streams(p, tokens, width, 1 + tokens % 4);
            test_norm(p, tokens, width, width == 1280);
            test_swiglu(p, tokens, width);
        }
        test_cross_entropy(p, tokens, 1000, 3, true);
        test_rotary(p, tokens, 4, 2, 128, tokens == 7);
        for (int n = 1; n <= MHP_STREAMS_MAX; n++) {
            test_gain(p, tokens, n);
        }
    }
    for (int count : {1, 7, 4099}) {
        test_adamw(p, count, count != 7);
        test_optimizer(p, count);
    }
    test_watches(p);
    test_cross_entropy(p, 7, 13, 1, false);
    test_rotary(p, 65, 5, 5, 80, false);
    test_rotary(p, 13, 3, 1, 34, true);
    test_attentions(p);
    if (small_only) {
        return;
    }
    test_norm(p, 1500, 2560, false);
    test_norm(p, 33, 7168, true);
    test_norm(p, 9, 16384, false);
    test_norm(p, 130, 1001, false);
    test_cross_entropy(p, 300, 50257, 1, true);
    test_cross_entropy(p, 130, 32768, 3, true);
    for (int count : {1 << 20, (1 << 20) + 3}) {
        test_adamw(p, count, true);
        test_optimizer(p, count);
    }
}

int main(int argc, char **argv)
{
    if (!begin_test(argc, argv, &generator, &small_only)) {
        return 77;
    }
    GPU_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (const precision &p : PRECISIONS) {
        test_precision(p);
    }
    std::printf("%d checks, %d failures\n", checks, failures);
    return failures > 0;
}
