#include "worker/model/layer_linear.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/int8_gemm.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

absl::Status Plain(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                   absl::Span<const bf16> bias, MatrixView<bf16> y) {
  return Nvfp4Gemm(ctx, x, w, bias, y);
}
absl::Status Plain(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                   absl::Span<const bf16> /*bias*/, MatrixView<float> y) {
  return Nvfp4Gemm(ctx, x, w, y);
}
absl::Status Emulated(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w,
                      absl::Span<const bf16> bias, MatrixView<bf16> y) {
  return EmulatedGemm(ctx, x, w, bias, y);
}
absl::Status Emulated(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w,
                      absl::Span<const bf16> /*bias*/, MatrixView<float> y) {
  return EmulatedGemm(ctx, x, w, y);
}

// Runs `product` on the rows whose flag is `flag`, gathered.
template <typename T, typename Product>
absl::Status OnRows(ConstMatrixView<bf16> x, absl::Span<const uint8_t> single, bool flag, MatrixView<T> y,
                    Product product) {
  std::vector<int64_t> rows;
  for (int64_t r = 0; r < x.rows; ++r) {
    if ((single[r] != 0) == flag) rows.push_back(r);
  }
  const int64_t count = static_cast<int64_t>(rows.size());
  if (count == 0) return absl::OkStatus();
  if (count == x.rows) return product(x, y);
  std::vector<bf16> in(count * x.cols);
  std::vector<T> out(count * y.cols);
  for (int64_t i = 0; i < count; ++i) std::copy_n(x.row(rows[i]), x.cols, in.data() + i * x.cols);
  LANCET_RETURN_IF_ERROR(
      product(ConstMatrixView<bf16>(in.data(), count, x.cols), MatrixView<T>(out.data(), count, y.cols)));
  for (int64_t i = 0; i < count; ++i) std::copy_n(out.data() + i * y.cols, y.cols, y.row(rows[i]));
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSplit(const KernelContext& ctx, ConstMatrixView<bf16> x, absl::Span<const uint8_t> single,
                      absl::Span<const bf16> bias, const Nvfp4Weights& plain, const EmulatedWeights& encoded,
                      bool has_plain, MatrixView<T> y) {
  if (std::all_of(single.begin(), single.end(), [](uint8_t flag) { return flag == 0; })) {
    return Emulated(ctx, x, encoded, bias, y);
  }
  LANCET_RETURN_IF_ERROR(CheckLength("LayerLinear", "single", single.size(), x.rows));
  LANCET_RETURN_IF_ERROR(CheckMatrix("LayerLinear", "y", y, x.rows, encoded.rows()));
  if (!has_plain) return absl::FailedPreconditionError("LayerLinear: made without single rows");
  LANCET_RETURN_IF_ERROR(OnRows(x, single, true, y, [&](ConstMatrixView<bf16> in, MatrixView<T> out) {
    return Plain(ctx, in, plain, bias, out);
  }));
  return OnRows(x, single, false, y, [&](ConstMatrixView<bf16> in, MatrixView<T> out) {
    return Emulated(ctx, in, encoded, bias, out);
  });
}

}  // namespace

absl::StatusOr<LayerLinear> LayerLinear::Create(const KernelContext& ctx,
                                                absl::Span<const Nvfp4MatrixView> parts,
                                                const LinearChoice& choice, bool single_rows) {
  LayerLinear linear;
  linear.mode_ = choice.mode;
  linear.single_rows_ = single_rows;
  if (!linear.emulated() || single_rows) {
    const BlockScales form = choice.e4m3_scales ? BlockScales::kE4m3 : BlockScales::kBf16;
    LANCET_ASSIGN_OR_RETURN(linear.plain_, Nvfp4Weights::Pack(ctx, parts, form));
  }
  switch (choice.mode) {
    case LinearMode::kW4A16:
    case LinearMode::kW4A8Int8:
      break;
    case LinearMode::kW4A8Fp8: {
      LANCET_ASSIGN_OR_RETURN(linear.encoded_, EmulatedWeights::EncodeFp8(ctx, parts));
      break;
    }
    case LinearMode::kW4A4: {
      LANCET_ASSIGN_OR_RETURN(
          linear.encoded_,
          EmulatedWeights::EncodeNvfp4(ctx, parts, choice.activation_factor, choice.weight_factor));
      break;
    }
  }
  return linear;
}

absl::StatusOr<LayerLinear> LayerLinear::Create(const KernelContext& ctx, absl::Span<const LinearView> parts,
                                                const LinearChoice& choice, bool single_rows) {
  if (!AnyBf16(parts)) return Create(ctx, Nvfp4Parts(parts), choice, single_rows);
  LayerLinear linear;
  linear.dense_ = true;
  int64_t rows = 0;
  for (const LinearView& part : parts) {
    if (part.cols() != parts[0].cols()) {
      return absl::InvalidArgumentError(
          absl::StrCat("LayerLinear: a part has ", part.cols(), " columns; the first has ", parts[0].cols()));
    }
    rows += part.rows();
  }
  const std::vector<bf16> stacked = StackBf16(parts);
  LANCET_ASSIGN_OR_RETURN(linear.bf16_, Bf16Weights::Pack(ctx, {stacked.data(), rows, parts[0].cols()}));
  return linear;
}

absl::Status LayerLinear::Run(const KernelContext& ctx, ConstMatrixView<bf16> x,
                              absl::Span<const uint8_t> single, absl::Span<const bf16> bias,
                              MatrixView<bf16> y) const {
  if (dense_) return Bf16Gemm(ctx, x, bf16_, bias, y);
  if (mode_ == LinearMode::kW4A16) return Nvfp4Gemm(ctx, x, plain_, bias, y);
  if (mode_ == LinearMode::kW4A8Int8) return Int8Gemm(ctx, x, plain_, bias, y);
  return RunSplit(ctx, x, single, bias, plain_, encoded_, single_rows_, y);
}

absl::Status LayerLinear::Run(const KernelContext& ctx, ConstMatrixView<bf16> x,
                              absl::Span<const uint8_t> single, MatrixView<float> y) const {
  if (dense_) return Bf16Gemm(ctx, x, bf16_, y);
  if (mode_ == LinearMode::kW4A16) return Nvfp4Gemm(ctx, x, plain_, y);
  if (mode_ == LinearMode::kW4A8Int8) return Int8Gemm(ctx, x, plain_, y);
  return RunSplit(ctx, x, single, {}, plain_, encoded_, single_rows_, y);
}

}  // namespace lancet
