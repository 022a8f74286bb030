// Pictures to and from files in memory: PNG, JPEG and WebP. No files, no threads;
// every function is thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/rgb_image.h"

namespace lancet {

// The numbers are those of lancet.v1.ImageFormat.
enum class ImageFormat : uint8_t { kPng = 1, kJpeg = 2, kWebp = 3 };

// "png", "jpeg", "webp".
absl::string_view ImageFormatName(ImageFormat format);

// PNG is lossless; JPEG has quality 90 and full colour resolution (4:4:4); WebP is lossy, quality 90.
// InvalidArgument if the picture is empty, its buffer has the wrong size or a side exceeds what the format
// can hold (16383 for all three, WebP's limit).
absl::StatusOr<std::string> EncodeImage(const RgbImage& image, ImageFormat format);

// What a file may claim about itself before any of it is decoded.
struct DecodeLimits {
  int32_t max_side = 4096;
  int64_t max_pixels = int64_t{4096} * 4096;
};

// Any PNG as 8-bit RGB; transparency is composited on white. InvalidArgument names what is wrong or too
// large.
absl::StatusOr<RgbImage> DecodePng(absl::string_view bytes, const DecodeLimits& limits);

// A grey or colour JPEG as RGB. InvalidArgument names what is wrong or too large; damaged data is an error.
absl::StatusOr<RgbImage> DecodeJpeg(absl::string_view bytes, const DecodeLimits& limits);

}  // namespace lancet
