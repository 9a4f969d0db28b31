/* What the tests of the connection kernels share: arrays on the card, comparisons, and the formulas of docs/model.md in float64 on the
 * CPU, written from that page alone.
 *
 * An error is norm of the difference over norm of the reference; bounds stand in `bound_of`. */
#ifndef MHP_TESTS_GPU_CONNECTION_REFERENCE_HPP
#define MHP_TESTS_GPU_CONNECTION_REFERENCE_HPP

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "model/cuda/cuda.h"

typedef std::vector<double> array;

inline int failures;
inline uint64_t seed;
inline std::map<std::string, double> worst;     /* by dtype and tensor */

#define CUDA(call)                                                                                          \
    do {                                                                                                    \
        cudaError_t error_ = (call);                                                                        \
        if (error_ != cudaSuccess) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_));      \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

struct config {
    mhp_connection_kind kind;
    bool half;                  /* real is BF16 */
    int tokens, hidden, streams, iterations;
    double logit_std;
    int shared = 0;             /* bytes of shared memory that a block may have at most; 0: what the card gives */
};

inline std::string name_of(const config &c)
{
    static const char *kinds[] = {"residual", "hc", "mhc"};
    char text[128];

    snprintf(text, sizeof text, "%s %s T %d C %d n %d std %g%s", kinds[c.kind], c.half ? "bf16" : "f32", c.tokens, c.hidden, c.streams,
             c.logit_std, c.shared > 0 ? ", little shared memory" : "");
    return text;
}

/* ---- device arrays ---- */

struct device_array {
    void *data = NULL;
    size_t count = 0;
    bool half = false;

    device_array(size_t n, bool bf16) : count(n), half(bf16)
    {
        CUDA(cudaMalloc(&data, bytes() + 16));
        CUDA(cudaMemset(data, 0xff, bytes()));      /* NaN in both types */
    }
    device_array(const array &values, bool bf16) : device_array(values.size(), bf16) { set(values); }
    device_array(const device_array &) = delete;
    ~device_array() { cudaFree(data); }
    size_t bytes() const { return count * (half ? 2 : 4); }
    void set(const array &values)
    {
        std::vector<char> raw(bytes());

        for (size_t i = 0; i < count; i++) {
            if (half) {
                ((__nv_bfloat16 *)raw.data())[i] = __float2bfloat16_rn((float)values[i]);
            } else {
                ((float *)raw.data())[i] = (float)values[i];
            }
        }
        CUDA(cudaMemcpy(data, raw.data(), bytes(), cudaMemcpyHostToDevice));
    }
    std::vector<char> raw() const
    {
        std::vector<char> result(bytes());

        CUDA(cudaMemcpy(result.data(), data, bytes(), cudaMemcpyDeviceToHost));
        return result;
    }
    array get() const
    {
        std::vector<char> from = raw();
        array values(count);

        for (size_t i = 0; i < count; i++) {
            values[i] = half ? (double)__bfloat162float(((__nv_bfloat16 *)from.data())[i]) : (double)((float *)from.data())[i];
        }
        return values;
    }
};

inline array random_array(size_t count, double deviation, bool half)
{
    array values(count);
    int threads = 8;
    std::vector<std::thread> pool;
    static uint64_t stream;
    uint64_t base = seed + 1000003 * ++stream;

    for (int w = 0; w < threads; w++) {
        pool.emplace_back([&, w] {
            std::mt19937_64 generator(base * 16 + (uint64_t)w);
            std::normal_distribution<float> normal(0, (float)deviation);

            for (size_t i = count * (size_t)w / threads; i < count * (size_t)(w + 1) / threads; i++) {
                float x = normal(generator);

                values[i] = half ? (double)__bfloat162float(__float2bfloat16_rn(x)) : (double)x;
            }
        });
    }
    for (std::thread &t : pool) {
        t.join();
    }
    return values;
}

