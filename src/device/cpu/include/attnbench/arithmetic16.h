// arithmetic16.h: operators and functions of a 16-bit float ATTNBENCH_T, each rounding once.
// Included once a type; ATTNBENCH_FMA(a, b, c) is its once-rounded a * b + c.

#define ATTNBENCH_OPERATOR(op, name)                                                        \
    static inline ATTNBENCH_T operator op(ATTNBENCH_T a, ATTNBENCH_T b) {                   \
        return ATTNBENCH_T((float)a op (float)b);                                           \
    }                                                                                       \
    static inline ATTNBENCH_T& operator op##=(ATTNBENCH_T& a, ATTNBENCH_T b) {              \
        return a = a op b;                                                                  \
    }                                                                                       \
    static inline ATTNBENCH_T name(ATTNBENCH_T a, ATTNBENCH_T b) { return a op b; }
ATTNBENCH_OPERATOR(+, __hadd)
ATTNBENCH_OPERATOR(-, __hsub)
ATTNBENCH_OPERATOR(*, __hmul)
ATTNBENCH_OPERATOR(/, __hdiv)
#undef ATTNBENCH_OPERATOR

#define ATTNBENCH_COMPARE(op, name)                                                         \
    static inline bool operator op(ATTNBENCH_T a, ATTNBENCH_T b) {                          \
        return (float)a op (float)b;                                                        \
    }                                                                                       \
    static inline bool name(ATTNBENCH_T a, ATTNBENCH_T b) { return a op b; }
ATTNBENCH_COMPARE(<, __hlt)
ATTNBENCH_COMPARE(<=, __hle)
ATTNBENCH_COMPARE(>, __hgt)
ATTNBENCH_COMPARE(>=, __hge)
ATTNBENCH_COMPARE(==, __heq)
ATTNBENCH_COMPARE(!=, __hne)
#undef ATTNBENCH_COMPARE

static inline ATTNBENCH_T __hfma(ATTNBENCH_T a, ATTNBENCH_T b, ATTNBENCH_T c) {
    return ATTNBENCH_FMA(a, b, c);
}
static inline ATTNBENCH_T __hneg(ATTNBENCH_T a) { return -a; }
static inline ATTNBENCH_T __habs(ATTNBENCH_T a) { return ATTNBENCH_T(fabsf((float)a)); }
static inline ATTNBENCH_T __hmax(ATTNBENCH_T a, ATTNBENCH_T b) {
    return ATTNBENCH_T(fmaxf((float)a, (float)b));
}
static inline ATTNBENCH_T __hmin(ATTNBENCH_T a, ATTNBENCH_T b) {
    return ATTNBENCH_T(fminf((float)a, (float)b));
}
static inline bool __hisnan(ATTNBENCH_T a) { return (float)a != (float)a; }
static inline int __hisinf(ATTNBENCH_T a) {
    return fabsf((float)a) == INFINITY ? ((float)a > 0 ? 1 : -1) : 0;
}
static inline ATTNBENCH_T hexp(ATTNBENCH_T a) { return ATTNBENCH_T(exp((double)(float)a)); }
static inline ATTNBENCH_T hexp2(ATTNBENCH_T a) { return ATTNBENCH_T(exp2((double)(float)a)); }
static inline ATTNBENCH_T hlog(ATTNBENCH_T a) { return ATTNBENCH_T(log((double)(float)a)); }
static inline ATTNBENCH_T hlog2(ATTNBENCH_T a) { return ATTNBENCH_T(log2((double)(float)a)); }
static inline ATTNBENCH_T hsqrt(ATTNBENCH_T a) { return ATTNBENCH_T(sqrtf((float)a)); }
static inline ATTNBENCH_T hrsqrt(ATTNBENCH_T a) {
    return ATTNBENCH_T(1.0 / sqrt((double)(float)a));
}
static inline ATTNBENCH_T hrcp(ATTNBENCH_T a) { return ATTNBENCH_T(1.0f / (float)a); }
