// The product of NVFP4 weights and activations of eight bits of one thread, per instruction set.
//
// A code times two is an integer from -12 to 12, so the sum over a block of 16 columns is an integer below
// 2^15, and that times a bf16 or E4M3 scale is exact in f32. What is rounded is one addition per block, in
// the order of blocks: so every kernel here gives the same bits, whatever its instruction set and the size of
// its tile.
//
// Packed rows: tiles of up to tile_rows rows. [block][row of the tile][5] units of four bytes: a correction,
// then the block's 16 values as signed bytes, columns 0 2 4 6, 1 3 5 7, 8 10 12 14, 9 11 13 15 (the order in
// which codes leave the nibbles of a panel). After the blocks one f32 per row: what the row's sums are
// multiplied with. Kernels multiply unsigned with signed bytes; weights are made unsigned by adding 12, and
// the correction takes that away again: -12 times the sum of the block's values, in two halves of 16 bits
// where sums are formed in 16 bits.
#pragma once

#include <cstdint>

#include "kernels/cpu/panel_kernel.h"

namespace lancet {

struct Int8KernelArgs : PanelKernelArgs {
  const uint8_t* panels = nullptr;  // layout of Nvfp4Weights
  bool e4m3_scales = false;         // else bf16
  float scale_factor = 1.0f;        // on every sum
};

struct Int8Kernel {
  RowPacker packer;
  void (*run)(const Int8KernelArgs& args) = nullptr;
};

Int8Kernel Int8KernelPortable();
Int8Kernel Int8KernelAvx2();
Int8Kernel Int8KernelAvxVnni();
Int8Kernel Int8KernelAvx512();
Int8Kernel Int8KernelAvx512Vnni();

}  // namespace lancet
