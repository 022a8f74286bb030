#include "kernels/nvfp4.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/nvfp4_kernel.h"
#include "kernels/cpu/panel_dispatch.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

constexpr int64_t kBlockCols = 16;

Nvfp4Kernel KernelFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512Bf16:
      return Nvfp4KernelAvx512Bf16();
    case CpuIsa::kAvx512:
      return Nvfp4KernelAvx512();
    case CpuIsa::kAvx2:
      return Nvfp4KernelAvx2();
    case CpuIsa::kPortable:
      break;
  }
  return Nvfp4KernelPortable();
}

absl::Status CheckPart(const Nvfp4MatrixView& part, int64_t cols, size_t index) {
  if (part.cols != cols || part.cols % kBlockCols != 0 || part.rows < 0) {
    return absl::InvalidArgumentError(absl::StrCat("Nvfp4Weights: part ", index, " is [", part.rows, ", ",
                                                   part.cols, "]; expected [n, ", cols,
                                                   "] with columns in whole blocks of ", kBlockCols));
  }
  if (part.rows == 0 || part.cols == 0) return absl::OkStatus();
  if (part.codes == nullptr || part.scales == nullptr || part.codes_stride < part.cols / 2 ||
      part.scales_stride < part.cols / kBlockCols) {
    return absl::InvalidArgumentError(absl::StrCat("Nvfp4Weights: part ", index, " of [", part.rows, ", ",
                                                   part.cols, "] has code stride ", part.codes_stride,
                                                   " and scale stride ", part.scales_stride, ", or no data"));
  }
  return absl::OkStatus();
}

Nvfp4KernelArgs ArgsOf(const Nvfp4Weights& w) {
  Nvfp4KernelArgs args;
  args.rows = w.rows();
  args.cols = w.cols();
  args.codes = w.codes().data();
  args.scales = reinterpret_cast<const uint16_t*>(w.scales().data());
  return args;
}

}  // namespace

absl::StatusOr<Nvfp4Weights> Nvfp4Weights::Pack(const KernelContext& ctx,
                                                absl::Span<const Nvfp4MatrixView> parts) {
  Nvfp4Weights w;
  if (parts.empty()) return w;
  w.cols_ = parts[0].cols;
  for (size_t i = 0; i < parts.size(); ++i) {
    LANCET_RETURN_IF_ERROR(CheckPart(parts[i], w.cols_, i));
    w.rows_ += parts[i].rows;
  }
  const int64_t panels = (w.rows_ + kPanelRows - 1) / kPanelRows;
  const int64_t code_bytes = w.cols_ / 2;
  const int64_t blocks = w.cols_ / kBlockCols;
  w.codes_.resize(static_cast<size_t>(panels * code_bytes * kPanelRows));
  w.scales_.resize(static_cast<size_t>(panels * blocks * kPanelRows));
  int64_t first_row = 0;
  for (const Nvfp4MatrixView& part : parts) {
    // Two threads may write the same panel, though never the same byte.
    ctx.pool().ParallelFor(part.rows, kPanelRows, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t panel = (first_row + r) / kPanelRows;
        const int64_t lane = (first_row + r) % kPanelRows;
        uint8_t* codes = w.codes_.data() + panel * code_bytes * kPanelRows + lane;
        bf16* scales = w.scales_.data() + panel * blocks * kPanelRows + lane;
        const uint8_t* from_codes = part.codes + r * part.codes_stride;
        const bf16* from_scales = part.scales + r * part.scales_stride;
        for (int64_t i = 0; i < code_bytes; ++i) codes[i * kPanelRows] = from_codes[i];
        for (int64_t i = 0; i < blocks; ++i) scales[i * kPanelRows] = from_scales[i];
      }
    });
    first_row += part.rows;
  }
  return w;
}

int64_t Nvfp4Weights::resident_bytes() const {
  return static_cast<int64_t>(codes_.size() + scales_.size() * sizeof(bf16));
}

absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       absl::Span<const bf16> bias, MatrixView<bf16> y) {
  return PanelProduct("Nvfp4Gemm", ctx, KernelFor(ctx.isa()), ArgsOf(w), x, bias, y);
}

absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       MatrixView<float> y) {
  return PanelProduct("Nvfp4Gemm", ctx, KernelFor(ctx.isa()), ArgsOf(w), x, {}, y);
}

}  // namespace lancet
