// NVFP4 weights as panel_gemm.h wants them: a slab of codes and scales is expanded to bf16.
#pragma once

#include <cstdint>

#include "kernels/cpu/nvfp4_kernel.h"
#include "kernels/cpu/panel_gemm.h"

namespace lancet {

template <typename S>
struct Nvfp4Panels {
  using Args = Nvfp4KernelArgs;

  // `cols` columns of one panel.
  static void ExpandPanel(const uint8_t* codes, const uint16_t* scales, int64_t cols, uint32_t* units) {
    for (int64_t block = 0; block < cols / 16; ++block) {
      float scale[kPanelCols];
      for (int i = 0; i < kPanelCols; i += S::kLanes) S::Store(scale + i, S::LoadBf16(scales + i));
      for (int pair = 0; pair < 8; ++pair) {
        S::ExpandNvfp4(codes, scale, units);
        codes += kPanelCols;
        units += 2 / S::kUnitCols * kPanelCols;
      }
      scales += kPanelCols;
    }
  }

  static PanelSlab Slab(const Nvfp4KernelArgs& args, int64_t panel, int64_t panels, int64_t k, int64_t cols,
                        uint32_t* space) {
    constexpr int64_t kStride = PanelGemm<S, Nvfp4Panels>::kSlabUnits * kPanelCols;
    for (int64_t p = 0; p < panels; ++p) {
      ExpandPanel(args.codes + ((panel + p) * args.cols + k) / 2 * kPanelCols,
                  args.scales + ((panel + p) * args.cols + k) / 16 * kPanelCols, cols, space + p * kStride);
    }
    return {space, kStride};
  }
};

template <typename S>
Nvfp4Kernel MakeNvfp4Kernel() {
  using Gemm = PanelGemm<S, Nvfp4Panels<S>>;
  return {Gemm::Packer(), &Gemm::Run};
}

}  // namespace lancet
