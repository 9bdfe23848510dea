// Matmuls with packed int8, int4 and bf16 weights. The result of a row does not depend on the other rows.
//
// out (rows x n) = x (rows x k) W^T. Each value of `out` is summed in a fixed order, for any number of rows and threads:
// int8 products are summed exactly within a group of 32 inputs, and the groups are added in fp32, from the first to the
// last. Prefill and decode therefore compute the same keys and values for a token. The results of int8 and int4 weights
// are the same with AMX and with AVX-512.
//
// Weights are packed in pairs of panels of 16 outputs, so that a thread reads memory from front to back. A pair holds, in
// the order of the inputs:
//   int8: per group of 32 inputs, 64 bytes of fp16 scales, one per output, then per 4 inputs, 64 bytes per panel: 4 inputs
//     of each of 16 outputs, each value as q + 128.
//   int4: 64 bytes of fp16 scales, 64 bytes of fp16 minimums; then as int8, but inputs i.. in the low bits and 16 + i.. in
//     the high bits of the bytes. A weight is scale x q + minimum, with q from 0 to 15.
//   bf16: per 2 inputs, 64 bytes per panel: 2 inputs of each of 16 outputs.
#pragma once
#include "math.h"

#include <vector>

namespace groundup {

enum WeightKind : int64_t { INT8 = 0, INT4 = 1, BF16 = 2 };
constexpr int64_t GROUP = 32, PANEL = 16, PAIR = 2 * PANEL;
// Number of rows and of panels whose sums stay in registers.
constexpr int MAX_TILE_ROWS = NUM_VECTORS == 32 ? 6 : 4, PANELS_AT_ONCE = NUM_VECTORS == 32 ? 2 : 1;

// Bytes of the values that a pair holds for a group (bf16: for 2 inputs).
constexpr int64_t values_per_step(int64_t kind) { return kind == INT8 ? GROUP * PAIR : kind == INT4 ? GROUP * PANEL : 4 * PAIR; }

// Bytes of the scales (int4: scales and minimums) that precede the values of a group.
constexpr int64_t scale_bytes(int64_t kind) { return kind == INT8 ? 2 * PAIR : kind == INT4 ? 4 * PAIR : 0; }

struct Matrix {
    int64_t kind, n, k;
    const uint8_t *packed;
    const float *bias; // of all outputs of all pairs, or null

    int64_t pairs() const { return (n + PAIR - 1) / PAIR; }
    int64_t pair_bytes() const {
        return k / (kind == BF16 ? 2 : GROUP) * (scale_bytes(kind) + values_per_step(kind));
    }
};

// Whether AMX tiles multiply a number of rows. For few rows, AVX-512 multiplies int8 and int4 weights, with the same result.
// bf16 sums have another order in AMX, so tiles multiply any number of rows.
#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define GROUNDUP_TILES
constexpr int64_t MIN_TILE_ROWS = 9;
constexpr bool use_tiles(int64_t kind, int64_t rows) { return kind == BF16 || rows >= MIN_TILE_ROWS; }
#else
constexpr bool use_tiles(int64_t, int64_t) { return false; }
#endif

// A value of x that is multiplied with bf16 weights: rounded to bf16, but in fp32 if FMAs multiply it. `PairOfInputs` are
// the weights of two inputs and 16 outputs.
#ifdef GROUNDUP_BF16
typedef bf16 Half;
typedef Ints PairOfInputs;
inline void store_halves(Half *out, Floats values) { store(out, values); }
inline PairOfInputs load_weights(const void *packed) { return load_ints(packed); }
inline Floats multiply_add(const Half *x, const PairOfInputs &weights, Floats sums) {
    int32_t two;
    memcpy(&two, x, 4);
    return add_bf16_dot(sums, broadcast_int(two), weights);
}
#else
typedef float Half;
struct PairOfInputs {
    Floats weights[2];
};
inline void store_halves(Half *out, Floats values) { store(out, rounded(values)); }
inline PairOfInputs load_weights(const void *packed) {
    PairOfInputs found;
    widen_pairs(found.weights, packed);
    return found;
}
inline Floats multiply_add(const Half *x, const PairOfInputs &pair, Floats sums) {
    return fmadd(broadcast(x[1]), pair.weights[1], fmadd(broadcast(x[0]), pair.weights[0], sums));
}
#endif

// Rows of x as the products read them.
struct Rows {
    std::vector<Input> values;   // int8 and int4: round(x / scale)
    std::vector<float> scales;   // of the groups of the rows; for the order, see `at`
    std::vector<int32_t> offsets; // int8, of the groups: what the offset of the stored weights adds to a product, negated
    std::vector<float> sums;      // int4, of the groups: sum of the rounded inputs
    std::vector<Half> halves;    // bf16
    int64_t groups = 0;
    bool tiled = false;

