// Picture files of every kind, made in memory for the tests of the decoder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/rgb_image.h"

namespace lancet {

// As PNG stores it; colour types and depths are PNG's numbers.
struct PngSource {
  int32_t width = 0;
  int32_t height = 0;
  int depth = 8;
  int colour_type = 2;                   // 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA
  std::vector<uint8_t> rows;             // packed as in the file, without filter bytes
  std::vector<uint8_t> palette{};        // RGB triples
  std::vector<uint8_t> palette_alpha{};  // tRNS of a palette
  int transparent_value = -1;            // tRNS of grey or RGB: every channel has this value
  bool interlaced = false;
};
std::string MakePng(const PngSource& source);

// A chunk with its length and CRC.
std::string PngChunk(absl::string_view type, absl::string_view content);

// `png` with a chunk after its header.
std::string WithPngChunk(const std::string& png, absl::string_view type, absl::string_view content);

struct JpegSource {
  int32_t width = 0;
  int32_t height = 0;
  int channels = 3;             // in `pixels`: 1 grey, 2 of no meaning, 3 RGB, 4 CMYK
  std::vector<uint8_t> pixels;  // [height, width, channels]
  bool progressive = false;
  bool separate_scans = false;  // sequential, one scan a channel
  bool ycck = false;
  int chroma_step = 1;  // 2: chroma halved in both directions
  std::string exif{};   // content of APP1, after "Exif\0\0"
};
std::string MakeJpeg(const JpegSource& source);

// Lossless. `rgba` is [height, width, 4].
std::string MakeWebp(int32_t width, int32_t height, const std::vector<uint8_t>& rgba);

// `webp`, of width x height, in the extended container with the flags and with chunks after the picture.
std::string WithWebpChunk(const std::string& webp, int32_t width, int32_t height, uint8_t flags,
                          absl::string_view type, absl::string_view content);

// EXIF data whose first directory holds an orientation among other entries.
std::string MakeExif(int orientation, bool big_endian);

}  // namespace lancet
