#include "tools/numerics/linear_errors.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"
#include "kernels/emulated_gemm.h"
#include "kernels/int8_gemm.h"
#include "kernels/number_formats.h"
#include "kernels/quantise.h"
#include "tools/numerics/made_up_linears.h"

namespace lancet {
namespace {

constexpr int64_t kBlock = 16;
constexpr int64_t kSampleRows = 48;  // kept of each product's input

std::string Header(const char* what) {
  return absl::StrFormat("%-44s %8s %8s %8s %8s %8s %8s %8s\n", what, "w4a16", "shipped", "re-enc.", "int8",
                         "fp8", "w4a4", "w4a4 cal");
}
std::string Line(const std::string& name, const LinearErrors& errors) {
  std::string line = absl::StrFormat("%-44s", name);
  for (const double error : errors.column) absl::StrAppendFormat(&line, " %8.4f", error);
  return line + "\n";
}

// x times codes and scales, in f64.
std::vector<double> ExactProduct(const LinearSample& sample) {
  const Nvfp4MatrixView& w = sample.weights;
  const int64_t tokens = static_cast<int64_t>(sample.x.size()) / w.cols;
  std::vector<double> y(tokens * w.rows);
  std::vector<double> row(w.cols);
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t c = 0; c < w.cols; ++c) {
      const uint8_t byte = w.codes[r * w.codes_stride + c / 2];
      row[c] = static_cast<double>(FromE2m1(c % 2 == 0 ? byte & 15 : byte >> 4)) *
               ToFloat(w.scales[r * w.scales_stride + c / kBlock]);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int64_t c = 0; c < w.cols; ++c) sum += row[c] * ToFloat(sample.x[t * w.cols + c]);
      y[t * w.rows + r] = sum;
    }
  }
  return y;
}

double ErrorOf(const std::vector<float>& y, float factor, const std::vector<double>& exact) {
  double off = 0;
  double norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double d = static_cast<double>(y[i]) * factor - exact[i];
    off += d * d;
    norm += exact[i] * exact[i];
  }
  return std::sqrt(off / norm);
}

// Keeps some of the rows that enter each product, every one with the same chance.
class InputSampler final : public EngineTrace {
 public:
  void OnLinearInput(int64_t layer, bool gen, FusedLinear linear, ConstMatrixView<bf16> x) override {
    Inputs& inputs = inputs_[{layer, gen, linear}];
    for (int64_t r = 0; r < x.rows; ++r) {
      int64_t place = inputs.seen++;
      if (place >= kSampleRows) {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        place = static_cast<int64_t>((state_ >> 33) % static_cast<uint64_t>(inputs.seen));
        if (place >= kSampleRows) continue;
      }
      inputs.rows.resize(std::max<size_t>(inputs.rows.size(), (place + 1) * x.cols));
      std::copy_n(x.row(r), x.cols, inputs.rows.begin() + place * x.cols);
    }
  }
  std::vector<bf16> Rows(int64_t layer, bool gen, FusedLinear linear) const {
    const auto found = inputs_.find({layer, gen, linear});
    return found == inputs_.end() ? std::vector<bf16>() : found->second.rows;
  }

 private:
  struct Inputs {
    int64_t seen = 0;
    std::vector<bf16> rows;
  };
  std::map<std::tuple<int64_t, bool, FusedLinear>, Inputs> inputs_;
  uint64_t state_ = 1;
};

FusedLinear ProductOf(absl::string_view base) {
  if (absl::StrContains(base, "down_proj")) return FusedLinear::kDown;
  if (absl::StrContains(base, "o_proj")) return FusedLinear::kO;
  return absl::StrContains(base, "self_attn") ? FusedLinear::kQkv : FusedLinear::kGateUp;
}

// `factors`: of scales_fp8, for those Linears that have one.
absl::StatusOr<LinearSample> ReadSample(const StateDict& trunk,
                                        const absl::flat_hash_map<std::string, float>& factors,
                                        const TrunkLinear& linear, std::vector<bf16> x) {
  LANCET_ASSIGN_OR_RETURN(const TensorView codes, trunk.Get(absl::StrCat(linear.base, ".qweight")));
  LANCET_ASSIGN_OR_RETURN(const TensorView scales, trunk.Get(absl::StrCat(linear.base, ".scales_bf16")));
  LANCET_ASSIGN_OR_RETURN(const TensorView fp8, trunk.Get(absl::StrCat(linear.base, ".scales_fp8")));
  LinearSample sample;
  sample.weights = {linear.out,    linear.in,         codes.as<uint8_t>(),
                    linear.in / 2, scales.as<bf16>(), linear.in / kBlock};
  sample.scales_fp8.assign(fp8.as<uint8_t>(), fp8.as<uint8_t>() + fp8.num_elements());
  const auto factor = factors.find(linear.base);
  if (factor != factors.end()) sample.scales_fp8_factor = sample.weight_factor = factor->second;
  sample.x = std::move(x);
  return sample;
}

}  // namespace

