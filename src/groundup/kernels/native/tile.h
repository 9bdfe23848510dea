// Matmuls of small bf16 blocks with fp32 accumulation. The implementation uses AMX tiles if the CPU supports AMX,
// otherwise AVX-512 bf16 dot products, otherwise fp32 FMAs. Packed operands have the same layout for all of them, so
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

constexpr int STRIP = 8;   // number of rows whose sums stay in registers during the loop over k
constexpr int CHUNK = 128; // number of values of k whose operands stay in the first-level cache in fp32

// Adds the products of STRIP rows of A (fp32, with a stride of CHUNK) and of 16 x COLUMNS columns of B (fp32) to C.
template <int COLUMNS>
inline void multiply_strip(float *c, int64_t c_stride, const float *a, const float *b, int64_t depth, bool add) {
    __m512 sums[STRIP][COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < STRIP; r++)
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; j++)
            sums[r][j] = add ? _mm512_loadu_ps(c + r * c_stride + j * TILE) : _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k++) {
        __m512 columns[COLUMNS];
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; j++) columns[j] = _mm512_load_ps(b + (k * COLUMNS + j) * TILE);
#pragma GCC unroll 8
        for (int r = 0; r < STRIP; r++) {
            const __m512 value = _mm512_set1_ps(a[r * CHUNK + k]);
#pragma GCC unroll 2
            for (int j = 0; j < COLUMNS; j++) sums[r][j] = _mm512_fmadd_ps(value, columns[j], sums[r][j]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < STRIP; r++)
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; j++) _mm512_storeu_ps(c + r * c_stride + j * TILE, sums[r][j]);
}

// Computes 16 x COLUMNS columns of the result. Conversions to fp32 share execution ports with FMAs. So B is converted
// once for all rows, and A once for all columns.
template <int COLUMNS>
inline void multiply_columns(float *c, int64_t c_stride, const Left &a, const bf16 *b, int64_t b_next, int64_t m,
                             int64_t steps, bool add) {
    alignas(64) float left[STRIP * CHUNK], right[CHUNK * COLUMNS * TILE];
    for (int64_t step = 0; step < steps; step += CHUNK / DEPTH) {
        const int64_t depth = std::min<int64_t>(CHUNK, (steps - step) * DEPTH);
        for (int64_t k = 0; k < depth; k += 2)
            for (int j = 0; j < COLUMNS; j++) {
                __m512 values[2];
                widen_pairs(values, b + j * b_next + (step * DEPTH + k) * TILE);
                for (int odd = 0; odd < 2; odd++)
                    _mm512_store_ps(right + ((k + odd) * COLUMNS + j) * TILE, values[odd]);
            }
        for (int64_t row = 0; row < m; row += STRIP) {
            const bf16 *from = a.data + row / TILE * a.next + row % TILE * a.stride + step * a.step;
            for (int r = 0; r < STRIP; r++)
                for (int64_t k = 0; k < depth; k += TILE)
                    _mm512_store_ps(left + r * CHUNK + k, widened(from + r * a.stride + k / DEPTH * a.step + k % DEPTH));
            multiply_strip<COLUMNS>(c + row * c_stride, c_stride, left, right, depth, add || step > 0);
        }
    }
}

// As above. The function is not inlined, because it is large.
__attribute__((noinline, unused)) static void multiply(float *c, int64_t c_stride, const Left &a, const bf16 *b,
                                                       int64_t b_next, int64_t m, int64_t n, int64_t steps, bool add) {
    int64_t j = 0;
    for (; j + TILE < n; j += 2 * TILE) multiply_columns<2>(c + j, c_stride, a, b + j / TILE * b_next, b_next, m, steps, add);
    if (j < n) multiply_columns<1>(c + j, c_stride, a, b + j / TILE * b_next, b_next, m, steps, add);
}

template <typename Work>
inline void multiply(float *c, int64_t c_stride, const Left &a, const bf16 *b, int64_t b_next, int64_t m, int64_t n,
                     int64_t steps, bool add, Work &&) {
    multiply(c, c_stride, a, b, b_next, m, n, steps, add);
}

#endif

