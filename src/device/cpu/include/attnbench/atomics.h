// atomics.h: all threads of a launch run on one OS thread, so an atomic is a plain access; the
// checked build is told that it is one, and the plain one lets others run at every 64th.
#pragma once
#include "device.h"

template <class T> struct attnbench_same { using type = T; };
// The value's type follows the pointer's: atomicAdd(&float, 1) converts the 1.
template <class T> using attnbench_of = typename attnbench_same<T>::type;

#ifdef ATTNBENCH_CHECKED
#define ATTNBENCH_TELL(p, what)                                                 \
    attnbench_checker.atomic((const void*)(p), (uint32_t)sizeof(*(p)) | (what),  \
                             __builtin_return_address(0))
#else
// A thread may wait for another by an atomic: the compiler keeps the loop, and now and then the others
// run. (The checked build lets them at any access.)
ATTNBENCH_HIDDEN extern uint32_t attnbench_atomics;
ATTNBENCH_INLINE void attnbench_may_wait() {
    __asm__ volatile("" ::: "memory");
    if (++attnbench_atomics % 64 == 0) attnbench_host.give_way();
}
#define ATTNBENCH_TELL(p, what) attnbench_may_wait()
#endif

// Each in the forms NAME, NAME_block, NAME_system, and NAME_as with order and scope in `what`.
#define ATTNBENCH_ATOMIC(name, uses, ...)                                             \
    template <class T>                                                          \
    ATTNBENCH_UNCHECKED static T name##_as(T* p, attnbench_of<T> v, uint32_t what) { \
        ATTNBENCH_TELL(p, what | ATTNBENCH_WRITE | (uses));                      \
        T old = *p;                                                             \
        *p = __VA_ARGS__;                                                       \
        return old;                                                             \
    }                                                                           \
    template <class T>                                                          \
    ATTNBENCH_INLINE T name(T* p, attnbench_of<T> v) { return name##_as<T>(p, v, 0); } \
    template <class T>                                                          \
    ATTNBENCH_INLINE T name##_system(T* p, attnbench_of<T> v) { return name##_as<T>(p, v, 0); } \
    template <class T>                                                          \
    ATTNBENCH_INLINE T name##_block(T* p, attnbench_of<T> v) {                   \
        return name##_as<T>(p, v, ATTNBENCH_BLOCK);                              \
    }
ATTNBENCH_ATOMIC(atomicAdd, ATTNBENCH_UPDATE, old + v)
ATTNBENCH_ATOMIC(unsafeAtomicAdd, ATTNBENCH_UPDATE, old + v)
ATTNBENCH_ATOMIC(atomicSub, ATTNBENCH_UPDATE, old - v)
ATTNBENCH_ATOMIC(atomicMax, ATTNBENCH_UPDATE, old < v ? v : old)
ATTNBENCH_ATOMIC(atomicMin, ATTNBENCH_UPDATE, v < old ? v : old)
ATTNBENCH_ATOMIC(atomicExch, 0, v)
ATTNBENCH_ATOMIC(atomicOr, ATTNBENCH_UPDATE, old | v)
ATTNBENCH_ATOMIC(atomicAnd, ATTNBENCH_UPDATE, old & v)
ATTNBENCH_ATOMIC(atomicXor, ATTNBENCH_UPDATE, old ^ v)
ATTNBENCH_ATOMIC(atomicInc, ATTNBENCH_UPDATE, old >= v ? 0 : old + 1)
ATTNBENCH_ATOMIC(atomicDec, ATTNBENCH_UPDATE, old == 0 || old > v ? v : old - 1)
#undef ATTNBENCH_ATOMIC

template <class T>
ATTNBENCH_UNCHECKED static T attnbench_cas(T* p, T expected, T desired, uint32_t what) {
    ATTNBENCH_TELL(p, what | ATTNBENCH_WRITE | ATTNBENCH_UPDATE);
    T old = *p;
    if (old == expected) *p = desired;
    return old;
}
template <class T>
ATTNBENCH_INLINE T atomicCAS(T* p, attnbench_of<T> expected, attnbench_of<T> desired) {
    return attnbench_cas<T>(p, expected, desired, 0);
}
template <class T>
ATTNBENCH_INLINE T atomicCAS_block(T* p, attnbench_of<T> expected, attnbench_of<T> desired) {
    return attnbench_cas<T>(p, expected, desired, ATTNBENCH_BLOCK);
}

