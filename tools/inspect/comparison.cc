#include "tools/inspect/comparison.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/json.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"
#include "kernels/number_formats.h"
#include "tools/quantize/fusion_groups.h"
#include "tools/quantize/source_matrix.h"

namespace lancet {
namespace {

// Rows that one pass over XᵀX serves.
constexpr int64_t kRowBatch = 16;

// Rows of a Linear of the trunk, with `ratio` per column.
class TrunkMatrix {
 public:
  static absl::StatusOr<std::unique_ptr<const TrunkMatrix>> Open(const StateDict& trunk,
                                                                 const TrunkLinear& linear,
                                                                 absl::Span<const float> ratio) {
    auto matrix = std::make_unique<TrunkMatrix>();
    matrix->ratio_ = ratio;
    if (IsUnquantised(trunk, linear.base)) {
      LANCET_ASSIGN_OR_RETURN(matrix->dense_, GetChecked(trunk, absl::StrCat(linear.base, ".weight"),
                                                         DType::kBf16, {linear.out, linear.in}));
      return matrix;
    }
    LANCET_ASSIGN_OR_RETURN(matrix->codes_, GetChecked(trunk, absl::StrCat(linear.base, ".qweight"),
                                                       DType::kU8, {linear.out, linear.in / 2}));
    LANCET_ASSIGN_OR_RETURN(matrix->scales_, GetChecked(trunk, absl::StrCat(linear.base, ".scales_bf16"),
                                                        DType::kBf16, {linear.out, linear.in / kNvfp4Block}));
    return matrix;
  }

  bool is_bf16() const { return dense_.data != nullptr; }
  void ReadRow(int64_t row, absl::Span<float> to) const {
    const int64_t cols = static_cast<int64_t>(to.size());
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t at = row * cols + c;
      if (is_bf16()) {
        to[c] = ToFloat(dense_.as<bf16>()[at]);
      } else {
        const uint8_t byte = codes_.as<uint8_t>()[at / 2];
        to[c] = FromE2m1(at % 2 == 0 ? byte & 15 : byte >> 4) * ToFloat(scales_.as<bf16>()[at / kNvfp4Block]);
      }
      if (!ratio_.empty()) to[c] *= ratio_[c];
    }
  }

 private:
  TensorView codes_, scales_, dense_;
  absl::Span<const float> ratio_;  // [in], or empty for ones
};

// What the norm of the trunk is to that of the source, per channel: one over the factor folded in.
absl::StatusOr<std::vector<float>> NormRatio(const StateDict& trunk, const StateDict& source,
                                             const std::string& norm, int64_t size) {
  const std::string name = absl::StrCat(norm, ".weight");
  LANCET_ASSIGN_OR_RETURN(std::vector<float> after, ReadSourceVector(trunk, name, size));
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> before, ReadSourceVector(source, name, size));
  for (int64_t c = 0; c < size; ++c) after[c] = before[c] == 0 ? 1.0f : after[c] / before[c];
  return after;
}

float Dot(const float* a, const float* b, int64_t n) {
  std::array<float, 8> lanes{};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int64_t j = 0; j < 8; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Sum over rows of the row's square in the norm that the inputs give: rowᵀ X row, or independent channels.
double InputNorm(absl::Span<const float> rows, int64_t n, const InputStatistics& inputs) {
  double sum = 0;
  const int64_t count = static_cast<int64_t>(rows.size()) / n;
  if (inputs.xtx.empty()) {
    for (int64_t i = 0; i < count * n; ++i) sum += inputs.mean_square[i % n] * rows[i] * rows[i];
    return sum;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = 0; r < count; ++r) {
      const float* row = rows.data() + r * n;
      sum += static_cast<double>(row[i]) * Dot(inputs.xtx.data() + i * n, row, n);
    }
  }
  return sum;
}

struct Sums {
  double off = 0, weight = 0;  // squares
  double output_off = 0, output = 0;
};

Sums SumErrors(const TrunkMatrix& trunk, const SourceMatrix& source, const InputStatistics* inputs,
               ThreadPool& pool) {
  const int64_t n = source.cols();
  const int64_t batches = (source.rows() + kRowBatch - 1) / kRowBatch;
  std::vector<Sums> parts(batches);
  pool.ParallelFor(batches, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> weights(kRowBatch * n);
    std::vector<float> off(kRowBatch * n);
    for (int64_t batch = begin; batch < end; ++batch) {
      const int64_t first = batch * kRowBatch;
      const int64_t rows = std::min(kRowBatch, source.rows() - first);
      const absl::Span<float> w = absl::MakeSpan(weights).first(rows * n);
      const absl::Span<float> d = absl::MakeSpan(off).first(rows * n);
      Sums& sums = parts[batch];
      for (int64_t r = 0; r < rows; ++r) {
        source.ReadRow(first + r, w.subspan(r * n, n));
        trunk.ReadRow(first + r, d.subspan(r * n, n));
      }
      for (int64_t i = 0; i < rows * n; ++i) {
        d[i] -= w[i];
        sums.off += static_cast<double>(d[i]) * d[i];
        sums.weight += static_cast<double>(w[i]) * w[i];
      }
      if (inputs == nullptr) continue;
      sums.output_off = InputNorm(d, n, *inputs);
      sums.output = InputNorm(w, n, *inputs);
    }
  });
  Sums total;
  for (const Sums& part : parts) {
    total.off += part.off;
    total.weight += part.weight;
    total.output_off += part.output_off;
    total.output += part.output;
  }
  return total;
}

