// Forward and backward passes of causal attention over packed documents. As in FlashAttention (arXiv:2205.14135), the
// kernels process blocks of queries, skip masked blocks, and do not store a (T x T) matrix. The scores of a block of
// queries for all of its keys fit into a core's cache, so softmax needs only one pass over the keys.
//
// Shape letters: B is the batch size, T the sequence length, N the number of query heads, K the number of key/value
// heads, and H the head dimension, which is a multiple of 32.
// Tensors are bf16 with the layout (B, T, heads, H). Query t attends to the keys from starts[t] to t, and to the keys
// from prefix_starts[t] to prefix_ends[t] - 1 of a prefix that the documents of a row share.
#include "math.h"

using namespace groundup;

constexpr int QUERIES = 32;         // number of queries in a block
constexpr int BLOCKS = 2;           // number of query blocks per update of the gradients of keys and values
constexpr int SUPER = QUERIES * BLOCKS;

// The keys of a block of queries. The first `prefix` columns of the scores are the keys from `prefix_low` on, which contain
// the shared prefixes, and the other columns are the keys from `low` on. The keys between them are skipped, because they
// belong to other documents.
struct Keys {
    int64_t prefix, prefix_low, low;

    int64_t columns(int64_t end) const { return prefix + round_up(end, DEPTH) - low; }
    // Calls `work(column, key, count)` for each range of adjacent keys.
    template <typename Work> void for_each_range(int64_t columns, const Work &work) const {
        if (prefix > 0) work(0, prefix_low, prefix);
        work(prefix, low, columns - prefix);
    }
};

// The columns of the scores to which one query attends.
struct Visible {
    int64_t prefix_first, prefix_last, first, last;

    int64_t begin() const { return (prefix_last > 0 ? prefix_first : first) / 16 * 16; }
    Mask lanes(int64_t j) const {
        const Mask own = first_lanes(last - j) & ~first_lanes(first - j);
        return prefix_last > j ? own | (first_lanes(prefix_last - j) & ~first_lanes(prefix_first - j)) : own;
    }
};

struct Attention {
    const bf16 *q, *k, *v;
    const int32_t *key_ranges; // (3, B, T): starts, prefix_starts, prefix_ends
    int64_t batch, length, heads, key_heads, features;
    float scale;

    int64_t q_stride() const { return heads * features; }
    int64_t k_stride() const { return key_heads * features; }
    int64_t rows(int64_t query) const { return std::min<int64_t>(QUERIES, length - query); }
    const int32_t *starts(int64_t b) const { return key_ranges + b * length; }
    const int32_t *prefix_starts(int64_t b) const { return starts(batch + b); }
    const int32_t *prefix_ends(int64_t b) const { return starts(2 * batch + b); }
    Keys keys(int64_t b, int64_t from, int64_t to) const {
        to = std::min(to, length);
        const int64_t low = *std::min_element(starts(b) + from, starts(b) + to) / DEPTH * DEPTH;
        int64_t prefix_low = length, prefix_end = 0;
        for (int64_t query = from; query < to; query++) {
            if (prefix_starts(b)[query] >= prefix_ends(b)[query]) continue; // no prefix, or outside of the sliding window
            prefix_low = std::min<int64_t>(prefix_low, prefix_starts(b)[query] / DEPTH * DEPTH);
            prefix_end = std::max<int64_t>(prefix_end, round_up(prefix_ends(b)[query], DEPTH));
        }
        if (prefix_end == 0) return {0, 0, low};
        if (low > prefix_end) return {prefix_end - prefix_low, prefix_low, low};
        return {0, 0, std::min(low, prefix_low)};
    }
    Visible visible(const Keys &keys, int64_t b, int64_t query) const {
        const int64_t offset = keys.prefix - keys.low, prefix_offset = keys.prefix > 0 ? -keys.prefix_low : -keys.low;
        if (prefix_starts(b)[query] >= prefix_ends(b)[query])
            return {0, 0, starts(b)[query] + offset, query + 1 + offset};
        return {prefix_starts(b)[query] + prefix_offset, prefix_ends(b)[query] + prefix_offset,
                starts(b)[query] + offset, query + 1 + offset};
    }
};

