// The vectors of simd.h in AVX-512 registers. If the CPU lacks bf16 or VNNI instructions, other instructions compute the
// same results.
#pragma once
#include <immintrin.h>

namespace groundup {

constexpr int NUM_VECTORS = 32; // number of vectors that fit into the CPU's registers

// Whether the CPU multiplies bf16 values. Otherwise, they are converted to fp32.
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#define GROUNDUP_BF16
#endif

struct Floats {
    __m512 v;
};
struct Ints {
    __m512i v;
};
struct Mask {
    __mmask16 v;
};
struct Bf16s { // 16 bf16 values
    __m256i v;
};

// Masks.
inline Mask operator&(Mask a, Mask b) { return {(__mmask16)(a.v & b.v)}; }
inline Mask operator|(Mask a, Mask b) { return {(__mmask16)(a.v | b.v)}; }
inline Mask operator~(Mask a) { return {(__mmask16)~a.v}; }
inline uint32_t bits_of(Mask a) { return a.v; } // bit i is lane i
inline Mask mask_of(uint32_t bits) { return {(__mmask16)bits}; }
inline bool any(Mask a) { return a.v != 0; }
inline Mask first_lanes(int64_t count) {
    return {count >= 16 ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1)};
}

// fp32 arithmetic.
inline Floats broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Floats zeros() { return {_mm512_setzero_ps()}; }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats fmadd(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }   // a b + c
inline Floats fmsub(Floats a, Floats b, Floats c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }   // a b - c
inline Floats fnmadd(Floats a, Floats b, Floats c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; } // c - a b
inline Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats abs(Floats a) { return {_mm512_abs_ps(a.v)}; }
inline Floats sqrt(Floats a) { return {_mm512_sqrt_ps(a.v)}; }
inline Floats nearest_integer(Floats a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Floats times_power_of_2(Floats a, Floats exponent) { return {_mm512_scalef_ps(a.v, exponent.v)}; }
// Returns 1 / x with an error of about 1 ULP. Instead of a division, refines an approximation with one step of Newton's
// method.
inline Floats reciprocal(Floats x) {
    const __m512 near = _mm512_rcp14_ps(x.v);
    return {_mm512_mul_ps(near, _mm512_fnmadd_ps(x.v, near, _mm512_set1_ps(2.0f)))};
}
inline float reduce_add(Floats a) { return _mm512_reduce_add_ps(a.v); }
inline float reduce_max(Floats a) { return _mm512_reduce_max_ps(a.v); }

// Comparisons and selection.
inline Mask operator>(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline Mask operator>=(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
inline Mask operator==(Floats a, Floats b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask is_nan(Floats a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
inline Floats select(Mask lanes, Floats a, Floats b) { return {_mm512_mask_blend_ps(lanes.v, b.v, a.v)}; } // a, else b
inline Floats keep(Mask lanes, Floats a) { return {_mm512_maskz_mov_ps(lanes.v, a.v)}; }                 // a, else 0

// fp32 loads and stores. Masked loads are 0 in other lanes, or the value of `others`.
inline Floats load(const float *source) { return {_mm512_loadu_ps(source)}; }
inline Floats load(const float *source, Mask lanes) { return {_mm512_maskz_loadu_ps(lanes.v, source)}; }
inline Floats load(const float *source, Mask lanes, float others) {
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(others), lanes.v, source)};
}
inline void store(float *out, Floats values) { _mm512_storeu_ps(out, values.v); }
inline void store(float *out, Mask lanes, Floats values) { _mm512_mask_storeu_ps(out, lanes.v, values.v); }
inline Floats load_fp16(const void *source) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)source))}; }
inline float fp16_to_fp32(uint16_t value) { return _cvtsh_ss(value); }

