// float16x2.h: the same for the pair ATTNBENCH_T2 of ATTNBENCH_T: packed instructions where the
// target has them.

#define ATTNBENCH_OPERATOR(op, name)                                                        \
    ATTNBENCH_INLINE ATTNBENCH_T2 operator op(ATTNBENCH_T2 a, ATTNBENCH_T2 b) {             \
        return ATTNBENCH_T2(a.data op b.data);                                              \
    }                                                                                       \
    ATTNBENCH_INLINE ATTNBENCH_T2& operator op##=(ATTNBENCH_T2& a, ATTNBENCH_T2 b) {        \
        return a = a op b;                                                                  \
    }                                                                                       \
    ATTNBENCH_INLINE ATTNBENCH_T2 name(ATTNBENCH_T2 a, ATTNBENCH_T2 b) { return a op b; }
ATTNBENCH_OPERATOR(+, __hadd2)
ATTNBENCH_OPERATOR(-, __hsub2)
ATTNBENCH_OPERATOR(*, __hmul2)
ATTNBENCH_OPERATOR(/, __h2div)
#undef ATTNBENCH_OPERATOR

ATTNBENCH_INLINE ATTNBENCH_T2 __hneg2(ATTNBENCH_T2 a) { return ATTNBENCH_T2(-a.data); }
ATTNBENCH_INLINE ATTNBENCH_T2 __hmax2(ATTNBENCH_T2 a, ATTNBENCH_T2 b) {
    return ATTNBENCH_T2(__hmax(a.x, b.x), __hmax(a.y, b.y));
}
ATTNBENCH_INLINE ATTNBENCH_T2 __hmin2(ATTNBENCH_T2 a, ATTNBENCH_T2 b) {
    return ATTNBENCH_T2(__hmin(a.x, b.x), __hmin(a.y, b.y));
}
ATTNBENCH_INLINE ATTNBENCH_T __low2half(ATTNBENCH_T2 a) { return a.x; }
ATTNBENCH_INLINE ATTNBENCH_T __high2half(ATTNBENCH_T2 a) { return a.y; }
ATTNBENCH_INLINE float __low2float(ATTNBENCH_T2 a) { return (float)a.x; }
ATTNBENCH_INLINE float __high2float(ATTNBENCH_T2 a) { return (float)a.y; }
