// Fused matmuls that do not store intermediate results in memory. The kernels compute the first matmuls of an MLP
// together with the activation, the gradients of these operations, and sums of several matmuls. Results are accumulated
// in blocks of 32 x 32 fp32 values, which stay in the cache until they are complete.
//
// Shape letters: R is the number of rows (tokens), D the hidden size, and F the FFN size. D and F are multiples of 32.
#include "math.h"

#include <omp.h>

#include <vector>

using namespace groundup;

constexpr int BLOCK = 2 * TILE; // number of rows and columns of a block of the result
// Number of values of a left operand that stay in a core's cache during the loop over columns.
constexpr int64_t CACHED_VALUES = 1 << 17;

// Packs a right operand into `out` with all threads. The source is a matrix (depth x n), or (n x depth) if
// `transposed`.
static const bf16 *pack(bf16 *out, const bf16 *source, int64_t depth, int64_t n, bool transposed) {
#pragma omp parallel
    {
        int64_t from, to;
        share(n, omp_get_thread_num(), omp_get_num_threads(), from, to);
        if (transposed)
            pack_right_transposed(out + from * depth, source + from * depth, depth, depth, to - from);
        else
            pack_right(out + from * depth, source + from, n, depth, to - from);
    }
    return out;
}

// One matmul, left (R x depth) right, where `right` is packed.
struct Matmul {
    const bf16 *left, *right;
    int64_t depth;
};

// Returns the rows [row, row + count) of a left operand. A block of fewer than 32 rows is copied to `scratch` and
// padded with zeros.
static const bf16 *block_rows(const bf16 *left, int64_t depth, int64_t row, int64_t count, Scratch<bf16> &scratch) {
    if (count == BLOCK) return left + row * depth;
    bf16 *filled = scratch.at_least(BLOCK * depth);
    memcpy(filled, left + row * depth, count * depth * sizeof(bf16));
    memset(filled + count * depth, 0, (BLOCK - count) * depth * sizeof(bf16));
    return filled;
}

// Computes the columns [column, column + 32) of a matmul for 32 rows. Writes the result to `sums`, or adds it to `sums`
// if `add` is true.
template <typename Work>
static inline void multiply_into(float *sums, const Left &left, const Matmul &matmul, int64_t column, bool add,
                                 Work &&work) {
    multiply(sums, BLOCK, left, matmul.right + column * matmul.depth, matmul.depth * TILE, BLOCK, BLOCK,
             matmul.depth / DEPTH, add, work);
}

// Calls `multiply_into` for unpacked rows. If this function were inlined into a large function, its inner loop would lack
// registers.
__attribute__((noinline)) static void multiply_rows(float *sums, const bf16 *left, const Matmul &matmul, int64_t column,
                                                    bool add) {
    multiply_into(sums, rows(left, matmul.depth), matmul, column, add, NoWork());
}

// Computes blocks of 32 x 32 sums one after the other, and writes each block immediately. See `multiply_and_write`.
template <int RESULTS, typename Write>
static void in_sequence(const Matmul *matmuls, int64_t count, int64_t top, int64_t bottom, int64_t columns,
                        const Write &write_row) {
    static thread_local Scratch<bf16> scratch;
    alignas(64) float sums[RESULTS * BLOCK * BLOCK];
    for (int64_t column = 0; column < columns; column += BLOCK)
        for (int64_t row = top; row < bottom; row += BLOCK) {
            const int64_t rows_left = std::min(bottom - row, int64_t(BLOCK));
            for (int64_t index = 0; index < count; index++) {
                const Matmul &matmul = matmuls[index];
                const bf16 *left = block_rows(matmul.left, matmul.depth, row, rows_left, scratch);
                multiply_rows(sums + (RESULTS > 1 ? index : 0) * BLOCK * BLOCK, left, matmul, column,
                              RESULTS == 1 && index > 0);
            }
            for (int64_t r = 0; r < rows_left; r++) write_row(sums + r * BLOCK, row + r, column);
        }
}

// Rows of a block of sums that are still to be written.
template <typename Write> struct Unwritten {
    const float *sums;
    int64_t row, end, column;

    void write(const Write &write_row, int64_t count) {
        for (; count > 0 && row < end; count--, row++, sums += BLOCK) write_row(sums, row, column);
    }
};

