// bf16 weights as panel_gemm.h wants them: multiplied where they lie if the machine multiplies bf16 pairs,
// else widened slab by slab.
#pragma once

#include <cstdint>

#include "kernels/cpu/bf16_kernel.h"
#include "kernels/cpu/panel_gemm.h"

namespace lancet {

template <typename S>
struct Bf16Panels {
  using Args = Bf16KernelArgs;

  static void Slab(const Bf16KernelArgs& args, int64_t panel, int64_t panels, int64_t k, int64_t cols,
                   PanelSlab& slab) {
    const int64_t panel_pairs = (args.cols + 1) / 2 * kPanelCols;
    const uint32_t* from = args.pairs + panel * panel_pairs + k / 2 * kPanelCols;
    if constexpr (S::kUnitCols == 2) {
      slab.units = from;
      slab.stride = panel_pairs;
    } else {
      for (int64_t p = 0; p < panels; ++p) {
        const uint32_t* pairs = from + p * panel_pairs;
        uint32_t* units = slab.space + p * slab.stride;
        // A last column that is odd makes a unit too many, which nothing reads: slabs have an even size.
        for (int64_t u = 0; u < (cols + 1) / 2; ++u) {
          for (int i = 0; i < kPanelCols; ++i) {
            units[i] = pairs[i] << 16;
            units[kPanelCols + i] = pairs[i] & 0xffff0000u;
          }
          pairs += kPanelCols;
          units += 2 * kPanelCols;
        }
      }
      slab.units = slab.space;
    }
  }
};

template <typename S>
Bf16Kernel MakeBf16Kernel() {
  using Gemm = PanelGemm<S, Bf16Panels<S>>;
  return {Gemm::Packer(), &Gemm::Run};
}

}  // namespace lancet