double Relative(double off, double norm) { return norm > 0 ? std::sqrt(std::max(off, 0.0) / norm) : 0.0; }

// "gen q_proj"
std::string KindOfLinear(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);
  return absl::StrCat(absl::StrContains(name, "_moe_gen") ? "gen " : "und ",
                      last.substr(0, last.find("_moe_gen")));
}

const LinearComparison* Worst(const std::vector<LinearComparison>& linears,
                              double (*error)(const LinearComparison&)) {
  const auto worst = std::max_element(linears.begin(), linears.end(),
                                      [&](const auto& a, const auto& b) { return error(a) < error(b); });
  return worst == linears.end() ? nullptr : &*worst;
}
double WeightErrorOf(const LinearComparison& linear) { return linear.weight_error; }
double OutputErrorOf(const LinearComparison& linear) { return linear.output_error.value_or(-1.0); }

std::string ErrorText(const std::optional<double>& error) {
  return error.has_value() ? absl::StrFormat("%8.4f", *error) : "       -";
}

nlohmann::ordered_json ToJson(const std::vector<LinearComparison>& linears) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const LinearComparison& linear : linears) {
    nlohmann::ordered_json entry;
    entry["linear"] = linear.name;
    entry["format"] = linear.is_bf16 ? "bf16" : "nvfp4";
    entry["weight_error"] = linear.weight_error;
    if (linear.output_error.has_value()) {
      entry["output_error"] = *linear.output_error;
      entry["from_xtx"] = linear.is_exact;
    }
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace

absl::StatusOr<std::vector<LinearComparison>> CompareWithSource(const StateDict& trunk,
                                                                const ModelConfig& config,
                                                                const StateDict& source,
                                                                const Calibration* calibration,
                                                                ThreadPool& pool) {
  std::vector<LinearComparison> linears;
  for (const FusionGroup& group : FusionGroups(config)) {
    std::vector<float> ratio;
    if (!group.norm.empty()) {
      LANCET_ASSIGN_OR_RETURN(ratio, NormRatio(trunk, source, group.norm, group.linears[0].in));
    }
    for (const TrunkLinear& linear : group.linears) {
      const std::string weight = absl::StrCat(linear.base, ".weight");
      LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<const TrunkMatrix> quantised,
                              TrunkMatrix::Open(trunk, linear, ratio));
      LANCET_ASSIGN_OR_RETURN(const SourceMatrix original,
                              SourceMatrix::Open(source, weight, linear.out, linear.in));
      InputStatistics inputs;
      const bool has_inputs = calibration != nullptr && calibration->Has(linear.base);
      if (has_inputs) {
        LANCET_ASSIGN_OR_RETURN(inputs, calibration->Get(linear.base, linear.in));
      }
      const Sums sums = SumErrors(*quantised, original, has_inputs ? &inputs : nullptr, pool);
      LinearComparison& comparison = linears.emplace_back();
      comparison.name = linear.base;
      comparison.is_bf16 = quantised->is_bf16();
      comparison.weight_error = Relative(sums.off, sums.weight);
      if (has_inputs) comparison.output_error = Relative(sums.output_off, sums.output);
      comparison.is_exact = !inputs.xtx.empty();
      source.Release(weight);
      for (const char* kind : {".qweight", ".scales_bf16", ".weight"}) {
        trunk.Release(absl::StrCat(linear.base, kind));
      }
    }
  }
  return linears;
}

std::string ComparisonReport(const std::vector<LinearComparison>& linears, bool json) {
  if (json) return ToJson(linears).dump(2) + "\n";
  std::string report = absl::StrFormat("%-64s %8s %8s\n", "relative error of", "weights", "outputs");
  struct Mean {
    double weights = 0, outputs = 0;
    int count = 0, with_outputs = 0;
  };
  std::map<std::string, Mean> kinds;
  for (const LinearComparison& linear : linears) {
    absl::StrAppendFormat(&report, "%-64s %8.4f %s%s\n", linear.name, linear.weight_error,
                          ErrorText(linear.output_error), linear.is_bf16 ? "  bf16" : "");
    for (const std::string& kind : {KindOfLinear(linear.name), std::string("all")}) {
      Mean& mean = kinds[kind];
      mean.weights += linear.weight_error;
      ++mean.count;
      if (!linear.output_error.has_value()) continue;
      mean.outputs += *linear.output_error;
      ++mean.with_outputs;
    }
  }
  absl::StrAppendFormat(&report, "\n%-64s %8s %8s\n", "mean of", "weights", "outputs");
  for (const auto& [kind, mean] : kinds) {
    const std::optional<double> outputs =
        mean.with_outputs > 0 ? std::optional<double>(mean.outputs / mean.with_outputs) : std::nullopt;
    absl::StrAppendFormat(&report, "%-64s %8.4f %s\n", kind, mean.weights / mean.count, ErrorText(outputs));
  }
  if (const LinearComparison* worst = Worst(linears, WeightErrorOf); worst != nullptr) {
    absl::StrAppendFormat(&report, "\nworst weights: %s, %.4f\n", worst->name, worst->weight_error);
  }
  const LinearComparison* worst = Worst(linears, OutputErrorOf);
  if (worst != nullptr && worst->output_error.has_value()) {
    absl::StrAppendFormat(&report, "worst outputs: %s, %.4f\n", worst->name, *worst->output_error);
  }
  return report;
}

}  // namespace lancet
