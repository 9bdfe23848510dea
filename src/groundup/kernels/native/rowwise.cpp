// Row-wise operations: norms, RoPE, activations and the loss. Each operation is one kernel that reads and writes a row
// once. Tensors are bf16, and sums are fp32. Each thread processes different rows.
#include "math.h"

#include <omp.h>

using namespace groundup;

// Calls body(row, sums) for each row. Each thread has its own `sums`. At the end, adds the sums of all threads into
// `out`, which has `width` fp32 values.
template <typename Body> static void for_rows(int64_t rows, float *out, int64_t width, Body body) {
#pragma omp parallel
    {
        static thread_local Scratch<float> kept;
        float *sums = kept.at_least(round_up(width, 16) + 16);
        memset(sums, 0, width * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) body(row, sums);
        if (width) {
#pragma omp single
            memset(out, 0, width * sizeof(float));
            // The threads add their sums in a fixed order, so results are reproducible.
            for (int turn = 0; turn < omp_get_num_threads(); turn++) {
                if (turn == omp_get_thread_num())
                    for (int64_t i = 0; i < width; i++) out[i] += sums[i];
#pragma omp barrier
            }
        }
    }
}

#define FOR_VECTORS(j, width) for (int64_t j = 0; j < (width); j += 16)

// Writes total = x + branch for one row, rounded to bf16, and returns it. If `branch` is null, returns x.
static const bf16 *add_row(bf16 *total, const bf16 *x, const bf16 *branch, int64_t width) {
    if (!branch) return x;
    FOR_VECTORS(j, width) {
        const Mask lanes = first_lanes(width - j);
        store(total + j, lanes, load(x + j, lanes) + load(branch + j, lanes));
    }
    return total;
}

// Returns a vector of `residual`, the gradient of a norm's input from the residual stream. Null means 0.
static inline Floats load_or_zero(const bf16 *residual, int64_t place, Mask lanes) {
    return residual ? load(residual + place, lanes) : zeros();
}

static float root_mean_square_inverse(const bf16 *x, int64_t width, float eps) {
    Floats sum = zeros();
    FOR_VECTORS(j, width) {
        const Floats value = load(x + j, first_lanes(width - j));
        sum = fmadd(value, value, sum);
    }
    return 1.0f / sqrtf(reduce_add(sum) / width + eps);
}

// Computes RMSNorm of one row: y = round(x / rms(x)) * weight, where `round` rounds to bf16.
static void rms_norm_row(bf16 *y, const bf16 *x, const float *weight, int64_t width, float eps) {
    const Floats factor = broadcast(root_mean_square_inverse(x, width, eps));
    FOR_VECTORS(j, width) {
        const Mask lanes = first_lanes(width - j);
        const Floats normed = rounded(load(x + j, lanes) * factor);
        const Floats w = rounded(load(weight + j, lanes));
        store(y + j, lanes, normed * w);
    }
}

// Computes the gradient of one row x of RMSNorm, and adds the gradient of the weight to `sums`. `residual` is added to
// grad_x and may be null.
static void rms_norm_gradients_row(bf16 *grad_x, float *sums, const bf16 *grad_y, const bf16 *residual, const bf16 *x,
                                   const float *weight, int64_t width, float eps) {
    const float inverse = root_mean_square_inverse(x, width, eps);
    const Floats factor = broadcast(inverse);
    Floats dot = zeros();
    FOR_VECTORS(j, width) {
        const Mask lanes = first_lanes(width - j);
        const Floats value = load(x + j, lanes), slope = load(grad_y + j, lanes);
        dot = fmadd(slope * load(weight + j, lanes), value, dot);
        const Floats sum = load(sums + j, lanes);
        store(sums + j, lanes, fmadd(slope, value * factor, sum));
    }
    const float mean = reduce_add(dot) * inverse * inverse * inverse / width;
    FOR_VECTORS(j, width) {
        const Mask lanes = first_lanes(width - j);
        const Floats slope = load(grad_y + j, lanes) * load(weight + j, lanes);
        const Floats rest =
            fnmadd(broadcast(mean), load(x + j, lanes), load_or_zero(residual, j, lanes));
        store(grad_x + j, lanes, fmadd(slope, factor, rest));
    }
}