template <class T>
ATTNBENCH_INLINE T atomicCAS_system(T* p, attnbench_of<T> expected, attnbench_of<T> desired) {
    return attnbench_cas<T>(p, expected, desired, 0);
}
template <class T>
ATTNBENCH_INLINE bool attnbench_exchange(T* p, T* expected, attnbench_of<T> desired, uint32_t what) {
    T old = attnbench_cas<T>(p, *expected, desired, what);
    bool same = old == *expected;
    if (!same) *expected = old;
    return same;
}

template <class T>
ATTNBENCH_UNCHECKED static T attnbench_load(const T* p, uint32_t what) {
    ATTNBENCH_TELL(p, what);
    return *p;
}
template <class T>
ATTNBENCH_UNCHECKED static void attnbench_store(T* p, attnbench_of<T> v, uint32_t what) {
    ATTNBENCH_TELL(p, what | ATTNBENCH_WRITE);
    *p = v;
}

ATTNBENCH_UNCHECKED static void attnbench_fence(uint32_t scope) {
#ifdef ATTNBENCH_CHECKED
    attnbench_checker.fence(scope, __builtin_return_address(0));
#endif
    // The compiler keeps to it, too.
    __asm__ volatile("" ::: "memory");
}
ATTNBENCH_INLINE void __threadfence() { attnbench_fence(0); }
ATTNBENCH_INLINE void __threadfence_block() { attnbench_fence(ATTNBENCH_BLOCK); }
ATTNBENCH_INLINE void __threadfence_system() { attnbench_fence(0); }

#define __HIP_MEMORY_SCOPE_SINGLETHREAD 1
#define __HIP_MEMORY_SCOPE_WAVEFRONT 2
#define __HIP_MEMORY_SCOPE_WORKGROUP 3
#define __HIP_MEMORY_SCOPE_AGENT 4
#define __HIP_MEMORY_SCOPE_SYSTEM 5

constexpr uint32_t attnbench_what(int order, int scope) {
    return (order == __ATOMIC_RELEASE || order >= __ATOMIC_ACQ_REL ? ATTNBENCH_RELEASE : 0u) |
           (scope <= __HIP_MEMORY_SCOPE_WORKGROUP ? ATTNBENCH_BLOCK : 0u);
}

// Clang keeps these names for itself in every language, so they are macros.
#define __hip_atomic_load(p, order, scope) attnbench_load((p), attnbench_what(order, scope))
#define __hip_atomic_store(p, v, order, scope) \
    attnbench_store((p), (v), attnbench_what(order, scope))
#define __hip_atomic_fetch_add(p, v, order, scope) \
    atomicAdd_as((p), (v), attnbench_what(order, scope))
#define __hip_atomic_fetch_sub(p, v, order, scope) \
    atomicSub_as((p), (v), attnbench_what(order, scope))
#define __hip_atomic_fetch_xor(p, v, order, scope) \
    atomicXor_as((p), (v), attnbench_what(order, scope))
#define __hip_atomic_compare_exchange_strong(p, expected, v, order, failure, scope) \
    attnbench_exchange((p), (expected), (v), attnbench_what(order, scope))
#define __hip_atomic_compare_exchange_weak(p, expected, v, order, failure, scope) \
    attnbench_exchange((p), (expected), (v), attnbench_what(order, scope))
#define __hip_atomic_fetch_or(p, v, order, scope) atomicOr_as((p), (v), attnbench_what(order, scope))
#define __hip_atomic_fetch_and(p, v, order, scope) \
    atomicAnd_as((p), (v), attnbench_what(order, scope))
#define __hip_atomic_fetch_max(p, v, order, scope) \
    atomicMax_as((p), (v), attnbench_what(order, scope))
#define __hip_atomic_fetch_min(p, v, order, scope) \
    atomicMin_as((p), (v), attnbench_what(order, scope))
#define __hip_atomic_exchange(p, v, order, scope) \
    atomicExch_as((p), (v), attnbench_what(order, scope))

template <class T>
ATTNBENCH_INLINE T __ldg(const T* p) { return *p; }
template <class T>
ATTNBENCH_INLINE T __ldcs(const T* p) { return *p; }
template <class T>
ATTNBENCH_INLINE T __ldcg(const T* p) { return *p; }
template <class T>
ATTNBENCH_INLINE void __stcs(T* p, attnbench_of<T> v) { *p = v; }
