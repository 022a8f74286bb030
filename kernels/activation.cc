#include "kernels/activation.h"

#include "common/status_macros.h"
#include "kernels/cpu/row_dispatch.h"
#include "kernels/shape_check.h"

namespace lancet {

absl::Status SiluMul(const KernelContext& ctx, ConstMatrixView<bf16> gate_up, MatrixView<bf16> y) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("SiluMul", "gate_up", gate_up, y.rows, 2 * y.cols));
  LANCET_RETURN_IF_ERROR(CheckMatrix("SiluMul", "y", y, y.rows, y.cols));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  ctx.pool().ParallelFor(y.rows, MinRows(y.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const uint16_t* gate = reinterpret_cast<const uint16_t*>(gate_up.row(r));
      kernels.silu_mul(gate, gate + y.cols, y.cols, reinterpret_cast<uint16_t*>(y.row(r)));
    }
  });
  return absl::OkStatus();
}

absl::Status Silu(const KernelContext& ctx, MatrixView<bf16> x) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("Silu", "x", x, x.rows, x.cols));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  ctx.pool().ParallelFor(x.rows, MinRows(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) kernels.silu(reinterpret_cast<uint16_t*>(x.row(r)), x.cols);
  });
  return absl::OkStatus();
}

absl::Status Gelu(const KernelContext& ctx, MatrixView<bf16> x) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("Gelu", "x", x, x.rows, x.cols));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  ctx.pool().ParallelFor(x.rows, MinRows(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) kernels.gelu(reinterpret_cast<uint16_t*>(x.row(r)), x.cols);
  });
  return absl::OkStatus();
}

absl::Status AddBias(const KernelContext& ctx, ConstMatrixView<float> sums, absl::Span<const bf16> bias,
                     MatrixView<bf16> y) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("AddBias", "sums", sums, y.rows, y.cols));
  LANCET_RETURN_IF_ERROR(CheckMatrix("AddBias", "y", y, y.rows, y.cols));
  LANCET_RETURN_IF_ERROR(CheckLength("AddBias", "bias", bias.size(), y.cols));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  const uint16_t* b = reinterpret_cast<const uint16_t*>(bias.data());
  ctx.pool().ParallelFor(y.rows, MinRows(y.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.add_bias(sums.row(r), b, y.cols, reinterpret_cast<uint16_t*>(y.row(r)));
    }
  });
  return absl::OkStatus();
}

absl::Status AddResidual(const KernelContext& ctx, ConstMatrixView<float> delta, absl::Span<const bf16> bias,
                         MatrixView<bf16> x) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("AddResidual", "delta", delta, x.rows, x.cols));
  LANCET_RETURN_IF_ERROR(CheckMatrix("AddResidual", "x", x, x.rows, x.cols));
  LANCET_RETURN_IF_ERROR(CheckLength("AddResidual", "bias", bias.size(), x.cols));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  const uint16_t* b = reinterpret_cast<const uint16_t*>(bias.data());
  ctx.pool().ParallelFor(x.rows, MinRows(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.add_biased_residual(delta.row(r), b, x.cols, reinterpret_cast<uint16_t*>(x.row(r)));
    }
  });
  return absl::OkStatus();
}

absl::Status AddResidual(const KernelContext& ctx, ConstMatrixView<float> delta, MatrixView<bf16> x) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("AddResidual", "delta", delta, x.rows, x.cols));
  LANCET_RETURN_IF_ERROR(CheckMatrix("AddResidual", "x", x, x.rows, x.cols));
  const RowKernels kernels = RowKernelsFor(ctx.isa());
  ctx.pool().ParallelFor(x.rows, MinRows(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.add_residual(delta.row(r), x.cols, reinterpret_cast<uint16_t*>(x.row(r)));
    }
  });
  return absl::OkStatus();
}

}  // namespace lancet
