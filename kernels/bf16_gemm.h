// Dense bf16 weights and their product with bf16 activations: for the layers that a checkpoint leaves
// unquantised. Sums are f32.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

// A [rows, cols] bf16 weight, repacked. Both may be 0.
class Bf16Weights {
 public:
  // Copies; the view may go away. InvalidArgument if its stride does not hold a row.
  static absl::StatusOr<Bf16Weights> Pack(const KernelContext& ctx, ConstMatrixView<bf16> weight);

  Bf16Weights() = default;
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }

  // Layout, read by the kernels in kernels/cpu/: rows are grouped in panels of kPanelRows, the last one
  // padded with zeros: [panel][ceil(cols / 2)][kPanelRows] pairs of consecutive columns, the even one in the
  // low half. An odd last column is paired with zeros.
  static constexpr int64_t kPanelRows = 16;
  const std::vector<uint32_t>& pairs() const { return pairs_; }

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<uint32_t> pairs_;
};

// A Linear of the model: a weight [rows, cols], and a bias [rows] or none.
struct Bf16Linear {
  Bf16Weights weight;
  std::vector<bf16> bias;
};

// y = x * w^T + bias, rounded once to bf16.
//   x: [tokens, cols]   bias: [rows], or empty for none   y: [tokens, rows], must not overlap x
// A row of y depends on that row of x alone, to the bit: not on `tokens`, nor on the number of threads.
// InvalidArgument if shapes disagree. tokens or rows may be 0; cols == 0 gives the bias (or zeros).
absl::Status Bf16Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Bf16Weights& w,
                      absl::Span<const bf16> bias, MatrixView<bf16> y);

// The same without rounding or bias: the partial sums of a Linear whose columns are split over ranks.
absl::Status Bf16Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Bf16Weights& w,
                      MatrixView<float> y);

}  // namespace lancet
