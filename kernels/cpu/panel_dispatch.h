// The part of a product with packed weights that is the same for every form of weights: rows are packed once,
// panels are shared among threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "common/bf16.h"
#include "common/status_macros.h"
#include "common/tensor_view.h"
#include "kernels/cpu/panel_kernel.h"
#include "kernels/kernel_context.h"

namespace lancet {

// Runs `kernel` over all panels of a weight of `rows` rows. `args` says where the weights lie and where the
// result goes; the rest of it is filled in here.
template <typename Kernel, typename Args>
absl::Status RunPanels(const KernelContext& ctx, const Kernel& kernel, ConstMatrixView<bf16> x, int64_t rows,
                       Args args) {
  constexpr int64_t kPanelRows = 16;
  const RowPacker& packer = kernel.packer;
  const int64_t units = x.cols / packer.unit_cols;
  LANCET_ASSIGN_OR_RETURN(absl::Span<std::byte> shared,
                          ctx.SharedScratch(static_cast<size_t>(x.rows * units) * sizeof(uint32_t)));
  uint32_t* packed = reinterpret_cast<uint32_t*>(shared.data());
  const int64_t tiles = (x.rows + packer.tile_rows - 1) / packer.tile_rows;
  ctx.pool().ParallelFor(tiles, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile * packer.tile_rows;
      const int count = static_cast<int>(std::min<int64_t>(packer.tile_rows, x.rows - row));
      packer.pack(reinterpret_cast<const uint16_t*>(x.row(row)), x.stride, count, x.cols,
                  packed + row * units);
    }
  });
  args.x = packed;
  args.tokens = x.rows;
  args.cols = x.cols;
  args.rows = rows;
  ctx.pool().ParallelFor((rows + kPanelRows - 1) / kPanelRows, 1,
                         [&](int64_t begin, int64_t end, int thread) {
                           Args mine = args;
                           mine.panel_begin = begin;
                           mine.panel_end = end;
                           mine.scratch = ctx.scratch(thread).data();
                           kernel.run(mine);
                         });
  return absl::OkStatus();
}

}  // namespace lancet
