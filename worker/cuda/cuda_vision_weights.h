// The vision tower's weights on a device, all of them on every rank.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/state_dict.h"
#include "common/vision_config.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "worker/cuda/cuda_trunk_weights.h"

namespace lancet {

// The MLP's inner width is filled up with zeros to a multiple of 16 (3420 to 3424), which changes no result:
// rows of 16 bytes are what the products want.
struct CudaVisionBlock {
  DeviceArray<bf16> norm1, norm2;  // [hidden]
  CudaDense qkv;                   // [3 hidden, hidden]
  CudaDense proj;                  // [hidden, hidden]
  CudaDense gate_up;               // [2 inner, hidden]: gate, then up
  CudaDense down;                  // [hidden, inner]
};

struct CudaVisionWeights {
  CudaDense patch_embed;  // [hidden, patch_values], no bias
  std::vector<CudaVisionBlock> blocks;
  DeviceArray<bf16> merger_norm;  // [hidden]
  CudaDense merger_in;            // [merged, merged]
  CudaDense merger_out;           // [out_hidden, merged]
  int64_t inner = 0;              // filled up

  // F32 and F16 values are rounded to bf16 once. CheckVisionTower has passed. Says of every tensor that it
  // has been used.
  static absl::StatusOr<CudaVisionWeights> Load(const CudaContext& ctx, const StateDict& tower,
                                                const VisionConfig& config);
};

}  // namespace lancet
