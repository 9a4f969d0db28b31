/* Sinkhorn's iterations and their gradient, a token in every lane: docs/model.md has the order of the divisions. */
#ifndef MHP_MODEL_CPU_SINKHORN_H
#define MHP_MODEL_CPU_SINKHORN_H

#include "model/cpu/vmath.h"

enum { SINKHORN_ITERATIONS_MAX = 100 };

/* What the gradient needs again: the softmax, and the divisors of every step (2 * iterations - 1 of them, n each). */
typedef struct sinkhorn_history {
    vreal softmax[MHP_STREAMS_MAX * MHP_STREAMS_MAX];
    vreal divisor[2 * SINKHORN_ITERATIONS_MAX][MHP_STREAMS_MAX];
} sinkhorn_history;

/* m[j,k] = softmax over k of h[j,k]. */
ALWAYS_INLINE void softmax_rows(int n, const vreal *h, vreal *m)
{
    for (int j = 0; j < n; j++) {
        vreal largest = h[j * n];
        vreal sum = {0};

        for (int k = 1; k < n; k++) {
            largest = v_max(largest, h[j * n + k]);
        }
        for (int k = 0; k < n; k++) {
            m[j * n + k] = v_exp(h[j * n + k] - largest);
            sum += m[j * n + k];
        }
        for (int k = 0; k < n; k++) {
            m[j * n + k] /= sum;
        }
    }
}

/* Divides by the sums over j (stride n) or over k (stride 1), each + epsilon. */
ALWAYS_INLINE void divide_by_sums(int n, int stride, real epsilon, vreal *m, vreal *divisor)
{
    for (int line = 0; line < n; line++) {
        vreal *first = m + line * (stride == 1 ? n : 1);
        vreal sum = v_set(epsilon);
        vreal inverse;

        for (int i = 0; i < n; i++) {
            sum += first[i * stride];
        }
        inverse = (real)1 / sum;
        for (int i = 0; i < n; i++) {
            first[i * stride] *= inverse;
        }
        if (divisor) {
            divisor[line] = sum;
        }
    }
}

/* From logits h [n,n] to the mixing matrix m [n,n]; history may be NULL. */
ALWAYS_INLINE void sinkhorn(int n, int iterations, real epsilon, const vreal *h, vreal *m, sinkhorn_history *history)
{
    softmax_rows(n, h, m);
    for (int i = 0; i < n * n; i++) {
        if (history) {
            history->softmax[i] = m[i];
        }
        m[i] += epsilon;
    }
    divide_by_sums(n, n, epsilon, m, history ? history->divisor[0] : NULL);
    for (int step = 1; step < 2 * iterations - 1; step += 2) {
        divide_by_sums(n, 1, epsilon, m, history ? history->divisor[step] : NULL);
        divide_by_sums(n, n, epsilon, m, history ? history->divisor[step + 1] : NULL);
    }
}

/* One step back: with m' = m / s, s = sum of m + epsilon, the gradient is (d - sum of d m') / s and m = m' s. */
ALWAYS_INLINE void undivide(int n, int stride, const vreal *divisor, vreal *m, vreal *d)
{
    for (int line = 0; line < n; line++) {
        int first = line * (stride == 1 ? n : 1);
        vreal inverse = (real)1 / divisor[line];
        vreal dot = {0};

        for (int i = 0; i < n; i++) {
            dot += d[first + i * stride] * m[first + i * stride];
        }
        for (int i = 0; i < n; i++) {
            d[first + i * stride] = (d[first + i * stride] - dot) * inverse;
            m[first + i * stride] *= divisor[line];
        }
    }
}

/* Turns d, the gradient with respect to sinkhorn's result m, into that of h. Overwrites m. */
ALWAYS_INLINE void sinkhorn_gradient(int n, int iterations, const sinkhorn_history *history, vreal *m, vreal *d)
{
    for (int step = 2 * iterations - 2; step > 0; step -= 2) {
        undivide(n, n, history->divisor[step], m, d);
        undivide(n, 1, history->divisor[step - 1], m, d);
    }
    undivide(n, n, history->divisor[0], m, d);
    for (int j = 0; j < n; j++) {
        const vreal *p = history->softmax + j * n;
        vreal dot = {0};

        for (int k = 0; k < n; k++) {
            dot += d[j * n + k] * p[k];
        }
        for (int k = 0; k < n; k++) {
            d[j * n + k] = p[k] * (d[j * n + k] - dot);
        }
    }
}

#endif
