// The part of a product with packed weights that is the same for every form of weights: shapes are checked,
// rows are packed once, panels are shared among threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/status_macros.h"
#include "common/tensor_view.h"
#include "kernels/cpu/panel_kernel.h"
#include "kernels/kernel_context.h"
#include "kernels/shape_check.h"

namespace lancet {

// y = x * w^T + bias with `kernel`. `args` says where the weights lie and their rows and cols; the rest of it
// is filled in here. T is bf16, for which every sum is rounded once, or float. bias: [rows], or empty for
// none. InvalidArgument, beginning with `op`, if shapes disagree. tokens or rows may be 0; cols == 0 gives
// the bias (or zeros).
template <typename Kernel, typename Args, typename T>
absl::Status PanelProduct(absl::string_view op, const KernelContext& ctx, const Kernel& kernel, Args args,
                          ConstMatrixView<bf16> x, absl::Span<const bf16> bias, MatrixView<T> y) {
  constexpr int64_t kPanelRows = 16;
  LANCET_RETURN_IF_ERROR(CheckMatrix(op, "x", x, x.rows, args.cols));
  LANCET_RETURN_IF_ERROR(CheckMatrix(op, "y", y, x.rows, args.rows));
  if (!bias.empty()) LANCET_RETURN_IF_ERROR(CheckLength(op, "bias", bias.size(), args.rows));
  if (x.rows == 0 || args.rows == 0) return absl::OkStatus();
  if (args.cols == 0) {
    for (int64_t t = 0; t < y.rows; ++t) {
      for (int64_t r = 0; r < y.cols; ++r) {
        if constexpr (std::is_same_v<T, float>) {
          y.row(t)[r] = bias.empty() ? 0.0f : ToFloat(bias[r]);
        } else {
          y.row(t)[r] = bias.empty() ? bf16{} : bias[r];
        }
      }
    }
    return absl::OkStatus();
  }

  const RowPacker& packer = kernel.packer;
  const int64_t units = packer.row_units(x.cols);
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
  args.bias = bias.empty() ? nullptr : reinterpret_cast<const uint16_t*>(bias.data());
  if constexpr (std::is_same_v<T, float>) {
    args.y_f32 = y.data;
  } else {
    args.y_bf16 = reinterpret_cast<uint16_t*>(y.data);
  }
  args.y_stride = y.stride;
  ctx.pool().ParallelFor((args.rows + kPanelRows - 1) / kPanelRows, 1,
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
