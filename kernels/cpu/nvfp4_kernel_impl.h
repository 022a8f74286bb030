// NVFP4 weights as panel_gemm.h wants them: a slab of codes and scales is expanded to bf16.
#pragma once

#include <cstdint>

#include "kernels/cpu/nvfp4_kernel.h"
#include "kernels/cpu/panel_gemm.h"

namespace lancet {

template <typename S>
struct Nvfp4Panels {
  using Args = Nvfp4KernelArgs;

  // `cols` columns of one panel. kPlain: products with 1.5 are rounded once per block, and doubled from there
  // for the codes 3 and 6.
  template <bool kPlain>
  static void ExpandPanel(const uint8_t* codes, const uint16_t* scales, int64_t cols, uint32_t* units) {
    constexpr int kEight = 8 / S::kUnitCols * kPanelCols;
    for (int64_t block = 0; block < cols / 16; ++block) {
      for (int i = 0; i < kPanelCols; i += S::kLanes) {
        const typename S::F scale = S::LoadBf16(scales + i);
        for (int half = 0; half < 2; ++half) {
          S::template ExpandNvfp4<kPlain>(codes + (half * kPanelCols + i) * 4, scale,
                                          units + half * kEight + i);
        }
      }
      codes += 8 * kPanelCols;
      units += 2 * kEight;
      scales += kPanelCols;
    }
  }

  static void Slab(const Nvfp4KernelArgs& args, int64_t panel, int64_t panels, int64_t k, int64_t cols,
                   PanelSlab& slab) {
    const int64_t panel_bytes = args.cols / 2 * kPanelCols + args.cols / 8 * kPanelCols;
    for (int64_t p = 0; p < panels; ++p) {
      const uint8_t* codes = args.panels + (panel + p) * panel_bytes;
      const uint8_t* scales = codes + args.cols / 2 * kPanelCols;
      const uint16_t* first_scale = reinterpret_cast<const uint16_t*>(scales + k / 8 * kPanelCols);
      uint32_t* units = slab.space + p * slab.stride;
      if (args.plain_scales) {
        ExpandPanel<true>(codes + k / 2 * kPanelCols, first_scale, cols, units);
      } else {
        ExpandPanel<false>(codes + k / 2 * kPanelCols, first_scale, cols, units);
      }
    }
    slab.units = slab.space;
  }
};

template <typename S>
Nvfp4Kernel MakeNvfp4Kernel() {
  using Gemm = PanelGemm<S, Nvfp4Panels<S>>;
  return {Gemm::Packer(), &Gemm::Run};
}

}  // namespace lancet
