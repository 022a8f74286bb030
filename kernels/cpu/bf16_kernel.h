// The product with bf16 weights of one thread, per instruction set; see panel_kernel.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/panel_kernel.h"

namespace lancet {

struct Bf16KernelArgs : PanelKernelArgs {
  const uint32_t* pairs = nullptr;  // layout of Bf16Weights
};

struct Bf16Kernel {
  RowPacker packer;
  void (*run)(const Bf16KernelArgs& args) = nullptr;
};

Bf16Kernel Bf16KernelPortable();
Bf16Kernel Bf16KernelAvx2();
Bf16Kernel Bf16KernelAvx512();
Bf16Kernel Bf16KernelAvx512Bf16();

}  // namespace lancet
