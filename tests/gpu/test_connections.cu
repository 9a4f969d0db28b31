/* The connection kernels of the CUDA backend against float64 on the CPU, written from docs/model.md alone.
 *
 *   test_connections [clean] [--seed S]
 *
 * "clean" keeps to the small cases, as for compute-sanitizer; without a card it exits with 77.
 * Fresh random inputs every run (the seed is printed); outputs are poisoned with NaN before, and every kernel runs twice for the same
 * bits. */
#include <cstring>
#include <ctime>

#include "tests/gpu/connection_reference.hpp"

enum {
    SHARED_OF_A100 = 163 << 10,
    SHARED_OF_FOUR_TOKENS = 224768,     /* of the coefficients' gradient: width 64, 8 streams, 100 iterations */
};

/* ---- cases ---- */

struct kept {                   /* what mix writes */
    device_array pre, post, comb, projection, rrms, normed, norm_rrms;

    kept(const config &c)
        : pre((size_t)c.tokens * c.streams, false), post((size_t)c.tokens * c.streams, false),
          comb((size_t)c.tokens * c.streams * c.streams, false), projection((size_t)c.tokens * c.streams * (c.streams + 2), false),
          rrms((size_t)c.tokens * (c.kind == MHP_CONNECTION_HC ? c.streams : 1), false),
          normed((size_t)c.tokens * c.hidden, c.half), norm_rrms(c.tokens, false)
    {
    }
    std::vector<device_array *> all() { return {&pre, &post, &comb, &projection, &rrms, &normed, &norm_rrms}; }
};

static mhp_mix_args mix_args(const config &c, const device_array &x, const device_array &fn, const device_array &base,
                             const device_array &scale, const device_array &weight, kept &k)
{
    mhp_mix_args args = {};

    args.connection = {c.kind, c.tokens, c.hidden, c.streams, c.iterations, norm_epsilon, hc_epsilon, x.data, fn.data, base.data,
                       scale.data, k.pre.data, k.post.data, k.comb.data, k.projection.data, k.rrms.data, NULL, 0};
    args.weight = weight.data;
    args.normed = k.normed.data;
    args.norm_rrms = k.norm_rrms.data;
    return args;
}

static void check_mix(const config &c, const array &x, const parameters &par, const kept &k, const char *prefix)
{
    int n = c.streams, C = c.hidden, T = c.tokens, P = n * (n + 2);
    bool hc = c.kind == MHP_CONNECTION_HC;
    int R = hc ? n : 1;
    array pre((size_t)T * n), post((size_t)T * n), comb((size_t)T * n * n), projection((size_t)T * P), rrms((size_t)T * R), normed((size_t)T * C), norm_rrms(T);
    auto at = [&](const char *tensor) {
        static std::string text;

        text = std::string(prefix) + tensor;
        return text.c_str();
    };

    for_tokens(T, [&](int begin, int end, int) {
        for (int t = begin; t < end; t++) {
            const double *state = x.data() + (size_t)t * n * C;
            coefficients q = coefficients_of(c, state, par);
            array mix = mixed(state, q.pre, n, C);
            double r = rms(mix.data(), (size_t)C);

            std::copy(q.pre.begin(), q.pre.end(), pre.begin() + (size_t)t * n);
            std::copy(q.post.begin(), q.post.end(), post.begin() + (size_t)t * n);
            std::copy(q.comb.begin(), q.comb.end(), comb.begin() + (size_t)t * n * n);
            std::copy(hc ? q.tanh.begin() : q.u.begin(), hc ? q.tanh.end() : q.u.end(), projection.begin() + (size_t)t * P);
            for (int j = 0; j < R; j++) {
                rrms[(size_t)t * R + j] = 1 / q.r[j];
            }
            norm_rrms[t] = 1 / r;
            for (int i = 0; i < C; i++) {
                normed[(size_t)t * C + i] = mix[i] / r * par.weight[i];
            }
        }
    });
    check(c, at("pre"), k.pre.get(), pre, KIND_COEFFICIENT);
    check(c, at("post"), k.post.get(), post, KIND_COEFFICIENT);
    check(c, at("comb"), k.comb.get(), comb, KIND_COEFFICIENT);
    check(c, at("projection"), k.projection.get(), projection, KIND_PROJECTION);
    check(c, at("rrms"), k.rrms.get(), rrms, KIND_PROJECTION);
    check(c, at("normed"), k.normed.get(), normed, KIND_REAL);
    check(c, at("norm_rrms"), k.norm_rrms.get(), norm_rrms, c.half ? KIND_GRADIENT : KIND_COEFFICIENT);
}

