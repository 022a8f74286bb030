// A rank's part of the vision tower's weights.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/state_dict.h"
#include "common/vision_config.h"
#include "kernels/bf16_gemm.h"
#include "kernels/kernel_context.h"
#include "worker/model/vision/vision_shard_plan.h"

namespace lancet {

// A rank that owns nothing of a Linear has a weight without rows, or without columns. Biases of products that
// are split by columns stand apart: they are added once, after the sum over ranks.
struct VisionBlockWeights {
  std::vector<bf16> norm1;      // [hidden]
  Bf16Linear qkv;               // [3 * head_cols, hidden] with bias: q, k, v of the own heads
  Bf16Weights proj;             // [hidden, head_cols]
  std::vector<bf16> proj_bias;  // [hidden]
  std::vector<bf16> norm2;      // [hidden]
  Bf16Linear gate_up;           // [2 * inner, hidden] with bias: gate, then up
  Bf16Weights down;             // [hidden, inner]
  std::vector<bf16> down_bias;  // [hidden]
};

struct VisionWeights {
  Bf16Weights patch_embed;  // [hidden, patch_values], replicated, no bias
  std::vector<VisionBlockWeights> blocks;
  std::vector<bf16> merger_norm;      // [hidden]
  Bf16Linear merger_in;               // [merged, merged_size] with bias
  Bf16Weights merger_out;             // [out_hidden, merged]
  std::vector<bf16> merger_out_bias;  // [out_hidden]

  // Reads this rank's slices alone; F32 and F16 values are rounded to bf16 once. CheckVisionTower has passed.
  // Says of every tensor that it has been used.
  static absl::StatusOr<VisionWeights> Load(const KernelContext& ctx, const StateDict& tower,
                                            const VisionConfig& config, const VisionShardPlan& plan);
};

}  // namespace lancet
