// checked.h: what the compiler's instrumentation calls, handed on to the checker.
//
// The checked build has -fsanitize=thread and parts of -fsanitize=undefined, and is linked without
// either's library: the functions here stand in their place. Included once, by entry.h.
#pragma once
#include "device.h"

attnbench_checks attnbench_checker;
static const attnbench_plain* attnbench_let_pass;

extern "C" ATTNBENCH_HIDDEN const char __start_attnbench_shims[], __stop_attnbench_shims[];

extern "C" ATTNBENCH_EXPORT ATTNBENCH_UNCHECKED void attnbench_attach_checker(
    const attnbench_checks* checks, const attnbench_plain* plain, const char** shims) {
    attnbench_checker = *checks;
    attnbench_let_pass = plain;
    shims[0] = __start_attnbench_shims;
    shims[1] = __stop_attnbench_shims;
}

#define ATTNBENCH_SHIM extern "C" ATTNBENCH_HIDDEN ATTNBENCH_UNCHECKED
#define ATTNBENCH_HERE __builtin_return_address(0)

ATTNBENCH_SHIM void __tsan_init() {}
ATTNBENCH_SHIM void __tsan_func_entry(void*) {}
ATTNBENCH_SHIM void __tsan_func_exit() {}

// A read of shared memory that holds a value, where a barrier lies between the last write and now,
// and which need not be noted: this thread has read it since anything was ordered, or two others
// have (see `is_plainly_ordered` in sanitize/memory.rs).
ATTNBENCH_INLINE bool attnbench_is_well_read(uintptr_t offset) {
    const attnbench_plain& plain = *attnbench_let_pass;
    uint32_t bits;
    __builtin_memcpy(&bits, plain.shared_map + offset, sizeof bits);
    const attnbench_cell& cell = plain.cells[offset / 4];
    const attnbench_record &first = cell.reads[0], &second = cell.reads[1];
    if (bits != 0x07070707u || !plain.races) return bits == 0x07070707u;
    return *plain.loose == 0 && cell.split == 0 && cell.write.time <= *plain.barrier &&
           first.time > plain.waves[first.thread >> plain.wave_shift] &&
           (first.thread == plain.thread ||
            (second.time > plain.waves[second.thread >> plain.wave_shift] &&
             second.thread != first.thread));
}
template <class T>
ATTNBENCH_INLINE bool attnbench_is_well_read(const void* p) {
    const attnbench_plain& plain = *attnbench_let_pass;
    uintptr_t offset = (uintptr_t)p - plain.shared;
    if (sizeof(T) % 4 != 0 || offset % 4 != 0 || offset >= plain.shared_bytes ||
        sizeof(T) > plain.shared_bytes - offset) {
        return false;
    }
    for (unsigned at = 0; at < sizeof(T); at += 4) {
        if (!attnbench_is_well_read(offset + at)) return false;
    }
    return true;
}
// An access to the module's own data, to a variable of the thread's that lies close by, or a read of
// an input that the access map allows (READ and INIT, not WRITE) in rows whose owner is known: none
// of these has anything to tell, and they are most of all accesses.
template <class T>
ATTNBENCH_INLINE bool attnbench_is_private(const void* p) {
    const attnbench_plain& plain = *attnbench_let_pass;
    uintptr_t at = (uintptr_t)p;
    return at - (uintptr_t)__builtin_frame_address(0) < 2048 ||
           at - plain.module < plain.module_bytes;
}
template <class T>
ATTNBENCH_INLINE bool attnbench_is_plain(const void* p) {
    const attnbench_plain& plain = *attnbench_let_pass;
    uintptr_t at = (uintptr_t)p - plain.arena;
    if (at >= plain.limit) return attnbench_is_well_read<T>(p) || attnbench_is_private<T>(p);
    T bits;
    __builtin_memcpy(&bits, plain.map + at, sizeof(T));
    const T ones = (T)((T)~(T)0 / 255);
    return ((bits ^ (T)(5 * ones)) & (T)(7 * ones)) == 0 &&
           (plain.read >> (plain.map[at] >> 4) & 1) != 0;
}

#define ATTNBENCH_BITS_1 uint8_t
#define ATTNBENCH_BITS_2 uint16_t
#define ATTNBENCH_BITS_4 uint32_t
#define ATTNBENCH_BITS_8 uint64_t
#define ATTNBENCH_BITS_16 unsigned __int128