// 32-bit integers.
inline Ints broadcast_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Ints lane_numbers() { return {_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)}; }
inline Ints zero_ints() { return {_mm512_setzero_si512()}; }
inline Ints load_ints(const void *source) { return {_mm512_loadu_si512(source)}; }
inline void store(void *out, Ints values) { _mm512_storeu_si512(out, values.v); }
inline Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Mask operator>(Ints a, Ints b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
inline Mask operator<=(Ints a, Ints b) { return {_mm512_cmple_epi32_mask(a.v, b.v)}; }
inline int32_t reduce_add(Ints a) { return _mm512_reduce_add_epi32(a.v); }
inline Ints bits_of(Floats a) { return {_mm512_castps_si512(a.v)}; }
inline Floats as_floats(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
inline Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Ints to_nearest_ints(Floats a) { return {_mm512_cvtps_epi32(a.v)}; }
inline Ints truncated_to_ints(Floats a) { return {_mm512_cvttps_epi32(a.v)}; }
inline void store_low_bytes(void *out, Ints a) { _mm_storeu_si128((__m128i *)out, _mm512_cvtepi32_epi8(a.v)); }

// Bytes.
inline Ints low_halves(Ints bytes) { return {_mm512_and_si512(bytes.v, _mm512_set1_epi8(15))}; } // bits 0 to 3
inline Ints high_halves(Ints bytes) { return {_mm512_and_si512(_mm512_srli_epi16(bytes.v, 4), _mm512_set1_epi8(15))}; }

// bf16. Rounds to nearest even. NaN stays NaN. The CPU's instruction also flushes denormal numbers to zero.
inline Bf16s rounded_to_bf16(Floats values) {
#ifdef __AVX512BF16__
    return {(__m256i)_mm512_cvtneps_pbh(values.v)};
#else
    const __m512i bits = _mm512_castps_si512(values.v), one = _mm512_set1_epi32(1);
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return {_mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan(values).v, quiet), 16))};
#endif
}
inline Floats widened(Bf16s values) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values.v), 16))};
}
inline Bf16s load_bf16(const bf16 *source) { return {_mm256_loadu_si256((const __m256i *)source)}; }
inline Bf16s load_bf16(const bf16 *source, Mask lanes) { return {_mm256_maskz_loadu_epi16(lanes.v, source)}; }
inline void store_bf16(bf16 *out, Bf16s values) { _mm256_storeu_si256((__m256i *)out, values.v); }
inline void store_bf16(bf16 *out, Mask lanes, Bf16s values) { _mm256_mask_storeu_epi16(out, lanes.v, values.v); }

// Loads 32 values, as two vectors.
inline void load_pair(Floats values[2], const bf16 *source) {
    const __m512i both = _mm512_loadu_si512(source);
    values[0] = widened(Bf16s{_mm512_castsi512_si256(both)});
    values[1] = widened(Bf16s{_mm512_extracti64x4_epi64(both, 1)});
}

// Stores 32 values with one conversion, as one cache line.
inline void store_pair(bf16 *out, const Floats values[2]) {
#ifdef __AVX512BF16__
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(values[1].v, values[0].v));
#else
    const __m512i first = _mm512_castsi256_si512(rounded_to_bf16(values[0]).v);
    _mm512_storeu_si512(out, _mm512_inserti64x4(first, rounded_to_bf16(values[1]).v, 1));
#endif
}

// Converts 16 pairs of bf16 values to fp32: the first and the second values of the pairs.
inline void widen_pairs(Floats out[2], const void *pairs) {
    const __m512i both = _mm512_loadu_si512(pairs);
    out[0].v = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    out[1].v = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int32_t)0xffff0000)));
}

#ifdef GROUNDUP_BF16
// Adds the dot product of two bf16 values to each lane. CPUs with AMX have the instruction; emulated AMX may lack it.
inline Floats add_bf16_dot(Floats sums, Ints a, Ints b) {
#ifdef __AVX512BF16__
    return {_mm512_dpbf16_ps(sums.v, (__m512bh)a.v, (__m512bh)b.v)};
#else
    Floats x[2], y[2];
    widen_pairs(x, &a), widen_pairs(y, &b);
    return fmadd(x[1], y[1], fmadd(x[0], y[0], sums));
#endif
}
#endif

