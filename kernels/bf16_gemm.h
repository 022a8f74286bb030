// Products with dense bf16 weights whose rows don't depend on what else is multiplied: for the output head,
// which scores the tokens of many answers at once. (DenseLinear leaves the order of its sums to oneDNN, which
// may choose another one for another number of rows.)
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

// A [rows, cols] bf16 weight, repacked; cols is even.
class Bf16Weights {
 public:
  // Copies; the view may go away.
  static absl::StatusOr<Bf16Weights> Pack(const KernelContext& ctx, ConstMatrixView<bf16> weight);

  Bf16Weights() = default;
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }

  // Layout, read by the kernels in kernels/cpu/: rows are grouped in panels of kPanelRows, the last one
  // padded with zeros: [panel][cols / 2][kPanelRows] pairs of consecutive columns, the even one in the low
  // half.
  static constexpr int64_t kPanelRows = 16;
  const std::vector<uint32_t>& pairs() const { return pairs_; }

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<uint32_t> pairs_;
};

// y = x * w^T, rounded once to bf16.
//   x: [tokens, cols]   y: [tokens, rows], must not overlap x
// A row of y depends on that row of x alone, to the bit: not on `tokens`, nor on the number of threads.
// InvalidArgument if shapes disagree.
absl::Status Bf16Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Bf16Weights& w,
                      MatrixView<bf16> y);

}  // namespace lancet
