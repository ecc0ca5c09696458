// device.h: what a kernel module and the program that runs it agree on.
//
// The scheduler writes the thread's coordinates before it resumes a thread, and hands the module
// a table of functions that may suspend it. Nothing here may be cached across such a call, so
// none of these functions is pure, const or leaf.
#pragma once
#include <stdint.h>

#define ATTNBENCH_EXPORT __attribute__((visibility("default")))
#define ATTNBENCH_HIDDEN __attribute__((visibility("hidden")))

struct uint3 { unsigned int x, y, z; };

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
        : x(x_), y(y_), z(z_) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return uint3{x, y, z}; }
};

// What a lane asks of its wave. STRICT marks the forms with a mask argument.
enum : uint32_t {
    ATTNBENCH_SHUFFLE = 0,
    ATTNBENCH_BALLOT = 1,
    ATTNBENCH_SYNC = 2,
    ATTNBENCH_STRICT = 16,
    // A shuffle along the lanes, at whose end there is nothing to take.
    ATTNBENCH_ALONG = 32
};

// The same struct as `Calls` in sched.rs.
struct attnbench_calls {
    // Waits for the block; answers how many threads voted.
    uint32_t (*barrier)(uint32_t vote);
    // Waits for the lanes of `mask` in the caller's wave; answers another lane's value or a ballot.
    uint64_t (*wave)(uint32_t what, uint64_t mask, uint64_t value, uint32_t source);
    // Ends the launch.
    void (*trap)(const char* what, const char* file, uint32_t line);
    // Lets other threads of the block run first.
    void (*give_way)();
    // Ends the process: a function's frame was overwritten.
    void (*overwritten)();
};

// The same struct as `Attached` in module.rs.
struct attnbench_attached {
    uint3* thread_idx;
    uint3* block_idx;
    dim3* block_dim;
    dim3* grid_dim;
    void* dynamic_shared;
};

// What an access is, in the checked build: bytes in the low byte, and these.
enum : uint32_t {
    ATTNBENCH_WRITE = 1 << 8,
    ATTNBENCH_VOLATILE = 1 << 9,
    ATTNBENCH_ATOMIC = 1 << 10,
    ATTNBENCH_RELEASE = 1 << 11,
    // Ordered within the block only.
    ATTNBENCH_BLOCK = 1 << 12,
    // A write that uses what was there.
    ATTNBENCH_UPDATE = 1 << 13
};

// The same struct as `Checks` in sanitize/mod.rs. `pc` is the address after the call.
struct attnbench_checks {
    // A memory access that is about to happen.
    void (*access)(const void* p, uint32_t what, const void* pc);
    void (*range)(const void* p, uint64_t bytes, uint32_t what, const void* pc);
    // An atomic access that is about to happen, and a fence (ATTNBENCH_BLOCK or 0).
    void (*atomic)(const void* p, uint32_t what, const void* pc);
    void (*fence)(uint32_t scope, const void* pc);
    // The thread is about to wait: at barrier `number`, or for lanes of its wave (0).
    void (*at)(uint32_t number, const void* pc);
    // Undefined arithmetic: what, the compiler's description of it, and the operands.
    void (*undefined)(uint32_t kind, const void* data, uint64_t a, uint64_t b, const void* pc);
};

// What may pass without being told. The same struct as `Plain` in sanitize/memory.rs.
struct attnbench_plain {
    uintptr_t arena;
    uintptr_t limit;
    const uint8_t* map;
    uint64_t read;
    uintptr_t module;
    uintptr_t module_bytes;
    // Shared memory, its map, and for each word of it who touched it last.
    uintptr_t shared;
    uintptr_t shared_bytes;
    const uint8_t* shared_map;
    const struct attnbench_cell* cells;
    // When the block last passed a barrier, and when each wave had its last exchange since.
    const uint32_t* barrier;
    const uint32_t* waves;
    // Not 0 where anything else has ordered threads since the last barrier.
    const uint32_t* loose;
    uint32_t wave_shift;
    uint32_t thread;
    // Whether races are looked for.
    uint32_t races;
};

// The same struct as `Cell` in sanitize/shadow.rs.
struct attnbench_record {
    uint32_t time;
    uint16_t thread, how;
    uint32_t pc;
};
struct attnbench_cell {
    attnbench_record write, reads[2];
    uint32_t split;
};

ATTNBENCH_HIDDEN extern uint3 threadIdx;
ATTNBENCH_HIDDEN extern uint3 blockIdx;
ATTNBENCH_HIDDEN extern dim3 blockDim;
ATTNBENCH_HIDDEN extern dim3 gridDim;
ATTNBENCH_HIDDEN extern attnbench_calls attnbench_host;

#ifdef ATTNBENCH_CHECKED
ATTNBENCH_HIDDEN extern attnbench_checks attnbench_checker;
// Ours, called by a kernel: its return address is the place in the kernel. They lie together, so that
// it can be told whether the kernel or one of them runs; the linker names the section's ends.
#ifdef __clang__
// why: two calls made one have no line.
#define ATTNBENCH_UNCHECKED                                                                 \
    __attribute__((noinline, nomerge, no_sanitize("thread", "undefined"),                   \
                   section("attnbench_shims")))
#else
#define ATTNBENCH_UNCHECKED                                                                 \
    __attribute__((noinline, no_sanitize("thread", "undefined"), section("attnbench_shims")))
#endif
// Between the kernel and those: all of it at the kernel's own place.
#define ATTNBENCH_INLINE static inline __attribute__((always_inline))
#else
#define ATTNBENCH_UNCHECKED inline
#define ATTNBENCH_INLINE static inline
#endif

constexpr int warpSize = ATTNBENCH_WAVE;

// Left as they are for whoever reads the kernels' declarations: `bounds.rs`.
#ifndef ATTNBENCH_DECLARATIONS
#define __global__
#define __launch_bounds__(...)
#endif
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
// One object for each OS thread; a block stays on one.
#define __shared__ thread_local

[[noreturn]] inline void attnbench_trap(const char* what, const char* file, uint32_t line) {
    attnbench_host.trap(what, file, line);
    __builtin_unreachable();
}

[[noreturn]] inline void __trap() { attnbench_trap("trap", nullptr, 0); }