// Transposes a matrix of 16 x 16 values of 32 bits.
inline void transpose(__m512i v[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int half = 0; half < 16; half += 8)
        for (int i = 0; i < 4; i++) {
            t[half + i] = _mm512_shuffle_i32x4(v[half + i], v[half + i + 4], 0x88);
            t[half + i + 4] = _mm512_shuffle_i32x4(v[half + i], v[half + i + 4], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

// Loads the rows k and k + 1 of a matrix and interleaves them, so that the two values of a column are adjacent. `first`
// gets the columns [0, 16), and `second` gets the columns [16, 32). Rows after the last row and masked columns are
// zeros.
inline void load_pairs(__m512i &first, __m512i &second, const bf16 *source, int64_t stride, int64_t k, int64_t depth,
                       __mmask32 columns) {
    // Prefetch the rows of the next step, because the hardware prefetcher does not predict the large stride between
    // rows.
    _mm_prefetch((const char *)(source + (k + DEPTH) * stride), _MM_HINT_T0);
    _mm_prefetch((const char *)(source + (k + DEPTH + 1) * stride), _MM_HINT_T0);
    const __m512i even = k < depth ? _mm512_maskz_loadu_epi16(columns, source + k * stride) : _mm512_setzero_si512();
    const __m512i odd =
        k + 1 < depth ? _mm512_maskz_loadu_epi16(columns, source + (k + 1) * stride) : _mm512_setzero_si512();
    // The permutation uses indices of 16-bit values: 0 to 31 are in the even row, and 32 to 63 are in the odd row.
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    first = _mm512_permutex2var_epi16(even, low, odd);
    second = _mm512_permutex2var_epi16(even, _mm512_add_epi16(low, _mm512_set1_epi16(16)), odd);
}

inline __mmask32 first_columns(int64_t count) { return count >= 32 ? 0xffffffffu : (1u << count) - 1; }

// Packs the operand A (m x depth) into tiles. The last tiles are padded with rows of zeros, up to a multiple of 32 rows.
// The rows of a tile are adjacent, so loading a tile does not depend on the stride of the matrix.
inline void pack_rows(bf16 *out, const bf16 *source, int64_t stride, int64_t depth, int64_t m) {
    for (int64_t i = 0; i < round_up(m, 2 * TILE); i++) {
        bf16 *row = out + i / TILE * TILE * depth + i % TILE * DEPTH;
        for (int64_t k = 0; k < depth; k += DEPTH)
            _mm512_storeu_si512(row + k * TILE,
                                i < m ? _mm512_loadu_si512(source + i * stride + k) : _mm512_setzero_si512());
    }
}

// Packs the operand A from its transpose (depth x m), and pads k with zeros to a multiple of 32. The loop reads rows
// sequentially, which the hardware prefetcher predicts well.
inline void pack_left(bf16 *out, const bf16 *source, int64_t stride, int64_t depth, int64_t m) {
    const int64_t tile_row = round_up(depth, DEPTH) * TILE; // stride between groups of 16 rows of A
    for (int64_t k = 0; k < depth; k += DEPTH)
        for (int64_t i = 0; i < m; i += 2 * TILE) {
            __m512i v[16], w[16];
            for (int p = 0; p < 16; p++) load_pairs(v[p], w[p], source + i, stride, k + 2 * p, depth, first_columns(m - i));
            bf16 *tile = out + i / TILE * tile_row + k * TILE;
            transpose(v);
            for (int r = 0; r < 16; r++) _mm512_storeu_si512(tile + r * DEPTH, v[r]);
            if (i + TILE >= m) break;
            transpose(w);
            for (int r = 0; r < 16; r++) _mm512_storeu_si512(tile + tile_row + r * DEPTH, w[r]);
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
                __m512i v, w;
                load_pairs(v, w, source + j, stride, k + p, depth, first_columns(n - j));
                _mm512_storeu_si512(place, v);
                if (j + TILE < n) _mm512_storeu_si512(place + panel, w);
            }
        }
}

// Packs the operand B from its transpose (n x depth). Pads n with zeros to a multiple of 32, so that the number of
// panels is even.
inline void pack_right_transposed(bf16 *out, const bf16 *source, int64_t stride, int64_t depth, int64_t n) {
    for (int64_t j = 0; j < round_up(n, 2 * TILE); j += TILE)
        for (int64_t k = 0; k < depth; k += DEPTH) {
            __m512i v[16];
            for (int r = 0; r < 16; r++)
                v[r] = j + r < n ? _mm512_loadu_si512(source + (j + r) * stride + k) : _mm512_setzero_si512();
            transpose(v);
            for (int p = 0; p < 16; p++, out += DEPTH) _mm512_storeu_si512(out, v[p]);
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
