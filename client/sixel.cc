#include "client/sixel.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// A sequence is: ESC P 0;1 q, the raster attributes "1;1;width;height, the colours #n;2;r;g;b in percent,
// then bands of six rows. A band is, for each colour that it uses, #n and one character a column (63 + a bit
// per row, top row lowest);
// "$" returns to the left edge for the next colour, "-" goes to the next band; !n repeats the next character.
// ESC \ ends.
constexpr int kLevels = 6;
constexpr int kColours = kLevels * kLevels * kLevels;
constexpr int kBandRows = 6;

// Thresholds of a 4 x 4 Bayer matrix, in 16ths.
constexpr int kBayer[4][4] = {{0, 8, 2, 10}, {12, 4, 14, 6}, {3, 11, 1, 9}, {15, 7, 13, 5}};

int Level(uint8_t value, int x, int y) {
  // 255 maps to the top level for every threshold, 0 to the lowest.
  const int scaled = value * (kLevels - 1) * 16 / 255;
  return std::min(kLevels - 1, (scaled + kBayer[y % 4][x % 4]) / 16);
}

int ColourAt(const RgbImage& image, int x, int y) {
  const uint8_t* pixel = &image.pixels[(size_t{0} + y) * image.width * 3 + size_t{3} * x];
  return (Level(pixel[0], x, y) * kLevels + Level(pixel[1], x, y)) * kLevels + Level(pixel[2], x, y);
}

void AppendRun(std::string& out, char character, int count) {
  if (count > 3) {
    absl::StrAppend(&out, "!", count, std::string(1, character));
  } else {
    out.append(static_cast<size_t>(count), character);
  }
}

void AppendBand(std::string& out, const RgbImage& image, int top) {
  const int rows = std::min(kBandRows, image.height - top);
  // Per colour the bits of each column; a colour that the band does not use has none.
  std::array<std::vector<uint8_t>, kColours> bits;
  for (int row = 0; row < rows; ++row) {
    for (int x = 0; x < image.width; ++x) {
      std::vector<uint8_t>& columns = bits[ColourAt(image, x, top + row)];
      if (columns.empty()) columns.resize(image.width);
      columns[x] |= uint8_t{1} << row;
    }
  }
  for (int colour = 0; colour < kColours; ++colour) {
    const std::vector<uint8_t>& columns = bits[colour];
    if (columns.empty()) continue;
    absl::StrAppend(&out, "#", colour);
    int start = 0;
    for (int x = 1; x <= image.width; ++x) {
      if (x < image.width && columns[x] == columns[start]) continue;
      // Trailing blanks need no characters.
      if (x < image.width || columns[start] != 0)
        AppendRun(out, static_cast<char>(63 + columns[start]), x - start);
      start = x;
    }
    out += '$';
  }
  out += '-';
}

}  // namespace

std::string EncodeSixel(const RgbImage& image) {
  if (image.width <= 0 || image.height <= 0) return "";
  std::string out = absl::StrCat("\x1bP0;1q\"1;1;", image.width, ";", image.height);
  for (int colour = 0; colour < kColours; ++colour) {
    const auto percent = [](int level) { return level * 100 / (kLevels - 1); };
    absl::StrAppend(&out, "#", colour, ";2;", percent(colour / (kLevels * kLevels)), ";",
                    percent(colour / kLevels % kLevels), ";", percent(colour % kLevels));
  }
  for (int top = 0; top < image.height; top += kBandRows) AppendBand(out, image, top);
  out += "\x1b\\";
  return out;
}

}  // namespace lancet
