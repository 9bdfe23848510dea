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
    const Floats first = broadcast(1 - beta1), second = broadcast(1 - beta2), scale = broadcast(factor);
#pragma omp parallel
    for (int64_t index = 0; index < count; index++) {
        const Weight &w = weights[index];
        const Floats step_size = broadcast(w.step_size), kept = broadcast(w.kept);
        const Floats root = broadcast(1 / w.root);
#pragma omp for schedule(static) nowait
        for (int64_t begin = 0; begin < w.size; begin += RUN)
            for (int64_t i = begin; i < std::min(w.size, begin + RUN); i += TILE) {
                const Mask lanes = first_lanes(w.size - i);
                const Floats grad = load(w.grad + i, lanes) * scale;
                Floats mean = load(w.mean + i, lanes), square = load(w.square + i, lanes);
                mean = fmadd(first, grad - mean, mean);
                square = fmadd(second, fmsub(grad, grad, square), square);
                const Floats scaled = fmadd(sqrt(square), root, broadcast(eps));
                const Floats update = step_size * mean / scaled;
                const Floats value = fmsub(load(w.weight + i, lanes), kept, update);
                store(w.mean + i, lanes, mean);
                store(w.square + i, lanes, square);
                store(w.weight + i, lanes, value);
                if (w.rounded)
                    store(w.rounded + i, lanes, value);
            }
    }
}
