/* The rebuild of a block on a card: from coefficients that mix and merge_mix made on the same card, against their bits, and each step of
 * it against F64 on the CPU, written from docs/model.md. Fresh random inputs, logits of deviation 1 and 3, every count of streams, odd
 * sizes, blocks of 1 to 6 sublayers and longer than a launch takes. Outputs are poisoned before, rows lie apart so that what is
 * written between them shows, and two runs are equal to the bit. Arguments: "clean" for the small cases alone, as for
 * compute-sanitizer; a number for the seed, which is printed (default: the time). Exits with 77 without a card. */
#include <ctime>

#include "tests/gpu/gpu_tensor.hpp"

typedef std::vector<double> values;

static random_numbers generator;
static int failures, checks;
static double largest[2];       /* error, by dtype: f32, bf16 */

enum { GAP = 64, SINKHORN_ITERATIONS = 20 };        /* elements between the arrays of two sublayers */
static const double epsilon = 1e-6;

struct block_case {
    mhp_connection_kind kind;
    mhp_dtype dtype;
    int tokens, hidden, streams, count;
    double logit_std;
    bool last;                  /* the state behind the block as well */
};

static std::string name_of(const block_case &c)
{
    char text[160];

    std::snprintf(text, sizeof text, "%s %s T %d C %d n %d, %d sublayers%s, std %g", c.kind == MHP_CONNECTION_HC ? "hc" : "mhc",
                  c.dtype == MHP_DTYPE_BF16 ? "bf16" : "f32", c.tokens, c.hidden, c.streams, c.count, c.last ? " and what follows" : "",
                  c.logit_std);
    return text;
}

static void fail(const block_case &c, const std::string &what)
{
    failures++;
    std::printf("FAIL %s: %s\n", name_of(c).c_str(), what.c_str());
}

/* `count` arrays of `elements`, GAP apart. */
struct arrays {
    gpu_tensor tensor;
    size_t elements, unit;

    arrays(mhp_dtype dtype, int count, size_t size)
        : tensor(dtype, (size_t)count * (size + GAP)), elements(size), unit(mhp_dtype_bytes(dtype))
    {
        tensor.poison();
    }
    size_t stride() const { return (elements + GAP) * unit; }
    char *at(int i, size_t element = 0) const { return (char *)tensor.device() + (size_t)i * stride() + element * unit; }
    /* Element 0 of array i among all values. */
    size_t first(int i) const { return (size_t)i * (elements + GAP); }
};

/* What the forward pass keeps of a sublayer, each piece 16-byte aligned. */
struct record {
    size_t pre, post, comb, norm_rrms, projection, rrms, elements;

    explicit record(const block_case &c)
    {
        size_t t = ((size_t)c.tokens + 3) / 4 * 4, n = (size_t)c.streams;

        pre = 0;
        post = pre + t * n;
        comb = post + t * n;
        norm_rrms = comb + t * n * n;
        projection = norm_rrms + t;
        rrms = projection + t * n * (n + 2);
        elements = rrms + t * n;
    }
};

/* Everything that is made, of every sublayer; state i is the one behind sublayer i. */
struct outputs {
    arrays state, normed;

    explicit outputs(const block_case &c)
        : state(c.dtype, c.count, (size_t)c.tokens * c.streams * c.hidden),
          normed(c.dtype, c.count, (size_t)c.tokens * c.hidden)
    {
    }
    std::vector<arrays *> all() { return {&state, &normed}; }
};

struct inputs {
    arrays x, y, weight, fn, base, scale, kept;

    explicit inputs(const block_case &c)
        : x(c.dtype, 1, (size_t)c.tokens * c.streams * c.hidden), y(c.dtype, c.count, (size_t)c.tokens * c.hidden),
          weight(MHP_DTYPE_F32, c.count, (size_t)c.hidden), fn(MHP_DTYPE_F32, c.count, fn_size(c)),
          base(MHP_DTYPE_F32, c.count, (size_t)c.streams * (c.streams + 2)), scale(MHP_DTYPE_F32, c.count, 3),
          kept(MHP_DTYPE_F32, c.count, record(c).elements)
    {
        x.tensor.fill_normal(generator, 1);
        y.tensor.fill_normal(generator, 1);
        weight.tensor.fill_normal(generator, 0.2, 1);
        fn.tensor.fill_normal(generator, 1 / std::sqrt((double)c.hidden * (c.kind == MHP_CONNECTION_HC ? 1 : c.streams)));
        base.tensor.fill_normal(generator, 0.3);
        scale.tensor.fill_normal(generator, 0.1 * c.logit_std, c.logit_std);
    }
    static size_t fn_size(const block_case &c)
    {
        size_t n = (size_t)c.streams;

        return c.kind == MHP_CONNECTION_HC ? (n + 2) * c.hidden : n * (n + 2) * n * c.hidden;
    }
};

/* ---- the forward pass, and the rebuild ---- */

