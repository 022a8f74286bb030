#include "kernels/byte_gemm.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/byte_rows_kernel.h"
#include "kernels/quantise.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

constexpr int64_t kMaxCols = (int64_t{1} << 17) - 32;
constexpr int64_t kGrain = 16;  // rows per chunk of work

// One row as bytes, zeros behind it up to `padded`. Returns the factor.
float QuantiseInto(const bf16* row, int64_t cols, int64_t padded, int8_t* to) {
  const size_t n = static_cast<size_t>(cols);
  std::memset(to + cols, 0, static_cast<size_t>(padded - cols));
  return QuantiseInt8Row(absl::MakeConstSpan(row, n), absl::MakeSpan(to, n));
}

}  // namespace

absl::StatusOr<ByteWeights> ByteWeights::Pack(const KernelContext& ctx, ConstMatrixView<bf16> weight) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("ByteWeights", "weight", weight, weight.rows, weight.cols));
  if (weight.cols > kMaxCols) {
    return absl::InvalidArgumentError(
        absl::StrCat("ByteWeights: weight has ", weight.cols, " columns; the limit is ", kMaxCols));
  }
  ByteWeights w;
  w.rows_ = weight.rows;
  w.cols_ = weight.cols;
  w.factors_.resize(static_cast<size_t>(w.rows_));
  const int64_t padded = w.padded_cols();
  LANCET_ASSIGN_OR_RETURN(w.bytes_, PackedBuffer::Create(static_cast<size_t>(w.rows_ * padded)));
  int8_t* to = reinterpret_cast<int8_t*>(w.bytes_.data());
  ctx.pool().ParallelFor(w.rows_, kGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      w.factors_[r] = QuantiseInto(weight.row(r), w.cols_, padded, to + r * padded);
    }
  });
  return w;
}

int64_t ByteWeights::resident_bytes() const {
  return static_cast<int64_t>(bytes_.size() + factors_.size() * sizeof(float));
}

absl::Status ByteGemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const ByteWeights& w,
                      MatrixView<bf16> y) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("ByteGemm", "x", x, x.rows, w.cols()));
  LANCET_RETURN_IF_ERROR(CheckMatrix("ByteGemm", "y", y, x.rows, w.rows()));
  const int64_t padded = w.padded_cols();
  LANCET_ASSIGN_OR_RETURN(const absl::Span<std::byte> shared,
                          ctx.SharedScratch(static_cast<size_t>(x.rows * padded)));
  int8_t* values = reinterpret_cast<int8_t*>(shared.data());
  std::vector<float> factors(static_cast<size_t>(x.rows));
  for (int64_t t = 0; t < x.rows; ++t) {
    factors[t] = QuantiseInto(x.row(t), x.cols, padded, values + t * padded);
  }
  ByteRowsArgs args;
  args.x = values;
  args.tokens = x.rows;
  args.w = w.bytes();
  args.cols = padded;
  args.w_factors = w.factors().data();
  args.x_factors = factors.data();
  args.y = reinterpret_cast<uint16_t*>(y.data);
  args.y_stride = y.stride;
  const ByteRowsKernel kernel = ctx.isa() == CpuIsa::kPortable ? &ByteRowsPortable : &ByteRowsAvx2;
  ctx.pool().ParallelFor(w.rows(), kGrain, [&](int64_t begin, int64_t end, int) {
    ByteRowsArgs mine = args;
    mine.row_begin = begin;
    mine.row_end = end;
    kernel(mine);
  });
  return absl::OkStatus();
}

}  // namespace lancet
