// The forward pass of a transformer for inference. The input is rows of tokens, which may belong to different
// sequences. native_decoder.py creates the list of operations once per model. The result for a row does not depend on
// the other rows: each row is computed with the same order of operations alone, in a batch, in prefill and in decode,
// with any number of threads. quantized.h explains the matmuls.
#include "quantized.h"

#include <omp.h>

#include <atomic>
#include <thread>

using namespace groundup;

namespace {

constexpr int64_t BLOCK_TOKENS = 16; // number of tokens in a block of the KV cache, which is the number of vector lanes
constexpr int64_t SHARED_ROWS = 4;   // if there are more rows, each thread rounds only a part of the inputs
constexpr int MAX_QUERIES = 6;       // maximum number of queries that are processed together

enum OperationKind : int64_t { EMBED, LINEAR, ATTEND, ADD, GATE };
enum Finish : int64_t { STORE, ACCUMULATE, ACTIVATE, GATED };
enum NormKind : int64_t { NO_NORM, RMS, LAYER };
enum ActivationKind : int64_t { SILU, GELU, GELU_TANH };

struct Norm {
    int64_t kind;
    const float *weight, *bias;
    double eps;
};

// One operation of the forward pass. Fields that an operation does not use are zero.
struct Operation {
    int64_t kind, source, second, target; // indices of buffers; for `GATE`, `second` is whether the source has `gate` and `up`
    int64_t finish, activation, is_head;
    double multiplier, softcap; // if softcap is 0, there is no soft cap
    Norm norm;                  // the norm that is applied to the source
    Matrix matrix;
    const float *positions;     // learned position embeddings (context, dim)
    // Attention.
    int64_t layer, n_heads, n_kv_heads, head_dim, rotary_dim, rope, window; // rope: index of the RoPE table; window: 0 if attention is not windowed
    int64_t qk_norm;                                                         // 0: no norm, 1: per head, 2: over all heads
    const float *q_norm, *k_norm;
    double qk_eps, scale;
};

struct Batch {
    int64_t rows;
    const int64_t *tokens, *positions, *sequences; // (rows,)
    const uint64_t *const *tables;                 // addresses of the KV cache blocks of each sequence
    int64_t outputs;
    const int64_t *output_rows;
    float *logits; // (outputs, vocabulary)
    const float *const *cosines, *const *sines; // (context, rotary_dim / 2) for each RoPE table
};

struct Decoder {
    const Operation *operations;
    int64_t count, threads, layer_bytes;
    float *const *buffers; // (rows, width)
    const int64_t *widths;
};

// A barrier at which each thread waits until all threads have arrived. Threads spin first, because the wait is short
// unless the machine is busy.
class Barrier {
  public:
    int64_t count = 1; // of threads

    void wait() {
        const int64_t round = round_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++)
            if (spins < 20000)
                spin_pause();
            else
                std::this_thread::yield();
    }

  private:
    alignas(64) std::atomic<int64_t> arrived_{0};
    alignas(64) std::atomic<int64_t> round_{0};
};

void normalize(float *out, const float *x, int64_t n, const Norm &norm) {
    if (norm.kind == NO_NORM) {
        memcpy(out, x, n * sizeof(float));
        return;
    }
    float mean = 0;
    if (norm.kind == LAYER) {
        Floats sum = zeros();
        for (int64_t i = 0; i < n; i += 16) sum += load(x + i);
        mean = reduce_add(sum) / n;
    }
    const Floats shift = broadcast(mean);
    Floats squares = zeros();
    for (int64_t i = 0; i < n; i += 16) {
        const Floats value = load(x + i) - shift;
        squares = fmadd(value, value, squares);
    }
    const Floats factor = broadcast(1.0f / sqrtf(reduce_add(squares) / n + (float)norm.eps));
    for (int64_t i = 0; i < n; i += 16) {
        const Floats value = (load(x + i) - shift) * factor;
        const Floats weight = load(norm.weight + i);
        const Floats bias = norm.bias ? load(norm.bias + i) : zeros();
        store(out + i, fmadd(value, weight, bias));
    }
}

Floats activated(Floats x, int64_t kind) {
    Floats value, slope;
    if (kind == SILU)
        Silu::at(x, value, slope);
    else if (kind == GELU_TANH)
        GeluTanh::at(x, value, slope);
    else {
        alignas(64) float values[16];
        store(values, x);
        for (float &each : values) each = 0.5f * each * (1.0f + erff(each * 0.70710678f));
        value = load(values);
    }
    return value;
}

