// Matmuls of small bf16 blocks with fp32 accumulation. The implementation uses AMX tiles if the CPU supports AMX,
// otherwise bf16 dot products, otherwise fp32 FMAs. Packed operands have the same layout for all of them, so
// callers do not depend on the instruction set.
//
// A block matmul computes C (m x n, fp32) += A (m x k) B (k x n) in steps of 16 x 16 x 32:
//   A consists of tiles of 16 rows and 32 columns. The stride between rows is `a_stride` values.
//   B consists of panels of 16 columns. In a panel, the rows k and k + 1 are interleaved: the two values of a column
//   are adjacent.
#pragma once
#include "simd.h"

#include <stdlib.h>

#include <algorithm>

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace groundup {

constexpr int TILE = 16;  // number of rows and columns of a result tile; 16 fp32 values are one cache line
constexpr int DEPTH = 32; // number of values of k per step

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Returns whether this process may use AMX tiles. On Linux, a process must request permission for the large register
// state once.
inline bool tiles_allowed() {
#ifdef __AMX_BF16__
    constexpr long request_permission = 0x1023, tile_data = 18;
    static const bool allowed = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return allowed;
#else
    return true;
#endif
}

// Configures the eight tile registers of a thread, and releases them on destruction. By default, all tiles have 16 rows of
// 64 bytes. For products of 8-bit values in groups of 32, tile 6 has 16 rows of 32 bytes, and tile 7 has 8 rows of 64
// bytes.
class Tiles {
  public:
    explicit Tiles(bool in_groups = false) {
#ifdef __AMX_BF16__
        alignas(64) uint8_t layout[64] = {0};
        layout[0] = 1; // palette 1 is the only palette that AMX defines
        for (int tile = 0; tile < 8; tile++) {
            layout[16 + 2 * tile] = in_groups && tile == 6 ? 32 : 64;      // bytes per row
            layout[48 + tile] = in_groups && tile == 7 ? TILE / 2 : TILE; // number of rows
        }
        _tile_loadconfig(layout);
#endif
    }
    ~Tiles() {
#ifdef __AMX_BF16__
        _tile_release();
#endif
    }
};

// Vector work that a block matmul runs after each step of k. The tile unit multiplies tiles asynchronously, so this work
// takes no time until it takes longer than the multiplications. With AVX-512, both would use the same units, so the
// matmul ignores it.
struct NoWork {
    void operator()() const {}
};

#ifdef __AMX_BF16__
constexpr bool ASYNCHRONOUS = true;
#else
constexpr bool ASYNCHRONOUS = false;
#endif

// An operand A: a pointer to its first tile, and the strides to the next row, to the next step of k and to the next 16
// rows.
struct Left {
    const bf16 *data;
    int64_t stride, step, next;
};

// Describes an unpacked row-major matrix.
inline Left rows(const bf16 *data, int64_t stride) { return {data, stride, DEPTH, TILE * stride}; }
// Describes tiles that `pack_left` has packed. `steps` is the number of steps of k.
inline Left packed(const bf16 *data, int64_t steps) { return {data, DEPTH, TILE * DEPTH, steps * TILE * DEPTH}; }

#if defined(__AMX_BF16__)

// Computes a block of ROWS x COLUMNS tiles. The numbers of tile registers must be constants, so there is a template
// instance for each of the four block sizes.
template <int ROWS, int COLUMNS, typename Work>
inline void multiply_block(float *c, int64_t c_stride, const bf16 *a, int64_t a_stride, int64_t a_step, int64_t a_next,
                           const bf16 *b, int64_t b_next, int64_t steps, bool add, Work &work) {
    float *c1 = c + TILE * c_stride;
    __asm__ volatile("" ::: "memory"); // GCC does not know that tile loads read memory
    if (add) {
        _tile_loadd(0, c, c_stride * 4);
        if (COLUMNS > 1) _tile_loadd(1, c + TILE, c_stride * 4);
        if (ROWS > 1) _tile_loadd(2, c1, c_stride * 4);
        if (ROWS > 1 && COLUMNS > 1) _tile_loadd(3, c1 + TILE, c_stride * 4);
    } else {
        _tile_zero(0);
        if (COLUMNS > 1) _tile_zero(1);
        if (ROWS > 1) _tile_zero(2);
        if (ROWS > 1 && COLUMNS > 1) _tile_zero(3);
    }
    for (int64_t step = 0; step < steps; step++) {
        _tile_loadd(4, a + step * a_step, a_stride * 2);
        _tile_loadd(6, b + step * TILE * DEPTH, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (COLUMNS > 1) {
            _tile_loadd(7, b + b_next + step * TILE * DEPTH, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (ROWS > 1) {
            _tile_loadd(5, a + a_next + step * a_step, a_stride * 2);
            _tile_dpbf16ps(2, 5, 6);
            if (COLUMNS > 1) _tile_dpbf16ps(3, 5, 7);
        }
        work();
    }
    _tile_stored(0, c, c_stride * 4);
    if (COLUMNS > 1) _tile_stored(1, c + TILE, c_stride * 4);
    if (ROWS > 1) _tile_stored(2, c1, c_stride * 4);
    if (ROWS > 1 && COLUMNS > 1) _tile_stored(3, c1 + TILE, c_stride * 4);
}

#elif defined(GROUNDUP_BF16)

constexpr int STRIP = 8; // number of rows whose sums stay in registers during the loop over k

// Each pair of values of A is broadcast to a register and multiplied with both panels of a block. This takes 10 loads
// per 16 FMAs. With blocks of 16 rows and one panel, 16 FMAs would take 17 loads. Then loads would be the bottleneck,
// because the CPU executes two loads and two FMAs per cycle.
template <int ROWS, int COLUMNS, typename Work>
inline void multiply_block(float *c, int64_t c_stride, const bf16 *a, int64_t a_stride, int64_t a_step, int64_t a_next,
                           const bf16 *b, int64_t b_next, int64_t steps, bool add, Work &) {
    for (int row = 0; row < ROWS * TILE; row += STRIP) {
        const bf16 *left = a + row / TILE * a_next + row % TILE * a_stride;
        float *out = c + row * c_stride;
        __m512 sums[STRIP][COLUMNS];
#pragma GCC unroll 8
        for (int r = 0; r < STRIP; r++)
#pragma GCC unroll 2
            for (int j = 0; j < COLUMNS; j++)
                sums[r][j] = add ? _mm512_loadu_ps(out + r * c_stride + j * TILE) : _mm512_setzero_ps();
        for (int64_t step = 0; step < steps; step++)
            for (int pair = 0; pair < DEPTH / 2; pair++) {
                __m512bh columns[COLUMNS];
#pragma GCC unroll 2
                for (int j = 0; j < COLUMNS; j++)
                    columns[j] = (__m512bh)_mm512_loadu_si512(b + j * b_next + step * TILE * DEPTH + pair * DEPTH);
#pragma GCC unroll 8
                for (int r = 0; r < STRIP; r++) {
                    int32_t two;
                    memcpy(&two, left + step * a_step + r * a_stride + 2 * pair, 4);
                    const __m512bh values = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 2
                    for (int j = 0; j < COLUMNS; j++) sums[r][j] = _mm512_dpbf16_ps(sums[r][j], values, columns[j]);
                }
            }
#pragma GCC unroll 8
        for (int r = 0; r < STRIP; r++)
#pragma GCC unroll 2
            for (int j = 0; j < COLUMNS; j++) _mm512_storeu_ps(out + r * c_stride + j * TILE, sums[r][j]);
    }
}

#endif

#ifdef GROUNDUP_BF16

// Computes C (m x n) = A B, or C += A B if `add` is true. `m` and `n` are multiples of 16. `b_next` is the stride
// between panels of B. Calls `work` between the steps if it can overlap with them.
template <typename Work = const NoWork>
inline void multiply(float *c, int64_t c_stride, const Left &a, const bf16 *b, int64_t b_next, int64_t m, int64_t n,
                     int64_t steps, bool add, Work &&work = {}) {
    for (int64_t j = 0; j < n; j += 2 * TILE) {
        const bf16 *panel = b + j / TILE * b_next;
        for (int64_t i = 0; i < m; i += 2 * TILE) {
            const bf16 *left = a.data + i / TILE * a.next;
            float *out = c + i * c_stride + j;
            const bool two_rows = i + TILE < m, two_columns = j + TILE < n;
            if (two_rows && two_columns)
                multiply_block<2, 2>(out, c_stride, left, a.stride, a.step, a.next, panel, b_next, steps, add, work);
            else if (two_rows)
                multiply_block<2, 1>(out, c_stride, left, a.stride, a.step, a.next, panel, b_next, steps, add, work);
            else if (two_columns)
                multiply_block<1, 2>(out, c_stride, left, a.stride, a.step, a.next, panel, b_next, steps, add, work);
            else
                multiply_block<1, 1>(out, c_stride, left, a.stride, a.step, a.next, panel, b_next, steps, add, work);
        }
    }
}

#else

// Number of rows and of panels whose sums stay in registers during the loop over k.
constexpr int STRIP = NUM_VECTORS == 32 ? 8 : 6, PANELS = NUM_VECTORS == 32 ? 2 : 1;
constexpr int CHUNK = 128; // number of values of k whose operands stay in the first-level cache in fp32

// Adds the products of ROWS rows of A (fp32, with a stride of CHUNK) and of 16 x COLUMNS columns of B (fp32) to C.
template <int ROWS, int COLUMNS>
inline void multiply_strip(float *c, int64_t c_stride, const float *a, const float *b, int64_t depth, bool add) {
    Floats sums[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; j++) sums[r][j] = add ? load(c + r * c_stride + j * TILE) : zeros();
    for (int64_t k = 0; k < depth; k++) {
        Floats columns[COLUMNS];
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; j++) columns[j] = load(b + (k * COLUMNS + j) * TILE);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const Floats value = broadcast(a[r * CHUNK + k]);
#pragma GCC unroll 2
            for (int j = 0; j < COLUMNS; j++) sums[r][j] = fmadd(value, columns[j], sums[r][j]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; j++) store(c + r * c_stride + j * TILE, sums[r][j]);
}

// Computes the columns of up to two panels of the result. Conversions to fp32 share execution ports with FMAs. So a chunk
// of B is converted once for all rows, and a strip of A once for both panels.
template <int COLUMNS>
inline void multiply_columns(float *c, int64_t c_stride, const Left &a, const bf16 *b, int64_t b_next, int64_t m,
                             int64_t steps, bool add) {
    constexpr int AT_ONCE = std::min(COLUMNS, PANELS);
    alignas(64) float left[STRIP * CHUNK], right[CHUNK * COLUMNS * TILE];
    const int64_t strips = (m + STRIP - 1) / STRIP; // of STRIP or STRIP - 1 rows
    for (int64_t step = 0; step < steps; step += CHUNK / DEPTH) {
        const int64_t depth = std::min<int64_t>(CHUNK, (steps - step) * DEPTH);
        for (int64_t k = 0; k < depth; k += 2)
            for (int j = 0; j < COLUMNS; j++) {
                Floats values[2];
                widen_pairs(values, b + j * b_next + (step * DEPTH + k) * TILE);
                float *to = right + (j / AT_ONCE * CHUNK + k) * AT_ONCE * TILE + j % AT_ONCE * TILE;
                for (int odd = 0; odd < 2; odd++) store(to + odd * AT_ONCE * TILE, values[odd]);
            }
        for (int64_t strip = 0; strip < strips; strip++) {
            const int64_t first = m * strip / strips, count = m * (strip + 1) / strips - first;
            for (int64_t r = 0; r < count; r++) {
                const bf16 *from = a.data + (first + r) / TILE * a.next + (first + r) % TILE * a.stride + step * a.step;
                for (int64_t k = 0; k < depth; k += TILE)
                    store(left + r * CHUNK + k, load(from + k / DEPTH * a.step + k % DEPTH));
            }
            const auto multiply = count == STRIP ? multiply_strip<STRIP, AT_ONCE> : multiply_strip<STRIP - 1, AT_ONCE>;
            for (int j = 0; j < COLUMNS; j += AT_ONCE)
                multiply(c + first * c_stride + j * TILE, c_stride, left, right + j * CHUNK * TILE, depth, add || step > 0);
        }
    }
}

// As above. The function is not inlined, because it is large.
__attribute__((noinline, unused)) static void multiply(float *c, int64_t c_stride, const Left &a, const bf16 *b,
                                                       int64_t b_next, int64_t m, int64_t n, int64_t steps, bool add) {
    for (int64_t j = 0; j < n; j += 2 * TILE) {
        const auto columns = j + TILE < n ? multiply_columns<2> : multiply_columns<1>;
        columns(c + j, c_stride, a, b + j / TILE * b_next, b_next, m, steps, add);
    }
}

template <typename Work>
inline void multiply(float *c, int64_t c_stride, const Left &a, const bf16 *b, int64_t b_next, int64_t m, int64_t n,
                     int64_t steps, bool add, Work &&) {
    multiply(c, c_stride, a, b, b_next, m, n, steps, add);
}

#endif

// Loads the rows k and k + 1 of a matrix and interleaves them; see `interleave`. Rows after the last row are zeros.
inline void load_pairs(Ints &first, Ints &second, const bf16 *source, int64_t stride, int64_t k, int64_t depth,
                       int64_t columns) {
    // Prefetch the rows of the next step, because the hardware prefetcher does not predict the large stride between
    // rows.
    prefetch(source + (k + DEPTH) * stride);
    prefetch(source + (k + DEPTH + 1) * stride);
    interleave(first, second, k < depth ? source + k * stride : nullptr, k + 1 < depth ? source + (k + 1) * stride : nullptr,
               columns);
}

// Packs the operand A (m x depth) into tiles. The last tiles are padded with rows of zeros, up to a multiple of 32 rows.
// The rows of a tile are adjacent, so loading a tile does not depend on the stride of the matrix.
inline void pack_rows(bf16 *out, const bf16 *source, int64_t stride, int64_t depth, int64_t m) {
    for (int64_t i = 0; i < round_up(m, 2 * TILE); i++) {
        bf16 *row = out + i / TILE * TILE * depth + i % TILE * DEPTH;
        for (int64_t k = 0; k < depth; k += DEPTH)
            store(row + k * TILE, i < m ? load_ints(source + i * stride + k) : zero_ints());
    }
}

// Packs the operand A from its transpose (depth x m), and pads k with zeros to a multiple of 32. The loop reads rows
// sequentially, which the hardware prefetcher predicts well.
inline void pack_left(bf16 *out, const bf16 *source, int64_t stride, int64_t depth, int64_t m) {
    const int64_t tile_row = round_up(depth, DEPTH) * TILE; // stride between groups of 16 rows of A
    for (int64_t k = 0; k < depth; k += DEPTH)
        for (int64_t i = 0; i < m; i += 2 * TILE) {
            Ints v[16], w[16];
            for (int p = 0; p < 16; p++) load_pairs(v[p], w[p], source + i, stride, k + 2 * p, depth, m - i);
            bf16 *tile = out + i / TILE * tile_row + k * TILE;
            transpose(v);
            for (int r = 0; r < 16; r++) store(tile + r * DEPTH, v[r]);
            if (i + TILE >= m) break;
            transpose(w);
            for (int r = 0; r < 16; r++) store(tile + tile_row + r * DEPTH, w[r]);
        }
}

// Packs the operand B from a row-major matrix (depth x n).
inline void pack_right(bf16 *out, const bf16 *source, int64_t stride, int64_t depth, int64_t n) {
    const int64_t panel = round_up(depth, DEPTH) * TILE;
    // The inner loops write full tiles. If they wrote single lines of different panels, these lines would evict each
    // other from the cache.
    for (int64_t k = 0; k < depth; k += DEPTH)
        for (int64_t j = 0; j < n; j += 2 * TILE) {
            bf16 *place = out + j / TILE * panel + k * TILE;
            for (int p = 0; p < DEPTH; p += 2, place += DEPTH) {
                Ints v, w;
                load_pairs(v, w, source + j, stride, k + p, depth, n - j);
                store(place, v);
                if (j + TILE < n) store(place + panel, w);
            }
        }
}

// Packs the operand B from its transpose (n x depth). Pads n with zeros to a multiple of 32, so that the number of
// panels is even.
inline void pack_right_transposed(bf16 *out, const bf16 *source, int64_t stride, int64_t depth, int64_t n) {
    for (int64_t j = 0; j < round_up(n, 2 * TILE); j += TILE)
        for (int64_t k = 0; k < depth; k += DEPTH) {
            Ints v[16];
            for (int r = 0; r < 16; r++)
                v[r] = j + r < n ? load_ints(source + (j + r) * stride + k) : zero_ints();
            transpose(v);
            for (int p = 0; p < 16; p++, out += DEPTH) store(out, v[p]);
        }
}

// Divides the range [0, size) into `parts` parts, and returns the part `index` as [from, to). The boundaries are
// multiples of 32.
inline void share(int64_t size, int index, int parts, int64_t &from, int64_t &to) {
    const int64_t strip = 2 * TILE, strips = round_up(size, strip) / strip;
    from = std::min(size, strips * index / parts * strip);
    to = std::min(size, strips * (index + 1) / parts * strip);
}

// A buffer that a thread reuses between calls. Page faults of newly allocated memory would take longer than the
// computation.
template <typename Value> class Scratch {
  public:
    Value *at_least(int64_t count) {
        if (count > size_) {
            free(data_);
            data_ = (Value *)aligned_alloc(64, round_up(count * sizeof(Value), 64));
            size_ = count;
        }
        return data_;
    }
    ~Scratch() { free(data_); }

  private:
    Value *data_ = nullptr;
    int64_t size_ = 0;
};

} // namespace groundup
