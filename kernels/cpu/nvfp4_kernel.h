// The NVFP4 product of one thread, per instruction set. Plain data and function pointers only: the sources
// behind them are built with flags of their own and must share no inline code with the rest.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lancet {

// A range of panels of y = x w^T. bf16 values are bit patterns.
struct Nvfp4KernelArgs {
  const uint32_t* x = nullptr;  // all rows, packed by Nvfp4Kernel::pack
  int64_t tokens = 0;
  int64_t cols = 0;                // a multiple of 16
  const uint8_t* codes = nullptr;  // layout of Nvfp4Weights
  const uint16_t* scales = nullptr;
  int64_t rows = 0;  // of the weight, without padding
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  const uint16_t* bias = nullptr;  // [rows], or null
  uint16_t* y_bf16 = nullptr;      // one of the two is null
  float* y_f32 = nullptr;
  int64_t y_stride = 0;
  std::byte* scratch = nullptr;  // KernelContext::kScratchBytes, 64-byte aligned
};

struct Nvfp4Kernel {
  int tile_rows = 0;  // rows of a packed tile
  int unit_cols = 0;  // columns per four packed bytes
  // Packs `count` <= tile_rows rows of x, which begins at the first of them, into count * cols / unit_cols
  // units.
  void (*pack)(const uint16_t* x, int64_t x_stride, int count, int64_t cols, uint32_t* tile) = nullptr;
  void (*run)(const Nvfp4KernelArgs& args) = nullptr;
};

Nvfp4Kernel Nvfp4KernelPortable();
Nvfp4Kernel Nvfp4KernelAvx2();
Nvfp4Kernel Nvfp4KernelAvx512();
Nvfp4Kernel Nvfp4KernelAvx512Bf16();

}  // namespace lancet