Floats capped(Floats x, float cap) {
    // Compute cap tanh(x / cap) as cap (2 sigmoid(2 x / cap) - 1).
    const Floats half = sigmoid(x * broadcast(2.0f / cap));
    return broadcast(cap) * fmsub(broadcast(2.0f), half, broadcast(1.0f));
}

// Applies RoPE to one head at one position. Rotates the pairs (x[i], x[i + rotary_dim / 2]).
void rotate(float *x, const float *cosines, const float *sines, int64_t rotary_dim) {
    const int64_t half = rotary_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const float first = x[i], second = x[half + i];
        x[i] = fmaf(first, cosines[i], -(second * sines[i]));
        x[half + i] = fmaf(second, cosines[i], first * sines[i]);
    }
}

float reciprocal_rms(const float *x, int64_t n, double eps) {
    Floats squares = zeros();
    for (int64_t i = 0; i < n; i += 16) {
        const Floats value = load(x + i);
        squares = fmadd(value, value, squares);
    }
    return 1.0f / sqrtf(reduce_add(squares) / n + (float)eps);
}

// Executes the part of a forward pass that one thread computes.
class Worker {
  public:
    Worker(const Decoder &decoder, const Batch &batch, Barrier &barrier, std::atomic<int64_t> &next, Rows &shared, int64_t id)
        : decoder_(decoder), batch_(batch), barrier_(barrier), next_(next), shared_(shared), id_(id) {}

    void run() {
        for (int64_t index = 0; index < decoder_.count; index++) {
            const Operation &operation = decoder_.operations[index];
            switch (operation.kind) {
            case EMBED: embed(operation); break;
            case LINEAR: linear(operation); break;
            case ATTEND: attend(operation); break;
            case ADD: add(operation); break;
            case GATE: gate(operation); break;
            }
            barrier_.wait();
        }
    }

  private:
    float *row_of(int64_t buffer, int64_t row) const { return decoder_.buffers[buffer] + row * decoder_.widths[buffer]; }
    void mine(int64_t count, int64_t &begin, int64_t &end) const {
        begin = count * id_ / decoder_.threads, end = count * (id_ + 1) / decoder_.threads;
    }

    void embed(const Operation &o) {
        int64_t begin, end;
        mine(batch_.rows, begin, end);
        for (int64_t row = begin; row < end; row++) {
            float *x = row_of(o.target, row);
            unpack_output(x, o.matrix, batch_.tokens[row]);
            const float *position = o.positions ? o.positions + batch_.positions[row] * o.matrix.k : nullptr;
            for (int64_t i = 0; i < o.matrix.k; i++) x[i] = x[i] * (float)o.multiplier + (position ? position[i] : 0.0f);
        }
    }

    // Computes target += multiplier * norm(source).
    void add(const Operation &o) {
        const int64_t width = decoder_.widths[o.target];
        int64_t begin, end;
        mine(batch_.rows, begin, end);
        normed_.resize(width);
        for (int64_t row = begin; row < end; row++) {
            normalize(normed_.data(), row_of(o.source, row), width, o.norm);
            float *x = row_of(o.target, row);
            for (int64_t i = 0; i < width; i++) x[i] = fmaf((float)o.multiplier, normed_[i], x[i]);
        }
    }

    // Computes target = activation(source). If panels of `gate` and `up` alternate in the source, computes
    // target = activation(`gate`) * `up`.
    void gate(const Operation &o) {
        const int64_t width = decoder_.widths[o.target];
        int64_t begin, end;
        mine(batch_.rows, begin, end);
        for (int64_t row = begin; row < end; row++)
            for (int64_t i = 0; i < width; i += PANEL) {
                const float *gate = row_of(o.source, row) + (o.second ? 2 * i : i);
                const Floats factor = o.second ? load(gate + PANEL) : broadcast(1.0f);
                const Floats value = activated(load(gate), o.activation) * factor;
                store(row_of(o.target, row) + i, first_lanes(width - i), value);
            }
    }

