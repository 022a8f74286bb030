// Pictures from clients: untrusted bytes of a PNG, JPEG or WebP file to 8-bit RGB. Thread-safe.
//
// Pixels come out as the model saw them in training:
//   transparency         RGBA and palettes with transparency are composited over white, in 8-bit integers:
//                        t = 255 (255 - alpha) + value alpha + 128, ((t >> 8) + t) >> 8
//   grey                 replicated; 8-bit grey with alpha loses its alpha, 16-bit grey with alpha is
//   composited transparent colour   (the tRNS chunk of a grey or RGB PNG) ignored 16 bits              colour
//   keeps its high byte; grey without alpha is clamped to 255, not scaled 1, 2, 4 bits         scaled to
//   0..255 JPEG                 the slow integer DCT, smooth chroma upsampling, any number of scans; CMYK and
//   YCCK are taken
//                        as inverted, which is Adobe's habit, and multiplied out without a profile
//   colour profiles      ignored, gamma too
//
// The orientation that a camera notes in EXIF is applied, so that the picture is the one the user sees. (The
// public code ignores it, so for such files its result differs: it works on a picture lying on its side.)
//
// Animated PNG and WebP files, damaged and truncated files are refused, not shown in part.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/rgb_image.h"

namespace lancet {

// What a file may claim about itself before any of it is decoded. The defaults admit what phones take today:
// 50 megapixels. Decoding takes up to 11 bytes of memory a pixel (a progressive CMYK JPEG).
struct DecodeLimits {
  int32_t max_side = 16384;                     // pixels
  int64_t max_pixels = int64_t{8192} * 6144;    // width * height
  size_t max_bytes = size_t{32} * 1024 * 1024;  // of the file
};

// InvalidArgument says what is wrong, or what was found and which limit it exceeds, without naming the
// request's field. Size and dimensions are checked before memory for pixels is taken.
absl::StatusOr<RgbImage> DecodeImage(absl::string_view bytes, const DecodeLimits& limits);

}  // namespace lancet
