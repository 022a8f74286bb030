// Pixels of a picture as the vision tower's input: normalised, cut into patches.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "common/vision_config.h"
#include "worker/model/vision/vision_layout.h"

namespace lancet {

// Patches of one still picture. A value is (pixel / 255 - mean) / std in f32, with CLIP's mean and standard
// deviation of each channel, rounded to bf16. A patch holds channel, frame, row, column, slowest first; all
// its frames are the same picture.
class PicturePatches {
 public:
  // InvalidArgument if width or height are not in whole cells (28 pixels) or the pixels do not fill them.
  // `picture` outlives the object.
  static absl::StatusOr<PicturePatches> Create(const VisionConfig& config, const RgbImage& picture);

  VisionGrid grid() const { return grid_; }
  // Patch `index` in input order (vision_layout.h). out: [config.patch_values()].
  void Fill(int64_t index, bf16* out) const;

 private:
  PicturePatches(const VisionConfig& config, const RgbImage& picture);

  const RgbImage* picture_;
  int64_t patch_;
  int64_t merge_;
  int64_t frames_;
  VisionGrid grid_;
  std::array<std::array<bf16, 256>, 3> value_of_;  // [channel][pixel]
};

}  // namespace lancet
