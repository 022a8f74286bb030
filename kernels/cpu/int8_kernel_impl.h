// The product of int8_kernel.h, written once over the primitives of an instruction set `S` (simd_int8_*.h).
//
// Few rows are multiplied with weights that are expanded in registers. Otherwise a slab of a group of panels
// is expanded to bytes once, in the L2 cache, and all rows pass by before the next one; partial sums wait in
// scratch.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/int8_kernel.h"
#include "kernels/cpu/store_row.h"
#include "kernels/cpu/unroll.h"

namespace lancet {

constexpr int kInt8PanelRows = 16;
constexpr int64_t kInt8RowUnits = 5;  // of a block of a packed row

// Weights of a panel as they are kept.
template <typename S, bool kE4m3>
struct Int8FromCodes {
  static constexpr int64_t kScaleBytes = kE4m3 ? 1 : 2;
  const uint8_t* codes;   // [blocks][2][16][4]
  const uint8_t* scales;  // [blocks][16] E4M3 or bf16

  // Lanes [lane, lane + S::kLanes) of a block: four vectors of four columns each, and the scales.
  inline __attribute__((always_inline)) typename S::F LoadBlock(int64_t block, int lane,
                                                                typename S::W* w) const {
    const uint8_t* p = codes + block * 8 * kInt8PanelRows + lane * 4;
    S::ExpandCodes(p, w, w + 1);
    S::ExpandCodes(p + 4 * kInt8PanelRows, w + 2, w + 3);
    const uint8_t* scale = scales + (block * kInt8PanelRows + lane) * kScaleBytes;
    if constexpr (kE4m3) {
      return S::LoadE4m3(scale);
    } else {
      return S::LoadBf16(reinterpret_cast<const uint16_t*>(scale));
    }
  }
};

// Weights of a panel in a slab.
template <typename S>
struct Int8FromSlab {
  // A block: 16 columns of 16 rows as bytes, then 16 scales in f32.
  static constexpr int64_t kBlockBytes = 16 * kInt8PanelRows + 4 * kInt8PanelRows;
  const uint8_t* slab;

  inline __attribute__((always_inline)) typename S::F LoadBlock(int64_t block, int lane,
                                                                typename S::W* w) const {
    const uint8_t* p = slab + block * kBlockBytes;
    LANCET_UNROLL
    for (int g = 0; g < 4; ++g) w[g] = S::LoadWeights(p + (g * kInt8PanelRows + lane) * 4);
    return S::Load(reinterpret_cast<const float*>(p + 16 * kInt8PanelRows) + lane);
  }

  template <typename Codes>
  static void Expand(const Codes& from, int64_t blocks, uint8_t* to) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int lane = 0; lane < kInt8PanelRows; lane += S::kLanes) {
        typename S::W w[4];
        const typename S::F scale = from.LoadBlock(block, lane, w);
        LANCET_UNROLL
        for (int g = 0; g < 4; ++g) S::StoreWeights(to + (g * kInt8PanelRows + lane) * 4, w[g]);
        S::Store(reinterpret_cast<float*>(to + 16 * kInt8PanelRows) + lane, scale);
      }
      to += kBlockBytes;
    }
  }
};

// M packed rows times V vectors of a panel from `lane` on: `blocks` blocks, added to c if `accumulate`.
//   rows: [blocks][M][5]   c: [M][>= 16]
template <typename S, int M, int V, typename From>
void Int8Tile(const From& from, const uint32_t* rows, int64_t blocks, int lane, bool accumulate, float* c,
              int64_t c_stride) {
  typename S::F acc[M][V];
  LANCET_UNROLL
  for (int m = 0; m < M; ++m) {
    LANCET_UNROLL
    for (int v = 0; v < V; ++v) {
      acc[m][v] = accumulate ? S::Load(c + m * c_stride + lane + v * S::kLanes) : S::Set1(0.0f);
    }
  }
  for (int64_t block = 0; block < blocks; ++block) {
    LANCET_UNROLL
    for (int v = 0; v < V; ++v) {
      typename S::W w[4];
      const typename S::F scale = from.LoadBlock(block, lane + v * S::kLanes, w);
      LANCET_UNROLL
      for (int m = 0; m < M; ++m) {
        acc[m][v] = S::Fma(S::Dot(w, rows + m * kInt8RowUnits), scale, acc[m][v]);
      }
    }
    rows += M * kInt8RowUnits;
  }
  LANCET_UNROLL
  for (int m = 0; m < M; ++m) {
    LANCET_UNROLL
    for (int v = 0; v < V; ++v) S::Store(c + m * c_stride + lane + v * S::kLanes, acc[m][v]);
  }
}

