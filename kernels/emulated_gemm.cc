#include "kernels/emulated_gemm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/number_formats.h"
#include "kernels/quantise.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

constexpr int64_t kBlock = 16;
// Rows worked on at a time: bounds the f32 sums, and is enough to pay for expanding the weights.
constexpr int64_t kChunkRows = 256;
constexpr int64_t kGrain = 16;

const std::array<bf16, 256>& E4m3Values() {
  static const std::array<bf16, 256> values = [] {
    std::array<bf16, 256> table;
    for (int byte = 0; byte < 256; ++byte) table[byte] = ToBf16(FromE4m3(static_cast<uint8_t>(byte)));
    return table;
  }();
  return values;
}

// Rows of x as bf16 values that a small format holds exactly, and the factor of each row.
class QuantisedRows {
 public:
  QuantisedRows(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w)
      : cols_(x.cols), values_(x.rows * x.cols), factors_(x.rows, w.alpha()) {
    ctx.pool().ParallelFor(x.rows, kGrain, [&](int64_t begin, int64_t end, int) {
      std::vector<uint8_t> bytes(cols_);
      std::vector<uint8_t> scales(cols_ / kBlock);
      for (int64_t r = begin; r < end; ++r) {
        const absl::Span<const bf16> row(x.row(r), static_cast<size_t>(cols_));
        bf16* to = values_.data() + r * cols_;
        if (w.is_fp8()) {
          factors_[r] = QuantiseFp8Row(row, absl::MakeSpan(bytes));
          for (int64_t c = 0; c < cols_; ++c) to[c] = E4m3Values()[bytes[c]];
          continue;
        }
        QuantiseNvfp4Row(row, w.activation_factor(), absl::MakeSpan(bytes), absl::MakeSpan(scales));
        for (int64_t c = 0; c < cols_; ++c) {
          const uint8_t code = c % 2 == 0 ? bytes[c / 2] & 15 : bytes[c / 2] >> 4;
          to[c] = ToBf16(FromE2m1(code) * ToFloat(E4m3Values()[scales[c / kBlock]]));
        }
      }
    });
  }

  ConstMatrixView<bf16> view() const {
    return {values_.data(), static_cast<int64_t>(factors_.size()), cols_};
  }
  float factor(int64_t row) const { return factors_[row]; }

 private:
  const int64_t cols_;
  std::vector<bf16> values_;
  std::vector<float> factors_;
};

template <typename T>
absl::Status Product(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w,
                     absl::Span<const bf16> bias, MatrixView<T> y) {
  LANCET_RETURN_IF_ERROR(CheckMatrix("EmulatedGemm", "x", x, x.rows, w.cols()));
  LANCET_RETURN_IF_ERROR(CheckMatrix("EmulatedGemm", "y", y, x.rows, w.rows()));
  if (!bias.empty()) LANCET_RETURN_IF_ERROR(CheckLength("EmulatedGemm", "bias", bias.size(), w.rows()));
  std::vector<float> sums(std::min(x.rows, kChunkRows) * w.rows());
  for (int64_t first = 0; first < x.rows; first += kChunkRows) {
    const int64_t count = std::min(kChunkRows, x.rows - first);
    const QuantisedRows rows(ctx, x.Rows(first, count), w);
    const MatrixView<float> sum(sums.data(), count, w.rows());
    LANCET_RETURN_IF_ERROR(w.is_fp8() ? Bf16Gemm(ctx, rows.view(), w.fp8(), sum)
                                      : Nvfp4Gemm(ctx, rows.view(), w.nvfp4(), sum));
    ctx.pool().ParallelFor(count, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t r = 0; r < w.rows(); ++r) {
          float value = sum.row(t)[r];
          if (w.is_fp8()) value *= w.row_factors()[r];
          value *= rows.factor(t);
          if (!bias.empty()) value += ToFloat(bias[r]);
          if constexpr (std::is_same_v<T, float>) {
            y.row(first + t)[r] = value;
          } else {
            y.row(first + t)[r] = ToBf16(value);
          }
        }
      }
    });
  }
  return absl::OkStatus();
}

