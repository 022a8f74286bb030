#include "coordinator/request/image_decoder.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/request/decode_formats.h"
#include "coordinator/request/exif_orientation.h"

namespace lancet {
namespace {

absl::StatusOr<DecodedFile> DecodeFile(absl::string_view bytes, const DecodeLimits& limits) {
  if (absl::StartsWith(bytes, "\x89PNG\r\n\x1a\n")) return DecodePngFile(bytes, limits);
  if (absl::StartsWith(bytes, "\xff\xd8\xff")) return DecodeJpegFile(bytes, limits);
  if (absl::StartsWith(bytes, "RIFF") && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") {
    return DecodeWebpFile(bytes, limits);
  }
  return absl::InvalidArgumentError(absl::StrCat("not a PNG, JPEG or WebP file: it starts with the bytes ",
                                                 absl::BytesToHexString(bytes.substr(0, 12))));
}

}  // namespace

absl::Status CheckDimensions(absl::string_view format, int64_t width, int64_t height,
                             const DecodeLimits& limits) {
  if (width < 1 || height < 1 || width > limits.max_side || height > limits.max_side ||
      width * height > limits.max_pixels) {
    return absl::InvalidArgumentError(absl::StrCat(format, " of ", width, " x ", height,
                                                   " pixels; the limit is ", limits.max_side, " a side and ",
                                                   limits.max_pixels, " in all"));
  }
  return absl::OkStatus();
}

RgbImage BlankImage(int64_t width, int64_t height) {
  RgbImage image{static_cast<int32_t>(width), static_cast<int32_t>(height), {}};
  image.pixels.resize(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
  return image;
}

absl::StatusOr<RgbImage> DecodeImage(absl::string_view bytes, const DecodeLimits& limits) {
  if (bytes.empty()) return absl::InvalidArgumentError("empty");
  if (bytes.size() > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("file of ", bytes.size(), " bytes; the limit is ", limits.max_bytes));
  }
  LANCET_ASSIGN_OR_RETURN(DecodedFile file, DecodeFile(bytes, limits));
  return TurnUpright(std::move(file.image), file.orientation);
}

}  // namespace lancet