inline void for_tokens(int tokens, const std::function<void(int, int, int)> &work)
{
    int workers = std::max(1, std::min(16, tokens / 4));
    std::vector<std::thread> pool;

    for (int w = 0; w < workers; w++) {
        pool.emplace_back(work, (int)((int64_t)tokens * w / workers), (int)((int64_t)tokens * (w + 1) / workers), w);
    }
    for (std::thread &t : pool) {
        t.join();
    }
}

/* ---- comparisons ---- */

/* Of values of the table's type (up to two roundings), coefficients, projections, gradients, and sums that may cancel. */
enum { KIND_REAL, KIND_COEFFICIENT, KIND_PROJECTION, KIND_GRADIENT, KIND_SUM };

inline double bound_of(bool half, int what)
{
    static const double f32[] = {2e-6, 2e-5, 5e-6, 5e-5, 1e-3};
    static const double bf16[] = {4e-3, 1e-4, 1e-4, 2e-3, 1e-2};

    return half ? bf16[what] : f32[what];
}

inline void check(const config &c, const char *tensor, const array &got, const array &want, int what)
{
    double difference = 0, norm = 0, error;
    std::string key = std::string(c.half ? "bf16 " : "f32 ") + (c.kind == MHP_CONNECTION_HC ? "hc " : c.kind == MHP_CONNECTION_MHC ? "mhc " : "residual ") + tensor;

    for (size_t i = 0; i < want.size(); i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    error = std::sqrt(difference / (norm > 0 ? norm : 1));
    if (!(error <= bound_of(c.half, what))) {
        printf("FAIL %s: %s is off by %.2e, more than %.2e\n", name_of(c).c_str(), tensor, error, bound_of(c.half, what));
        failures++;
    }
    if (!(worst[key] >= error)) {
        worst[key] = error;
    }
}

typedef mhp_status (*kernel)(void *, const void *);

inline void run(const config &c, const char *name, kernel f32, kernel bf16, const void *args)
{
    if ((c.half ? bf16 : f32)(NULL, args) != MHP_OK) {
        printf("FAIL %s: %s: %s\n", name_of(c).c_str(), name, mhp_error_text());
        failures++;
        exit(1);
    }
    CUDA(cudaDeviceSynchronize());
}

#define RUN(c, name, args) run(c, #name, mhp_cuda_##name##_f32, mhp_cuda_##name##_bf16, &(args))

/* Runs again with the outputs poisoned (or, for sums, as they were) and compares bits. */
inline void check_again(const config &c, const char *name, const std::function<void()> &reset, const std::function<void()> &again,
                        const std::vector<device_array *> &outputs)
{
    std::vector<std::vector<char>> before;

    for (device_array *output : outputs) {
        before.push_back(output->raw());
    }
    reset();
    again();
    for (size_t i = 0; i < outputs.size(); i++) {
        std::vector<char> after = outputs[i]->raw();
        size_t unit = outputs[i]->half ? 2 : 4, other = 0, first = 0;

        for (size_t at = after.size(); at > 0; at -= unit) {
            if (memcmp(&after[at - unit], &before[i][at - unit], unit) != 0) {
                first = at / unit - 1;
                other++;
            }
        }
        if (other > 0) {
            printf("FAIL %s: output %zu of %s differs from the run before: %zu elements of %zu, first %zu\n", name_of(c).c_str(), i, name,
                   other, outputs[i]->count, first);
            failures++;
        }
    }
}

inline void poison(const std::vector<device_array *> &outputs)
{
    for (device_array *output : outputs) {
        CUDA(cudaMemset(output->data, 0xff, output->bytes()));
    }
}

/* ---- the reference ---- */

constexpr double norm_epsilon = 1e-6, hc_epsilon = 1e-6;

inline double logistic(double x)
{
    return 1 / (1 + std::exp(-x));
}

struct coefficients {           /* of one token */
    array u, h, pre, post, comb, r, tanh;
    std::vector<array> matrices;        /* every state of the Sinkhorn iterations, the softmax first */
};

inline void divide(array &m, int n, bool over_j)
{
    for (int line = 0; line < n; line++) {
        double sum = hc_epsilon;

        for (int i = 0; i < n; i++) {
            sum += over_j ? m[i * n + line] : m[line * n + i];
        }
        for (int i = 0; i < n; i++) {
            (over_j ? m[i * n + line] : m[line * n + i]) /= sum;
        }
    }
}

inline array dots(const double *x, const array &fn, int rows, size_t width)
{
    array u(rows);

    for (int p = 0; p < rows; p++) {
        const double *w = fn.data() + (size_t)p * width;
        double lanes[8] = {0};

        for (size_t i = 0; i < width; i += 8) {
            for (int l = 0; l < 8; l++) {
                lanes[l] += x[i + l] * w[i + l];
            }
        }
        for (double lane : lanes) {
            u[p] += lane;
        }
    }
    return u;
}

inline double rms(const double *x, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        sum += x[i] * x[i];
    }
    return std::sqrt(sum / (double)count + norm_epsilon);
}