absl::StatusOr<LinearErrors> MeasureLinear(const KernelContext& ctx, const LinearSample& sample) {
  const Nvfp4MatrixView& w = sample.weights;
  const int64_t tokens = static_cast<int64_t>(sample.x.size()) / w.cols;
  const ConstMatrixView<bf16> x(sample.x.data(), tokens, w.cols);
  const std::vector<double> exact = ExactProduct(sample);
  std::vector<float> sums(exact.size());
  const MatrixView<float> y(sums.data(), tokens, w.rows);
  LinearErrors errors;
  // Bf16 activations, other scales.
  const auto with_scales = [&](const Nvfp4MatrixView& view, float factor) -> absl::StatusOr<double> {
    LANCET_ASSIGN_OR_RETURN(const Nvfp4Weights packed, Nvfp4Weights::Pack(ctx, {view}));
    LANCET_RETURN_IF_ERROR(Nvfp4Gemm(ctx, x, packed, y));
    return ErrorOf(sums, factor, exact);
  };
  LANCET_ASSIGN_OR_RETURN(errors.column[0], with_scales(w, 1.0f));
  std::vector<bf16> scales;
  for (const uint8_t byte : sample.scales_fp8)
    scales.push_back(ToBf16(FromE4m3(byte) * sample.scales_fp8_factor));
  Nvfp4MatrixView other = w;
  other.scales = scales.data();
  other.scales_stride = w.cols / kBlock;
  LANCET_ASSIGN_OR_RETURN(errors.column[1], with_scales(other, 1.0f));

  LANCET_ASSIGN_OR_RETURN(const EmulatedWeights unit,
                          EmulatedWeights::EncodeNvfp4(ctx, {w}, 1.0f, sample.weight_factor));
  LANCET_RETURN_IF_ERROR(Nvfp4Gemm(ctx, x, unit.nvfp4(), y));
  errors.column[2] = ErrorOf(sums, unit.alpha(), exact);
  LANCET_ASSIGN_OR_RETURN(const EmulatedWeights fp8, EmulatedWeights::EncodeFp8(ctx, {w}));
  LANCET_ASSIGN_OR_RETURN(
      const EmulatedWeights calibrated,
      EmulatedWeights::EncodeNvfp4(ctx, {w}, Nvfp4Factor(sample.x), sample.weight_factor));
  LANCET_ASSIGN_OR_RETURN(const Nvfp4Weights packed, Nvfp4Weights::Pack(ctx, {w}));
  LANCET_RETURN_IF_ERROR(Int8Gemm(ctx, x, packed, y));
  errors.column[3] = ErrorOf(sums, 1.0f, exact);
  int column = 4;
  for (const EmulatedWeights* weights : {&fp8, &unit, &calibrated}) {
    LANCET_RETURN_IF_ERROR(EmulatedGemm(ctx, x, *weights, y));
    errors.column[column++] = ErrorOf(sums, 1.0f, exact);
  }
  return errors;
}

absl::StatusOr<std::string> CheckpointLinearTable(const KernelContext& ctx, const Checkpoint& checkpoint,
                                                  LoneEngine& engine, const ExpectedRequests& requests) {
  InputSampler sampler;
  for (const auto* kind : {&requests.pictures, &requests.edits, &requests.questions}) {
    for (const ExpectedRequest& request : *kind) {
      LANCET_RETURN_IF_ERROR(engine.Run(request.plan, &sampler).status());
    }
  }
  // By name without the layer.
  std::map<std::string, std::pair<LinearErrors, int>> kinds;
  const std::vector<TrunkLinear> linears = TrunkLinears(checkpoint.config());
  const size_t per_layer = linears.size() / static_cast<size_t>(checkpoint.config().num_layers);
  for (size_t i = 0; i < linears.size(); ++i) {
    const TrunkLinear& linear = linears[i];
    if (IsUnquantised(checkpoint.trunk(), linear.base)) continue;
    const bool gen = absl::StrContains(linear.base, "_moe_gen");
    std::vector<bf16> x = sampler.Rows(static_cast<int64_t>(i / per_layer), gen, ProductOf(linear.base));
    if (x.empty()) continue;
    LANCET_ASSIGN_OR_RETURN(
        const LinearSample sample,
        ReadSample(checkpoint.trunk(), checkpoint.trunk_meta().scale_factors, linear, std::move(x)));
    LANCET_ASSIGN_OR_RETURN(const LinearErrors errors, MeasureLinear(ctx, sample));
    const std::string name = linear.base.substr(linear.base.rfind('.') + 1);
    auto& [sum, count] = kinds[absl::StrCat(gen ? "gen " : "und ", name.substr(0, name.find("_moe_gen")))];
    for (int c = 0; c < LinearErrors::kColumns; ++c) sum.column[c] += errors.column[c];
    ++count;
  }
  std::string table = Header("relative error of a product, mean of layers");
  for (auto& [name, entry] : kinds) {
    for (double& error : entry.first.column) error /= entry.second;
    table += Line(name, entry.first);
  }
  return table;
}

absl::StatusOr<std::string> MadeUpLinearTable(const KernelContext& ctx) {
  std::string table = Header("made-up weights; activations");
  for (const MadeUpLinear& linear : MadeUpLinears()) {
    const LinearSample sample = linear.sample();
    LANCET_ASSIGN_OR_RETURN(const LinearErrors errors, MeasureLinear(ctx, sample));
    table += Line(linear.name, errors);
  }
  return table;
}

}  // namespace lancet