static array merged(const config &c, const array &x, const array &y, const array &post, const array &comb)
{
    int n = c.streams, C = c.hidden;
    array next(x.size());

    for_tokens(c.tokens, [&](int begin, int end, int) {
        for (int t = begin; t < end; t++) {
            for (int k = 0; k < n; k++) {
                for (int i = 0; i < C; i++) {
                    double sum = post[(size_t)t * n + k] * y[(size_t)t * C + i];

                    for (int j = 0; j < n; j++) {
                        sum += comb[((size_t)t * n + j) * n + k] * x[((size_t)t * n + j) * C + i];
                    }
                    next[((size_t)t * n + k) * C + i] = sum;
                }
            }
        }
    });
    return next;
}

/* What the merge gradient is of, in front of a sublayer or behind it. */
struct merge_inputs {
    array x, y, post, comb;
};

static void check_merge_outputs(const config &c, const std::string &prefix, const array &g, const merge_inputs &in, const device_array &dy,
                                const device_array &dpost, const device_array &dcomb)
{
    merge_gradients want = merge_gradients_of(c, g, in.x, in.y, in.post);

    check(c, (prefix + "dy").c_str(), dy.get(), want.dy, KIND_REAL);
    check(c, (prefix + "dpost").c_str(), dpost.get(), want.dpost, KIND_COEFFICIENT);
    check(c, (prefix + "dcomb").c_str(), dcomb.get(), want.dcomb, KIND_COEFFICIENT);
}

/* mix_gradient, and the same joined with the gradient of the merge in front, which has the bits of both apart; dpost and dcomb take the
 * place of those that are read. */
static void check_gradients(const config &c, const array &x, const array &g, const array &dpost, const array &dcomb, const array &dnormed,
                            const parameters &par, kept &k, device_array &dx_array, const device_array &x_array, const device_array &fn,
                            const device_array &base, const device_array &scale, const device_array &weight, const merge_inputs &front)
{
    int n = c.streams, C = c.hidden, T = c.tokens;
    device_array dpost_array(dpost, false), dcomb_array(dcomb, false), dnormed_array(dnormed, c.half), room((size_t)T * C, c.half);
    device_array workspace((size_t)mhp_cuda_connection_workspace(c.kind, T, C, n, 1), false);
    array start[4] = {random_array(par.fn.size(), 1e-2, false), random_array(par.base.size(), 1e-2, false),
                      random_array(3, 1e-2, false), random_array(par.weight.size(), 1e-2, false)};
    device_array dfn(start[0], false), dbase(start[1], false), dscale(start[2], false), dweight(start[3], false);
    device_array front_x(front.x, c.half), front_y(front.y, c.half), post(front.post, false), comb(front.comb, false);
    device_array dy((size_t)T * C, c.half);
    std::vector<device_array *> outputs = {&dx_array, &dfn, &dbase, &dscale, &dweight};
    mhp_mix_merge_gradient_args args = {};
    array dx;
    sums want = gradients_of(c, x, g, dpost, dcomb, dnormed, par, &dx);
    array *totals[] = {&want.dfn, &want.dbase, &want.dscale, &want.dweight};
    auto reset = [&] {
        dx_array.set(g);
        dfn.set(start[0]);
        dbase.set(start[1]);
        dscale.set(start[2]);
        dweight.set(start[3]);
        dpost_array.set(dpost);
        dcomb_array.set(dcomb);
        poison({&workspace, &room, &dy});
    };
    auto apart = [&] { RUN(c, mix_gradient, args.mix); };
    auto both_apart = [&] {
        RUN(c, mix_gradient, args.mix);
        RUN(c, merge_gradient, args.merge);
    };
    auto joined = [&] { RUN(c, mix_merge_gradient, args); };
    auto check_all = [&](const std::string &prefix) {
        check(c, (prefix + "dx").c_str(), dx_array.get(), dx, c.half ? KIND_REAL : KIND_GRADIENT);
        check(c, (prefix + "dfn").c_str(), dfn.get(), want.dfn, KIND_GRADIENT);
        check(c, (prefix + "dbase").c_str(), dbase.get(), want.dbase, KIND_GRADIENT);
        check(c, (prefix + "dscale").c_str(), dscale.get(), want.dscale, KIND_SUM);
        check(c, (prefix + "dweight").c_str(), dweight.get(), want.dweight, KIND_GRADIENT);
    };

    args.mix.connection = {c.kind, T, C, n, c.iterations, norm_epsilon, hc_epsilon, dx_array.data, x_array.data, dpost_array.data,
                           dcomb_array.data, room.data, k.pre.data, k.post.data, k.comb.data, k.projection.data, k.rrms.data, fn.data,
                           base.data, scale.data, dx_array.data, dfn.data, dbase.data, dscale.data, workspace.data};
    args.mix.weight = weight.data;
    args.mix.norm_rrms = k.norm_rrms.data;
    args.mix.dnormed = dnormed_array.data;
    args.mix.dweight = dweight.data;
    args.merge = {c.kind, T, C, n, dx_array.data, front_x.data, front_y.data, post.data, comb.data, dy.data, dpost_array.data,
                  dcomb_array.data};
    for (int i = 0; i < 4; i++) {
        for (size_t at = 0; at < totals[i]->size(); at++) {
            (*totals[i])[at] += start[i][at];
        }
    }
    reset();
    apart();
    check_all("");
    check_again(c, "mix_gradient", reset, apart, outputs);
    reset();
    joined();
    check_all("joined ");
    check_merge_outputs(c, "joined ", dx_array.get(), front, dy, dpost_array, dcomb_array);
    outputs.insert(outputs.end(), {&dy, &dpost_array, &dcomb_array});
    check_again(c, "mix_merge_gradient", reset, joined, outputs);
    check_again(c, "mix_gradient and merge_gradient, after mix_merge_gradient,", reset, both_apart, outputs);
}

