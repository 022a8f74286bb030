#include "coordinator/request/plan_builder.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
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

}  // namespace

PlanBuilder::PlanBuilder(Options options, PromptBuilder prompts)
    : options_(std::move(options)), prompts_(std::move(prompts)) {}

absl::StatusOr<std::unique_ptr<PlanBuilder>> PlanBuilder::Create(Options options) {
  if (options.tokenizer == nullptr) return absl::InvalidArgumentError("PlanBuilder needs a tokenizer");
  LANCET_ASSIGN_OR_RETURN(PromptBuilder prompts, PromptBuilder::Create(*options.tokenizer, options.config));
  return std::unique_ptr<PlanBuilder>(new PlanBuilder(std::move(options), std::move(prompts)));
}

absl::StatusOr<RequestPlan> PlanBuilder::Build(uint64_t request_id, const GenerateParams& params) const {
  const LatentGrid grid{1, params.height / kPixelsPerLatent, params.width / kPixelsPerLatent};
  LANCET_ASSIGN_OR_RETURN(std::vector<PromptBlock> blocks,
                          prompts_.TextToImage(*options_.tokenizer, params.prompt, grid));
  std::vector<Positions> conditional = PositionsOf(blocks, /*with_caption=*/true);
  std::vector<Positions> unconditional = PositionsOf(blocks, /*with_caption=*/false);

  RequestPlan plan;
  plan.request_id = request_id;
  plan.sampler = params.sampler;
  plan.seed = params.seed;
  for (size_t i = 0; i + 1 < blocks.size(); ++i) {
    PromptBlock& block = blocks[i];
    const bool caption = block.kind == BlockKind::kCaption;
    if (caption && block.token_ids.size() > static_cast<size_t>(options_.max_prompt_tokens)) {
      return absl::InvalidArgumentError(absl::StrCat("prompt: ", block.token_ids.size(),
                                                     " tokens are more than the limit of ",
                                                     options_.max_prompt_tokens));
    }
    // The reference caches both contexts with the ids of the conditional sequence, so blocks after the
    // caption keep them in the unconditional cache too; only the target has ids of its own there.
    plan.prefix.push_back({std::move(block.token_ids), std::move(conditional[i]), /*conditional=*/true,
                           /*unconditional=*/!caption});
  }
  plan.target.latent_height = grid.h;
  plan.target.latent_width = grid.w;
  plan.target.start_token_id = prompts_.vision_start_id();
  plan.target.end_token_id = prompts_.vision_end_id();
  plan.target.conditional = std::move(conditional.back());
  plan.target.unconditional = std::move(unconditional.back());
  return plan;
}

}  // namespace lancet
