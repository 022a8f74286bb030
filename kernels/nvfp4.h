// NVFP4 weights and their product with bf16 activations (`w4a16`): weights are expanded to bf16, activations
// stay bf16, sums are f32.
//
// A block is 16 consecutive columns of one row. A byte holds two E2M1 codes, the even column in the low
// nibble. Code bits: sign, two exponent bits, one mantissa bit; magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6. Code 8
// is a negative zero. The value of a weight is sign * magnitude * block scale, rounded to bf16.
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

// A slice of an NVFP4 matrix as it lies in a checkpoint. cols % 16 == 0. Owns nothing.
struct Nvfp4MatrixView {
  int64_t rows = 0;
  int64_t cols = 0;
  const uint8_t* codes = nullptr;  // [rows, cols / 2], rows `codes_stride` bytes apart
  int64_t codes_stride = 0;
  const bf16* scales = nullptr;  // [rows, cols / 16], rows `scales_stride` elements apart
  int64_t scales_stride = 0;
};

// NVFP4 weights of one Linear, or of several with the same input stacked by rows, repacked for the kernels of
// a context. Resident bytes are those of codes and scales: nothing is kept expanded.
class Nvfp4Weights {
 public:
  // Stacks `parts` (all with the same cols; parts may have 0 rows). Copies; the views may go away.
  static absl::StatusOr<Nvfp4Weights> Pack(const KernelContext& ctx, absl::Span<const Nvfp4MatrixView> parts);

  Nvfp4Weights() = default;
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t resident_bytes() const;

  // Layout, read by the kernels in kernels/cpu/: rows are grouped in panels of kPanelRows, the last one
  // padded with zero codes and zero scales. codes: [panel][cols / 2][kPanelRows] bytes; scales: [panel][cols
  // / 16][kPanelRows] bf16.
  static constexpr int64_t kPanelRows = 16;
  const std::vector<uint8_t>& codes() const { return codes_; }
  const std::vector<bf16>& scales() const { return scales_; }

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<uint8_t> codes_;
  std::vector<bf16> scales_;
};

// y = x * w^T + bias, rounded once to bf16.
//   x: [tokens, cols]   bias: [rows], or empty for none   y: [tokens, rows], must not overlap x
// A row of y depends on that row of x alone, to the bit: not on `tokens`, nor on the number of threads.
// InvalidArgument if shapes disagree. tokens or rows may be 0; cols == 0 gives the bias (or zeros).
absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       absl::Span<const bf16> bias, MatrixView<bf16> y);

// The same without rounding or bias: the partial sums of a row-parallel Linear.
absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       MatrixView<float> y);

}  // namespace lancet
