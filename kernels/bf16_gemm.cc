#include "kernels/bf16_gemm.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/bf16_kernel.h"
#include "kernels/cpu/panel_dispatch.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

Bf16Kernel KernelFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512Bf16:
      return Bf16KernelAvx512Bf16();
    case CpuIsa::kAvx512:
      return Bf16KernelAvx512();
    case CpuIsa::kAvx2:
      return Bf16KernelAvx2();
    case CpuIsa::kPortable:
      break;
  }
  return Bf16KernelPortable();
}

uint32_t Bits(bf16 x) { return x.bits; }

}  // namespace

absl::StatusOr<Bf16Weights> Bf16Weights::Pack(const KernelContext& ctx, ConstMatrixView<bf16> weight) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("Bf16Weights", "weight", weight, weight.rows, weight.cols));
  if (weight.cols < 2 || weight.cols % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Bf16Weights: ", weight.cols, " columns; expected an even number"));
  }
  Bf16Weights w;
  w.rows_ = weight.rows;
  w.cols_ = weight.cols;
  const int64_t panels = (w.rows_ + kPanelRows - 1) / kPanelRows;
  const int64_t panel_pairs = w.cols_ / 2 * kPanelRows;
  w.pairs_.resize(static_cast<size_t>(panels * panel_pairs));
  ctx.pool().ParallelFor(panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin * kPanelRows; r < std::min(end * kPanelRows, w.rows_); ++r) {
      const bf16* from = weight.row(r);
      uint32_t* to = w.pairs_.data() + r / kPanelRows * panel_pairs + r % kPanelRows;
      for (int64_t c = 0; c < w.cols_; c += 2, to += kPanelRows)
        *to = Bits(from[c]) | Bits(from[c + 1]) << 16;
    }
  });
  return w;
}

absl::Status Bf16Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Bf16Weights& w,
                      MatrixView<bf16> y) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("Bf16Gemm", "x", x, x.rows, w.cols()));
  LANCET_RETURN_IF_ERROR(CheckMatrix("Bf16Gemm", "y", y, x.rows, w.rows()));
  if (x.rows == 0 || w.rows() == 0) return absl::OkStatus();
  Bf16KernelArgs args;
  args.pairs = w.pairs().data();
  args.y_bf16 = reinterpret_cast<uint16_t*>(y.data);
  args.y_stride = y.stride;
  return RunPanels(ctx, KernelFor(ctx.isa()), x, w.rows(), args);
}

}  // namespace lancet
