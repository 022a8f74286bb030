// Fast previews: every latent becomes one pixel by a linear map of its 48 channels, and the tools to find
// that map for a given autoencoder.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model_config.h"
#include "common/rgb_image.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"
#include "worker/model/vae/vae_decoder.h"

namespace lancet {

// The picture of height x width pixels, one per latent. latents: [height * width, 48], normalised.
absl::StatusOr<RgbImage> LatentsToRgb(const LatentRgb& map, ConstMatrixView<float> latents, int64_t height,
                                      int64_t width);

// How well a map reproduces colours [n, 3] from latents [n, 48].
struct LatentRgbQuality {
  double r2 = 0;    // 1 - residual variance / variance, over the three colours together
  double rmse = 0;  // of a colour in [-1, 1]
};

// InvalidArgument if shapes disagree, there are no rows, or a value isn't finite.
absl::StatusOr<LatentRgbQuality> MeasureLatentRgb(const LatentRgb& map, ConstMatrixView<float> latents,
                                                  ConstMatrixView<float> colours);

struct LatentRgbFit {
  LatentRgb map;
  LatentRgbQuality quality;  // on what it was fitted to
};

// Ridge least squares: the map that best takes `latents` [n, 48] to `colours` [n, 3] (in [-1, 1]).
// InvalidArgument if shapes disagree, n < 49, or a value isn't finite.
absl::StatusOr<LatentRgbFit> FitLatentRgb(ConstMatrixView<float> latents, ConstMatrixView<float> colours);

// Means of the 16 x 16 blocks of decoded planes: the colours to fit.
//   planes: [3, 16 * height, 16 * width]   colours: [height * width, 3]
absl::Status BlockMeans(absl::Span<const float> planes, int64_t height, int64_t width,
                        MatrixView<float> colours);

// A map for an autoencoder that came without one: decodes made-up latents (smooth, of the spread that
// normalised latents have; always the same) and fits to them. Costs about one decode of 512 x 512 pixels.
absl::StatusOr<LatentRgbFit> FitLatentRgbFromDecoder(const KernelContext& ctx, VaeDecoder& decoder);

}  // namespace lancet
