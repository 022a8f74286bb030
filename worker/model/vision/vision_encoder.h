// The vision tower of one rank: pictures to tokens of the trunk, split over the ranks of a group.
//
//   const auto encoder = VisionEncoder::Load(ctx, *checkpoint.vision(), *checkpoint.vision_config(), rank,
//                                            world_size, {});
//   std::vector<bf16> tokens(encoder->TokensOf(picture) * hidden);
//   encoder->EncodePicture(picture, collective, timeout, {tokens.data(), count, hidden});
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "common/tensor_view.h"
#include "common/vision_config.h"
#include "kernels/kernel_context.h"
#include "worker/collective/collective.h"
#include "worker/model/vision/vision_layout.h"
#include "worker/model/vision/vision_rotary.h"
#include "worker/model/vision/vision_shard_plan.h"
#include "worker/model/vision/vision_weights.h"

namespace lancet {

struct VisionEncoderOptions {
  // Largest call, in patches; its activations are allocated at load. 2304 holds any still picture of the
  // release's presets (48 x 48).
  int64_t max_patches = 2304;
};

// One caller at a time, on the engine's thread. Rounds where the reference does: a bf16 stream, f32 inside
// norms, rotation and softmax, f32 sums of products that are split over ranks, with bias and one rounding
// after the sum.
//
// Every rank of a group makes the same calls with the same sizes. A call takes no part of another request
// along, so its bytes depend on its own picture and the number of ranks alone.
class VisionEncoder {
 public:
  // Reads this rank's slices; `tower` may go away afterwards, `ctx` may not. CheckVisionTower has passed.
  // InvalidArgument for a rank outside the world or max_patches outside 1..2^20.
  static absl::StatusOr<std::unique_ptr<VisionEncoder>> Load(const KernelContext& ctx, const StateDict& tower,
                                                             const VisionConfig& config, int rank,
                                                             int world_size,
                                                             const VisionEncoderOptions& options);

  const VisionConfig& config() const { return config_; }
  int64_t max_patches() const { return max_patches_; }
  // Floats of the largest all-reduce: the capacity that a collective must have. The same on every rank.
  int64_t reduce_capacity() const;
  // Tokens that a picture becomes; its sides are in whole cells (28 pixels).
  int64_t TokensOf(const RgbImage& picture) const;

  // One still picture, cropped to whole cells.
  //   out: [TokensOf(picture), out_hidden_size], tokens row by row of the picture
  // Collectives, each waiting until now + timeout: 2 a block and 1 for the merger, for every RowsAtOnce()
  // patches. InvalidArgument for shapes that disagree or more than max_patches.
  absl::Status EncodePicture(const RgbImage& picture, Collective& collective, absl::Duration timeout,
                             MatrixView<bf16> out);

  // The same for patches that are already cut: one or several clips, which do not see each other.
  //   patches: [sum of t h w, patch_values] in input order (vision_layout.h)
  //   out: [patches / cell_patches, out_hidden_size], clip by clip, frame by frame, row by row
  absl::Status Encode(ConstMatrixView<bf16> patches, absl::Span<const VisionGrid> grids,
                      Collective& collective, absl::Duration timeout, MatrixView<bf16> out);

 private:
  // Writes a patch, given by its number in input order.
  using PatchSource = absl::FunctionRef<void(int64_t index, bf16* out)>;
  // What the calls of one encoding share.
  struct Run {
    const VisionLayout& layout;
    Collective& collective;
    absl::Duration timeout;
  };

  VisionEncoder(const KernelContext& ctx, const VisionConfig& config, const VisionShardPlan& plan,
                VisionWeights weights, int64_t max_patches);

  // Patches that go through the Linears at a time: bounds scratch and the size of an all-reduce. In whole
  // cells, and the same on every rank.
  int64_t RowsAtOnce() const;
  MatrixView<bf16> Stream(int64_t begin, int64_t count);
  absl::Status EncodeFrom(PatchSource source, absl::Span<const VisionGrid> grids, Collective& collective,
                          absl::Duration timeout, MatrixView<bf16> out);
  absl::Status Embed(const Run& run, PatchSource source);
  absl::Status Attend(const Run& run, int64_t block);
  absl::Status AttendSegments(const Run& run, absl::Span<const int32_t> bounds);
  absl::Status Mlp(const Run& run, int64_t block);
  absl::Status Merge(const Run& run, MatrixView<bf16> out);
  // The sum over ranks of x * weight^T: [x.rows, weight.rows()] in f32.
  absl::StatusOr<ConstMatrixView<float>> SumOverRanks(const Run& run, const Bf16Weights& weight,
                                                      ConstMatrixView<bf16> x);

  const KernelContext& ctx_;
  const VisionConfig config_;
  const VisionShardPlan plan_;
  const VisionRotaryTable rotary_;
  const VisionWeights weights_;
  const int64_t max_patches_;
  const std::vector<int32_t> kv_head_of_;   // each head has its own keys: 0, 1, ...
  const std::vector<int32_t> row_numbers_;  // 0, 1, ...: segments are runs of it

  std::vector<bf16> patches_;    // [rows at once, patch_values]
  std::vector<bf16> stream_;     // [max_patches, hidden]
  std::vector<bf16> normed_;     // [rows at once, hidden]
  std::vector<bf16> qkv_;        // [max_patches, 3 head_cols]
  std::vector<bf16> attn_;       // [max_patches, head_cols]
  std::vector<bf16> gate_up_;    // [rows at once, 2 inner]
  std::vector<bf16> inner_;      // [rows at once, inner]
  std::vector<bf16> merged_;     // [cells at once, merged]
  std::vector<bf16> tokens_;     // [cells at once, out_hidden]
  std::vector<bf16> cos_, sin_;  // [max_patches, head_dim / 2]
};

}  // namespace lancet
