// Vectors of 16 values: `Floats` (fp32), `Ints` (32-bit integers, or 64 bytes) and `Mask` (one boolean per lane). The
// kernels are written with these types only. Each header below implements them for one instruction set.
#pragma once
#include <stdint.h>
#include <string.h>

#include <algorithm>

namespace groundup {
typedef uint16_t bf16;
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "simd_avx2.h"
#else
#error "The kernels need AVX-512 (F, BW, VL and DQ), or AVX2 with FMA and F16C."
#endif

namespace groundup {

inline Floats &operator+=(Floats &a, Floats b) { return a = a + b; }
inline Ints &operator+=(Ints &a, Ints b) { return a = a + b; }
inline Floats max(Floats a, Floats b, Mask lanes) { return select(lanes, max(a, b), a); } // a in other lanes
inline Floats min(Floats a, float b) { return min(a, broadcast(b)); }
inline Floats max(Floats a, float b) { return max(a, broadcast(b)); }

// A vector of bf16 values that `rounded_to_bf16` returned, or that was loaded, in fp32.
inline Floats rounded(Floats values) { return widened(rounded_to_bf16(values)); }

inline Floats load(const bf16 *source) { return widened(load_bf16(source)); }
inline Floats load(const bf16 *source, Mask lanes) { return widened(load_bf16(source, lanes)); }
inline void store(bf16 *out, Floats values) { store_bf16(out, rounded_to_bf16(values)); }
inline void store(bf16 *out, Mask lanes, Floats values) { store_bf16(out, lanes, rounded_to_bf16(values)); }

// Transposes a matrix of 16 x 16 values.
inline void transpose(Floats v[16]) {
    Ints bits[16];
    for (int i = 0; i < 16; i++) bits[i] = bits_of(v[i]);
    transpose(bits);
    for (int i = 0; i < 16; i++) v[i] = as_floats(bits[i]);
}

} // namespace groundup
