#include "kernels/rope.h"

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/row_dispatch.h"
#include "kernels/shape_check.h"

namespace lancet {

absl::Status QkNormRope(const KernelContext& ctx, MatrixView<bf16> x, int64_t heads,
                        absl::Span<const bf16> weight, float eps, ConstMatrixView<bf16> cos,
                        ConstMatrixView<bf16> sin, absl::Span<const uint8_t> wide_rows) {
  const int64_t head_dim = static_cast<int64_t>(weight.size());
  if (heads < 0 || head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("QkNormRope: ", heads, " heads of ", head_dim, " dimensions; expected an even number"));
  }
  LANCET_RETURN_IF_ERROR(CheckMatrix("QkNormRope", "x", x, x.rows, heads * head_dim));
  LANCET_RETURN_IF_ERROR(CheckMatrix("QkNormRope", "cos", cos, x.rows, head_dim / 2));
  LANCET_RETURN_IF_ERROR(CheckMatrix("QkNormRope", "sin", sin, x.rows, head_dim / 2));
  LANCET_RETURN_IF_ERROR(CheckLength("QkNormRope", "wide_rows", wide_rows.size(), x.rows));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  const uint16_t* w = reinterpret_cast<const uint16_t*>(weight.data());
  ctx.pool().ParallelFor(x.rows, MinRows(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        kernels.norm_rope(reinterpret_cast<uint16_t*>(x.row(r)) + h * head_dim, w, eps,
                          reinterpret_cast<const uint16_t*>(cos.row(r)),
                          reinterpret_cast<const uint16_t*>(sin.row(r)), head_dim, wide_rows[r] != 0);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status Rope(const KernelContext& ctx, MatrixView<bf16> x, int64_t heads, ConstMatrixView<bf16> cos,
                  ConstMatrixView<bf16> sin) {
  if (heads < 0) return absl::InvalidArgumentError(absl::StrCat("Rope: ", heads, " heads"));
  const int64_t half = cos.cols;
  LANCET_RETURN_IF_ERROR(CheckMatrix("Rope", "x", x, x.rows, heads * 2 * half));
  LANCET_RETURN_IF_ERROR(CheckMatrix("Rope", "cos", cos, x.rows, half));
  LANCET_RETURN_IF_ERROR(CheckMatrix("Rope", "sin", sin, x.rows, half));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  ctx.pool().ParallelFor(x.rows, MinRows(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        kernels.rope(reinterpret_cast<uint16_t*>(x.row(r)) + h * 2 * half,
                     reinterpret_cast<const uint16_t*>(cos.row(r)),
                     reinterpret_cast<const uint16_t*>(sin.row(r)), 2 * half);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace lancet
