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

// Masked load and store. The mask is partial for the last vector of a row.
static inline __m512 load(const bf16 *source, __mmask16 lanes) {
    return widened(_mm256_maskz_loadu_epi16(lanes, source));
}
static inline void store(bf16 *out, __mmask16 lanes, __m512 values) {
    _mm256_mask_storeu_epi16(out, lanes, rounded_to_bf16(values));
}
static inline __m512 rounded(__m512 values) { return widened(rounded_to_bf16(values)); }

#define FOR_VECTORS(j, width) for (int64_t j = 0; j < (width); j += 16)

// Writes total = x + branch for one row, rounded to bf16, and returns it. If `branch` is null, returns x.
static const bf16 *add_row(bf16 *total, const bf16 *x, const bf16 *branch, int64_t width) {
    if (!branch) return x;
    FOR_VECTORS(j, width) {
        const __mmask16 lanes = first_lanes(width - j);
        store(total + j, lanes, _mm512_add_ps(load(x + j, lanes), load(branch + j, lanes)));
    }
    return total;
}

// Returns a vector of `residual`, the gradient of a norm's input from the residual stream. Null means 0.
static inline __m512 load_or_zero(const bf16 *residual, int64_t place, __mmask16 lanes) {
    return residual ? load(residual + place, lanes) : _mm512_setzero_ps();
}

static float root_mean_square_inverse(const bf16 *x, int64_t width, float eps) {
    __m512 sum = _mm512_setzero_ps();
    FOR_VECTORS(j, width) {
        const __m512 value = load(x + j, first_lanes(width - j));
        sum = _mm512_fmadd_ps(value, value, sum);
    }
    return 1.0f / sqrtf(_mm512_reduce_add_ps(sum) / width + eps);
}

// Computes RMSNorm of one row: y = round(x / rms(x)) * weight, where `round` rounds to bf16.
static void rms_norm_row(bf16 *y, const bf16 *x, const float *weight, int64_t width, float eps) {
    const __m512 factor = _mm512_set1_ps(root_mean_square_inverse(x, width, eps));
    FOR_VECTORS(j, width) {
        const __mmask16 lanes = first_lanes(width - j);
        const __m512 normed = rounded(_mm512_mul_ps(load(x + j, lanes), factor));
        const __m512 w = rounded(_mm512_maskz_loadu_ps(lanes, weight + j));
        store(y + j, lanes, _mm512_mul_ps(normed, w));
    }
}

// Computes the gradient of one row x of RMSNorm, and adds the gradient of the weight to `sums`. `residual` is added to
// grad_x and may be null.
static void rms_norm_gradients_row(bf16 *grad_x, float *sums, const bf16 *grad_y, const bf16 *residual, const bf16 *x,
                                   const float *weight, int64_t width, float eps) {
    const float inverse = root_mean_square_inverse(x, width, eps);
    const __m512 factor = _mm512_set1_ps(inverse);
    __m512 dot = _mm512_setzero_ps();
    FOR_VECTORS(j, width) {
        const __mmask16 lanes = first_lanes(width - j);
        const __m512 value = load(x + j, lanes), slope = load(grad_y + j, lanes);
        dot = _mm512_fmadd_ps(_mm512_mul_ps(slope, _mm512_maskz_loadu_ps(lanes, weight + j)), value, dot);
        const __m512 sum = _mm512_maskz_loadu_ps(lanes, sums + j);
        _mm512_mask_storeu_ps(sums + j, lanes, _mm512_fmadd_ps(slope, _mm512_mul_ps(value, factor), sum));
    }
    const float mean = _mm512_reduce_add_ps(dot) * inverse * inverse * inverse / width;
    FOR_VECTORS(j, width) {
        const __mmask16 lanes = first_lanes(width - j);
        const __m512 slope = _mm512_mul_ps(load(grad_y + j, lanes), _mm512_maskz_loadu_ps(lanes, weight + j));
        const __m512 rest =
            _mm512_fnmadd_ps(_mm512_set1_ps(mean), load(x + j, lanes), load_or_zero(residual, j, lanes));
        store(grad_x + j, lanes, _mm512_fmadd_ps(slope, factor, rest));
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
    __m512 sum = _mm512_setzero_ps(), squares = sum;
    FOR_VECTORS(j, width) sum = _mm512_add_ps(sum, load(x + j, first_lanes(width - j)));
    const float mean = _mm512_reduce_add_ps(sum) / width;
    FOR_VECTORS(j, width) {
        const __mmask16 lanes = first_lanes(width - j);
        const __m512 centred = _mm512_maskz_sub_ps(lanes, load(x + j, lanes), _mm512_set1_ps(mean));
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    return {mean, 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / width + eps)};
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
            const __mmask16 lanes = first_lanes(width - j);
            const __m512 centred = _mm512_sub_ps(load(from + j, lanes), _mm512_set1_ps(m.mean));
            store(y + place + j, lanes,
                  _mm512_fmadd_ps(_mm512_mul_ps(centred, _mm512_set1_ps(m.inverse)),
                                  _mm512_maskz_loadu_ps(lanes, weight + j), _mm512_maskz_loadu_ps(lanes, bias + j)));
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
        const __m512 mean = _mm512_set1_ps(m.mean), inverse = _mm512_set1_ps(m.inverse);
        __m512 slopes = _mm512_setzero_ps(), dot = slopes;
        FOR_VECTORS(j, width) {
            const __mmask16 lanes = first_lanes(width - j);
            const __m512 normed = _mm512_maskz_mul_ps(lanes, _mm512_sub_ps(load(from + j, lanes), mean), inverse);
            const __m512 g = load(upstream + j, lanes), slope = _mm512_mul_ps(g, _mm512_maskz_loadu_ps(lanes, weight + j));
            slopes = _mm512_add_ps(slopes, slope);
            dot = _mm512_fmadd_ps(slope, normed, dot);
            float *w_sum = sums + j, *b_sum = sums + width + j;
            _mm512_mask_storeu_ps(w_sum, lanes, _mm512_fmadd_ps(g, normed, _mm512_maskz_loadu_ps(lanes, w_sum)));
            _mm512_mask_storeu_ps(b_sum, lanes, _mm512_add_ps(g, _mm512_maskz_loadu_ps(lanes, b_sum)));
        }
        const __m512 slope_mean = _mm512_set1_ps(_mm512_reduce_add_ps(slopes) / width);
        const __m512 dot_mean = _mm512_set1_ps(_mm512_reduce_add_ps(dot) / width);
        FOR_VECTORS(j, width) {
            const __mmask16 lanes = first_lanes(width - j);
            const __m512 normed = _mm512_mul_ps(_mm512_sub_ps(load(from + j, lanes), mean), inverse);
            const __m512 slope = _mm512_mul_ps(load(upstream + j, lanes), _mm512_maskz_loadu_ps(lanes, weight + j));
            const __m512 inner = _mm512_sub_ps(slope, _mm512_fmadd_ps(normed, dot_mean, slope_mean));
            const __m512 other = load_or_zero(residual, row * width + j, lanes);
            store(grad_x + row * width + j, lanes, _mm512_fmadd_ps(inner, inverse, other));
        }
    });
}

