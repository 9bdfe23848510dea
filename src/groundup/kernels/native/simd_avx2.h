// The vectors of simd.h in pairs of AVX2 registers. The code needs AVX2, FMA and F16C, and uses AVX-VNNI if the CPU has it.
#pragma once
#include <immintrin.h>

namespace groundup {

constexpr int NUM_VECTORS = 8; // number of vectors that fit into the CPU's registers

struct Floats {
    __m256 low, high;
};
struct Ints {
    __m256i low, high;
};
struct Mask { // all bits of a lane are equal
    __m256i low, high;
};
struct Bf16s { // 16 bf16 values
    __m256i v;
};

// Masks.
inline Mask operator&(Mask a, Mask b) { return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)}; }
inline Mask operator|(Mask a, Mask b) { return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)}; }
inline Mask operator~(Mask a) {
    const __m256i ones = _mm256_set1_epi32(-1);
    return {_mm256_xor_si256(a.low, ones), _mm256_xor_si256(a.high, ones)};
}
inline uint32_t bits_of(Mask a) { // bit i is lane i
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(a.low)) |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(a.high)) << 8;
}
inline Mask mask_of(uint32_t bits) {
    const __m256i all = _mm256_set1_epi32((int32_t)bits);
    const __m256i low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), high = _mm256_slli_epi32(low, 8);
    return {_mm256_cmpeq_epi32(_mm256_and_si256(all, low), low), _mm256_cmpeq_epi32(_mm256_and_si256(all, high), high)};
}
inline bool any(Mask a) { return bits_of(a) != 0; }
inline Mask first_lanes(int64_t count) {
    const __m256i end = _mm256_set1_epi32((int32_t)std::max<int64_t>(0, std::min<int64_t>(count, 16)));
    return {_mm256_cmpgt_epi32(end, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            _mm256_cmpgt_epi32(end, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}

// fp32 arithmetic.
inline Floats broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline Floats fmadd(Floats a, Floats b, Floats c) { // a b + c
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats fmsub(Floats a, Floats b, Floats c) { // a b - c
    return {_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)};
}
inline Floats fnmadd(Floats a, Floats b, Floats c) { // c - a b
    return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
inline Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Floats abs(Floats a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
inline Floats sqrt(Floats a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
inline Floats nearest_integer(Floats a) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.low, nearest), _mm256_round_ps(a.high, nearest)};
}
// Multiplies by 2^(exponent / 2) twice, because 2^exponent may not be a normal number although the result is.
inline __m256 times_power_of_2(__m256 a, __m256 exponent) {
    const __m256 bounded = _mm256_max_ps(_mm256_set1_ps(-252), _mm256_min_ps(_mm256_set1_ps(254), exponent));
    const __m256i whole = _mm256_cvtps_epi32(bounded), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
inline Floats times_power_of_2(Floats a, Floats exponent) {
    return {times_power_of_2(a.low, exponent.low), times_power_of_2(a.high, exponent.high)};
}
inline Floats reciprocal(Floats x) { return broadcast(1.0f) / x; }
// The order of additions is the same as with AVX-512.
inline float reduce_add(Floats a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float reduce_max(Floats a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// Comparisons and selection.
template <int PREDICATE> inline Mask compared(Floats a, Floats b) {
    return {_mm256_castps_si256(_mm256_cmp_ps(a.low, b.low, PREDICATE)),
            _mm256_castps_si256(_mm256_cmp_ps(a.high, b.high, PREDICATE))};
}
inline Mask operator>(Floats a, Floats b) { return compared<_CMP_GT_OQ>(a, b); }
inline Mask operator>=(Floats a, Floats b) { return compared<_CMP_GE_OQ>(a, b); }
inline Mask operator==(Floats a, Floats b) { return compared<_CMP_EQ_OQ>(a, b); }
inline Mask is_nan(Floats a) { return compared<_CMP_UNORD_Q>(a, a); }
inline Floats select(Mask lanes, Floats a, Floats b) { // a, else b
    return {_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(lanes.low)),
            _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(lanes.high))};
}
inline Floats keep(Mask lanes, Floats a) { // a, else 0
    return {_mm256_and_ps(a.low, _mm256_castsi256_ps(lanes.low)), _mm256_and_ps(a.high, _mm256_castsi256_ps(lanes.high))};
}

// fp32 loads and stores. Masked loads are 0 in other lanes, or the value of `others`.
inline Floats load(const float *source) { return {_mm256_loadu_ps(source), _mm256_loadu_ps(source + 8)}; }
inline Floats load(const float *source, Mask lanes) {
    return {_mm256_maskload_ps(source, lanes.low), _mm256_maskload_ps(source + 8, lanes.high)};
}
inline Floats load(const float *source, Mask lanes, float others) {
    return select(lanes, load(source, lanes), broadcast(others));
}
inline void store(float *out, Floats values) {
    _mm256_storeu_ps(out, values.low);
    _mm256_storeu_ps(out + 8, values.high);
}
inline void store(float *out, Mask lanes, Floats values) {
    _mm256_maskstore_ps(out, lanes.low, values.low);
    _mm256_maskstore_ps(out + 8, lanes.high, values.high);
}
inline Floats load_fp16(const void *source) {
    const __m128i *halves = (const __m128i *)source;
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
inline float fp16_to_fp32(uint16_t value) { return _cvtsh_ss(value); }

// 32-bit integers.
inline Ints broadcast_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Ints lane_numbers() {
    return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}
inline Ints zero_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints load_ints(const void *source) {
    const __m256i *halves = (const __m256i *)source;
    return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
}
inline void store(void *out, Ints values) {
    _mm256_storeu_si256((__m256i *)out, values.low);
    _mm256_storeu_si256((__m256i *)out + 1, values.high);
}
inline Ints operator+(Ints a, Ints b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
inline Mask operator>(Ints a, Ints b) { return {_mm256_cmpgt_epi32(a.low, b.low), _mm256_cmpgt_epi32(a.high, b.high)}; }
inline Mask operator<=(Ints a, Ints b) { return ~(a > b); }
inline int32_t reduce_add(Ints a) {
    const __m256i eight = _mm256_add_epi32(a.low, a.high);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
inline Ints bits_of(Floats a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
inline Floats as_floats(Ints a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
inline Floats to_floats(Ints a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline Ints to_nearest_ints(Floats a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
inline Ints truncated_to_ints(Floats a) { return {_mm256_cvttps_epi32(a.low), _mm256_cvttps_epi32(a.high)}; }
// Returns the low 16 bits of each lane, which must not exceed 65535 as an unsigned number.
inline __m256i low_words(Ints a) { return _mm256_permute4x64_epi64(_mm256_packus_epi32(a.low, a.high), 0xd8); }
inline void store_low_bytes(void *out, Ints a) {
    const __m256i byte = _mm256_set1_epi32(255);
    const __m256i words = low_words({_mm256_and_si256(a.low, byte), _mm256_and_si256(a.high, byte)});
    const __m128i packed = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)out, packed);
}

// Bytes.
inline Ints low_halves(Ints bytes) { // bits 0 to 3
    const __m256i low = _mm256_set1_epi8(15);
    return {_mm256_and_si256(bytes.low, low), _mm256_and_si256(bytes.high, low)};
}
inline Ints high_halves(Ints bytes) { return low_halves({_mm256_srli_epi16(bytes.low, 4), _mm256_srli_epi16(bytes.high, 4)}); }

// bf16. Rounds to nearest even. NaN stays NaN.
inline __m256i upper_half_rounded(__m256 values) {
    const __m256i bits = _mm256_castps_si256(values), last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
}
inline Bf16s rounded_to_bf16(Floats values) {
    return {low_words({upper_half_rounded(values.low), upper_half_rounded(values.high)})};
}
inline __m256 widened(__m128i values) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(values), 16)); }
inline Floats widened(Bf16s values) {
    return {widened(_mm256_castsi256_si128(values.v)), widened(_mm256_extracti128_si256(values.v, 1))};
}
inline Bf16s load_bf16(const bf16 *source) { return {_mm256_loadu_si256((const __m256i *)source)}; }
inline void store_bf16(bf16 *out, Bf16s values) { _mm256_storeu_si256((__m256i *)out, values.v); }
// The lanes must be the first ones, because AVX2 has no masks for 16-bit values.
inline Bf16s load_bf16(const bf16 *source, Mask lanes) {
    const int count = __builtin_popcount(bits_of(lanes));
    if (count == 16) return load_bf16(source);
    alignas(32) bf16 values[16] = {};
    memcpy(values, source, count * sizeof(bf16));
    return load_bf16(values);
}
inline void store_bf16(bf16 *out, Mask lanes, Bf16s values) {
    const int count = __builtin_popcount(bits_of(lanes));
    if (count == 16) return store_bf16(out, values);
    alignas(32) bf16 stored[16];
    store_bf16(stored, values);
    memcpy(out, stored, count * sizeof(bf16));
}

// Loads 32 values, as two vectors.
inline void load_pair(Floats values[2], const bf16 *source) {
    for (int half = 0; half < 2; half++) values[half] = widened(load_bf16(source + 16 * half));
}

// Stores 32 values.
inline void store_pair(bf16 *out, const Floats values[2]) {
    for (int half = 0; half < 2; half++) store_bf16(out + 16 * half, rounded_to_bf16(values[half]));
}

// Converts 16 pairs of bf16 values to fp32: the first and the second values of the pairs.
inline void widen_pairs(Floats out[2], const void *pairs) {
    const Ints both = load_ints(pairs);
    const __m256i upper = _mm256_set1_epi32((int32_t)0xffff0000);
    out[0] = as_floats({_mm256_slli_epi32(both.low, 16), _mm256_slli_epi32(both.high, 16)});
    out[1] = as_floats({_mm256_and_si256(both.low, upper), _mm256_and_si256(both.high, upper)});
}

// Interleaves two rows of up to 32 bf16 values, so that the two values of a column are adjacent. `first` gets the columns
// [0, 16), and `second` gets the columns [16, 32). A row that is null and columns from `count` on are zeros.
inline void interleave(Ints &first, Ints &second, const bf16 *even_row, const bf16 *odd_row, int64_t count) {
    alignas(32) bf16 rows[2][32];
    const bf16 *sources[2] = {even_row, odd_row};
    for (int row = 0; row < 2; row++)
        if (!sources[row] || count < 32) {
            memset(rows[row], 0, sizeof rows[row]);
            if (sources[row]) memcpy(rows[row], sources[row], count * sizeof(bf16));
            sources[row] = rows[row];
        }
    const auto columns = [&](int from) {
        const __m256i even = load_bf16(sources[0] + from).v, odd = load_bf16(sources[1] + from).v;
        const __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
        return Ints{_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31)};
    };
    first = columns(0), second = columns(16);
}

// Transposes a matrix of 8 x 8 values of 32 bits.
inline void transpose_8x8(__m256i v[8]) {
    __m256i t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) v[i] = t[i];
}

// Transposes a matrix of 16 x 16 values of 32 bits.
inline void transpose(Ints v[16]) {
    __m256i blocks[2][2][8]; // blocks[i][j] are the rows from 8 i and the columns from 8 j
    for (int i = 0; i < 16; i++) blocks[i / 8][0][i % 8] = v[i].low, blocks[i / 8][1][i % 8] = v[i].high;
    for (auto &row : blocks)
        for (auto &block : row) transpose_8x8(block);
    for (int i = 0; i < 16; i++) v[i] = {blocks[0][i / 8][i % 8], blocks[1][i / 8][i % 8]};
}

// Four int8 inputs that `add_dot` multiplies with four unsigned bytes of each lane. Without dot product instructions, the
// inputs are stored as 16-bit values, in the order 0, 2, 1, 3, so that they need not be converted for each output.
#ifdef __AVXVNNI__
typedef int8_t Input;
struct FourInputs {
    __m256i all;
    explicit FourInputs(const Input *x) {
        int32_t four;
        memcpy(&four, x, 4);
        all = _mm256_set1_epi32(four);
    }
};
#else
typedef int16_t Input;
struct FourInputs {
    __m256i even, odd;
    explicit FourInputs(const Input *x) {
        int32_t pairs[2];
        memcpy(pairs, x, 8);
        even = _mm256_set1_epi32(pairs[0]), odd = _mm256_set1_epi32(pairs[1]);
    }
};
#endif

// Stores 16 values between -127 and 127 as inputs.
inline void store_inputs(Input *out, Ints values) {
#ifdef __AVXVNNI__
    store_low_bytes(out, values);
#else
    const __m256i low = _mm256_shuffle_epi32(values.low, 0xd8), high = _mm256_shuffle_epi32(values.high, 0xd8);
    _mm256_storeu_si256((__m256i *)out, _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8));
#endif
}

// Adds the dot product of four unsigned bytes and four inputs to each lane, without saturation.
inline __m256i add_dot(__m256i sums, __m256i bytes, const FourInputs &inputs) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sums, bytes, inputs.all);
#else
    const __m256i even = _mm256_and_si256(bytes, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(bytes, 8);
    const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(even, inputs.even), _mm256_madd_epi16(odd, inputs.odd));
    return _mm256_add_epi32(sums, both);
#endif
}
inline Ints add_dot(Ints sums, Ints bytes, const FourInputs &inputs) {
    return {add_dot(sums.low, bytes.low, inputs), add_dot(sums.high, bytes.high, inputs)};
}

// Returns whether each of 16 bytes equals a value, as bits.
inline uint32_t equal_bytes(const uint8_t *bytes, uint8_t value) {
    const __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)bytes), _mm_set1_epi8((char)value));
    return (uint32_t)_mm_movemask_epi8(equal);
}

inline void prefetch(const void *address) { _mm_prefetch((const char *)address, _MM_HINT_T0); }
inline void spin_pause() { _mm_pause(); } // tells the CPU that a thread waits in a loop

} // namespace groundup