inline coefficients mhc_of(const config &c, const double *x, const array &fn, const array &base, const array &scale)
{
    int n = c.streams, P = n * (n + 2);
    coefficients k;
    array m(n * n);

    k.r = {rms(x, (size_t)n * c.hidden)};
    k.u = dots(x, fn, P, (size_t)n * c.hidden);
    k.h.resize(P);
    for (int p = 0; p < P; p++) {
        k.h[p] = scale[p < n ? 0 : p < 2 * n ? 1 : 2] * k.u[p] / k.r[0] + base[p];
    }
    for (int j = 0; j < n; j++) {
        double sum = 0;

        k.pre.push_back(logistic(k.h[j]) + hc_epsilon);
        k.post.push_back(2 * logistic(k.h[n + j]));
        for (int i = 0; i < n; i++) {
            sum += std::exp(k.h[2 * n + j * n + i]);
        }
        for (int i = 0; i < n; i++) {
            m[j * n + i] = std::exp(k.h[2 * n + j * n + i]) / sum;
        }
    }
    k.matrices.push_back(m);
    for (double &value : m) {
        value += hc_epsilon;
    }
    k.matrices.push_back(m);
    for (int step = 0; step < 2 * c.iterations - 1; step++) {
        divide(m, n, step % 2 == 0);
        k.matrices.push_back(m);
    }
    k.comb = m;
    return k;
}

inline coefficients hc_of(const config &c, const double *x, const array &fn, const array &base, const array &scale)
{
    int n = c.streams;
    coefficients k;

    k.comb.resize(n * n);
    for (int j = 0; j < n; j++) {
        array u = dots(x + (size_t)j * c.hidden, fn, n + 2, (size_t)c.hidden);
        double r = rms(x + (size_t)j * c.hidden, (size_t)c.hidden);

        k.r.push_back(r);
        for (int p = 0; p < n + 2; p++) {
            k.tanh.push_back(std::tanh(u[p] / r));
        }
        k.pre.push_back(scale[0] * k.tanh[j * (n + 2)] + base[j]);
        k.post.push_back(scale[1] * k.tanh[j * (n + 2) + 1] + base[n + j]);
        for (int i = 0; i < n; i++) {
            k.comb[j * n + i] = scale[2] * k.tanh[j * (n + 2) + 2 + i] + base[2 * n + j * n + i];
        }
    }
    return k;
}

/* d of the mixing matrix to d of its logits, through every kept state. */
inline array sinkhorn_gradient(const coefficients &k, array d, int n)
{
    for (size_t step = k.matrices.size() - 1; step >= 2; step--) {
        const array &in = k.matrices[step - 1];
        bool over_j = step % 2 == 0;
        array result(n * n);

        for (int line = 0; line < n; line++) {
            double sum = hc_epsilon, dot = 0;

            for (int i = 0; i < n; i++) {
                int at = over_j ? i * n + line : line * n + i;

                sum += in[at];
                dot += d[at] * in[at];
            }
            for (int i = 0; i < n; i++) {
                int at = over_j ? i * n + line : line * n + i;

                result[at] = d[at] / sum - dot / (sum * sum);
            }
        }
        d = result;
    }
    for (int j = 0; j < n; j++) {
        const double *p = k.matrices[0].data() + j * n;
        double dot = 0;

        for (int i = 0; i < n; i++) {
            dot += d[j * n + i] * p[i];
        }
        for (int i = 0; i < n; i++) {
            d[j * n + i] = p[i] * (d[j * n + i] - dot);
        }
    }
    return d;
}

