#include "coordinator/request/plan_builder.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/vision_config.h"
#include "coordinator/request/positions.h"

namespace lancet {
namespace {

std::vector<Positions> PositionsOf(const std::vector<PromptBlock>& blocks, bool with_caption) {
  std::vector<BlockExtent> extents;
  for (const PromptBlock& block : blocks) {
    if (with_caption || block.kind != BlockKind::kCaption) extents.push_back(block.extent());
  }
  return NaturalPositions(extents);
}

// In edits, the id on the axis of time of the first token of what the vision tower sees.
constexpr int32_t kVisionTime = 1000;

// Tokens of the vision tower for a still picture: 2 x 2 patches each.
LatentGrid TokensOf(const RgbImage& vision) {
  return {1, vision.height / kVisionCellSide, vision.width / kVisionCellSide};
}

}  // namespace

PlanBuilder::PlanBuilder(Options options, PromptBuilder prompts)
    : options_(std::move(options)), prompts_(std::move(prompts)) {}

absl::StatusOr<std::unique_ptr<PlanBuilder>> PlanBuilder::Create(Options options) {
  if (options.tokenizer == nullptr) return absl::InvalidArgumentError("PlanBuilder needs a tokenizer");
  LANCET_ASSIGN_OR_RETURN(PromptBuilder prompts, PromptBuilder::Create(*options.tokenizer, options.config));
  return std::unique_ptr<PlanBuilder>(new PlanBuilder(std::move(options), std::move(prompts)));
}

absl::Status PlanBuilder::CheckTokens(absl::string_view field, size_t count) const {
  if (count <= static_cast<size_t>(options_.max_prompt_tokens)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", count, " tokens are more than the limit of ", options_.max_prompt_tokens));
}

PrefixBlock PlanBuilder::ToPrefix(PromptBlock block, Positions positions) const {
  PrefixBlock prefix;
  prefix.positions = std::move(positions);
  // The reference caches both contexts with the ids of the conditional sequence, so blocks after the caption
  // keep them in the unconditional cache too; only the target has ids of its own there.
  prefix.unconditional = block.kind != BlockKind::kCaption;
  if (block.kind == BlockKind::kVision || block.kind == BlockKind::kCondition) {
    prefix.kind = block.kind == BlockKind::kVision ? PrefixKind::kVision : PrefixKind::kLatents;
    prefix.token_ids = {prompts_.vision_start_id(), prompts_.vision_end_id()};
  } else {
    prefix.token_ids = std::move(block.token_ids);
  }
  return prefix;
}

absl::StatusOr<RequestPlan> PlanBuilder::Build(uint64_t request_id, const GenerateParams& params) const {
  const LatentGrid grid{1, params.height / kPixelsPerLatent, params.width / kPixelsPerLatent};
  LANCET_ASSIGN_OR_RETURN(std::vector<PromptBlock> blocks,
                          prompts_.TextToImage(*options_.tokenizer, params.prompt, grid));
  RequestPlan plan;
  plan.request_id = request_id;
  plan.sampler = params.sampler;
  plan.seed = params.seed;
  LANCET_RETURN_IF_ERROR(AddPicture("prompt", std::move(blocks), plan));
  return plan;
}

absl::Status PlanBuilder::AddPicture(absl::string_view field, std::vector<PromptBlock> blocks,
                                     RequestPlan& plan) const {
  std::vector<Positions> conditional = PositionsOf(blocks, /*with_caption=*/true);
  std::vector<Positions> unconditional = PositionsOf(blocks, /*with_caption=*/false);
  for (size_t i = 0; i + 1 < blocks.size(); ++i) {
    if (blocks[i].kind == BlockKind::kCaption)
      LANCET_RETURN_IF_ERROR(CheckTokens(field, blocks[i].token_ids.size()));
    plan.prefix.push_back(ToPrefix(std::move(blocks[i]), std::move(conditional[i])));
  }
  const LatentGrid grid = blocks.back().grid;
  plan.target.latent_height = grid.h;
  plan.target.latent_width = grid.w;
  plan.target.start_token_id = prompts_.vision_start_id();
  plan.target.end_token_id = prompts_.vision_end_id();
  plan.target.conditional = std::move(conditional.back());
  plan.target.unconditional = std::move(unconditional.back());
  return absl::OkStatus();
}

absl::StatusOr<RequestPlan> PlanBuilder::BuildEdit(uint64_t request_id, const EditParams& params,
                                                   RgbImage vision, RgbImage condition) const {
  const LatentGrid latents{1, condition.height / kPixelsPerLatent, condition.width / kPixelsPerLatent};
  LANCET_ASSIGN_OR_RETURN(
      std::vector<PromptBlock> blocks,
      prompts_.EditImage(*options_.tokenizer, params.instruction, TokensOf(vision), latents));
  RequestPlan plan;
  plan.request_id = request_id;
  plan.sampler = params.sampler;
  plan.seed = params.seed;
  plan.sample_condition = params.sample_condition;
  LANCET_RETURN_IF_ERROR(AddPicture("instruction", std::move(blocks), plan));
  // What the tower sees moves away on the axis of time; the picture drawn takes the place of the one given.
  const auto of_kind = [&plan](PrefixKind kind) -> PrefixBlock& {
    return *std::find_if(plan.prefix.begin(), plan.prefix.end(),
                         [kind](const PrefixBlock& block) { return block.kind == kind; });
  };
  Positions& seen = of_kind(PrefixKind::kVision).positions;
  const int32_t shift = kVisionTime - seen.t.front();
  for (int32_t& t : seen.t) t += shift;
  plan.target.conditional = of_kind(PrefixKind::kLatents).positions;
  plan.target.unconditional = plan.target.conditional;
  plan.vision_image = std::move(vision);
  plan.condition_image = std::move(condition);
  return plan;
}

absl::StatusOr<RequestPlan> PlanBuilder::BuildDescribe(uint64_t request_id, const DescribeParams& params,
                                                       RgbImage vision) const {
  LANCET_ASSIGN_OR_RETURN(
      std::vector<PromptBlock> blocks,
      prompts_.DescribeImage(*options_.tokenizer, params.system_prompt, params.question, TokensOf(vision)));
  LANCET_RETURN_IF_ERROR(CheckTokens("question, system_prompt",
                                     blocks.front().token_ids.size() + blocks.back().token_ids.size()));
  std::vector<Positions> positions = PositionsOf(blocks, /*with_caption=*/true);
  RequestPlan plan;
  plan.request_id = request_id;
  plan.seed = params.seed;
  for (size_t i = 0; i < blocks.size(); ++i) {
    plan.prefix.push_back(ToPrefix(std::move(blocks[i]), std::move(positions[i])));
    plan.prefix.back().unconditional = false;
  }
  // The last token is held back: it is fed first, and the answer begins.
  PrefixBlock& last = plan.prefix.back();
  AnswerParams& answer = plan.answer.emplace();
  answer.max_new_tokens = params.max_new_tokens;
  answer.temperature = params.temperature;
  answer.first_token_id = last.token_ids.back();
  answer.first_position = last.positions.t.back();
  answer.stop_token_id = prompts_.end_of_turn_id();
  answer.num_valid_tokens = options_.tokenizer->size();
  last.token_ids.pop_back();
  for (auto* axis : {&last.positions.t, &last.positions.h, &last.positions.w}) axis->pop_back();
  plan.vision_image = std::move(vision);
  return plan;
}

}  // namespace lancet
