// NVFP4 weights and their product with bf16 activations (`w4a16`): weights are expanded to bf16, activations
// stay bf16, sums are f32.
//
// A block is 16 consecutive columns of one row. A byte holds two E2M1 codes, the even column in the low
// nibble. Code bits: sign, two exponent bits, one mantissa bit; magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6. Code 8
// is a negative zero. The value of a weight is sign * magnitude * block scale, rounded to bf16.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"
#include "kernels/packed_buffer.h"

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

// What packed weights keep of their block scales.
//   kBf16  as they are
//   kE4m3  E4M3 bytes under one factor over all parts (EncodeScales of kernels/quantise.h), which takes a
//   tenth
//          off the weights' size; of products with 8-bit activations only (kernels/int8_gemm.h)
enum class BlockScales { kBf16, kE4m3 };

// NVFP4 weights of one Linear, or of several with the same input stacked by rows, repacked for the kernels of
// a context. Resident bytes are those of codes and scales: nothing is kept expanded.
class Nvfp4Weights {
 public:
  // Stacks `parts` (all with the same cols; parts may have 0 rows). Copies; the views may go away.
  // InvalidArgument for shapes that disagree, and in kE4m3 for a scale that is not finite.
  static absl::StatusOr<Nvfp4Weights> Pack(const KernelContext& ctx, absl::Span<const Nvfp4MatrixView> parts,
                                           BlockScales form = BlockScales::kBf16);

  Nvfp4Weights() = default;
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t resident_bytes() const;

  // Layout, read by the kernels in kernels/cpu/: rows are grouped in panels of kPanelRows, the last one
  // padded with zero codes and zero scales. A panel is its codes, [cols / 16][2][kPanelRows][4] bytes, of
  // which four are eight consecutive columns of a row, and then its scales, [cols / 16][kPanelRows] bf16 or
  // E4M3.
  static constexpr int64_t kPanelRows = 16;
  const uint8_t* panels() const { return panels_.data(); }
  // Every scale is zero, or so far from the ends of bf16's range that doubling and halving products is exact.
  bool plain_scales() const { return plain_scales_; }
  BlockScales scale_form() const { return scale_form_; }
  float scale_factor() const { return scale_factor_; }  // of kE4m3; else 1

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  bool plain_scales_ = true;
  BlockScales scale_form_ = BlockScales::kBf16;
  float scale_factor_ = 1.0f;
  PackedBuffer panels_;
};

// y = x * w^T + bias, rounded once to bf16.
//   x: [tokens, cols]   bias: [rows], or empty for none   y: [tokens, rows], must not overlap x
// A row of y depends on that row of x alone, to the bit: not on `tokens`, nor on the number of threads.
// InvalidArgument if shapes disagree or scales are not kBf16. tokens or rows may be 0; cols == 0 gives the
// bias (or zeros).
absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       absl::Span<const bf16> bias, MatrixView<bf16> y);

// The same without rounding or bias: the partial sums of a row-parallel Linear.
absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       MatrixView<float> y);

}  // namespace lancet
