#include "tools/golden/golden_plan.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/request/plan_builder.h"
#include "coordinator/request/preprocess.h"
#include "coordinator/request/resize_presets.h"
#include "coordinator/request/unicode.h"

namespace lancet {
namespace {

// The system prompt of the public example set, which the oracle used.
constexpr char kAnswerSystemPrompt[] = "Look at the image carefully and answer the question.";

}  // namespace

SamplerParams GoldenSampler(const nlohmann::json& golden) {
  SamplerParams sampler;
  sampler.num_steps = golden.value("steps", sampler.num_steps);
  sampler.timestep_shift = golden.value("shift", sampler.timestep_shift);
  sampler.guidance_scale = golden.value("cfg", sampler.guidance_scale);
  return sampler;
}

absl::StatusOr<RequestPlan> BuildGoldenPlan(const GoldenContext& context, const std::string& case_name,
                                            const nlohmann::json& golden) {
  const CheckpointPaths& paths = context.checkpoint.paths();
  LANCET_ASSIGN_OR_RETURN(auto tokenizer,
                          Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config}));
  LANCET_ASSIGN_OR_RETURN(const auto builder,
                          PlanBuilder::Create({context.checkpoint.config(), std::move(tokenizer), 1 << 20}));
  const std::string prompt(StripWhitespace(golden.value("prompt", "")));
  const std::string task = golden.value("task", "");
  if (task == "t2i") {
    GenerateParams params;
    params.prompt = prompt;
    params.height = golden.value("height", 0);
    params.width = golden.value("width", 0);
    params.sampler = GoldenSampler(golden);
    return builder->Build(1, params);
  }
  LANCET_ASSIGN_OR_RETURN(const RgbImage source, context.folder.Png(absl::StrCat(case_name, ".source.png")));
  LANCET_ASSIGN_OR_RETURN(const ResizePreset preset, FindResizePreset(golden.value("preset", "")));
  LANCET_ASSIGN_OR_RETURN(VisionCrop vision, PrepareForVision(source, preset));
  if (task == "image_edit") {
    LANCET_ASSIGN_OR_RETURN(LatentCrop condition, PrepareForLatents(source, preset));
    EditParams params;
    params.instruction = prompt;
    params.sampler = GoldenSampler(golden);
    return builder->BuildEdit(1, params, std::move(vision.image), std::move(condition.image));
  }
  DescribeParams params;
  params.question = prompt;
  params.system_prompt = golden.value("system", kAnswerSystemPrompt);
  params.max_new_tokens = static_cast<int32_t>(golden["answer_ids"]["fp64"].size());
  return builder->BuildDescribe(1, params, std::move(vision.image));
}

absl::Status CompareTokenIds(const GoldenContext& context, const std::string& case_name,
                             const nlohmann::json& golden, const RequestPlan& plan) {
  const ModelConfig& config = context.checkpoint.config();
  LANCET_ASSIGN_OR_RETURN(const std::vector<int32_t> expected, ExpandRuns(golden["token_ids"]));
  std::vector<int32_t> ids;
  const auto add_visual = [&](int32_t start, int64_t count, int32_t end) {
    ids.push_back(start);
    ids.insert(ids.end(), count, config.video_token_id);
    ids.push_back(end);
  };
  for (const PrefixBlock& block : plan.prefix) {
    if (block.kind == PrefixKind::kText) {
      ids.insert(ids.end(), block.token_ids.begin(), block.token_ids.end());
    } else {
      add_visual(block.token_ids[0], block.rows() - 2, block.token_ids[1]);
    }
  }
  if (plan.draws()) {
    add_visual(plan.target.start_token_id, plan.target.num_latents(), plan.target.end_token_id);
    ids.push_back(config.eos_token_id);
  } else {
    ids.push_back(plan.answer->first_token_id);
  }
  int64_t wrong = std::abs(static_cast<int64_t>(ids.size()) - static_cast<int64_t>(expected.size()));
  for (size_t i = 0; i < std::min(ids.size(), expected.size()); ++i) wrong += ids[i] != expected[i] ? 1 : 0;
  context.report.AddExact(case_name, "token ids", wrong, static_cast<int64_t>(expected.size()));
  return absl::OkStatus();
}

}  // namespace lancet
