#include "coordinator/request/exif_orientation.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/strip.h"

namespace lancet {
namespace {

constexpr size_t kHeaderBytes = 8;
constexpr size_t kEntryBytes = 12;
constexpr uint32_t kOrientationTag = 0x0112;
constexpr uint32_t kTypeU16 = 3;

// An unsigned number of `size` bytes; the caller has checked that they are there.
uint32_t ReadNumber(absl::string_view data, size_t offset, size_t size, bool big_endian) {
  uint32_t value = 0;
  for (size_t i = 0; i < size; ++i) {
    const size_t at = offset + (big_endian ? i : size - 1 - i);
    value = value << 8 | static_cast<uint8_t>(data[at]);
  }
  return value;
}

}  // namespace

int ExifOrientation(absl::string_view exif) {
  absl::ConsumePrefix(&exif, absl::string_view("Exif\0\0", 6));
  if (exif.size() < kHeaderBytes) return 1;
  const absl::string_view magic = exif.substr(0, 4);
  const bool big_endian = magic == absl::string_view("MM\0*", 4);
  if (!big_endian && magic != absl::string_view("II*\0", 4)) return 1;
  const size_t directory = ReadNumber(exif, 4, 4, big_endian);
  if (directory < kHeaderBytes || directory > exif.size() - 2) return 1;
  const size_t declared = ReadNumber(exif, directory, 2, big_endian);
  const size_t entries = std::min(declared, (exif.size() - directory - 2) / kEntryBytes);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + i * kEntryBytes;
    if (ReadNumber(exif, entry, 2, big_endian) != kOrientationTag) continue;
    const uint32_t type = ReadNumber(exif, entry + 2, 2, big_endian);
    const uint32_t count = ReadNumber(exif, entry + 4, 4, big_endian);
    const uint32_t value = ReadNumber(exif, entry + 8, 2, big_endian);
    return type == kTypeU16 && count == 1 && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

RgbImage TurnUpright(RgbImage image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const ptrdiff_t width = image.width;
  const ptrdiff_t height = image.height;
  const ptrdiff_t last = width * height - 1;
  // Where the upper left pixel of the result comes from, and how far to go in the source, in pixels, for one
  // step to the right and one step down in the result.
  const struct {
    ptrdiff_t first, right, down;
  } walks[] = {
      {width - 1, -1, width},         // 2
      {last, -1, -width},             // 3
      {last - width + 1, 1, -width},  // 4
      {0, width, 1},                  // 5
      {last - width + 1, -width, 1},  // 6
      {last, -width, -1},             // 7
      {width - 1, width, -1},         // 8
  };
  const auto walk = walks[orientation - 2];
  const bool sideways = orientation >= 5;
  RgbImage turned{sideways ? image.height : image.width, sideways ? image.width : image.height, {}};
  turned.pixels.resize(image.pixels.size());
  // In tiles, so that the lines of the source that a tile touches stay in the cache while it is turned.
  constexpr int32_t kTile = 32;
  for (int32_t tile_y = 0; tile_y < turned.height; tile_y += kTile) {
    for (int32_t tile_x = 0; tile_x < turned.width; tile_x += kTile) {
      const int32_t columns = std::min(kTile, turned.width - tile_x);
      for (int32_t y = tile_y; y < std::min(tile_y + kTile, turned.height); ++y) {
        const uint8_t* in = image.pixels.data() + 3 * (walk.first + tile_x * walk.right + y * walk.down);
        uint8_t* out = turned.pixels.data() + 3 * (ptrdiff_t{y} * turned.width + tile_x);
        for (int32_t x = 0; x < columns; ++x) std::copy_n(in + 3 * x * walk.right, 3, out + 3 * x);
      }
    }
  }
  return turned;
}

}  // namespace lancet
