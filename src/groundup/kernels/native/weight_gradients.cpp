// Weight gradients dW = dY^T X, summed over all tokens in fp32. BLAS libraries run this matmul at half of the speed of
// the forward pass, because they transpose both operands. These kernels transpose each block while they pack it. Layers
// that have the same input X share its packed blocks. Fused matmuls are in layers.cpp, and PyTorch computes all other
// matmuls.
#include "tile.h"

#include <omp.h>

#include <vector>

using namespace groundup;

// Sizes of packed blocks. The larger the depth, the less often results are loaded and stored: a depth of 1024 is up to
// 21 % faster than a depth of 256.
constexpr int64_t BLOCK_DEPTH = 1024, BLOCK_ROWS = 256, BLOCK_COLUMNS = 768;
// Number of result values that stay in a core's cache until they are complete.
constexpr int64_t CACHED_VALUES = BLOCK_ROWS * 1536;

extern "C" bool groundup_tiles_allowed() { return tiles_allowed(); }

// Whether the CPU has instructions that multiply bf16 values.
extern "C" bool groundup_multiplies_bf16() {
#ifdef GROUNDUP_BF16
    return true;
#else
    return false;
#endif
}

// A result matrix with m rows, and its left operand (depth x m). `out` is the first row of the result, and `stride` is
// the row stride of the left operand.
struct Result {
    float *out;
    const bf16 *left;
    int64_t stride, m;
};

// Stacks all results vertically and returns the rows [top, bottom). The rows are returned as blocks, and each block is
// part of one result.
static std::vector<Result> blocks(const Result *results, int64_t count, int64_t n, int64_t top, int64_t bottom) {
    std::vector<Result> found;
    int64_t begin = 0;
    for (int64_t index = 0; index < count; begin += results[index++].m) {
        const Result &whole = results[index];
        const int64_t end = std::min(bottom - begin, whole.m);
        for (int64_t row = std::max(top - begin, int64_t(0)); row < end; row += BLOCK_ROWS)
            found.push_back({whole.out + row * n, whole.left + row, whole.stride, std::min(end - row, BLOCK_ROWS)});
    }
    return found;
}

// Computes out (m x n, fp32) = left^T right for each result, or out += left^T right if `add` is true. All results share
// the right operand (depth x n) and its packed blocks. `right_stride` is the row stride of the right operand. All m and
// n are multiples of 16.
extern "C" void groundup_transposed_matmuls(const Result *results, int64_t count, const bf16 *right, int64_t right_stride,
                                             int64_t depth, int64_t n, bool add) {
    int64_t m = 0;
    for (int64_t index = 0; index < count; index++) m += results[index].m;
#pragma omp parallel
    {
        Tiles tiles;
        static thread_local Scratch<bf16> left_block, right_blocks;
        bf16 *a = left_block.at_least(BLOCK_ROWS * BLOCK_DEPTH);
        int64_t top = 0, bottom = m, first = 0, last = n; // this thread computes a part of the longer dimension
        if (m >= n)
            share(m, omp_get_thread_num(), omp_get_num_threads(), top, bottom);
        else
            share(n, omp_get_thread_num(), omp_get_num_threads(), first, last);
        const std::vector<Result> mine = blocks(results, count, n, top, bottom);
        for (int64_t column = first; column < last && !mine.empty(); column += BLOCK_COLUMNS) {
            const int64_t columns = std::min(last - column, BLOCK_COLUMNS);
            const size_t sweep = std::max(int64_t(1), CACHED_VALUES / columns / BLOCK_ROWS);
            const bool again = mine.size() > sweep; // if so, the packed blocks are kept for the next sweep
            bf16 *b = right_blocks.at_least(columns * (again ? round_up(depth, DEPTH) : BLOCK_DEPTH));
            for (size_t begin = 0; begin < mine.size(); begin += sweep)
                for (int64_t k = 0; k < depth; k += BLOCK_DEPTH) {
                    const int64_t deep = std::min(depth - k, BLOCK_DEPTH), steps = round_up(deep, DEPTH) / DEPTH;
                    bf16 *panels = b + (again ? k * columns : 0);
                    if (begin == 0) pack_right(panels, right + k * right_stride + column, right_stride, deep, columns);
                    for (size_t index = begin; index < std::min(begin + sweep, mine.size()); index++) {
                        const Result &block = mine[index];
                        pack_left(a, block.left + k * block.stride, block.stride, deep, block.m);
                        multiply(block.out + column, n, packed(a, steps), panels, steps * TILE * DEPTH, block.m, columns,
                                 steps, add || k > 0);
                    }
                }
        }
    }
}
