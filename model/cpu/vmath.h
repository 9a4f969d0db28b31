/* Exponential, sigmoid and hyperbolic tangent of vectors. For float: within 2 units in the last place, NaN and infinities as in
 * libm. For double the functions of libm, lane by lane: that type is for comparison, not for speed. */
#ifndef MHP_MODEL_CPU_VMATH_H
#define MHP_MODEL_CPU_VMATH_H

#include "model/cpu/cpu.h"

#if MHP_CPU_DOUBLE

ALWAYS_INLINE vreal v_exp(vreal x)
{
    for (int lane = 0; lane < LANES; lane++) {
        x[lane] = exp(x[lane]);
    }
    return x;
}

ALWAYS_INLINE vreal v_tanh(vreal x)
{
    for (int lane = 0; lane < LANES; lane++) {
        x[lane] = tanh(x[lane]);
    }
    return x;
}

#else

/* exp(x) = 2^k exp(r), |r| <= ln(2) / 2; polynomial and two-part ln(2) of Cephes' expf. 2^k is applied in two factors, so that
 * results beyond the range become infinite or denormal as they should. */
ALWAYS_INLINE vreal v_exp(vreal x)
{
    vreal bounded = v_select(x > v_set(89.0f), v_set(89.0f), v_select(x < v_set(-104.0f), v_set(-104.0f), x));
    vint k = __builtin_convertvector(bounded * 1.44269504088896341f + 256.5f, vint) - 256;
    vreal exponent = __builtin_convertvector(k, vreal);
    vreal r = (bounded - exponent * 0.693359375f) - exponent * -2.12194440e-4f;
    vreal p = v_set(1.9875691500e-4f);
    vint half = k >> 1;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * (vreal)((half + 127) << 23) * (vreal)((k - half + 127) << 23);
}

/* Cephes' tanhf: a polynomial near zero, 1 - 2 / (exp(2|x|) + 1) elsewhere. */
ALWAYS_INLINE vreal v_tanh(vreal x)
{
    vint sign = (vint)x & INT32_MIN;
    vreal magnitude = (vreal)((vint)x ^ sign);
    vreal far = 1.0f - 2.0f / (v_exp(magnitude + magnitude) + 1.0f);
    vreal square = x * x;
    vreal p = v_set(-5.70498872745e-3f);

    p = p * square + 2.06390887954e-2f;
    p = p * square + -5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square + -3.33332819422e-1f;
    return v_select(magnitude < v_set(0.625f), p * square * x + x, (vreal)((vint)far | sign));
}

#endif

ALWAYS_INLINE vreal v_sigmoid(vreal x)
{
    return (real)1 / ((real)1 + v_exp(-x));
}

#endif
