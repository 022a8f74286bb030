// The encoder half of the Wan2.2 autoencoder, for single pictures: RGB pixels to 48-channel latents.
//
// One frame reads only the last temporal tap of each 3-D kernel and no `time_conv`, as in the decoder; files
// that hold nothing else serve just as well. Channel widths come from the tensors; the topology (2 x 2
// patches, four stages of two residual blocks, halving in the first three, a middle block) is fixed.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "kernels/kernel_context.h"

namespace lancet {

struct VaeEncoderOptions {
  int64_t max_latents = 4096;  // largest picture, in latents; its activations are reserved at load
  // Statistics of the latents, one entry per channel: normalised = (mu - mean) * inv_std. Empty: Wan2.2's 48.
  std::vector<float> mean = {};
  std::vector<float> inv_std = {};
};

// What the network gives for each latent, not normalised: [height / 16 * width / 16, channels] each, row by
// row.
struct VaeMoments {
  std::vector<float> mean;
  std::vector<float> log_variance;
};

// One caller at a time, on the engine's thread. Memory: weights, and about 95 activations of 2 bytes per
// pixel of the largest picture: 112 MB at 768 x 768, 199 MB at 1024 x 1024; pages are touched when first
// needed. A call adds 12 bytes per pixel when it gets an RgbImage.
class VaeEncoder {
 public:
  virtual ~VaeEncoder() = default;

  // `vae` may go away afterwards. NotFound or InvalidArgument names tensor, file and what was expected; a
  // file without an encoder is NotFound.
  static absl::StatusOr<std::unique_ptr<VaeEncoder>> Load(const KernelContext& ctx, const StateDict& vae,
                                                          const VaeEncoderOptions& options = {});

  virtual int64_t latent_channels() const = 0;
  virtual int64_t max_latents() const = 0;

  //   pixels: planes [3, height, width] in [-1, 1]; height and width multiples of 16
  // InvalidArgument for sides that are not, shapes that disagree or more than max_latents.
  virtual absl::StatusOr<VaeMoments> Moments(const KernelContext& ctx, absl::Span<const float> pixels,
                                             int64_t height, int64_t width) = 0;

  // Normalised latents [height / 16 * width / 16, channels], row by row: (mu - mean) * inv_std, rounded to
  // bf16 after each step, plus noise * exp(log_variance / 2) in f32 (the noise is
  // not scaled by inv_std: so does the reference).
  //   noise: one standard normal number per value of the result; empty for the posterior's mean
  // Errors as Moments, and InvalidArgument for noise of another size.
  absl::StatusOr<std::vector<float>> Encode(const KernelContext& ctx, absl::Span<const float> pixels,
                                            int64_t height, int64_t width,
                                            absl::Span<const float> noise = {});
  absl::StatusOr<std::vector<float>> Encode(const KernelContext& ctx, const RgbImage& image,
                                            absl::Span<const float> noise = {});

 protected:
  explicit VaeEncoder(VaeEncoderOptions options);

  const VaeEncoderOptions options_;
};

}  // namespace lancet
