// Sampling of the next token from the logits of a vocabulary. PyTorch needs a millisecond and more for this, because it
// makes many passes over the vocabulary and sorts it. The result is the same for any number of threads.
#include "math.h"

#include <cmath>
#include <vector>

using namespace groundup;

namespace {

constexpr float SMALLEST = -87.0f; // e^x of smaller values is not a normal number, and counts as 0
constexpr int64_t BLOCK = 1024;    // number of weights that are summed together in the search for the sampled token

struct Candidate {
    float logit;
    int32_t token;
};

// Returns the largest logit, or NaN if it is infinite or a logit is NaN.
float largest_logit(const float *logits, int64_t n) {
    __m512 largest = _mm512_set1_ps(-INFINITY);
    __mmask16 unordered = 0;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 x = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), lanes, logits + i);
        unordered |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        largest = _mm512_max_ps(largest, x);
    }
    const float result = _mm512_reduce_max_ps(largest);
    return unordered || !std::isfinite(result) ? NAN : result;
}

// Computes weights = e^((logits - largest) / temperature), and returns the sum of each block.
class Weights {
  public:
    Weights(const float *logits, int64_t n, float largest, double temperature)
        : logits_(logits), n_(n), largest_(largest), factor_((float)std::min(1 / temperature, 1e38)) {
        sums_.clear();
    }

    // Returns the sum of all weights, and stores the weights and the sums of the blocks.
    double sum() {
        weights_.resize(round_up(n_, 16));
        double total = 0;
        for (int64_t begin = 0; begin < n_; begin += BLOCK) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t i = begin; i < std::min(begin + BLOCK, n_); i += 16) {
                const __m512 weight = of(_mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), first_lanes(n_ - i), logits_ + i));
                _mm512_storeu_ps(&weights_[i], weight);
                sum = _mm512_add_ps(sum, weight);
            }
            sums_.push_back(_mm512_reduce_add_ps(sum));
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

    float of(const Candidate &each) const {
        return sums_.empty() ? _mm512_cvtss_f32(of(_mm512_set1_ps(each.logit))) : weights_[each.token];
    }

  private:
    __m512 of(__m512 logits) const {
        const __m512 x = _mm512_mul_ps(_mm512_sub_ps(logits, _mm512_set1_ps(largest_)), _mm512_set1_ps(factor_));
        const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(SMALLEST), _CMP_GT_OQ);
        return _mm512_maskz_mov_ps(counts, exponential(_mm512_max_ps(x, _mm512_set1_ps(SMALLEST))));
    }

    const float *logits_;
    int64_t n_;
    float largest_, factor_;
    static thread_local std::vector<float> weights_;
    static thread_local std::vector<double> sums_;
};

thread_local std::vector<float> Weights::weights_;
thread_local std::vector<double> Weights::sums_;

// Collects the tokens whose logit is at least `least`, in the order of the vocabulary.
void collect(std::vector<Candidate> &out, const float *logits, int64_t n, float least) {
    out.clear();
    const __m512 bound = _mm512_set1_ps(least);
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        uint32_t chosen = _mm512_mask_cmp_ps_mask(lanes, _mm512_maskz_loadu_ps(lanes, logits + i), bound, _CMP_GE_OQ);
        for (; chosen; chosen &= chosen - 1) {
            const int64_t token = i + __builtin_ctz(chosen);
            out.push_back({logits[token], (int32_t)token});
        }
    }
}

} // namespace

// Samples a token with top-k, then top-p, then min-p. Returns -1 if the logits are not finite. A temperature of 0 returns
// the most likely token. `top_k` is 0 or `top_p` is 1 if there is no limit. `uniform` is a random number in [0, 1).
extern "C" int64_t groundup_sample(const float *logits, int64_t n, double temperature, int64_t top_k, double top_p,
                                   double min_p, double uniform) {
    const float largest = largest_logit(logits, n);
    if (std::isnan(largest)) return -1;
    static thread_local std::vector<Candidate> candidates;
    if (temperature == 0) {
        collect(candidates, logits, n, largest);
        return candidates.front().token;
    }
    Weights weights(logits, n, largest, temperature);
    if (top_k >= n) top_k = 0;
    if (!top_k && top_p >= 1 && min_p <= 0) {
        const double total = weights.sum();
        return weights.at(uniform * total);
    }
    // Collect the most likely tokens, and lower the bound until they include all tokens that can be sampled.
    const double total = !top_k && top_p < 1 ? weights.sum() : 0;
    const bool by_min_p = min_p > 0 && !top_k; // a larger set of tokens is not needed
    double range = by_min_p ? -std::log(min_p) * temperature * 1.001 + 1e-3 : std::max(4 * temperature, 1e-2);
    for (;; range *= 1.5) {
        const bool all = range > 1e4 * (1 + temperature);
        collect(candidates, logits, n, all ? -INFINITY : (float)(largest - range));
        double mass = 0;
        if (total)
            for (const Candidate &each : candidates) mass += weights.of(each);
        if (all || by_min_p || ((int64_t)candidates.size() >= top_k && mass >= top_p * total)) break;
    }
    const auto more_likely = [](const Candidate &a, const Candidate &b) {
        return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
    };
    std::sort(candidates.begin(), candidates.end(), more_likely);
    size_t kept = candidates.size();
    if (top_k && (size_t)top_k < kept) // tokens that are as likely as the last one are kept
        for (kept = top_k; kept < candidates.size() && candidates[kept].logit == candidates[top_k - 1].logit;) kept++;
    double limit = total;
    if (top_k)
        for (size_t i = 0; i < kept; i++) limit += weights.of(candidates[i]);
    double mass = 0;
    for (size_t i = 0; i < kept; i++) {
        const double weight = weights.of(candidates[i]);
        if ((top_p < 1 && mass >= top_p * limit) || weight < min_p) kept = i;
        else mass += weight;
    }
    candidates.resize(std::max<size_t>(kept, 1));
    std::sort(candidates.begin(), candidates.end(), [](const Candidate &a, const Candidate &b) { return a.token < b.token; });
    double point = uniform * mass;
    int64_t found = candidates.front().token;
    for (const Candidate &each : candidates) {
        const double weight = weights.of(each);
        if (weight == 0) continue;
        found = each.token;
        if (point < weight) break;
        point -= weight;
    }
    return found;
}

// Returns log(sum(e^logits)).
extern "C" double groundup_log_sum_exp(const float *logits, int64_t n) {
    const float largest = largest_logit(logits, n);
    return std::isnan(largest) ? NAN : largest + std::log(Weights(logits, n, largest, 1).sum());
}
