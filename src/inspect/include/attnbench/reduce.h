// reduce.h: sine, cosine, powers and the hyperbolic functions, for which the backend has no accurate
// code of its own. ROCm takes them from its device library (ocml); these are as accurate, and use
// other registers: figures of a kernel that calls them may differ a little from a build by ROCm.
#pragma once
#include "device.h"

// x = quadrant * pi/2 + r, |r| <= pi/4 and a little.
struct attnbench_quarter { float r; int quadrant; };

ATTNBENCH_INLINE attnbench_quarter attnbench_reduce(float x) {
    const float magnitude = __builtin_fabsf(x);
    if (magnitude < 0x1p+16f) {
        // Cody and Waite: pi/2 in three parts. k has 17 bits and the first part 20, so the first
        // difference is exact.
        const float k = __builtin_rintf(x * 0x1.45f306p-1f);
        float r = __builtin_fmaf(k, -0x1.921fa0p+0f, x);
        r = __builtin_fmaf(k, -0x1.54442cp-20f, r);
        r = __builtin_fmaf(k, -0x1.184698p-44f, r);
        return attnbench_quarter{r, (int)k};
    }
    // Payne and Hanek: the 24 bits of x times 192 bits of 2/pi, of which 2 bits before the binary
    // point and 64 after it matter.
    const uint32_t bits = attnbench_bits<uint32_t>(magnitude);
    const int exponent = (int)(bits >> 23) - 127;
    if (exponent == 128) return attnbench_quarter{__builtin_nanf(""), 0};
    const uint64_t m = (bits & 0x7fffff) | 0x800000;
    uint64_t sum = m * 0x3c439041u;
    const uint32_t n5 = (uint32_t)sum;
    sum = m * 0xdb629599u + (sum >> 32);
    const uint32_t n4 = (uint32_t)sum;
    sum = m * 0xf534ddc0u + (sum >> 32);
    const uint32_t n3 = (uint32_t)sum;
    sum = m * 0xfc2757d1u + (sum >> 32);
    const uint32_t n2 = (uint32_t)sum;
    sum = m * 0x4e441529u + (sum >> 32);
    const uint32_t n1 = (uint32_t)sum;
    sum = m * 0xa2f9836eu + (sum >> 32);
    const uint32_t n0 = (uint32_t)sum, top = (uint32_t)(sum >> 32);
    // The seven words shifted left so that the quadrant's bits are the highest two.
    const int shift = exponent + 7, words = shift / 32, left = shift % 32;
    const uint32_t a = words == 0 ? top : words == 1 ? n0 : words == 2 ? n1 : words == 3 ? n2 : n3;
    const uint32_t b = words == 0 ? n0 : words == 1 ? n1 : words == 2 ? n2 : words == 3 ? n3 : n4;
    const uint32_t c = words == 0 ? n1 : words == 1 ? n2 : words == 2 ? n3 : words == 3 ? n4 : n5;
    const uint32_t d = words == 0 ? n2 : words == 1 ? n3 : words == 2 ? n4 : n5;
    const uint64_t high = (((uint64_t)a << 32 | b) << left) | ((((uint64_t)c << 32 | d) >> (32 - left)) >> 32);
    const uint64_t low = (((uint64_t)b << 32 | c) << left) | ((uint64_t)d >> (32 - left));
    const uint64_t fraction = high << 2 | (uint32_t)low >> 30;
    // Past one half: the next quadrant, and a negative rest.
    const int quadrant = (int)(high >> 62) + (int)(fraction >> 63);
    const float r = (float)(int64_t)fraction * (0x1.921fb6p+0f * 0x1p-64f);
    return x < 0 ? attnbench_quarter{-r, -quadrant} : attnbench_quarter{r, quadrant};
}