// Computes blocks of 32 x 32 sums, and writes each block while the tile unit computes the next one. The rows are packed
// first. See `multiply_and_write`.
template <int RESULTS, typename Write>
static void overlapped(const Matmul *matmuls, int64_t count, int64_t top, int64_t bottom, int64_t columns,
                       const Write &write_row) {
    static thread_local Scratch<bf16> scratch;
    alignas(64) float sums[2][RESULTS * BLOCK * BLOCK];
    int64_t depth = 0, steps = 0;
    for (int64_t index = 0; index < count; steps += matmuls[index++].depth / DEPTH)
        if (RESULTS == 1 || index == 0) depth += matmuls[index].depth;
    const int64_t padded = round_up(bottom - top, BLOCK), rows_per_step = (BLOCK + steps - 1) / steps;
    bf16 *left = scratch.at_least(padded * depth);
    for (int64_t index = 0; index < (RESULTS == 1 ? count : 1); left += padded * matmuls[index++].depth)
        pack_rows(left, matmuls[index].left + top * matmuls[index].depth, matmuls[index].depth, matmuls[index].depth,
                  bottom - top);
    Unwritten<Write> unwritten = {sums[0], 0, 0, 0};
    int current = 0;
    for (int64_t column = 0; column < columns; column += BLOCK)
        for (int64_t row = top; row < bottom; row += BLOCK, current = 1 - current) {
            left = scratch.at_least(0);
            for (int64_t index = 0; index < count; index++) {
                const Matmul &matmul = matmuls[index];
                multiply_into(sums[current] + (RESULTS > 1 ? index : 0) * BLOCK * BLOCK,
                              packed(left + (row - top) * matmul.depth, matmul.depth / DEPTH), matmul, column,
                              RESULTS == 1 && index > 0, [&] { unwritten.write(write_row, rows_per_step); });
                if (RESULTS == 1) left += padded * matmul.depth;
            }
            unwritten.write(write_row, BLOCK);
            unwritten = {sums[current], row, std::min(bottom, row + BLOCK), column};
        }
    unwritten.write(write_row, BLOCK);
}

// Computes matmuls with R rows in blocks of 32 x 32 sums, and calls write_row(sums, row, column) for each row of a block.
// If there is one result, it is the sum of all matmuls. If there are several results, each is one of the matmuls, which
// have the same left operand; the sums of the next result follow after BLOCK * BLOCK values. All depths are multiples of
// 32.
template <int RESULTS, typename Write>
static void multiply_and_write(const Matmul *matmuls, int64_t count, int64_t R, int64_t columns, Write write_row) {
    int64_t depth = 0;
    for (int64_t index = 0; index < (RESULTS == 1 ? count : 1); index++) depth += matmuls[index].depth;
    const int64_t cached_rows = std::max(CACHED_VALUES / depth / BLOCK, int64_t(1)) * BLOCK;
#pragma omp parallel
    {
        Tiles tiles;
        int64_t from, to;
        share(R, omp_get_thread_num(), omp_get_num_threads(), from, to);
        for (int64_t top = from; top < to; top += cached_rows)
            (ASYNCHRONOUS ? overlapped<RESULTS, Write> : in_sequence<RESULTS, Write>)(
                matmuls, count, top, std::min(to, top + cached_rows), columns, write_row);
    }
}

// Stores the sums of 32 columns plus their bias, and replaces them with the stored values, which are rounded to bf16.
static inline void store_biased(Floats values[2], bf16 *out, const float *sums, const float *bias) {
    for (int half = 0; half < 2; half++) {
        values[half] = load(sums + half * TILE);
        if (bias) values[half] += load(bias + half * TILE);
    }
    store_pair(out, values);
    load_pair(values, out);
}

// There are two results if `up` is not null, otherwise one.
template <typename Activation, int RESULTS>
static void feed_forward(bf16 *out, bf16 *hidden, bf16 *up, const bf16 *x, const bf16 *gate_panels,
                         const bf16 *up_panels, const float *gate_bias, const float *up_bias, int64_t R, int64_t D,
                         int64_t F) {
    const Matmul matmuls[] = {{x, gate_panels, D}, {x, up_panels, D}};
    const auto write_row = [=](const float *sums, int64_t row, int64_t column) {
        const int64_t place = row * F + column;
        Floats values[2], factors[2], slope;
        // Apply the activation to the values after rounding to bf16, because these are saved for the backward pass.
        store_biased(values, hidden + place, sums, gate_bias ? gate_bias + column : nullptr);
        for (int half = 0; half < 2; half++) Activation::at(values[half], values[half], slope);
        if (RESULTS > 1) {
            store_biased(factors, up + place, sums + BLOCK * BLOCK, up_bias ? up_bias + column : nullptr);
            for (int half = 0; half < 2; half++) values[half] = values[half] * factors[half];
        }
        store_pair(out + place, values);
    };
    multiply_and_write<RESULTS>(matmuls, RESULTS, R, F, write_row);
}

