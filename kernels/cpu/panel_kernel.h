// What products with packed weights share, per instruction set. Plain data and function pointers only: the
// sources behind them are built with flags of their own and must share no inline code with the rest.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lancet {

// A range of panels (16 rows of the weight each) of y = x w^T. bf16 values are bit patterns.
struct PanelKernelArgs {
  const uint32_t* x = nullptr;  // all rows, packed by RowPacker
  int64_t tokens = 0;
  int64_t cols = 0;
  int64_t rows = 0;  // of the weight, without padding
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  const uint16_t* bias = nullptr;  // [rows], or null
  uint16_t* y_bf16 = nullptr;      // one of the two is null
  float* y_f32 = nullptr;
  int64_t y_stride = 0;
  std::byte* scratch = nullptr;  // KernelContext::kScratchBytes, 64-byte aligned
};

// How rows of x are laid out for a kernel.
struct RowPacker {
  int tile_rows = 0;                             // rows of a packed tile
  int64_t (*row_units)(int64_t cols) = nullptr;  // units of four bytes that a packed row takes
  // Packs `count` <= tile_rows rows of x, which begins at the first of them, into count * row_units(cols)
  // units.
  void (*pack)(const uint16_t* x, int64_t x_stride, int count, int64_t cols, uint32_t* tile) = nullptr;
};

}  // namespace lancet
