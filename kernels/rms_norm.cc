#include "kernels/rms_norm.h"

#include "common/status_macros.h"
#include "kernels/cpu/row_dispatch.h"
#include "kernels/shape_check.h"

namespace lancet {

absl::Status RmsNorm(const KernelContext& ctx, ConstMatrixView<bf16> x, absl::Span<const bf16> weight,
                     float eps, MatrixView<bf16> y) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("RmsNorm", "x", x, x.rows, static_cast<int64_t>(weight.size())));
  LANCET_RETURN_IF_ERROR(CheckMatrix("RmsNorm", "y", y, x.rows, x.cols));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  const uint16_t* w = reinterpret_cast<const uint16_t*>(weight.data());
  ctx.pool().ParallelFor(x.rows, MinRows(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.rms_norm(reinterpret_cast<const uint16_t*>(x.row(r)), w, eps, x.cols,
                       reinterpret_cast<uint16_t*>(y.row(r)));
    }
  });
  return absl::OkStatus();
}

}  // namespace lancet
