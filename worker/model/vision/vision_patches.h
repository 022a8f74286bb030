// Pixels of a picture as the vision tower's input: normalised, cut into patches.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "common/rgb_image.h"
#include "common/vision_config.h"
#include "worker/model/vision/vision_layout.h"

namespace lancet {

// Patches of one still picture. A value is (pixel / 255 - mean) / std in f32, each step rounded once, with
// CLIP's mean and standard deviation of each channel. A patch holds channel, frame, row, column, slowest
// first; all its frames are the same picture.
class PicturePatches {
 public:
  // InvalidArgument if width or height are not in whole cells (28 pixels) or the pixels do not fill them.
  // `picture` outlives the object.
  static absl::StatusOr<PicturePatches> Create(const VisionConfig& config, const RgbImage& picture);

  VisionGrid grid() const { return grid_; }
  // What a channel's byte becomes.
  float value_of(int channel, uint8_t pixel) const { return value_of_[channel][pixel]; }
  // Patch `index` in input order (vision_layout.h). T is bf16, to which values are rounded, or float. out:
  // [config.patch_values()].
  template <typename T>
  void Fill(int64_t index, T* out) const;

 private:
  PicturePatches(const VisionConfig& config, const RgbImage& picture);

  const RgbImage* picture_;
  int64_t patch_;
  int64_t merge_;
  int64_t frames_;
  VisionGrid grid_;
  std::array<std::array<float, 256>, 3> value_of_;  // [channel][pixel]
};

}  // namespace lancet
