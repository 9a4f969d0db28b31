/* Time of the CUDA kernels but the connections at the reference model's shapes (T 4096, C 2560, 20 heads of 128, FFN 6912, vocabulary
 * 32768, bf16): products and attention in TFLOP/s, the rest as a share of a large copy's rate in the same run. Every case goes round
 * a set of buffers larger than the L2 cache; the time is the median of several runs of many launches. */
#include <algorithm>
#include <functional>
#include <memory>

#include "tests/gpu/gpu_tensor.hpp"

enum { TOKENS = 4096, HIDDEN = 2560, HEADS = 20, HEAD_SIZE = 128, WIDE = 6912, VOCABULARY = 32768, STREAMS = 4 };
enum { LAUNCHES = 12, RUNS = 7 };

static cudaStream_t stream;
static random_numbers generator = {1};
static double copy_rate;        /* bytes per second, read and written */

/* Device memory with normal numbers of deviation 1 in bf16 or F32. */
struct buffer {
    char *at = nullptr;

    explicit buffer(size_t count, mhp_dtype dtype = MHP_DTYPE_BF16)
    {
        size_t bytes = count * mhp_dtype_bytes(dtype), piece = std::min(count, (size_t)1 << 20);
        gpu_tensor source(dtype, piece);

        source.fill_normal(generator, 1);
        GPU_CHECK(cudaMalloc(reinterpret_cast<void **>(&at), bytes));
        for (size_t done = 0; done < bytes; done += source.bytes()) {
            GPU_CHECK(cudaMemcpy(at + done, source.device(), std::min(source.bytes(), bytes - done), cudaMemcpyDeviceToDevice));
        }
    }
    buffer(const buffer &) = delete;
    buffer(buffer &&other) noexcept : at(other.at) { other.at = nullptr; }
    ~buffer() { (void)cudaFree(at); }
};

/* Milliseconds of one launch. launch(i) enqueues the i-th. */
static double time_ms(const std::function<void(int)> &launch)
{
    std::vector<float> times(RUNS);
    cudaEvent_t begin, end;

    GPU_CHECK(cudaEventCreate(&begin));
    GPU_CHECK(cudaEventCreate(&end));
    for (int i = 0; i < LAUNCHES; i++) {
        launch(i);
    }
    for (float &time : times) {
        GPU_CHECK(cudaEventRecord(begin, stream));
        for (int i = 0; i < LAUNCHES; i++) {
            launch(i);
        }
        GPU_CHECK(cudaEventRecord(end, stream));
        GPU_CHECK(cudaEventSynchronize(end));
        GPU_CHECK(cudaEventElapsedTime(&time, begin, end));
    }
    GPU_CHECK(cudaEventDestroy(begin));
    GPU_CHECK(cudaEventDestroy(end));
    std::sort(times.begin(), times.end());
    return times[RUNS / 2] / LAUNCHES;
}

template <typename arguments> static void submit(mhp_task_fn kernel, const arguments &args)
{
    if (kernel(stream, &args) < 0) {
        std::fprintf(stderr, "%s\n", mhp_error_text());
        std::exit(1);
    }
}

static void print_rate(const char *name, double ms, double flops)
{
    std::printf("%-34s %9.4f ms %8.1f TFLOP/s\n", name, ms, flops / ms * 1e-9);
}

static void print_share(const char *name, double ms, double bytes)
{
    std::printf("%-34s %9.4f ms %8.0f GB/s %6.1f %% of copy\n", name, ms, bytes / ms * 1e-6, 100 * bytes / ms * 1e3 / copy_rate);
}

static void bench_copy()
{
    size_t bytes = (size_t)1 << 30;
    buffer from(bytes / 2), to(bytes / 2);
    double ms = time_ms([&](int) { GPU_CHECK(cudaMemcpyAsync(to.at, from.at, bytes, cudaMemcpyDeviceToDevice, stream)); });

    copy_rate = 2 * (double)bytes / ms * 1e3;
    std::printf("%-34s %9.4f ms %8.0f GB/s\n", "copy of 1 GiB", ms, copy_rate * 1e-9);
}

