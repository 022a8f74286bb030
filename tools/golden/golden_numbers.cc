// Number formats: NVFP4 products, and the noise of a seed.

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/noise.h"
#include "common/status_macros.h"
#include "kernels/kernel_context.h"
#include "kernels/nvfp4.h"
#include "tools/golden/golden_runs.h"

namespace lancet {
namespace {

absl::StatusOr<Nvfp4Weights> PackGroup(const KernelContext& ctx, const StateDict& dict,
                                       const std::string& group) {
  LANCET_ASSIGN_OR_RETURN(const TensorView codes, dict.Get(absl::StrCat(group, ".qweight")));
  LANCET_ASSIGN_OR_RETURN(const TensorView scales, dict.Get(absl::StrCat(group, ".scales_bf16")));
  Nvfp4MatrixView view;
  view.rows = codes.shape[0];
  view.cols = codes.shape[1] * 2;
  view.codes = codes.as<uint8_t>();
  view.codes_stride = codes.shape[1];
  view.scales = scales.as<bf16>();
  view.scales_stride = scales.shape[1];
  return Nvfp4Weights::Pack(ctx, {view});
}

// The weights as the product sees them: rows of the identity through the Linear, as f32 sums of one term
// each.
absl::StatusOr<std::vector<float>> Expand(const KernelContext& ctx, const Nvfp4Weights& weights) {
  std::vector<bf16> identity(weights.cols() * weights.cols());
  for (int64_t i = 0; i < weights.cols(); ++i) identity[i * weights.cols() + i] = ToBf16(1.0f);
  std::vector<float> transposed(weights.cols() * weights.rows());
  LANCET_RETURN_IF_ERROR(
      Nvfp4Gemm(ctx, ConstMatrixView<bf16>(identity.data(), weights.cols(), weights.cols()), weights,
                MatrixView<float>(transposed.data(), weights.cols(), weights.rows())));
  std::vector<float> expanded(transposed.size());
  for (int64_t r = 0; r < weights.rows(); ++r) {
    for (int64_t c = 0; c < weights.cols(); ++c)
      expanded[r * weights.cols() + c] = transposed[c * weights.rows() + r];
  }
  return expanded;
}

absl::StatusOr<std::vector<float>> ExpandOnDevice(CudaStages& stages, const StateDict& dict,
                                                  const std::string& group) {
  LANCET_ASSIGN_OR_RETURN(const TensorView codes, dict.Get(absl::StrCat(group, ".qweight")));
  LANCET_ASSIGN_OR_RETURN(const TensorView scales, dict.Get(absl::StrCat(group, ".scales_bf16")));
  LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> weights,
                          stages.ExpandNvfp4({codes.as<uint8_t>(), codes.shape[0], codes.shape[1]},
                                             {scales.as<bf16>(), scales.shape[0], scales.shape[1]}));
  std::vector<float> expanded(weights.size());
  std::transform(weights.begin(), weights.end(), expanded.begin(), ToFloat);
  return expanded;
}

}  // namespace

absl::Status RunNvfp4Case(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu({}));
  for (const std::string group : {"gauss", "edge", "gemm", "odd"}) {
    if (!dict->Contains(absl::StrCat(group, ".qweight"))) continue;
    LANCET_ASSIGN_OR_RETURN(const Nvfp4Weights weights, PackGroup(*ctx, *dict, group));
    // `odd` keeps the products only.
    if (const std::string name = absl::StrCat(group, ".dequantised_bf16"); dict->Contains(name)) {
      LANCET_ASSIGN_OR_RETURN(const std::vector<double> expected, ReadDoubles(*dict, name));
      LANCET_ASSIGN_OR_RETURN(
          const std::vector<float> expanded,
          context.cuda != nullptr ? ExpandOnDevice(*context.cuda, *dict, group) : Expand(*ctx, weights));
      int64_t wrong = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        wrong += RoundToBf16(static_cast<float>(expected[i])) != expanded[i] ? 1 : 0;
      }
      context.report.AddExact(case_name, absl::StrCat(group, " weights"), wrong,
                              static_cast<int64_t>(expected.size()));
    }
    // Products of a device are not kept in f32: its kernels have tests of their own.
    if (context.cuda != nullptr) continue;
    LANCET_ASSIGN_OR_RETURN(const TensorView x, dict->Get(absl::StrCat(group, ".x")));
    LANCET_ASSIGN_OR_RETURN(const TensorView y, dict->Get(absl::StrCat(group, ".y_bf16")));
    std::vector<float> sums(y.num_elements());
    LANCET_RETURN_IF_ERROR(Nvfp4Gemm(*ctx, ConstMatrixView<bf16>(x.as<bf16>(), x.shape[0], x.shape[1]),
                                     weights, MatrixView<float>(sums.data(), y.shape[0], y.shape[1])));
    // f32 sums of up to 256 exact products against fp64: 2^-24 per addition, in the mean.
    context.report.AddLimit(case_name, absl::StrCat(group, " y"),
                            RelativeRms(std::vector<double>(sums.begin(), sums.end()), ToDoubles(y)), 1e-6,
                            "f32 sums");
  }
  return absl::OkStatus();
}

absl::Status RunPhiloxCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  int64_t bf16_count = 0;
  int64_t bf16_wrong = 0;
  double f32_worst = 0;
  for (const std::string& name : dict->names()) {
    // seed<S>.n<N>.<kind>
    const std::vector<std::string> parts = absl::StrSplit(name, '.');
    uint64_t seed = 0;
    int64_t count = 0;
    if (parts.size() != 3 || !absl::SimpleAtoi(absl::string_view(parts[0]).substr(4), &seed) ||
        !absl::SimpleAtoi(absl::string_view(parts[1]).substr(1), &count)) {
      return absl::InvalidArgumentError(absl::StrCat("unexpected tensor ", name));
    }
    LANCET_ASSIGN_OR_RETURN(const TensorView expected, dict->Get(name));
    std::vector<float> values(expected.num_elements());
    const bool tail = absl::StrContains(parts[2], "tail");
    const int64_t begin = tail ? count - static_cast<int64_t>(values.size()) : 0;
    if (absl::StartsWith(parts[2], "second_draw")) {
      const uint64_t offset = FillNormalNoise(seed, 0, count, 0, {});
      FillNormalNoise(seed, offset, count, begin, absl::MakeSpan(values));
    } else {
      FillNormalNoise(seed, count, begin, absl::MakeSpan(values));
    }
    for (size_t i = 0; i < values.size(); ++i) {
      if (expected.dtype == DType::kF32) {
        f32_worst = std::max(f32_worst, std::abs(static_cast<double>(values[i]) - expected.as<float>()[i]));
      } else {
        ++bf16_count;
        bf16_wrong += ToBf16(values[i]) == expected.as<bf16>()[i] ? 0 : 1;
      }
    }
  }
  context.report.AddExact(case_name, "bf16", bf16_wrong, bf16_count, bf16_count * 3 / 10000 + 1,
                          "99.97 % equal");
  context.report.AddLimit(case_name, "f32", f32_worst, 1.5e-6, "largest difference");
  return absl::OkStatus();
}

}  // namespace lancet
