// The order in which block-scaled matrix units read E4M3 scales: tiles of 128 rows x 4 blocks of 16 columns,
// 512 bytes each, tiles row-major with the block index fastest. Within a tile, byte (row % 32) * 16 + (row %
// 128) / 32 * 4 + block % 4. Rows are padded to 128 and blocks to 4 with zero bytes: a stale byte there may
// be a NaN, and 0 * NaN is NaN. A matrix is cut for its rank first and tiled afterwards.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace lancet {

inline constexpr int64_t kScaleTileRows = 128;
inline constexpr int64_t kScaleTileBlocks = 4;

constexpr int64_t ScaleTileBytes(int64_t rows, int64_t blocks) {
  const int64_t tile_rows = (rows + kScaleTileRows - 1) / kScaleTileRows;
  const int64_t tile_cols = (blocks + kScaleTileBlocks - 1) / kScaleTileBlocks;
  return tile_rows * tile_cols * kScaleTileRows * kScaleTileBlocks;
}

// Where the scale of `block` of `row` lies in a matrix with `blocks` blocks a row.
constexpr int64_t ScaleTileOffset(int64_t row, int64_t block, int64_t blocks) {
  const int64_t tile_cols = (blocks + kScaleTileBlocks - 1) / kScaleTileBlocks;
  const int64_t tile = row / kScaleTileRows * tile_cols + block / kScaleTileBlocks;
  return tile * (kScaleTileRows * kScaleTileBlocks) + row % 32 * 16 + row % kScaleTileRows / 32 * 4 +
         block % kScaleTileBlocks;
}

// Row-major bytes [rows, blocks] -> ScaleTileBytes(rows, blocks) tiled bytes.
std::vector<uint8_t> TileScales(absl::Span<const uint8_t> scales, int64_t rows, int64_t blocks);

}  // namespace lancet
