// Fused matmuls that do not store intermediate results in memory. The kernels compute the first matmuls of an MLP
// together with the activation, the gradients of these operations, and sums of several matmuls. Results are accumulated
// in blocks of 32 x 32 fp32 values, which stay in the cache until they are complete.
//
// Shape letters: R is the number of rows (tokens), D the hidden size, and F the FFN size. D and F are multiples of 32.
#include "math.h"

#include <omp.h>

using namespace groundup;

constexpr int BLOCK = 2 * TILE; // number of rows and columns of a block of the result
// Number of values of a left operand that stay in a core's cache during the loop over columns.
constexpr int64_t CACHED_VALUES = 1 << 17;

// A packed right operand. `next` is the stride between panels, and a panel has 16 columns.
struct Panels {
    const bf16 *data;
    int64_t next;
};

// Packs a right operand into `out` with all threads. The source is a matrix (depth x n), or (n x depth) if
// `transposed`.
static Panels pack(bf16 *out, const bf16 *source, int64_t depth, int64_t n, bool transposed) {
#pragma omp parallel
    {
        int64_t from, to;
        share(n, omp_get_thread_num(), omp_get_num_threads(), from, to);
        if (transposed)
            pack_right_transposed(out + from * depth, source + from * depth, depth, depth, to - from);
        else
            pack_right(out + from * depth, source + from, n, depth, to - from);
    }
    return {out, depth * TILE};
}

// Returns the rows [row, row + count) of a left operand. A block of fewer than 32 rows is copied to `scratch` and
// padded with zeros.
static const bf16 *block_rows(const bf16 *left, int64_t depth, int64_t row, int64_t count, Scratch<bf16> &scratch) {
    if (count == BLOCK) return left + row * depth;
    bf16 *filled = scratch.at_least(BLOCK * depth);
    memcpy(filled, left + row * depth, count * depth * sizeof(bf16));
    memset(filled + count * depth, 0, (BLOCK - count) * depth * sizeof(bf16));
    return filled;
}

// Computes the columns [column, column + 32) of the product left (32 x depth) right. Writes the result to `sums`, or
// adds it to `sums` if `add` is true.
static inline void multiply_into(float *sums, const bf16 *left, int64_t depth, const Panels &right, int64_t column,
                                 bool add) {
    multiply(sums, BLOCK, rows(left, depth), right.data + column / TILE * right.next, right.next, BLOCK, BLOCK,
             depth / DEPTH, add);
}

// Calls body(row, count, column) for each block of a result (rows x columns). `depth` is the number of columns of the
// left operand.
template <typename Body> static void for_blocks(int64_t rows, int64_t columns, int64_t depth, Body body) {
    const int64_t cached_rows = std::max(CACHED_VALUES / depth / BLOCK, int64_t(1)) * BLOCK;
#pragma omp parallel
    {
        Tiles tiles;
        int64_t from, to;
        share(rows, omp_get_thread_num(), omp_get_num_threads(), from, to);
        for (int64_t top = from; top < to; top += cached_rows)
            for (int64_t column = 0; column < columns; column += BLOCK)
                for (int64_t row = top; row < std::min(to, top + cached_rows); row += BLOCK)
                    body(row, std::min(to - row, int64_t(BLOCK)), column);
    }
}

static inline __m512 biased(const float *sums, const float *bias, int64_t column) {
    const __m512 sum = _mm512_loadu_ps(sums);
    return bias ? _mm512_add_ps(sum, _mm512_loadu_ps(bias + column)) : sum;
}

static inline __m512 stored(bf16 *out, __m512 values) {
    store(out, values);
    return load(out);
}

template <typename Activation>
static void feed_forward(bf16 *out, bf16 *hidden, bf16 *up, const bf16 *x, const Panels &gate_panels,
                         const Panels &up_panels, const float *gate_bias, const float *up_bias, int64_t R, int64_t D,
                         int64_t F) {
    for_blocks(R, F, D, [=](int64_t row, int64_t count, int64_t column) {
        static thread_local Scratch<bf16> scratch;
        alignas(64) float hidden_sums[BLOCK * BLOCK], up_sums[BLOCK * BLOCK];
        const bf16 *left = block_rows(x, D, row, count, scratch);
        multiply_into(hidden_sums, left, D, gate_panels, column, false);
        if (up) multiply_into(up_sums, left, D, up_panels, column, false);
        for (int64_t r = 0; r < count; r++)
            for (int64_t j = 0; j < BLOCK; j += TILE) {
                const int64_t place = (row + r) * F + column + j;
                __m512 value, slope;
                // Apply the activation to the values after rounding to bf16, because these are saved for the backward
                // pass.
                Activation::at(stored(hidden + place, biased(hidden_sums + r * BLOCK + j, gate_bias, column + j)), value, slope);
                if (up) value = _mm512_mul_ps(value, stored(up + place, biased(up_sums + r * BLOCK + j, up_bias, column + j)));
                store(out + place, value);
            }
    });
}

