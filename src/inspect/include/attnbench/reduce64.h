// reduce64.h: the same in f64, for the few kernels that want it: within 3 units in the last place
// (tanh 30), sine and cosine up to |x| = 2^30, beyond which their digits run out.
#pragma once
#include "device.h"

ATTNBENCH_INLINE double exp(double x) {
    if (x > 710.0) return __builtin_inf();
    if (x < -746.0) return 0.0;
    const double k = __builtin_rint(x * 1.4426950408889634);
    double r = __builtin_fma(k, -0x1.62e42feep-1, x);
    r = __builtin_fma(k, -0x1.a39ef35793c76p-33, r);
    // Taylor: |r| <= log(2)/2, r^14/14! < 2^-57.
    double p = 1.0 / 6227020800.0;
    p = __builtin_fma(r, p, 1.0 / 479001600.0);
    p = __builtin_fma(r, p, 1.0 / 39916800.0);
    p = __builtin_fma(r, p, 1.0 / 3628800.0);
    p = __builtin_fma(r, p, 1.0 / 362880.0);
    p = __builtin_fma(r, p, 1.0 / 40320.0);
    p = __builtin_fma(r, p, 1.0 / 5040.0);
    p = __builtin_fma(r, p, 1.0 / 720.0);
    p = __builtin_fma(r, p, 1.0 / 120.0);
    p = __builtin_fma(r, p, 1.0 / 24.0);
    p = __builtin_fma(r, p, 1.0 / 6.0);
    p = __builtin_fma(r, p, 0.5);
    p = __builtin_fma(r, p, 1.0);
    return __builtin_ldexp(__builtin_fma(r, p, 1.0), (int)k);
}