// Polynomials of Cephes (Moshier) over [-pi/4, pi/4].
ATTNBENCH_INLINE float attnbench_sin_quarter(float r) {
    const float z = r * r;
    float p = __builtin_fmaf(z, -1.9515295891e-4f, 8.3321608736e-3f);
    p = __builtin_fmaf(z, p, -1.6666654611e-1f);
    return __builtin_fmaf(r * z, p, r);
}
ATTNBENCH_INLINE float attnbench_cos_quarter(float r) {
    const float z = r * r;
    float p = __builtin_fmaf(z, 2.443315711809948e-5f, -1.388731625493765e-3f);
    p = __builtin_fmaf(z, p, 4.166664568298827e-2f);
    return __builtin_fmaf(z * z, p, __builtin_fmaf(z, -0.5f, 1.0f));
}

ATTNBENCH_INLINE float attnbench_sin(attnbench_quarter q) {
    const float y = q.quadrant & 1 ? attnbench_cos_quarter(q.r) : attnbench_sin_quarter(q.r);
    return q.quadrant & 2 ? -y : y;
}
ATTNBENCH_INLINE float attnbench_cos(attnbench_quarter q) {
    return attnbench_sin(attnbench_quarter{q.r, q.quadrant + 1});
}
ATTNBENCH_INLINE float sinf(float x) {
    // why: a zero keeps its sign.
    return x == 0 ? x : attnbench_sin(attnbench_reduce(x));
}
ATTNBENCH_INLINE float cosf(float x) { return attnbench_cos(attnbench_reduce(x)); }
ATTNBENCH_INLINE void sincosf(float x, float* s, float* c) {
    const attnbench_quarter q = attnbench_reduce(x);
    *s = x == 0 ? x : attnbench_sin(q);
    *c = attnbench_cos(q);
}
ATTNBENCH_INLINE float tanf(float x) {
    const attnbench_quarter q = attnbench_reduce(x);
    const float s = attnbench_sin_quarter(q.r), c = attnbench_cos_quarter(q.r);
    return x == 0 ? x : q.quadrant & 1 ? -c / s : s / c;
}

ATTNBENCH_INLINE float tanhf(float x) {
    const float magnitude = __builtin_fabsf(x);
    if (magnitude < 0.625f) {
        const float z = x * x;
        float p = __builtin_fmaf(z, -5.70498872745e-3f, 2.06390887954e-2f);
        p = __builtin_fmaf(z, p, -5.37397155531e-2f);
        p = __builtin_fmaf(z, p, 1.33314422036e-1f);
        p = __builtin_fmaf(z, p, -3.33332819422e-1f);
        return __builtin_fmaf(x * z, p, x);
    }
    const float e = __builtin_expf(2.0f * magnitude);
    return __builtin_copysignf(1.0f - 2.0f / (e + 1.0f), x);
}

// Kahan's ways to lose no digits near 0.
ATTNBENCH_INLINE float expm1f(float x) {
    const float u = __builtin_expf(x);
    if (u == 1.0f) return x;
    if (u - 1.0f == -1.0f || x > 30.0f) return u - 1.0f;
    return (u - 1.0f) * x / __builtin_logf(u);
}
ATTNBENCH_INLINE float log1pf(float x) {
    const float u = 1.0f + x;
    return u == 1.0f ? x : x > 0x1p+30f ? __builtin_logf(u) : __builtin_logf(u) * (x / (u - 1.0f));
}
ATTNBENCH_INLINE float sinhf(float x) {
    const float magnitude = __builtin_fabsf(x), half = __builtin_expf(0.5f * magnitude);
    // why: e^|x| overflows before half of it does.
    if (magnitude > 80.0f) return __builtin_copysignf(0.5f * half * half, x);
    const float e = expm1f(magnitude);
    return __builtin_copysignf(0.5f * (e + e / (e + 1.0f)), x);
}
ATTNBENCH_INLINE float coshf(float x) {
    const float half = __builtin_expf(0.5f * __builtin_fabsf(x)), e = half * half;
    return 0.5f * half * half + 0.5f / e;
}

