// The encoder half of the autoencoder on a device, for single pictures: the graph of
// worker/model/vae/vae_encoder.h with bf16 maps.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/cuda_context.h"
#include "worker/cuda/cuda_vae_layers.h"
#include "worker/model/vae/vae_encoder.h"

namespace lancet {

// Not thread-safe. A picture's latents depend on its pixels and its noise alone.
class CudaVaeEncoder final : public VaeEncoder {
 public:
  // `vae` was checked (common/vae_check.h) and may go away afterwards; `layers` outlives the encoder. Memory
  // for the largest picture is taken at once. Errors as those of VaeEncoder::Load.
  static absl::StatusOr<std::unique_ptr<CudaVaeEncoder>> Load(const CudaContext& ctx, CudaVaeLayers& layers,
                                                              const StateDict& vae,
                                                              const VaeEncoderOptions& options);

  int64_t latent_channels() const override { return latent_channels_; }
  int64_t max_latents() const override { return options_.max_latents; }

  // As in the base class; uploads the pixels and waits. The kernel context is not used.
  absl::StatusOr<VaeMoments> Moments(const KernelContext& ctx, absl::Span<const float> pixels, int64_t height,
                                     int64_t width) override;

  // Normalised latents, as VaeEncoder::Encode gives them but rounded to bf16, into device memory; waits.
  //   image: sides in whole latents (16 pixels)
  //   noise: [latents * channels] standard normal numbers, or empty   latents: [latents, channels]
  // InvalidArgument as in the base class.
  absl::Status EncodePicture(const RgbImage& image, absl::Span<const float> noise, bf16* latents);

 private:
  CudaVaeEncoder(const CudaContext& ctx, CudaVaeLayers& layers, VaeEncoderOptions options)
      : VaeEncoder(std::move(options)), ctx_(ctx), layers_(layers) {}

  absl::Status Reserve();
  absl::Status CheckSides(int64_t height, int64_t width, size_t values) const;
  // Enqueues the encoder over the pixels in layers_.planes(); the moments are in moments().
  absl::Status Run(int64_t height, int64_t width);
  bf16* moments() const { return layers_.map(CudaVaeLayers::kInput); }  // [latents, 2 channels]

  const CudaContext& ctx_;
  CudaVaeLayers& layers_;
  int64_t latent_channels_ = 0;
  int64_t middle_channels_ = 0;

  DeviceArray<float> mean_, inv_std_;
  std::optional<CudaConv2d> conv_in_, head_, moments_out_;
  std::vector<CudaVaeStage> stages_;
  CudaVaeResBlock middle_in_, middle_out_;
  CudaVaeAttention attention_;
  DeviceArray<float> head_norm_;
  DeviceArray<float> noise_;  // [max_latents, channels]
};

}  // namespace lancet
