// The weights of the autoencoder's halves: tensor names to convolutions and norms, with every shape checked
// against its neighbours. Only what a single frame needs is read.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/state_dict.h"
#include "kernels/conv.h"
#include "kernels/kernel_context.h"

namespace lancet {

// norm1, SiLU, conv1, norm2, SiLU, conv2; plus the input (through `shortcut` where the widths differ).
struct VaeResBlock {
  std::vector<float> norm1;        // [in]
  Conv2d conv1;                    // 3x3, in -> out
  std::vector<float> norm2;        // [out]
  Conv2d conv2;                    // 3x3, out -> out
  std::optional<Conv2d> shortcut;  // 1x1, in -> out

  int64_t in_channels() const { return conv1.shape().in_channels; }
  int64_t out_channels() const { return conv1.shape().out_channels; }
};

struct VaeAttention {
  std::vector<float> norm;  // [c]
  Conv2d qkv;               // 1x1, c -> 3 c
  Conv2d proj;              // 1x1, c -> c
};

struct VaeStage {
  std::vector<VaeResBlock> blocks;  // three in the decoder, two in the encoder
  // 3x3, after the x2 enlargement (decoder) or with stride 2 (encoder); none in the last stage.
  std::optional<Conv2d> resample;
  int64_t frame_factor = 1;  // temporal factor of the stage: it shapes the shortcut even for one frame

  int64_t in_channels() const { return blocks.front().in_channels(); }
  int64_t out_channels() const { return blocks.front().out_channels(); }
};

inline constexpr int kVaeStages = 4;

struct VaeDecoderWeights {
  Conv2d latent_in;  // top-level conv2: 1x1, z -> z
  Conv2d conv_in;    // 3x3, z -> c
  VaeResBlock middle_in;
  VaeAttention attention;
  VaeResBlock middle_out;
  std::vector<VaeStage> stages;  // kVaeStages
  std::vector<float> head_norm;
  Conv2d head;  // 3x3, to 12: 3 colours x 2 x 2 pixels

  int64_t latent_channels() const { return latent_in.shape().in_channels; }
  int64_t middle_channels() const { return conv_in.shape().out_channels; }
};

// NotFound or InvalidArgument names tensor, file, shape and what was expected. Gammas are rounded to bf16,
// as the reference rounds them.
absl::StatusOr<VaeDecoderWeights> LoadVaeDecoderWeights(const KernelContext& ctx, const StateDict& dict);

struct VaeEncoderWeights {
  Conv2d conv_in;                // 3x3, from 12 (3 colours x 2 x 2 pixels)
  std::vector<VaeStage> stages;  // kVaeStages
  VaeResBlock middle_in;
  VaeAttention attention;
  VaeResBlock middle_out;
  std::vector<float> head_norm;
  Conv2d head;         // 3x3, c -> 2 z
  Conv2d moments_out;  // top-level conv1: 1x1, 2 z -> 2 z; means first, then log-variances

  int64_t latent_channels() const { return moments_out.shape().out_channels / 2; }
  int64_t middle_channels() const { return head.shape().in_channels; }
};

// As above; the file must hold `encoder.*` and `conv1.*`. A time_conv is never read.
absl::StatusOr<VaeEncoderWeights> LoadVaeEncoderWeights(const KernelContext& ctx, const StateDict& dict);

}  // namespace lancet
