// A dense weight kept as bytes, for few rows at a time: an output head reads all of it for every token, so
// what counts is its size. w ~ bytes * a factor per row, x ~ bytes * a factor per row (QuantiseInt8Row of
// kernels/quantise.h on both sides); sums are integers.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"
#include "kernels/packed_buffer.h"

namespace lancet {

// Copies; the view may go away.
class ByteWeights {
 public:
  // InvalidArgument if the view's shape is inconsistent, or beyond 2^17 - 32 columns.
  static absl::StatusOr<ByteWeights> Pack(const KernelContext& ctx, ConstMatrixView<bf16> weight);

  ByteWeights() = default;
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t resident_bytes() const;

  // Read by the kernels: [rows][padded_cols()], columns beyond cols() are zero.
  int64_t padded_cols() const { return (cols_ + 31) / 32 * 32; }
  const int8_t* bytes() const { return reinterpret_cast<const int8_t*>(bytes_.data()); }
  const std::vector<float>& factors() const { return factors_; }  // [rows]

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  PackedBuffer bytes_;
  std::vector<float> factors_;
};

// y = x * w^T, rounded once to bf16 behind two roundings of the factors' product.
//   x: [tokens, cols]   y: [tokens, rows], must not overlap x
// A row of y depends on that row of x alone, to the bit, and is the same on every CPU. InvalidArgument if
// shapes disagree.
absl::Status ByteGemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const ByteWeights& w,
                      MatrixView<bf16> y);

}  // namespace lancet