// A whole panel for 1 <= rows <= S::kTileRows. Few rows take several vectors at a time, so that a panel is
// passed once and more sums are under way.
template <typename S, typename From, int M = S::kTileRows>
void Int8Panel(int count, const From& from, const uint32_t* rows, int64_t blocks, bool accumulate, float* c,
               int64_t c_stride) {
  if constexpr (M > 1) {
    if (count < M) return Int8Panel<S, From, M - 1>(count, from, rows, blocks, accumulate, c, c_stride);
  }
  constexpr int kVectors = kInt8PanelRows / S::kLanes;
  constexpr int kAtOnce = 2 * M <= S::kTileRows && kVectors > 1 ? 2 : 1;
  for (int v = 0; v < kVectors; v += kAtOnce) {
    Int8Tile<S, M, kAtOnce>(from, rows, blocks, v * S::kLanes, accumulate, c, c_stride);
  }
}

template <typename S, bool kE4m3>
struct Int8Gemm {
  using FromCodes = Int8FromCodes<S, kE4m3>;
  // A slab of a group is 320 KiB at most, and leaves room in an L2 cache for the rows that pass by.
  static constexpr int64_t kSlabBlocks = 128;
  static constexpr int64_t kGroupPanels = 8;
  static constexpr int64_t kGroupCols = kGroupPanels * kInt8PanelRows;
  static constexpr int64_t kPanelSlab = kSlabBlocks * Int8FromSlab<S>::kBlockBytes;
  static constexpr int64_t kChunk = 1024 / S::kTileRows * S::kTileRows;  // rows whose sums scratch holds
  static_assert(kGroupPanels * kPanelSlab + kChunk * kGroupCols * 4 <= (1 << 20));
  // Expanding a block costs about as much as multiplying one or two rows with it; from two tiles on it is
  // done once for all of them.
  static constexpr int64_t kFewRows = S::kTileRows;

  static int64_t RowUnits(int64_t cols) { return cols / 16 * kInt8RowUnits + 1; }

  static void Pack(const uint16_t* x, int64_t x_stride, int count, int64_t cols, uint32_t* tile) {
    const int64_t blocks = cols / 16;
    for (int m = 0; m < count; ++m) {
      const uint16_t* row = x + m * x_stride;
      // Half of the row's factor, as codes are doubled. See QuantiseInt8Row for the rest.
      uint32_t factor_bits = 0x7fc00000u;  // NaN
      float inverse = 0.0f;
      const uint32_t largest_bits = static_cast<uint32_t>(S::LargestMagnitude(row, cols)) << 16;
      if (largest_bits < 0x7f800000u) {
        float largest;
        std::memcpy(&largest, &largest_bits, sizeof(largest));
        const bool zeros = largest < 0x1p-100f;
        const float factor = zeros ? 0.5f : largest / 127.0f * 0.5f;
        inverse = zeros ? 0.0f : 127.0f / largest;
        std::memcpy(&factor_bits, &factor, sizeof(factor));
      }
      for (int64_t b = 0; b < blocks; ++b) {
        uint32_t* to = tile + (b * count + m) * kInt8RowUnits;
        if (inverse == 0.0f) {
          for (int i = 0; i < kInt8RowUnits; ++i) to[i] = 0;
        } else {
          S::QuantiseBlock(row + b * 16, inverse, to);
        }
      }
      tile[blocks * count * kInt8RowUnits + m] = factor_bits;
    }
  }

  static FromCodes PanelOf(const Int8KernelArgs& args, int64_t panel, int64_t block) {
    const int64_t blocks = args.cols / 16;
    const uint8_t* codes = args.panels + panel * blocks * (8 + FromCodes::kScaleBytes) * kInt8PanelRows;
    const uint8_t* scales = codes + blocks * 8 * kInt8PanelRows;
    return {codes + block * 8 * kInt8PanelRows, scales + block * kInt8PanelRows * FromCodes::kScaleBytes};
  }

  // Multiplies the sums of a tile's rows with their factors and stores `count` columns from `col` on.
  static void Finish(const Int8KernelArgs& args, const uint32_t* tile, int rows, int64_t token, float* sums,
                     int64_t stride, int64_t col, int64_t count) {
    const uint32_t* factors = tile + args.cols / 16 * kInt8RowUnits * rows;
    for (int m = 0; m < rows; ++m, sums += stride) {
      float factor;
      std::memcpy(&factor, factors + m, sizeof(factor));
      factor *= args.scale_factor;
      for (int64_t i = 0; i < count; i += S::kLanes) {
        S::Store(sums + i, S::Load(sums + i) * S::Set1(factor));
      }
      StoreRow<S>(args, sums, token + m, col, count);
    }
  }

