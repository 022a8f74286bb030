// The chat template around a prompt, as blocks of tokens:
//   PRE   <|im_start|>system\n SYSTEM <|im_end|>\n<|im_start|>user\n
//   VIT   <|vision_start|> what the vision tower sees <|vision_end|>
//   COND  <|vision_start|> latents of the picture to be edited <|vision_end|>
//   CAP   the user's text, always plain text; what the unconditional pass leaves out
//   POST  <|im_end|>\n<|im_start|>assistant\n
//   TGT   <|vision_start|> latents <|vision_end|>
// The template's pieces are tokenised apart from the user's text, so CAP is known by construction and nothing
// a user types can end it. An empty prompt has no CAP, and PRE and POST are one block.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model_config.h"
#include "coordinator/request/positions.h"
#include "coordinator/request/tokenizer.h"

namespace lancet {

enum class BlockKind : uint8_t { kTemplate, kCaption, kTarget, kVision, kCondition };

// What a question about a picture is asked with unless the request says otherwise: the model's own words.
inline constexpr char kDescribeSystem[] = "Look at the image carefully and answer the question.";
inline constexpr char kDescribeQuestion[] = "Describe the image.";

struct PromptBlock {
  BlockKind kind = BlockKind::kTemplate;
  std::vector<int32_t> token_ids;  // of text
  LatentGrid grid;                 // of a picture: one token each

  // What positions depend on.
  BlockExtent extent() const;
};

// Copyable, immutable after creation.
class PromptBuilder {
 public:
  // Takes the special tokens from the tokenizer by their content. InvalidArgument names one that is missing
  // or whose id differs from llm_config.json's.
  static absl::StatusOr<PromptBuilder> Create(const Tokenizer& tokenizer, const ModelConfig& config);

  // Blocks of a text-to-image request in order; the last one is the target. `tokenizer` is the one of Create.
  // InvalidArgument if the prompt is not UTF-8.
  absl::StatusOr<std::vector<PromptBlock>> TextToImage(const Tokenizer& tokenizer, absl::string_view prompt,
                                                       LatentGrid grid) const;

  // Blocks of an edit in order: PRE, VIT, COND, CAP, POST, TGT; the target is as large as the condition.
  // `vision` is in tokens, so half the patches on either axis. InvalidArgument if the instruction is not
  // UTF-8.
  absl::StatusOr<std::vector<PromptBlock>> EditImage(const Tokenizer& tokenizer,
                                                     absl::string_view instruction, LatentGrid vision,
                                                     LatentGrid latents) const;

  // Blocks of a question about a picture: PRE with the system prompt given, VIT, the question with POST. The
  // last token is newline_id(). InvalidArgument if a text is not UTF-8.
  absl::StatusOr<std::vector<PromptBlock>> DescribeImage(const Tokenizer& tokenizer, absl::string_view system,
                                                         absl::string_view question, LatentGrid vision) const;

  int32_t newline_id() const { return after_caption_.back(); }
  int32_t end_of_turn_id() const { return end_of_turn_id_; }
  int32_t vision_start_id() const { return vision_start_id_; }
  int32_t vision_end_id() const { return vision_end_id_; }

 private:
  PromptBuilder() = default;

  std::vector<int32_t> before_system_;   // the start of PRE
  std::vector<int32_t> after_system_;    // the end of PRE
  std::vector<int32_t> before_caption_;  // PRE of text to image
  std::vector<int32_t> before_edit_;     // PRE of edits
  std::vector<int32_t> after_caption_;   // POST
  int32_t end_of_turn_id_ = 0;
  int32_t vision_start_id_ = 0;
  int32_t vision_end_id_ = 0;
};

}  // namespace lancet