// Copies rows of a larger matrix to a contiguous block of 32 rows, and fills the remaining rows with zeros.
static void copy_rows(bf16 *out, const bf16 *source, int64_t stride, int64_t rows, int64_t features) {
    for (int64_t r = 0; r < rows; r++) memcpy(out + r * features, source + r * stride, features * sizeof(bf16));
    memset(out + rows * features, 0, (QUERIES - rows) * features * sizeof(bf16));
}

// Computes the unnormalized attention weights of one query, p = exp(score x scale - top), where p is 0 for masked keys.
// Returns the sum of these weights.
static float exponentials(bf16 *p, const float *scores, float scale, float top, const Visible &visible, int64_t count) {
    Floats sum = zeros();
    const Floats scales = broadcast(scale), tops = broadcast(top);
    for (int64_t j = 0; j < count; j += 16) {
        const Mask seen = visible.lanes(j);
        Floats value = zeros();
        if (any(seen))
            value = keep(seen, exponential(fmsub(load(scores + j), scales, tops)));
        sum += value;
        store(p + j, value);
    }
    return reduce_add(sum);
}

static float largest(const float *scores, const Visible &visible) {
    Floats top = broadcast(-INFINITY);
    for (int64_t j = visible.begin(); j < visible.last; j += 16) top = max(top, load(scores + j), visible.lanes(j));
    return reduce_max(top);
}

// Computes the attention output `out` (B, T, N, H), and the logsumexp of each query's scores, `lse` (B, N, T).
extern "C" void groundup_attention(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                                   const int32_t *key_ranges, int64_t batch, int64_t length, int64_t heads,
                                   int64_t key_heads, int64_t features, float scale) {
    const Attention at = {q, k, v, key_ranges, batch, length, heads, key_heads, features, scale};
    const int64_t padded = round_up(length, DEPTH), group = heads / key_heads, H = features;
#pragma omp parallel
    {
        Tiles tiles;
        static thread_local Scratch<bf16> kept;
        static thread_local Scratch<float> sums;
        bf16 *packed_keys = kept.at_least(2 * padded * H + QUERIES * (H + padded)), *values = packed_keys + padded * H;
        bf16 *block = values + padded * H, *p = block + QUERIES * H;
        float *scores = sums.at_least(QUERIES * (padded + H)), *mixed = scores + QUERIES * padded;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < batch * key_heads; task++) {
            const int64_t b = task / key_heads, kv = task % key_heads;
            pack_right_transposed(packed_keys, k + b * length * at.k_stride() + kv * H, at.k_stride(), H, length);
            pack_right(values, v + b * length * at.k_stride() + kv * H, at.k_stride(), length, H);
            for (int64_t n = kv * group; n < (kv + 1) * group; n++)
                for (int64_t query = 0; query < length; query += QUERIES) {
                    const int64_t rows_here = at.rows(query);
                    const Keys keys = at.keys(b, query, query + QUERIES);
                    const int64_t count = keys.columns(query + rows_here);
                    copy_rows(block, q + (b * length + query) * at.q_stride() + n * H, at.q_stride(), rows_here, H);
                    keys.for_each_range(count, [&](int64_t column, int64_t key, int64_t keys_here) {
                        multiply(scores + column, count, rows(block, H), packed_keys + key * H, H * TILE, QUERIES,
                                 keys_here, H / DEPTH, false);
                    });
                    float inverse[QUERIES];
                    for (int64_t r = 0; r < QUERIES; r++) {
                        bf16 *p_row = p + r * count;
                        if (r >= rows_here) {
                            memset(p_row, 0, count * sizeof(bf16));
                            continue;
                        }
                        const Visible visible = at.visible(keys, b, query + r);
                        const float top = largest(scores + r * count, visible) * scale;
                        const float sum = exponentials(p_row, scores + r * count, scale, top, visible, count);
                        inverse[r] = 1.0f / sum;
                        lse[(b * heads + n) * length + query + r] = top + logf(sum);
                    }
                    keys.for_each_range(count, [&](int64_t column, int64_t key, int64_t keys_here) {
                        multiply(mixed, H, rows(p + column, count), values + key * TILE, padded * TILE, QUERIES, H,
                                 keys_here / DEPTH, column > 0);
                    });
                    for (int64_t r = 0; r < rows_here; r++) {
                        bf16 *to = out + (b * length + query + r) * at.q_stride() + n * H;
                        for (int64_t h = 0; h < H; h += 16)
                            store(to + h, load(mixed + r * H + h) * broadcast(inverse[r]));
                    }
                }
        }
    }
}