// Abramowitz and Stegun 7.1.6, and for |x| > 2 the continued fraction 7.1.14; within 10 units in the
// last place.
ATTNBENCH_INLINE float erff(float x) {
    const float magnitude = __builtin_fabsf(x), z = x * x;
    if (magnitude > 2.0f) {
        float f = magnitude;
#pragma unroll
        for (int n = 24; n > 0; --n) f = magnitude + 0.5f * (float)n / f;
        return __builtin_copysignf(1.0f - 0.564189584f * __builtin_expf(-z) / f, x);
    }
    float term = x, sum = x;
#pragma unroll
    for (int n = 1; n < 26; ++n) {
        term *= 2.0f * z / (float)(2 * n + 1);
        sum += term;
    }
    return 1.12837917f * __builtin_expf(-z) * sum;
}

// log(m) = 2 atanh((m - 1) / (m + 1)) for m in [sqrt(1/2), sqrt(2)), and e log(2), as a sum of two
// floats good to 2^-31.
struct attnbench_sum { float high, low; };
ATTNBENCH_INLINE attnbench_sum attnbench_log(float x) {
    const bool subnormal = x < 0x1p-126f;
    const uint32_t bits = attnbench_bits<uint32_t>(subnormal ? x * 0x1p+24f : x);
    const int e = (int)((bits - 0x3f3504f3u) >> 23) - (bits < 0x3f3504f3u ? 512 : 0);
    const float m = attnbench_bits<float>(bits - ((uint32_t)e << 23));
    const float exponent = (float)(subnormal ? e - 24 : e);
    const float f = m - 1.0f, t = m + 1.0f, t_low = m - (t - 1.0f), r = 1.0f / t;
    const float s = f * r, s_low = __builtin_fmaf(-s, t_low, __builtin_fmaf(-s, t, f)) * r;
    const float z = s * s;
    float p = __builtin_fmaf(z, 1.0f / 11, 1.0f / 9);
    p = __builtin_fmaf(z, p, 1.0f / 7);
    p = __builtin_fmaf(z, p, 1.0f / 5);
    p = __builtin_fmaf(z, p, 1.0f / 3);
    const float whole = exponent * 0x1.62e4p-1f, twice = 2.0f * s;
    const float high = whole + twice, rest = exponent == 0 ? 0.0f : twice - (high - whole);
    const float low = rest + __builtin_fmaf(exponent, 0x1.7f7d1cp-20f,
                                            __builtin_fmaf(twice * z, p, 2.0f * s_low));
    const float sum = high + low;
    return attnbench_sum{sum, low - (sum - high)};
}
ATTNBENCH_INLINE float powf(float x, float y) {
    if (x == 1.0f || y == 0.0f) return 1.0f;
    if (x != x || y != y) return x + y;
    const float magnitude = __builtin_fabsf(x), size = __builtin_fabsf(y);
    const bool integral = __builtin_truncf(y) == y;
    // Every float from 2^24 is even.
    const bool odd = integral && size < 0x1p+24f && ((int)size & 1) != 0;
    const float sign = odd && attnbench_bits<int>(x) < 0 ? -1.0f : 1.0f;
    if (magnitude == 0.0f) return y < 0 ? sign * __builtin_inff() : sign * 0.0f;
    if (size == __builtin_inff()) {
        if (magnitude == 1.0f) return 1.0f;
        return (magnitude > 1.0f) == (y > 0) ? __builtin_inff() : 0.0f;
    }
    if (magnitude == __builtin_inff()) return y > 0 ? sign * magnitude : sign * 0.0f;
    if (x < 0 && !integral) return __builtin_nanf("");
    const attnbench_sum l = attnbench_log(magnitude);
    const float high = l.high * y;
    if (high > 89.0f) return sign * __builtin_inff();
    if (high < -104.0f) return sign * 0.0f;
    const float low = __builtin_fmaf(l.low, y, __builtin_fmaf(l.high, y, -high));
    const float e = __builtin_expf(high);
    return sign * (e == __builtin_inff() ? e : __builtin_fmaf(e, low, e));
}
