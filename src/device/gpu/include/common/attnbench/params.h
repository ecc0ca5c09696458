// params.h: leaves in a module, for each kernel wanted, what its parameters are.
//
// `attnbench_params_N` is read from the binary: the number of parameters, then for each one its kind
// and size, kind << 16 | bytes (the same as in the CPU device's entry.h). `attnbench_types_N` holds their
// types, as the compiler writes them in the name of a function template over them.
#pragma once

template <class T> struct attnbench_kind { static const unsigned int value = 0; };
template <class T> struct attnbench_kind<T *> { static const unsigned int value = 1; };
#define ATTNBENCH_KIND(type, kind) \
    template <> struct attnbench_kind<type> { static const unsigned int value = kind; };
ATTNBENCH_KIND(bool, 2)
ATTNBENCH_KIND(char, 2)
ATTNBENCH_KIND(signed char, 2)
ATTNBENCH_KIND(unsigned char, 2)
ATTNBENCH_KIND(short, 2)
ATTNBENCH_KIND(unsigned short, 2)
ATTNBENCH_KIND(int, 2)
ATTNBENCH_KIND(unsigned int, 2)
ATTNBENCH_KIND(long, 2)
ATTNBENCH_KIND(unsigned long, 2)
ATTNBENCH_KIND(long long, 2)
ATTNBENCH_KIND(unsigned long long, 2)
ATTNBENCH_KIND(float, 3)
ATTNBENCH_KIND(double, 3)
#undef ATTNBENCH_KIND

template <class... P> constexpr const char *attnbench_types_in() { return __PRETTY_FUNCTION__; }
constexpr unsigned attnbench_length(const char *text) {
    unsigned n = 0;
    while (text[n] != 0) ++n;
    return n;
}
template <unsigned N> struct attnbench_text { char text[N + 1]; };
template <unsigned N> constexpr attnbench_text<N> attnbench_copy(const char *from) {
    attnbench_text<N> to = {};
    for (unsigned i = 0; i < N; ++i) to.text[i] = from[i];
    return to;
}

template <unsigned N> struct attnbench_params { unsigned int count, params[N + 1]; };
template <class F> struct attnbench_entry;
template <class... P> struct attnbench_entry<void (*)(P...)> {
    typedef attnbench_params<sizeof...(P)> type;
    typedef attnbench_text<attnbench_length(attnbench_types_in<P...>())> types_type;
    static constexpr types_type types() {
        return attnbench_copy<attnbench_length(attnbench_types_in<P...>())>(attnbench_types_in<P...>());
    }
    static constexpr type params() {
        return type{sizeof...(P), {(attnbench_kind<P>::value << 16 | (unsigned int)sizeof(P))..., 0}};
    }
};

#define ATTNBENCH_ENTRY(N, ...)                                                              \
    typedef attnbench_entry<decltype(&__VA_ARGS__)> attnbench_entry_##N;                     \
    extern "C" __device__ __attribute__((used)) const attnbench_entry_##N::type              \
        attnbench_params_##N = attnbench_entry_##N::params();                                \
    extern "C" __device__ __attribute__((used)) const attnbench_entry_##N::types_type        \
        attnbench_types_##N = attnbench_entry_##N::types();
