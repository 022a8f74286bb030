#include "worker/model/vae/vae_weights.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/status_macros.h"
#include "worker/model/vae/vae_tensors.h"

namespace lancet {
namespace {

constexpr int64_t kFoldedChannels = 12;  // 3 colours x 2 x 2 pixels

class Loader {
 public:
  Loader(const KernelContext& ctx, const StateDict& dict) : ctx_(ctx), dict_(dict) {}

  // `in` and `out` are expected channels, 0 for any.
  absl::StatusOr<Conv2d> Conv(const std::string& prefix, int64_t kernel, int64_t in, int64_t out,
                              int64_t stride = 1) const {
    LANCET_ASSIGN_OR_RETURN(const VaeConvTensors tensors, ReadVaeConv(dict_, prefix, kernel, in, out));
    return Conv2d::Create(ctx_, {tensors.out_channels, tensors.in_channels, kernel, stride}, tensors.weight,
                          tensors.bias);
  }

  absl::StatusOr<std::vector<float>> Gamma(const std::string& name, int64_t channels) const {
    LANCET_ASSIGN_OR_RETURN(std::vector<float> gamma, ReadVaeVector(dict_, name, channels));
    for (float& g : gamma) g = RoundToBf16(g);
    return gamma;
  }

  // `out` 0: any width.
  absl::StatusOr<VaeResBlock> ResBlock(const std::string& prefix, int64_t in, int64_t out) const {
    LANCET_ASSIGN_OR_RETURN(std::vector<float> norm1, Gamma(prefix + ".residual.0.gamma", in));
    LANCET_ASSIGN_OR_RETURN(Conv2d conv1, Conv(prefix + ".residual.2", 3, in, out));
    out = conv1.shape().out_channels;
    LANCET_ASSIGN_OR_RETURN(std::vector<float> norm2, Gamma(prefix + ".residual.3.gamma", out));
    LANCET_ASSIGN_OR_RETURN(Conv2d conv2, Conv(prefix + ".residual.6", 3, out, out));
    std::optional<Conv2d> shortcut;
    if (in != out) {
      LANCET_ASSIGN_OR_RETURN(shortcut, Conv(prefix + ".shortcut", 1, in, out));
    }
    return VaeResBlock{std::move(norm1), std::move(conv1), std::move(norm2), std::move(conv2),
                       std::move(shortcut)};
  }

  absl::StatusOr<VaeAttention> Attention(const std::string& prefix, int64_t channels) const {
    LANCET_ASSIGN_OR_RETURN(std::vector<float> norm, Gamma(prefix + ".norm.gamma", channels));
    LANCET_ASSIGN_OR_RETURN(Conv2d qkv, Conv(prefix + ".to_qkv", 1, channels, 3 * channels));
    LANCET_ASSIGN_OR_RETURN(Conv2d proj, Conv(prefix + ".proj", 1, channels, channels));
    return VaeAttention{std::move(norm), std::move(qkv), std::move(proj)};
  }

  absl::StatusOr<VaeStage> DecoderStage(int index, int64_t in) const {
    const std::string prefix = absl::StrCat("decoder.upsamples.", index, ".upsamples.");
    VaeStage stage;
    stage.frame_factor = index < 2 ? 2 : 1;
    int64_t width = in;
    for (int b = 0; b < 3; ++b) {
      // The first block sets the stage's width.
      LANCET_ASSIGN_OR_RETURN(VaeResBlock block,
                              ResBlock(absl::StrCat(prefix, b), width, b == 0 ? 0 : width));
      width = block.out_channels();
      stage.blocks.push_back(std::move(block));
    }
    if (index + 1 < kVaeStages) {
      LANCET_ASSIGN_OR_RETURN(stage.resample, Conv(prefix + "3.resample.1", 3, width, width));
      if (4 * stage.frame_factor * width % in != 0) {
        return absl::InvalidArgumentError(absl::StrCat(dict_.path(), ": decoder stage ", index, " goes from ",
                                                       in, " to ", width, " channels; its shortcut needs ",
                                                       4 * stage.frame_factor,
                                                       " times the latter to be a multiple of the former"));
      }
    }
    return stage;
  }