static void bench_gemm(const char *name, int m, int n, int k, bool transpose_a, bool transpose_b, bool full_c)
{
    buffer a((size_t)m * (size_t)k), b((size_t)k * (size_t)n), c((size_t)m * (size_t)n, full_c ? MHP_DTYPE_F32 : MHP_DTYPE_BF16);
    mhp_gemm_args args = {};
    char text[96];

    args.transpose_a = transpose_a;
    args.transpose_b = transpose_b;
    args.full_c = full_c;
    args.m = m;
    args.n = n;
    args.k = k;
    args.alpha = 1;
    args.beta = full_c;
    args.a = a.at;
    args.lda = transpose_a ? m : k;
    args.b = b.at;
    args.ldb = transpose_b ? k : n;
    args.c = c.at;
    args.ldc = n;
    (void)std::snprintf(text, sizeof text, "%s %dx%dx%d", name, m, n, k);
    print_rate(text, time_ms([&](int) { submit(mhp_cuda_gemm_bf16, args); }), 2.0 * m * n * k);
}

/* The three products of a matrix [out, in]. */
static void bench_linear(const char *name, int out, int in)
{
    char text[64];

    (void)std::snprintf(text, sizeof text, "%s forward", name);
    bench_gemm(text, TOKENS, out, in, false, true, false);
    (void)std::snprintf(text, sizeof text, "%s input gr.", name);
    bench_gemm(text, TOKENS, in, out, false, false, false);
    (void)std::snprintf(text, sizeof text, "%s weight gr.", name);
    bench_gemm(text, out, in, TOKENS, true, false, true);
}

static void bench_attention(const char *name, bool one_document, int document_length)
{
    size_t row = 3 * HEADS * HEAD_SIZE, out_row = HEADS * HEAD_SIZE;
    buffer qkv(TOKENS * row), out(TOKENS * out_row), dout(TOKENS * out_row), dqkv(TOKENS * row), log_sum(TOKENS * HEADS, MHP_DTYPE_F32);
    size_t room = (size_t)mhp_cuda_attention_workspace(1, TOKENS, HEADS, HEADS, HEAD_SIZE, 1);
    buffer workspace(room, MHP_DTYPE_F32);
    gpu_tensor start(MHP_DTYPE_I32, TOKENS);
    double pairs = 0;
    mhp_attention_args args = {};
    mhp_attention_gradient_args gradient = {};
    char text[64];

    for (int t = 0; t < TOKENS; t++) {
        start.host[(size_t)t] = document_length ? t / document_length * document_length : 0;
        pairs += t + 1 - start.host[(size_t)t];
    }
    start.upload();
    args.sequences = gradient.sequences = 1;
    args.length = gradient.length = TOKENS;
    args.heads = args.kv_heads = gradient.heads = gradient.kv_heads = HEADS;
    args.head_size = gradient.head_size = HEAD_SIZE;
    args.one_document = gradient.one_document = one_document;
    args.document_start = gradient.document_start = static_cast<int32_t *>(start.device());
    args.qkv = gradient.qkv = qkv.at;
    args.out = out.at;
    gradient.out = out.at;
    args.log_sum = log_sum.at;
    gradient.log_sum = log_sum.at;
    args.workspace = gradient.workspace = workspace.at;
    gradient.dout = dout.at;
    gradient.dqkv = dqkv.at;
    (void)std::snprintf(text, sizeof text, "attention, %s", name);
    print_rate(text, time_ms([&](int) { submit(mhp_cuda_attention_bf16, args); }), 4 * pairs * HEADS * HEAD_SIZE);
    (void)std::snprintf(text, sizeof text, "attention gradient, %s", name);
    print_rate(text, time_ms([&](int) { submit(mhp_cuda_attention_gradient_bf16, gradient); }), 10 * pairs * HEADS * HEAD_SIZE);
    if (one_document) {
        std::printf("%-34s %9.1f MB\n", "attention workspace", (double)room * 4e-6);
    }
}

/* Goes round `sets` copies of `count` elements each. */
static std::vector<buffer> rotating(size_t sets, size_t count, mhp_dtype dtype = MHP_DTYPE_BF16)
{
    std::vector<buffer> made;

    for (size_t i = 0; i < sets; i++) {
        made.emplace_back(count, dtype);
    }
    return made;
}