    void linear(const Operation &o) {
        const Matrix &w = o.matrix;
        const int64_t rows = o.is_head ? batch_.outputs : batch_.rows;
        const bool share_rows = rows > SHARED_ROWS;
        Rows &x = share_rows ? shared_ : own_;
        if (!share_rows || id_ == 0) x.reserve(rows, w.k, w.kind);
        if (share_rows) barrier_.wait();
        int64_t begin = 0, end = rows;
        if (share_rows) mine(rows, begin, end);
        normed_.resize(w.k);
        for (int64_t row = begin; row < end; row++) {
            const float *source = row_of(o.source, o.is_head ? batch_.output_rows[row] : row);
            if (o.norm.kind != NO_NORM) normalize(normed_.data(), source, w.k, o.norm), source = normed_.data();
            round_row(x, row, source, w.k, w.kind);
        }
        if (share_rows) barrier_.wait();
        mine(w.pairs(), begin, end);
        if (o.finish == GATED) // each pair consists of a panel of `gate` and a panel of `up`
            multiply(w, begin, end, x, rows, [&](int64_t row, int64_t pair, Floats gate, Floats up) {
                const int64_t column = pair * PANEL, width = decoder_.widths[o.target];
                if (w.bias) {
                    gate += load(w.bias + pair * PAIR);
                    up += load(w.bias + pair * PAIR + PANEL);
                }
                store(row_of(o.target, row) + column, first_lanes(width - column), activated(gate, o.activation) * up);
            });
        else
            multiply(w, begin, end, x, rows, [&](int64_t row, int64_t pair, Floats first, Floats second) {
                finish(o, row, pair * PAIR, first);
                finish(o, row, pair * PAIR + PANEL, second);
            });
    }

    void finish(const Operation &o, int64_t row, int64_t column, Floats sum) const {
        const Mask lanes = first_lanes(o.matrix.n - column);
        float *out = o.is_head ? batch_.logits + row * o.matrix.n : row_of(o.target, row);
        if (o.matrix.bias) sum += load(o.matrix.bias + column, lanes);
        const Floats factor = broadcast((float)o.multiplier);
        if (o.finish == ACCUMULATE)
            sum = fmadd(sum, factor, load(out + column, lanes));
        else if (o.finish == ACTIVATE)
            sum = activated(sum, o.activation);
        else if (o.multiplier != 1)
            sum = sum * factor;
        if (o.is_head && o.softcap) sum = capped(sum, (float)o.softcap);
        store(out + column, lanes, sum);
    }

    // Return the keys (head_dim, 16 tokens) or values (16 tokens, head_dim) of one key/value head in a block of the
    // cache.
    bf16 *keys_of(const Operation &o, int64_t sequence, int64_t block, int64_t head) const {
        char *address = (char *)batch_.tables[sequence][block] + o.layer * decoder_.layer_bytes;
        return (bf16 *)address + head * o.head_dim * BLOCK_TOKENS;
    }
    bf16 *values_of(const Operation &o, int64_t sequence, int64_t block, int64_t head) const {
        return keys_of(o, sequence, block, o.n_kv_heads + head);
    }

    void attend(const Operation &o) {
        store_keys(o);
        if (id_ == 0) next_.store(0, std::memory_order_relaxed);
        barrier_.wait();
        // Keys are read once for several queries: for consecutive rows of the same sequence, and for the query heads
        // that share a key/value head.
        const int64_t group = o.n_heads / o.n_kv_heads, rows_at_once = std::max<int64_t>(1, MAX_QUERIES / group);
        const int64_t parts = (group + MAX_QUERIES - 1) / MAX_QUERIES; // number of parts of such a group of query heads
        tiles_.clear();
        for (int64_t row = 0; row < batch_.rows;) {
            int64_t count = 1;
            while (count < rows_at_once && row + count < batch_.rows &&
                   batch_.sequences[row + count] == batch_.sequences[row])
                count++;
            tiles_.push_back({row, count});
            row += count;
        }
        const int64_t per_tile = o.n_kv_heads * parts, items = (int64_t)tiles_.size() * per_tile;
        for (;;) {
            const int64_t item = next_.fetch_add(1, std::memory_order_relaxed);
            if (item >= items) return;
            const Tile &tile = tiles_[items / per_tile - 1 - item / per_tile]; // the last rows have the most keys and are processed first
            const int64_t head = item % per_tile / parts, part = item % parts;
            const int64_t first = head * group + group * part / parts, last = head * group + group * (part + 1) / parts;
            attend_tile(o, tile, head, first, last);
        }
    }

