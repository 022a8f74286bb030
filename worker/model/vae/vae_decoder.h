// The decoder half of the Wan2.2 autoencoder, for single pictures: 48-channel latents to RGB pixels.
//
// One frame reads only the last temporal tap of each 3-D kernel and no `time_conv`, so that is all that is
// loaded; files that hold nothing else (temporal extent 1) serve just as well. Channel widths come from the
// tensors; the topology (a middle block, four stages of three residual blocks, x2 in the first three, x2
// patches at the end) is fixed.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

struct VaeDecoderOptions {
  int64_t max_latents = 4096;  // largest picture, in latents; its activations are reserved at load
  // Statistics of the latents, one entry per channel: z = normalised / inv_std + mean. Empty: Wan2.2's 48.
  std::vector<float> mean = {};
  std::vector<float> inv_std = {};
  bool clamp = true;  // false: pixels as the last convolution gives them, for conformance tests
};

// One caller at a time, on the engine's thread. Memory: weights, and about 256 activations of 2 bytes per
// pixel of the largest picture; pages are touched when first needed.
class VaeDecoder {
 public:
  virtual ~VaeDecoder() = default;

  // `vae` may go away afterwards. NotFound or InvalidArgument names tensor, file and what was expected.
  static absl::StatusOr<std::unique_ptr<VaeDecoder>> Load(const KernelContext& ctx, const StateDict& vae,
                                                          const VaeDecoderOptions& options = {});

  virtual int64_t latent_channels() const = 0;
  virtual int64_t max_latents() const = 0;

  // Pixels in [-1, 1], planes [3, 16 * height, 16 * width].
  //   latents: [height * width, channels], normalised, row by row; height and width in latents
  // InvalidArgument for shapes that disagree or more than max_latents.
  virtual absl::StatusOr<std::vector<float>> Decode(const KernelContext& ctx, ConstMatrixView<float> latents,
                                                    int64_t height, int64_t width) = 0;

  // The same as an 8-bit picture.
  absl::StatusOr<RgbImage> DecodeToImage(const KernelContext& ctx, ConstMatrixView<float> latents,
                                         int64_t height, int64_t width);
};

}  // namespace lancet
