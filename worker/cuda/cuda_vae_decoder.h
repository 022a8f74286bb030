// The decoder half of the autoencoder on a device, for single pictures: the graph of
// worker/model/vae/vae_decoder.h with bf16 maps. Upsampled and normalised maps exist as a whole.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/matmul.h"
#include "worker/model/vae/vae_decoder.h"

namespace lancet {

// Not thread-safe.
class CudaVaeDecoder final : public VaeDecoder {
 public:
  // `vae` was checked (common/vae_check.h) and may go away afterwards. Memory for the largest picture is
  // taken at once.
  static absl::StatusOr<std::unique_ptr<CudaVaeDecoder>> Load(const CudaContext& ctx, MatmulPlans& matmul,
                                                              const StateDict& vae,
                                                              const VaeDecoderOptions& options);

  int64_t latent_channels() const override { return latent_channels_; }
  int64_t max_latents() const override { return options_.max_latents; }

  // As in the base class; uploads the latents and waits. The kernel context is not used.
  absl::StatusOr<std::vector<float>> Decode(const KernelContext& ctx, ConstMatrixView<float> latents,
                                            int64_t height, int64_t width) override;

  // Latents [height * width, 48] f32 on the device to a picture; waits.
  absl::StatusOr<RgbImage> DecodePicture(const float* latents, int64_t height, int64_t width);

 private:
  struct ResBlock {
    DeviceArray<float> norm1, norm2;
    std::optional<CudaConv2d> conv1, conv2, shortcut;
    int64_t in() const { return conv1->shape().in_channels; }
    int64_t out() const { return conv1->shape().out_channels; }
  };
  struct Stage {
    std::vector<ResBlock> blocks;
    std::optional<CudaConv2d> resample;
    int64_t frame_factor = 1;
  };
  class Loader;

  CudaVaeDecoder(const CudaContext& ctx, MatmulPlans& matmul, VaeDecoderOptions options)
      : ctx_(ctx), matmul_(matmul), options_(std::move(options)) {}

  absl::Status Reserve();
  // Enqueues the whole decoder; the pixels are in planes_.
  absl::Status Run(const float* latents, int64_t height, int64_t width);
  // y = x + block(x). y may be x if the widths agree; uses kNormed and kInner.
  absl::Status Residual(ResBlock& block, const bf16* x, int64_t height, int64_t width, bf16* y);
  // x += proj(attention(norm(x))).
  absl::Status Attend(int64_t height, int64_t width, bf16* x);

  const CudaContext& ctx_;
  MatmulPlans& matmul_;
  const VaeDecoderOptions options_;
  int64_t latent_channels_ = 0;
  int64_t middle_channels_ = 0;

  DeviceArray<float> mean_, inv_std_;
  std::optional<CudaConv2d> latent_in_, conv_in_, qkv_, proj_, head_;
  ResBlock middle_in_, middle_out_;
  DeviceArray<float> attention_norm_, head_norm_;
  std::vector<Stage> stages_;

  // Maps: a stage's input, its residual stream, inner maps, and what a convolution reads.
  static constexpr int kInput = 0;
  static constexpr int kStream = 1;
  static constexpr int kInner = 2;
  static constexpr int kNormed = 3;
  DeviceArray<bf16> maps_[4];
  DeviceArray<float> scores_;        // [pixels, pixels] of the middle block
  DeviceArray<bf16> probabilities_;  // likewise
  DeviceArray<bf16> values_;         // [channels, pixels]
  DeviceArray<float> planes_;        // [3, 16 h, 16 w]
  DeviceArray<uint8_t> rgb_;
  DeviceArray<float> latents_;
};

}  // namespace lancet
