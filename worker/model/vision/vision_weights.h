// A rank's part of the vision tower's weights.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/state_dict.h"
#include "common/vision_config.h"
#include "kernels/gemm.h"
#include "kernels/kernel_context.h"
#include "worker/model/vision/vision_shard_plan.h"

namespace lancet {

// A Linear of which this rank may own nothing.
using VisionLinear = std::optional<DenseLinear>;

// Biases of products that are split by columns stand apart: they are added once, after the sum over ranks.
struct VisionBlockWeights {
  std::vector<bf16> norm1;      // [hidden]
  VisionLinear qkv;             // [3 * head_cols, hidden] with bias: q, k, v of the own heads
  VisionLinear proj;            // [hidden, head_cols]
  std::vector<bf16> proj_bias;  // [hidden]
  std::vector<bf16> norm2;      // [hidden]
  VisionLinear gate_up;         // [2 * inner, hidden] with bias: gate, then up
  VisionLinear down;            // [hidden, inner]
  std::vector<bf16> down_bias;  // [hidden]
};

struct VisionWeights {
  VisionLinear patch_embed;  // [hidden, patch_values], replicated, no bias
  std::vector<VisionBlockWeights> blocks;
  std::vector<bf16> merger_norm;      // [hidden]
  VisionLinear merger_in;             // [merged, merged_size] with bias
  VisionLinear merger_out;            // [out_hidden, merged]
  std::vector<bf16> merger_out_bias;  // [out_hidden]

  // Reads this rank's slices alone; F32 and F16 values are rounded to bf16 once. CheckVisionTower has passed.
  // Says of every tensor that it has been used.
  static absl::StatusOr<VisionWeights> Load(const KernelContext& ctx, const StateDict& tower,
                                            const VisionConfig& config, const VisionShardPlan& plan);
};

}  // namespace lancet