    // Normalizes and rotates queries and keys, and stores keys and values in the KV cache.
    void store_keys(const Operation &o) {
        const int64_t n = o.head_dim, q_width = o.n_heads * n, k_width = o.n_kv_heads * n;
        const int64_t heads = o.n_heads + o.n_kv_heads;
        int64_t begin, end;
        mine(batch_.rows * heads, begin, end);
        normed_.resize(n);
        for (int64_t item = begin; item < end; item++) {
            const int64_t row = item / heads, head = item % heads, position = batch_.positions[row];
            const bool is_key = head >= o.n_heads;
            const float *all = row_of(o.source, row) + (is_key ? q_width : 0);
            const float *from = all + (is_key ? head - o.n_heads : head) * n, *weight = is_key ? o.k_norm : o.q_norm;
            float *x = is_key ? normed_.data() : row_of(o.second, row) + head * n;
            memcpy(x, from, n * sizeof(float));
            if (o.qk_norm) {
                const bool over_all = o.qk_norm == 2;
                const float factor = over_all ? reciprocal_rms(all, is_key ? k_width : q_width, o.qk_eps)
                                              : reciprocal_rms(x, n, o.qk_eps);
                if (over_all) weight += from - all;
                for (int64_t i = 0; i < n; i++) x[i] = x[i] * factor * weight[i];
            }
            if (o.rope >= 0) {
                const int64_t at = position * (o.rotary_dim / 2);
                rotate(x, batch_.cosines[o.rope] + at, batch_.sines[o.rope] + at, o.rotary_dim);
            }
            if (!is_key) continue;
            const int64_t kv_head = head - o.n_heads, block = position / BLOCK_TOKENS, token = position % BLOCK_TOKENS;
            bf16 *keys = keys_of(o, batch_.sequences[row], block, kv_head) + token;
            bf16 *values = values_of(o, batch_.sequences[row], block, kv_head) + token * n;
            const float *value = row_of(o.source, row) + q_width + k_width + kv_head * n;
            alignas(32) bf16 rounded[16];
            for (int64_t i = 0; i < n; i += 16) {
                store(rounded, load(x + i));
                for (int64_t j = 0; j < 16; j++) keys[(i + j) * BLOCK_TOKENS] = rounded[j];
                store(values + i, load(value + i));
            }
        }
    }

    struct Tile {
        int64_t row, count;
    };

    void attend_tile(const Operation &o, const Tile &tile, int64_t kv_head, int64_t first, int64_t last) {
        const float *queries[MAX_QUERIES];
        float *outs[MAX_QUERIES];
        int64_t positions[MAX_QUERIES], count = 0;
        for (int64_t row = tile.row; row < tile.row + tile.count; row++)
            for (int64_t head = first; head < last; head++, count++) {
                queries[count] = row_of(o.second, row) + head * o.head_dim;
                outs[count] = row_of(o.target, row) + head * o.head_dim;
                positions[count] = batch_.positions[row];
            }
        switch (count) {
        case 1: attend_queries<1>(o, tile, kv_head, queries, outs, positions); break;
        case 2: attend_queries<2>(o, tile, kv_head, queries, outs, positions); break;
        case 3: attend_queries<3>(o, tile, kv_head, queries, outs, positions); break;
        case 4: attend_queries<4>(o, tile, kv_head, queries, outs, positions); break;
        case 5: attend_queries<5>(o, tile, kv_head, queries, outs, positions); break;
        default: attend_queries<6>(o, tile, kv_head, queries, outs, positions); break;
        }
    }