static void bench_norm()
{
    size_t count = (size_t)TOKENS * HIDDEN;
    auto x = rotating(8, count), dy = rotating(8, count), dx = rotating(8, count), y = rotating(8, count);
    buffer weight(HIDDEN, MHP_DTYPE_F32), dweight(HIDDEN, MHP_DTYPE_F32), rrms(TOKENS, MHP_DTYPE_F32);
    mhp_rms_norm_args args = {};
    mhp_rms_norm_gradient_args gradient = {};

    args.tokens = gradient.tokens = TOKENS;
    args.hidden = gradient.hidden = HIDDEN;
    args.epsilon = 1e-5;
    args.weight = gradient.weight = weight.at;
    args.rrms = rrms.at;
    gradient.rrms = rrms.at;
    gradient.dweight = dweight.at;
    print_share("rms_norm", time_ms([&](int i) {
        args.x = x[(size_t)i % 8].at;
        args.y = y[(size_t)i % 8].at;
        submit(mhp_cuda_rms_norm_bf16, args);
    }), 4.0 * (double)count);
    print_share("rms_norm gradient", time_ms([&](int i) {
        gradient.x = x[(size_t)i % 8].at;
        gradient.dy = dy[(size_t)i % 8].at;
        gradient.residual = y[(size_t)i % 8].at;
        gradient.dx = dx[(size_t)i % 8].at;
        submit(mhp_cuda_rms_norm_gradient_bf16, gradient);
    }), 8.0 * (double)count);
}

static void bench_swiglu()
{
    size_t count = (size_t)TOKENS * WIDE;
    auto gate_up = rotating(4, 2 * count), act = rotating(4, count), dgate_up = rotating(4, 2 * count);
    mhp_swiglu_args args = {};
    mhp_swiglu_gradient_args gradient = {};

    args.tokens = gradient.tokens = TOKENS;
    args.intermediate = gradient.intermediate = WIDE;
    print_share("swiglu", time_ms([&](int i) {
        args.gate_up = gate_up[(size_t)i % 4].at;
        args.act = act[(size_t)i % 4].at;
        submit(mhp_cuda_swiglu_bf16, args);
    }), 6.0 * (double)count);
    print_share("swiglu gradient", time_ms([&](int i) {
        gradient.gate_up = gate_up[(size_t)i % 4].at;
        gradient.dact = act[(size_t)i % 4].at;
        gradient.dgate_up = dgate_up[(size_t)i % 4].at;
        submit(mhp_cuda_swiglu_gradient_bf16, gradient);
    }), 10.0 * (double)count);
}

static void bench_embedding_and_streams()
{
    size_t count = (size_t)TOKENS * HIDDEN;
    buffer table((size_t)VOCABULARY * HIDDEN), dtable((size_t)VOCABULARY * HIDDEN, MHP_DTYPE_F32);
    auto state = rotating(3, count * STREAMS), grad = rotating(8, count);
    gpu_tensor token(MHP_DTYPE_I32, TOKENS);
    mhp_embedding_args args = {};
    mhp_embedding_gradient_args gradient = {};
    mhp_stream_sum_args sum = {};
    mhp_stream_repeat_args repeat = {};

    for (double &value : token.host) {          /* like text: few tokens make up most of it */
        value = std::floor(VOCABULARY * std::pow(generator.uniform(), 4));
    }
    token.upload();
    args.tokens = gradient.tokens = sum.tokens = repeat.tokens = TOKENS;
    args.hidden = gradient.hidden = sum.hidden = repeat.hidden = HIDDEN;
    args.streams = sum.streams = repeat.streams = STREAMS;
    args.token = gradient.token = static_cast<int32_t *>(token.device());
    args.table = table.at;
    gradient.dtable = dtable.at;
    print_share("embedding", time_ms([&](int i) {
        args.state = state[(size_t)i % 3].at;
        submit(mhp_cuda_embedding_bf16, args);
    }), 2.0 * (1 + STREAMS) * (double)count);
    print_share("embedding gradient", time_ms([&](int i) {
        gradient.grad = grad[(size_t)i % 8].at;
        submit(mhp_cuda_embedding_gradient_bf16, gradient);
    }), 10.0 * (double)count);
    print_share("stream_sum", time_ms([&](int i) {
        sum.state = state[(size_t)i % 3].at;
        sum.sum = grad[(size_t)i % 8].at;
        submit(mhp_cuda_stream_sum_bf16, sum);
    }), 2.0 * (1 + STREAMS) * (double)count);
    print_share("stream_repeat", time_ms([&](int i) {
        repeat.state = state[(size_t)i % 3].at;
        repeat.grad = grad[(size_t)i % 8].at;
        submit(mhp_cuda_stream_repeat_bf16, repeat);
    }), 2.0 * (1 + STREAMS) * (double)count);
}

static void bench_rotary()
{
    size_t count = (size_t)TOKENS * 3 * HEADS * HEAD_SIZE;
    auto qkv = rotating(4, count);
    gpu_tensor position(MHP_DTYPE_I32, TOKENS);
    mhp_rotary_args args = {};

    for (size_t t = 0; t < TOKENS; t++) {
        position.host[t] = (double)t;
    }
    position.upload();
    args.tokens = TOKENS;
    args.heads = args.kv_heads = HEADS;
    args.head_size = HEAD_SIZE;
    args.theta = 10000;
    args.position = static_cast<int32_t *>(position.device());
    print_share("rotary", time_ms([&](int i) {
        args.qkv = qkv[(size_t)i % 4].at;
        submit(mhp_cuda_rotary_bf16, args);
    }), 4.0 * (double)count * 2 / 3);
}

