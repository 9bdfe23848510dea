// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) for all weights in one call. The pass over a weight also writes
// its bf16 copy, which the next forward pass uses, so the weight is not read again to round it.
#include "math.h"

using namespace groundup;

constexpr int64_t RUN = 4096; // number of values that a thread processes per iteration

// A weight with its gradient and its running means of gradients and of squared gradients. All have `size` values.
// `rounded` may be null. `step_size` is the learning rate divided by the bias correction of the mean, `root` is the
// square root of the bias correction of the squares, and `kept` is 1 - learning rate * weight decay.
struct Weight {
    float *weight;
    const float *grad;
    float *mean, *square;
    bf16 *rounded;
    int64_t size;
    float step_size, root, kept;
};

// Updates `count` weights. Gradients are multiplied by `factor`.
extern "C" void groundup_adamw(const Weight *weights, int64_t count, float beta1, float beta2, float eps, float factor) {
    const __m512 first = _mm512_set1_ps(1 - beta1), second = _mm512_set1_ps(1 - beta2), scale = _mm512_set1_ps(factor);
#pragma omp parallel
    for (int64_t index = 0; index < count; index++) {
        const Weight &w = weights[index];
        const __m512 step_size = _mm512_set1_ps(w.step_size), kept = _mm512_set1_ps(w.kept);
        const __m512 root = _mm512_set1_ps(1 / w.root);
#pragma omp for schedule(static) nowait
        for (int64_t begin = 0; begin < w.size; begin += RUN)
            for (int64_t i = begin; i < std::min(w.size, begin + RUN); i += TILE) {
                const __mmask16 lanes = first_lanes(w.size - i);
                const __m512 grad = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, w.grad + i), scale);
                __m512 mean = _mm512_maskz_loadu_ps(lanes, w.mean + i), square = _mm512_maskz_loadu_ps(lanes, w.square + i);
                mean = _mm512_fmadd_ps(first, _mm512_sub_ps(grad, mean), mean);
                square = _mm512_fmadd_ps(second, _mm512_fmsub_ps(grad, grad, square), square);
                const __m512 scaled = _mm512_fmadd_ps(_mm512_sqrt_ps(square), root, _mm512_set1_ps(eps));
                const __m512 update = _mm512_div_ps(_mm512_mul_ps(step_size, mean), scaled);
                const __m512 value = _mm512_fmsub_ps(_mm512_maskz_loadu_ps(lanes, w.weight + i), kept, update);
                _mm512_mask_storeu_ps(w.mean + i, lanes, mean);
                _mm512_mask_storeu_ps(w.square + i, lanes, square);
                _mm512_mask_storeu_ps(w.weight + i, lanes, value);
                if (w.rounded)
                    _mm256_mask_storeu_epi16(w.rounded + i, lanes, rounded_to_bf16(value));
            }
    }
}