static mhp_mix_args mix_args(const block_case &c, const inputs &in, const outputs &out, int i)
{
    record r(c);
    mhp_mix_args args = {};

    args.connection = {c.kind, c.tokens, c.hidden, c.streams, SINKHORN_ITERATIONS, epsilon, epsilon,
                       i == 0 ? in.x.at(0) : out.state.at(i - 1), in.fn.at(i), in.base.at(i), in.scale.at(i), in.kept.at(i, r.pre),
                       in.kept.at(i, r.post), in.kept.at(i, r.comb), in.kept.at(i, r.projection), in.kept.at(i, r.rrms), NULL, 0};
    args.weight = in.weight.at(i);
    args.normed = out.normed.at(i);
    args.norm_rrms = in.kept.at(i, r.norm_rrms);
    return args;
}

/* Of sublayer i. */
static mhp_merge_args merge_args(const block_case &c, const inputs &in, const outputs &out, int i)
{
    record r(c);

    return {c.kind, c.tokens, c.hidden, c.streams, i == 0 ? in.x.at(0) : out.state.at(i - 1), in.y.at(i), in.kept.at(i, r.post),
            in.kept.at(i, r.comb), out.state.at(i)};
}

static bool submit(const block_case &c, mhp_task_fn kernel, const void *args)
{
    if (kernel(NULL, args) < 0) {
        fail(c, mhp_error_text());
        return false;
    }
    return true;
}

static bool go_forward(const block_case &c, const mhp_kernels *kernels, const inputs &in, const outputs &out)
{
    mhp_mix_args first = mix_args(c, in, out, 0);
    mhp_merge_args last = merge_args(c, in, out, c.count - 1);

    if (!submit(c, kernels->mix, &first)) {
        return false;
    }
    for (int i = 1; i < c.count; i++) {
        mhp_merge_mix_args both = {merge_args(c, in, out, i - 1), mix_args(c, in, out, i)};

        if (!submit(c, kernels->merge_mix, &both)) {
            return false;
        }
    }
    return !c.last || submit(c, kernels->merge, &last);
}

static bool rebuild(const block_case &c, const mhp_kernels *kernels, const inputs &in, outputs &out)
{
    record r(c);
    std::vector<const void *> weights;
    mhp_rebuild_args args = {};

    for (int i = 0; i < c.count; i++) {
        weights.push_back(in.weight.at(i));
    }
    args.tokens = c.tokens;
    args.hidden = c.hidden;
    args.streams = c.streams;
    args.count = c.count;
    args.weight = weights.data();
    args.x = in.x.at(0);
    args.y = in.y.at(0);
    args.pre = in.kept.at(0, r.pre);
    args.post = in.kept.at(0, r.post);
    args.comb = in.kept.at(0, r.comb);
    args.norm_rrms = in.kept.at(0, r.norm_rrms);
    args.state = out.state.at(0);
    args.last = c.last ? out.state.at(c.count - 1) : NULL;
    args.normed = out.normed.at(0);
    args.y_stride = in.y.stride();
    args.kept_stride = in.kept.stride();
    args.state_stride = out.state.stride();
    args.normed_stride = out.normed.stride();
    for (arrays *each : out.all()) {
        each->tensor.poison();
    }
    if (!submit(c, kernels->rebuild, &args)) {
        return false;
    }
    GPU_CHECK(cudaDeviceSynchronize());
    return true;
}

static void compare_bits(const block_case &c, const char *with, outputs &out, outputs &other)
{
    static const char *const names[] = {"states", "normed"};

    for (int i = 0; i < 2; i++) {
        checks++;
        if (out.all()[i]->tensor.raw() != other.all()[i]->tensor.raw()) {
            fail(c, std::string(names[i]) + " of a block differ from those of " + with);
        }
    }
}

/* ---- F64 ---- */

/* Norm of the difference over norm of the reference; NaN fails. */
static void check(const block_case &c, const std::string &what, const values &got, size_t first, const values &want)
{
    bool half = c.dtype == MHP_DTYPE_BF16;
    /* One rounding of numbers that may all be just above a power of two; a few of F32, of sums of either sign that partly cancel. */
    double bound = half ? 0x1p-8 : 2e-6;
    double difference = 0, norm = 0, error;

    for (size_t i = 0; i < want.size(); i++) {
        difference += (got[first + i] - want[i]) * (got[first + i] - want[i]);
        norm += want[i] * want[i];
    }
    error = std::sqrt(difference / norm);
    checks++;
    if (!(error <= bound)) {
        char text[64];

        std::snprintf(text, sizeof text, " is off by %.2e, more than %.1e", error, bound);
        fail(c, what + text);
    }
    largest[half] = largest[half] > error ? largest[half] : error;
}

/* A sublayer's coefficients of one token. */
struct token_factors {
    const double *pre, *post, *comb;
    double norm_rrms;
};

static void make_token(const block_case &c, const double *x, const double *y, const double *weight, const token_factors &f,
                       double *normed, double *next)
{
    int n = c.streams, width = c.hidden;

    for (int i = 0; i < width; i++) {
        double z = 0;

        for (int j = 0; j < n; j++) {
            z += f.pre[j] * x[j * width + i];
        }
        normed[i] = z * f.norm_rrms * weight[i];
        for (int k = 0; k < n; k++) {
            next[k * width + i] = f.post[k] * y[i];
            for (int j = 0; j < n; j++) {
                next[k * width + i] += f.comb[j * n + k] * x[j * width + i];
            }
        }
    }
}

