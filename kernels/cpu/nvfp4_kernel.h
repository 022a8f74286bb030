// The NVFP4 product of one thread, per instruction set; see panel_kernel.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/panel_kernel.h"

namespace lancet {

// cols is a multiple of 16.
struct Nvfp4KernelArgs : PanelKernelArgs {
  const uint8_t* panels = nullptr;  // layout of Nvfp4Weights
  bool plain_scales = false;        // as there
};

struct Nvfp4Kernel {
  RowPacker packer;
  void (*run)(const Nvfp4KernelArgs& args) = nullptr;
};

Nvfp4Kernel Nvfp4KernelPortable();
Nvfp4Kernel Nvfp4KernelAvx2();
Nvfp4Kernel Nvfp4KernelAvx512();
Nvfp4Kernel Nvfp4KernelAvx512Bf16();

}  // namespace lancet