// Computes RMSNorm of total = x + branch, or of x if `branch` is null. All matrices are (rows, width), and the weight is
// (width).
extern "C" void groundup_rms_norm(bf16 *y, bf16 *total, const bf16 *x, const bf16 *branch, const float *weight,
                                  int64_t rows, int64_t width, float eps) {
    for_rows(rows, nullptr, 0, [=](int64_t row, float *) {
        const int64_t place = row * width;
        const bf16 *from = add_row(total + place, x + place, branch ? branch + place : nullptr, width);
        rms_norm_row(y + place, from, weight, width, eps);
    });
}

// Computes the gradients of the input x of RMSNorm and of its weight. `residual` is the gradient of x from the residual
// stream, which is added to grad_x. It may be null.
extern "C" void groundup_rms_norm_gradients(bf16 *grad_x, float *grad_weight, const bf16 *grad_y, const bf16 *residual,
                                            const bf16 *x, const float *weight, int64_t rows, int64_t width, float eps) {
    for_rows(rows, grad_weight, width, [=](int64_t row, float *sums) {
        const int64_t place = row * width;
        rms_norm_gradients_row(grad_x + place, sums, grad_y + place, residual ? residual + place : nullptr, x + place,
                               weight, width, eps);
    });
}

struct Moments {
    float mean, inverse; // `inverse` is 1 / standard deviation
};

static Moments moments(const bf16 *x, int64_t width, float eps) {
    Floats sum = zeros(), squares = sum;
    FOR_VECTORS(j, width) sum += load(x + j, first_lanes(width - j));
    const float mean = reduce_add(sum) / width;
    FOR_VECTORS(j, width) {
        const Mask lanes = first_lanes(width - j);
        const Floats centred = keep(lanes, load(x + j, lanes) - broadcast(mean));
        squares = fmadd(centred, centred, squares);
    }
    return {mean, 1.0f / sqrtf(reduce_add(squares) / width + eps)};
}

// Computes LayerNorm: y = (total - mean(total)) / deviation(total) * weight + bias. `total` is x + branch, or x if
// `branch` is null. All matrices are (rows, width), and weight and bias are (width).
extern "C" void groundup_layer_norm(bf16 *y, bf16 *total, const bf16 *x, const bf16 *branch, const float *weight,
                                    const float *bias, int64_t rows, int64_t width, float eps) {
    for_rows(rows, nullptr, 0, [=](int64_t row, float *) {
        const int64_t place = row * width;
        const bf16 *from = add_row(total + place, x + place, branch ? branch + place : nullptr, width);
        const Moments m = moments(from, width, eps);
        FOR_VECTORS(j, width) {
            const Mask lanes = first_lanes(width - j);
            const Floats centred = load(from + j, lanes) - broadcast(m.mean);
            store(y + place + j, lanes,
                  fmadd(centred * broadcast(m.inverse), load(weight + j, lanes), load(bias + j, lanes)));
        }
    });
}

// Computes the gradients of the input x of LayerNorm, of its weight and of its bias. `residual` is the gradient of x from
// the residual stream, which is added to grad_x. It may be null. `grad_both` contains the gradient of the weight,
// followed by the gradient of the bias.
extern "C" void groundup_layer_norm_gradients(bf16 *grad_x, float *grad_both, const bf16 *grad_y, const bf16 *residual,
                                              const bf16 *x, const float *weight, int64_t rows, int64_t width,
                                              float eps) {
    for_rows(rows, grad_both, 2 * width, [=](int64_t row, float *sums) {
        const bf16 *from = x + row * width, *upstream = grad_y + row * width;
        const Moments m = moments(from, width, eps);
        const Floats mean = broadcast(m.mean), inverse = broadcast(m.inverse);
        Floats slopes = zeros(), dot = slopes;
        FOR_VECTORS(j, width) {
            const Mask lanes = first_lanes(width - j);
            const Floats normed = keep(lanes, (load(from + j, lanes) - mean) * inverse);
            const Floats g = load(upstream + j, lanes), slope = g * load(weight + j, lanes);
            slopes += slope;
            dot = fmadd(slope, normed, dot);
            float *w_sum = sums + j, *b_sum = sums + width + j;
            store(w_sum, lanes, fmadd(g, normed, load(w_sum, lanes)));
            store(b_sum, lanes, g + load(b_sum, lanes));
        }
        const Floats slope_mean = broadcast(reduce_add(slopes) / width);
        const Floats dot_mean = broadcast(reduce_add(dot) / width);
        FOR_VECTORS(j, width) {
            const Mask lanes = first_lanes(width - j);
            const Floats normed = (load(from + j, lanes) - mean) * inverse;
            const Floats slope = load(upstream + j, lanes) * load(weight + j, lanes);
            const Floats inner = slope - fmadd(normed, dot_mean, slope_mean);
            const Floats other = load_or_zero(residual, row * width + j, lanes);
            store(grad_x + row * width + j, lanes, fmadd(inner, inverse, other));
        }
    });
}