// Given hidden values, up values and the gradient of the result of 32 columns, recomputes the result, and overwrites
// the values with their gradients.
template <typename Activation>
static inline void activation_gradients(bf16 *out, bf16 *hidden, bf16 *up, const Floats grad[2]) {
    Floats values[2], slopes[2], factors[2], grad_up[2];
    load_pair(values, hidden);
    for (int half = 0; half < 2; half++) Activation::at(values[half], values[half], slopes[half]);
    if (up) {
        load_pair(factors, up);
        for (int half = 0; half < 2; half++) {
            grad_up[half] = grad[half] * values[half];
            values[half] = values[half] * factors[half];
            slopes[half] = slopes[half] * factors[half];
        }
        store_pair(up, grad_up);
    }
    for (int half = 0; half < 2; half++) slopes[half] = grad[half] * slopes[half];
    store_pair(out, values);
    store_pair(hidden, slopes);
}

template <typename Activation>
static void feed_forward_gradients(bf16 *out, bf16 *hidden, bf16 *up, const bf16 *grad_y, const bf16 *down, int64_t R,
                                   int64_t D, int64_t F) {
    const Matmul matmul = {grad_y, down, D};
    multiply_and_write<1>(&matmul, 1, R, F, [=](const float *sums, int64_t row, int64_t column) {
        const int64_t place = row * F + column;
        const Floats grad[2] = {load(sums), load(sums + TILE)};
        activation_gradients<Activation>(out + place, hidden + place, up ? up + place : nullptr, grad);
    });
}

// Overwrites the gradient `out` of `size` values with the recomputed values, and `hidden` and `up` with their gradients.
// `size` is a multiple of 32.
template <typename Activation>
static void all_activation_gradients(bf16 *out, bf16 *hidden, bf16 *up, int64_t size) {
#pragma omp parallel for
    for (int64_t i = 0; i < size; i += BLOCK) {
        Floats grad[2];
        load_pair(grad, out + i);
        activation_gradients<Activation>(out + i, hidden + i, up ? up + i : nullptr, grad);
    }
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
    const bf16 *first = pack(panels, gate_weight, D, F, true);
    const bf16 *second = up ? pack(panels + D * F, up_weight, D, F, true) : first;
    const auto gated = gelu ? feed_forward<GeluTanh, 2> : feed_forward<Silu, 2>;
    const auto plain = gelu ? feed_forward<GeluTanh, 1> : feed_forward<Silu, 1>;
    (up ? gated : plain)(out, hidden, up, x, first, second, gate_bias, up_bias, R, D, F);
}

// Recomputes `out`, and overwrites `hidden` and `up` (R, F) with their gradients. grad_y (R, D) is the gradient of
// y = out down_weight^T, where down_weight is (D, F).
extern "C" void groundup_feed_forward_gradients(bf16 *out, bf16 *hidden, bf16 *up, const bf16 *grad_y,
                                                const bf16 *down_weight, int64_t R, int64_t D, int64_t F, bool gelu) {
    static thread_local Scratch<bf16> packed;
    const bf16 *down = pack(packed.at_least(D * F), down_weight, D, F, false);
    (gelu ? feed_forward_gradients<GeluTanh> : feed_forward_gradients<Silu>)(out, hidden, up, grad_y, down, R, D, F);
}

// Computes out (R x O, bf16) = x weight^T + bias. x is (R, D), the weight is (O, D), and the bias may be null. D and O are
// multiples of 32.
extern "C" void groundup_linear(bf16 *out, const bf16 *x, const bf16 *weight, const float *bias, int64_t R, int64_t D,
                                int64_t O) {
    static thread_local Scratch<bf16> scratch;
    const Matmul matmul = {x, pack(scratch.at_least(D * O), weight, D, O, true), D};
    multiply_and_write<1>(&matmul, 1, R, O, [=](const float *sums, int64_t row, int64_t column) {
        Floats values[2] = {load(sums), load(sums + TILE)};
        for (int half = 0; bias && half < 2; half++)
            values[half] += load(bias + column + half * TILE);
        store_pair(out + row * O + column, values);
    });
}

// The operands of one matmul: a left operand (R x depth) and a right operand (depth x columns).
struct Term {
    const bf16 *left, *right;
    int64_t depth;
};

// Computes out (R x columns, bf16) as the sum of the products left right over all terms. All depths and the number of
// columns are multiples of 32.
extern "C" void groundup_summed_matmuls(bf16 *out, const Term *terms, int64_t count, int64_t R, int64_t columns) {
    static thread_local Scratch<bf16> scratch;
    int64_t depth = 0;
    for (int64_t index = 0; index < count; index++) depth += terms[index].depth;
    bf16 *panels = scratch.at_least(depth * columns);
    std::vector<Matmul> matmuls;
    for (int64_t index = 0; index < count; panels += terms[index++].depth * columns)
        matmuls.push_back({terms[index].left, pack(panels, terms[index].right, terms[index].depth, columns, false),
                           terms[index].depth});
    multiply_and_write<1>(matmuls.data(), count, R, columns, [=](const float *sums, int64_t row, int64_t column) {
        const Floats values[2] = {load(sums), load(sums + TILE)};
        store_pair(out + row * columns + column, values);
    });
}
