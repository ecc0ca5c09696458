// float16.h: operators and functions of a 16-bit float ATTNBENCH_T over the compiler's type
// ATTNBENCH_RAW. Included once a type.

#define ATTNBENCH_OPERATOR(op, name)                                                        \
    ATTNBENCH_INLINE ATTNBENCH_T operator op(ATTNBENCH_T a, ATTNBENCH_T b) {                \
        return ATTNBENCH_T(a.data op b.data);                                               \
    }                                                                                       \
    ATTNBENCH_INLINE ATTNBENCH_T& operator op##=(ATTNBENCH_T& a, ATTNBENCH_T b) {           \
        return a = a op b;                                                                  \
    }                                                                                       \
    ATTNBENCH_INLINE ATTNBENCH_T name(ATTNBENCH_T a, ATTNBENCH_T b) { return a op b; }
ATTNBENCH_OPERATOR(+, __hadd)
ATTNBENCH_OPERATOR(-, __hsub)
ATTNBENCH_OPERATOR(*, __hmul)
ATTNBENCH_OPERATOR(/, __hdiv)
#undef ATTNBENCH_OPERATOR

#define ATTNBENCH_COMPARE(op, name)                                                         \
    ATTNBENCH_INLINE bool operator op(ATTNBENCH_T a, ATTNBENCH_T b) {                       \
        return a.data op b.data;                                                            \
    }                                                                                       \
    ATTNBENCH_INLINE bool name(ATTNBENCH_T a, ATTNBENCH_T b) { return a op b; }
ATTNBENCH_COMPARE(<, __hlt)
ATTNBENCH_COMPARE(<=, __hle)
ATTNBENCH_COMPARE(>, __hgt)
ATTNBENCH_COMPARE(>=, __hge)
ATTNBENCH_COMPARE(==, __heq)
ATTNBENCH_COMPARE(!=, __hne)
#undef ATTNBENCH_COMPARE

ATTNBENCH_INLINE ATTNBENCH_T __hneg(ATTNBENCH_T a) { return -a; }
ATTNBENCH_INLINE ATTNBENCH_T __habs(ATTNBENCH_T a) {
    return ATTNBENCH_T(__builtin_fabsf((float)a));
}
ATTNBENCH_INLINE ATTNBENCH_T __hmax(ATTNBENCH_T a, ATTNBENCH_T b) {
    return ATTNBENCH_T(__builtin_fmaxf((float)a, (float)b));
}
ATTNBENCH_INLINE ATTNBENCH_T __hmin(ATTNBENCH_T a, ATTNBENCH_T b) {
    return ATTNBENCH_T(__builtin_fminf((float)a, (float)b));
}
ATTNBENCH_INLINE bool __hisnan(ATTNBENCH_T a) { return a.data != a.data; }
ATTNBENCH_INLINE int __hisinf(ATTNBENCH_T a) {
    return __builtin_fabsf((float)a) == INFINITY ? ((float)a > 0 ? 1 : -1) : 0;
}
ATTNBENCH_INLINE ATTNBENCH_T hexp(ATTNBENCH_T a) { return ATTNBENCH_T(__builtin_expf((float)a)); }
ATTNBENCH_INLINE ATTNBENCH_T hexp2(ATTNBENCH_T a) { return ATTNBENCH_T(__builtin_exp2f((float)a)); }
ATTNBENCH_INLINE ATTNBENCH_T hlog(ATTNBENCH_T a) { return ATTNBENCH_T(__builtin_logf((float)a)); }
ATTNBENCH_INLINE ATTNBENCH_T hlog2(ATTNBENCH_T a) { return ATTNBENCH_T(__builtin_log2f((float)a)); }
ATTNBENCH_INLINE ATTNBENCH_T hsqrt(ATTNBENCH_T a) { return ATTNBENCH_T(__builtin_sqrtf((float)a)); }
ATTNBENCH_INLINE ATTNBENCH_T hrsqrt(ATTNBENCH_T a) {
    return ATTNBENCH_T(__builtin_amdgcn_rsqf((float)a));
}
ATTNBENCH_INLINE ATTNBENCH_T hrcp(ATTNBENCH_T a) {
    return ATTNBENCH_T(__builtin_amdgcn_rcpf((float)a));
}
