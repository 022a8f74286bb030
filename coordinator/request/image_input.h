// From the file in a request to what the model takes: decoded, then cut and resized for either encoder.
// Stateless, thread-safe; takes up to hundreds of milliseconds and tens of bytes of memory a pixel, so it
// runs on a pool of its own.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/rgb_image.h"
#include "coordinator/request/image_decoder.h"
#include "coordinator/request/resize_presets.h"

namespace lancet {

struct ImageInput {
  int32_t width = 0;  // pixels, of the decoded picture
  int32_t height = 0;
  RgbImage vision;     // sides are multiples of 28
  RgbImage condition;  // sides are multiples of 16; empty unless wanted
};

// InvalidArgument starts with "images:" and says what is wrong with the file.
absl::StatusOr<ImageInput> PrepareImage(absl::string_view file, const DecodeLimits& limits,
                                        const ResizePreset& preset, bool with_condition);

}  // namespace lancet
