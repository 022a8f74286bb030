// A picture file, decoded and prepared for both encoders. A PNG is tried once more with its checksums put
// right, since mutated ones are refused for them alone.

#include <zlib.h>

#include <cstring>
#include <string>

#include "absl/strings/match.h"
#include "coordinator/request/exif_orientation.h"
#include "coordinator/request/image_decoder.h"
#include "coordinator/request/preprocess.h"
#include "tests/fuzz/fuzzing.h"

namespace lancet {
namespace {

// Small, so that many files are tried: speed is what finds things.
constexpr DecodeLimits kLimits{512, 64 * 1024, 256 * 1024};

void FuzzFile(absl::string_view bytes) {
  const auto image = DecodeImage(bytes, kLimits);
  if (!image.ok()) {
    Require(absl::IsInvalidArgument(image.status()), "a refusal is InvalidArgument");
    Require(!image.status().message().empty(), "a refusal has a reason");
    return;
  }
  Require(image->width >= 1 && image->width <= kLimits.max_side && image->height >= 1 &&
              image->height <= kLimits.max_side,
          "the limits hold");
  Require(image->pixels.size() ==
              size_t{3} * static_cast<size_t>(image->width) * static_cast<size_t>(image->height),
          "the picture is complete");
  static const ResizePreset preset = ResizePresetOfSide(kMinPresetSide).value();
  const auto latent = PrepareForLatents(*image, preset);
  Require(latent.ok() && latent->latent_width() > 0 && latent->image.width % kPixelsPerLatent == 0,
          "every picture can be prepared for the autoencoder");
  const auto vision = PrepareForVision(*image, preset);
  Require(vision.ok() && vision->num_tokens() > 0 && vision->image.width % kVisionCellSide == 0,
          "every picture can be prepared for the vision transformer");
}

uint32_t ReadU32(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

std::string WithRightChecksums(absl::string_view file) {
  std::string png(file);
  size_t at = 8;
  while (png.size() - at >= 12) {
    const size_t length = ReadU32(png, at);
    if (length > png.size() - at - 12) break;
    const uLong crc = crc32_z(0, reinterpret_cast<const Bytef*>(png.data()) + at + 4, length + 4);
    for (size_t i = 0; i < 4; ++i) png[at + 8 + length + i] = static_cast<char>(crc >> (24 - 8 * i) & 0xff);
    at += 12 + length;
  }
  return png;
}

}  // namespace
}  // namespace lancet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes = lancet::AsText(data, size);
  lancet::FuzzFile(bytes);
  if (absl::StartsWith(bytes, "\x89PNG\r\n\x1a\n")) lancet::FuzzFile(lancet::WithRightChecksums(bytes));
  const int orientation = lancet::ExifOrientation(bytes);
  lancet::Require(orientation >= 1 && orientation <= 8, "an orientation is one of eight");
  return 0;
}
