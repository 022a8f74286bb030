#include "tools/quantize/quantise_checkpoint.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"
#include "tools/quantize/channel_factors.h"
#include "tools/quantize/error_compensation.h"
#include "tools/quantize/fusion_groups.h"
#include "tools/quantize/linear_packing.h"
#include "tools/quantize/source_matrix.h"
#include "tools/quantize/state_dict_writer.h"

namespace lancet {
namespace {

// Rows of a Linear that the search for factors looks at (kBest).
constexpr int64_t kFactorRows = 512;
// Share of the mean that a column's weight is at least: a channel that calibration never saw is not free.
constexpr float kLeastWeight = 1e-4f;
// Of error compensation, as usual for it.
constexpr double kDamping = 0.01;
// Values that one step of a copy converts.
constexpr int64_t kCopyStep = 1 << 21;

std::string WeightName(const std::string& base) { return absl::StrCat(base, ".weight"); }

class Job {
 public:
  Job(const StateDict& source, const ModelConfig& config, const QuantiseOptions& options, ThreadPool& pool)
      : source_(source), config_(config), options_(options), pool_(pool), groups_(FusionGroups(config)) {}

  absl::StatusOr<QuantiseSummary> Run(const std::string& path) {
    LANCET_ASSIGN_OR_RETURN(std::vector<StateDictWriter::Tensor> tensors, Plan());
    LANCET_ASSIGN_OR_RETURN(writer_, StateDictWriter::Create(path, std::move(tensors)));
    for (const FusionGroup& group : groups_) LANCET_RETURN_IF_ERROR(Quantise(group));
    for (const std::string& name : copied_) LANCET_RETURN_IF_ERROR(Copy(name));
    summary_.bytes = writer_->total_bytes();
    LANCET_RETURN_IF_ERROR(writer_->Finish());
    std::sort(summary_.bf16_linears.begin(), summary_.bf16_linears.end());
    return std::move(summary_);
  }

 private:
  bool StaysBf16(const std::string& base) const { return options_.bf16_linears.contains(base); }

  // Checks the source, and says what the file will hold.
  absl::StatusOr<std::vector<StateDictWriter::Tensor>> Plan() {
    std::vector<StateDictWriter::Tensor> tensors;
    absl::flat_hash_set<std::string> made;  // by the quantiser, not copied
    for (const FusionGroup& group : groups_) {
      for (const TrunkLinear& linear : group.linears) {
        LANCET_RETURN_IF_ERROR(
            SourceMatrix::Open(source_, WeightName(linear.base), linear.out, linear.in).status());
        made.insert(WeightName(linear.base));
        if (StaysBf16(linear.base)) {
          tensors.push_back({WeightName(linear.base), DType::kBf16, {linear.out, linear.in}});
          continue;
        }
        const Shape scales = {linear.out, linear.in / kNvfp4Block};
        tensors.push_back({absl::StrCat(linear.base, ".qweight"), DType::kU8, {linear.out, linear.in / 2}});
        tensors.push_back({absl::StrCat(linear.base, ".scales_fp8"), DType::kU8, scales});
        tensors.push_back({absl::StrCat(linear.base, ".scales_bf16"), DType::kBf16, scales});
      }
      if (group.norm.empty()) continue;
      made.insert(WeightName(group.norm));
      tensors.push_back({WeightName(group.norm), DType::kBf16, {config_.hidden_size}});
    }
    for (const TrunkTensor& tensor : TrunkTensors(config_)) {
      if (tensor.kind == TrunkTensorKind::kCodes || tensor.kind == TrunkTensorKind::kScalesFp8 ||
          tensor.kind == TrunkTensorKind::kScalesBf16) {
        continue;
      }
      LANCET_ASSIGN_OR_RETURN(const TensorView view, source_.Get(tensor.name));
      if (IsSourceType(view.dtype) && view.shape == tensor.shape) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(source_.path(), ": tensor ", Quote(tensor.name), " is ", DTypeName(view.dtype), " ",
                       ShapeString(view.shape), "; expected F32, BF16 or F16 ", ShapeString(tensor.shape)));
    }
    for (const std::string& name : source_.names()) {
      if (made.contains(name)) continue;
      LANCET_ASSIGN_OR_RETURN(const TensorView view, source_.Get(name));
      tensors.push_back({name, IsSourceType(view.dtype) ? DType::kBf16 : view.dtype, view.shape});
      copied_.push_back(name);
    }
    return tensors;
  }