// Computes RoPE: rotates the pairs (x[i], x[i + half]) of all heads of a token. If `direction` is -1, the rotation is
// reversed. `cos` and `sin` have 2 * half values, and their two halves are equal. y may be x.
static void rotate_token(bf16 *y, const bf16 *x, const bf16 *cos, const bf16 *sin, int64_t heads, int64_t half,
                         float direction) {
    FOR_VECTORS(j, half) {
        const __mmask16 lanes = first_lanes(half - j);
        const __m512 c = load(cos + j, lanes);
        const __m512 s = _mm512_mul_ps(load(sin + j, lanes), _mm512_set1_ps(direction));
        for (int64_t place = j; place < heads * 2 * half; place += 2 * half) {
            const __m512 first = load(x + place, lanes), second = load(x + place + half, lanes);
            store(y + place, lanes, _mm512_fmsub_ps(first, c, _mm512_mul_ps(second, s)));
            store(y + place + half, lanes, _mm512_fmadd_ps(second, c, _mm512_mul_ps(first, s)));
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
            const __mmask16 lanes = first_lanes(size - j);
            __m512 value, slope;
            Activation::at(load(hidden + j, lanes), value, slope);
            if (up) value = _mm512_mul_ps(value, load(up + j, lanes));
            store(y + j, lanes, value);
        }
    });
}

template <typename Activation>
static void gated_gradients(bf16 *grad_hidden, bf16 *grad_up, const bf16 *grad_y, const bf16 *hidden, const bf16 *up,
                            int64_t size) {
    for_rows(round_up(size, RUN) / RUN, nullptr, 0, [=](int64_t run, float *) {
        for (int64_t j = run * RUN; j < std::min(size, (run + 1) * RUN); j += 16) {
            const __mmask16 lanes = first_lanes(size - j);
            const __m512 g = load(grad_y + j, lanes);
            __m512 value, slope;
            Activation::at(load(hidden + j, lanes), value, slope);
            if (up) {
                store(grad_up + j, lanes, _mm512_mul_ps(g, value));
                slope = _mm512_mul_ps(slope, load(up + j, lanes));
            }
            store(grad_hidden + j, lanes, _mm512_mul_ps(g, slope));
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
            const __mmask16 lanes = first_lanes(width - j);
            const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, sums + j), load(source + row * width + j, lanes));
            _mm512_mask_storeu_ps(sums + j, lanes, sum);
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
        __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
        FOR_VECTORS(j, vocab) {
            const __mmask16 lanes = first_lanes(vocab - j);
            top = _mm512_mask_max_ps(top, lanes, top, load(from + j, lanes));
        }
        const float largest = _mm512_reduce_max_ps(top);
        FOR_VECTORS(j, vocab) {
            const __mmask16 lanes = first_lanes(vocab - j);
            const __m512 value =
                _mm512_maskz_mov_ps(lanes, exponential(_mm512_sub_ps(load(from + j, lanes), _mm512_set1_ps(largest))));
            sum = _mm512_add_ps(sum, value);
            _mm512_storeu_ps(exps + j, value);
        }
        const float total = _mm512_reduce_add_ps(sum);
        const int32_t bits = (int32_t)from[label] << 16;
        float chosen;
        memcpy(&chosen, &bits, 4);
        const float lse = largest + logf(total), scale = (1.0f + 2.0f * z_loss * lse) / total;
        nll[row] = lse - chosen;
        const float target = exps[label] * scale - 1.0f;
        FOR_VECTORS(j, vocab)
        store(from + j, first_lanes(vocab - j), _mm512_mul_ps(_mm512_loadu_ps(exps + j), _mm512_set1_ps(scale)));
        alignas(32) bf16 rounded_target[16];
        store(rounded_target, _mm512_set1_ps(target));
        from[label] = rounded_target[0];
    });
}
