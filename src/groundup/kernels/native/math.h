// Functions on vectors of 16 fp32 values: bf16 loads and stores, the exponential, and activations.
#pragma once
#include "tile.h"

#include <math.h>

namespace groundup {

inline __m512 load(const bf16 *source) { return widened(source); }

inline void store(bf16 *out, __m512 values) {
    _mm256_storeu_si256((__m256i *)out, rounded_to_bf16(values));
}

// Loads 32 values, as two vectors.
inline void load_pair(__m512 values[2], const bf16 *source) {
    const __m512i both = _mm512_loadu_si512(source);
    values[0] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16));
    values[1] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16));
}

// Stores 32 values with one conversion, as one cache line.
inline void store_pair(bf16 *out, const __m512 values[2]) {
    _mm512_storeu_si512(out, rounded_to_bf16(values[0], values[1]));
}

// Returns e^x with an error of about 2 ULP. Computes e^x as 2^n e^r with |r| <= ln 2 / 2, where e^r is the polynomial
// of expf in Moshier's Cephes library.
inline __m512 exponential(__m512 x) {
    const __m512 scaled = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
    const __m512 whole = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // Compute the remainder r = x - n ln 2. For precision, ln 2 is the sum of two constants.
    __m512 rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693145751953125f), x);
    rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(1.42860682030941723212e-6f), rest);
    __m512 sum = _mm512_set1_ps(1.9875691500e-4f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.3981999507e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(8.3334519073e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(4.1665795894e-2f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.6666665459e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.0000001201e-1f));
    sum = _mm512_fmadd_ps(_mm512_mul_ps(sum, rest), rest, _mm512_add_ps(rest, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(sum, whole);
}

// Returns 1 / x with an error of about 1 ULP. Instead of a division, refines an approximation with one step of Newton's
// method.
inline __m512 reciprocal(__m512 x) {
    const __m512 near = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(near, _mm512_fnmadd_ps(x, near, _mm512_set1_ps(2.0f)));
}

inline __m512 sigmoid(__m512 x) {
    // Clamp the input to [-80, 80]. The clamp does not change the result, and it keeps the exponential finite.
    const __m512 bounded = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), x), _mm512_set1_ps(-80.0f));
    const __m512 power = exponential(_mm512_min_ps(bounded, _mm512_set1_ps(80.0f)));
    return reciprocal(_mm512_add_ps(_mm512_set1_ps(1.0f), power));
}

inline __mmask16 first_lanes(int64_t count) {
    return count >= 16 ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

// Each activation returns its value and its derivative (`slope`). SiLU is x sigmoid(x). The tanh approximation of GELU
// is x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct Silu {
    static void at(__m512 x, __m512 &value, __m512 &slope) {
        const __m512 sig = sigmoid(x);
        value = _mm512_mul_ps(x, sig);
        slope = _mm512_fmadd_ps(value, _mm512_sub_ps(_mm512_set1_ps(1.0f), sig), sig);
    }
};
struct GeluTanh {
    static void at(__m512 x, __m512 &value, __m512 &slope) {
        const __m512 square = _mm512_mul_ps(x, x);
        const __m512 a = _mm512_set1_ps(1.5957691216057308f), b = _mm512_set1_ps(0.07135481282631f);
        const __m512 sig = sigmoid(_mm512_mul_ps(x, _mm512_fmadd_ps(b, square, a)));
        const __m512 inner_slope = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(3.0f), b), square, a);
        value = _mm512_mul_ps(x, sig);
        // The derivative is sig + x sig (1 - sig) inner', where inner' is the derivative of the sigmoid's argument.
        slope = _mm512_fmadd_ps(_mm512_mul_ps(value, _mm512_sub_ps(_mm512_set1_ps(1.0f), sig)), inner_slope, sig);
    }
};

} // namespace groundup
