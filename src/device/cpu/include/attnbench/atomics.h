// atomics.h: all threads of a launch run on one OS thread, so an atomic is a plain access.
#pragma once
#include "device.h"

template <class T> struct attnbench_same { using type = T; };
// The value's type follows the pointer's: atomicAdd(&float, 1) converts the 1.
template <class T> using attnbench_of = typename attnbench_same<T>::type;

#define ATTNBENCH_ATOMIC(name, ...)                                             \
    template <class T>                                                          \
    static inline T name(T* p, attnbench_of<T> v) {                             \
        T old = *p;                                                             \
        *p = __VA_ARGS__;                                                       \
        return old;                                                             \
    }
ATTNBENCH_ATOMIC(atomicAdd, old + v)
ATTNBENCH_ATOMIC(unsafeAtomicAdd, old + v)
ATTNBENCH_ATOMIC(atomicSub, old - v)
ATTNBENCH_ATOMIC(atomicMax, old < v ? v : old)
ATTNBENCH_ATOMIC(atomicMin, v < old ? v : old)
ATTNBENCH_ATOMIC(atomicExch, v)
ATTNBENCH_ATOMIC(atomicOr, old | v)
ATTNBENCH_ATOMIC(atomicAnd, old & v)
ATTNBENCH_ATOMIC(atomicXor, old ^ v)
ATTNBENCH_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
ATTNBENCH_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef ATTNBENCH_ATOMIC

template <class T>
static inline T atomicCAS(T* p, attnbench_of<T> expected, attnbench_of<T> desired) {
    T old = *p;
    if (old == expected) *p = desired;
    return old;
}

static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

#define __HIP_MEMORY_SCOPE_SINGLETHREAD 1
#define __HIP_MEMORY_SCOPE_WAVEFRONT 2
#define __HIP_MEMORY_SCOPE_WORKGROUP 3
#define __HIP_MEMORY_SCOPE_AGENT 4
#define __HIP_MEMORY_SCOPE_SYSTEM 5

// Clang keeps these names for itself in every language, so they are macros.
#define __hip_atomic_load(p, order, scope) (*(p))
#define __hip_atomic_store(p, v, order, scope) ((void)(*(p) = (v)))
#define __hip_atomic_fetch_add(p, v, order, scope) atomicAdd((p), (v))
#define __hip_atomic_fetch_max(p, v, order, scope) atomicMax((p), (v))
#define __hip_atomic_fetch_min(p, v, order, scope) atomicMin((p), (v))
#define __hip_atomic_exchange(p, v, order, scope) atomicExch((p), (v))

template <class T>
static inline T __ldg(const T* p) { return *p; }
template <class T>
static inline T __ldcs(const T* p) { return *p; }
template <class T>
static inline T __ldcg(const T* p) { return *p; }
template <class T>
static inline void __stcs(T* p, attnbench_of<T> v) { *p = v; }
