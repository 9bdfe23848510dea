// Muon's orthogonalization (Keller Jordan 2024) with Newton-Schulz steps X <- a X + (b G + c G^2) X, where G = X X^T.
// The steps are computed in bf16 with fp32 accumulation. One thread computes all steps of a matrix, so the matrix stays
// in this core's cache. G and G^2 are symmetric, so only one half of each is computed.
#include "math.h"

using namespace groundup;

namespace {

struct Workspace {
    bf16 *x, *packed_left, *packed_right, *gram, *gram_packed;
    float *sums, *gram_sums;
};

// Copies the lower triangle of a symmetric matrix (s x s) to the upper triangle. The 32 x 32 blocks on the diagonal are
// already complete.
void mirror(float *matrix, int64_t s) {
    for (int64_t i = 0; i < s; i += TILE)
        for (int64_t j = 0; j < i / (2 * TILE) * 2 * TILE; j += TILE) {
            __m512i v[16];
            for (int r = 0; r < 16; r++) v[r] = _mm512_loadu_si512(matrix + (i + r) * s + j);
            transpose(v);
            for (int r = 0; r < 16; r++) _mm512_storeu_si512(matrix + (j + r) * s + i, v[r]);
        }
}

// Computes out (s x s) = left right. The result must be symmetric, because only its lower triangle is computed.
void symmetric(float *out, const Left &left, const bf16 *right, int64_t panel, int64_t s, int64_t steps) {
    for (int64_t i = 0; i < s; i += 2 * TILE)
        multiply(out + i * s, s, {left.data + i / TILE * left.next, left.stride, left.step, left.next}, right, panel,
                 2 * TILE, i + 2 * TILE, steps, false);
    mirror(out, s);
}

void round_all(bf16 *out, const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i += TILE) store(out + i, _mm512_loadu_ps(values + i));
}

// Runs one Newton-Schulz step on X (m x n). X may be wide (m <= n) or tall, and G is square with the size of the
// shorter dimension of X.
void step(const Workspace &w, int64_t m, int64_t n, float a, float b, float c) {
    const bool wide = m <= n;
    const int64_t s = wide ? m : n, depth = wide ? n : m;
    if (wide) {
        pack_right_transposed(w.packed_right, w.x, n, n, m);
        symmetric(w.gram_sums, rows(w.x, n), w.packed_right, n * TILE, s, n / DEPTH);
    } else {
        pack_left(w.packed_left, w.x, n, m, n);
        pack_right(w.packed_right, w.x, n, m, n);
        symmetric(w.gram_sums, packed(w.packed_left, m / DEPTH), w.packed_right, m * TILE, s, depth / DEPTH);
    }
    round_all(w.gram, w.gram_sums, s * s);
    pack_right(w.gram_packed, w.gram, s, s, s);
    symmetric(w.sums, rows(w.gram, s), w.gram_packed, s * TILE, s, s / DEPTH);
    for (int64_t i = 0; i < s * s; i += TILE) {
        const __m512 square = _mm512_mul_ps(_mm512_set1_ps(c), _mm512_loadu_ps(w.sums + i));
        store(w.gram + i, _mm512_fmadd_ps(_mm512_set1_ps(b), load(w.gram + i), square));
    }
    if (wide)
        pack_right(w.packed_right, w.x, n, m, n);
    else
        pack_right(w.gram_packed, w.gram, s, s, s);
    // X can be updated in place: a wide X has been packed before, and each row of a tall X is read only once.
    for (int64_t i = 0; i < m; i += 2 * TILE) {
        if (wide)
            multiply(w.sums, n, rows(w.gram + i * s, s), w.packed_right, m * TILE, 2 * TILE, n, s / DEPTH, false);
        else
            multiply(w.sums, n, rows(w.x + i * n, n), w.gram_packed, s * TILE, 2 * TILE, n, s / DEPTH, false);
        bf16 *x = w.x + i * n;
        for (int64_t j = 0; j < 2 * TILE * n; j += TILE)
            store(x + j, _mm512_fmadd_ps(_mm512_set1_ps(a), load(x + j), _mm512_loadu_ps(w.sums + j)));
    }
}

} // namespace

// Orthogonalizes `count` fp32 matrices of the same shape (m x n) in place. m and n are multiples of 32.
extern "C" void groundup_orthogonalize(float **matrices, int64_t count, int64_t m, int64_t n, int64_t n_steps, float a,
                                       float b, float c, float eps) {
    const int64_t s = std::min(m, n), size = m * n;
#pragma omp parallel
    {
        Tiles tiles;
        static thread_local Scratch<bf16> kept;
        static thread_local Scratch<float> sums;
        Workspace w;
        w.x = kept.at_least(3 * size + 2 * s * s);
        w.packed_left = w.x + size, w.packed_right = w.packed_left + size;
        w.gram = w.packed_right + size, w.gram_packed = w.gram + s * s;
        w.sums = sums.at_least(s * s + std::max(s * s, 2 * TILE * n));
        w.gram_sums = w.sums + std::max(s * s, 2 * TILE * n);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < count; index++) {
            float *matrix = matrices[index];
            __m512 squares = _mm512_setzero_ps();
            for (int64_t i = 0; i < size; i += TILE) {
                const __m512 value = _mm512_loadu_ps(matrix + i);
                squares = _mm512_fmadd_ps(value, value, squares);
            }
            const float norm = std::max(sqrtf(_mm512_reduce_add_ps(squares)), eps);
            for (int64_t i = 0; i < size; i += TILE)
                store(w.x + i, _mm512_mul_ps(_mm512_loadu_ps(matrix + i), _mm512_set1_ps(1.0f / norm)));
            for (int64_t k = 0; k < n_steps; k++) step(w, m, n, a, b, c);
            for (int64_t i = 0; i < size; i += TILE) _mm512_storeu_ps(matrix + i, load(w.x + i));
        }
    }
}