static void check_merge_gradient(const config &c, const array &g, const merge_inputs &in, array *dpost_out, array *dcomb_out)
{
    int n = c.streams, C = c.hidden, T = c.tokens;
    device_array ga(g, c.half), xa(in.x, c.half), ya(in.y, c.half), posta(in.post, false), comba(in.comb, false);
    device_array dy((size_t)T * C, c.half), dpost((size_t)T * n, false), dcomb((size_t)T * n * n, false);
    mhp_merge_gradient_args args = {c.kind, T, C, n, ga.data, xa.data, ya.data, posta.data, comba.data, dy.data, dpost.data, dcomb.data};
    auto go = [&] { RUN(c, merge_gradient, args); };

    go();
    check_again(c, "merge_gradient", [&] { poison({&dy, &dpost, &dcomb}); }, go, {&dy, &dpost, &dcomb});
    check_merge_outputs(c, "", g, in, dy, dpost, dcomb);
    *dpost_out = dpost.get();
    *dcomb_out = dcomb.get();
}

static void *at_row(const void *base, size_t row_bytes, int row)
{
    return (char *)const_cast<void *>(base) + row_bytes * (size_t)row;
}

/* Merge and mix in slices of as few tokens as they may have, the last slice first. */
static void run_slices(const config &c, const mhp_merge_args &merge, const mhp_mix_args &mix)
{
    int n = c.streams, grain = mhp_cuda_kernels(c.half ? MHP_DTYPE_BF16 : MHP_DTYPE_F32)->token_grain;
    size_t real = c.half ? 2 : 4, row = real * c.hidden, full = sizeof(float);

    for (int first = (c.tokens - 1) / grain * grain; first >= 0; first -= grain) {
        mhp_merge_args some = merge;
        mhp_mix_args of = mix;
        mhp_connection_args &k = of.connection;

        some.tokens = k.tokens = c.tokens - first < grain ? c.tokens - first : grain;
        k.whole_tokens = c.tokens;
        some.x = at_row(merge.x, row * n, first);
        some.y = at_row(merge.y, row, first);
        some.post = at_row(merge.post, full * n, first);
        some.comb = at_row(merge.comb, full * n * n, first);
        k.x = some.x_next = at_row(merge.x_next, row * n, first);
        k.pre = at_row(k.pre, full * n, first);
        k.post = at_row(k.post, full * n, first);
        k.comb = at_row(k.comb, full * n * n, first);
        k.projection = at_row(k.projection, full * n * (n + 2), first);
        k.rrms = at_row(k.rrms, full * (c.kind == MHP_CONNECTION_HC ? n : 1), first);
        of.normed = at_row(of.normed, row, first);
        of.norm_rrms = at_row(of.norm_rrms, full, first);
        RUN(c, merge, some);
        RUN(c, mix, of);
    }
}