struct attnbench_sum64 { double high, low; };
ATTNBENCH_INLINE attnbench_sum64 attnbench_log64(double x) {
    int e;
    double m = __builtin_frexp(x, &e);
    if (m < 0.7071067811865476) { m *= 2.0; e -= 1; }
    const double f = m - 1.0, t = m + 1.0, t_low = m - (t - 1.0), r = 1.0 / t;
    const double s = f * r, s_low = __builtin_fma(-s, t_low, __builtin_fma(-s, t, f)) * r;
    const double z = s * s;
    double p = 1.0 / 25;
#pragma unroll
    for (int n = 23; n >= 3; n -= 2) p = __builtin_fma(z, p, 1.0 / n);
    const double whole = e * 0x1.62e42feep-1, twice = 2.0 * s, high = whole + twice;
    const double rest = e == 0 ? 0.0 : twice - (high - whole);
    const double low =
        rest + __builtin_fma((double)e, 0x1.a39ef35793c76p-33, __builtin_fma(twice * z, p, 2.0 * s_low));
    const double sum = high + low;
    return attnbench_sum64{sum, low - (sum - high)};
}
ATTNBENCH_INLINE double log(double x) {
    if (x < 0 || x != x) return __builtin_nan("");
    if (x == 0) return -__builtin_inf();
    if (x == __builtin_inf()) return x;
    const attnbench_sum64 l = attnbench_log64(x);
    return l.high + l.low;
}
ATTNBENCH_INLINE double exp2(double x) {
    const double k = __builtin_rint(x);
    if (x > 1025.0 || x < -1076.0) return x > 0 ? __builtin_inf() : 0.0;
    return __builtin_ldexp(exp((x - k) * 0.6931471805599453), (int)k);
}
ATTNBENCH_INLINE double log2(double x) { return log(x) * 1.4426950408889634; }
ATTNBENCH_INLINE double log10(double x) { return log(x) * 0.4342944819032518; }
ATTNBENCH_INLINE double pow(double x, double y) {
    if (x == 1.0 || y == 0.0) return 1.0;
    if (x != x || y != y) return x + y;
    const double magnitude = __builtin_fabs(x), size = __builtin_fabs(y);
    const bool integral = __builtin_trunc(y) == y;
    const bool odd = integral && size < 0x1p+53 && ((long long)size & 1) != 0;
    const double sign = odd && attnbench_bits<long long>(x) < 0 ? -1.0 : 1.0;
    if (magnitude == 0.0) return y < 0 ? sign * __builtin_inf() : sign * 0.0;
    if (size == __builtin_inf()) {
        if (magnitude == 1.0) return 1.0;
        return (magnitude > 1.0) == (y > 0) ? __builtin_inf() : 0.0;
    }
    if (magnitude == __builtin_inf()) return y > 0 ? sign * magnitude : sign * 0.0;
    if (x < 0 && !integral) return __builtin_nan("");
    const attnbench_sum64 l = attnbench_log64(magnitude);
    const double high = l.high * y;
    if (high > 710.0) return sign * __builtin_inf();
    if (high < -746.0) return sign * 0.0;
    const double low = __builtin_fma(l.low, y, __builtin_fma(l.high, y, -high)), e = exp(high);
    return sign * (e == __builtin_inf() ? e : __builtin_fma(e, low, e));
}
ATTNBENCH_INLINE double tanh(double x) {
    const double magnitude = __builtin_fabs(x);
    if (magnitude < 0.05) {
        const double z = x * x;
        double p = __builtin_fma(z, -1382.0 / 155925, 62.0 / 2835);
        p = __builtin_fma(z, p, -17.0 / 315);
        p = __builtin_fma(z, p, 2.0 / 15);
        p = __builtin_fma(z, p, -1.0 / 3);
        return __builtin_fma(x * z, p, x);
    }
    return __builtin_copysign(1.0 - 2.0 / (exp(2.0 * magnitude) + 1.0), x);
}
ATTNBENCH_INLINE double attnbench_turn64(double x, int quarters) {
    const double k = __builtin_rint(x * 0.6366197723675814);
    double r = __builtin_fma(k, -0x1.921fb544p+0, x);
    r = __builtin_fma(k, -0x1.0b4611a6p-34, r);
    r = __builtin_fma(k, -0x1.3198a2e037073p-69, r);
    const int quadrant = (int)((long long)k & 3) + quarters;
    const double z = r * r;
    // Taylor: |r| <= pi/4.
    double s = 1.0 / 355687428096000.0, c = -1.0 / 6402373705728000.0;
    s = __builtin_fma(z, s, -1.0 / 1307674368000.0);
    s = __builtin_fma(z, s, 1.0 / 6227020800.0);
    s = __builtin_fma(z, s, -1.0 / 39916800.0);
    s = __builtin_fma(z, s, 1.0 / 362880.0);
    s = __builtin_fma(z, s, -1.0 / 5040.0);
    s = __builtin_fma(z, s, 1.0 / 120.0);
    s = __builtin_fma(z, s, -1.0 / 6.0);
    c = __builtin_fma(z, c, 1.0 / 20922789888000.0);
    c = __builtin_fma(z, c, -1.0 / 87178291200.0);
    c = __builtin_fma(z, c, 1.0 / 479001600.0);
    c = __builtin_fma(z, c, -1.0 / 3628800.0);
    c = __builtin_fma(z, c, 1.0 / 40320.0);
    c = __builtin_fma(z, c, -1.0 / 720.0);
    c = __builtin_fma(z, c, 1.0 / 24.0);
    c = __builtin_fma(z, c, -0.5);
    const double y = quadrant & 1 ? __builtin_fma(z, c, 1.0) : __builtin_fma(r * z, s, r);
    return quadrant & 2 ? -y : y;
}
ATTNBENCH_INLINE double sin(double x) { return x == 0 ? x : attnbench_turn64(x, 0); }
ATTNBENCH_INLINE double cos(double x) { return attnbench_turn64(x, 1); }
ATTNBENCH_INLINE void sincos(double x, double* s, double* c) { *s = sin(x); *c = cos(x); }
