// Scaling of pictures for previews. Thread-safe.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/rgb_image.h"

namespace lancet {

// A picture whose longer side is at most `max_side`: larger ones are averaged down to exactly that, keeping
// the proportions; smaller ones are enlarged smoothly by the largest whole factor that fits. InvalidArgument
// if max_side < 1 or the picture is not well-formed.
absl::StatusOr<RgbImage> FitImage(const RgbImage& image, int32_t max_side);

}  // namespace lancet