// Computes RoPE: rotates the pairs (x[i], x[i + half]) of all heads of a token. If `direction` is -1, the rotation is
// reversed. `cos` and `sin` have 2 * half values, and their two halves are equal. y may be x.
static void rotate_token(bf16 *y, const bf16 *x, const bf16 *cos, const bf16 *sin, int64_t heads, int64_t half,
                         float direction) {
    FOR_VECTORS(j, half) {
        const Mask lanes = first_lanes(half - j);
        const Floats c = load(cos + j, lanes);
        const Floats s = load(sin + j, lanes) * broadcast(direction);
        for (int64_t place = j; place < heads * 2 * half; place += 2 * half) {
            const Floats first = load(x + place, lanes), second = load(x + place + half, lanes);
            store(y + place, lanes, fmsub(first, c, second * s));
            store(y + place + half, lanes, fmadd(second, c, first * s));
        }
    }
}

// x and y are (tokens, heads, 2 * half), and `cos` and `sin` are (tokens, 2 * half).
extern "C" void groundup_rotate(bf16 *y, const bf16 *x, const bf16 *cos, const bf16 *sin, int64_t tokens, int64_t heads,
                                int64_t half, float direction) {
    for_rows(tokens, nullptr, 0, [=](int64_t token, float *) {
        const int64_t place = token * heads * 2 * half, angle = token * 2 * half;
        rotate_token(y + place, x + place, cos + angle, sin + angle, heads, half, direction);
    });
}

// Computes QK norm and RoPE of queries or keys: RMSNorm over `width` values, then the rotation. The shapes are as in
// `groundup_rotate`. `width` is the size of one head or of all heads, and the weight is (width).
extern "C" void groundup_rms_norm_rotate(bf16 *y, const bf16 *x, const float *weight, const bf16 *cos, const bf16 *sin,
                                         int64_t tokens, int64_t heads, int64_t half, int64_t width, float eps) {
    for_rows(tokens, nullptr, 0, [=](int64_t token, float *) {
        const int64_t size = heads * 2 * half, angle = token * 2 * half;
        bf16 *to = y + token * size;
        for (int64_t j = 0; j < size; j += width) rms_norm_row(to + j, x + token * size + j, weight, width, eps);
        rotate_token(to, to, cos + angle, sin + angle, heads, half, 1);
    });
}

// Computes the gradients of x and of the weight of `groundup_rms_norm_rotate`.
extern "C" void groundup_rms_norm_rotate_gradients(bf16 *grad_x, float *grad_weight, const bf16 *grad_y, const bf16 *x,
                                                   const float *weight, const bf16 *cos, const bf16 *sin, int64_t tokens,
                                                   int64_t heads, int64_t half, int64_t width, float eps) {
    for_rows(tokens, grad_weight, width, [=](int64_t token, float *sums) {
        static thread_local Scratch<bf16> kept;
        const int64_t size = heads * 2 * half, place = token * size, angle = token * 2 * half;
        bf16 *upstream = kept.at_least(size);
        rotate_token(upstream, grad_y + place, cos + angle, sin + angle, heads, half, -1);
        for (int64_t j = 0; j < size; j += width)
            rms_norm_gradients_row(grad_x + place + j, sums, upstream + j, nullptr, x + place + j, weight, width, eps);
    });
}

constexpr int64_t RUN = 4096; // number of values that a thread processes per iteration

template <typename Activation> static void gated(bf16 *y, const bf16 *hidden, const bf16 *up, int64_t size) {
    for_rows(round_up(size, RUN) / RUN, nullptr, 0, [=](int64_t run, float *) {
        for (int64_t j = run * RUN; j < std::min(size, (run + 1) * RUN); j += 16) {
            const Mask lanes = first_lanes(size - j);
            Floats value, slope;
            Activation::at(load(hidden + j, lanes), value, slope);
            if (up) value = value * load(up + j, lanes);
            store(y + j, lanes, value);
        }
    });
}

