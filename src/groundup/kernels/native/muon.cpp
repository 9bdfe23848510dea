// Muon's orthogonalization (Keller Jordan 2024) with Newton-Schulz steps X <- a X + (b G + c G^2) X, where G = X X^T.
// The steps are computed in bf16 with fp32 accumulation. G and G^2 are symmetric, so only their lower triangles are
// computed. A tall matrix is transposed first, so X (s x n) always has s <= n.
//
// One thread computes all steps of a matrix, so the matrix stays in this core's cache. Matrices that remain if the number
// of matrices is not a multiple of the number of threads are shared: a team of threads computes each of them. The result
// does not depend on the number of threads.
#include "math.h"

#include <omp.h>

using namespace groundup;

namespace {

// Maximum number of rows and columns of a tile of a result, and number of values of k per pass over a tile. The sums of
// a tile and its operands fit in an L2 cache of 1 MB. A long depth would evict them, because each tile reads
// 2 x EDGE x depth values.
constexpr int64_t EDGE = 256, CHUNK = 512;
constexpr int64_t BLOCK = 2 * TILE; // all sizes are multiples of it

// The threads that compute one matrix. All teams of a parallel region call `wait` equally often.
struct Team {
    int member, size;
    bool is_shared; // whether any team of the parallel region has several members

    void wait() const {
        if (is_shared) {
#pragma omp barrier
        }
    }
    // Returns this member's part of [0, count) as [from, to).
    void part(int64_t count, int64_t &from, int64_t &to) const { share(count, member, size, from, to); }
};

// The buffers of one matrix. `gram` is G (s x s), `factor` is b G + c G^2 (s x s), and `right` contains the packed right
// operand of the current product.
struct Workspace {
    bf16 *x, *right, *gram, *gram_packed, *factor;
    float *squares; // one sum of squares per 32 rows of the matrix