static void test_streams(const config &c)
{
    int n = c.streams, C = c.hidden, T = c.tokens;
    parameters par = random_parameters(c);
    array x0 = random_array((size_t)T * n * C, 1, c.half), y = random_array((size_t)T * C, 1, c.half);
    array post = random_array((size_t)T * n, 0.5, false), comb = random_array((size_t)T * n * n, 0.5, false);
    array g = random_array((size_t)T * n * C, 1, c.half), dnormed = random_array((size_t)T * C, 1, c.half), x, dpost, dcomb;
    device_array fn(par.fn, false), base(par.base, false), scale(par.scale, false), weight(par.weight, false);
    device_array x0_array(x0, c.half), y_array(y, c.half), post_array(post, false), comb_array(comb, false);
    device_array next((size_t)T * n * C, c.half), dx((size_t)T * n * C, c.half);
    kept apart(c), fused(c);
    mhp_merge_args merge = {c.kind, T, C, n, x0_array.data, y_array.data, post_array.data, comb_array.data, next.data};
    mhp_mix_args mix = mix_args(c, next, fn, base, scale, weight, apart);
    mhp_merge_mix_args both = {merge, mix_args(c, next, fn, base, scale, weight, fused)};
    std::vector<device_array *> outputs = fused.all(), sliced = apart.all();

    RUN(c, merge, merge);
    x = next.get();
    check(c, "x_next", x, merged(c, x0, y, post, comb), KIND_REAL);
    RUN(c, mix, mix);
    check_mix(c, x, par, apart, "");
    check_again(c, "mix", [&] { poison(apart.all()); }, [&] { RUN(c, mix, mix); }, apart.all());
    sliced.push_back(&next);
    check_again(c, "merge and mix in slices", [&] { poison(sliced); }, [&] { run_slices(c, merge, mix); }, sliced);
    poison({&next});
    RUN(c, merge_mix, both);
    x = next.get();
    check(c, "x_next of merge_mix", x, merged(c, x0, y, post, comb), KIND_REAL);
    check_mix(c, x, par, fused, "merge_mix ");
    outputs.push_back(&next);
    check_again(c, "merge_mix", [&] { poison(outputs); }, [&] { RUN(c, merge_mix, both); }, outputs);
    check_merge_gradient(c, g, {x, y, post, comb}, &dpost, &dcomb);
    check_gradients(c, x, g, dpost, dcomb, dnormed, par, fused, dx, next, fn, base, scale, weight, {x0, y, post, comb});
}