struct parameters {
    array fn, base, scale, weight;
};

inline coefficients coefficients_of(const config &c, const double *x, const parameters &p)
{
    return c.kind == MHP_CONNECTION_HC ? hc_of(c, x, p.fn, p.base, p.scale) : mhc_of(c, x, p.fn, p.base, p.scale);
}

inline array mixed(const double *x, const array &pre, int n, int hidden)
{
    array z(hidden);

    for (int j = 0; j < n; j++) {
        for (int i = 0; i < hidden; i++) {
            z[i] += pre[j] * x[(size_t)j * hidden + i];
        }
    }
    return z;
}

struct sums {
    array dfn, dbase, dscale, dweight;

    sums(const parameters &p) : dfn(p.fn.size()), dbase(p.base.size()), dscale(p.scale.size()), dweight(p.weight.size()) {}
    void add(const sums &other)
    {
        array *mine[] = {&dfn, &dbase, &dscale, &dweight};
        const array *theirs[] = {&other.dfn, &other.dbase, &other.dscale, &other.dweight};

        for (int i = 0; i < 4; i++) {
            for (size_t k = 0; k < mine[i]->size(); k++) {
                (*mine[i])[k] += (*theirs[i])[k];
            }
        }
    }
};

/* Adds du (x) v / r to dfn and fn^T du / r - x <du,u> / (r^3 width) to dx of one row of the projection. */
inline void row_gradient(const array &du, const array &u, const double *x, double r, size_t width, const array &fn, double *dx, array &dfn)
{
    double along = 0;

    for (size_t p = 0; p < du.size(); p++) {
        double factor = du[p] / r;

        along += du[p] * u[p];
        for (size_t i = 0; i < width; i++) {
            dfn[p * width + i] += factor * x[i];
            dx[i] += factor * fn[p * width + i];
        }
    }
    for (size_t i = 0; i < width; i++) {
        dx[i] -= x[i] * along / (r * r * r * (double)width);
    }
}

struct upstream {               /* of one token */
    const double *g, *dpost, *dcomb, *dnormed;
};

inline void token_gradient(const config &c, const double *x, const upstream &up, const parameters &par, double *dx, sums &s)
{
    int n = c.streams, C = c.hidden, P = n * (n + 2);
    coefficients k = coefficients_of(c, x, par);
    array z = mixed(x, k.pre, n, C);
    double r = rms(z.data(), (size_t)C), along = 0;
    array dz(C), dpre(n);

    for (int i = 0; i < C; i++) {
        s.dweight[i] += up.dnormed[i] * z[i] / r;
        along += up.dnormed[i] * par.weight[i] * z[i];
    }
    for (int i = 0; i < C; i++) {
        dz[i] = up.dnormed[i] * par.weight[i] / r - z[i] * along / (r * r * r * C);
    }
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < C; i++) {
            double sum = k.pre[j] * dz[i];

            for (int q = 0; q < n; q++) {
                sum += k.comb[j * n + q] * up.g[(size_t)q * C + i];
            }
            dx[(size_t)j * C + i] = sum;
            dpre[j] += dz[i] * x[(size_t)j * C + i];
        }
    }
    if (c.kind == MHP_CONNECTION_HC) {
        for (int j = 0; j < n; j++) {
            array du(n + 2), u(n + 2);

            for (int p = 0; p < n + 2; p++) {
                double d = p == 0 ? dpre[j] : p == 1 ? up.dpost[j] : up.dcomb[j * n + p - 2];
                double t = k.tanh[j * (n + 2) + p];
                int group = p < 2 ? p : 2;

                s.dbase[p < 2 ? p * n + j : 2 * n + j * n + p - 2] += d;
                s.dscale[group] += d * t;
                du[p] = par.scale[group] * d * (1 - t * t);
                u[p] = std::atanh(t) * k.r[j];
            }
            row_gradient(du, u, x + (size_t)j * C, k.r[j], (size_t)C, par.fn, dx + (size_t)j * C, s.dfn);
        }
        return;
    }
    array dcomb = sinkhorn_gradient(k, array(up.dcomb, up.dcomb + n * n), n), du(P);
    for (int p = 0; p < P; p++) {
        int group = p < n ? 0 : p < 2 * n ? 1 : 2;
        double q = logistic(k.h[p]);
        double dh = p < n ? dpre[p] * q * (1 - q) : p < 2 * n ? up.dpost[p - n] * 2 * q * (1 - q) : dcomb[p - 2 * n];

        s.dbase[p] += dh;
        s.dscale[group] += dh * k.u[p] / k.r[0];
        du[p] = par.scale[group] * dh;
    }
    row_gradient(du, k.u, x, k.r[0], (size_t)n * C, par.fn, dx, s.dfn);
}