    void reserve(int64_t rows, int64_t k, int64_t kind) {
        groups = k / GROUP, tiled = use_tiles(kind, rows);
        rows = round_up(rows, TILE); // AMX reads whole tiles
        if ((int64_t)values.size() < rows * k) values.resize(rows * k), halves.resize(rows * k);
        const int64_t count = rows * groups;
        if ((int64_t)scales.size() < count) scales.resize(count), offsets.resize(count), sums.resize(count);
    }
    // Returns the index of a group of a row. Tiles read a group of 16 rows together.
    int64_t at(int64_t row, int64_t group) const {
        return tiled ? (row / TILE * groups + group) * TILE + row % TILE : row * groups + group;
    }
};

// Round one row of k values to what a weight kind is multiplied by.
inline void round_row(Rows &out, int64_t row, const float *x, int64_t k, int64_t kind) {
    if (kind == BF16) {
        for (int64_t i = 0; i < k; i += 16) store_halves(&out.halves[row * k + i], load(x + i));
        return;
    }
    for (int64_t g = 0; g < k / GROUP; g++) {
        const Floats a = load(x + g * GROUP), b = load(x + g * GROUP + 16);
        const float largest = reduce_max(max(abs(a), abs(b)));
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        const Floats factor = broadcast(inverse);
        const Ints p = to_nearest_ints(a * factor), q = to_nearest_ints(b * factor);
        Input *to = &out.values[row * k + g * GROUP];
        store_inputs(to, p);
        store_inputs(to + 16, q);
        const int64_t at = out.at(row, g);
        const int32_t sum = reduce_add(p + q);
        out.scales[at] = largest / 127.0f;
        out.offsets[at] = -128 * sum;
        out.sums[at] = out.scales[at] * sum;
    }
}

// Adds the products of R rows with one group of the panels [panel, panel + P) of a pair to `products`.
template <int KIND, int R, int P>
inline void multiply_group(Ints products[P][R], const uint8_t *values, const Input *left, int64_t k) {
    constexpr int STEPS = KIND == INT8 ? GROUP / 4 : GROUP / 8;
#pragma GCC unroll 8
    for (int s = 0; s < STEPS; s++) {
        Ints bytes[P], high[P];
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            bytes[p] = load_ints(values + s * 128 + p * 64);
            if (KIND == INT4) high[p] = high_halves(bytes[p]), bytes[p] = low_halves(bytes[p]);
        }
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            const FourInputs inputs(left + r * k + s * 4);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) products[p][r] = add_dot(products[p][r], bytes[p], inputs);
            if constexpr (KIND == INT4) {
                const FourInputs others(left + r * k + 16 + s * 4);
#pragma GCC unroll 2
                for (int p = 0; p < P; p++) products[p][r] = add_dot(products[p][r], high[p], others);
            }
        }
    }
}

