// Rotary angles of the vision tower: two dimensions, and bf16 throughout.
#pragma once

#include <cstdint>
#include <vector>

#include "common/bf16.h"
#include "worker/model/vision/vision_layout.h"

namespace lancet {

// A head of head_dim has head_dim / 2 angles: row * f_i, then column * f_i, f_i = 10000^(-i / (head_dim /
// 4)). The model was trained and is run with bf16 buffers, so frequency, position, angle, cosine and sine are
// each rounded to bf16; exact tables would be another model.
class VisionRotaryTable {
 public:
  // head_dim is a multiple of 4.
  explicit VisionRotaryTable(int64_t head_dim);

  int64_t num_angles() const { return 2 * static_cast<int64_t>(frequencies_.size()); }
  const std::vector<float>& frequencies() const { return frequencies_; }
  // cos, sin: [num_angles()].
  void Row(PatchPlace place, bf16* cos, bf16* sin) const;

 private:
  std::vector<float> frequencies_;  // bf16 values
};

}  // namespace lancet