  // Of the group's inputs: the mean over its Linears that have statistics, as they see the same.
  absl::StatusOr<InputStatistics> StatisticsOf(const FusionGroup& group) {
    InputStatistics mean;
    int found = 0;
    for (const TrunkLinear& linear : group.linears) {
      if (options_.calibration == nullptr) break;
      if (!options_.calibration->Has(linear.base)) {
        summary_.without_statistics.push_back(linear.base);
        continue;
      }
      LANCET_ASSIGN_OR_RETURN(InputStatistics one, options_.calibration->Get(linear.base, linear.in));
      if (found++ == 0) {
        mean = std::move(one);
        continue;
      }
      for (size_t c = 0; c < mean.mean_abs.size(); ++c) {
        mean.mean_abs[c] += one.mean_abs[c];
        mean.mean_square[c] += one.mean_square[c];
      }
      if (mean.xtx.empty()) mean.xtx = one.xtx;
    }
    for (size_t c = 0; c < mean.mean_abs.size(); ++c) {
      mean.mean_abs[c] /= static_cast<float>(found);
      mean.mean_square[c] /= static_cast<float>(found);
    }
    float average = 0.0f;
    for (const float square : mean.mean_square) average += square;
    average /= std::max<float>(1.0f, static_cast<float>(mean.mean_square.size()));
    for (float& square : mean.mean_square) square = std::max(square, average * kLeastWeight);
    if (average <= 0) mean.mean_square.assign(mean.mean_square.size(), 1.0f);
    return mean;
  }

  // Factors of the group's channels; empty for none.
  absl::StatusOr<std::vector<float>> FactorsOf(const FusionGroup& group, const FactorProblem& problem,
                                               const InputStatistics& statistics) {
    if (group.norm.empty() || statistics.mean_abs.empty() || problem.linears.empty()) {
      return std::vector<float>();
    }
    if (options_.recipe != Recipe::kPublished) {
      return SearchBestFactors(problem, statistics.mean_square, kFactorRows, pool_).s;
    }
    LANCET_ASSIGN_OR_RETURN(std::vector<float> given,
                            options_.calibration->Factors(group.norm, config_.hidden_size));
    return given.empty() ? SearchPublishedFactors(problem, pool_).s : given;
  }

  // Writes the norm divided by s. kBest: s becomes what the rounded norm makes of it, so that the division
  // costs nothing.
  absl::Status WriteNorm(const std::string& norm, std::vector<float>& s) {
    const std::string name = WeightName(norm);
    LANCET_ASSIGN_OR_RETURN(std::vector<float> weight, ReadSourceVector(source_, name, config_.hidden_size));
    if (!AllFinite(weight)) return NotFinite(source_, name);
    std::vector<bf16> divided(weight.size());
    for (size_t c = 0; c < weight.size(); ++c) {
      divided[c] = ToBf16(s.empty() ? weight[c] : weight[c] / s[c]);
      const float exact = weight[c] / ToFloat(divided[c]);
      if (!s.empty() && options_.recipe != Recipe::kPublished && std::isnormal(exact)) s[c] = exact;
    }
    if (!AllFinite(divided)) return NotFinite(source_, name);
    source_.Release(name);
    return writer_->Write(name, absl::MakeConstSpan(divided));
  }

