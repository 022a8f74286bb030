// The decoder half of the autoencoder on a device, for single pictures: the graph of
// worker/model/vae/vae_decoder.h with bf16 maps. Upsampled and normalised maps exist as a whole.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/cuda_context.h"
#include "worker/collective/device/device_collective.h"
#include "worker/cuda/cuda_vae_layers.h"
#include "worker/model/vae/row_split.h"
#include "worker/model/vae/vae_decoder.h"

namespace lancet {

// Not thread-safe.
class CudaVaeDecoder final : public VaeDecoder {
 public:
  // `vae` was checked (common/vae_check.h) and may go away afterwards; `layers` outlives the decoder. Memory
  // for the largest picture is taken at once.
  static absl::StatusOr<std::unique_ptr<CudaVaeDecoder>> Load(const CudaContext& ctx, CudaVaeLayers& layers,
                                                              const StateDict& vae,
                                                              const VaeDecoderOptions& options);

  int64_t latent_channels() const override { return latent_channels_; }
  int64_t max_latents() const override { return options_.max_latents; }

  // As in the base class; uploads the latents and waits. The kernel context is not used.
  absl::StatusOr<std::vector<float>> Decode(const KernelContext& ctx, ConstMatrixView<float> latents,
                                            int64_t height, int64_t width) override;

  // Latents [height * width, 48] f32 on the device to a picture; waits.
  absl::StatusOr<RgbImage> DecodePicture(const float* latents, int64_t height, int64_t width);

  // Takes memory for the pictures of a group of so many ranks.
  absl::Status ReserveShared(int world_size);
  // The same picture by all ranks of a group, each its rows (worker/model/vae/row_split.h): every rank calls
  // it with the same latents. Nothing on other ranks than 0, which do not wait.
  absl::StatusOr<std::optional<RgbImage>> DecodeShared(const float* latents, int64_t height, int64_t width,
                                                       DeviceCollective& group);

 private:
  CudaVaeDecoder(const CudaContext& ctx, CudaVaeLayers& layers, VaeDecoderOptions options)
      : ctx_(ctx), layers_(layers), options_(std::move(options)) {}

  absl::Status Reserve();
  VaeRowSplit Split(int64_t height, int rank, int world_size) const;
  // Enqueues the decoder; the pixels of the split's own rows are in layers_.planes().
  absl::Status Run(const float* latents, int64_t height, int64_t width, const VaeRowSplit& split);

  const CudaContext& ctx_;
  CudaVaeLayers& layers_;
  VaeDecoderOptions options_;
  int64_t latent_channels_ = 0;
  int64_t middle_channels_ = 0;

  DeviceArray<float> mean_, inv_std_;
  std::optional<CudaConv2d> latent_in_, conv_in_, head_;
  CudaVaeResBlock middle_in_, middle_out_;
  CudaVaeAttention attention_;
  DeviceArray<float> head_norm_;
  std::vector<CudaVaeStage> stages_;
  DeviceArray<float> latents_;
  DeviceArray<uint8_t> gathered_;  // of a group: pixels of all ranks
};

}  // namespace lancet
