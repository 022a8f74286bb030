// Pixels of a prepared crop as the floating-point inputs of the two image encoders. The arithmetic is f32
// throughout and fixed to the last bit: p / 255, minus the mean, divided by the standard deviation, each
// rounded once.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/rgb_image.h"

namespace lancet {

inline constexpr int32_t kVisionPatchSide = 14;                   // pixels
inline constexpr int32_t kVisionCellSide = 2 * kVisionPatchSide;  // 2 x 2 patches become one token
// Channels, frames of a pair, rows, columns of a patch.
inline constexpr int32_t kVisionPatchValues = 3 * 2 * kVisionPatchSide * kVisionPatchSide;

// A still picture for the vision transformer: [patches, 1176] f32, patches = width / 14 * height / 14.
// Patch order, slowest first: row of cells, column of cells, row in the cell, column in the cell. In a patch:
// channel (R, G, B), frame (the picture is both frames of the pair), pixel row, pixel column. Mean and
// deviation are CLIP's. InvalidArgument unless both sides are positive multiples of 28 and the buffer has
// that size.
absl::StatusOr<std::vector<float>> VisionPatches(const RgbImage& image);

// A still picture for the autoencoder: planes [3, height, width] f32 in [-1, 1]. InvalidArgument unless both
// sides are positive multiples of 16 and the buffer has that size.
absl::StatusOr<std::vector<float>> LatentEncoderPlanes(const RgbImage& image);

}  // namespace lancet