    template <int Q>
    void attend_queries(const Operation &o, const Tile &tile, int64_t kv_head, const float *const *queries,
                        float *const *outs, const int64_t *positions) {
        const int64_t sequence = batch_.sequences[tile.row], furthest = positions[Q - 1];
        const int64_t oldest = o.window ? std::max<int64_t>(0, positions[0] - o.window + 1) : 0;
        const int64_t begin = oldest / BLOCK_TOKENS, end = furthest / BLOCK_TOKENS + 1;
        const int64_t length = (end - begin) * BLOCK_TOKENS;
        if ((int64_t)scores_.size() < Q * length) scores_.resize(Q * length);
        const Ints lanes = lane_numbers();
        const Floats scale = broadcast((float)o.scale), nothing = broadcast(-INFINITY);
        Floats largest[Q];
        for (int q = 0; q < Q; q++) largest[q] = nothing;
        for (int64_t block = begin; block < end; block++) {
            const bf16 *keys = keys_of(o, sequence, block, kv_head);
            Floats sums[Q];
#pragma GCC unroll 6
            for (int q = 0; q < Q; q++) sums[q] = zeros();
            for (int64_t i = 0; i < o.head_dim; i++) {
                const Floats key = load(keys + i * BLOCK_TOKENS);
#pragma GCC unroll 6
                for (int q = 0; q < Q; q++) sums[q] = fmadd(key, broadcast(queries[q][i]), sums[q]);
            }
            const Ints places = lanes + broadcast_int((int32_t)(block * BLOCK_TOKENS));
#pragma GCC unroll 6
            for (int q = 0; q < Q; q++) {
                Floats score = sums[q] * scale;
                if (o.softcap) score = capped(score, (float)o.softcap);
                Mask visible = places <= broadcast_int((int32_t)positions[q]);
                if (o.window)
                    visible = visible & (places > broadcast_int((int32_t)(positions[q] - o.window)));
                score = select(visible, score, nothing);
                largest[q] = max(largest[q], score);
                store(&scores_[q * length + (block - begin) * BLOCK_TOKENS], score);
            }
        }
        float inverse[Q];
        for (int q = 0; q < Q; q++) {
            const Floats shift = broadcast(reduce_max(largest[q]));
            Floats total = zeros();
            float *row = &scores_[q * length];
            for (int64_t i = 0; i < length; i += 16) {
                const Floats below = max(load(row + i) - shift, -100.0f);
                // If an attention weight would be a denormal number, set it to zero. This includes masked tokens.
                const Mask counts = below > broadcast(-80.0f);
                const Floats weight = keep(counts, exponential(below));
                total += weight;
                store(row + i, weight);
            }
            inverse[q] = 1.0f / reduce_add(total);
        }
        int64_t i = 0;
        if constexpr (NUM_VECTORS == 32) {
            for (; i + 64 <= o.head_dim; i += 64) mix<Q, 4>(o, sequence, kv_head, begin, furthest, length, i, inverse, outs);
            if (i + 32 <= o.head_dim) mix<Q, 2>(o, sequence, kv_head, begin, furthest, length, i, inverse, outs), i += 32;
        }
        for (; i < o.head_dim; i += 16) mix<Q, 1>(o, sequence, kv_head, begin, furthest, length, i, inverse, outs);
    }

    // Computes weighted sums of the values for the features [at, at + 16 V).
    template <int Q, int V>
    void mix(const Operation &o, int64_t sequence, int64_t kv_head, int64_t begin, int64_t furthest, int64_t length,
             int64_t at, const float *inverse, float *const *outs) {
        Floats sums[Q][V];
#pragma GCC unroll 6
        for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sums[q][v] = zeros();
        for (int64_t block = begin; block * BLOCK_TOKENS <= furthest; block++) {
            const bf16 *values = values_of(o, sequence, block, kv_head) + at;
            const int64_t tokens = std::min(BLOCK_TOKENS, furthest + 1 - block * BLOCK_TOKENS);
            const float *weights = &scores_[(block - begin) * BLOCK_TOKENS];
            for (int64_t token = 0; token < tokens; token++) {
                Floats value[V];
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) value[v] = load(values + token * o.head_dim + v * 16);
#pragma GCC unroll 6
                for (int q = 0; q < Q; q++) {
                    const Floats weight = broadcast(weights[q * length + token]);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) sums[q][v] = fmadd(weight, value[v], sums[q][v]);
                }
            }
        }
        for (int q = 0; q < Q; q++)
            for (int v = 0; v < V; v++)
                store(outs[q] + at + v * 16, sums[q][v] * broadcast(inverse[q]));
    }

    const Decoder &decoder_;
    const Batch &batch_;
    Barrier &barrier_;
    std::atomic<int64_t> &next_;
    Rows &shared_;
    const int64_t id_;
    // Buffers that a thread reuses between forward passes.
    static thread_local Rows own_;
    static thread_local std::vector<float> normed_, scores_;
    static thread_local std::vector<Tile> tiles_;
};

thread_local Rows Worker::own_;
thread_local std::vector<float> Worker::normed_, Worker::scores_;
thread_local std::vector<Worker::Tile> Worker::tiles_;

} // namespace