#define ATTNBENCH_ACCESS(name, bytes, what)                                                 \
    ATTNBENCH_SHIM void __tsan_##name(void* p) {                                            \
        typedef ATTNBENCH_BITS_##bytes bits;                                                \
        if ((what) == 0 ? attnbench_is_plain<bits>(p) : attnbench_is_private<bits>(p)) return; \
        attnbench_checker.access(p, bytes | (what), ATTNBENCH_HERE);                        \
    }
#define ATTNBENCH_ACCESSES(bytes)                                                           \
    ATTNBENCH_ACCESS(read##bytes, bytes, 0)                                                 \
    ATTNBENCH_ACCESS(write##bytes, bytes, ATTNBENCH_WRITE)                                  \
    ATTNBENCH_ACCESS(unaligned_read##bytes, bytes, 0)                                       \
    ATTNBENCH_ACCESS(unaligned_write##bytes, bytes, ATTNBENCH_WRITE)                        \
    ATTNBENCH_ACCESS(volatile_read##bytes, bytes, ATTNBENCH_VOLATILE)                       \
    ATTNBENCH_ACCESS(volatile_write##bytes, bytes, ATTNBENCH_VOLATILE | ATTNBENCH_WRITE)    \
    ATTNBENCH_ACCESS(unaligned_volatile_read##bytes, bytes, ATTNBENCH_VOLATILE)             \
    ATTNBENCH_ACCESS(unaligned_volatile_write##bytes, bytes, ATTNBENCH_VOLATILE | ATTNBENCH_WRITE)
ATTNBENCH_ACCESSES(1)
ATTNBENCH_ACCESSES(2)
ATTNBENCH_ACCESSES(4)
ATTNBENCH_ACCESSES(8)
ATTNBENCH_ACCESSES(16)
#undef ATTNBENCH_ACCESSES
#undef ATTNBENCH_ACCESS

ATTNBENCH_SHIM void __tsan_vptr_update(void*, void*) {}
ATTNBENCH_SHIM void __tsan_vptr_read(void*) {}
ATTNBENCH_SHIM void __tsan_read_range(void* p, unsigned long bytes) {
    attnbench_checker.range(p, bytes, 0, ATTNBENCH_HERE);
}
ATTNBENCH_SHIM void __tsan_write_range(void* p, unsigned long bytes) {
    attnbench_checker.range(p, bytes, ATTNBENCH_WRITE, ATTNBENCH_HERE);
}

// Copies: clang calls the first of each pair, g++ the C library, which the link redirects.
extern "C" void* __real_memcpy(void*, const void*, unsigned long);
extern "C" void* __real_memmove(void*, const void*, unsigned long);
extern "C" void* __real_memset(void*, int, unsigned long);
#define ATTNBENCH_COPY(name, real)                                                          \
    ATTNBENCH_SHIM void* name(void* to, const void* from, unsigned long bytes) {            \
        attnbench_checker.range(from, bytes, 0, ATTNBENCH_HERE);                            \
        attnbench_checker.range(to, bytes, ATTNBENCH_WRITE, ATTNBENCH_HERE);                \
        return real(to, from, bytes);                                                       \
    }
ATTNBENCH_COPY(__tsan_memcpy, __real_memcpy)
ATTNBENCH_COPY(__wrap_memcpy, __real_memcpy)
ATTNBENCH_COPY(__tsan_memmove, __real_memmove)
ATTNBENCH_COPY(__wrap_memmove, __real_memmove)
#undef ATTNBENCH_COPY
#define ATTNBENCH_SET(name)                                                                 \
    ATTNBENCH_SHIM void* name(void* to, int byte, unsigned long bytes) {                    \
        attnbench_checker.range(to, bytes, ATTNBENCH_WRITE, ATTNBENCH_HERE);                \
        return __real_memset(to, byte, bytes);                                              \
    }
ATTNBENCH_SET(__tsan_memset)
ATTNBENCH_SET(__wrap_memset)
#undef ATTNBENCH_SET

// The language's own atomics.
constexpr uint32_t attnbench_ordered(int order) {
    return order == __ATOMIC_RELEASE || order >= __ATOMIC_ACQ_REL ? ATTNBENCH_RELEASE : 0u;
}
#define ATTNBENCH_TOLD(T, p, what)                                                          \
    attnbench_checker.atomic((const void*)(p), (uint32_t)sizeof(T) | (what), ATTNBENCH_HERE)
#define ATTNBENCH_FETCH(bits, T, uses, name, ...)                                                 \
    ATTNBENCH_SHIM T __tsan_atomic##bits##_##name(volatile T* p, T v, int order) {          \
        ATTNBENCH_TOLD(T, p, ATTNBENCH_WRITE | (uses) | attnbench_ordered(order));          \
        T old = *p;                                                                         \
        *p = (T)(__VA_ARGS__);                                                              \
        return old;                                                                         \
    }
#define ATTNBENCH_SWAP(bits, T, name)                                                       \
    ATTNBENCH_SHIM int __tsan_atomic##bits##_##name(volatile T* p, T* expected, T desired,  \
                                                    int order, int) {                       \
        ATTNBENCH_TOLD(T, p, ATTNBENCH_WRITE | ATTNBENCH_UPDATE | attnbench_ordered(order)); \
        T old = *p;                                                                         \
        bool same = old == *expected;                                                       \
        if (same) *p = desired;                                                             \
        else *expected = old;                                                               \
        return same;                                                                        \
    }
#define ATTNBENCH_ATOMICS(bits, T)                                                          \
    ATTNBENCH_SHIM T __tsan_atomic##bits##_load(const volatile T* p, int order) {           \
        ATTNBENCH_TOLD(T, p, attnbench_ordered(order));                                     \
        return *p;                                                                          \
    }                                                                                       \
    ATTNBENCH_SHIM void __tsan_atomic##bits##_store(volatile T* p, T v, int order) {        \
        ATTNBENCH_TOLD(T, p, ATTNBENCH_WRITE | attnbench_ordered(order));                   \
        *p = v;                                                                             \
    }                                                                                       \
    ATTNBENCH_FETCH(bits, T, 0, exchange, v)                                                   \
    ATTNBENCH_FETCH(bits, T, ATTNBENCH_UPDATE, fetch_add, old + v)                                            \
    ATTNBENCH_FETCH(bits, T, ATTNBENCH_UPDATE, fetch_sub, old - v)                                            \
    ATTNBENCH_FETCH(bits, T, ATTNBENCH_UPDATE, fetch_and, old & v)                                            \
    ATTNBENCH_FETCH(bits, T, ATTNBENCH_UPDATE, fetch_or, old | v)                                             \
    ATTNBENCH_FETCH(bits, T, ATTNBENCH_UPDATE, fetch_xor, old ^ v)                                            \
    ATTNBENCH_FETCH(bits, T, ATTNBENCH_UPDATE, fetch_nand, ~(old & v))                                        \
    ATTNBENCH_SWAP(bits, T, compare_exchange_strong)                                        \
    ATTNBENCH_SWAP(bits, T, compare_exchange_weak)                                          \
    ATTNBENCH_SHIM T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T expected,  \
                                                                T desired, int order, int) { \
        ATTNBENCH_TOLD(T, p, ATTNBENCH_WRITE | ATTNBENCH_UPDATE | attnbench_ordered(order)); \
        T old = *p;                                                                         \
        if (old == expected) *p = desired;                                                  \
        return old;                                                                         \
    }
ATTNBENCH_ATOMICS(8, unsigned char)
ATTNBENCH_ATOMICS(16, unsigned short)
ATTNBENCH_ATOMICS(32, unsigned int)
ATTNBENCH_ATOMICS(64, unsigned long)
#undef ATTNBENCH_ATOMICS
#undef ATTNBENCH_SWAP
#undef ATTNBENCH_FETCH
#undef ATTNBENCH_TOLD
ATTNBENCH_SHIM void __tsan_atomic_thread_fence(int) { attnbench_checker.fence(0, ATTNBENCH_HERE); }
ATTNBENCH_SHIM void __tsan_atomic_signal_fence(int) {}

// Undefined arithmetic; the numbers are those of `Undefined` in sanitize/undefined.rs.
#define ATTNBENCH_UNDEFINED(name, kind)                                                     \
    ATTNBENCH_SHIM void __ubsan_handle_##name(const void* data, uint64_t a, uint64_t b) {   \
        attnbench_checker.undefined(kind, data, a, b, ATTNBENCH_HERE);                      \
    }
ATTNBENCH_UNDEFINED(add_overflow, 0)
ATTNBENCH_UNDEFINED(sub_overflow, 1)
ATTNBENCH_UNDEFINED(mul_overflow, 2)
ATTNBENCH_UNDEFINED(negate_overflow, 3)
ATTNBENCH_UNDEFINED(divrem_overflow, 4)
ATTNBENCH_UNDEFINED(shift_out_of_bounds, 5)
ATTNBENCH_UNDEFINED(out_of_bounds, 6)
ATTNBENCH_UNDEFINED(type_mismatch_v1, 7)
#undef ATTNBENCH_UNDEFINED
#undef ATTNBENCH_HERE
#undef ATTNBENCH_SHIM