/* Each sublayer from the state that the card made before it. */
static void compare_values(const block_case &c, const inputs &in, const outputs &out)
{
    size_t n = (size_t)c.streams, width = (size_t)c.hidden;
    record r(c);
    values kept = in.kept.tensor.values(), states = out.state.tensor.values();
    values normed = out.normed.tensor.values();

    for (int i = 0; i < c.count; i++) {
        std::string sublayer = " of sublayer " + std::to_string(i);
        const double *x = i == 0 ? &in.x.tensor.host[0] : &states[out.state.first(i - 1)];
        const double *of = &kept[in.kept.first(i)];
        values want_normed(c.tokens * width), want_next(c.tokens * n * width);

        for (size_t t = 0; t < (size_t)c.tokens; t++) {
            token_factors f = {of + r.pre + t * n, of + r.post + t * n, of + r.comb + t * n * n, of[r.norm_rrms + t]};

            make_token(c, x + t * n * width, &in.y.tensor.host[in.y.first(i) + t * width], &in.weight.tensor.host[in.weight.first(i)], f,
                       &want_normed[t * width], &want_next[t * n * width]);
        }
        check(c, "normed" + sublayer, normed, out.normed.first(i), want_normed);
        if (i + 1 < c.count || c.last) {
            check(c, "the state behind" + sublayer, states, out.state.first(i), want_next);
        }
    }
}

/* ---- cases ---- */

static void test(const block_case &c)
{
    const mhp_kernels *kernels = mhp_cuda_kernels(c.dtype);
    inputs in(c);
    outputs forward(c), block(c), again(c);

    if (!go_forward(c, kernels, in, forward) || !rebuild(c, kernels, in, block) || !rebuild(c, kernels, in, again)) {
        return;
    }
    compare_bits(c, "the forward pass", block, forward);
    compare_bits(c, "a second run", block, again);
    compare_values(c, in, block);
}

static void test_limits(void)
{
    mhp_rebuild_args args = {};

    for (int hidden : {0, 12, 16392}) {
        args = {};
        args.tokens = args.count = 1;
        args.streams = 4;
        args.hidden = hidden;
        checks++;
        if (mhp_cuda_kernels(MHP_DTYPE_BF16)->rebuild(NULL, &args) != MHP_ERR_UNSUPPORTED) {
            failures++;
            std::printf("FAIL rebuild takes hidden size %d\n", hidden);
        }
    }
}

static std::vector<block_case> cases_of(mhp_dtype dtype, mhp_connection_kind kind, bool small_only)
{
    std::vector<block_case> cases;

    for (int n = 1; n <= MHP_STREAMS_MAX; n++) {
        cases.push_back({kind, dtype, n % 2 ? 7 : 1, n % 3 ? 8 : 72, n, 1 + n % 6, n % 2 ? 1.0 : 3.0, n % 3 == 0});
    }
    for (int count = 1; count <= 6; count++) {
        cases.push_back({kind, dtype, 5, 40, 4, count, 1, count % 2 == 0});
    }
    cases.push_back({kind, dtype, 3, 24, 4, 16, 1, false});
    cases.push_back({kind, dtype, 3, 24, 4, 35, 0.3, true});
    if (small_only) {
        return cases;
    }
    cases.push_back({kind, dtype, 4099, 8, 4, 6, 3, false});
    cases.push_back({kind, dtype, 4099, 1280, 4, 4, 1, false});
    cases.push_back({kind, dtype, 130, 1920, 4, 6, 3, true});
    cases.push_back({kind, dtype, 130, 2560, 2, 3, 1, true});
    cases.push_back({kind, dtype, 1027, 2560, 4, 4, 3, true});
    cases.push_back({kind, dtype, 7, 7168, 4, 5, 1, false});
    cases.push_back({kind, dtype, 131, 7168, 4, 2, 3, true});
    cases.push_back({kind, dtype, 1, 7168, 8, 3, 1, true});
    cases.push_back({kind, dtype, 3, 16384, 4, 2, 1, false});
    if (dtype == MHP_DTYPE_BF16 && kind == MHP_CONNECTION_MHC) {
        cases.push_back({kind, dtype, 4099, 2560, 4, 3, 1, false});
    }
    return cases;
}

int main(int argc, char **argv)
{
    bool small_only = false;
    int count = 0;

    if (!begin_test(argc, argv, &generator, &small_only)) {
        return 77;
    }
    test_limits();
    for (mhp_dtype dtype : {MHP_DTYPE_F32, MHP_DTYPE_BF16}) {
        for (mhp_connection_kind kind : {MHP_CONNECTION_HC, MHP_CONNECTION_MHC}) {
            for (const block_case &c : cases_of(dtype, kind, small_only)) {
                test(c);
                count++;
            }
        }
    }
    std::printf("%d cases, %d checks, %d failures; largest errors f32 %.2e, bf16 %.2e\n", count, checks, failures, largest[0], largest[1]);
    return failures > 0;
}