extern "C" void groundup_decode(const Decoder *decoder, const Batch *batch) {
    static thread_local Rows shared;
    Rows &rounded = shared; // belongs to the calling thread and is used by all threads of the pass
    Decoder team = *decoder;
    Barrier barrier;
    std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(decoder->threads)
    {
#pragma omp single
        barrier.count = team.threads = omp_get_num_threads(); // the system may give fewer threads than requested
        const Tiles tiles(true);
        Worker(team, *batch, barrier, next, rounded, omp_get_thread_num()).run();
    }
}

// A quantized matrix. Each output has groups of 32 inputs. An int8 group has 32 values and an fp16 scale. An int4 group
// has 16 bytes, an fp16 scale and an fp16 minimum. A byte contains the value of input i in the low bits and of input
// 16 + i in the high bits. Strides are the distances between groups in bytes, also from the last group of an output to
// the first group of the next output.
struct Quantized {
    const uint8_t *values, *scales, *minimums;
    int64_t value_stride, scale_stride;
};

// Packs `rows` outputs of k inputs. The first 16 outputs are stored at output `first` of the packed matrix, the next 16 at
// `first + step`, and so on. The memory of the packed matrix must be zero before.
extern "C" void groundup_pack_quantized(uint8_t *out, const Quantized *from, int64_t kind, int64_t rows, int64_t k,
                                        int64_t first, int64_t step) {
    const Matrix w{kind, 0, k, out, nullptr};
    const int64_t groups = k / GROUP, bytes = kind == INT8 ? 32 : 16, group_bytes = scale_bytes(kind) + values_per_step(kind);
    const uint32_t sign = kind == INT8 ? 0x80808080u : 0;
    const int64_t output_stride = groups * from->value_stride;
#pragma omp parallel for
    for (int64_t panel = 0; panel < (rows + PANEL - 1) / PANEL; panel++) {
        const int64_t output = first + panel * step, count = std::min(PANEL, rows - panel * PANEL);
        for (int64_t g = 0; g < groups; g++) {
            const int64_t index = panel * PANEL * groups + g;
            const uint8_t *source = from->values + index * from->value_stride;
            const bool aligned = output % PANEL == 0; // the outputs are one panel of the packed matrix
            if (aligned) {
                uint8_t *to = out + output / PAIR * w.pair_bytes() + g * group_bytes + scale_bytes(kind) + output % PAIR * 4;
                for (int64_t i = 0; i < bytes; i += 4) {
                    uint32_t line[PANEL] = {};
                    for (int64_t row = 0; row < count; row++) memcpy(line + row, source + row * output_stride + i, 4);
                    for (uint32_t &four : line) four ^= sign;
                    memcpy(to + i / 4 * 128, line, sizeof line);
                }
            }
            for (int64_t row = 0; row < count; row++) {
                const int64_t column = (output + row) % PAIR, at = (index + row * groups) * from->scale_stride;
                uint8_t *to = out + (output + row) / PAIR * w.pair_bytes() + g * group_bytes;
                memcpy(to + column * 2, from->scales + at, 2);
                if (kind == INT4) memcpy(to + 2 * PAIR + column * 2, from->minimums + at, 2);
                if (aligned) continue;
                uint8_t *values = to + scale_bytes(kind) + column / PANEL * 64 + column % PANEL * 4;
                for (int64_t i = 0; i < bytes; i += 4) {
                    uint32_t four;
                    memcpy(&four, source + row * output_stride + i, 4);
                    four ^= sign;
                    memcpy(values + i / 4 * 128, &four, 4);
                }
            }
        }
    }
}

// Packs `rows` outputs of k bf16 values in the same way.
extern "C" void groundup_pack_bf16(uint8_t *out, const bf16 *values, int64_t rows, int64_t k, int64_t first, int64_t step) {
    const Matrix w{BF16, 0, k, out, nullptr};
#pragma omp parallel for
    for (int64_t panel = 0; panel < (rows + PANEL - 1) / PANEL; panel++)
        for (int64_t row = panel * PANEL; row < std::min(rows, (panel + 1) * PANEL); row++) {
            const int64_t output = first + panel * step + row % PANEL;
            uint8_t *to = out + output / PAIR * w.pair_bytes() + output % PAIR / PANEL * 64 + output % PANEL * 4;
            for (int64_t i = 0; i < k; i += 2) memcpy(to + i / 2 * 128, values + row * k + i, 4);
        }
}