static void test_readout(const config &c)
{
    int n = c.streams, C = c.hidden, T = c.tokens;
    size_t width = (size_t)n * C;
    array x = random_array((size_t)T * width, 1, c.half), dz = random_array((size_t)T * C, 1, c.half);
    array fn = random_array(n * width, 1 / std::sqrt((double)width), false), base = random_array(n, 0.3, false);
    array scale = {(double)(float)c.logit_std};
    device_array xa(x, c.half), dza(dz, c.half), fna(fn, false), basea(base, false), scalea(scale, false);
    device_array pre((size_t)T * n, false), projection((size_t)T * n, false), rrms(T, false), z((size_t)T * C, c.half);
    device_array dx((size_t)T * width, c.half), dfn(array(fn.size(), 0.0), false), dbase(array(n, 0.0), false), dscale(array(1, 0.0), false);
    device_array workspace((size_t)mhp_cuda_connection_workspace(MHP_CONNECTION_MHC, T, C, n, 1), false);
    mhp_readout_args args = {T, C, n, norm_epsilon, hc_epsilon, xa.data, fna.data, basea.data, scalea.data, pre.data, projection.data,
                             rrms.data, z.data};
    mhp_readout_gradient_args back = {T, C, n, norm_epsilon, hc_epsilon, xa.data, dza.data, pre.data, projection.data, rrms.data,
                                      fna.data, basea.data, scalea.data, dx.data, dfn.data, dbase.data, dscale.data, workspace.data};
    array want_pre((size_t)T * n), want_z((size_t)T * C), want_dx((size_t)T * width), want_dfn(fn.size()), want_dbase(n), want_dscale(1);

    RUN(c, readout, args);
    check_again(c, "readout", [&] { poison({&pre, &projection, &rrms, &z}); }, [&] { RUN(c, readout, args); },
                {&pre, &projection, &rrms, &z});
    RUN(c, readout_gradient, back);
    for (int t = 0; t < T; t++) {
        const double *state = &x[(size_t)t * width];
        array u = dots(state, fn, n, width), du(n), mix(n);
        double r = rms(state, width);

        for (int j = 0; j < n; j++) {
            double q = logistic(scale[0] * u[j] / r + base[j]), dpre = 0;

            mix[j] = q + hc_epsilon;
            want_pre[(size_t)t * n + j] = mix[j];
            for (int i = 0; i < C; i++) {
                dpre += dz[(size_t)t * C + i] * state[(size_t)j * C + i];
                want_dx[(size_t)t * width + (size_t)j * C + i] = mix[j] * dz[(size_t)t * C + i];
            }
            du[j] = dpre * q * (1 - q);
            want_dbase[j] += du[j];
            want_dscale[0] += du[j] * u[j] / r;
            du[j] *= scale[0];
        }
        array value = mixed(state, mix, n, C);
        std::copy(value.begin(), value.end(), want_z.begin() + (size_t)t * C);
        row_gradient(du, u, state, r, width, fn, &want_dx[(size_t)t * width], want_dfn);
    }
    check(c, "readout pre", pre.get(), want_pre, KIND_COEFFICIENT);
    check(c, "readout z", z.get(), want_z, KIND_REAL);
    check(c, "readout dx", dx.get(), want_dx, c.half ? KIND_REAL : KIND_GRADIENT);
    check(c, "readout dfn", dfn.get(), want_dfn, KIND_GRADIENT);
    check(c, "readout dbase", dbase.get(), want_dbase, KIND_GRADIENT);
    check(c, "readout dscale", dscale.get(), want_dscale, KIND_SUM);
}

static void check_norm(const config &c, const array &x, const array &weight, const device_array &normed, const device_array &rrms)
{
    array want(x.size()), want_rrms(c.tokens);

    for (int t = 0; t < c.tokens; t++) {
        double r = rms(&x[(size_t)t * c.hidden], (size_t)c.hidden);

        want_rrms[t] = 1 / r;
        for (int i = 0; i < c.hidden; i++) {
            want[(size_t)t * c.hidden + i] = x[(size_t)t * c.hidden + i] / r * weight[i];
        }
    }
    check(c, "normed", normed.get(), want, KIND_REAL);
    check(c, "norm_rrms", rrms.get(), want_rrms, KIND_COEFFICIENT);
}

