// beside.hip: around runs side by side. What the host need not move is made and looked at here.
#include <hip/hip_runtime.h>

typedef unsigned long long word_t;

// Fills parts of the arena from others of it, before the runs. One row of blocks (blockIdx.y) a part, of
// five words of 8 bytes in `table`: where from, where to, bytes, bytes of an element (1, 2, 4, 8), and
// the element, as often as a word holds it. It takes the place of elements whose bits are all set.
// Launch: any grid (x, parts) and block, of one dimension. Requires: places and bytes multiples of 8; no
// part lies where another comes from.
extern "C" __global__ void attnbench_exchange(char *given, const word_t *table) {
    const word_t *part = table + 5 * blockIdx.y;
    const word_t *from = (const word_t *)(given + part[0]);
    word_t *to = (word_t *)(given + part[1]);
    const word_t words = part[2] / 8, bits = 8 * part[3], element = part[4];
    const word_t thread = (word_t)blockIdx.x * blockDim.x + threadIdx.x;
    const word_t threads = (word_t)gridDim.x * blockDim.x;
    for (word_t i = thread; i < words; i += threads) {
        const word_t old = from[i];
        word_t made = 0;
        for (word_t at = 0; at < 64; at += bits) {
            const word_t mask = (~(word_t)0 >> (64 - bits)) << at;
            made |= mask & ((old & mask) == mask ? element : old);
        }
        to[i] = made;
    }
}

// What each run changed and might not, after them, and all their outputs together.
//
// One row of blocks (blockIdx.y) a run. Its table, in words of 8 bytes: where it begins, its bytes,
// the number of ranges that may change, how many of them are outputs (the first), and of each range its
// begin, its end and, of an output, where it is wanted. `given` and `left` are the arena before and after.
// first[run] gets the offset of the first byte that changed outside of the ranges; it was ~0.
// Launch: any grid (x, runs) and block, of one dimension. Requires: begins and bytes multiples of 8.
extern "C" __global__ void attnbench_changed(
    const char *given, const char *left, const word_t *tables, word_t table_words, word_t *first,
    char *together) {
    const word_t *table = tables + blockIdx.y * table_words;
    const word_t begin = table[0], bytes = table[1], ranges = table[2], outputs = table[3];
    const word_t *range = table + 4;
    const word_t thread = (word_t)blockIdx.x * blockDim.x + threadIdx.x;
    const word_t threads = (word_t)gridDim.x * blockDim.x;

    const word_t *before = (const word_t *)(given + begin), *after = (const word_t *)(left + begin);
    for (word_t i = thread; i < bytes / 8; i += threads) {
        const word_t difference = before[i] ^ after[i];
        for (int byte = 0; difference != 0 && byte < 8; ++byte) {
            if (((difference >> (8 * byte)) & 0xff) == 0) continue;
            const word_t at = begin + 8 * i + byte;
            bool may = false;
            for (word_t r = 0; r < ranges; ++r) {
                may = may || (range[3 * r] <= at && at < range[3 * r + 1]);
            }
            if (!may) atomicMin(&first[blockIdx.y], at);
        }
    }
    for (word_t r = 0; r < outputs; ++r) {
        const word_t from = range[3 * r], count = range[3 * r + 1] - from, to = range[3 * r + 2];
        for (word_t i = thread; i < count; i += threads) together[to + i] = left[from + i];
    }
}
