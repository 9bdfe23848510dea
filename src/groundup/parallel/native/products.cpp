// Gradients of weights: dW = dY^T X, summed over all tokens, in fp32. Libraries run this product at half of the speed
// of the forward pass, because both operands lie the wrong way round; here each block is turned while it is packed.
// (Forward products and gradients of inputs stay with them: they were as fast or faster there.)
#include "tile.h"

#include <omp.h>

using namespace groundup;

// Blocks that stay in a core's second-level cache beside each other; 256 deep, two panels of 32 fill the first level.
constexpr int64_t BLOCK_DEPTH = 256, BLOCK_ROWS = 256, BLOCK_COLUMNS = 768;
// Values of the result that stay there while all of their products are added to them.
constexpr int64_t STAYING = BLOCK_ROWS * 1536;

// Part `index` of `parts` of [0, size), in whole strips of 32.
static void share(int64_t size, int index, int parts, int64_t &from, int64_t &to) {
    const int64_t strip = 2 * TILE, strips = round_up(size, strip) / strip;
    from = std::min(size, strips * index / parts * strip);
    to = std::min(size, strips * (index + 1) / parts * strip);
}

extern "C" bool groundup_tiles_allowed() { return tiles_allowed(); }

// out (m x n, fp32) = or += left^T right, of left (depth x m) and right (depth x n), rows `*_stride` values apart.
// m and n are multiples of 16.
extern "C" void groundup_transposed_product(float *out, const bf16 *left, int64_t left_stride, const bf16 *right,
                                            int64_t right_stride, int64_t depth, int64_t m, int64_t n, bool add) {
#pragma omp parallel
    {
        Tiles tiles;
        static thread_local Scratch<bf16> left_block, right_blocks;
        bf16 *a = left_block.at_least(BLOCK_ROWS * BLOCK_DEPTH);
        int64_t top = 0, bottom = m, first = 0, last = n; // this thread's part of the longer side
        if (m >= n)
            share(m, omp_get_thread_num(), omp_get_num_threads(), top, bottom);
        else
            share(n, omp_get_thread_num(), omp_get_num_threads(), first, last);
        for (int64_t column = first; column < last && top < bottom; column += BLOCK_COLUMNS) {
            const int64_t columns = std::min(last - column, BLOCK_COLUMNS);
            const int64_t sweep = std::max(int64_t(1), STAYING / columns / BLOCK_ROWS) * BLOCK_ROWS;
            const bool again = bottom - top > sweep; // then what has been packed is kept for the next sweep
            bf16 *b = right_blocks.at_least(columns * (again ? round_up(depth, DEPTH) : BLOCK_DEPTH));
            for (int64_t begin = top; begin < bottom; begin += sweep)
                for (int64_t k = 0; k < depth; k += BLOCK_DEPTH) {
                    const int64_t deep = std::min(depth - k, BLOCK_DEPTH), steps = round_up(deep, DEPTH) / DEPTH;
                    bf16 *panels = b + (again ? k * columns : 0);
                    if (begin == top) pack_right(panels, right + k * right_stride + column, right_stride, deep, columns);
                    for (int64_t row = begin; row < std::min(begin + sweep, bottom); row += BLOCK_ROWS) {
                        const int64_t high = std::min(bottom - row, BLOCK_ROWS);
                        pack_left(a, left + k * left_stride + row, left_stride, deep, high);
                        multiply(out + row * n + column, n, packed(a, steps), panels, steps * TILE * DEPTH, high, columns,
                                 steps, add || k > 0);
                    }
                }
        }
    }
}
