// Matrix products with packed int8, int4 and bf16 weights whose results do not depend on the number of rows.
//
// out (rows x n) = x (rows x k) W^T. Each value of `out` is one sum in a fixed order, whatever other rows are computed
// with it and however many threads there are: int8 products are summed exactly within a group of 32 inputs, and groups
// are added in fp32 from the first to the last. Prefill and decode therefore give a token the same keys and values.
//
// Weights are packed in panels of 16 outputs. Within a panel, inputs are in order, 16 outputs next to each other:
//   int8: per group, 8 x 64 bytes: 4 inputs of each of 16 outputs, as q + 128. One fp16 scale per group and output.
//   int4: per group, 4 x 64 bytes: inputs 4s..4s+3 in the low bits, 16 + 4s.. in the high bits, as q + 8. Scales as int8.
//   bf16: per pair of inputs, 64 bytes: 2 inputs of each of 16 outputs.
#pragma once
#include "math.h"

#include <vector>

namespace groundup {

enum WeightKind : int64_t { INT8 = 0, INT4 = 1, BF16 = 2 };
constexpr int64_t GROUP = 32, PANEL = 16;
constexpr int MAX_TILE_ROWS = 6;

struct Matrix {
    int64_t kind, n, k;
    const uint8_t *values;
    const uint16_t *scales; // fp16, (panel, group, 16); null for bf16
    const float *bias;      // (n,) or null

    int64_t panels() const { return (n + PANEL - 1) / PANEL; }
    int64_t panel_bytes() const { return PANEL * k * (kind == INT8 ? 2 : kind == INT4 ? 1 : 4) / 2; }
};

// Rows of x as the products read them.
struct Rows {
    std::vector<int8_t> values;  // int8 and int4: round(x / scale)
    std::vector<float> scales;   // (row, group)
    std::vector<int32_t> offsets; // (row, group): what the offset of the stored weights adds to each product, negated
    std::vector<bf16> halves;    // bf16
    void reserve(int64_t rows, int64_t k) {
        if ((int64_t)values.size() < rows * k) values.resize(rows * k), halves.resize(rows * k);
        if ((int64_t)scales.size() < rows * k / GROUP) scales.resize(rows * k / GROUP), offsets.resize(rows * k / GROUP);
    }
};

// Round one row of k values to what a weight kind is multiplied by.
inline void round_row(Rows &out, int64_t row, const float *x, int64_t k, int64_t kind) {
    if (kind == BF16) {
        for (int64_t i = 0; i < k; i += 16) store(&out.halves[row * k + i], _mm512_loadu_ps(x + i));
        return;
    }
    const int32_t stored_offset = kind == INT8 ? 128 : 8;
    for (int64_t g = 0; g < k / GROUP; g++) {
        const __m512 a = _mm512_loadu_ps(x + g * GROUP), b = _mm512_loadu_ps(x + g * GROUP + 16);
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        const __m512 factor = _mm512_set1_ps(inverse);
        const __m512i p = _mm512_cvtps_epi32(_mm512_mul_ps(a, factor)), q = _mm512_cvtps_epi32(_mm512_mul_ps(b, factor));
        int8_t *to = &out.values[row * k + g * GROUP];
        _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(p));
        _mm_storeu_si128((__m128i *)(to + 16), _mm512_cvtepi32_epi8(q));
        out.scales[row * (k / GROUP) + g] = largest / 127.0f;
        out.offsets[row * (k / GROUP) + g] = -stored_offset * _mm512_reduce_add_epi32(_mm512_add_epi32(p, q));
    }
}

// sums[p][r] of P panels and R rows.
template <int KIND, int R, int P>
inline void multiply_panels(__m512 sums[P][R], const Matrix &w, int64_t panel, const Rows &x, int64_t row) {
    const int64_t k = w.k, groups = k / GROUP, stride = w.panel_bytes();
    const uint8_t *values = w.values + panel * stride;
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sums[p][r] = _mm512_setzero_ps();
    if constexpr (KIND == BF16) {
        const bf16 *left = &x.halves[row * k];
        for (int64_t pair = 0; pair < k / 2; pair++) {
            __m512bh columns[P];
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) columns[p] = (__m512bh)_mm512_loadu_si512(values + p * stride + pair * 64);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                int32_t two;
                memcpy(&two, left + r * k + 2 * pair, 4);
                const __m512bh both = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) sums[p][r] = _mm512_dpbf16_ps(sums[p][r], both, columns[p]);
            }
        }
        return;
    } else {
        const int8_t *left = &x.values[row * k];
        const float *x_scales = &x.scales[row * groups];
        const int32_t *offsets = &x.offsets[row * groups];
        const uint16_t *w_scales = w.scales + panel * groups * PANEL;
        constexpr int64_t bytes = KIND == INT8 ? GROUP * PANEL : GROUP * PANEL / 2;
        for (int64_t g = 0; g < groups; g++) {
            __m512i products[P][R];
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const __m512i start = _mm512_set1_epi32(offsets[r * groups + g]);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) products[p][r] = start;
            }
            const uint8_t *block = values + g * bytes;
            if constexpr (KIND == INT8) {
#pragma GCC unroll 8
                for (int s = 0; s < 8; s++) {
                    __m512i columns[P];
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) columns[p] = _mm512_loadu_si512(block + p * stride + s * 64);
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) {
                        int32_t four;
                        memcpy(&four, left + r * k + g * GROUP + s * 4, 4);
                        const __m512i inputs = _mm512_set1_epi32(four);
#pragma GCC unroll 8
                        for (int p = 0; p < P; p++) products[p][r] = _mm512_dpbusd_epi32(products[p][r], columns[p], inputs);
                    }
                }
            } else {
                const __m512i low_bits = _mm512_set1_epi8(15);
#pragma GCC unroll 4
                for (int s = 0; s < 4; s++) {
                    __m512i low[P], high[P];
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) {
                        const __m512i both = _mm512_loadu_si512(block + p * stride + s * 64);
                        low[p] = _mm512_and_si512(both, low_bits);
                        high[p] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_bits);
                    }
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) {
                        int32_t first, second;
                        memcpy(&first, left + r * k + g * GROUP + s * 4, 4);
                        memcpy(&second, left + r * k + g * GROUP + 16 + s * 4, 4);
                        const __m512i a = _mm512_set1_epi32(first), b = _mm512_set1_epi32(second);
#pragma GCC unroll 8
                        for (int p = 0; p < P; p++) {
                            products[p][r] = _mm512_dpbusd_epi32(products[p][r], low[p], a);
                            products[p][r] = _mm512_dpbusd_epi32(products[p][r], high[p], b);
                        }
                    }
                }
            }
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) {
                const __m512 scale = _mm512_cvtph_ps(
                    _mm256_loadu_si256((const __m256i *)(w_scales + (p * groups + g) * PANEL)));
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(products[p][r]),
                                                         _mm512_set1_ps(x_scales[r * groups + g]));
                    sums[p][r] = _mm512_fmadd_ps(product, scale, sums[p][r]);
                }
            }
        }
    }
}

