// Dense bf16 Linear through oneDNN: for the layers that a checkpoint leaves unquantised.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

// A [rows, cols] bf16 weight with an optional bias, kept in the form oneDNN multiplies fastest (f32 on
// machines without bf16 instructions).
class DenseLinear {
 public:
  // weight: [rows, cols]; bias: [rows] or empty. Copies.
  static absl::StatusOr<DenseLinear> Create(const KernelContext& ctx, ConstMatrixView<bf16> weight,
                                            absl::Span<const bf16> bias);
  DenseLinear(DenseLinear&&) noexcept;
  DenseLinear& operator=(DenseLinear&&) noexcept;
  ~DenseLinear();

  int64_t rows() const;
  int64_t cols() const;

  // y = x * w^T + bias, f32 accumulation, bias added before the one rounding. x: [tokens, cols], y: [tokens,
  // rows]. A row of y depends on that row of x alone.
  absl::Status Forward(const KernelContext& ctx, ConstMatrixView<bf16> x, MatrixView<bf16> y) const;

  // f32 sums without the rounding, for products whose columns are split over ranks. Equal from call to call
  // for the same number of tokens; no promise is made between numbers, as oneDNN may sum in another order.
  absl::Status Forward(const KernelContext& ctx, ConstMatrixView<bf16> x, MatrixView<float> y) const;

 private:
  struct Impl;
  template <typename T>
  absl::Status Run(const KernelContext& ctx, ConstMatrixView<bf16> x, MatrixView<T> y) const;
  explicit DenseLinear(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lancet