// Computes the gradients grad_q (B, T, N, H), grad_k (B, T, K, H) and grad_v (B, T, K, H) from grad_out (B, T, N, H)
// and from the `lse` of the forward pass. The attention weights are recomputed.
extern "C" void groundup_attention_gradients(bf16 *grad_q, bf16 *grad_k, bf16 *grad_v, const bf16 *grad_out,
                                             const float *lse, const bf16 *q, const bf16 *k,
                                             const bf16 *v, const int32_t *key_ranges, int64_t batch, int64_t length,
                                             int64_t heads, int64_t key_heads, int64_t features, float scale) {
    const Attention at = {q, k, v, key_ranges, batch, length, heads, key_heads, features, scale};
    const int64_t padded = round_up(length, DEPTH), group = heads / key_heads, H = features, all = padded * H;
#pragma omp parallel
    {
        Tiles tiles;
        static thread_local Scratch<bf16> kept;
        static thread_local Scratch<float> sums;
        // Keys and values are packed with the features as the inner dimension, for the scores and their gradients. The
        // keys are also packed with the positions as the inner dimension, for grad_q.
        bf16 *packed_keys = kept.at_least(3 * all + SUPER * (4 * H + 4 * padded));
        bf16 *values = packed_keys + all, *keys_by_t = values + all;
        bf16 *q_block = keys_by_t + all, *g_block = q_block + SUPER * H;
        bf16 *q_pairs = g_block + SUPER * H, *g_pairs = q_pairs + SUPER * H;
        bf16 *p = g_pairs + SUPER * H, *ds = p + SUPER * padded;
        bf16 *p_turned = ds + SUPER * padded, *ds_turned = p_turned + SUPER * padded;
        float *scores = sums.at_least(2 * QUERIES * padded + QUERIES * H + 2 * all);
        float *grad_p = scores + QUERIES * padded, *mixed = grad_p + QUERIES * padded;
        float *sum_k = mixed + QUERIES * H, *sum_v = sum_k + all;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < batch * key_heads; task++) {
            const int64_t b = task / key_heads, kv = task % key_heads, base = b * length * at.k_stride() + kv * H;
            pack_right_transposed(packed_keys, k + base, at.k_stride(), H, length);
            pack_right_transposed(values, v + base, at.k_stride(), H, length);
            pack_right(keys_by_t, k + base, at.k_stride(), length, H);
            memset(sum_k, 0, 2 * all * sizeof(float));
            for (int64_t n = kv * group; n < (kv + 1) * group; n++)
                for (int64_t from = 0; from < length; from += SUPER) {
                    const int64_t to = std::min(from + SUPER, length);
                    const Keys keys = at.keys(b, from, to);
                    const int64_t count = keys.columns(to);
                    int64_t deep = 0; // number of rows of the processed query blocks, including padding
                    for (int64_t query = from; query < to; query += QUERIES, deep += QUERIES) {
                        const int64_t rows_here = at.rows(query), offset = (b * length + query) * at.q_stride() + n * H;
                        const int64_t seen = keys.columns(query + rows_here); // columns up to the end of this block
                        bf16 *q_rows = q_block + deep * H, *g_rows = g_block + deep * H;
                        copy_rows(q_rows, q + offset, at.q_stride(), rows_here, H);
                        copy_rows(g_rows, grad_out + offset, at.q_stride(), rows_here, H);
                        keys.for_each_range(seen, [&](int64_t column, int64_t key, int64_t keys_here) {
                            multiply(scores + column, seen, rows(q_rows, H), packed_keys + key * H, H * TILE, QUERIES,
                                     keys_here, H / DEPTH, false);
                            multiply(grad_p + column, seen, rows(g_rows, H), values + key * H, H * TILE, QUERIES,
                                     keys_here, H / DEPTH, false);
                        });
                        for (int64_t r = 0; r < QUERIES; r++) {
                            bf16 *p_row = p + (deep + r) * count, *ds_row = ds + (deep + r) * count;
                            if (r >= rows_here) {
                                memset(p_row, 0, count * sizeof(bf16));
                                memset(ds_row, 0, count * sizeof(bf16));
                                continue;
                            }
                            const Floats scales = broadcast(scale);
                            const Floats tops = broadcast(lse[(b * heads + n) * length + query + r]);
                            const Visible visible = at.visible(keys, b, query + r);
                            float *p_exact = scores + r * seen;
                            const float *dp_row = grad_p + r * seen;
                            Floats dot = zeros(); // dot product of p and dp
                            for (int64_t j = 0; j < seen; j += 16) {
                                const Mask lanes = visible.lanes(j);
                                Floats value = zeros();
                                if (any(lanes)) {
                                    const Floats power = fmsub(load(p_exact + j), scales, tops);
                                    value = keep(lanes, exponential(power));
                                    dot = fmadd(value, load(dp_row + j), dot);
                                }
                                store(p_exact + j, value);
                                store(p_row + j, value);
                            }
                            const Floats mean = broadcast(reduce_add(dot));
                            for (int64_t j = 0; j < seen; j += 16) {
                                const Floats slope = load(dp_row + j) - mean;
                                store(ds_row + j, load(p_exact + j) * scales * slope);
                            }
                            memset(p_row + seen, 0, (count - seen) * sizeof(bf16));
                            memset(ds_row + seen, 0, (count - seen) * sizeof(bf16));
                        }
                        keys.for_each_range(seen, [&](int64_t column, int64_t key, int64_t keys_here) {
                            multiply(mixed, H, rows(ds + deep * count + column, count), keys_by_t + key * TILE,
                                     padded * TILE, QUERIES, H, keys_here / DEPTH, column > 0);
                        });
                        for (int64_t r = 0; r < rows_here; r++)
                            for (int64_t h = 0; h < H; h += 16)
                                store(grad_q + offset + r * at.q_stride() + h, load(mixed + r * H + h));
                    }
                    const int64_t steps = deep / DEPTH;
                    pack_left(p_turned, p, count, deep, count);
                    pack_left(ds_turned, ds, count, deep, count);
                    pack_right(g_pairs, g_block, H, deep, H);
                    pack_right(q_pairs, q_block, H, deep, H);
                    keys.for_each_range(count, [&](int64_t column, int64_t key, int64_t keys_here) {
                        multiply(sum_v + key * H, H, packed(p_turned + column * deep, steps), g_pairs, deep * TILE,
                                 keys_here, H, steps, true);
                        multiply(sum_k + key * H, H, packed(ds_turned + column * deep, steps), q_pairs, deep * TILE,
                                 keys_here, H, steps, true);
                    });
                }
            for (int64_t t = 0; t < length; t++)
                for (int64_t h = 0; h < H; h += 16) {
                    store(grad_k + base + t * at.k_stride() + h, load(sum_k + t * H + h));
                    store(grad_v + base + t * at.k_stride() + h, load(sum_v + t * H + h));
                }
        }
    }
}
