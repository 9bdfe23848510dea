// Sampling of the next token from the logits of a vocabulary. PyTorch needs a millisecond and more for this, because it
// makes many passes over the vocabulary and sorts it. The result is the same for any number of threads.
#include "math.h"

#include <cmath>
#include <numeric>
#include <vector>

using namespace groundup;

namespace {

constexpr float SMALLEST = -87.0f; // e^x of smaller values is not a normal number, and counts as 0
constexpr int64_t BLOCK = 1024;    // number of weights that are summed together in the search for the sampled token

constexpr int BINS = 256;          // of the tokens by their logits, to find the most likely ones without sorting all
constexpr int BINS_PER_UNIT = 8;   // bins per difference of the logits that equals the temperature

struct Candidate {
    float logit;
    int32_t token;
};

// Returns the largest logit, or NaN if it is infinite or a logit is NaN.
float largest_logit(const float *logits, int64_t n) {
    Floats largest = broadcast(-INFINITY);
    Mask unordered = first_lanes(0);
    for (int64_t i = 0; i < n; i += 16) {
        const Mask lanes = first_lanes(n - i);
        const Floats x = load(logits + i, lanes, -INFINITY);
        unordered = unordered | is_nan(x);
        largest = max(largest, x);
    }
    const float result = reduce_max(largest);
    return any(unordered) || !std::isfinite(result) ? NAN : result;
}

// The weights of the tokens, e^((logits - largest) / temperature), and the sum of each block of them.
class Weights {
  public:
    Weights(const float *logits, int64_t n, float largest, double temperature)
        : logits_(logits), n_(n), largest_(largest), factor_((float)std::min(1 / temperature, 1e38)) {}

    // Returns the sum of all weights, and stores the weights and the sums of the blocks.
    double sum() {
        weights_.resize(round_up(n_, 16));
        sums_.clear();
        double total = 0;
        for (int64_t begin = 0; begin < n_; begin += BLOCK) {
            Floats sum = zeros();
            for (int64_t i = begin; i < std::min(begin + BLOCK, n_); i += 16) {
                const Floats weight = of(load(logits_ + i, first_lanes(n_ - i), -INFINITY));
                store(&weights_[i], weight);
                sum += weight;
            }
            sums_.push_back(reduce_add(sum));
            total += sums_.back();
        }
        return total;
    }

    // Returns the token at a point between 0 and the sum of all weights.
    int64_t at(double point) const {
        size_t block = 0;
        while (block + 1 < sums_.size() && point >= sums_[block]) point -= sums_[block++];
        int64_t found = -1;
        for (int64_t i = (int64_t)block * BLOCK; i < n_; i++) {
            if (weights_[i] == 0) continue;
            if (found >= 0 && i >= (int64_t)(block + 1) * BLOCK) break; // rounding has put the point after the block
            found = i;
            if (point < weights_[i]) break;
            point -= weights_[i];
        }
        if (found >= 0) return found;
        for (found = n_ - 1; weights_[found] == 0; found--) {}
        return found;
    }

    const float *values() const { return weights_.data(); }

    // Sets the weights of tokens below a logit, and of all but the first `ties` tokens with this logit, to 0.
    double limit(float least, int64_t ties) {
        const Floats bound = broadcast(least);
        return retain([&](Floats logits, Floats) {
            uint32_t kept = bits_of(logits > bound);
            for (uint32_t equal = bits_of(logits == bound); equal && ties > 0; ties--) {
                kept |= equal & -equal;
                equal &= equal - 1;
            }
            return mask_of(kept);
        });
    }

    // Sets weights below a bound to 0.
    double raise(float bound) {
        return retain([&](Floats, Floats weights) {
            return weights >= broadcast(bound);
        });
    }

  private:
    // Sets the weights of other tokens to 0, and returns the sum of all weights.
    template <class Kept> double retain(const Kept &kept) {
        double total = 0;
        for (size_t block = 0; block < sums_.size(); block++) {
            Floats sum = zeros();
            for (int64_t i = block * BLOCK; i < std::min<int64_t>((block + 1) * BLOCK, n_); i += 16) {
                const Floats logits = load(logits_ + i, first_lanes(n_ - i), -INFINITY);
                Floats weights = load(&weights_[i]);
                weights = keep(kept(logits, weights), weights);
                store(&weights_[i], weights);
                sum += weights;
            }
            sums_[block] = reduce_add(sum);
            total += sums_[block];
        }
        return total;
    }

    Floats of(Floats logits) const {
        const Floats x = (logits - broadcast(largest_)) * broadcast(factor_);
        const Mask counts = x > broadcast(SMALLEST);
        return keep(counts, exponential(max(x, SMALLEST)));
    }