  absl::StatusOr<PackedLinear> Pack(const SourceMatrix& matrix, absl::Span<const float> column_largest,
                                    absl::Span<const float> s, const InputStatistics& statistics,
                                    absl::Span<const float> u) {
    if (options_.recipe == Recipe::kPublished) return PackToLargest(matrix, s, pool_);
    float largest = 0.0f;
    for (size_t c = 0; c < column_largest.size(); ++c) {
      largest = std::max(largest, column_largest[c] * (s.empty() ? 1.0f : s[c]));
    }
    if (!u.empty()) return PackCompensated(matrix, s, u, largest, pool_);
    std::vector<float> weights = statistics.mean_square;
    for (size_t c = 0; c < s.size(); ++c) weights[c] /= s[c] * s[c];
    return PackSearched(matrix, s, weights, largest, pool_);
  }

  absl::Status Quantise(const FusionGroup& group) {
    LANCET_ASSIGN_OR_RETURN(const InputStatistics statistics, StatisticsOf(group));
    std::vector<SourceMatrix> matrices;
    std::vector<std::vector<float>> largest;
    FactorProblem problem;
    problem.act = statistics.mean_abs;
    for (const TrunkLinear& linear : group.linears) {
      const std::string name = WeightName(linear.base);
      LANCET_ASSIGN_OR_RETURN(SourceMatrix matrix, SourceMatrix::Open(source_, name, linear.out, linear.in));
      bool finite = true;
      largest.push_back(ColumnLargest(matrix, pool_, finite));
      if (!finite) return NotFinite(source_, name);
      matrices.push_back(matrix);
      if (StaysBf16(linear.base)) continue;
      problem.linears.push_back(matrix);
      problem.column_largest.push_back(largest.back());
    }
    LANCET_ASSIGN_OR_RETURN(std::vector<float> s, FactorsOf(group, problem, statistics));
    if (!group.norm.empty()) LANCET_RETURN_IF_ERROR(WriteNorm(group.norm, s));
    std::vector<float> u;
    if (options_.recipe == Recipe::kGptq && !statistics.xtx.empty() && !problem.linears.empty()) {
      LANCET_ASSIGN_OR_RETURN(u, CompensationMatrix(statistics.xtx, s, group.linears[0].in, kDamping, pool_));
    }
    for (size_t k = 0; k < matrices.size(); ++k) {
      const std::string& base = group.linears[k].base;
      if (StaysBf16(base)) {
        LANCET_RETURN_IF_ERROR(
            writer_->Write(WeightName(base), absl::MakeConstSpan(ScaleToBf16(matrices[k], s, pool_))));
        summary_.bf16_linears.push_back(base);
      } else {
        LANCET_ASSIGN_OR_RETURN(const PackedLinear packed, Pack(matrices[k], largest[k], s, statistics, u));
        LANCET_RETURN_IF_ERROR(Write(base, packed));
        summary_.linears.push_back(
            {base, matrices[k].rows(), matrices[k].cols(), !s.empty(), !u.empty(), packed.factor});
      }
      source_.Release(WeightName(base));
      Report();
    }
    return absl::OkStatus();
  }

  absl::Status Write(const std::string& base, const PackedLinear& packed) {
    LANCET_RETURN_IF_ERROR(writer_->Write(absl::StrCat(base, ".qweight"), absl::MakeConstSpan(packed.codes)));
    LANCET_RETURN_IF_ERROR(
        writer_->Write(absl::StrCat(base, ".scales_fp8"), absl::MakeConstSpan(packed.scales_fp8)));
    return writer_->Write(absl::StrCat(base, ".scales_bf16"), absl::MakeConstSpan(packed.scales_bf16));
  }

