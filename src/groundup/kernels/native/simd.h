// Vector instructions that some CPUs lack, with the same results in other instructions.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace groundup {

typedef uint16_t bf16;

// Whether the CPU multiplies bf16 values. Otherwise, they are converted to fp32 and multiplied by FMAs.
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#define GROUNDUP_BF16
#endif

// Rounds 16 values to bf16, to nearest even. NaN stays NaN. The CPU's instruction also flushes denormal numbers to zero.
inline __m256i rounded_to_bf16(__m512 values) {
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(values);
#else
    const __m512i bits = _mm512_castps_si512(values), one = _mm512_set1_epi32(1);
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, quiet), 16));
#endif
}

// Rounds 32 values to bf16.
inline __m512i rounded_to_bf16(__m512 first, __m512 second) {
#ifdef __AVX512BF16__
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
#else
    return _mm512_inserti64x4(_mm512_castsi256_si512(rounded_to_bf16(first)), rounded_to_bf16(second), 1);
#endif
}

// Converts 16 bf16 values to fp32.
inline __m512 widened(__m256i values) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16)); }
inline __m512 widened(const bf16 *values) { return widened(_mm256_loadu_si256((const __m256i *)values)); }

// Converts 16 pairs of bf16 values to fp32: the first and the second values of the pairs.
inline void widen_pairs(__m512 out[2], const void *pairs) {
    const __m512i both = _mm512_loadu_si512(pairs);
    out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    out[1] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int32_t)0xffff0000)));
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

// Stores 16 values between -128 and 127 as inputs.
inline void store_inputs(Input *out, __m512i values) {
#ifdef __AVX512VNNI__
    _mm_storeu_si128((__m128i *)out, _mm512_cvtepi32_epi8(values));
#else
    // Swap the second and the third value of each four.
    _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi32_epi16(_mm512_shuffle_epi32(values, (_MM_PERM_ENUM)0xd8)));
#endif
}

// Adds the dot product of four unsigned bytes and four inputs to each lane, without saturation.
inline __m512i add_dot(__m512i sums, __m512i bytes, const FourInputs &inputs) {
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(sums, bytes, inputs.all);
#else
    const __m512i even = _mm512_and_si512(bytes, _mm512_set1_epi16(255)), odd = _mm512_srli_epi16(bytes, 8);
    const __m512i both = _mm512_add_epi32(_mm512_madd_epi16(even, inputs.even), _mm512_madd_epi16(odd, inputs.odd));
    return _mm512_add_epi32(sums, both);
#endif
}

} // namespace groundup