// sums[p][r] of the panels [panel, panel + P) of a pair and R rows.
template <int KIND, int R, int P>
inline void multiply_panels(Floats sums[P][R], const Matrix &w, int64_t pair, int panel, const Rows &x, int64_t row) {
    const int64_t k = w.k, groups = k / GROUP;
    const uint8_t *packed = w.packed + pair * w.pair_bytes();
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) sums[p][r] = zeros();
    if constexpr (KIND == BF16) {
        const Half *left = &x.halves[row * k];
        packed += panel * 64;
        for (int64_t i = 0; i < k; i += 2, packed += 128) {
            PairOfInputs weights[P];
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) weights[p] = load_weights(packed + p * 64);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++)
#pragma GCC unroll 2
                for (int p = 0; p < P; p++) sums[p][r] = multiply_add(left + r * k + i, weights[p], sums[p][r]);
        }
        return;
    }
    const Input *left = &x.values[row * k];
    const float *scales = &x.scales[row * groups];
    const int32_t *offsets = &x.offsets[row * groups];
    const float *input_sums = &x.sums[row * groups];
    for (int64_t g = 0; g < groups; g++, packed += scale_bytes(KIND) + values_per_step(KIND)) {
        Ints products[P][R];
#pragma GCC unroll 6
        for (int r = 0; r < R; r++)
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) products[p][r] = broadcast_int(KIND == INT8 ? offsets[r * groups + g] : 0);
        multiply_group<KIND, R, P>(products, packed + scale_bytes(KIND) + panel * 64, left + g * GROUP, k);
        Floats weight_scales[P], minimums[P];
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            weight_scales[p] = load_fp16(packed + (panel + p) * 32);
            if (KIND == INT4) minimums[p] = load_fp16(packed + 64 + (panel + p) * 32);
        }
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            const Floats scale = broadcast(scales[r * groups + g]);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) {
                sums[p][r] = fmadd(to_floats(products[p][r]) * scale, weight_scales[p], sums[p][r]);
                if (KIND == INT4) sums[p][r] = fmadd(broadcast(input_sums[r * groups + g]), minimums[p], sums[p][r]);
            }
        }
    }
}

// sums[p][r] of both panels of a pair and R rows.
template <int KIND, int R>
inline void multiply_pair(Floats sums[2][R], const Matrix &w, int64_t pair, const Rows &x, int64_t row) {
    if constexpr (PANELS_AT_ONCE == 2) {
        multiply_panels<KIND, R, 2>(sums, w, pair, 0, x, row);
    } else {
        multiply_panels<KIND, R, 1>(sums, w, pair, 0, x, row);
        multiply_panels<KIND, R, 1>(sums + 1, w, pair, 1, x, row);
    }
}

template <int KIND, int R, class Finish>
inline void multiply_tile(const Matrix &w, int64_t begin, int64_t end, const Rows &x, int64_t row, const Finish &finish) {
    for (int64_t pair = begin; pair < end; pair++) {
        Floats sums[2][R];
        multiply_pair<KIND, R>(sums, w, pair, x, row);
        for (int r = 0; r < R; r++) finish(row + r, pair, sums[0][r], sums[1][r]);
    }
}

#ifdef GROUNDUP_TILES

// Multiplies 16 rows by the two panels of a pair.
template <class Finish>
inline void multiply_bf16_tiles(const Matrix &w, int64_t pair, const Rows &x, int64_t row, int64_t count, const Finish &finish) {
    alignas(64) float sums[2][TILE * PANEL];
    const uint8_t *packed = w.packed + pair * w.pair_bytes();
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t i = 0; i < w.k; i += DEPTH, packed += DEPTH / 2 * 128) {
        _tile_loadd(4, &x.halves[row * w.k + i], w.k * 2);
        _tile_loadd(5, packed, 128);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(5, packed + 64, 128);
        _tile_dpbf16ps(1, 4, 5);
    }
    _tile_stored(0, sums[0], PANEL * 4);
    _tile_stored(1, sums[1], PANEL * 4);
    for (int64_t r = 0; r < count; r++)
        finish(row + r, pair, load(sums[0] + r * PANEL), load(sums[1] + r * PANEL));
}

