// atomics.h: atomics on clang's own builtins, relaxed, device-wide where a name says nothing else.
//
// An f32 or f64 atomicAdd is what the compiler makes of it by default: where the hardware's
// instruction is not safe for all memory, a loop of compare and swap. ROCm's unsafeAtomicAdd always
// takes the instruction where there is one; here it is as atomicAdd.
#pragma once
#include "device.h"

template <class T> struct attnbench_same { using type = T; };
// The value's type follows the pointer's: atomicAdd(&float, 1) converts the 1.
template <class T> using attnbench_of = typename attnbench_same<T>::type;

template <int SCOPE, class T>
ATTNBENCH_INLINE T attnbench_cas(T* p, T expected, T desired) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "an atomic is of 4 or 8 bytes");
    __hip_atomic_compare_exchange_strong(p, &expected, desired, __ATOMIC_RELAXED, __ATOMIC_RELAXED,
                                         SCOPE);
    return expected;
}
// What has no instruction that every target knows: a loop of compare and swap.
template <int SCOPE, class T, class F>
ATTNBENCH_INLINE T attnbench_update(T* p, F change) {
    T seen = __hip_atomic_load(p, __ATOMIC_RELAXED, SCOPE), old;
    do {
        old = seen;
        seen = attnbench_cas<SCOPE>(p, old, change(old));
    } while (seen != old);
    return old;
}

#define ATTNBENCH_SCOPED(name, suffix, scope, ...)                                          \
    template <class T>                                                                      \
    ATTNBENCH_INLINE T name##suffix(T* p, attnbench_of<T> v) {                              \
        constexpr int SCOPE = scope;                                                        \
        return __VA_ARGS__;                                                                 \
    }
#define ATTNBENCH_ATOMIC(name, ...)                                                         \
    ATTNBENCH_SCOPED(name, , __HIP_MEMORY_SCOPE_AGENT, __VA_ARGS__)                         \
    ATTNBENCH_SCOPED(name, _block, __HIP_MEMORY_SCOPE_WORKGROUP, __VA_ARGS__)               \
    ATTNBENCH_SCOPED(name, _system, __HIP_MEMORY_SCOPE_SYSTEM, __VA_ARGS__)
ATTNBENCH_ATOMIC(atomicAdd, __hip_atomic_fetch_add(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(unsafeAtomicAdd, __hip_atomic_fetch_add(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicSub, __hip_atomic_fetch_add(p, -v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicMax, __hip_atomic_fetch_max(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicMin, __hip_atomic_fetch_min(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicExch, __hip_atomic_exchange(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicOr, __hip_atomic_fetch_or(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicAnd, __hip_atomic_fetch_and(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicXor, __hip_atomic_fetch_xor(p, v, __ATOMIC_RELAXED, SCOPE))
ATTNBENCH_ATOMIC(atomicInc,
                 attnbench_update<SCOPE>(p, [v](T old) -> T { return old >= v ? 0 : old + 1; }))
ATTNBENCH_ATOMIC(atomicDec, attnbench_update<SCOPE>(p, [v](T old) -> T {
                     return old == 0 || old > v ? v : old - 1;
                 }))
#undef ATTNBENCH_ATOMIC
#undef ATTNBENCH_SCOPED

template <class T>
ATTNBENCH_INLINE T atomicCAS(T* p, attnbench_of<T> expected, attnbench_of<T> desired) {
    return attnbench_cas<__HIP_MEMORY_SCOPE_AGENT, T>(p, expected, desired);
}
template <class T>
ATTNBENCH_INLINE T atomicCAS_block(T* p, attnbench_of<T> expected, attnbench_of<T> desired) {
    return attnbench_cas<__HIP_MEMORY_SCOPE_WORKGROUP, T>(p, expected, desired);
}
template <class T>
ATTNBENCH_INLINE T atomicCAS_system(T* p, attnbench_of<T> expected, attnbench_of<T> desired) {
    return attnbench_cas<__HIP_MEMORY_SCOPE_SYSTEM, T>(p, expected, desired);
}

ATTNBENCH_INLINE void __threadfence() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }
ATTNBENCH_INLINE void __threadfence_block() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "workgroup"); }
ATTNBENCH_INLINE void __threadfence_system() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, ""); }

template <class T>
ATTNBENCH_INLINE T __ldg(const T* p) { return *p; }
// Streaming: not to be kept in a cache.
template <class T>
ATTNBENCH_INLINE T __ldcs(const T* p) {
    if constexpr (__is_arithmetic(T)) return __builtin_nontemporal_load(p);
    else return *p;
}
template <class T>
ATTNBENCH_INLINE T __ldcg(const T* p) { return *p; }
template <class T>
ATTNBENCH_INLINE void __stcs(T* p, attnbench_of<T> v) {
    if constexpr (__is_arithmetic(T)) __builtin_nontemporal_store(v, p);
    else *p = v;
}
