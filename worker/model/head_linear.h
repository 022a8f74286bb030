// The output head in the form that was chosen for it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/bf16_gemm.h"
#include "kernels/byte_gemm.h"
#include "kernels/kernel_context.h"
#include "worker/loader/linear_policy.h"

namespace lancet {

class HeadLinear {
 public:
  // Copies; the view may go away.
  static absl::StatusOr<HeadLinear> Create(const KernelContext& ctx, ConstMatrixView<bf16> weight,
                                           HeadForm form);

  HeadLinear() = default;
  int64_t rows() const { return form_ == HeadForm::kBf16 ? bf16_.rows() : bytes_.rows(); }

  // y = x * w^T, rounded once to bf16.   x: [tokens, cols]   y: [tokens, rows]
  // A row of y depends on that row of x alone, to the bit. InvalidArgument if shapes disagree.
  absl::Status Run(const KernelContext& ctx, ConstMatrixView<bf16> x, MatrixView<bf16> y) const;

 private:
  HeadForm form_ = HeadForm::kBf16;
  Bf16Weights bf16_;   // kBf16
  ByteWeights bytes_;  // kInt8
};

}  // namespace lancet