// Writes the values of an int4 pair one per byte, in the layout of an int8 pair without scales.
inline const uint8_t *unpacked_int4(const Matrix &w, const uint8_t *packed) {
    static thread_local Scratch<uint8_t> scratch;
    uint8_t *values = scratch.at_least(w.k * PAIR), *to = values;
    for (int64_t g = 0; g < w.k / GROUP; g++, packed += scale_bytes(INT4) + values_per_step(INT4), to += GROUP * PAIR)
        for (int64_t i = 0; i < GROUP * PANEL; i += 64) {
            const Ints both = load_ints(packed + scale_bytes(INT4) + i);
            store(to + i, low_halves(both));
            store(to + GROUP * PANEL + i, high_halves(both));
        }
    return values;
}

// Multiplies 16 rows by one panel and writes the sums to `out`. The operations on fp32 values are the same as in `multiply_pair`,
// in the same order.
template <int KIND>
inline void multiply_panel_tiles(float *out, const Matrix &w, const uint8_t *packed, const uint8_t *values, int panel,
                                 const Rows &x, int64_t row) {
    const int64_t groups = w.k / GROUP, step = scale_bytes(KIND) + values_per_step(KIND);
    const int64_t value_step = KIND == INT8 ? step : GROUP * PAIR, at = x.at(row, 0);
    const int8_t *left = &x.values[row * w.k];
    const int32_t *offsets = &x.offsets[at];
    const float *scales = &x.scales[at], *input_sums = &x.sums[at];
    packed += panel * PAIR, values += panel * 64;
    alignas(64) int32_t products[2][TILE * PANEL]; // of two groups, so that a group is multiplied while one is summed
    Floats sums[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) sums[r] = zeros();
    for (int64_t g = 0; g < groups; g++) {
        int32_t *product = products[g % 2];
        _tile_zero(0);
        _tile_loadd(6, left, w.k);
        _tile_loadd(7, values, 128);
        _tile_dpbsud(0, 6, 7);
        _tile_stored(0, product, PANEL * 4);
        const Floats weight_scale = load_fp16(packed);
        Floats minimum = zeros();
        if (KIND == INT4) minimum = load_fp16(packed + 2 * PAIR);
#pragma GCC unroll 16
        for (int r = 0; r < TILE; r++) {
            Ints exact = load_ints(product + r * PANEL);
            if (KIND == INT8) exact += broadcast_int(offsets[r]);
            const Floats scaled = to_floats(exact) * broadcast(scales[r]);
            sums[r] = fmadd(scaled, weight_scale, sums[r]);
            if (KIND == INT4) sums[r] = fmadd(broadcast(input_sums[r]), minimum, sums[r]);
        }
        left += GROUP, values += value_step, packed += step;
        offsets += TILE, scales += TILE, input_sums += TILE;
    }
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) store(out + r * PANEL, sums[r]);
}

template <int KIND, class Finish>
inline void multiply_tiles(const Matrix &w, int64_t begin, int64_t end, const Rows &x, int64_t rows, const Finish &finish) {
    for (int64_t pair = begin; pair < end; pair++) {
        const uint8_t *packed = w.packed + pair * w.pair_bytes();
        const uint8_t *values = KIND == INT4 ? unpacked_int4(w, packed) : packed + scale_bytes(KIND);
        for (int64_t row = 0; row < rows; row += TILE) {
            const int64_t count = std::min<int64_t>(TILE, rows - row);
            if constexpr (KIND == BF16) {
                multiply_bf16_tiles(w, pair, x, row, count, finish);
            } else {
                alignas(64) float sums[2][TILE * PANEL];
                for (int panel = 0; panel < 2; panel++)
                    multiply_panel_tiles<KIND>(sums[panel], w, packed, values, panel, x, row);
                for (int64_t r = 0; r < count; r++)
                    finish(row + r, pair, load(sums[0] + r * PANEL), load(sums[1] + r * PANEL));
            }
        }
    }
}

