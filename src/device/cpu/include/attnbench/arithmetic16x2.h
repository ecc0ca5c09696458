// arithmetic16x2.h: the same for the pair ATTNBENCH_T2 of ATTNBENCH_T. Included once a type.

#define ATTNBENCH_OPERATOR(op, name)                                                        \
    static inline ATTNBENCH_T2 operator op(ATTNBENCH_T2 a, ATTNBENCH_T2 b) {                \
        return ATTNBENCH_T2(a.x op b.x, a.y op b.y);                                        \
    }                                                                                       \
    static inline ATTNBENCH_T2& operator op##=(ATTNBENCH_T2& a, ATTNBENCH_T2 b) {           \
        return a = a op b;                                                                  \
    }                                                                                       \
    static inline ATTNBENCH_T2 name(ATTNBENCH_T2 a, ATTNBENCH_T2 b) { return a op b; }
ATTNBENCH_OPERATOR(+, __hadd2)
ATTNBENCH_OPERATOR(-, __hsub2)
ATTNBENCH_OPERATOR(*, __hmul2)
ATTNBENCH_OPERATOR(/, __h2div)
#undef ATTNBENCH_OPERATOR

static inline ATTNBENCH_T2 __hfma2(ATTNBENCH_T2 a, ATTNBENCH_T2 b, ATTNBENCH_T2 c) {
    return ATTNBENCH_T2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
static inline ATTNBENCH_T2 __hneg2(ATTNBENCH_T2 a) { return ATTNBENCH_T2(-a.x, -a.y); }
static inline ATTNBENCH_T2 __hmax2(ATTNBENCH_T2 a, ATTNBENCH_T2 b) {
    return ATTNBENCH_T2(__hmax(a.x, b.x), __hmax(a.y, b.y));
}
static inline ATTNBENCH_T2 __hmin2(ATTNBENCH_T2 a, ATTNBENCH_T2 b) {
    return ATTNBENCH_T2(__hmin(a.x, b.x), __hmin(a.y, b.y));
}
static inline ATTNBENCH_T __low2half(ATTNBENCH_T2 a) { return a.x; }
static inline ATTNBENCH_T __high2half(ATTNBENCH_T2 a) { return a.y; }
static inline float __low2float(ATTNBENCH_T2 a) { return (float)a.x; }
static inline float __high2float(ATTNBENCH_T2 a) { return (float)a.y; }
