// Where the sums of a product go: the same for every form of weights.
#pragma once

#include <cstdint>

#include "kernels/cpu/panel_kernel.h"

namespace lancet {

// Columns [col, col + count) of one row of y from `sums`, of which whole vectors may be read.
template <typename S>
void StoreRow(const PanelKernelArgs& args, const float* sums, int64_t token, int64_t col, int64_t count) {
  for (int64_t i = 0; i < count; i += S::kLanes) {
    const int64_t n = count - i < S::kLanes ? count - i : S::kLanes;
    typename S::F v = S::Load(sums + i);
    if (args.bias != nullptr) v = v + S::LoadBf16N(args.bias + col + i, n);
    if (args.y_f32 != nullptr) {
      S::StoreN(args.y_f32 + token * args.y_stride + col + i, v, n);
    } else {
      S::StoreBf16N(args.y_bf16 + token * args.y_stride + col + i, v, n);
    }
  }
}

}  // namespace lancet
