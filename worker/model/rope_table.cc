#include "worker/model/rope_table.h"

#include <cmath>

namespace lancet {

RopeTable::RopeTable(const ModelConfig& config) : section_(config.mrope_section) {
  const int64_t n = config.head_dim / 2;
  for (int64_t f = 0; f < n; ++f) {
    const double exact = std::pow(config.rope_theta, -static_cast<double>(f) / static_cast<double>(n));
    inverse_frequency_.push_back(RoundToBf16(static_cast<float>(exact)));
  }
}

void RopeTable::Row(int32_t t, int32_t h, int32_t w, bf16* cos, bf16* sin) const {
  const int64_t n = num_frequencies();
  for (int64_t f = 0; f < n; ++f) {
    const int32_t position = f < section_[0] ? t : f < section_[0] + section_[1] ? h : w;
    // The angle is an f32 product; its cosine is taken exactly and rounded once.
    const float angle = static_cast<float>(position) * inverse_frequency_[f];
    cos[f] = ToBf16(static_cast<float>(std::cos(static_cast<double>(angle))));
    sin[f] = ToBf16(static_cast<float>(std::sin(static_cast<double>(angle))));
  }
}

}  // namespace lancet
