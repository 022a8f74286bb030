// The vision tower on a device: pictures to tokens of the trunk. Every rank of a group computes all of it, so
// that nothing is summed over ranks and all have the same bytes.
//
// Rounds as worker/model/vision/vision_encoder.h does, except that a Linear's bias and residual are added to
// its f32 sums before the one rounding.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "common/tensor_view.h"
#include "common/vision_config.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/vision_ops.h"
#include "worker/cuda/cuda_vision_weights.h"
#include "worker/model/vision/vision_layout.h"

namespace lancet {

// Not thread-safe. A picture's tokens depend on that picture alone, to the bit.
class CudaVisionEncoder {
 public:
  // `tower` may go away afterwards; `ctx` and `matmul` may not. CheckVisionTower has passed. Scratch for the
  // largest call is taken at once. InvalidArgument for max_patches outside 1..2^20; Unimplemented for a head
  // size other than 64, 80 or 128 or a width that is no multiple of 16.
  static absl::StatusOr<std::unique_ptr<CudaVisionEncoder>> Load(const CudaContext& ctx, MatmulPlans& matmul,
                                                                 const StateDict& tower,
                                                                 const VisionConfig& config,
                                                                 int64_t max_patches);

  const VisionConfig& config() const { return config_; }
  int64_t max_patches() const { return max_patches_; }
  // Tokens that a picture becomes; its sides are in whole cells (28 pixels).
  int64_t TokensOf(const RgbImage& picture) const;

  // One still picture, cropped to whole cells; waits.
  //   out: device, [TokensOf(picture), out_hidden_size], tokens row by row of the picture
  // InvalidArgument for shapes that disagree or more than max_patches.
  absl::Status EncodePicture(const RgbImage& picture, bf16* out);

  // The same for patches that are already cut: one or several clips, which do not see each other.
  //   patches: [sum of t h w, patch_values] in input order (vision_layout.h), on the host
  //   out: device, [patches / cell_patches, out_hidden_size], clip by clip, frame by frame, row by row
  absl::Status Encode(ConstMatrixView<bf16> patches, absl::Span<const VisionGrid> grids, bf16* out);

 private:
  // Segments that attend within themselves, as the kernel takes them.
  struct Segments {
    std::vector<cuda::AttentionBlock> host_blocks;
    std::vector<cuda::AttentionTile> host_tiles;
    DeviceArray<cuda::AttentionBlock> blocks;
    DeviceArray<cuda::AttentionTile> tiles;
  };

  CudaVisionEncoder(const CudaContext& ctx, MatmulPlans& matmul, const VisionConfig& config,
                    CudaVisionWeights weights, int64_t max_patches)
      : ctx_(ctx),
        matmul_(matmul),
        config_(config),
        weights_(std::move(weights)),
        max_patches_(max_patches) {}

  absl::Status Reserve();
  absl::Status UploadTables();
  // What a call with this layout needs to know; the host's copies stay until the next call.
  absl::Status Prepare(const VisionLayout& layout);
  absl::Status PrepareSegments(absl::Span<const int32_t> bounds, Segments& segments);
  // Enqueues everything from the cut patches on, then waits.
  absl::Status Run(int64_t patches, bf16* out);
  absl::Status Attend(const CudaVisionBlock& block, const Segments& segments);
  absl::Status Mlp(const CudaVisionBlock& block);
  absl::Status Norm(const DeviceArray<bf16>& weight);
  // y (+)= x w^T (+ bias).
  absl::Status Product(const CudaDense& dense, const bf16* x, int64_t rows, bool accumulate, bf16* y);

  const CudaContext& ctx_;
  MatmulPlans& matmul_;
  const VisionConfig config_;
  const CudaVisionWeights weights_;
  const int64_t max_patches_;

  int64_t rows_ = 0;             // of the current call: its patches, filled up to a multiple of kRowUnit
  DeviceArray<bf16> value_of_;   // [3, 256]
  DeviceArray<bf16> cos_, sin_;  // [max_patches / merge_size, head_dim / 4], by position
  DeviceArray<uint8_t> rgb_;     // the picture
  DeviceArray<cuda::PatchPosition> places_;  // [rows]
  DeviceArray<int32_t> cell_of_;             // [cells]: where an input cell stands in the tower's order
  Segments windows_, frames_;
  DeviceArray<bf16> patches_;  // [rows, patch_values]
  DeviceArray<bf16> stream_;   // [rows, hidden]
  DeviceArray<bf16> normed_;   // [rows, hidden]
  DeviceArray<bf16> qkv_;      // [rows, 3 hidden]
  DeviceArray<bf16> attn_;     // [rows, hidden]
  DeviceArray<bf16> gate_up_;  // [rows, 2 inner]
  DeviceArray<bf16> inner_;    // [rows, inner]
  DeviceArray<bf16> merged_;   // [cells, merged]
  DeviceArray<bf16> tokens_;   // [cells, out_hidden]

  std::vector<cuda::PatchPosition> host_places_;
  std::vector<int32_t> host_cell_of_;
};

}  // namespace lancet
