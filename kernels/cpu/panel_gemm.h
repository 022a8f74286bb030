// Products with packed weights, written once over the primitives of an instruction set `S` and a form of
// weights `W`. A group of panels is brought into multipliable form slab by slab (kSlabCols columns), and all
// rows are multiplied with a slab before the next one; partial sums wait in scratch.
//
// W offers:
//   Args                                        PanelKernelArgs and where the weights lie
//   void Slab(args, panel, panels, k, cols, slab)
//     columns [k, k + cols) of `panels` panels from `panel` on, as units: made in slab.space, slab.stride
//     units apart, or where they lie, and then with a stride of their own
#pragma once

#include <cstdint>

#include "kernels/cpu/panel_kernel.h"
#include "kernels/cpu/store_row.h"
#include "kernels/cpu/tile_product.h"

namespace lancet {

// A slab: [panels][units of the slab][16], panels `stride` units apart.
struct PanelSlab {
  uint32_t* space;
  int64_t stride;
  const uint32_t* units;
};

template <typename S, typename W>
struct PanelGemm {
  using Args = typename W::Args;

  // A slab of a group is at most 384 KiB, which leaves room in an L2 cache for the rows that pass by. A tile
  // of rows meets all panels of the group while it is in the L1 cache.
  static constexpr int64_t kSlabUnits = 512;
  static constexpr int64_t kGroupPanels = 12;
  static constexpr int64_t kGroupCols = kGroupPanels * kPanelCols;
  // Few rows are done with a slab before it would leave the L1 cache, if it is small: 8 KiB of each panel of
  // a tile. The sums, which then come and go more often, are few.
  static constexpr int64_t kFewRows = 8;
  static constexpr int64_t kFewUnits = 128;
  // Scratch holds a slab of a group and the sums of this many tiles.
  static constexpr int64_t kChunkTiles = 768 / S::kTileRows;
  static_assert((kGroupCols * kSlabUnits + kChunkTiles * S::kTileRows * kGroupCols) * 4 <= (1 << 20));

  static void Pack(const uint16_t* x, int64_t x_stride, int count, int64_t cols, uint32_t* tile) {
    const uint16_t* rows[S::kTileRows];
    for (int m = 0; m < count; ++m) rows[m] = x + m * x_stride;
    PackTile<S>(rows, count, cols, tile);
  }

  // Tokens [token_begin, token_end), `panels` <= kGroupPanels panels from `panel` on, slabs of `slab_units`.
  static void RunGroup(const Args& args, int64_t token_begin, int64_t token_end, int64_t panel,
                       int64_t panels, int64_t slab_units) {
    const int64_t x_units = UnitsOf<S>(args.cols);
    const int64_t slab_cols = slab_units * S::kUnitCols;
    uint32_t* space = reinterpret_cast<uint32_t*>(args.scratch);
    float* sums = reinterpret_cast<float*>(space + kGroupCols * kSlabUnits);
    for (int64_t k = 0; k < args.cols; k += slab_cols) {
      const int64_t cols = args.cols - k < slab_cols ? args.cols - k : slab_cols;
      PanelSlab slab{space, slab_units * kPanelCols, nullptr};
      W::Slab(args, panel, panels, k, cols, slab);
      TileProductArgs product;
      product.panels = slab.units;
      product.panel_stride = slab.stride;
      product.units = UnitsOf<S>(cols);
      product.c_stride = kGroupCols;
      product.accumulate = k > 0;
      for (int64_t t = token_begin; t < token_end; t += S::kTileRows) {
        const int rows = token_end - t < S::kTileRows ? static_cast<int>(token_end - t) : S::kTileRows;
        product.rows = args.x + t * x_units + k / S::kUnitCols * rows;
        product.c = sums + (t - token_begin) * kGroupCols;
        RunTilePanels<S>(rows, panels, product);
      }
    }
    const int64_t col = panel * kPanelCols;
    const int64_t left = args.rows - col;
    const int64_t count = left < panels * kPanelCols ? left : panels * kPanelCols;
    for (int64_t t = token_begin; t < token_end; ++t) {
      StoreRow<S>(args, sums + (t - token_begin) * kGroupCols, t, col, count);
    }
  }

  static void Run(const Args& args) {
    constexpr int64_t kChunk = kChunkTiles * S::kTileRows;
    const bool few = args.tokens <= kFewRows;
    const int64_t group = few ? MaxTilePanels<S>(static_cast<int>(args.tokens)) : kGroupPanels;
    for (int64_t t = 0; t < args.tokens; t += kChunk) {
      const int64_t token_end = args.tokens - t < kChunk ? args.tokens : t + kChunk;
      for (int64_t panel = args.panel_begin; panel < args.panel_end; panel += group) {
        const int64_t left = args.panel_end - panel;
        RunGroup(args, t, token_end, panel, left < group ? left : group, few ? kFewUnits : kSlabUnits);
      }
    }
  }

  static RowPacker Packer() {
    RowPacker packer;
    packer.tile_rows = S::kTileRows;
    packer.row_units = &UnitsOf<S>;
    packer.pack = &Pack;
    return packer;
  }
};

}  // namespace lancet
