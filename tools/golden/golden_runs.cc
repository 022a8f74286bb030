#include "tools/golden/golden_runs.h"

#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

using CaseRunner = absl::Status (*)(const GoldenContext&, const std::string&);

// Unit cases by name.
CaseRunner FindUnitRunner(const std::string& name) {
  if (absl::StartsWith(name, "layer_")) return RunLayerCase;
  if (absl::StartsWith(name, "tokenizer_")) return RunTokenizerCase;
  if (name == "time_embedding") return RunTimeEmbeddingCase;
  if (name == "rope_latent_tables") return RunTablesCase;
  if (name == "schedule") return RunScheduleCase;
  if (name == "vit") return RunVisionCase;
  if (name == "vae") return RunVaeCase;
  if (name == "nvfp4") return RunNvfp4Case;
  if (name == "philox") return RunPhiloxCase;
  if (name == "prompts_positions") return RunPositionsCase;
  if (name == "preprocess") return RunPreprocessCase;
  return nullptr;
}

absl::Status Run(const GoldenContext& context, const std::string& name) {
  if (const CaseRunner unit = FindUnitRunner(name); unit != nullptr) return unit(context, name);
  if (context.folder.Has(absl::StrCat(name, ".json"))) {
    LANCET_ASSIGN_OR_RETURN(const nlohmann::json json, context.folder.Json(name));
    if (json.is_object() && json.contains("task") && json["task"].is_string()) {
      const std::string task = json["task"].get<std::string>();
      if (task == "t2i" || task == "image_edit") return RunPictureCase(context, name);
      if (task == "x2t_image") return RunAnswerCase(context, name);
      context.report.AddSkipped(name, absl::StrCat("task ", task, " is not built yet"));
      return absl::OkStatus();
    }
  }
  context.report.AddSkipped(name, "not a known kind of case");
  return absl::OkStatus();
}

}  // namespace

void CompareRms(const GoldenContext& context, const std::string& case_name, const std::string& quantity,
                const std::vector<double>& values, const StateDict& dict, const std::string& way) {
  const bool two_level = context.mode == LinearMode::kW4A4;
  const std::string matching = absl::StrCat(two_level ? "fp64_2level." : "fp64_wbf16.", quantity);
  const std::string reference = dict.Contains(matching) ? matching : absl::StrCat("fp64.", quantity);
  const auto expected = ReadDoubles(dict, reference);
  if (!expected.ok()) {
    context.report.AddFailure(case_name, expected.status().message());
    return;
  }
  const auto yardstick = context.folder.Bf16Error(case_name, quantity, &dict);
  if (!yardstick.has_value()) {
    context.report.AddFailure(case_name, absl::StrCat("no bf16 error of ", quantity, " to measure by"));
    return;
  }
  context.report.AddRms(case_name, absl::StrCat(way, quantity), RelativeRms(values, *expected), *yardstick,
                        reference);
}

void TableCount::Add(bf16 got, bf16 expected) {
  ++count;
  if (got == expected) return;
  ++different;
  const int64_t steps = std::abs(static_cast<int64_t>(got.bits) - static_cast<int64_t>(expected.bits));
  if (steps > 1) ++far_off;
}

void TableCount::Report(const GoldenContext& context, const std::string& case_name,
                        const std::string& quantity) const {
  const int64_t allowed = (count + 9999) / 10000;
  context.report.AddExact(case_name, quantity, far_off > 0 ? count : different, count, allowed,
                          "one bf16 step at most");
}

void RunGoldenCase(const GoldenContext& context, const std::string& case_name) {
  const absl::Status status = Run(context, case_name);
  if (!status.ok()) context.report.AddFailure(case_name, status.ToString());
}

}  // namespace lancet
