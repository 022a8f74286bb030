#include "kernels/bf16_gemm.h"

#include <algorithm>

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

Bf16KernelArgs ArgsOf(const Bf16Weights& w) {
  Bf16KernelArgs args;
  args.rows = w.rows();
  args.cols = w.cols();
  args.pairs = w.pairs().data();
  return args;
}

uint32_t Bits(bf16 x) { return x.bits; }

}  // namespace

absl::StatusOr<Bf16Weights> Bf16Weights::Pack(const KernelContext& ctx, ConstMatrixView<bf16> weight) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("Bf16Weights", "weight", weight, weight.rows, weight.cols));
  Bf16Weights w;
  w.rows_ = weight.rows;
  w.cols_ = weight.cols;
  if (w.cols_ == 0) return w;
  const int64_t panels = (w.rows_ + kPanelRows - 1) / kPanelRows;
  const int64_t panel_pairs = (w.cols_ + 1) / 2 * kPanelRows;
  w.pairs_.resize(static_cast<size_t>(panels * panel_pairs));
  ctx.pool().ParallelFor(panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin * kPanelRows; r < std::min(end * kPanelRows, w.rows_); ++r) {
      const bf16* from = weight.row(r);
      uint32_t* to = w.pairs_.data() + r / kPanelRows * panel_pairs + r % kPanelRows;
      for (int64_t c = 0; c < w.cols_; c += 2, to += kPanelRows) {
        *to = Bits(from[c]) | (c + 1 < w.cols_ ? Bits(from[c + 1]) << 16 : 0);
      }
    }
  });
  return w;
}

absl::Status Bf16Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Bf16Weights& w,
                      absl::Span<const bf16> bias, MatrixView<bf16> y) {
  return PanelProduct("Bf16Gemm", ctx, KernelFor(ctx.product_isa()), ArgsOf(w), x, bias, y);
}

absl::Status Bf16Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Bf16Weights& w,
                      MatrixView<float> y) {
  return PanelProduct("Bf16Gemm", ctx, KernelFor(ctx.product_isa()), ArgsOf(w), x, {}, y);
}

}  // namespace lancet
