// Pictures to files in memory: PNG, JPEG and WebP. The way back is image_decoder.h. No files, no threads;
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

}  // namespace lancet
