// The steps of an image autoencoder's decoder between its convolutions. T is float or bf16 (instantiated for
// both); arithmetic is f32, results are rounded to T once.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "kernels/feature_map.h"
#include "kernels/kernel_context.h"

namespace lancet {

enum class NormActivation { kNone, kSilu };

// Per pixel over its channels: y = act(x / max(|x|, 1e-12) * sqrt(channels) * gamma), |x| the L2 norm.
//   x, y: the same shape, may be the same memory   gamma: [channels]
template <typename T>
absl::Status ChannelNorm(const KernelContext& ctx, ConstMapView<T> x, absl::Span<const float> gamma,
                         NormActivation activation, MapView<T> y);

// Rows [row_begin, row_begin + y.height) of the nearest-neighbour x2 enlargement of x: y(i, j) = x(i/2, j/2).
//   x: [h, w, c]   y: [rows, 2 w, c]; row_begin + rows <= 2 h
template <typename T>
absl::Status UpsampleRows(const KernelContext& ctx, ConstMapView<T> x, int64_t row_begin, MapView<T> y);

// Adds the parameter-free shortcut of a decoder stage to its output, for a clip of one frame:
//   y[2i+a, 2j+b, o] += x[i, j, floor((4 (o f + f - 1) + 2 a + b) / r)],  r = 4 f out / in
// where f is the stage's temporal factor (1 or 2; its first f - 1 frames are the ones a clip drops).
//   x: [h, w, in]   y: [2 h, 2 w, out]; InvalidArgument unless r is a whole number >= 1
template <typename T>
absl::Status DupUpAdd(const KernelContext& ctx, ConstMapView<T> x, int64_t frame_factor, MapView<T> y);

// Depth to space by 2, column offset first, into planes: planes[c][2i+dy][2j+dx] = x[i, j, 4 c + 2 dx + dy].
//   x: [h, w, 12]   planes: [3, 2 h, 2 w]
template <typename T>
absl::Status Unpatchify(const KernelContext& ctx, ConstMapView<T> x, absl::Span<float> planes);

// planes [3, height, width] in [-1, 1] (clamped; NaN becomes 0) -> 8 bits: round_half_even((x / 2 + 1/2)
// 255).
absl::StatusOr<RgbImage> PixelsToImage(absl::Span<const float> planes, int64_t height, int64_t width);

}  // namespace lancet
