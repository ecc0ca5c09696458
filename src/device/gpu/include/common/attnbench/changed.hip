// changed.hip: after runs side by side, what each changed and might not, and all their outputs together.
//
// One row of blocks (blockIdx.y) a run. Its table, in words of 8 bytes: where it begins, its bytes,
// the number of ranges that may change, how many of them are outputs (the first), and of each range its
// begin, its end and, of an output, where it is wanted. `given` and `left` are the arena before and after.
// first[run] gets the offset of the first byte that changed outside of the ranges; it was ~0.
// Launch: any grid (x, runs) and block, of one dimension. Requires: begins and bytes multiples of 8.
#include <hip/hip_runtime.h>

typedef unsigned long long word_t;

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
