// How alike two pictures are, and two sets of latents.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/rgb_image.h"

namespace lancet {

// What Psnr gives for equal pictures, in dB.
inline constexpr double kEqualPsnr = 99.0;

// Peak signal to noise ratio over all channels, in dB: 10 log10(255^2 / mean squared error). InvalidArgument
// if the sizes differ or are 0.
absl::StatusOr<double> Psnr(const RgbImage& a, const RgbImage& b);

// Mean structural similarity of brightness (0.299 R + 0.587 G + 0.114 B), 1 for equal pictures: Wang, Bovik,
// Sheikh and Simoncelli, 2004, with their 11 x 11 Gaussian window of deviation 1.5, K1 = 0.01 and K2 = 0.03,
// over all places where the window fits. InvalidArgument if the sizes differ or a side is below 11.
absl::StatusOr<double> Ssim(const RgbImage& a, const RgbImage& b);

// ||got - expected|| / ||expected||. InvalidArgument if the sizes differ or `expected` is zero.
absl::StatusOr<double> RelativeError(const std::vector<bf16>& got, const std::vector<bf16>& expected);

}  // namespace lancet
