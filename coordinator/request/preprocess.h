// From a decoded picture to the two crops that the model takes, bit for bit as in training. Thread-safe,
// single-threaded.
//
// Per encoder: the nearest bucket (resize_presets.h), the largest centred rectangle of the bucket's ratio r,
// that rectangle resampled to the bucket (resample.h). The vision transformer's crop then loses its edges
// until both sides are multiples of 28. As each encoder has its own buckets, the two may see different parts
// of the picture.
//
// The rectangle, all roundings half to even:
//   1. w = round(sqrt(W H r)), h = round(sqrt(W H / r)), r rounded as training does, to f32 through its
//   logarithm
//   2. if w x h fits, it counts. (It then misses a pixel at most; training moves it by that at random, here
//   it is
//      centred, rounding down.)
//   3. else the picture is cut on the one axis where it is too long: to h = round(W / r) or w = round(H r),
//   centred
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/rgb_image.h"
#include "common/vision_config.h"
#include "coordinator/request/resample.h"
#include "coordinator/request/resize_presets.h"

namespace lancet {

// The rectangle of a width x height picture for ratio width / height = `ratio`. Sides are positive.
CropRect CropForRatio(int32_t width, int32_t height, double ratio);

struct LatentCrop {
  RgbImage image;  // sides are multiples of 16

  int32_t latent_width() const { return image.width / kPixelsPerLatent; }
  int32_t latent_height() const { return image.height / kPixelsPerLatent; }
};

struct VisionCrop {
  RgbImage image;  // sides are multiples of 28

  // Of a still picture, in patches (t is 1), and the tokens that come of them, four patches each.
  int32_t grid_width() const { return image.width / kVisionPatchSide; }
  int32_t grid_height() const { return image.height / kVisionPatchSide; }
  int32_t num_tokens() const { return grid_width() * grid_height() / 4; }
};

// InvalidArgument if the picture is not well-formed.
absl::StatusOr<LatentCrop> PrepareForLatents(const RgbImage& image, const ResizePreset& preset);
absl::StatusOr<VisionCrop> PrepareForVision(const RgbImage& image, const ResizePreset& preset);

}  // namespace lancet