  // Only stages 1 and 2 may change the width: the first works in place, the last adds its input to its
  // output.
  absl::StatusOr<VaeStage> EncoderStage(int index, int64_t in) const {
    const std::string prefix = absl::StrCat("encoder.downsamples.", index, ".downsamples.");
    const bool widens = index == 1 || index == 2;
    VaeStage stage;
    stage.frame_factor = widens ? 2 : 1;
    int64_t width = in;
    for (int b = 0; b < 2; ++b) {
      LANCET_ASSIGN_OR_RETURN(VaeResBlock block,
                              ResBlock(absl::StrCat(prefix, b), width, b == 0 && widens ? 0 : width));
      width = block.out_channels();
      stage.blocks.push_back(std::move(block));
    }
    if (index + 1 < kVaeStages) {
      LANCET_ASSIGN_OR_RETURN(stage.resample, Conv(prefix + "2.resample.1", 3, width, width, 2));
      if (4 * stage.frame_factor * in % width != 0) {
        return absl::InvalidArgumentError(absl::StrCat(dict_.path(), ": encoder stage ", index, " goes from ",
                                                       in, " to ", width, " channels; its shortcut needs ",
                                                       4 * stage.frame_factor,
                                                       " times the former to be a multiple of the latter"));
      }
    }
    return stage;
  }

 private:
  const KernelContext& ctx_;
  const StateDict& dict_;
};

}  // namespace

absl::StatusOr<VaeDecoderWeights> LoadVaeDecoderWeights(const KernelContext& ctx, const StateDict& dict) {
  const Loader loader(ctx, dict);
  LANCET_ASSIGN_OR_RETURN(Conv2d conv_in, loader.Conv("decoder.conv1", 3, 0, 0));
  const int64_t latent = conv_in.shape().in_channels;
  const int64_t middle = conv_in.shape().out_channels;
  LANCET_ASSIGN_OR_RETURN(Conv2d latent_in, loader.Conv("conv2", 1, latent, latent));
  LANCET_ASSIGN_OR_RETURN(VaeResBlock middle_in, loader.ResBlock("decoder.middle.0", middle, middle));
  LANCET_ASSIGN_OR_RETURN(VaeAttention attention, loader.Attention("decoder.middle.1", middle));
  LANCET_ASSIGN_OR_RETURN(VaeResBlock middle_out, loader.ResBlock("decoder.middle.2", middle, middle));
  std::vector<VaeStage> stages;
  int64_t width = middle;
  for (int i = 0; i < kVaeStages; ++i) {
    LANCET_ASSIGN_OR_RETURN(VaeStage stage, loader.DecoderStage(i, width));
    width = stage.out_channels();
    stages.push_back(std::move(stage));
  }
  LANCET_ASSIGN_OR_RETURN(std::vector<float> head_norm, loader.Gamma("decoder.head.0.gamma", width));
  LANCET_ASSIGN_OR_RETURN(Conv2d head, loader.Conv("decoder.head.2", 3, width, kFoldedChannels));
  return VaeDecoderWeights{std::move(latent_in), std::move(conv_in),    std::move(middle_in),
                           std::move(attention), std::move(middle_out), std::move(stages),
                           std::move(head_norm), std::move(head)};
}

absl::StatusOr<VaeEncoderWeights> LoadVaeEncoderWeights(const KernelContext& ctx, const StateDict& dict) {
  const Loader loader(ctx, dict);
  LANCET_ASSIGN_OR_RETURN(Conv2d conv_in, loader.Conv("encoder.conv1", 3, kFoldedChannels, 0));
  std::vector<VaeStage> stages;
  int64_t width = conv_in.shape().out_channels;
  for (int i = 0; i < kVaeStages; ++i) {
    LANCET_ASSIGN_OR_RETURN(VaeStage stage, loader.EncoderStage(i, width));
    width = stage.out_channels();
    stages.push_back(std::move(stage));
  }
  LANCET_ASSIGN_OR_RETURN(VaeResBlock middle_in, loader.ResBlock("encoder.middle.0", width, width));
  LANCET_ASSIGN_OR_RETURN(VaeAttention attention, loader.Attention("encoder.middle.1", width));
  LANCET_ASSIGN_OR_RETURN(VaeResBlock middle_out, loader.ResBlock("encoder.middle.2", width, width));
  LANCET_ASSIGN_OR_RETURN(std::vector<float> head_norm, loader.Gamma("encoder.head.0.gamma", width));
  LANCET_ASSIGN_OR_RETURN(Conv2d head, loader.Conv("encoder.head.2", 3, width, 0));
  const int64_t moments = head.shape().out_channels;
  if (moments % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(dict.path(), ": tensor \"encoder.head.2.weight\" has ",
                                                   moments,
                                                   " output channels; expected as many means as variances"));
  }
  LANCET_ASSIGN_OR_RETURN(Conv2d moments_out, loader.Conv("conv1", 1, moments, moments));
  return VaeEncoderWeights{std::move(conv_in),   std::move(stages),     std::move(middle_in),
                           std::move(attention), std::move(middle_out), std::move(head_norm),
                           std::move(head),      std::move(moments_out)};
}

}  // namespace lancet