// Call `finish(row, panel, sums)` for each row and each pair of panels in [begin, end); `begin` is even.
template <int KIND, int R, class Finish>
inline void multiply_rows(const Matrix &w, int64_t begin, int64_t end, const Rows &x, int64_t row, const Finish &finish) {
    int64_t panel = begin;
    if constexpr (R <= 2)
        for (; panel + 4 <= end; panel += 4) {
            __m512 sums[4][R];
            multiply_panels<KIND, R, 4>(sums, w, panel, x, row);
            for (int r = 0; r < R; r++) {
                finish(row + r, panel, sums[0][r], sums[1][r]);
                finish(row + r, panel + 2, sums[2][r], sums[3][r]);
            }
        }
    for (; panel + 2 <= end; panel += 2) {
        __m512 sums[2][R];
        multiply_panels<KIND, R, 2>(sums, w, panel, x, row);
        for (int r = 0; r < R; r++) finish(row + r, panel, sums[0][r], sums[1][r]);
    }
    if (panel < end) {
        __m512 sums[1][R];
        multiply_panels<KIND, R, 1>(sums, w, panel, x, row);
        for (int r = 0; r < R; r++) finish(row + r, panel, sums[0][r], _mm512_setzero_ps());
    }
}

template <int KIND, class Finish>
inline void multiply_kind(const Matrix &w, int64_t begin, int64_t end, const Rows &x, int64_t rows, const Finish &finish) {
    // The panels of a block stay in the first-level cache while all rows are multiplied by them.
    const int64_t block = std::max<int64_t>(2, (24 << 10) / w.panel_bytes() / 4 * 4);
    const int64_t tiles = (rows + MAX_TILE_ROWS - 1) / MAX_TILE_ROWS;
    for (int64_t panel = begin; panel < end; panel += block) {
        const int64_t last = std::min(panel + block, end);
        int64_t row = 0;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t count = (rows - row) / (tiles - tile);
            switch (count) {
            case 1: multiply_rows<KIND, 1>(w, panel, last, x, row, finish); break;
            case 2: multiply_rows<KIND, 2>(w, panel, last, x, row, finish); break;
            case 3: multiply_rows<KIND, 3>(w, panel, last, x, row, finish); break;
            case 4: multiply_rows<KIND, 4>(w, panel, last, x, row, finish); break;
            case 5: multiply_rows<KIND, 5>(w, panel, last, x, row, finish); break;
            default: multiply_rows<KIND, 6>(w, panel, last, x, row, finish); break;
            }
            row += count;
        }
    }
}

// Multiply `rows` rows by the panels [begin, end) of w.
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
    const int64_t panel = output / PANEL, column = output % PANEL, groups = w.k / GROUP;
    const uint8_t *values = w.values + panel * w.panel_bytes();
    for (int64_t i = 0; i < w.k; i++) {
        if (w.kind == BF16) {
            uint32_t bits = (uint32_t)((const bf16 *)values)[i / 2 * 32 + column * 2 + i % 2] << 16;
            memcpy(out + i, &bits, 4);
            continue;
        }
        const int64_t g = i / GROUP, j = i % GROUP;
        const float scale = _cvtsh_ss(w.scales[(panel * groups + g) * PANEL + column]);
        if (w.kind == INT8)
            out[i] = scale * ((int)values[g * 512 + j / 4 * 64 + column * 4 + j % 4] - 128);
        else {
            const uint8_t both = values[g * 256 + j % 16 / 4 * 64 + column * 4 + j % 4];
            out[i] = scale * ((int)(j < 16 ? both & 15 : both >> 4) - 8);
        }
    }
}

} // namespace groundup
