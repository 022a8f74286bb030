// The steps of an image autoencoder between its convolutions. Arithmetic is f32, results are rounded once.
#pragma once

#include <cstdint>
#include <vector>

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
absl::Status ChannelNorm(const KernelContext& ctx, ConstMapView<bf16> x, absl::Span<const float> gamma,
                         NormActivation activation, MapView<bf16> y);

// Rows [row_begin, row_begin + y.height) of the nearest-neighbour x2 enlargement of x: y(i, j) = x(i/2, j/2).
//   x: [h, w, c]   y: [rows, 2 w, c]; row_begin + rows <= 2 h
absl::Status UpsampleRows(const KernelContext& ctx, ConstMapView<bf16> x, int64_t row_begin, MapView<bf16> y);

// Adds the parameter-free shortcut of a decoder stage to its output, for a clip of one frame:
//   y[2i+a, 2j+b, o] += x[i, j, floor((4 (o f + f - 1) + 2 a + b) / r)],  r = 4 f out / in
// where f is the stage's temporal factor (1 or 2; its first f - 1 frames are the ones a clip drops).
//   x: [h, w, in]   y: [2 h, 2 w, out]; InvalidArgument unless r is a whole number >= 1
absl::Status DupUpAdd(const KernelContext& ctx, ConstMapView<bf16> x, int64_t frame_factor, MapView<bf16> y);

// The parameter-free shortcut of an encoder stage that halves both sides, for a clip of one frame: means of
// g = 4 f in / out values in the order channel, frame, row, column, where the f - 1 frames before the only
// one are zeros and count.
//   y[i, j, o] = 1/g sum of x[2i+a, 2j+b, c] over k = o g .. o g + g - 1 with k = ((c f + it) 2 + a) 2 + b
//   and it = f - 1
// f is the stage's temporal factor (1 or 2).
//   x: [2 h, 2 w, in]   y: [h, w, out], no overlap; InvalidArgument unless g is a whole number >= 1
absl::Status AvgDown(const KernelContext& ctx, ConstMapView<bf16> x, int64_t frame_factor, MapView<bf16> y);

// y += x, maps of one shape.
absl::Status AddMap(const KernelContext& ctx, ConstMapView<bf16> x, MapView<bf16> y);

// Space to depth by 2, column offset first: y[i, j, 4 c + 2 dx + dy] = planes[c][2i+dy][2j+dx].
//   planes: [3, 2 h, 2 w]   y: [h, w, 12]
absl::Status Patchify(const KernelContext& ctx, absl::Span<const float> planes, MapView<bf16> y);

// Depth to space by 2, column offset first, into planes: planes[c][2i+dy][2j+dx] = x[i, j, 4 c + 2 dx + dy].
//   x: [h, w, 12]   planes: [3, 2 h, 2 w]
absl::Status Unpatchify(const KernelContext& ctx, ConstMapView<bf16> x, absl::Span<float> planes);

// planes [3, height, width] in [-1, 1] (clamped; NaN becomes 0) -> 8 bits: round_half_even((x / 2 + 1/2)
// 255).
absl::StatusOr<RgbImage> PixelsToImage(absl::Span<const float> planes, int64_t height, int64_t width);

// 8 bits -> planes [3, height, width] in [-1, 1]: (x / 255 - 1/2) / (1/2). InvalidArgument unless pixels has
// height * width * 3 values.
absl::StatusOr<std::vector<float>> ImageToPixels(const RgbImage& image);

}  // namespace lancet