absl::Status CheckParts(absl::Span<const Nvfp4MatrixView> parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const Nvfp4MatrixView& part = parts[i];
    const bool empty = part.rows == 0 || part.cols == 0;
    if (part.rows < 0 || part.cols != parts[0].cols || part.cols % kBlock != 0 ||
        (!empty && (part.codes == nullptr || part.scales == nullptr))) {
      return absl::InvalidArgumentError(
          absl::StrCat("EmulatedWeights: part ", i, " is [", part.rows, ", ", part.cols, "]; expected [n, ",
                       parts[0].cols, "] with columns in whole blocks of ", kBlock, ", and data"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EmulatedWeights> EmulatedWeights::EncodeNvfp4(const KernelContext& ctx,
                                                             absl::Span<const Nvfp4MatrixView> parts,
                                                             float activation_factor, float weight_factor) {
  if (!(weight_factor >= 0.0f) || !std::isfinite(weight_factor)) {
    return absl::InvalidArgumentError(absl::StrCat("EmulatedWeights: weight_factor is ", weight_factor,
                                                   "; expected a positive number, or 0 for none"));
  }
  if (!(activation_factor > 0.0f) || !std::isfinite(activation_factor)) {
    return absl::InvalidArgumentError(absl::StrCat("EmulatedWeights: activation_factor is ",
                                                   activation_factor, "; expected a positive number"));
  }
  LANCET_RETURN_IF_ERROR(CheckParts(parts));
  EmulatedWeights w;
  float factor = 0.0f;
  for (const Nvfp4MatrixView& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r) {
      const absl::Span<const bf16> row(part.scales + r * part.scales_stride, part.cols / kBlock);
      for (const bf16 scale : row) factor = std::max(factor, std::fabs(ToFloat(scale)));
    }
  }
  factor = factor > 0.0f ? factor / kMaxE4m3 : 1.0f;
  if (weight_factor > 0.0f) factor = weight_factor;
  std::vector<std::vector<bf16>> scales;
  std::vector<Nvfp4MatrixView> encoded(parts.begin(), parts.end());
  for (Nvfp4MatrixView& part : encoded) {
    std::vector<bf16>& values = scales.emplace_back();
    for (int64_t r = 0; r < part.rows; ++r) {
      for (int64_t b = 0; b < part.cols / kBlock; ++b) {
        values.push_back(E4m3Values()[EncodeScale(part.scales[r * part.scales_stride + b], factor)]);
      }
    }
    part.scales = values.data();
    part.scales_stride = part.cols / kBlock;
  }
  LANCET_ASSIGN_OR_RETURN(w.nvfp4_, Nvfp4Weights::Pack(ctx, encoded));
  w.activation_factor_ = activation_factor;
  w.alpha_ = factor * activation_factor;
  return w;
}

absl::StatusOr<EmulatedWeights> EmulatedWeights::EncodeFp8(const KernelContext& ctx,
                                                           absl::Span<const Nvfp4MatrixView> parts) {
  LANCET_RETURN_IF_ERROR(CheckParts(parts));
  EmulatedWeights w;
  w.is_fp8_ = true;
  const int64_t cols = parts.empty() ? 0 : parts[0].cols;
  int64_t rows = 0;
  for (const Nvfp4MatrixView& part : parts) rows += part.rows;
  std::vector<bf16> dense;
  dense.reserve(rows * cols);
  for (const Nvfp4MatrixView& part : parts) {
    const Fp8Weights encoded = EncodeFp8Weights(part);
    for (const uint8_t byte : encoded.bytes) dense.push_back(E4m3Values()[byte]);
    w.row_factors_.insert(w.row_factors_.end(), encoded.factors.begin(), encoded.factors.end());
  }
  LANCET_ASSIGN_OR_RETURN(w.fp8_, Bf16Weights::Pack(ctx, ConstMatrixView<bf16>(dense.data(), rows, cols)));
  return w;
}

absl::Status EmulatedGemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w,
                          absl::Span<const bf16> bias, MatrixView<bf16> y) {
  return Product(ctx, x, w, bias, y);
}

absl::Status EmulatedGemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w,
                          MatrixView<float> y) {
  return Product(ctx, x, w, {}, y);
}

}  // namespace lancet
