#include "worker/model/vision/vision_rotary.h"

#include <cmath>

#include "common/vision_config.h"

namespace lancet {

VisionRotaryTable::VisionRotaryTable(int64_t head_dim) {
  const int64_t count = head_dim / 4;
  for (int64_t i = 0; i < count; ++i) {
    const double exact = std::pow(kVisionRopeTheta, -static_cast<double>(i) / static_cast<double>(count));
    frequencies_.push_back(RoundToBf16(static_cast<float>(exact)));
  }
}

void VisionRotaryTable::Row(PatchPlace place, bf16* cos, bf16* sin) const {
  const size_t count = frequencies_.size();
  for (const int32_t position : {place.row, place.col}) {
    const float rounded = RoundToBf16(static_cast<float>(position));
    for (size_t i = 0; i < count; ++i) {
      const double angle = RoundToBf16(rounded * frequencies_[i]);
      *cos++ = ToBf16(static_cast<float>(std::cos(angle)));
      *sin++ = ToBf16(static_cast<float>(std::sin(angle)));
    }
  }
}

}  // namespace lancet