// Interleaves two rows of up to 32 bf16 values, so that the two values of a column are adjacent. `first` gets the columns
// [0, 16), and `second` gets the columns [16, 32). A row that is null and columns from `count` on are zeros.
inline void interleave(Ints &first, Ints &second, const bf16 *even_row, const bf16 *odd_row, int64_t count) {
    const __mmask32 columns = count >= 32 ? 0xffffffffu : (1u << count) - 1;
    const __m512i even = even_row ? _mm512_maskz_loadu_epi16(columns, even_row) : _mm512_setzero_si512();
    const __m512i odd = odd_row ? _mm512_maskz_loadu_epi16(columns, odd_row) : _mm512_setzero_si512();
    // The permutation uses indices of 16-bit values: 0 to 31 are in the even row, and 32 to 63 are in the odd row.
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    first.v = _mm512_permutex2var_epi16(even, low, odd);
    second.v = _mm512_permutex2var_epi16(even, _mm512_add_epi16(low, _mm512_set1_epi16(16)), odd);
}

// Transposes a matrix of 16 x 16 values of 32 bits.
inline void transpose(Ints v[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i].v, v[i + 1].v);
        t[i + 1] = _mm512_unpackhi_epi32(v[i].v, v[i + 1].v);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i].v = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1].v = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2].v = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3].v = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int half = 0; half < 16; half += 8)
        for (int i = 0; i < 4; i++) {
            t[half + i] = _mm512_shuffle_i32x4(v[half + i].v, v[half + i + 4].v, 0x88);
            t[half + i + 4] = _mm512_shuffle_i32x4(v[half + i].v, v[half + i + 4].v, 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        v[i].v = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        v[i + 8].v = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

// Four int8 inputs that `add_dot` multiplies with four unsigned bytes of each lane. Without dot product instructions, the
// inputs are stored as 16-bit values, in the order 0, 2, 1, 3, so that they need not be converted for each output.
#ifdef __AVX512VNNI__
typedef int8_t Input;
struct FourInputs {
    __m512i all;
    explicit FourInputs(const Input *x) {
        int32_t four;
        memcpy(&four, x, 4);
        all = _mm512_set1_epi32(four);
    }
};
#else
typedef int16_t Input;
struct FourInputs {
    __m512i even, odd;
    explicit FourInputs(const Input *x) {
        int32_t pairs[2];
        memcpy(pairs, x, 8);
        even = _mm512_set1_epi32(pairs[0]), odd = _mm512_set1_epi32(pairs[1]);
    }
};
#endif

// Stores 16 values between -127 and 127 as inputs.
inline void store_inputs(Input *out, Ints values) {
#ifdef __AVX512VNNI__
    store_low_bytes(out, values);
#else
    const __m512i ordered = _mm512_shuffle_epi32(values.v, (_MM_PERM_ENUM)0xd8);
    _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi32_epi16(ordered));
#endif
}

// Adds the dot product of four unsigned bytes and four inputs to each lane, without saturation.
inline Ints add_dot(Ints sums, Ints bytes, const FourInputs &inputs) {
#ifdef __AVX512VNNI__
    return {_mm512_dpbusd_epi32(sums.v, bytes.v, inputs.all)};
#else
    const __m512i even = _mm512_and_si512(bytes.v, _mm512_set1_epi16(255)), odd = _mm512_srli_epi16(bytes.v, 8);
    const __m512i both = _mm512_add_epi32(_mm512_madd_epi16(even, inputs.even), _mm512_madd_epi16(odd, inputs.odd));
    return {_mm512_add_epi32(sums.v, both)};
#endif
}

// Returns whether each of 16 bytes equals a value, as bits.
inline uint32_t equal_bytes(const uint8_t *bytes, uint8_t value) {
    return _mm_cmpeq_epi8_mask(_mm_loadu_si128((const __m128i *)bytes), _mm_set1_epi8((char)value));
}

inline void prefetch(const void *address) { _mm_prefetch((const char *)address, _MM_HINT_T0); }
inline void spin_pause() { _mm_pause(); } // tells the CPU that a thread waits in a loop

} // namespace groundup