#else

template <int KIND, class Finish>
inline void multiply_tiles(const Matrix &, int64_t, int64_t, const Rows &, int64_t, const Finish &) {}

#endif

template <int KIND, class Finish>
inline void multiply_kind(const Matrix &w, int64_t begin, int64_t end, const Rows &x, int64_t rows, const Finish &finish) {
    if (use_tiles(KIND, rows)) {
        multiply_tiles<KIND>(w, begin, end, x, rows, finish);
        return;
    }
    const int64_t tiles = (rows + MAX_TILE_ROWS - 1) / MAX_TILE_ROWS;
    // A pair stays in the first-level cache while all rows are multiplied by it.
    const int64_t block = tiles == 1 ? end - begin : std::max<int64_t>(1, (16 << 10) / w.pair_bytes());
    for (int64_t pair = begin; pair < end; pair += block) {
        const int64_t last = std::min(pair + block, end);
        int64_t row = 0;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t count = (rows - row) / (tiles - tile);
            switch (count) {
            case 1: multiply_tile<KIND, 1>(w, pair, last, x, row, finish); break;
            case 2: multiply_tile<KIND, 2>(w, pair, last, x, row, finish); break;
            case 3: multiply_tile<KIND, 3>(w, pair, last, x, row, finish); break;
            case 4: multiply_tile<KIND, 4>(w, pair, last, x, row, finish); break;
            case 5: multiply_tile<KIND, std::min(5, MAX_TILE_ROWS)>(w, pair, last, x, row, finish); break;
            default: multiply_tile<KIND, MAX_TILE_ROWS>(w, pair, last, x, row, finish); break;
            }
            row += count;
        }
    }
}

// Multiply `rows` rows by the pairs [begin, end) of w, and call `finish(row, pair, first, second)` with the sums of the
// two panels of each pair.
template <class Finish>
inline void multiply(const Matrix &w, int64_t begin, int64_t end, const Rows &x, int64_t rows, const Finish &finish) {
    if (w.kind == INT8)
        multiply_kind<INT8>(w, begin, end, x, rows, finish);
    else if (w.kind == INT4)
        multiply_kind<INT4>(w, begin, end, x, rows, finish);
    else
        multiply_kind<BF16>(w, begin, end, x, rows, finish);
}

// The k weights of one output, as fp32.
inline void unpack_output(float *out, const Matrix &w, int64_t output) {
    const int64_t panel = output / PANEL % 2, column = output % PANEL;
    const uint8_t *packed = w.packed + output / PAIR * w.pair_bytes();
    for (int64_t i = 0; i < w.k; i++) {
        uint16_t half;
        if (w.kind == BF16) {
            memcpy(&half, packed + i / 2 * 128 + panel * 64 + column * 4 + i % 2 * 2, 2);
            const uint32_t bits = (uint32_t)half << 16;
            memcpy(out + i, &bits, 4);
            continue;
        }
        const uint8_t *group = packed + i / GROUP * (scale_bytes(w.kind) + values_per_step(w.kind));
        const int64_t j = i % GROUP, within = w.kind == INT8 ? j : j % 16;
        const uint8_t value = group[scale_bytes(w.kind) + within / 4 * 128 + panel * 64 + column * 4 + j % 4];
        memcpy(&half, group + panel * 32 + column * 2, 2);
        if (w.kind == INT8) {
            out[i] = fp16_to_fp32(half) * (value - 128);
            continue;
        }
        uint16_t minimum;
        memcpy(&minimum, group + 64 + panel * 32 + column * 2, 2);
        out[i] = fmaf(fp16_to_fp32(half), j < 16 ? value & 15 : value >> 4, fp16_to_fp32(minimum));
    }
}

} // namespace groundup
