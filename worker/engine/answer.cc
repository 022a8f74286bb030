#include "worker/engine/answer.h"

#include <algorithm>
#include <cmath>

namespace lancet {
namespace {

// A bijection of 64-bit integers whose output bits all depend on all input bits (the finaliser of
// SplitMix64).
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Standard Gumbel noise of one id, from 53 random bits.
double Gumbel(uint64_t stream, int64_t id) {
  const uint64_t bits = Mix(stream + static_cast<uint64_t>(id) * 0x9e3779b97f4a7c15u);
  const double uniform = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;  // within (0, 1)
  return -std::log(-std::log(uniform));
}

// More than any Gumbel can give: -log(-log(1 - 2^-54)) = 37.4.
constexpr double kMostGumbel = 38;

}  // namespace

TokenChoice ChooseToken(const AnswerParams& answer, uint64_t seed, int32_t index, int64_t first_id,
                        absl::Span<const bf16> logits) {
  TokenChoice best;
  const int64_t count = std::clamp<int64_t>(answer.num_valid_tokens - first_id, 0, logits.size());
  const bool draw = answer.temperature > 0;
  const uint64_t stream = Mix(Mix(seed) + static_cast<uint64_t>(index));
  for (int64_t i = 0; i < count; ++i) {
    double score = ToFloat(logits[i]);
    if (draw) {
      score /= answer.temperature;
      // Two logarithms for each of 150,000 ids would cost more than the product that gave the logits.
      if (best.id >= 0 && score + kMostGumbel < best.score) continue;
      score += Gumbel(stream, first_id + i);
    }
    const TokenChoice candidate{static_cast<float>(score), static_cast<int32_t>(first_id + i)};
    if (!std::isnan(score) && candidate.IsBetterThan(best)) best = candidate;
  }
  return best;
}

}  // namespace lancet