  // A tensor that is not quantised, in bf16; element types that weights do not have as they are.
  absl::Status Copy(const std::string& name) {
    LANCET_ASSIGN_OR_RETURN(const TensorView view, source_.Get(name));
    if (!IsSourceType(view.dtype)) {
      LANCET_RETURN_IF_ERROR(
          writer_->Write(name, 0, absl::MakeConstSpan(view.data, static_cast<size_t>(view.num_bytes()))));
    } else {
      const int64_t count = view.num_elements();
      std::vector<bf16> values(std::min(count, kCopyStep));
      for (int64_t first = 0; first < count; first += kCopyStep) {
        const absl::Span<bf16> step = absl::MakeSpan(values).first(std::min(kCopyStep, count - first));
        std::atomic<bool> finite = true;
        pool_.ParallelFor(static_cast<int64_t>(step.size()), 1 << 14, [&](int64_t begin, int64_t end, int) {
          const absl::Span<bf16> part = step.subspan(begin, end - begin);
          ReadRounded(view, first + begin, part);
          if (!AllFinite(part)) finite = false;
        });
        if (!finite) return NotFinite(source_, name);
        LANCET_RETURN_IF_ERROR(
            writer_->Write(name, static_cast<uint64_t>(first) * sizeof(bf16),
                           absl::MakeConstSpan(reinterpret_cast<const std::byte*>(step.data()),
                                               step.size() * sizeof(bf16))));
        Report();
      }
    }
    source_.Release(name);
    Report();
    return absl::OkStatus();
  }

  void Report() const {
    if (options_.progress) options_.progress(writer_->written_bytes(), writer_->total_bytes());
  }

  const StateDict& source_;
  const ModelConfig& config_;
  const QuantiseOptions& options_;
  ThreadPool& pool_;
  const std::vector<FusionGroup> groups_;
  std::vector<std::string> copied_;
  std::unique_ptr<StateDictWriter> writer_;
  QuantiseSummary summary_;
};

}  // namespace

absl::StatusOr<Recipe> ParseRecipe(absl::string_view name) {
  for (const Recipe recipe : {Recipe::kPublished, Recipe::kBest, Recipe::kGptq}) {
    if (name == RecipeName(recipe)) return recipe;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--recipe is ", Quote(name), "; expected published, best or gptq"));
}

absl::string_view RecipeName(Recipe recipe) {
  switch (recipe) {
    case Recipe::kPublished:
      return "published";
    case Recipe::kBest:
      return "best";
    case Recipe::kGptq:
      break;
  }
  return "gptq";
}

absl::StatusOr<QuantiseSummary> WriteQuantised(const StateDict& source, const ModelConfig& config,
                                               const QuantiseOptions& options, ThreadPool& pool,
                                               const std::string& path) {
  return Job(source, config, options, pool).Run(path);
}

std::string MetaJson(const QuantiseSummary& summary, const QuantiseOptions& options) {
  nlohmann::ordered_json meta;
  const auto awq = std::count_if(summary.linears.begin(), summary.linears.end(),
                                 [](const QuantisedLinear& linear) { return linear.is_awq; });
  meta["block_size"] = kNvfp4Block;
  meta["scheme"] = "nvfp4_e2m1_block_fp8scale";
  meta["awq_linears"] = awq;
  meta["plain_linears"] = static_cast<int64_t>(summary.linears.size()) - awq;
  meta["tasks_calibrated"] = nlohmann::ordered_json::array();
  meta["fp4_lut_pos"] = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0};
  meta["recipe"] = RecipeName(options.recipe);
  if (options.calibration != nullptr) {
    meta["calibration_fingerprint"] = options.calibration->file().fingerprint();
  }
  meta["bf16_linears"] = summary.bf16_linears;
  nlohmann::ordered_json& per_weight = meta["per_weight"] = nlohmann::ordered_json::object();
  for (const QuantisedLinear& linear : summary.linears) {
    nlohmann::ordered_json entry;
    entry["shape"] = {linear.out, linear.in};
    entry["block_size"] = kNvfp4Block;
    entry["scheme"] = linear.is_awq ? "nvfp4_awq" : "nvfp4_minmax";
    if (linear.scale_factor > 0) entry["scales_fp8_factor"] = linear.scale_factor;
    if (linear.is_compensated) entry["compensated"] = true;
    per_weight[WeightName(linear.base)] = std::move(entry);
  }
  return meta.dump(1) + "\n";
}

}  // namespace lancet
