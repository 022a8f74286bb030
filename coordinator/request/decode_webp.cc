// WebP, by libwebp and its demultiplexer.

#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/request/decode_formats.h"
#include "coordinator/request/exif_orientation.h"

namespace lancet {
namespace {

absl::Status Failure(absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("WebP: ", reason));
}

int Orientation(WebPDemuxer* container) {
  WebPChunkIterator chunk{};
  int orientation = 1;
  if (WebPDemuxGetChunk(container, "EXIF", 1, &chunk) != 0) {
    orientation = ExifOrientation({reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size});
  }
  WebPDemuxReleaseChunkIterator(&chunk);
  return orientation;
}

// Bytes of one pixel: 4 with alpha, else 3.
bool DecodeInto(absl::string_view bytes, const RgbImage& image, int channels, std::vector<uint8_t>& pixels) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  const int stride = channels * image.width;
  const auto decode = channels == 4 ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
  return decode(data, bytes.size(), pixels.data(), pixels.size(), stride) != nullptr;
}

}  // namespace

absl::StatusOr<DecodedFile> DecodeWebpFile(absl::string_view bytes, const DecodeLimits& limits) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  WebPBitstreamFeatures features;
  if (const VP8StatusCode code = WebPGetFeatures(data, bytes.size(), &features); code != VP8_STATUS_OK) {
    return Failure(code == VP8_STATUS_NOT_ENOUGH_DATA ? "truncated" : "damaged header");
  }
  LANCET_RETURN_IF_ERROR(CheckDimensions("WebP", features.width, features.height, limits));
  if (features.has_animation != 0) return Failure("animated; a single picture is needed");

  const WebPData container_bytes{data, bytes.size()};
  const std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> container(WebPDemux(&container_bytes),
                                                                       WebPDemuxDelete);
  if (container == nullptr) return Failure("truncated or damaged");

  DecodedFile file{BlankImage(features.width, features.height), Orientation(container.get())};
  if (features.has_alpha == 0) {
    if (!DecodeInto(bytes, file.image, 3, file.image.pixels)) return Failure("damaged picture data");
    return file;
  }
  std::vector<uint8_t> rgba(file.image.pixels.size() / 3 * 4);
  if (!DecodeInto(bytes, file.image, 4, rgba)) return Failure("damaged picture data");
  for (size_t i = 0; i < file.image.pixels.size(); ++i) {
    const uint8_t* pixel = rgba.data() + i / 3 * 4;
    file.image.pixels[i] = OverWhite(pixel[i % 3], pixel[3]);
  }
  return file;
}

}  // namespace lancet
