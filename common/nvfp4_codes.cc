#include "common/nvfp4_codes.h"

#include <algorithm>

#include "common/model_config.h"

namespace lancet {

CodeBlockCounts CountCodeBlocks(const TensorView& codes, const TensorView& scales, int64_t rows) {
  // The published packer floors a block's largest weight at 1e-8, which makes the scale 1.67e-9: below it
  // codes say nothing.
  constexpr float kDegenerateScale = 2e-9f;
  constexpr int64_t kBlockBytes = kNvfp4Block / 2;
  CodeBlockCounts counts;
  const int64_t blocks = std::min(rows, scales.shape[0]) * scales.shape[1];
  for (int64_t block = 0; block < blocks; ++block) {
    if (ToFloat(scales.as<bf16>()[block]) <= kDegenerateScale) continue;
    const uint8_t* bytes = codes.as<uint8_t>() + block * kBlockBytes;
    uint8_t largest = 0;
    for (int64_t i = 0; i < kBlockBytes; ++i) {
      largest =
          std::max({largest, static_cast<uint8_t>(bytes[i] & 7), static_cast<uint8_t>(bytes[i] >> 4 & 7)});
    }
    ++counts.counted;
    counts.zeros += largest == 0;
    counts.with_largest_code += largest == 7;
    counts.with_next_code += largest == 6;
  }
  return counts;
}

}  // namespace lancet
