// The formats behind image_decoder.h, one source each; for DecodeImage only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/rgb_image.h"
#include "coordinator/request/image_decoder.h"

namespace lancet {

struct DecodedFile {
  RgbImage image;       // as stored
  int orientation = 1;  // EXIF, 1 to 8
};

// InvalidArgument begins with the format's name. The signature has been seen.
absl::StatusOr<DecodedFile> DecodePngFile(absl::string_view bytes, const DecodeLimits& limits);
absl::StatusOr<DecodedFile> DecodeJpegFile(absl::string_view bytes, const DecodeLimits& limits);
absl::StatusOr<DecodedFile> DecodeWebpFile(absl::string_view bytes, const DecodeLimits& limits);

// InvalidArgument naming both numbers and the limits if a file of that size is too large, or has no pixels.
absl::Status CheckDimensions(absl::string_view format, int64_t width, int64_t height,
                             const DecodeLimits& limits);

// Black, of checked size.
RgbImage BlankImage(int64_t width, int64_t height);

// sum / 255, rounded to nearest; exact for 0 <= sum <= 255 * 255.
inline uint32_t DivideBy255(uint32_t sum) {
  const uint32_t t = sum + 128;
  return ((t >> 8) + t) >> 8;
}

// A value over a white background.
inline uint8_t OverWhite(uint32_t value, uint32_t alpha) {
  return static_cast<uint8_t>(DivideBy255(255 * (255 - alpha) + value * alpha));
}

}  // namespace lancet
