// Cosines and sines of M-RoPE, rounded to bf16 like the frequencies behind them: the public code casts both,
// and full-precision ones put a picture's rows at visibly wrong angles (1.2 rad at position 1009).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/bf16.h"
#include "common/model_config.h"

namespace lancet {

class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  // head_dim / 2.
  int64_t num_frequencies() const { return static_cast<int64_t>(inverse_frequency_.size()); }

  // bf16 values.
  const std::vector<float>& inverse_frequencies() const { return inverse_frequency_; }

  // Writes num_frequencies() cosines and sines for one token at (t, h, w). Frequency f turns with axis t for
  // the first mrope_section[0] frequencies, then h, then w; angle = f32(position) * f32(bf16(theta^(-f /
  // num_frequencies))).
  void Row(int32_t t, int32_t h, int32_t w, bf16* cos, bf16* sin) const;

 private:
  std::vector<float> inverse_frequency_;  // bf16 values
  std::array<int, 3> section_;
};

}  // namespace lancet