template <typename Activation>
static void gated_gradients(bf16 *grad_hidden, bf16 *grad_up, const bf16 *grad_y, const bf16 *hidden, const bf16 *up,
                            int64_t size) {
    for_rows(round_up(size, RUN) / RUN, nullptr, 0, [=](int64_t run, float *) {
        for (int64_t j = run * RUN; j < std::min(size, (run + 1) * RUN); j += 16) {
            const Mask lanes = first_lanes(size - j);
            const Floats g = load(grad_y + j, lanes);
            Floats value, slope;
            Activation::at(load(hidden + j, lanes), value, slope);
            if (up) {
                store(grad_up + j, lanes, g * value);
                slope = slope * load(up + j, lanes);
            }
            store(grad_hidden + j, lanes, g * slope);
        }
    });
}

// Computes y = activation(hidden) * up, or y = activation(hidden) if `up` is null.
extern "C" void groundup_activate(bf16 *y, const bf16 *hidden, const bf16 *up, int64_t size, bool gelu) {
    gelu ? gated<GeluTanh>(y, hidden, up, size) : gated<Silu>(y, hidden, up, size);
}

extern "C" void groundup_activate_gradients(bf16 *grad_hidden, bf16 *grad_up, const bf16 *grad_y, const bf16 *hidden,
                                            const bf16 *up, int64_t size, bool gelu) {
    gelu ? gated_gradients<GeluTanh>(grad_hidden, grad_up, grad_y, hidden, up, size)
         : gated_gradients<Silu>(grad_hidden, grad_up, grad_y, hidden, up, size);
}

// Computes the sum of each column. The gradient of a bias is such a sum.
extern "C" void groundup_column_sums(float *out, const bf16 *source, int64_t rows, int64_t width) {
    for_rows(rows, out, width, [=](int64_t row, float *sums) {
        FOR_VECTORS(j, width) {
            const Mask lanes = first_lanes(width - j);
            const Floats sum = load(sums + j, lanes) + load(source + row * width + j, lanes);
            store(sums + j, lanes, sum);
        }
    });
}

// Computes the negative log-likelihood (NLL) of each row's label, and overwrites the logits with the gradient of the
// NLL, softmax - onehot. The gradient also includes the gradient of the z-loss, z_loss * logsumexp^2. If the label of a
// row is negative, its loss and gradient are 0.
extern "C" void groundup_nll_and_residual(float *nll, bf16 *logits, const int64_t *labels, int64_t rows, int64_t vocab,
                                          float z_loss) {
    for_rows(rows, nullptr, 0, [=](int64_t row, float *) {
        static thread_local Scratch<float> kept;
        float *exps = kept.at_least(round_up(vocab, 16));
        bf16 *from = logits + row * vocab;
        const int64_t label = labels[row];
        if (label < 0) {
            nll[row] = 0;
            memset(from, 0, vocab * sizeof(bf16));
            return;
        }
        Floats top = broadcast(-INFINITY), sum = zeros();
        FOR_VECTORS(j, vocab) {
            const Mask lanes = first_lanes(vocab - j);
            top = max(top, load(from + j, lanes), lanes);
        }
        const float largest = reduce_max(top);
        FOR_VECTORS(j, vocab) {
            const Mask lanes = first_lanes(vocab - j);
            const Floats value =
                keep(lanes, exponential(load(from + j, lanes) - broadcast(largest)));
            sum += value;
            store(exps + j, value);
        }
        const float total = reduce_add(sum);
        const int32_t bits = (int32_t)from[label] << 16;
        float chosen;
        memcpy(&chosen, &bits, 4);
        const float lse = largest + logf(total), scale = (1.0f + 2.0f * z_loss * lse) / total;
        nll[row] = lse - chosen;
        const float target = exps[label] * scale - 1.0f;
        FOR_VECTORS(j, vocab)
        store(from + j, first_lanes(vocab - j), load(exps + j) * broadcast(scale));
        alignas(32) bf16 rounded_target[16];
        store(rounded_target, broadcast(target));
        from[label] = rounded_target[0];
    });
}