static void test_residual(const config &c)
{
    int C = c.hidden, T = c.tokens;
    size_t count = (size_t)T * C;
    array x = random_array(count, 1, c.half), y = random_array(count, 1, c.half), g = random_array(count, 1, c.half);
    array d = random_array(count, 1, c.half), weight = random_array(C, 1, false), start = random_array(C, 0.1, false), next(count), dx(count);
    array dweight = start;
    device_array xa(x, c.half), ya(y, c.half), weighta(weight, false), nexta(count, c.half), normed(count, c.half), rrms(T, false);
    device_array ga(g, c.half), da(d, c.half), dweighta(start, false), dy(count, c.half);
    device_array workspace((size_t)mhp_cuda_connection_workspace(c.kind, T, C, 1, 1), false);
    mhp_merge_mix_args both = {};
    mhp_merge_gradient_args split = {};
    mhp_mix_merge_gradient_args both_back = {};
    mhp_mix_gradient_args &back = both_back.mix;
    auto reset = [&] {
        ga.set(g);
        dweighta.set(start);
        poison({&workspace});
    };

    both.merge = {c.kind, T, C, 1, xa.data, ya.data, NULL, NULL, nexta.data};
    both.mix.connection.kind = c.kind;
    both.mix.connection.tokens = T;
    both.mix.connection.hidden = C;
    both.mix.connection.norm_epsilon = norm_epsilon;
    both.mix.connection.x = nexta.data;
    both.mix.weight = weighta.data;
    both.mix.normed = normed.data;
    both.mix.norm_rrms = rrms.data;
    for (size_t i = 0; i < count; i++) {
        next[i] = x[i] + y[i];
    }
    RUN(c, merge, both.merge);
    check(c, "x_next", nexta.get(), next, KIND_REAL);
    next = nexta.get();
    RUN(c, mix, both.mix);
    check_norm(c, next, weight, normed, rrms);
    poison({&nexta, &normed, &rrms});
    RUN(c, merge_mix, both);
    check(c, "x_next of merge_mix", nexta.get(), next, KIND_REAL);
    check_norm(c, next, weight, normed, rrms);
    check_again(c, "merge_mix", [&] { poison({&nexta, &normed, &rrms}); }, [&] { RUN(c, merge_mix, both); }, {&nexta, &normed, &rrms});
    split = {c.kind, T, C, 1, ga.data, NULL, NULL, NULL, NULL, dy.data, NULL, NULL};
    RUN(c, merge_gradient, split);
    check(c, "dy", dy.get(), g, KIND_REAL);
    for (int t = 0; t < T; t++) {
        const double *state = &next[(size_t)t * C], *in = &d[(size_t)t * C];
        double r = rms(state, (size_t)C), along = 0;

        for (int i = 0; i < C; i++) {
            along += in[i] * weight[i] * state[i];
            dweight[i] += in[i] * state[i] / r;
        }
        for (int i = 0; i < C; i++) {
            dx[(size_t)t * C + i] = g[(size_t)t * C + i] + in[i] * weight[i] / r - state[i] * along / (r * r * r * C);
        }
    }
    back.connection.kind = c.kind;
    back.connection.tokens = T;
    back.connection.hidden = C;
    back.connection.norm_epsilon = norm_epsilon;
    back.connection.g = ga.data;
    back.connection.dx = ga.data;
    back.connection.workspace = workspace.data;
    back.connection.x = nexta.data;
    back.weight = weighta.data;
    back.norm_rrms = rrms.data;
    back.dnormed = da.data;
    back.dweight = dweighta.data;
    RUN(c, mix_gradient, back);
    check(c, "dx", ga.get(), dx, c.half ? KIND_REAL : KIND_GRADIENT);
    check(c, "dweight", dweighta.get(), dweight, KIND_GRADIENT);
    check_again(c, "mix_gradient", reset, [&] { RUN(c, mix_gradient, back); }, {&ga, &dweighta});
    poison({&dy});
    both_back.merge = split;
    check_again(c, "mix_merge_gradient", reset, [&] { RUN(c, mix_merge_gradient, both_back); }, {&ga, &dweighta});
    if (dy.raw() != ga.raw()) {
        printf("FAIL %s: dy of mix_merge_gradient is not dx\n", name_of(c).c_str());
        failures++;
    }
}

static void test_limits(void)
{
    mhp_mix_args args = {};
    struct {
        int hidden, streams, iterations;
        const char *named;
    } bad[] = {{12, 4, 20, "hidden size 12"}, {0, 4, 20, "hidden size 0"}, {64, 9, 20, "9 streams"}, {64, 0, 20, "0 streams"},
               {64, 4, 101, "101 Sinkhorn"}};

    for (auto &b : bad) {
        args.connection.kind = MHP_CONNECTION_MHC;
        args.connection.tokens = 1;
        args.connection.hidden = b.hidden;
        args.connection.streams = b.streams;
        args.connection.sinkhorn_iterations = b.iterations;
        if (mhp_cuda_mix_bf16(NULL, &args) != MHP_ERR_UNSUPPORTED || !strstr(mhp_error_text(), b.named)) {
            printf("FAIL limits: expected \"%s\" in \"%s\"\n", b.named, mhp_error_text());
            failures++;
        }
    }
}

