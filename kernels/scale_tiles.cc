#include "kernels/scale_tiles.h"

namespace lancet {

std::vector<uint8_t> TileScales(absl::Span<const uint8_t> scales, int64_t rows, int64_t blocks) {
  std::vector<uint8_t> tiled(ScaleTileBytes(rows, blocks));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      tiled[ScaleTileOffset(row, block, blocks)] = scales[row * blocks + block];
    }
  }
  return tiled;
}

}  // namespace lancet
