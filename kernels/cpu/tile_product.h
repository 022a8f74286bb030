// The inner loop of every product here: a few packed rows times a few packed panels, accumulated in f32.
//
// Packed rows: tiles of up to S::kTileRows rows, [unit][row of the tile] units of four bytes.
// Packed panel: 16 columns of the result, [unit][16] units.
// A unit is one f32, or two bf16 of consecutive k (see simd_portable.h). One element of the result is a chain
// of multiply-adds in the order of k, whatever the size of the tile: so a row's result does not depend on the
// rows beside it.
#pragma once

#include <cstdint>

#include "kernels/cpu/unroll.h"

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

// Units that `cols` columns of a row take.
template <typename S>
constexpr int64_t UnitsOf(int64_t cols) {
  return (cols + S::kUnitCols - 1) / S::kUnitCols;
}

template <typename S, int M, int N>
void TileProduct(const TileProductArgs& args) {
  using F = typename S::F;
  constexpr int kVectors = N * kPanelCols / S::kLanes;
  constexpr int kPerPanel = kPanelCols / S::kLanes;
  F acc[M][kVectors];
  LANCET_UNROLL
  for (int m = 0; m < M; ++m) {
    LANCET_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      acc[m][v] = args.accumulate ? S::Load(args.c + m * args.c_stride + v * S::kLanes) : S::Set1(0.0f);
    }
  }
  const uint32_t* a = args.rows;
  const uint32_t* b = args.panels;
  for (int64_t u = 0; u < args.units; ++u) {
    F panel[kVectors];
    LANCET_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      panel[v] = S::LoadUnits(b + (v / kPerPanel) * args.panel_stride + (v % kPerPanel) * S::kLanes);
    }
    LANCET_UNROLL
    for (int m = 0; m < M; ++m) {
      const F row = S::BroadcastUnit(a + m);
      LANCET_UNROLL
      for (int v = 0; v < kVectors; ++v) acc[m][v] = S::MulAddUnits(acc[m][v], row, panel[v]);
    }
    a += M;
    b += kPanelCols;
  }
  LANCET_UNROLL
  for (int m = 0; m < M; ++m) {
    LANCET_UNROLL
    for (int v = 0; v < kVectors; ++v) S::Store(args.c + m * args.c_stride + v * S::kLanes, acc[m][v]);
  }
}

// Panels that a tile of `rows` takes at most. Few rows take twice as many: otherwise there are too few
// independent sums to hide the latency of a multiply-add.
template <typename S>
constexpr int MaxTilePanels(int rows) {
  return 2 * rows <= S::kTileRows ? 2 * S::kTilePanels : S::kTilePanels;
}

template <typename S, int M, int N>
void RunTileProductOf(int panels, const TileProductArgs& args) {
  if constexpr (N > 1) {
    if (panels < N) return RunTileProductOf<S, M, N - 1>(panels, args);
  }
  TileProduct<S, M, N>(args);
}

// TileProduct for a number of rows in [1, S::kTileRows] and of panels in [1, MaxTilePanels(rows)] known at
// run time.
template <typename S, int M = S::kTileRows>
void RunTileProduct(int rows, int panels, const TileProductArgs& args) {
  if constexpr (M > 1) {
    if (rows < M) return RunTileProduct<S, M - 1>(rows, panels, args);
  }
  RunTileProductOf<S, M, MaxTilePanels<S>(M)>(panels, args);
}

// A tile of rows times any number of panels.
template <typename S>
void RunTilePanels(int rows, int64_t panels, TileProductArgs args) {
  const int64_t step = MaxTilePanels<S>(rows);
  for (int64_t p = 0; p < panels; p += step) {
    RunTileProduct<S>(rows, static_cast<int>(panels - p < step ? panels - p : step), args);
    args.panels += step * args.panel_stride;
    args.c += step * kPanelCols;
  }
}

// Packs `count` bf16 rows of `cols` columns: [unit][count]. A unit that the last column leaves half empty is
// filled with a zero; nothing beyond a row is read. count is at most 8, or a multiple of 8.
template <typename S>
void PackTile(const uint16_t* const* rows, int count, int64_t cols, uint32_t* tile) {
  const int64_t units = UnitsOf<S>(cols);
  for (int first = 0; first < count; first += 8) {
    const int group = count - first < 8 ? count - first : 8;
    int64_t u = 0;
    // A narrow group scribbles beyond its rows, so the last units, which would do so beyond the tile, are
    // left to the scalar loop.
    for (; (u + 7) * count + first + 8 <= units * count && (u + 8) * S::kUnitCols <= cols; u += 8) {
      S::PackUnits8(rows + first, group, u * S::kUnitCols, tile + u * count + first, count);
    }
    for (; u < units; ++u) {
      for (int m = 0; m < group; ++m) {
        const uint16_t* row = rows[first + m];
        uint32_t& unit = tile[u * count + first + m];
        if constexpr (S::kUnitCols == 1) {
          unit = static_cast<uint32_t>(row[u]) << 16;
        } else {
          unit = row[2 * u] | (2 * u + 1 < cols ? static_cast<uint32_t>(row[2 * u + 1]) << 16 : 0);
        }
      }
    }
  }
}

}  // namespace lancet
