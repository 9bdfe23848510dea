// Functions on vectors of 16 fp32 values: the exponential, and activations.
#pragma once
#include "tile.h"

#include <math.h>

namespace groundup {

// Returns e^x with an error of about 2 ULP. Computes e^x as 2^n e^r with |r| <= ln 2 / 2, where e^r is the polynomial
// of expf in Moshier's Cephes library.
inline Floats exponential(Floats x) {
    const Floats scaled = x * broadcast(1.44269504088896341f);
    const Floats whole = nearest_integer(scaled);
    // Compute the remainder r = x - n ln 2. For precision, ln 2 is the sum of two constants.
    Floats rest = fnmadd(whole, broadcast(0.693145751953125f), x);
    rest = fnmadd(whole, broadcast(1.42860682030941723212e-6f), rest);
    Floats sum = broadcast(1.9875691500e-4f);
    sum = fmadd(sum, rest, broadcast(1.3981999507e-3f));
    sum = fmadd(sum, rest, broadcast(8.3334519073e-3f));
    sum = fmadd(sum, rest, broadcast(4.1665795894e-2f));
    sum = fmadd(sum, rest, broadcast(1.6666665459e-1f));
    sum = fmadd(sum, rest, broadcast(5.0000001201e-1f));
    sum = fmadd(sum * rest, rest, rest + broadcast(1.0f));
    return times_power_of_2(sum, whole);
}

inline Floats sigmoid(Floats x) {
    // Clamp the input to [-80, 80]. The clamp does not change the result, and it keeps the exponential finite.
    const Floats bounded = max(zeros() - x, -80.0f);
    const Floats power = exponential(min(bounded, 80.0f));
    return reciprocal(broadcast(1.0f) + power);
}

// Each activation returns its value and its derivative (`slope`). SiLU is x sigmoid(x). The tanh approximation of GELU
// is x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct Silu {
    static void at(Floats x, Floats &value, Floats &slope) {
        const Floats sig = sigmoid(x);
        value = x * sig;
        slope = fmadd(value, broadcast(1.0f) - sig, sig);
    }
};
struct GeluTanh {
    static void at(Floats x, Floats &value, Floats &slope) {
        const Floats square = x * x;
        const Floats a = broadcast(1.5957691216057308f), b = broadcast(0.07135481282631f);
        const Floats sig = sigmoid(x * fmadd(b, square, a));
        const Floats inner_slope = fmadd(broadcast(3.0f) * b, square, a);
        value = x * sig;
        // The derivative is sig + x sig (1 - sig) inner', where inner' is the derivative of the sigmoid's argument.
        slope = fmadd(value * (broadcast(1.0f) - sig), inner_slope, sig);
    }
};

} // namespace groundup
