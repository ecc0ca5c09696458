// round.h: exact conversions to the 16-bit floats, one rounding each, to nearest, ties to even.
#pragma once
#include "math.h"

// a * b + c in double precision, rounded to odd, where a * b is exact in double precision: a later
// rounding to 24 or fewer bits then gives the once-rounded result.
static inline double attnbench_fma_odd(double a, double b, double c) {
    double p = a * b, s = p + c;
    if (!(s - s == 0)) return s;
    double q = s - p, error = (p - (s - q)) + (c - q);
    uint64_t bits = attnbench_bits<uint64_t>(s);
    if (error != 0 && (bits & 1) == 0) {
        // The truth lies between s and its neighbour towards the error, which is odd.
        bits += (error > 0) == (s > 0) ? 1 : -1;
        s = attnbench_bits<double>(bits);
    }
    return s;
}

// Rounds a double to a format of 16 bits with `MANTISSA` stored bits and least normal 2^EMIN.
template <int MANTISSA, int EMIN>
static inline uint16_t attnbench_round16(double x) {
    constexpr int EXPONENT = 15 - MANTISSA;
    constexpr uint64_t INF = ((1u << EXPONENT) - 1) << MANTISSA;
    uint64_t bits = attnbench_bits<uint64_t>(x);
    uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    bits &= ~0ull >> 1;
    if (bits > 0x7ffull << 52) {
        // NaN: quiet, the payload's upper bits kept.
        return (uint16_t)(sign | INF | 1u << (MANTISSA - 1) |
                          (bits >> (52 - MANTISSA) & ((1u << MANTISSA) - 1)));
    }
    int exponent = (int)(bits >> 52) - 1023;
    if (exponent < EMIN - MANTISSA - 1) return sign;
    uint64_t significand = (bits & ((1ull << 52) - 1)) | 1ull << 52;
    int drop = 52 - MANTISSA;
    uint64_t base = 0;
    if (exponent < EMIN) drop += EMIN - exponent;
    else base = (uint64_t)(exponent - EMIN) << MANTISSA;
    uint64_t kept = significand >> drop, rest = significand & ((1ull << drop) - 1);
    uint64_t half = 1ull << (drop - 1);
    kept += rest > half || (rest == half && (kept & 1));
    // A normal number's hidden bit adds one to the exponent field by itself.
    uint64_t packed = base + kept;
    return (uint16_t)(sign | (exponent > 1023 || packed > INF ? INF : packed));
}