    const float *logits_;
    int64_t n_;
    float largest_, factor_;
    static thread_local std::vector<float> weights_;
    static thread_local std::vector<double> sums_;
};

thread_local std::vector<float> Weights::weights_;
thread_local std::vector<double> Weights::sums_;

// A limit of the tokens that can be sampled. Tokens with a logit above `least` and the first `ties` tokens with this logit
// are within the limit.
struct Limit {
    float least = -INFINITY;
    int64_t ties = INT64_MAX;
};

// Finds the most likely tokens. Tokens are counted in bins by their logits, so only the tokens of one bin are sorted.
class Ranking {
  public:
    Ranking(const float *logits, int64_t n, float largest, double temperature, const float *weights)
        : logits_(logits), weights_(weights), n_(n) {
        const Floats scale = broadcast((float)std::min(BINS_PER_UNIT / temperature, 1e38));
        bins_.resize(round_up(n, 16));
        for (int64_t i = 0; i < n; i += 16) {
            const Floats x = load(logits + i, first_lanes(n - i), -INFINITY);
            const Floats below = (broadcast(largest) - x) * scale;
            const Ints bin = truncated_to_ints(min(below, BINS - 1));
            store_low_bytes(&bins_[i], bin);
        }
        for (int64_t i = 0; i < n; i++) counts_[bins_[i]]++, masses_[bins_[i]] += weights[i];
    }

    // Returns the limit of the k most likely tokens and all tokens that are as likely as the last of them. Other tokens
    // do not count in `nucleus`.
    Limit most_likely(int64_t k) {
        int bin = 0;
        for (; bin < BINS - 1 && counts_[bin] < k; bin++) k -= counts_[bin];
        const std::vector<Candidate> &candidates = sorted(bin);
        const Limit limit{candidates[std::min<int64_t>(k, candidates.size()) - 1].logit, INT64_MAX};
        std::fill(masses_ + bin, masses_ + BINS, 0.0);
        for (const Candidate &each : candidates)
            if (each.logit >= limit.least) masses_[bin] += weights_[each.token];
        return limit;
    }

    // Returns the limit of the smallest set of most likely tokens that has a share of the weights, within another limit.
    Limit nucleus(double share, const Limit &within) {
        double left = share * std::accumulate(masses_, masses_ + BINS, 0.0);
        int bin = 0;
        for (; bin < BINS - 1 && masses_[bin] < left; bin++) left -= masses_[bin];
        Limit limit;
        for (const Candidate &each : sorted(bin)) {
            if (left <= 0 || each.logit < within.least) break;
            limit = {each.logit, each.logit == limit.least ? limit.ties + 1 : 1};
            left -= weights_[each.token];
        }
        return limit;
    }

  private:
    // Returns the tokens of a bin, the most likely one first.
    const std::vector<Candidate> &sorted(int bin) {
        candidates_.clear();
        for (int64_t i = 0; i < n_; i += 16) {
            uint32_t found = equal_bytes(&bins_[i], (uint8_t)bin);
            for (found &= bits_of(first_lanes(n_ - i)); found; found &= found - 1) {
                const int64_t token = i + __builtin_ctz(found);
                candidates_.push_back({logits_[token], (int32_t)token});
            }
        }
        std::sort(candidates_.begin(), candidates_.end(), [](const Candidate &a, const Candidate &b) {
            return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
        });
        return candidates_;
    }

    const float *logits_, *weights_;
    int64_t n_, counts_[BINS] = {};
    double masses_[BINS] = {};
    static thread_local std::vector<uint8_t> bins_;
    static thread_local std::vector<Candidate> candidates_;
};

thread_local std::vector<uint8_t> Ranking::bins_;
thread_local std::vector<Candidate> Ranking::candidates_;

} // namespace

// Samples a token with top-k, then top-p, then min-p. Returns -1 if the logits are not finite. A temperature of 0 returns
// the most likely token. `top_k` is 0 or `top_p` is 1 if there is no limit. `uniform` is a random number in [0, 1).
extern "C" int64_t groundup_sample(const float *logits, int64_t n, double temperature, int64_t top_k, double top_p,
                                   double min_p, double uniform) {
    const float largest = largest_logit(logits, n);
    if (std::isnan(largest)) return -1;
    if (temperature == 0) {
        int64_t token = 0;
        while (logits[token] != largest) token++;
        return token;
    }
    Weights weights(logits, n, largest, temperature);
    double total = weights.sum();
    const bool by_k = top_k && top_k < n, by_p = top_p < 1;
    if (by_k || by_p) {
        Ranking ranking(logits, n, largest, temperature, weights.values());
        Limit limit;
        if (by_k) limit = ranking.most_likely(top_k);
        if (by_p) limit = ranking.nucleus(top_p, limit);
        total = weights.limit(limit.least, limit.ties);
    }
    if (min_p > 0) total = weights.raise((float)min_p);
    return weights.at(uniform * total);
}

// Returns log(sum(e^logits)).
extern "C" double groundup_log_sum_exp(const float *logits, int64_t n) {
    const float largest = largest_logit(logits, n);
    return std::isnan(largest) ? NAN : largest + std::log(Weights(logits, n, largest, 1).sum());
}
