// Statistics of NVFP4 block scales and codes.
//
// The E4M3 scales of published checkpoints have no factor per tensor, so that those of language-model weights
// lie in E4M3's subnormal range, where they are coarse or zero. That is why arithmetic uses the bf16 scales;
// the counts here say how much it would cost not to.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/nvfp4_codes.h"
#include "common/state_dict.h"

namespace lancet {

struct ScaleStatistics {
  int64_t linears = 0;
  int64_t blocks = 0;
  // Of the E4M3 scales.
  int64_t e4m3_subnormal = 0;
  int64_t e4m3_zero = 0;
  int64_t e4m3_nan = 0;
  int64_t e4m3_negative = 0;
  int64_t e4m3_off = 0;  // more than one E4M3 step from the bf16 scale
  // Of the bf16 scales. Minimum, median and maximum are over the finite positive ones.
  int64_t bf16_invalid = 0;  // zero, negative or not finite
  float bf16_min = 0;
  float bf16_median = 0;
  float bf16_max = 0;
  CodeBlockCounts codes;
};

// Over every linear of `dict` that has both kinds of scales; codes over the first `code_rows` rows of each.
// `factors`: of the E4M3 scales, by the linear's base name; 1 for those that it lacks.
// All zeros when there is none. InvalidArgument when the tensors of a linear do not fit together.
absl::StatusOr<ScaleStatistics> CollectScaleStatistics(
    const StateDict& dict, int64_t code_rows, const absl::flat_hash_map<std::string, float>& factors = {});

}  // namespace lancet