/* dx of all tokens, and what is added to the gradients of parameters. */
inline sums gradients_of(const config &c, const array &x, const array &g, const array &dpost, const array &dcomb, const array &dnormed,
                         const parameters &par, array *dx)
{
    int n = c.streams, C = c.hidden, workers = std::max(1, std::min(16, c.tokens / 4));
    sums want(par);
    std::vector<sums> parts((size_t)workers, want);

    dx->assign((size_t)c.tokens * n * C, 0);
    for_tokens(c.tokens, [&](int begin, int end, int worker) {
        for (int t = begin; t < end; t++) {
            upstream up = {&g[(size_t)t * n * C], &dpost[(size_t)t * n], &dcomb[(size_t)t * n * n], &dnormed[(size_t)t * C]};

            token_gradient(c, &x[(size_t)t * n * C], up, par, &(*dx)[(size_t)t * n * C], parts[(size_t)worker]);
        }
    });
    for (const sums &part : parts) {
        want.add(part);
    }
    return want;
}

/* What the gradient of a merge is made of: dy, dpost, dcomb. */
struct merge_gradients {
    array dy, dpost, dcomb;
};

inline merge_gradients merge_gradients_of(const config &c, const array &g, const array &x, const array &y, const array &post)
{
    int n = c.streams, C = c.hidden, T = c.tokens;
    merge_gradients want = {array((size_t)T * C), array((size_t)T * n), array((size_t)T * n * n)};

    for_tokens(T, [&](int begin, int end, int) {
        for (int t = begin; t < end; t++) {
            for (int k = 0; k < n; k++) {
                const double *grad = &g[((size_t)t * n + k) * C];

                for (int i = 0; i < C; i++) {
                    want.dy[(size_t)t * C + i] += post[(size_t)t * n + k] * grad[i];
                    want.dpost[(size_t)t * n + k] += grad[i] * y[(size_t)t * C + i];
                }
                for (int j = 0; j < n; j++) {
                    for (int i = 0; i < C; i++) {
                        want.dcomb[((size_t)t * n + j) * n + k] += x[((size_t)t * n + j) * C + i] * grad[i];
                    }
                }
            }
        }
    });
    return want;
}

inline parameters random_parameters(const config &c)
{
    int n = c.streams;
    bool hc = c.kind == MHP_CONNECTION_HC;
    size_t width = (size_t)(hc ? 1 : n) * c.hidden;
    size_t rows = hc ? n + 2 : n * (n + 2);
    parameters p;

    p.fn = random_array(rows * width, 1 / std::sqrt((double)width), false);
    p.base = random_array(n * (n + 2), 0.3, false);
    p.scale = random_array(3, 0.1, false);
    for (double &value : p.scale) {
        value = (double)(float)(c.logit_std * (1 + value));
    }
    p.weight = random_array(c.hidden, 0.2, false);
    for (double &value : p.weight) {
        value = (double)(float)(1 + value);
    }
    return p;
}

#endif
