// An 8-bit RGB picture in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace lancet {

struct RgbImage {
  int32_t width = 0;
  int32_t height = 0;
  std::vector<uint8_t> pixels;  // [height, width, 3], top row first

  friend bool operator==(const RgbImage&, const RgbImage&) = default;
};

}  // namespace lancet
