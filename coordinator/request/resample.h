// Bicubic resampling of 8-bit pictures, to the last bit as Pillow does it, which the model was trained with.
//
// Columns first, then rows, with an 8-bit picture in between; an axis whose length stays is left alone. Per
// axis, from n to m samples, in double:
//   s = n / m, f = max(s, 1), centre of output i: c = (i + 0.5) s
//   inputs from max(trunc(c - 2 f + 0.5), 0) to below min(trunc(c + 2 f + 0.5), n)
//   weight of input j: B((j - c + 0.5) / f), divided by their sum; B is the cubic with a = -0.5
//   K = weight * 2^22, rounded half away from zero; output = clip((2^21 + sum of K p) >> 22, 0, 255)
// So shrinking averages (f > 1) and nothing outside the rectangle counts.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/rgb_image.h"

namespace lancet {

// A rectangle of a picture, in pixels.
struct CropRect {
  int32_t left = 0;
  int32_t top = 0;
  int32_t width = 0;
  int32_t height = 0;

  friend bool operator==(const CropRect&, const CropRect&) = default;
};

// The rectangle of the picture, scaled to width x height. Single-threaded. InvalidArgument if the picture is
// not well-formed, the rectangle is empty or reaches out of it, or the new size is not from 1 to 16384 a
// side.
absl::StatusOr<RgbImage> CropAndResample(const RgbImage& image, const CropRect& rect, int32_t width,
                                         int32_t height);

// The rectangle as it is. InvalidArgument as above.
absl::StatusOr<RgbImage> Crop(const RgbImage& image, const CropRect& rect);

}  // namespace lancet