// Given hidden values, up values and the gradient of the result of 16 columns, recomputes the result, and overwrites
// the values with their gradients.
template <typename Activation> static inline void activation_gradients(bf16 *out, bf16 *hidden, bf16 *up, __m512 grad) {
    __m512 value, slope;
    Activation::at(load(hidden), value, slope);
    if (up) {
        const __m512 factor = load(up);
        store(up, _mm512_mul_ps(grad, value));
        value = _mm512_mul_ps(value, factor);
        slope = _mm512_mul_ps(slope, factor);
    }
    store(out, value);
    store(hidden, _mm512_mul_ps(grad, slope));
}

template <typename Activation>
static void feed_forward_gradients(bf16 *out, bf16 *hidden, bf16 *up, const bf16 *grad_y, const Panels &down, int64_t R,
                                   int64_t D, int64_t F) {
    for_blocks(R, F, D, [=](int64_t row, int64_t count, int64_t column) {
        static thread_local Scratch<bf16> scratch;
        alignas(64) float sums[BLOCK * BLOCK];
        multiply_into(sums, block_rows(grad_y, D, row, count, scratch), D, down, column, false);
        for (int64_t r = 0; r < count; r++)
            for (int64_t j = 0; j < BLOCK; j += TILE) {
                const int64_t place = (row + r) * F + column + j;
                activation_gradients<Activation>(out + place, hidden + place, up ? up + place : nullptr,
                                                 _mm512_load_ps(sums + r * BLOCK + j));
            }
    });
}

// Overwrites the gradient `out` of `size` values with the recomputed values, and `hidden` and `up` with their gradients.
// `size` is a multiple of 16.
template <typename Activation>
static void all_activation_gradients(bf16 *out, bf16 *hidden, bf16 *up, int64_t size) {
#pragma omp parallel for
    for (int64_t i = 0; i < size; i += TILE)
        activation_gradients<Activation>(out + i, hidden + i, up ? up + i : nullptr, load(out + i));
}

extern "C" void groundup_activation_gradients(bf16 *out, bf16 *hidden, bf16 *up, int64_t size, bool gelu) {
    (gelu ? all_activation_gradients<GeluTanh> : all_activation_gradients<Silu>)(out, hidden, up, size);
}

// Computes out = activation(hidden) * up, where hidden = x gate_weight^T + gate_bias and up = x up_weight^T + up_bias.
// If `up` is null, computes out = activation(hidden). x is (R, D), the weights are (F, D), and the biases may be null.
// `hidden` and `up` are (R, F) and are saved for the backward pass.
extern "C" void groundup_feed_forward(bf16 *out, bf16 *hidden, bf16 *up, const bf16 *x, const bf16 *gate_weight,
                                      const bf16 *up_weight, const float *gate_bias, const float *up_bias, int64_t R,
                                      int64_t D, int64_t F, bool gelu) {
    static thread_local Scratch<bf16> packed;
    bf16 *panels = packed.at_least(2 * D * F);
    const Panels first = pack(panels, gate_weight, D, F, true);
    const Panels second = up ? pack(panels + D * F, up_weight, D, F, true) : first;
    (gelu ? feed_forward<GeluTanh> : feed_forward<Silu>)(out, hidden, up, x, first, second, gate_bias, up_bias, R, D, F);
}

// Recomputes `out`, and overwrites `hidden` and `up` (R, F) with their gradients. grad_y (R, D) is the gradient of
// y = out down_weight^T, where down_weight is (D, F).
extern "C" void groundup_feed_forward_gradients(bf16 *out, bf16 *hidden, bf16 *up, const bf16 *grad_y,
                                                const bf16 *down_weight, int64_t R, int64_t D, int64_t F, bool gelu) {
    static thread_local Scratch<bf16> packed;
    const Panels down = pack(packed.at_least(D * F), down_weight, D, F, false);
    (gelu ? feed_forward_gradients<GeluTanh> : feed_forward_gradients<Silu>)(out, hidden, up, grad_y, down, R, D, F);
}

// The operands of one matmul: a left operand (R x depth) and a right operand (depth x columns).
struct Term {
    const bf16 *left, *right;
    int64_t depth;
};

// Computes out (R x columns, bf16) as the sum of the products left right over all terms. All depths and the number of
// columns are multiples of 32.
extern "C" void groundup_summed_matmuls(bf16 *out, const Term *terms, int64_t count, int64_t R, int64_t columns) {
    static thread_local Scratch<bf16> packed;
    int64_t depth = 0;
    for (int64_t index = 0; index < count; index++) depth += terms[index].depth;
    bf16 *panels = packed.at_least(depth * columns);
    int64_t done = 0;
    for (int64_t index = 0; index < count; done += terms[index++].depth)
        pack(panels + done * columns, terms[index].right, terms[index].depth, columns, false);
    for_blocks(R, columns, depth, [=](int64_t row, int64_t rows, int64_t column) {
        static thread_local Scratch<bf16> scratch;
        alignas(64) float sums[BLOCK * BLOCK];
        int64_t done = 0;
        for (int64_t index = 0; index < count; done += terms[index++].depth) {
            const Term &term = terms[index];
            multiply_into(sums, block_rows(term.left, term.depth, row, rows, scratch), term.depth,
                          {panels + done * columns, term.depth * TILE}, column, index > 0);
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < BLOCK; j += TILE)
                store(out + (row + r) * columns + column + j, _mm512_load_ps(sums + r * BLOCK + j));
    });
}