/* Less shared memory than the gradient of four tokens a block takes: refused before anything is launched. */
static void test_no_room(void)
{
    mhp_mix_gradient_args args = {};

    args.connection.kind = MHP_CONNECTION_MHC;
    args.connection.tokens = 600;
    args.connection.hidden = 64;
    args.connection.streams = 8;
    args.connection.sinkhorn_iterations = 100;
    mhp_cuda_limit_shared(SHARED_OF_FOUR_TOKENS - 64);
    if (mhp_cuda_mix_gradient_bf16(NULL, &args) != MHP_ERR_UNSUPPORTED || !strstr(mhp_error_text(), "expected fewer streams")) {
        printf("FAIL limits: expected \"expected fewer streams\" in \"%s\"\n", mhp_error_text());
        failures++;
    }
    mhp_cuda_limit_shared(0);
}

/* More tokens than a pass of the four-stream kernels takes: copies of a few, each with the bits of these. */
static void test_many_tokens(void)
{
    enum { FEW = 64, COPIES = 340 };
    config few = {MHP_CONNECTION_MHC, true, FEW, 7168, 4, 20, 1}, many = few;
    array x0 = random_array((size_t)FEW * 4 * few.hidden, 1, true), y = random_array((size_t)FEW * few.hidden, 1, true);
    array post = random_array(FEW * 4, 0.5, false), comb = random_array(FEW * 16, 0.5, false);
    parameters par = random_parameters(few);
    device_array fn(par.fn, false), base(par.base, false), scale(par.scale, false), weight(par.weight, false);
    std::vector<std::vector<char>> want;

    many.tokens = FEW * COPIES;
    for (const config &c : {few, many}) {
        device_array state((size_t)c.tokens * 4 * c.hidden, true), branch((size_t)c.tokens * c.hidden, true);
        device_array posts((size_t)c.tokens * 4, false), combs((size_t)c.tokens * 16, false), next(state.count, true);
        device_array *to[] = {&state, &branch, &posts, &combs};
        const array *from[] = {&x0, &y, &post, &comb};
        kept k(c);
        std::vector<device_array *> outputs = k.all();

        outputs.push_back(&next);
        for (int i = 0; i < 4; i++) {
            device_array piece(*from[i], to[i]->half);

            for (size_t at = 0; at < to[i]->bytes(); at += piece.bytes()) {
                CUDA(cudaMemcpy((char *)to[i]->data + at, piece.data, piece.bytes(), cudaMemcpyDeviceToDevice));
            }
        }
        mhp_merge_mix_args both = {{c.kind, c.tokens, c.hidden, 4, state.data, branch.data, posts.data, combs.data, next.data},
                                   mix_args(c, next, fn, base, scale, weight, k)};

        RUN(c, merge_mix, both);
        for (size_t i = 0; i < outputs.size(); i++) {
            std::vector<char> got = outputs[i]->raw();

            if (c.tokens == FEW) {
                want.push_back(got);
            }
            for (size_t at = 0; at < got.size(); at += want[i].size()) {
                if (memcmp(&got[at], want[i].data(), want[i].size()) != 0) {
                    printf("FAIL %s: output %zu of copy %zu differs\n", name_of(c).c_str(), i, at / want[i].size());
                    failures++;
                    break;
                }
            }
        }
    }
}