  static int RowsAt(const Int8KernelArgs& args, int64_t token) {
    return args.tokens - token < S::kTileRows ? static_cast<int>(args.tokens - token) : S::kTileRows;
  }
  static const uint32_t* TileAt(const Int8KernelArgs& args, int64_t token) {
    return args.x + token * RowUnits(args.cols);
  }
  static int64_t ColsFrom(const Int8KernelArgs& args, int64_t col, int64_t most) {
    return args.rows - col < most ? args.rows - col : most;
  }

  static void RunFew(const Int8KernelArgs& args) {
    alignas(64) float sums[S::kTileRows * kInt8PanelRows];
    for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
      const int64_t col = panel * kInt8PanelRows;
      for (int64_t t = 0; t < args.tokens; t += S::kTileRows) {
        const int rows = RowsAt(args, t);
        Int8Panel<S>(rows, PanelOf(args, panel, 0), TileAt(args, t), args.cols / 16, false, sums,
                     kInt8PanelRows);
        Finish(args, TileAt(args, t), rows, t, sums, kInt8PanelRows, col,
               ColsFrom(args, col, kInt8PanelRows));
      }
    }
  }

  // Tokens [token_begin, token_end), `panels` <= kGroupPanels panels from `panel` on.
  static void RunGroup(const Int8KernelArgs& args, int64_t token_begin, int64_t token_end, int64_t panel,
                       int64_t panels) {
    uint8_t* slab = reinterpret_cast<uint8_t*>(args.scratch);
    float* sums = reinterpret_cast<float*>(slab + kGroupPanels * kPanelSlab);
    const int64_t all_blocks = args.cols / 16;
    for (int64_t block = 0; block < all_blocks; block += kSlabBlocks) {
      const int64_t blocks = all_blocks - block < kSlabBlocks ? all_blocks - block : kSlabBlocks;
      for (int64_t p = 0; p < panels; ++p) {
        Int8FromSlab<S>::Expand(PanelOf(args, panel + p, block), blocks, slab + p * kPanelSlab);
      }
      for (int64_t t = token_begin; t < token_end; t += S::kTileRows) {
        const int rows = RowsAt(args, t);
        const uint32_t* tile = TileAt(args, t) + block * rows * kInt8RowUnits;
        for (int64_t p = 0; p < panels; ++p) {
          Int8Panel<S>(rows, Int8FromSlab<S>{slab + p * kPanelSlab}, tile, blocks, block > 0,
                       sums + (t - token_begin) * kGroupCols + p * kInt8PanelRows, kGroupCols);
        }
      }
    }
    const int64_t col = panel * kInt8PanelRows;
    for (int64_t t = token_begin; t < token_end; t += S::kTileRows) {
      Finish(args, TileAt(args, t), RowsAt(args, t), t, sums + (t - token_begin) * kGroupCols, kGroupCols,
             col, ColsFrom(args, col, panels * kInt8PanelRows));
    }
  }

  static void Run(const Int8KernelArgs& args) {
    if (args.tokens <= kFewRows) return RunFew(args);
    for (int64_t t = 0; t < args.tokens; t += kChunk) {
      const int64_t token_end = args.tokens - t < kChunk ? args.tokens : t + kChunk;
      for (int64_t panel = args.panel_begin; panel < args.panel_end; panel += kGroupPanels) {
        const int64_t left = args.panel_end - panel;
        RunGroup(args, t, token_end, panel, left < kGroupPanels ? left : kGroupPanels);
      }
    }
  }
};

template <typename S>
void RunInt8(const Int8KernelArgs& args) {
  if (args.e4m3_scales) return Int8Gemm<S, true>::Run(args);
  Int8Gemm<S, false>::Run(args);
}

template <typename S>
Int8Kernel MakeInt8Kernel() {
  using Gemm = Int8Gemm<S, false>;
  Int8Kernel kernel;
  kernel.packer.tile_rows = S::kTileRows;
  kernel.packer.row_units = &Gemm::RowUnits;
  kernel.packer.pack = &Gemm::Pack;
  kernel.run = &RunInt8<S>;
  return kernel;
}

}  // namespace lancet
