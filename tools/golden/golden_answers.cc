// End to end: question and picture to tokens and features, those to an answer, token by token.

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "tools/golden/golden_plan.h"
#include "tools/golden/golden_recorder.h"
#include "tools/golden/golden_runs.h"

namespace lancet {

std::vector<double> JoinLogits(const std::vector<std::unique_ptr<Recorder>>& recorders, size_t token,
                               int64_t num_valid) {
  std::vector<double> row(num_valid);
  for (const auto& recorder : recorders) {
    const std::vector<double>& part = recorder->logits[token];
    for (size_t i = 0; i < part.size(); ++i) {
      const int64_t id = recorder->first_logit + static_cast<int64_t>(i);
      if (id < num_valid) row[id] = part[i];
    }
  }
  return row;
}

absl::Status RunAnswerCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json golden, context.folder.Json(case_name));
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  LANCET_ASSIGN_OR_RETURN(const RequestPlan plan, BuildGoldenPlan(context, case_name, golden));
  LANCET_RETURN_IF_ERROR(CompareTokenIds(context, case_name, golden, plan));
  std::vector<std::unique_ptr<Recorder>> recorders;
  std::vector<EngineTrace*> traces;
  for (int rank = 0; rank < context.world_size; ++rank) {
    recorders.push_back(std::make_unique<Recorder>(std::vector<bf16>{}));
    traces.push_back(recorders.back().get());
  }
  LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results, context.engines.Run(plan, traces));
  if (dict->Contains("fp64.vit_features")) {
    CompareRms(context, case_name, "vit_features", recorders[0]->features, *dict);
  }

  std::vector<int32_t> ids;
  for (const WorkResult& result : results) {
    if (result.token.has_value()) ids.push_back(result.token->id);
  }
  const auto expected = golden["answer_ids"]["fp64"].get<std::vector<int32_t>>();
  int64_t wrong = 0;
  for (size_t i = 0; i < expected.size(); ++i) wrong += i < ids.size() && ids[i] == expected[i] ? 0 : 1;
  context.report.AddExact(case_name, "answer ids", wrong, static_cast<int64_t>(expected.size()));
  if (wrong > 0 || !dict->Contains("fp64.logits")) return absl::OkStatus();
  std::vector<double> logits;
  for (size_t token = 0; token < ids.size(); ++token) {
    const std::vector<double> row = JoinLogits(recorders, token, plan.answer->num_valid_tokens);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  CompareRms(context, case_name, "logits", logits, *dict);
  return absl::OkStatus();
}

}  // namespace lancet