    static int64_t bytes(int64_t s, int64_t n) {
        return round_up((2 * s * n + 3 * s * s) * sizeof(bf16) + n / BLOCK * sizeof(float), 64);
    }
    Workspace(char *place, int64_t s, int64_t n) {
        x = (bf16 *)place, right = x + s * n, gram = right + s * n, gram_packed = gram + s * s;
        factor = gram_packed + s * s, squares = (float *)(factor + s * s);
    }
};

// Returns the size of tiles with which a result (m x n) gives each member of a team about four tiles or more.
int64_t tile_edge(int64_t m, int64_t n, const Team &team) {
    int64_t edge = EDGE;
    while (team.size > 1 && edge > BLOCK && round_up(m, edge) * round_up(n, edge) < 4 * team.size * edge * edge) edge /= 2;
    return edge;
}

// Computes out = value(left right) for a result (m x n, bf16). `value(place, sums)` returns the 16 result values at
// `place` from the sums of the product. If the result is `symmetric`, only blocks on and below the diagonal are
// computed, and blocks below the diagonal are also stored above it. `right` is a packed operand with this depth.
template <typename Value>
void product(const Team &team, bf16 *out, int64_t m, int64_t n, bool symmetric, const Left &left, const bf16 *right,
             int64_t depth, Value value) {
    static thread_local Scratch<float> kept;
    float *sums = kept.at_least(EDGE * EDGE);
    const int64_t edge = tile_edge(m, n, team);
    int64_t number = 0;
    for (int64_t top = 0; top < m; top += edge)
        for (int64_t first = 0; first < (symmetric ? top + 1 : n); first += edge) {
            if (number++ % team.size != team.member) continue;
            const int64_t bottom = std::min(top + edge, m), last = std::min(first + edge, n);
            const bool on_diagonal = symmetric && top == first;
            const int64_t strip = on_diagonal ? BLOCK : bottom - top; // rows that have the same number of columns
            for (int64_t k = 0; k < depth; k += CHUNK)
                for (int64_t i = top; i < bottom; i += strip)
                    multiply(sums + (i - top) * EDGE, EDGE,
                             {left.data + i / TILE * left.next + k / DEPTH * left.step, left.stride, left.step, left.next},
                             right + first * depth + k * TILE, depth * TILE, strip,
                             on_diagonal ? i + BLOCK - first : last - first, std::min(CHUNK, depth - k) / DEPTH, k > 0);
            for (int64_t i = top; i < bottom; i += TILE)
                for (int64_t j = first; j < (on_diagonal ? i / BLOCK * BLOCK + BLOCK : last); j += TILE) {
                    Floats v[TILE];
                    for (int r = 0; r < TILE; r++) {
                        const int64_t place = (i + r) * n + j;
                        v[r] = value(place, load(sums + (i - top + r) * EDGE + j - first));
                        store(out + place, v[r]);
                    }
                    if (!symmetric || j >= i / BLOCK * BLOCK) continue;
                    transpose(v);
                    for (int r = 0; r < TILE; r++) store(out + (j + r) * n + i, v[r]);
                }
        }
}

// Runs one Newton-Schulz step on X (s x n).
void step(const Workspace &w, const Team &team, int64_t s, int64_t n, float a, float b, float c) {
    const Floats linear = broadcast(a), cubic = broadcast(b), quintic = broadcast(c);
    int64_t from, to;
    team.part(s, from, to);
    pack_right_transposed(w.right + from * n, w.x + from * n, n, n, to - from);
    team.wait();
    product(team, w.gram, s, s, true, rows(w.x, n), w.right, n, [](int64_t, Floats sums) { return sums; });
    team.wait();
    pack_right(w.gram_packed + from * s, w.gram + from, s, s, to - from);
    team.part(n, from, to);
    pack_right(w.right + from * s, w.x + from, n, s, to - from);
    team.wait();
    product(team, w.factor, s, s, true, rows(w.gram, s), w.gram_packed, s, [=](int64_t place, Floats sums) {
        return fmadd(cubic, load(w.gram + place), quintic * sums);
    });
    team.wait();
    product(team, w.x, s, n, false, rows(w.factor, s), w.right, s,
            [=](int64_t place, Floats sums) { return fmadd(linear, load(w.x + place), sums); });
    team.wait();
}

// Calls body(place, x_place, stride) for each block of 16 x 16 values of this member's rows of a matrix (m x n):
// `place` is the offset of the block in the matrix. `x_place` and `stride` are its offset and row stride in X, which is
// the transposed matrix if the matrix is tall.
template <typename Body> void for_blocks(const Team &team, int64_t m, int64_t n, Body body) {
    int64_t from, to;
    team.part(m, from, to);
    for (int64_t i = from; i < to; i += TILE)
        for (int64_t j = 0; j < n; j += TILE) m > n ? body(i * n + j, j * m + i, m) : body(i * n + j, i * n + j, n);
}

// Orthogonalizes an fp32 matrix (m x n) in place.
void orthogonalize(float *matrix, const Workspace &w, const Team &team, int64_t m, int64_t n, int64_t n_steps, float a,
                   float b, float c, float eps) {
    const bool tall = m > n;
    int64_t from, to;
    team.part(m, from, to);
    for (int64_t i = from; i < to; i += BLOCK) {
        Floats squares = zeros();
        for (const float *place = matrix + i * n; place < matrix + (i + BLOCK) * n; place += TILE) {
            const Floats values = load(place);
            squares = fmadd(values, values, squares);
        }
        w.squares[i / BLOCK] = reduce_add(squares);
    }
    team.wait();
    float sum = 0; // in an order that does not depend on the team, so that the result does not depend on it either
    for (int64_t i = 0; i < m / BLOCK; i++) sum += w.squares[i];
    const Floats scale = broadcast(1.0f / std::max(sqrtf(sum), eps));
    for_blocks(team, m, n, [=](int64_t place, int64_t x_place, int64_t stride) {
        Floats v[TILE];
        for (int r = 0; r < TILE; r++) v[r] = load(matrix + place + r * n) * scale;
        if (tall) transpose(v);
        for (int r = 0; r < TILE; r++) store(w.x + x_place + r * stride, v[r]);
    });
    team.wait();
    for (int64_t k = 0; k < n_steps; k++) step(w, team, std::min(m, n), std::max(m, n), a, b, c);
    for_blocks(team, m, n, [=](int64_t place, int64_t x_place, int64_t stride) {
        Floats v[TILE];
        for (int r = 0; r < TILE; r++) v[r] = load(w.x + x_place + r * stride);
        if (tall) transpose(v);
        for (int r = 0; r < TILE; r++) store(matrix + place + r * n, v[r]);
    });
}

} // namespace

// Orthogonalizes `count` fp32 matrices of the same shape (m x n) in place. m and n are multiples of 32.
extern "C" void groundup_orthogonalize(float **matrices, int64_t count, int64_t m, int64_t n, int64_t n_steps, float a,
                                       float b, float c, float eps) {
    const int64_t s = std::min(m, n), l = std::max(m, n);
    const int most = omp_get_max_threads();
    const int64_t bytes = Workspace::bytes(s, l);
    static thread_local Scratch<char> kept;
    char *buffers = kept.at_least(bytes * std::min(count, int64_t(most)));
#pragma omp parallel num_threads(most)
    {
        Tiles tiles;
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        const int64_t alone = count / threads * threads; // number of matrices that one thread computes
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < alone; index++)
            orthogonalize(matrices[index], Workspace(buffers + thread * bytes, s, l), {0, 1, false}, m, n, n_steps, a, b, c,
                          eps);
        if (alone < count) {
            const int64_t teams = count - alone, team = thread * teams / threads;
            const int64_t first = (team * threads + teams - 1) / teams, end = ((team + 1) * threads + teams - 1) / teams;
            orthogonalize(matrices[alone + team], Workspace(buffers + team * bytes, s, l),
                          {int(thread - first), int(end - first), true}, m, n, n_steps, a, b, c, eps);
        }
    }
}
