// From checked parameters to the plan that ranks execute: tokens, blocks, positions. The last step that sees
// text.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/request_plan.h"
#include "coordinator/request/admission.h"
#include "coordinator/request/prompt_builder.h"
#include "coordinator/request/tokenizer.h"

namespace lancet {

// Immutable after creation, so thread-safe.
class PlanBuilder {
 public:
  struct Options {
    ModelConfig config;
    std::unique_ptr<const Tokenizer> tokenizer;
    int32_t max_prompt_tokens = 2048;
  };

  // InvalidArgument if the tokenizer and llm_config.json do not belong together; names the token or key.
  static absl::StatusOr<std::unique_ptr<PlanBuilder>> Create(Options options);

  // InvalidArgument if the prompt has too many tokens or is not UTF-8.
  absl::StatusOr<RequestPlan> Build(uint64_t request_id, const GenerateParams& params) const;

  // Likewise of the instruction. The images are crops as preprocess.h makes them; the picture drawn is as
  // large as `condition`.
  absl::StatusOr<RequestPlan> BuildEdit(uint64_t request_id, const EditParams& params, RgbImage vision,
                                        RgbImage condition) const;

  // Likewise of question and system prompt, counted together.
  absl::StatusOr<RequestPlan> BuildDescribe(uint64_t request_id, const DescribeParams& params,
                                            RgbImage vision) const;

  const Tokenizer& tokenizer() const { return *options_.tokenizer; }

  int32_t end_of_turn_id() const { return prompts_.end_of_turn_id(); }

 private:
  absl::Status CheckTokens(absl::string_view field, size_t count) const;
  // Prefix and target of a plan that draws; `field` names the caption in errors.
  absl::Status AddPicture(absl::string_view field, std::vector<PromptBlock> blocks, RequestPlan& plan) const;
  // A block of the conditional and, but for captions, the unconditional cache.
  PrefixBlock ToPrefix(PromptBlock block, Positions positions) const;
  PlanBuilder(Options options, PromptBuilder prompts);

  const Options options_;
  const PromptBuilder prompts_;
};

}  // namespace lancet
