// entry.h: how the scheduler calls a kernel, and what it is told of the kernel's parameters.
//
// Included once, by the generated translation unit, after the user's source.
#pragma once
#include "device.h"
#include <stdio.h>
#ifdef ATTNBENCH_CHECKED
#include "checked.h"
#endif

enum : uint32_t {
    ATTNBENCH_POINTER = 1,
    ATTNBENCH_INT = 2,
    ATTNBENCH_FLOAT = 3,
    ATTNBENCH_OTHER = 4
};

template <class T> struct attnbench_is_pointer { static constexpr bool value = false; };
template <class T> struct attnbench_is_pointer<T*> { static constexpr bool value = true; };
template <class T> struct attnbench_is_pointer<T* const> { static constexpr bool value = true; };
template <class T> struct attnbench_is_float { static constexpr bool value = false; };
template <> struct attnbench_is_float<float> { static constexpr bool value = true; };
template <> struct attnbench_is_float<double> { static constexpr bool value = true; };
template <class T> struct attnbench_is_int { static constexpr bool value = __is_enum(T); };
#define ATTNBENCH_INTEGER(T) \
    template <> struct attnbench_is_int<T> { static constexpr bool value = true; };
ATTNBENCH_INTEGER(bool)
ATTNBENCH_INTEGER(char)
ATTNBENCH_INTEGER(signed char)
ATTNBENCH_INTEGER(unsigned char)
ATTNBENCH_INTEGER(short)
ATTNBENCH_INTEGER(unsigned short)
ATTNBENCH_INTEGER(int)
ATTNBENCH_INTEGER(unsigned int)
ATTNBENCH_INTEGER(long)
ATTNBENCH_INTEGER(unsigned long)
ATTNBENCH_INTEGER(long long)
ATTNBENCH_INTEGER(unsigned long long)
#undef ATTNBENCH_INTEGER

template <class T>
constexpr uint32_t attnbench_kind() {
    return attnbench_is_pointer<T>::value ? ATTNBENCH_POINTER
         : attnbench_is_float<T>::value   ? ATTNBENCH_FLOAT
         : attnbench_is_int<T>::value     ? ATTNBENCH_INT
                                          : ATTNBENCH_OTHER;
}

// Count, then kind << 16 | bytes of each parameter.
template <unsigned N>
struct attnbench_params {
    uint32_t count;
    uint32_t params[N + 1];
};

// The types of a kernel's parameters as the compiler writes them, within the name of this function.
template <class... P>
constexpr const char* attnbench_types_in() { return __PRETTY_FUNCTION__; }

constexpr unsigned attnbench_length(const char* text) {
    unsigned n = 0;
    while (text[n] != 0) ++n;
    return n;
}

template <unsigned N>
struct attnbench_text {
    char text[N + 1];
};

template <unsigned N>
constexpr attnbench_text<N> attnbench_copy(const char* from) {
    attnbench_text<N> to = {};
    for (unsigned i = 0; i < N; ++i) to.text[i] = from[i];
    return to;
}

template <unsigned... I> struct attnbench_indices {};
template <unsigned N, unsigned... I>
struct attnbench_count : attnbench_count<N - 1, N - 1, I...> {};
template <unsigned... I>
struct attnbench_count<0, I...> { using type = attnbench_indices<I...>; };

#ifdef ATTNBENCH_CHECKED
// The arguments are the host's memory, not the kernel's.
#define ATTNBENCH_HOST __attribute__((no_sanitize("thread", "undefined")))
#else
#define ATTNBENCH_HOST
#endif

// Arguments of up to 8 bytes lie in the low bytes of a word each; a larger one (which no launch
// can hold, so it is refused before) must only compile.
template <class T>
ATTNBENCH_HOST static inline T attnbench_word(const uint64_t* words, unsigned index) {
    T value;
    __builtin_memcpy(&value, words + index, sizeof(T) < 8 ? sizeof(T) : 8);
    return value;
}

template <auto F> struct attnbench_entry;
template <class... P, void (*F)(P...)>
struct attnbench_entry<F> {
    static constexpr attnbench_params<sizeof...(P)> params = {
        sizeof...(P), {(attnbench_kind<P>() << 16 | (uint32_t)sizeof(P))..., 0}};
    static constexpr auto types =
        attnbench_copy<attnbench_length(attnbench_types_in<P...>())>(attnbench_types_in<P...>());
    template <unsigned... I>
    ATTNBENCH_HOST static inline void unpack(const uint64_t* words, attnbench_indices<I...>) {
        F(attnbench_word<P>(words, I)...);
    }
    ATTNBENCH_HOST static inline void call(const uint64_t* words) {
        unpack(words, typename attnbench_count<sizeof...(P)>::type());
    }
};

#define ATTNBENCH_ENTRY(N, ...)                                                             \
    using attnbench_entry_##N = attnbench_entry<&__VA_ARGS__>;                              \
    extern "C" ATTNBENCH_EXPORT ATTNBENCH_HOST void attnbench_call_##N(const uint64_t* words) { \
        attnbench_entry_##N::call(words);                                                   \
    }                                                                                       \
    extern "C" ATTNBENCH_EXPORT const auto attnbench_params_##N = attnbench_entry_##N::params; \
    extern "C" ATTNBENCH_EXPORT const auto attnbench_types_##N = attnbench_entry_##N::types;

// The most threads of a block, by the kernel's __launch_bounds__; 0 where it says nothing.
#define ATTNBENCH_BOUNDS(N, ...) \
    extern "C" ATTNBENCH_EXPORT const uint32_t attnbench_bounds_##N = (uint32_t)(__VA_ARGS__);

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
attnbench_calls attnbench_host;
// Atomics of the launch under way.
uint32_t attnbench_atomics;

// Defined, with every name declared `extern __shared__`, by the assembly linked to this.
extern "C" ATTNBENCH_HIDDEN __thread char attnbench_dynamic_shared[];

extern "C" ATTNBENCH_EXPORT ATTNBENCH_HOST void attnbench_attach(const attnbench_calls* calls,
                                                  attnbench_attached* out) {
    attnbench_host = *calls;
    attnbench_atomics = 0;
    *out = attnbench_attached{&threadIdx, &blockIdx, &blockDim, &gridDim,
                              &attnbench_dynamic_shared};
}

// The C library's assert and abort end here: the link binds a module's own definitions first.
extern "C" ATTNBENCH_EXPORT void __assert_fail(const char* what, const char* file,
                                               unsigned int line, const char*) noexcept {
    attnbench_trap(what, file, line);
}
extern "C" ATTNBENCH_EXPORT void abort() noexcept { attnbench_trap("abort", nullptr, 0); }
// What the compiler calls where a function's frame was overwritten.
extern "C" ATTNBENCH_HIDDEN ATTNBENCH_HOST __attribute__((noreturn)) void __stack_chk_fail() {
    attnbench_host.overwritten();
    __builtin_unreachable();
}
