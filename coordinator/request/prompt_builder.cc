#include "coordinator/request/prompt_builder.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// The instruction that the model was trained with for text to image, word for word.
constexpr char kTextToImageSystem[] =
    "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships "
    "of the "
    "objects and background:";

// Likewise for edits; the apostrophes are U+2019.
constexpr char kEditSystem[] =
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then "
    "explain how the user\xE2\x80\x99s text instruction should alter or modify the image. Generate a new "
    "image "
    "that meets the user\xE2\x80\x99s requirements while maintaining consistency with the original input "
    "where "
    "appropriate.";

constexpr char kBeforeSystem[] = "<|im_start|>system\n";
constexpr char kAfterSystem[] = "<|im_end|>\n<|im_start|>user\n";
constexpr char kAfterCaption[] = "<|im_end|>\n<|im_start|>assistant\n";

absl::StatusOr<int32_t> RequireAddedToken(const Tokenizer& tokenizer, absl::string_view content) {
  const std::optional<int32_t> id = tokenizer.AddedTokenId(content);
  if (!id.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer_config.json: added token ", content, " is missing"));
  }
  return *id;
}

// The id of `content`, which must be what llm_config.json calls `key`.
absl::StatusOr<int32_t> RequireAgreement(const Tokenizer& tokenizer, absl::string_view content,
                                         absl::string_view key, int32_t expected) {
  LANCET_ASSIGN_OR_RETURN(const int32_t id, RequireAddedToken(tokenizer, content));
  if (id != expected) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer_config.json: ", content, " has id ", id,
                                                   ", but llm_config.json says ", key, " = ", expected));
  }
  return id;
}

}  // namespace

BlockExtent PromptBlock::extent() const {
  BlockExtent extent;
  if (grid.num_tokens() > 0) {
    extent.grid = grid;
  } else {
    extent.num_text_tokens = static_cast<int64_t>(token_ids.size());
  }
  return extent;
}

absl::StatusOr<PromptBuilder> PromptBuilder::Create(const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.size() > config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tokenizer has ", tokenizer.size(),
                     " tokens, but llm_config.json says vocab_size = ", config.vocab_size));
  }
  PromptBuilder builder;
  LANCET_RETURN_IF_ERROR(RequireAddedToken(tokenizer, "<|im_start|>").status());
  LANCET_ASSIGN_OR_RETURN(builder.end_of_turn_id_,
                          RequireAgreement(tokenizer, "<|im_end|>", "eos_token_id", config.eos_token_id));
  LANCET_RETURN_IF_ERROR(
      RequireAgreement(tokenizer, "<|video_pad|>", "video_token_id", config.video_token_id).status());
  LANCET_ASSIGN_OR_RETURN(
      builder.vision_start_id_,
      RequireAgreement(tokenizer, "<|vision_start|>", "vision_start_token_id", config.vision_start_token_id));
  LANCET_ASSIGN_OR_RETURN(
      builder.vision_end_id_,
      RequireAgreement(tokenizer, "<|vision_end|>", "vision_end_token_id", config.vision_end_token_id));
  LANCET_ASSIGN_OR_RETURN(builder.before_system_, tokenizer.EncodeWithSpecials(kBeforeSystem));
  LANCET_ASSIGN_OR_RETURN(builder.after_system_, tokenizer.EncodeWithSpecials(kAfterSystem));
  LANCET_ASSIGN_OR_RETURN(builder.before_caption_, tokenizer.EncodeWithSpecials(absl::StrCat(
                                                       kBeforeSystem, kTextToImageSystem, kAfterSystem)));
  LANCET_ASSIGN_OR_RETURN(builder.before_edit_, tokenizer.EncodeWithSpecials(
                                                    absl::StrCat(kBeforeSystem, kEditSystem, kAfterSystem)));
  LANCET_ASSIGN_OR_RETURN(builder.after_caption_, tokenizer.EncodeWithSpecials(kAfterCaption));
  LANCET_ASSIGN_OR_RETURN(const std::string last, tokenizer.Decode({builder.after_caption_.back()}));
  if (last != "\n") {
    return absl::InvalidArgumentError("vocab.json: a line break after text is not a token of its own");
  }
  return builder;
}

absl::StatusOr<std::vector<PromptBlock>> PromptBuilder::TextToImage(const Tokenizer& tokenizer,
                                                                    absl::string_view prompt,
                                                                    LatentGrid grid) const {
  LANCET_ASSIGN_OR_RETURN(std::vector<int32_t> caption, tokenizer.Encode(prompt));
  std::vector<PromptBlock> blocks;
  blocks.push_back({BlockKind::kTemplate, before_caption_, {}});
  if (caption.empty()) {
    // Blocks of no tokens do not exist, and neighbours of one kind are one run.
    std::vector<int32_t>& ids = blocks.front().token_ids;
    ids.insert(ids.end(), after_caption_.begin(), after_caption_.end());
  } else {
    blocks.push_back({BlockKind::kCaption, std::move(caption), {}});
    blocks.push_back({BlockKind::kTemplate, after_caption_, {}});
  }
  blocks.push_back({BlockKind::kTarget, {}, grid});
  return blocks;
}

absl::StatusOr<std::vector<PromptBlock>> PromptBuilder::EditImage(const Tokenizer& tokenizer,
                                                                  absl::string_view instruction,
                                                                  LatentGrid vision,
                                                                  LatentGrid latents) const {
  LANCET_ASSIGN_OR_RETURN(std::vector<int32_t> caption, tokenizer.Encode(instruction));
  std::vector<PromptBlock> blocks;
  blocks.push_back({BlockKind::kTemplate, before_edit_, {}});
  blocks.push_back({BlockKind::kVision, {}, vision});
  blocks.push_back({BlockKind::kCondition, {}, latents});
  if (!caption.empty()) blocks.push_back({BlockKind::kCaption, std::move(caption), {}});
  blocks.push_back({BlockKind::kTemplate, after_caption_, {}});
  blocks.push_back({BlockKind::kTarget, {}, latents});
  return blocks;
}

absl::StatusOr<std::vector<PromptBlock>> PromptBuilder::DescribeImage(const Tokenizer& tokenizer,
                                                                      absl::string_view system,
                                                                      absl::string_view question,
                                                                      LatentGrid vision) const {
  // Apart from the template, so that nothing in a text of the user's becomes a special token.
  LANCET_ASSIGN_OR_RETURN(const std::vector<int32_t> system_ids, tokenizer.Encode(system));
  LANCET_ASSIGN_OR_RETURN(std::vector<int32_t> last, tokenizer.Encode(question));
  std::vector<int32_t> first = before_system_;
  first.insert(first.end(), system_ids.begin(), system_ids.end());
  first.insert(first.end(), after_system_.begin(), after_system_.end());
  last.insert(last.end(), after_caption_.begin(), after_caption_.end());
  std::vector<PromptBlock> blocks;
  blocks.push_back({BlockKind::kTemplate, std::move(first), {}});
  blocks.push_back({BlockKind::kVision, {}, vision});
  blocks.push_back({BlockKind::kCaption, std::move(last), {}});
  return blocks;
}

}  // namespace lancet