static void test(const config &c)
{
    int before = failures;

    mhp_cuda_limit_shared(c.shared);
    if (mhp_cuda_shared_bytes() < c.shared) {
        printf("skip %s: this card's blocks have less than %d bytes\n", name_of(c).c_str(), c.shared);
        return;
    }
    if (c.shared > 0 && mhp_cuda_serves_four()) {
        printf("FAIL %s: the four-stream kernels serve with %d bytes of shared memory\n", name_of(c).c_str(), mhp_cuda_shared_bytes());
        failures++;
    }
    if (c.kind == MHP_CONNECTION_RESIDUAL) {
        test_residual(c);
    } else {
        test_streams(c);
        if (c.kind == MHP_CONNECTION_MHC) {
            test_readout(c);
        }
    }
    if (failures == before) {
        printf("ok   %s\n", name_of(c).c_str());
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    bool small = false;
    std::vector<config> cases;
    int cards = 0;

    if (cudaGetDeviceCount(&cards) != cudaSuccess || cards == 0) {
        printf("skipped: no card\n");
        return 77;
    }
    seed = (uint64_t)time(NULL);
    for (int i = 1; i < argc; i++) {
        small = small || !strcmp(argv[i], "clean");
        if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        }
    }
    printf("seed %llu\n", (unsigned long long)seed);
    for (int half = 0; half < 2; half++) {
        for (mhp_connection_kind kind : {MHP_CONNECTION_MHC, MHP_CONNECTION_HC}) {
            for (int n = 1; n <= 8; n++) {
                cases.push_back({kind, half == 1, n % 2 ? 7 : 19, n % 3 ? 64 : 8, n, 20, 1});
            }
            cases.push_back({kind, half == 1, 1, 8, 4, 20, 3});
            cases.push_back({kind, half == 1, 37, 328, 4, 20, 1});
            cases.push_back({kind, half == 1, 16, 264, 4, 20, 1});
            if (small) {
                continue;
            }
            cases.push_back({kind, half == 1, 130, 1280, 4, 20, 3});
            cases.push_back({kind, half == 1, 100, 1920, 4, 20, 1});
            cases.push_back({kind, half == 1, 130, 1920, 2, 20, 1});
            cases.push_back({kind, half == 1, 130, 2560, 3, 7, 1});
            cases.push_back({kind, half == 1, 7, 7168, 8, 20, 1});
            cases.push_back({kind, half == 1, 137, 2560, 8, 100, 1});      /* little shared memory is left for tokens */
            cases.push_back({kind, half == 1, 7, 16384, 4, 1, 1});
            cases.push_back({kind, half == 1, half ? 4099 : 1100, 2560, 4, 20, 1});
            cases.push_back({kind, half == 1, 1, 7168, 4, 20, 3});
            if (half == 1 && kind == MHP_CONNECTION_MHC) {
                cases.push_back({kind, true, 4099, 1280, 4, 20, 3});
                cases.push_back({kind, true, 1027, 7168, 4, 20, 1});
                cases.push_back({kind, true, 1590, 7168, 4, 20, 1});       /* of 132 multiprocessors, 20 go from slice to slice */
                cases.push_back({kind, true, 523, 11520, 4, 20, 1});       /* 42 */
                cases.push_back({kind, true, 7, 7168, 4, 20, 3});
                cases.push_back({kind, true, 7, 5120, 4, 20, 1});
                cases.push_back({kind, true, 1, 11520, 4, 20, 1});
                cases.push_back({kind, true, 4099, 64, 4, 20, 3});
            }
        }
        for (int hidden : {8, 64, 1280, 1920, 2560, 7168, 16384}) {
            cases.push_back({MHP_CONNECTION_RESIDUAL, half == 1, small ? 7 : 131, hidden, 1, 1, 1});
        }
        cases.push_back({MHP_CONNECTION_RESIDUAL, half == 1, small ? 19 : 4099, small ? 64 : 2560, 1, 1, 1});
    }
    for (mhp_connection_kind kind : {MHP_CONNECTION_MHC, MHP_CONNECTION_HC}) {
        cases.push_back({kind, true, 37, 328, 4, 20, 1, SHARED_OF_A100});       /* the general kernels */
    }
    if (!small) {
        cases.push_back({MHP_CONNECTION_MHC, true, 1031, 2560, 4, 20, 3, SHARED_OF_A100});
    }
    /* four tokens a block, where five would share the work best */
    cases.push_back({MHP_CONNECTION_MHC, true, 600, 64, 8, 100, 1, SHARED_OF_FOUR_TOKENS});
    test_limits();
    test_no_room();
    if (!small) {
        test_many_tokens();
    }
    for (const config &c : cases) {
        test(c);
    }
    printf("largest errors\n");
    for (const auto &entry : worst) {
        printf("  %-40s %.2e\n", entry.first.c_str(), entry.second);
    }
    printf(failures ? "%d failures\n" : "all %d cases agree\n", failures ? failures : (int)cases.size());
    return failures != 0;
}