static void bench_loss(int vocabulary)
{
    size_t count = (size_t)TOKENS * (size_t)vocabulary;
    buffer logits(count), loss(8, MHP_DTYPE_F64), comb(TOKENS * STREAMS * STREAMS, MHP_DTYPE_F32),
        product(TOKENS * STREAMS * STREAMS, MHP_DTYPE_F32);
    gpu_tensor target(MHP_DTYPE_I32, TOKENS);
    mhp_cross_entropy_args args = {};
    mhp_gain_args gain = {};
    char text[64];

    for (double &value : target.host) {
        value = generator.below(vocabulary);
    }
    target.upload();
    args.tokens = TOKENS;
    args.vocabulary = vocabulary;
    args.scale = 1.0 / TOKENS;
    args.target = static_cast<int32_t *>(target.device());
    args.logits = logits.at;
    args.dlogits = logits.at;
    args.loss_sum = reinterpret_cast<double *>(loss.at);
    (void)std::snprintf(text, sizeof text, "cross_entropy, vocabulary %d", vocabulary);
    print_share(text, time_ms([&](int) { submit(mhp_cuda_cross_entropy_bf16, args); }), 4.0 * (double)count);
    gain.tokens = TOKENS;
    gain.streams = STREAMS;
    gain.comb = comb.at;
    gain.product_in = product.at;
    gain.product_out = product.at;
    gain.worst = reinterpret_cast<double *>(loss.at);
    std::printf("%-34s %9.4f ms\n", "gain", time_ms([&](int) { submit(mhp_cuda_gain_bf16, gain); }));
}

static void bench_optimizer()
{
    int64_t count = 100000003;
    size_t size = (size_t)count;
    buffer grad(size, MHP_DTYPE_F32), parameter(size, MHP_DTYPE_F32), moment1(size, MHP_DTYPE_F32), moment2(size, MHP_DTYPE_F32);
    buffer weight(size), numbers(8, MHP_DTYPE_F64);
    double *scale = reinterpret_cast<double *>(numbers.at);
    mhp_adamw_args args = {};
    mhp_square_sum_args square = {count, grad.at, scale};
    mhp_cast_args cast = {count, parameter.at, weight.at};

    GPU_CHECK(cudaMemset(moment2.at, 0, size * sizeof(float)));
    args.count = count;
    args.rate = 1e-3;
    args.beta1 = 0.9;
    args.beta2 = 0.95;
    args.epsilon = 1e-8;
    args.step = 1;
    args.gradient_scale = scale;
    args.grad = grad.at;
    args.parameter = parameter.at;
    args.moment1 = moment1.at;
    args.moment2 = moment2.at;
    args.weight = weight.at;
    print_share("adamw", time_ms([&](int) { submit(mhp_cuda_adamw_bf16, args); }), 30.0 * (double)count);
    print_share("square_sum", time_ms([&](int) { submit(mhp_cuda_square_sum_bf16, square); }), 4.0 * (double)count);
    print_share("cast", time_ms([&](int) { submit(mhp_cuda_cast_bf16, cast); }), 6.0 * (double)count);
}

int main()
{
    cudaDeviceProp properties;

    GPU_CHECK(cudaGetDeviceProperties(&properties, 0));
    GPU_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    std::printf("%s; T %d, C %d, %d heads of %d, FFN %d, vocabulary %d, bf16\n", properties.name, TOKENS, HIDDEN, HEADS, HEAD_SIZE, WIDE,
                VOCABULARY);
    bench_copy();
    bench_linear("qkv", 3 * HIDDEN, HIDDEN);
    bench_linear("o", HIDDEN, HIDDEN);
    bench_linear("gate_up", 2 * WIDE, HIDDEN);
    bench_linear("down", HIDDEN, WIDE);
    bench_linear("lm_head", VOCABULARY, HIDDEN);
    bench_attention("one document", true, 0);
    bench_attention("own kernels", false, 0);
    bench_attention("documents of 512", false, 512);
    bench_norm();
    bench_swiglu();
    bench_embedding_and_streams();
    bench_rotary();
    bench_loss(VOCABULARY);
    bench_loss(50257);
    bench_optimizer();
    return 0;
}
