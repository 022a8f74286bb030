// The inner loop of every product here: a few packed rows times a few packed panels, accumulated in f32.
//
// Packed rows: tiles of up to S::kTileRows rows, [unit][row of the tile] units of four bytes.
// Packed panel: 16 columns of the result, [unit][16] units.
// A unit is one f32, or two bf16 of consecutive k (see simd_portable.h). One element of the result is a chain
// of multiply-adds in the order of k, whatever the size of the tile: so a row's result does not depend on the
// rows beside it.
#pragma once

#include <cstdint>

namespace lancet {

constexpr int kPanelCols = 16;  // columns of a panel: one AVX-512 register

// Plain data, as the sources that read it must not instantiate anything that other sources share.
struct TileProductArgs {
  const uint32_t* rows = nullptr;    // [units][M]
  const uint32_t* panels = nullptr;  // [N][units of a panel][16]
  int64_t panel_stride = 0;          // units (four bytes) from one panel to the next
  int64_t units = 0;                 // extent of k in units
  float* c = nullptr;                // [M][>= N * 16]
  int64_t c_stride = 0;
  bool accumulate = false;  // adds to c; otherwise overwrites it
};

template <typename S, int M, int N>
void TileProduct(const TileProductArgs& args) {
  using F = typename S::F;
  constexpr int kVectors = N * kPanelCols / S::kLanes;
  constexpr int kPerPanel = kPanelCols / S::kLanes;
  F acc[M][kVectors];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      acc[m][v] = args.accumulate ? S::Load(args.c + m * args.c_stride + v * S::kLanes) : S::Set1(0.0f);
    }
  }
  const uint32_t* a = args.rows;
  const uint32_t* b = args.panels;
  for (int64_t u = 0; u < args.units; ++u) {
    F panel[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      panel[v] = S::LoadUnits(b + (v / kPerPanel) * args.panel_stride + (v % kPerPanel) * S::kLanes);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const F row = S::BroadcastUnit(a + m);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[m][v] = S::MulAddUnits(acc[m][v], row, panel[v]);
    }
    a += M;
    b += kPanelCols;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) S::Store(args.c + m * args.c_stride + v * S::kLanes, acc[m][v]);
  }
}

// TileProduct for a number of rows in [1, S::kTileRows] and of panels in [1, S::kTilePanels] known at run
// time.
template <typename S, int M = S::kTileRows, int N = S::kTilePanels>
void RunTileProduct(int rows, int panels, const TileProductArgs& args) {
  if constexpr (M > 1) {
    if (rows < M) return RunTileProduct<S, M - 1, N>(rows, panels, args);
  }
  if constexpr (N > 1) {
    if (panels < N) return RunTileProduct<S, M, N - 1>(rows, panels, args);
  }
  TileProduct<S, M, N>(args);
}

// Packs `rows` bf16 rows of `cols` columns (cols a multiple of S::kUnitCols) into one tile.
template <typename S>
void PackTile(const uint16_t* const* rows, int count, int64_t cols, uint32_t* tile) {
  for (int m = 0; m < count; ++m) {
    const uint16_t* row = rows[m];
    for (int64_t u = 0; u < cols / S::kUnitCols; ++u) {
      if constexpr (S::kUnitCols == 2) {
        tile[u * count + m] = row[2 * u] | static_cast<uint32_t>(row[2 * u + 1]) << 16;
      } else {
        tile[u * count + m] = static_cast<uint32_t>(row[u]) << 16;
      }
    }
  }
}

}  // namespace lancet
