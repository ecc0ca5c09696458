// Launches one kernel of the suite with CUDA, for compare.py to run under NVIDIA's tools:
//
//     main NAME fault|twin GRID BLOCK SHARED N [MUST]
//     main list
//
// Every buffer is an allocation of its own, of exactly its size, and holds only what mod.rs beside
// the kernels has as initialised. With MUST the first MUST elements of out are copied back after
// the launch, as by a caller who uses them: initcheck asks of memory when somebody reads it.
// Exits with 0, or 1 after a CUDA error, or 2 if called wrongly.

#include <hip/hip_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

// The files give the same names to different constants.
namespace memory {
#include "../memory.hip"
}
namespace race {
#include "../race.hip"
}
namespace init {
#include "../init.hip"
}
namespace barrier {
#include "../barrier.hip"
}
namespace arith {
#include "../arith.hip"
}

// All of them build with CUDA; none is left out.
// clang-format off
#define KERNELS(K) \
    K(memory, q_chunks) K(memory, one_key_more) K(memory, left_neighbour) \
    K(memory, packed_as_padded) K(memory, append_to_input) K(memory, slots_for_wave64) \
    K(memory, dynamic_row_stride) K(memory, ring_negative) K(memory, store_alignment) \
    K(memory, tail_zeroing) K(memory, heads_to_power_of_two) K(memory, lse_is_null) \
    K(memory, copy_beyond_the_last_row) \
    K(race, combine_no_barrier) K(race, refill_early) K(race, one_place_for_all_keys) \
    K(race, syncwarp_for_syncthreads) K(race, tree_without_syncwarp) K(race, batch_stride_zero) \
    K(race, ticket_without_fence) K(race, plain_counter) K(race, atomic_against_plain) \
    K(race, neighbour_halves) K(race, clear_against_partial) K(race, wrong_stage) \
    K(race, read_after_release) K(race, counter_of_its_own) \
    K(init, more_splits_than_threads) K(init, workspace_not_cleared) K(init, tile_padding) \
    K(init, rescales_unset_output) K(init, survives_the_block) K(init, fourth_component) \
    K(init, shuffle_hands_it_on) K(init, vote_on_unset_flag) K(init, block_below_a_wave) \
    K(init, slots_for_wave32) K(init, wave_without_keys) K(init, never_written) \
    K(barrier, barrier_in_tail_test) K(barrier, wave_leaves_early) K(barrier, uneven_trips) \
    K(barrier, barrier_in_each_arm) K(barrier, two_on_one_line) \
    K(barrier, barrier_against_shuffle) K(barrier, vote_mask_too_wide) \
    K(barrier, mask_without_self) K(barrier, takes_from_returned) \
    K(barrier, count_in_divergence) K(barrier, flag_nobody_sets) K(barrier, step_of_zero) \
    K(barrier, reduction_in_each_arm) K(barrier, two_shuffles_meet) \
    K(arith, page_times_stride) K(arith, lane_bit_in_32) K(arith, exponent_below_bias) \
    K(arith, block_shifted_out) K(arith, no_vectors_in_a_row) K(arith, window_of_zero) \
    K(arith, sentinel_divided) K(arith, sentinel_negated) K(arith, stride_added_up) \
    K(arith, window_before_all)
// clang-format on

namespace {

using Kernel = void (*)(float*, const float*, const float*, float*, int);

struct Planted {
    const char* name;
    Kernel fault;
    Kernel twin;
};

#define PLANTED(file, name) {#name, file::name<true>, file::name<false>},
const Planted planted[] = {KERNELS(PLANTED)};

constexpr int ELEMENTS = 1024, ROWS = 8, STRIDE = 32, SEQ_LEN = 5, HEAD_DIM = 24;

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    std::printf("CUDA error: %s: %s: %s\n", what, cudaGetErrorName(error),
                cudaGetErrorString(error));
    std::fflush(stdout);
    std::_Exit(1);
}

float* allocate(int elements) {
    void* at = nullptr;
    check(cudaMalloc(&at, sizeof(float) * elements), "cudaMalloc");
    return static_cast<float*>(at);
}

int usage() {
    std::fprintf(stderr, "usage: main NAME fault|twin GRID BLOCK SHARED N [MUST] | main list\n");
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "list") == 0) {
        for (const Planted& p : planted) std::printf("%s\n", p.name);
        return 0;
    }
    if (argc != 7 && argc != 8) return usage();
    const bool fault = std::strcmp(argv[2], "fault") == 0;
    if (!fault && std::strcmp(argv[2], "twin") != 0) return usage();
    Kernel kernel = nullptr;
    for (const Planted& p : planted) {
        if (std::strcmp(p.name, argv[1]) == 0) kernel = fault ? p.fault : p.twin;
    }
    if (kernel == nullptr) {
        std::fprintf(stderr, "there is no kernel %s\n", argv[1]);
        return 2;
    }
    const auto number = [&](int i) { return static_cast<int>(std::strtol(argv[i], nullptr, 10)); };
    const unsigned int grid = number(3), block = number(4);
    const size_t shared = number(5);
    const int n = number(6), must = argc == 8 ? number(7) : 0;
    if (must < 0 || must > ELEMENTS) return usage();

    float* out = allocate(ELEMENTS);
    float* in = allocate(ELEMENTS);
    float* kv = allocate(ROWS * STRIDE);
    float* scratch = allocate(ELEMENTS);

    static float values[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++) values[i] = static_cast<float>(i);
    check(cudaMemcpy(in, values, sizeof values, cudaMemcpyHostToDevice), "in");
    static float rows[SEQ_LEN][HEAD_DIM];
    for (int row = 0; row < SEQ_LEN; row++) {
        for (int d = 0; d < HEAD_DIM; d++) rows[row][d] = static_cast<float>(row * 100 + d);
    }
    check(cudaMemcpy2D(kv, STRIDE * sizeof(float), rows, sizeof rows[0], sizeof rows[0], SEQ_LEN,
                       cudaMemcpyHostToDevice),
          "kv");
    const int zero = 0;
    check(cudaMemcpy(scratch + ELEMENTS - 1, &zero, sizeof zero, cudaMemcpyHostToDevice),
          "scratch");
    check(cudaDeviceSynchronize(), "before the launch");

    kernel<<<grid, block, shared>>>(out, in, kv, scratch, n);
    check(cudaGetLastError(), "launch");
    check(cudaDeviceSynchronize(), "kernel");
    if (must > 0) {
        static float results[ELEMENTS];
        check(cudaMemcpy(results, out, sizeof(float) * must, cudaMemcpyDeviceToHost), "out");
    }
    for (float* buffer : {out, in, kv, scratch}) check(cudaFree(buffer), "cudaFree");
    std::printf("done\n");
    return 0;
}
